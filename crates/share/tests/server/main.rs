//! A share as a guest's kernel sees it: FUSE by bytes, on folders of the host's.

mod client;
mod confinement;
mod files;
mod names;
mod saved;
mod scale;
