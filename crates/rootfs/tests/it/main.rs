//! Layers become images: what other programs read there is what the layers say.

#[path = "../any_archive/rig.rs"]
mod any_archive;
mod hostile;
mod images;
mod layers;
mod model;
mod support;
