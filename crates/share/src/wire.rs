//! FUSE's wire format, protocol 7.38 (Linux, include/uapi/linux/fuse.h): numbers and sizes.
//! Integers are in the host's order, which is the guest's: little-endian.

/// The major version.
pub(crate) const MAJOR: u32 = 7;
/// The minor version.
pub(crate) const MINOR: u32 = 38;
/// The oldest minor version of a guest: that of Linux 5.4, the first with virtio-fs.
pub(crate) const MINOR_LEAST: u32 = 31;

/// Bytes of `fuse_in_header`.
pub(crate) const IN_HEADER: usize = 40;
/// Bytes of `fuse_out_header`.
pub(crate) const OUT_HEADER: usize = 16;
/// Bytes of `fuse_write_in`.
pub(crate) const WRITE_IN: usize = 40;
/// Bytes of `fuse_entry_out`, and of `fuse_dirent` without its name.
pub(crate) const ENTRY_OUT: usize = 128;
pub(crate) const DIRENT: usize = 24;

/// What a request asks for (`enum fuse_opcode`). The others are answered with ENOSYS.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const SYNCFS: u32 = 50;
    pub(crate) const TMPFILE: u32 = 51;

    /// Numbers are below this.
    pub(crate) const END: usize = 64;

    /// What they are called.
    pub(crate) const NAMES: [(u32, &str); 37] = [
        (LOOKUP, "LOOKUP"),
        (FORGET, "FORGET"),
        (GETATTR, "GETATTR"),
        (SETATTR, "SETATTR"),
        (READLINK, "READLINK"),
        (SYMLINK, "SYMLINK"),
        (MKNOD, "MKNOD"),
        (MKDIR, "MKDIR"),
        (UNLINK, "UNLINK"),
        (RMDIR, "RMDIR"),
        (RENAME, "RENAME"),
        (LINK, "LINK"),
        (OPEN, "OPEN"),
        (READ, "READ"),
        (WRITE, "WRITE"),
        (STATFS, "STATFS"),
        (RELEASE, "RELEASE"),
        (FSYNC, "FSYNC"),
        (SETXATTR, "SETXATTR"),
        (GETXATTR, "GETXATTR"),
        (LISTXATTR, "LISTXATTR"),
        (REMOVEXATTR, "REMOVEXATTR"),
        (INIT, "INIT"),
        (OPENDIR, "OPENDIR"),
        (READDIR, "READDIR"),
        (RELEASEDIR, "RELEASEDIR"),
        (FSYNCDIR, "FSYNCDIR"),
        (CREATE, "CREATE"),
        (DESTROY, "DESTROY"),
        (BATCH_FORGET, "BATCH_FORGET"),
        (FALLOCATE, "FALLOCATE"),
        (READDIRPLUS, "READDIRPLUS"),
        (RENAME2, "RENAME2"),
        (LSEEK, "LSEEK"),
        (COPY_FILE_RANGE, "COPY_FILE_RANGE"),
        (SYNCFS, "SYNCFS"),
        (TMPFILE, "TMPFILE"),
    ];
}

/// What both sides can do (INIT).
pub(crate) mod init {
    pub(crate) const ASYNC_READ: u32 = 1 << 0;
    pub(crate) const ATOMIC_O_TRUNC: u32 = 1 << 3;
    pub(crate) const BIG_WRITES: u32 = 1 << 5;
    pub(crate) const AUTO_INVAL_DATA: u32 = 1 << 12;
    pub(crate) const DO_READDIRPLUS: u32 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub(crate) const ASYNC_DIO: u32 = 1 << 15;
    pub(crate) const PARALLEL_DIROPS: u32 = 1 << 18;
    pub(crate) const MAX_PAGES: u32 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u32 = 1 << 23;
    pub(crate) const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
}

/// What SETATTR sets (`FATTR_*`).
pub(crate) mod set {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
}

/// `FUSE_GETATTR_FH`: by the handle.
pub(crate) const GETATTR_FH: u32 = 1 << 0;
/// `FUSE_FSYNC_FDATASYNC`.
pub(crate) const FSYNC_DATA: u32 = 1 << 0;
/// `FUSE_WRITE_CACHE`: pages of the guest's cache, by whichever handle.
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
/// `FOPEN_KEEP_CACHE`: what the guest has cached of the file is good.
pub(crate) const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_CACHE_DIR`: the guest may keep what is in the directory.
pub(crate) const FOPEN_CACHE_DIR: u32 = 1 << 3;
