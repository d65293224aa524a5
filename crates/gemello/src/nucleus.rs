//! The nucleus as a guest: its image, and the disk it pages to.

/// The bootable image.
pub(crate) const IMAGE: &[u8] = nucleus_image::NUCLEUS;
/// Its memory unless the user says otherwise: little, so that paging can be seen.
pub(crate) const MEMORY: u64 = 64 << 20;
/// The disk that it pages to, where the user gives it none.
pub(crate) const SWAP: u64 = 64 << 20;
