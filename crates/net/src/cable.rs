//! What a network device is joined to, as it is configured.

use crate::Backend;
use crate::config::{Forward, UserConfig};
use crate::stream::Stream;
use crate::switch::Port;
use crate::tap::Tap;
use crate::user::{UserError, UserNet};
use crate::watch::{Watch, Watched};
use host::TapError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What is at the other end of a network device's cable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Cable {
    /// A network behind the host's sockets.
    User(UserConfig),
    /// A program that listens at a socket, and speaks the stream protocol of QEMU and passt.
    Unix {
        /// The socket.
        path: PathBuf,
    },
    /// A switch that machines of the same user share.
    Switch {
        /// The folder of its socket, which is this user's alone.
        folder: PathBuf,
        /// What it is called: part of a file's name.
        name: String,
    },
    /// A TAP device of the host's that is there already.
    Tap {
        /// Its name.
        name: String,
    },
}

/// Why a cable leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum CableError {
    /// The network behind the host's sockets.
    #[error(transparent)]
    User(#[from] UserError),
    /// The program, or the switch.
    #[error("cannot join the guest's network to {} {}: {source}", .what, .path.display())]
    Socket {
        /// What it is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The TAP device.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The host refuses what it needs.
    #[error("cannot set the guest's network up: {0}")]
    Host(#[from] io::Error),
}

/// A cable that is plugged in.
pub struct Plugged {
    /// The network's side of it.
    pub backend: Box<dyn Backend>,
    /// Who looks at it.
    pub watch: Watch,
    /// The ports of the host's that lead to the guest.
    pub forwards: Vec<Forward>,
}

impl Cable {
    /// Plugs it in.
    ///
    /// # Errors
    /// What is to be at the other end cannot be had.
    pub fn plug(&self) -> Result<Plugged, CableError> {
        let mut forwards = Vec::new();
        let backend: Box<dyn Backend> = match self {
            Self::User(config) => {
                let user = UserNet::new(config)?;
                forwards = user.forwards();
                Box::new(user)
            }
            Self::Unix { path } => {
                let error =
                    |source| CableError::Socket { what: "socket", path: path.clone(), source };
                Box::new(Stream::new(path).map_err(error)?)
            }
            Self::Switch { folder, name } => {
                let path = folder.join(name);
                let error = |source| CableError::Socket { what: "switch", path, source };
                Box::new(Port::new(folder, name).map_err(error)?)
            }
            Self::Tap { name } => Box::new(Tap::new(host::Tap::open(name)?)?),
        };
        let (watched, watch) = Watched::new(backend);
        Ok(Plugged { backend: Box::new(watched), watch, forwards })
    }
}

impl fmt::Debug for Plugged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugged").field("watch", &self.watch).finish_non_exhaustive()
    }
}
