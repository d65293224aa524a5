//! A share as a guest's kernel sees it: FUSE by bytes, on folders of the host's.

mod client;
mod confinement;
mod directories;
mod files;
mod followed;
mod hostile;
#[path = "../any_request/message.rs"]
mod message;
mod names;
mod saved;
mod scale;
