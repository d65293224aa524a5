//! A unified kernel image: kernel, initial RAM disk and command line as sections of one PE file
//! (UAPI.5, "Unified Kernel Image"). The program for UEFI that is its code is not run.

use object::read::pe::PeFile64;
use object::{Object as _, ObjectSection as _};

/// What is in one.
pub(crate) struct Unified {
    pub(crate) kernel: Vec<u8>,
    pub(crate) initrd: Option<Vec<u8>>,
    pub(crate) cmdline: String,
}

impl Unified {
    /// The parts of `image`, if it is one. A kernel that UEFI can start is a PE file, too, without
    /// such sections.
    pub(crate) fn parse(image: &[u8]) -> Option<Self> {
        let file = PeFile64::parse(image).ok()?;
        // Of several profiles the first is the usual one.
        let section = |name| Some(file.section_by_name(name)?.data().ok()?.to_vec());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let cmdline = section(".cmdline").map(text).unwrap_or_default();
        Some(Self {
            kernel: section(".linux")?,
            initrd: section(".initrd"),
            cmdline: cmdline.trim_matches(['\0', '\n', ' ']).to_owned(),
        })
    }
}
