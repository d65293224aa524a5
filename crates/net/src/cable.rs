//! What a network device is joined to, as it is configured.

use crate::Backend;
use crate::config::{Forward, UserConfig};
use crate::user::{UserError, UserNet};
use crate::watch::{Watch, Watched};
use serde::{Deserialize, Serialize};

/// What is at the other end of a network device's cable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cable {
    /// A network behind the host's sockets.
    User(UserConfig),
}

/// Why a cable leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum CableError {
    /// The network behind the host's sockets.
    #[error(transparent)]
    User(#[from] UserError),
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
        let (backend, forwards): (Box<dyn Backend>, _) = match self {
            Self::User(config) => {
                let user = UserNet::new(config)?;
                let forwards = user.forwards();
                (Box::new(user), forwards)
            }
        };
        let (watched, watch) = Watched::new(backend);
        Ok(Plugged { backend: Box::new(watched), watch, forwards })
    }
}
