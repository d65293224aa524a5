//! The nucleus: gemello's own small multiprogrammed operating system, built from `guest/`.
#![forbid(unsafe_code)]

/// Its bootable image: an ELF64 file with a PVH note and a Multiboot header, its programs inside.
///
/// Words on its command line: `demo` runs the guided tour and powers off; `test` or `test=NAME`
/// runs its own tests and leaves through the debug-exit port, 10H for passed and 11H for failed;
/// without either it shows its shell.
pub const NUCLEUS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nucleus.elf"));
