//! What the tests of the project's structure share: its files, its source, its documents' tables,
//! its crates.
#![forbid(unsafe_code)]

mod crates;
mod document;
mod files;
mod imports;
mod source;

pub use crates::{Dependency, Package, packages};
pub use document::{Document, code_spans};
pub use files::{File, documents, file, root, rust_files, tracked_files};
pub use imports::Imports;
pub use source::{Function, Source, mentions, strings};
