//! What is gone when the bench is done with it.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Child};

/// A folder that is removed.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// An empty one for `what`.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn new(what: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gemello-{what}-{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that is ended.
#[derive(Debug)]
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
