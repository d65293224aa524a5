//! What has no bound in the formats, and has one here.

/// Bytes of a path.
pub const PATH: usize = 4095;
/// Bytes of one component of it.
pub const NAME: usize = 255;
/// Bytes of the records that precede an entry.
pub const RECORDS: u64 = 1 << 20;
/// Bytes of one file's extended attributes: an inode of ext4 has less room, and a tree's stay in
/// memory.
pub const ATTRIBUTES: usize = 16 << 10;
/// Files, folders and links of a tree, and entries of one archive: some hundred bytes of memory
/// each.
pub const NODES: usize = 4 << 20;
/// Links that one path leads through.
pub const LINKS: usize = 40;
/// Bytes of a file that is read from a tree, such as `/etc/passwd`.
pub const TEXT: u64 = 4 << 20;
/// Folders within each other.
pub const DEPTH: usize = 1000;
