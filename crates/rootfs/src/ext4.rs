//! A tree as an ext4 image, laid out by the crate mkext4: all metadata first, then the content in
//! the order of its places. Equal trees and parameters give equal images.

use crate::acl;
use crate::archive::{Content, Time};
use crate::error::WriteError;
use crate::tree::{Node, NodeId, NodeKind, ROOT, Tree};
use mkext4::{
    FsBuilder, InodeCount, InodeHandle, Meta, Options, ROOT as ROOT_INODE, RegionSink, SpecialKind,
};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

const BLOCK: u64 = 4096;
/// Bytes of a block group: images have whole ones.
const GROUP: u64 = 128 << 20;
/// For an inode, its name and a folder's block, more than enough.
const PER_NODE: u64 = 2 * BLOCK;
/// Bytes of a file system that mkext4 lays out, at the most.
const LARGEST: u64 = 15 << 40;
/// ext4 has a folder of this name for e2fsck.
const LOST_AND_FOUND: &[u8] = b"lost+found";
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// What names a file system: its UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub [u8; 16]);

/// What an image is to be beside its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its UUID.
    pub identity: Identity,
    /// Bytes that are free in it, or some more.
    pub room: u64,
}

impl Tree {
    /// Writes the tree, whose content lies in `spool`, to `image`, which is empty. Blocks of zeros
    /// take no space of the host's. Nothing is flushed.
    ///
    /// # Errors
    /// The host's, or ext4 cannot hold what the tree has.
    pub fn write(
        &self,
        spool: &File,
        image: &File,
        file_system: FileSystem,
    ) -> Result<(), WriteError> {
        let mut plan = Plan::new(self, file_system)?;
        plan.folders(self)?;
        let Plan { builder, contents, bytes, .. } = plan;
        let layout = builder.seal().map_err(whole)?;
        image.set_len(bytes)?;
        let mut writer = layout.writer(Sparse(image)).map_err(whole)?;
        for (inode, content) in contents {
            writer.fill(inode, &mut Part { spool, content }).map_err(whole)?;
        }
        writer.finish().map_err(whole)?;
        Ok(())
    }

    /// Bytes that the file system needs, `room` apart.
    fn bytes(&self) -> u64 {
        let nodes = (0..self.len()).map(|n| self.node(NodeId(n)));
        let contents = nodes.filter_map(|node| match &node.kind {
            NodeKind::File(content) => Some(content.bytes.next_multiple_of(BLOCK)),
            _ => None,
        });
        contents.fold(self.len() as u64 * PER_NODE, u64::saturating_add)
    }
}

/// What is told to mkext4.
struct Plan {
    builder: FsBuilder,
    /// Bytes of the image.
    bytes: u64,
    /// The inode of each node that has one already.
    inodes: Vec<Option<InodeHandle>>,
    /// What is to be copied, in the order in which mkext4 was told.
    contents: Vec<(InodeHandle, Content)>,
}

/// A folder that is still to be told of. Its whole path is not kept: many of many may be long.
struct Way<'t> {
    above: Option<Rc<Self>>,
    name: &'t [u8],
}

