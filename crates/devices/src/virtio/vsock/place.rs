//! The socket at which programs of the host's reach a guest's ports.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex};
use sync::lock;

/// Bytes that a socket's name may have here: a port's number follows it.
const MOST: usize = 107 - "_4294967295".len();

/// Why there cannot be a socket.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// A socket's name is short.
    #[error("the socket {path} has a name of more than {MOST} bytes; give a shorter one",
        path = path.display())]
    Long {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error(
        "{path} is there already, and no socket that was left behind; end what listens there, or \
         name another",
        path = path.display()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// The host refuses.
    #[error("cannot listen at the socket {path}: {source}; name one in a folder of yours",
        path = path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that listens; its file goes with it.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    listener: UnixListener,
    file: Arc<SocketFile>,
}

/// A socket's file, which goes once: with this, or before.
#[derive(Debug)]
pub struct SocketFile(Mutex<Option<PathBuf>>);

impl SocketFile {
    /// Removes it: nobody listens there any more.
    pub fn remove(&self) {
        let path = lock(&self.0).take();
        path.map(fs::remove_file);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Place {
    /// At `path`, where nothing is, or the socket of a process that has ended.
    ///
    /// # Errors
    /// Something else is there, or the host refuses.
    pub fn new(path: &Path) -> Result<Self, VsockError> {
        let path = path.to_owned();
        if path.as_os_str().len() > MOST {
            return Err(VsockError::Long { path });
        }
        let bound = match listen(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !is_left_behind(&path) {
                    return Err(VsockError::Busy { path });
                }
                let _ = fs::remove_file(&path);
                listen(&path)
            }
            other => other,
        };
        let listens = bound.and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match listens {
            Ok(listener) => {
                let file = Arc::new(SocketFile(Mutex::new(Some(path.clone()))));
                Ok(Self { path, listener, file })
            }
            Err(source) => Err(VsockError::Refused { path, source }),
        }
    }

    /// Its file, for who ends it before the device goes.
    pub fn file(&self) -> Arc<SocketFile> {
        Arc::clone(&self.file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

/// A socket at `path`, which listens as soon as it is there.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", process::id()));
    let _ = fs::remove_file(&new); // of an earlier process of this number
    let listener = UnixListener::bind(&new)?;
    let linked = fs::hard_link(&new, path);
    let _ = fs::remove_file(&new);
    linked.map(|()| listener)
}

/// Whether a process that has ended has left its socket at `path`.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}
