//! A Debian package's files, laid over what is there as dpkg does it: a folder that is there stays
//! as it is, also where a link leads to it (`/lib` to `usr/lib`), and no name hides another.

use crate::archive::{Archive, Content, Entry, Kind, refused};
use crate::error::LayerError;
use crate::layer::checked;
use crate::tree::{Missing, Tree};
use std::fs::File;

impl Tree {
    /// Lays the package's archive in the part `files` of `spool` over what is there; the paths in
    /// it, in their order, without a slash at the end: the root's is empty.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or says what no package may say. The tree is then of no use.
    pub fn install(&mut self, spool: &File, files: Content) -> Result<Vec<Vec<u8>>, LayerError> {
        self.next_layer();
        let mut archive = Archive::new(spool, files);
        let mut paths = Vec::new();
        while let Some(entry) = archive.next_entry()? {
            paths.push(self.lay(entry)?);
        }
        Ok(paths)
    }

    /// Lays one entry over what is there; its path.
    ///
    /// # Errors
    /// It says what no package may say.
    pub fn lay(&mut self, entry: Entry) -> Result<Vec<u8>, LayerError> {
        let path = entry.path.clone();
        self.lay_entry(entry).map_err(|why| refused(&path, why))
    }

    fn lay_entry(&mut self, entry: Entry) -> Result<Vec<u8>, String> {
        let path = entry.path.clone();
        let path = checked(&path)?;
        let whole = path.iter().flat_map(|part| [b"/", *part]).collect::<Vec<_>>().concat();
        let Some((name, parents)) = path.split_last() else {
            return Ok(whole);
        };
        if entry.kind == Kind::Directory && self.folder(&path, Missing::Leave)?.is_some() {
            return Ok(whole);
        }
        match self.folder(parents, Missing::Make)? {
            Some(folder) => self.put(folder, name, entry)?,
            None => return Err("is in no folder".to_owned()),
        }
        Ok(whole)
    }
}
