//! Root file systems made without privileges: an ordered list of layers, each a tar archive,
//! becomes one ext4 image with the owners, modes, attributes, links and device files that the
//! layers say.
//!
//! Nothing is unpacked on the host. A [`Tree`] takes the layers' names in memory, each layer over
//! those before it, with the whiteouts of the OCI image specification (image-spec, layer.md), or as
//! Debian's packages are laid over each other. The content stays in one file, the *spool*, and is
//! copied from there when [`Tree::write`] lays out the image. Any thread may use a tree; a call
//! reads files and may block.
//!
//! A layer is data from anywhere. Whatever it says, the result is an image or a message: no name
//! leaves the tree, no link is followed beyond its root, and what has no bound in the format has
//! one here ([`limits`]).
#![forbid(unsafe_code)]

mod acl;
mod archive;
mod error;
mod ext4;
mod layer;
pub mod limits;
mod package;
mod pax;
mod tree;

pub use archive::{Archive, Content, Entry, Kind, Owner, Time};
pub use error::{LayerError, WriteError};
pub use ext4::{FileSystem, Identity};
pub use tree::Tree;
