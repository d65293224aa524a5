//! A layer is laid over those before it, as image-spec, layer.md, "Applying Changesets" says.

use crate::archive::{Archive, Content, Entry, Kind, refused};
use crate::error::LayerError;
use crate::limits;
use crate::tree::{Missing, Tree, parts};
use std::fs::File;

/// What begins the name of an entry that hides one of an earlier layer.
const WHITEOUT: &[u8] = b".wh.";
/// What begins those that are about a layer's folder, not about a file of this name.
const RESERVED: &[u8] = b".wh..wh.";
/// Of these, the one that hides all that earlier layers have in the folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Tree {
    /// Lays the archive in the part `layer` of `spool` over what is there.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or says what no layer may say. The tree is then of no use.
    pub fn apply(&mut self, spool: &File, layer: Content) -> Result<(), LayerError> {
        self.next_layer();
        let mut archive = Archive::new(spool, layer);
        while let Some(entry) = archive.next_entry()? {
            let path = entry.path.clone();
            self.apply_entry(entry).map_err(|why| refused(&path, why))?;
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<(), String> {
        let path = entry.path.clone();
        let path = checked(&path)?;
        let Some((name, parents)) = path.split_last() else {
            if entry.kind != Kind::Directory {
                return Err("stands for the root, and is no folder".to_owned());
            }
            self.put_root(entry);
            return Ok(());
        };
        if *name == OPAQUE {
            // What is no folder has nothing to hide.
            if let Ok(Some(folder)) = self.folder(parents, Missing::Leave) {
                self.empty(folder);
            }
            return Ok(());
        }
        if path.iter().any(|part| part.starts_with(RESERVED)) {
            return Ok(()); // the records of aufs
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if hidden.is_empty() {
                return Err("hides nothing".to_owned());
            }
            if let Ok(Some(folder)) = self.folder(parents, Missing::Leave) {
                self.hide(folder, hidden);
            }
            return Ok(());
        }
        if let Kind::Symlink(target) = &entry.kind
            && (target.is_empty() || target.len() > limits::PATH || target.contains(&0))
        {
            return Err("is a link to no path".to_owned());
        }
        match self.folder(parents, Missing::Make)? {
            Some(folder) => self.put(folder, name, entry),
            None => Err("is in no folder".to_owned()),
        }
    }
}

/// The components of an entry's path. It begins at the root, with a slash or without.
pub(crate) fn checked(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    if path.is_empty() || path.len() > limits::PATH || path.contains(&0) {
        return Err("has a name that is no path".to_owned());
    }
    let parts = parts(path);
    if parts.contains(&&b".."[..]) {
        return Err("leads out of its folder by \"..\"".to_owned());
    }
    if parts.iter().any(|part| part.len() > limits::NAME) {
        return Err(format!("has a name of more than {} bytes", limits::NAME));
    }
    Ok(parts)
}
