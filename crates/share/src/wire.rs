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
    /// Each as a constant, and all with their names.
    macro_rules! opcodes {
        ($($name:ident = $number:literal,)*) => {
            $(pub(crate) const $name: u32 = $number;)*
            pub(crate) const NAMES: &[(u32, &str)] = &[$(($name, stringify!($name)),)*];
        };
    }

    opcodes! {
        LOOKUP = 1,
        FORGET = 2,
        GETATTR = 3,
        SETATTR = 4,
        READLINK = 5,
        SYMLINK = 6,
        MKNOD = 8,
        MKDIR = 9,
        UNLINK = 10,
        RMDIR = 11,
        RENAME = 12,
        LINK = 13,
        OPEN = 14,
        READ = 15,
        WRITE = 16,
        STATFS = 17,
        RELEASE = 18,
        FSYNC = 20,
        SETXATTR = 21,
        GETXATTR = 22,
        LISTXATTR = 23,
        REMOVEXATTR = 24,
        INIT = 26,
        OPENDIR = 27,
        READDIR = 28,
        RELEASEDIR = 29,
        FSYNCDIR = 30,
        CREATE = 35,
        DESTROY = 38,
        BATCH_FORGET = 42,
        FALLOCATE = 43,
        READDIRPLUS = 44,
        RENAME2 = 45,
        LSEEK = 46,
        COPY_FILE_RANGE = 47,
        SYNCFS = 50,
        TMPFILE = 51,
    }

    /// Numbers are below this.
    pub(crate) const END: usize = 64;
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
    pub(crate) const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
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
