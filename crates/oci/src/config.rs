//! What an image says of itself (image-spec, config.md).

use crate::Digest;
use serde::{Deserialize, Serialize};

/// The processor that gemello's machines have, as images call it.
const ARCHITECTURE: &str = "amd64";
const SYSTEM: &str = "linux";

/// How a program of the image is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The words that begin every command.
    pub entrypoint: Vec<String>,
    /// Those that follow where the user gives none.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// As whom: `user`, `user:group`, names or numbers; empty for root.
    pub user: String,
    /// In which folder; empty for the root.
    pub folder: String,
    /// The signal that asks it to end; empty for SIGTERM.
    pub stop_signal: String,
}

/// The document.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<Told>,
    rootfs: Layers,
}

#[derive(Debug, Deserialize)]
struct Layers {
    diff_ids: Vec<Digest>,
}

/// Whoever writes one leaves out what he does not say, or writes null.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Told {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

impl Document {
    /// That a machine of gemello's can run it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { architecture, os, .. } = self;
        if os == SYSTEM && architecture == ARCHITECTURE {
            return Ok(());
        }
        Err(format!("it is for {os}/{architecture}, and gemello runs {SYSTEM}/{ARCHITECTURE}"))
    }

    /// The digests of its layers' archives, and the rest.
    pub(crate) fn split(self) -> (Vec<Digest>, Config) {
        let told = self.config.unwrap_or_default();
        let config = Config {
            entrypoint: told.entrypoint.unwrap_or_default(),
            command: told.cmd.unwrap_or_default(),
            environment: told.env.unwrap_or_default(),
            user: told.user.unwrap_or_default(),
            folder: told.working_dir.unwrap_or_default(),
            stop_signal: told.stop_signal.unwrap_or_default(),
        };
        (self.rootfs.diff_ids, config)
    }
}

/// A platform as an index names it. Without a name it may be any.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Platform {
    pub(crate) fn is_ours(&self) -> bool {
        self.os == SYSTEM && self.architecture == ARCHITECTURE
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}
