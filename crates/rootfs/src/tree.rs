//! The names that the layers leave, and what they are the names of.

use crate::archive::{Content, Entry, Kind, Owner, Time};
use crate::error::LayerError;
use crate::limits;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Which node of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(crate) usize);

/// The folder in which all others are.
pub(crate) const ROOT: NodeId = NodeId(0);

/// What a name is the name of: an inode to be.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) mode: u16,
    pub(crate) owner: Owner,
    pub(crate) modified: Time,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    Directory(BTreeMap<Vec<u8>, Name>),
    File(Content),
    Symlink(Vec<u8>),
    Character(u32, u32),
    Block(u32, u32),
    Pipe,
}

/// A name in a folder: of what, and since which layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) node: NodeId,
    layer: usize,
}

/// What is done about folders that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// They are made.
    Make,
    /// Nothing.
    Leave,
}

/// The files of a root file system, as the layers leave them that were applied so far.
///
/// The content of all of them lies in one file, the *spool*, which whoever calls keeps unchanged.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// How many layers were applied before the one that is.
    pub(crate) layer: usize,
    /// Folders that have lost what earlier layers had in them, in this layer.
    emptied: HashSet<NodeId>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::folder()], layer: 0, emptied: HashSet::new() }
    }
}

impl Node {
    fn folder() -> Self {
        Self {
            kind: NodeKind::Directory(BTreeMap::new()),
            mode: 0o755,
            owner: Owner::default(),
            modified: Time::default(),
            attributes: Vec::new(),
        }
    }
}

