//! What the tests of the project's structure share: its files, its documents' tables, its crates.
#![forbid(unsafe_code)]

mod crates;
mod document;
mod files;

pub use crates::{Dependency, Package, packages};
pub use document::{Document, code_spans};
pub use files::{File, file, root, rust_files, tracked_files};
