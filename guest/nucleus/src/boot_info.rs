//! What the boot loader says: memory map, command line, firmware tables. PVH's hvm_start_info
//! (Xen's start_info.h) or Multiboot's information structure (0.6.96, 3.3).

use crate::physical::{self, u32_at, u64_at};
use alloc::string::String;
use alloc::vec::Vec;

const PVH_MAGIC: u32 = 0x336E_C578;
const MULTIBOOT_MAGIC: u32 = 0x2BAD_B002;
/// E820's type of usable memory, in both protocols.
const USABLE: u32 = 1;
const CMDLINE_MAX: usize = 4096;

/// The boot loader's word, copied.
#[derive(Debug, Default)]
pub struct BootInfo {
    pub protocol: &'static str,
    /// Usable memory as (first address, address after the last), ascending.
    pub memory: Vec<(u64, u64)>,
    pub cmdline: String,
    /// Where ACPI's root pointer is, if the protocol says.
    pub rsdp: Option<u64>,
}

impl BootInfo {
    /// Reads it, from what the boot code found in EAX and EBX.
    pub fn read(magic: u32, address: u64) -> Self {
        let mut info = if address != 0 && physical::get32(address) == PVH_MAGIC {
            Self::pvh(address)
        } else if magic == MULTIBOOT_MAGIC {
            Self::multiboot(address)
        } else {
            Self::default()
        };
        info.memory.sort_unstable();
        info
    }

    fn pvh(address: u64) -> Self {
        let start = physical::bytes(address, 56);
        let long = |offset| u64_at(&start, offset).unwrap_or(0);
        let entries = u32_at(&start, 48).unwrap_or(0).min(128) as usize;
        let map = physical::bytes(long(40), entries * 24);
        let memory = map.chunks_exact(24).filter_map(|entry| range(entry, 0, 16)).collect();
        let rsdp = Some(long(32)).filter(|&rsdp| rsdp != 0);
        Self { protocol: "PVH", memory, cmdline: text(long(24)), rsdp }
    }

    fn multiboot(address: u64) -> Self {
        let start = physical::bytes(address, 52);
        let word = |offset| u32_at(&start, offset).unwrap_or(0);
        let flags = word(0);
        let mut memory = Vec::new();
        if flags & 1 << 6 != 0 {
            let map = physical::bytes(word(48).into(), word(44).min(8192) as usize);
            let mut rest = &map[..];
            while let Some(size) = u32_at(rest, 0) {
                memory.extend(range(rest, 4, 20));
                rest = rest.get(size as usize + 4..).unwrap_or(&[]);
            }
        } else if flags & 1 != 0 {
            memory.push((1 << 20, (1 << 20) + u64::from(word(8)) * 1024));
        }
        let cmdline = if flags & 4 != 0 { text(word(16).into()) } else { String::new() };
        Self { protocol: "Multiboot", memory, cmdline, rsdp: None }
    }

    /// The value of `name=value` on the command line, or the empty string for the word alone.
    pub fn word<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.words(name).next()
    }

    /// All values of `name=value`.
    pub fn words<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.cmdline.split_ascii_whitespace().filter_map(move |word| {
            let rest = word.strip_prefix(name)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('=') }
        })
    }
}

/// A usable range out of an entry with address and length at `at` and the type at `kind`.
fn range(entry: &[u8], at: usize, kind: usize) -> Option<(u64, u64)> {
    let (start, length) = (u64_at(entry, at)?, u64_at(entry, at + 8)?);
    (u32_at(entry, kind)? == USABLE).then(|| (start, start.saturating_add(length)))
}

fn text(address: u64) -> String {
    if address == 0 {
        return String::new();
    }
    let bytes: Vec<u8> =
        (address..).take(CMDLINE_MAX).map(physical::get8).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