impl Tree {
    /// How many files, folders and links it has had.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    fn children(&self, folder: NodeId) -> Option<&BTreeMap<Vec<u8>, Name>> {
        match &self.nodes[folder.0].kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// The names in `folder`, to be changed.
    fn children_mut(&mut self, folder: NodeId) -> Option<&mut BTreeMap<Vec<u8>, Name>> {
        match &mut self.nodes[folder.0].kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// What is called `name` in `folder`.
    pub(crate) fn child(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        Some(self.children(folder)?.get(name)?.node)
    }

    pub(crate) fn is_folder(&self, id: NodeId) -> bool {
        matches!(self.nodes[id.0].kind, NodeKind::Directory(_))
    }

    fn add(&mut self, node: Node) -> Result<NodeId, String> {
        if self.nodes.len() >= limits::NODES {
            return Err(format!("is one more than the {} files that a tree has", limits::NODES));
        }
        self.nodes.push(node);
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Where `path` leads from the root, links followed, which never leave the root. `None`: it
    /// leads to nothing.
    ///
    /// # Errors
    /// It leads through a file, or through too many links or folders.
    fn walk(&mut self, path: &[&[u8]], missing: Missing) -> Result<Option<NodeId>, String> {
        let mut way = vec![ROOT];
        let mut ahead: Vec<Vec<u8>> = path.iter().rev().map(|part| part.to_vec()).collect();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            let here = way.last().copied().unwrap_or(ROOT);
            if part == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let next = match (self.child(here, &part), missing) {
                (Some(next), _) => next,
                (None, Missing::Leave) => return Ok(None),
                (None, Missing::Make) => {
                    let made = self.add(Node::folder())?;
                    self.name(here, &part, made)?;
                    made
                }
            };
            match &self.nodes[next.0].kind {
                NodeKind::Symlink(target) => {
                    links += 1;
                    if links > limits::LINKS {
                        return Err(format!("leads through more than {} links", limits::LINKS));
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    ahead.extend(parts(target).iter().rev().map(|part| part.to_vec()));
                }
                NodeKind::Directory(_) => way.push(next),
                _ if ahead.is_empty() => return Ok(Some(next)),
                _ => {
                    let part = String::from_utf8_lossy(&part);
                    return Err(format!("leads through {part}, which is no folder"));
                }
            }
            if way.len() > limits::DEPTH {
                return Err(format!("lies in more than {} folders", limits::DEPTH));
            }
        }
        Ok(way.last().copied())
    }

    /// The folder that `path` leads to.
    ///
    /// # Errors
    /// It leads to a file, or nowhere.
    pub(crate) fn folder(
        &mut self,
        path: &[&[u8]],
        missing: Missing,
    ) -> Result<Option<NodeId>, String> {
        match self.walk(path, missing)? {
            Some(id) if !self.is_folder(id) => {
                let path = path.join(&b'/');
                Err(format!("is in {}, which is no folder", String::from_utf8_lossy(&path)))
            }
            found => Ok(found),
        }
    }

    /// Has `name` in `folder` be that of `node`, whatever it was before.
    fn name(&mut self, folder: NodeId, name: &[u8], node: NodeId) -> Result<(), String> {
        let layer = self.layer;
        let children = self.children_mut(folder).ok_or("is in a file")?;
        children.insert(name.to_vec(), Name { node, layer });
        Ok(())
    }

    /// Puts `entry` into `folder` as `name`. A folder that is there stays, and is from now on as
    /// the entry says.
    ///
    /// # Errors
    /// It is a link to nothing or to a folder, or there are too many.
    pub(crate) fn put(&mut self, folder: NodeId, name: &[u8], entry: Entry) -> Result<(), String> {
        let there = self.child(folder, name).filter(|&id| self.is_folder(id));
        let kind = match (entry.kind, there) {
            (Kind::Directory, Some(id)) => {
                let node = &mut self.nodes[id.0];
                (node.mode, node.owner, node.modified) = (entry.mode, entry.owner, entry.modified);
                node.attributes = entry.attributes;
                return self.name(folder, name, id);
            }
            (Kind::Link(target), _) => {
                let node = self.link_target(&target)?;
                return self.name(folder, name, node);
            }
            (Kind::Directory, None) => NodeKind::Directory(BTreeMap::new()),
            (Kind::File(content), _) => NodeKind::File(content),
            (Kind::Symlink(target), _) => NodeKind::Symlink(target),
            (Kind::Character(major, minor), _) => NodeKind::Character(major, minor),
            (Kind::Block(major, minor), _) => NodeKind::Block(major, minor),
            (Kind::Pipe, _) => NodeKind::Pipe,
        };
        let Entry { mode, owner, modified, attributes, .. } = entry;
        let node = self.add(Node { kind, mode, owner, modified, attributes })?;
        self.name(folder, name, node)
    }

    /// The root itself is from now on as `entry` says.
    pub(crate) fn put_root(&mut self, entry: Entry) {
        let node = &mut self.nodes[ROOT.0];
        (node.mode, node.owner, node.modified) = (entry.mode, entry.owner, entry.modified);
        node.attributes = entry.attributes;
    }

    /// What a further name of `path` would be a name of. A link at its end is itself meant.
    fn link_target(&mut self, path: &[u8]) -> Result<NodeId, String> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        let path = parts(path);
        let Some((name, parents)) = path.split_last() else {
            return Err("is a link to the root".to_owned());
        };
        let folder = self.folder(parents, Missing::Leave)?;
        let node = folder.and_then(|folder| self.child(folder, name));
        let node = node.ok_or_else(|| format!("is a link to {}, which is not there", shown()))?;
        if self.is_folder(node) {
            return Err(format!("is a link to {}, which is a folder", shown()));
        }
        Ok(node)
    }

    /// Takes out of `folder` what earlier layers have called `name`.
    pub(crate) fn hide(&mut self, folder: NodeId, name: &[u8]) {
        let Some(found) = self.children(folder).and_then(|children| children.get(name)).copied()
        else {
            return;
        };
        let left = self.empty(found.node);
        if found.layer < self.layer && !left {
            self.children_mut(folder).and_then(|children| children.remove(name));
        }
    }

    /// Takes out of `folder` what earlier layers have put there; whether anything is left. Each
    /// folder is looked at once in a layer: what this layer puts there stays.
    pub(crate) fn empty(&mut self, folder: NodeId) -> bool {
        let Some(children) = self.children(folder) else { return false };
        let all: Vec<_> = match self.emptied.contains(&folder) {
            true => return !children.is_empty(),
            false => children.values().copied().collect(),
        };
        self.emptied.insert(folder);
        let stays: HashSet<_> = all
            .into_iter()
            .filter(|name| self.empty(name.node) || name.layer == self.layer)
            .map(|name| (name.node, name.layer))
            .collect();
        let Some(children) = self.children_mut(folder) else { return false };
        children.retain(|_, name| stays.contains(&(name.node, name.layer)));
        !children.is_empty()
    }

    /// The next layer begins.
    pub(crate) fn next_layer(&mut self) {
        self.layer += 1;
        self.emptied.clear();
    }

    /// Makes the folder `path` where there is none, root's.
    ///
    /// # Errors
    /// A file is in its place.
    pub fn make_folder(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let made = self.folder(&parts(path), Missing::Make);
        made.map(drop).map_err(|why| crate::archive::refused(path, why))
    }

    /// The content of the file that `path` leads to, links followed; `None` if it leads to none, or
    /// to one of more than [`limits::TEXT`] bytes.
    ///
    /// # Errors
    /// The host's, of the spool.
    pub fn read(&mut self, spool: &File, path: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        let found = self.walk(&parts(path), Missing::Leave).ok().flatten();
        let Some(NodeKind::File(content)) = found.map(|id| &self.node(id).kind) else {
            return Ok(None);
        };
        if content.bytes > limits::TEXT {
            return Ok(None);
        }
        let mut text = vec![0; content.bytes as usize];
        spool.read_exact_at(&mut text, content.offset)?;
        Ok(Some(text))
    }
}

/// The components of `path` but those that lead nowhere.
pub(crate) fn parts(path: &[u8]) -> Vec<&[u8]> {
    let parts = path.split(|&byte| byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").collect()
}