impl Way<'_> {
    /// Its path, but of the root, which is empty.
    fn path(&self) -> Vec<u8> {
        let (mut names, mut here) = (Vec::new(), Some(self));
        while let Some(way) = here {
            names.push(way.name);
            here = way.above.as_deref();
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl Plan {
    fn new(tree: &Tree, file_system: FileSystem) -> Result<Self, WriteError> {
        let used = tree.bytes();
        // Inode tables, bitmaps and the journal take less than a sixteenth.
        let bytes = used.checked_add(file_system.room).and_then(|sum| sum.checked_add(sum / 16));
        let bytes = bytes.filter(|bytes| *bytes <= LARGEST).ok_or_else(|| {
            WriteError::Layout(format!("{used} bytes are more than a file system holds"))
        })?;
        let bytes = bytes.next_multiple_of(GROUP);
        let mut options = Options::new(bytes, file_system.identity.0, 0);
        let nodes = u32::try_from(tree.len()).unwrap_or(u32::MAX);
        let usual = u32::try_from(bytes / (4 * BLOCK)).unwrap_or(u32::MAX);
        options.inodes = InodeCount::Exact(usual.max(nodes.saturating_mul(2)));
        options.reserved_percent = 0;
        let builder = FsBuilder::new(options).map_err(whole)?;
        let mut inodes = vec![None; tree.len()];
        inodes[ROOT.0] = Some(ROOT_INODE);
        Ok(Self { builder, bytes, inodes, contents: Vec::new() })
    }

    /// Tells of all folders, and of what is in each.
    fn folders(&mut self, tree: &Tree) -> Result<(), WriteError> {
        let root = tree.node(ROOT);
        self.builder.set_meta(ROOT_INODE, meta(root)).map_err(unfit(b"/"))?;
        self.attributes(ROOT_INODE, root, b"/")?;
        let mut ahead = vec![(ROOT, ROOT_INODE, Rc::new(Way { above: None, name: b"" }))];
        while let Some((folder, inode, way)) = ahead.pop() {
            let NodeKind::Directory(children) = &tree.node(folder).kind else { continue };
            let above = way.path();
            for (name, child) in children {
                if folder == ROOT && name == LOST_AND_FOUND {
                    lost_and_found(tree.node(child.node))?;
                    continue;
                }
                let path = [&above[..], b"/", name].concat();
                if let Some(made) = self.name(tree, inode, (name, child.node), &path)? {
                    let way = Way { above: Some(Rc::clone(&way)), name };
                    ahead.push((child.node, made, Rc::new(way)));
                }
            }
        }
        Ok(())
    }

    /// Tells of one name in the folder `parent`; its inode if it is a folder's.
    fn name(
        &mut self,
        tree: &Tree,
        parent: InodeHandle,
        (name, id): (&[u8], NodeId),
        path: &[u8],
    ) -> Result<Option<InodeHandle>, WriteError> {
        let name = text(name, path)?;
        if let Some(inode) = self.inodes[id.0] {
            self.builder.hardlink(parent, name, inode).map_err(unfit(path))?;
            return Ok(None);
        }
        let node = tree.node(id);
        let (builder, meta) = (&mut self.builder, meta(node));
        let inode = match &node.kind {
            NodeKind::Directory(_) => builder.mkdir(parent, name, meta),
            NodeKind::File(content) => builder.file(parent, name, meta, content.bytes),
            NodeKind::Symlink(to) => builder.symlink(parent, name, text(to, path)?, meta),
            &NodeKind::Character(major, minor) => {
                builder.mknod(parent, name, meta, SpecialKind::Char { major, minor })
            }
            &NodeKind::Block(major, minor) => {
                builder.mknod(parent, name, meta, SpecialKind::Block { major, minor })
            }
            NodeKind::Pipe => builder.mknod(parent, name, meta, SpecialKind::Fifo),
        };
        let inode = inode.map_err(unfit(path))?;
        self.inodes[id.0] = Some(inode);
        self.attributes(inode, node, path)?;
        if let NodeKind::File(content) = &node.kind
            && content.bytes > 0
        {
            self.contents.push((inode, *content));
        }
        Ok(matches!(node.kind, NodeKind::Directory(_)).then_some(inode))
    }

    fn attributes(
        &mut self,
        inode: InodeHandle,
        node: &Node,
        path: &[u8],
    ) -> Result<(), WriteError> {
        for (name, value) in &node.attributes {
            let kept;
            let value = if name == ACCESS || name == DEFAULT {
                let none =
                    || unfit(path)(mkext4::Error::Invalid("its list of rights is none".into()));
                kept = acl::kept(value).ok_or_else(none)?;
                &kept
            } else {
                value
            };
            let name = text(name, path)?;
            self.builder.set_xattr(inode, name, value).map_err(unfit(path))?;
        }
        Ok(())
    }
}

/// That nothing is lost of the layers' folder of this name: ext4 has its own.
fn lost_and_found(node: &Node) -> Result<(), WriteError> {
    match &node.kind {
        NodeKind::Directory(children) if children.is_empty() => Ok(()),
        _ => {
            let (path, why) = ("/lost+found".to_owned(), "the name is ext4's own".to_owned());
            Err(WriteError::Unfit { path, why })
        }
    }
}

fn meta(node: &Node) -> Meta {
    let Time { seconds, nanoseconds } = node.modified;
    Meta::new(node.mode, node.owner.user, node.owner.group, (seconds, nanoseconds))
}

/// `bytes`, part of what is told of the file at `path`, as the text that mkext4 takes.
fn text<'b>(bytes: &'b [u8], path: &[u8]) -> Result<&'b str, WriteError> {
    let unfit = |_| WriteError::Unfit { path: shown(path), why: "a name is not UTF-8".into() };
    std::str::from_utf8(bytes).map_err(unfit)
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).collect()
}

/// Why the file at `path` could not be told of.
fn unfit(path: &[u8]) -> impl Fn(mkext4::Error) -> WriteError {
    move |error| match error {
        mkext4::Error::Io(error) => WriteError::Host(error),
        other => WriteError::Unfit { path: shown(path), why: other.to_string() },
    }
}

/// Why the whole could not be laid out or written.
fn whole(error: mkext4::Error) -> WriteError {
    match error {
        mkext4::Error::Io(error) => WriteError::Host(error),
        other => WriteError::Layout(other.to_string()),
    }
}

/// An image whose blocks of zeros are holes.
struct Sparse<'f>(&'f File);

impl RegionSink for Sparse<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Runs of blocks that hold something are written at once.
        let mut begin = None;
        for (n, block) in bytes.chunks(BLOCK as usize).enumerate() {
            let at = n * BLOCK as usize;
            match (block.iter().any(|&byte| byte != 0), begin) {
                (true, None) => begin = Some(at),
                (false, Some(from)) => {
                    self.0.write_all_at(&bytes[from..at], offset + from as u64)?;
                    begin = None;
                }
                _ => {}
            }
        }
        begin.map_or(Ok(()), |from| self.0.write_all_at(&bytes[from..], offset + from as u64))
    }

    fn zeros(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

/// What is left to read of a part of the spool.
struct Part<'f> {
    spool: &'f File,
    content: Content,
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Content { offset, bytes } = &mut self.content;
        let most = usize::try_from(*bytes).unwrap_or(usize::MAX).min(into.len());
        let count = self.spool.read_at(&mut into[..most], *offset)?;
        *offset += count as u64;
        *bytes -= count as u64;
        Ok(count)
    }
}
