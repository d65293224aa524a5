//! OCI images: an image layout in a folder, the same in a tar archive, what `docker save` writes,
//! or an image that a registry has ([`Remote`]).
//!
//! [`Image::open`] finds the image for this machine's processor, and reads what it says of itself.
//! [`Image::unpack`] brings one layer after the other into the spool of a [`rootfs::Tree`]. What
//! is used has been verified: manifest and configuration by the digest that names them, a layer by
//! two, that of the blob as it lies there and that of the archive in it (image-spec, descriptor.md
//! and config.md). A call reads files and may block.
//!
//! All of it is data from anywhere: sizes have bounds, names lead nowhere, and what is wrong is
//! refused with its place.
#![forbid(unsafe_code)]

mod compressed;
mod config;
mod digest;
mod error;
mod image;
mod layout;
mod registry;
mod source;
mod user;

pub use config::Config;
pub use digest::Digest;
pub use error::ImageError;
pub use image::{Image, Layer};
pub use registry::{Found, Location, Name, Patience, Progress, RegistryError, Remote};
pub use user::{User, UserError};
