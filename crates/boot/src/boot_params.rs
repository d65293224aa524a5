//! Linux's `boot_params` ("zero page"; Documentation/arch/x86/zero-page.rst), the initrd and the
//! command line.

use crate::bytes::{Put as _, slice, u8_at};
use crate::place::Placer;
use crate::{BootError, Loader, layout, source};
use std::ops::Range;
use x86::addr::Gpa;

/// Where the setup header lies, in the file and in boot_params alike: 1F1H up to what the jump at
/// 200H spans.
pub(crate) const HEADER: Range<u64> = 0x1f1..0x268;
/// Size of boot_params.
const SIZE: usize = 0x1000;
/// The largest e820_table that boot_params holds.
const E820_MAX: usize = 128;
/// type_of_loader: none assigned.
const LOADER_UNDEFINED: u8 = 0xff;

/// What the kernel allows.
#[derive(Debug)]
pub(crate) struct Loading {
    /// Longest command line, without its zero.
    pub(crate) cmdline_max: u64,
    /// The last address that the initrd may occupy.
    pub(crate) initrd_max: u64,
    /// The initrd goes here or above.
    pub(crate) initrd_floor: u64,
}

/// boot_params with the setup header of a bzImage that lies at `code32_start`.
pub(crate) fn header_of_bzimage(image: &[u8], code32_start: u32) -> Vec<u8> {
    let mut params = vec![0; SIZE];
    // The header ends where the short jump at its beginning (200H) leads.
    let end = 0x202 + u64::from(u8_at(image, 0x201).unwrap_or(0));
    let end = end.clamp(HEADER.start, HEADER.end.max(0x290));
    let header = slice(image, HEADER.start, end - HEADER.start).unwrap_or_default();
    params.put(HEADER.start as usize, header);
    params.put(0x214, &code32_start.to_le_bytes());
    params
}

/// boot_params for a vmlinux, which brings no setup header.
pub(crate) fn header_of_elf() -> Vec<u8> {
    let mut params = vec![0; SIZE];
    params.put(0x1fe, &0xaa55u16.to_le_bytes());
    params.put(0x202, b"HdrS");
    params.put(0x206, &0x20fu16.to_le_bytes());
    params.put(0x211, &[1]); // loadflags: LOADED_HIGH
    params.put(0x230, &0x20_0000u32.to_le_bytes()); // kernel_alignment
    params
}

/// Completes `params` and places it with the command line and the initrd.
pub(crate) fn place(
    loader: &Loader<'_>,
    mut params: Vec<u8>,
    loading: &Loading,
    placer: &mut Placer,
) -> Result<(), BootError> {
    let max = loading.cmdline_max.min(layout::CMDLINE_MAX - 1);
    let cmdline = source::cmdline(&loader.image.name, loader.request.cmdline, max)?;
    placer.add(layout::CMDLINE, cmdline, "command line")?;
    params.put(0x228, &(layout::CMDLINE.0 as u32).to_le_bytes());
    params.put(0x210, &[LOADER_UNDEFINED]);
    if let Some((gpa, len)) = initrd(loader, loading, placer)? {
        put_split(&mut params, 0x218, 0xc0, gpa);
        put_split(&mut params, 0x21c, 0xc4, len);
    }
    params.put(0x70, &layout::ACPI_START.0.to_le_bytes()); // acpi_rsdp_addr
    let extended_kib = (placer.size().saturating_sub(layout::HIGH_MEMORY.0) >> 10).min(0xffff);
    params.put(2, &(extended_kib as u16).to_le_bytes()); // screen_info.ext_mem_k
    params.put(0x1e8, &[loader.e820.len().min(E820_MAX) as u8]); // e820_entries
    params.put(0x2d0, &e820_table(loader));
    placer.add(layout::BOOT_PARAMS, params, "boot_params")
}

/// A value whose upper half has its own field.
fn put_split(params: &mut Vec<u8>, low: usize, high: usize, value: u64) {
    params.put(low, &(value as u32).to_le_bytes());
    params.put(high, &((value >> 32) as u32).to_le_bytes());
}

fn e820_table(loader: &Loader<'_>) -> Vec<u8> {
    let entry = |e: &crate::E820Entry| {
        let mut bytes = Vec::with_capacity(20);
        bytes.extend(e.gpa.0.to_le_bytes());
        bytes.extend(e.len.to_le_bytes());
        bytes.extend((e.kind as u32).to_le_bytes());
        bytes
    };
    loader.e820.iter().take(E820_MAX).flat_map(entry).collect()
}

/// Places the initrd as high as allowed; its address and size.
fn initrd(
    loader: &Loader<'_>,
    loading: &Loading,
    placer: &mut Placer,
) -> Result<Option<(u64, u64)>, BootError> {
    let Some(source) = loader.request.initrd else { return Ok(None) };
    let file = source.read("initrd")?;
    let bytes = file.bytes.len() as u64;
    let floor = layout::HIGH_MEMORY;
    let room = placer.highest(bytes, Gpa(loading.initrd_floor), Gpa(loading.initrd_max));
    let Some(gpa) = room.or_else(|| placer.highest(bytes, floor, Gpa(loading.initrd_max))) else {
        let free = placer.largest(floor, Gpa(loading.initrd_max));
        let short = bytes.saturating_sub(free).saturating_add(2 << 20);
        let needed = placer.size().saturating_add(short);
        return Err(BootError::InitrdTooLarge { name: file.name, bytes, free, needed });
    };
    placer.add(gpa, file.bytes.into_owned(), "initrd")?;
    Ok(Some((gpa.0, bytes)))
}
