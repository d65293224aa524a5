//! Any bytes as layers: the result is a message, or an image that another program reads.

use ext4_view::Ext4;
use rootfs::{Content, FileSystem, Identity, Tree};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// A file in memory.
fn scratch() -> File {
    File::from(memfd_create("rootfs", MemfdFlags::CLOEXEC).expect("memory"))
}

/// `layers` as a tree, written to an image if that is possible.
pub(crate) fn build(layers: &[&[u8]]) -> Result<File, String> {
    let (spool, image) = (scratch(), scratch());
    let (mut tree, mut offset) = (Tree::default(), 0);
    for layer in layers {
        spool.write_all_at(layer, offset).expect("memory");
        let content = Content { offset, bytes: layer.len() as u64 };
        tree.apply(&spool, content).map_err(|error| error.to_string())?;
        offset += content.bytes;
    }
    let file_system = FileSystem { identity: Identity([7; 16]), room: 1 << 20 };
    tree.write(&spool, &image, file_system).map_err(|error| error.to_string())?;
    Ok(image)
}

/// The first byte tells where the data is cut into two layers.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(data.len() * usize::from(cut) / 256 / 512 * 512);
    if let Ok(image) = build(&[first, second]) {
        let image = Ext4::load(Box::new(Image(image))).expect("a file system");
        image.read_dir("/").expect("its root").for_each(|entry| drop(entry.expect("an entry")));
    }
}

/// For the reader.
#[derive(Debug)]
pub(crate) struct Image(pub(crate) File);

impl ext4_view::Ext4Read for Image {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_exact_at(dst, start_byte)?)
    }
}
