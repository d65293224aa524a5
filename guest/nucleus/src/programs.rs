//! The programs that come with the nucleus, built from `guest/programs`.

pub struct Program {
    pub name: &'static str,
    /// Its ELF file.
    pub image: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/programs.rs"));
