//! Multiboot Specification 0.6.96 (version 1): header search, ELF or a.out-kludge loading, the
//! information structure.

use crate::bytes::{Put as _, slice, u32_at};
use crate::place::Placer;
use crate::source::File;
use crate::{BootError, E820Entry, Loader, Protocol, cpu, elf, layout, source};
use x86::addr::Gpa;
use x86::state::{CpuState, gpr};

const HEADER_MAGIC: u32 = 0x1bad_b002;
const V2_MAGIC: u32 = 0xe852_50d6;
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// The header lies in the first 8 KiB (section 3.1).
const SEARCH: u64 = 8192;
/// Multiboot2's header lies in the first 32 KiB.
const V2_SEARCH: u64 = 32768;
/// Flags that must be understood: 0 page-aligned modules, 1 memory information, 2 video mode
/// (nothing to offer, which the information structure says).
const UNDERSTOOD: u32 = 0xffff_0007;
/// Bit 16: the address fields are valid.
const ADDRESSES: u32 = 1 << 16;
/// Bytes of the information structure up to the boot loader's name and APM table.
const INFO: usize = 116;
/// Information flags: memory 0, command line 2, modules 3, memory map 6, loader name 9.
const INFO_FLAGS: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
const LOADER_NAME: &[u8] = b"gemello\0";
const PAGE: u64 = 0x1000;

/// The header, found at `offset` in the file.
#[derive(Debug)]
pub(crate) struct Header {
    offset: u64,
    flags: u32,
}

/// Looks for a header: 4-byte aligned, magic, flags, and a checksum that makes the sum zero.
pub(crate) fn find(data: &[u8]) -> Option<Header> {
    let sums = |offset: u64| {
        let flags = u32_at(data, offset + 4)?;
        let sum = HEADER_MAGIC.wrapping_add(flags).wrapping_add(u32_at(data, offset + 8)?);
        (u32_at(data, offset)? == HEADER_MAGIC && sum == 0).then_some(Header { offset, flags })
    };
    (0..=SEARCH - 12).step_by(4).find_map(sums)
}

/// Whether there is a Multiboot2 header, to say so.
pub(crate) fn has_v2_header(data: &[u8]) -> bool {
    (0..V2_SEARCH).step_by(8).any(|offset| u32_at(data, offset) == Some(V2_MAGIC))
}

/// Places image, modules and the information structure.
pub(crate) fn load(
    loader: &Loader<'_>,
    header: &Header,
    placer: &mut Placer,
) -> Result<(Protocol, CpuState), BootError> {
    let image = loader.image;
    if loader.request.initrd.is_some() {
        return Err(image.unsupported(
            "is a Multiboot image, which takes no initrd",
            "give the file as one of `modules`",
        ));
    }
    if header.flags & !UNDERSTOOD != 0 {
        let what = format!(
            "demands Multiboot features {:#x} that are not known",
            header.flags & !UNDERSTOOD
        );
        return Err(image.unsupported(what, "build it without them"));
    }
    let (entry, end) = if header.flags & ADDRESSES != 0 {
        load_by_addresses(image, header, placer)?
    } else {
        load_elf(image, placer)?
    };
    let mut state = cpu::protected_mode(placer, entry)?;
    let info = information(loader, end, placer)?;
    placer.add(layout::START_INFO, info, "Multiboot information")?;
    state.gpr[gpr::RAX] = LOADER_MAGIC;
    state.gpr[gpr::RBX] = layout::START_INFO.0;
    Ok((Protocol::Multiboot, state))
}

/// ELF32 or ELF64 by program headers; entry and end of the image. The entry is 32-bit code either
/// way.
fn load_elf(image: &File<'_>, placer: &mut Placer) -> Result<(u64, u64), BootError> {
    if !image.bytes.starts_with(b"\x7fELF") {
        return Err(
            image.corrupt("its Multiboot header gives no load addresses, and it is no ELF file")
        );
    }
    let parsed = elf::parse(image)?;
    elf::check_entry(image, &parsed, parsed.entry)?;
    elf::load(image, &parsed, placer)?;
    let end = parsed.segments.iter().map(elf::Load::end).max().unwrap_or(layout::HIGH_MEMORY.0);
    match u32::try_from(parsed.entry) {
        Ok(entry) => Ok((entry.into(), end)),
        Err(_) => Err(image.corrupt("its entry point lies beyond 4 GiB")),
    }
}

/// The "a.out kludge" (section 3.1.3); entry and end of the image.
fn load_by_addresses(
    image: &File<'_>,
    header: &Header,
    placer: &mut Placer,
) -> Result<(u64, u64), BootError> {
    let data = &image.bytes[..];
    let field = |n: u64| {
        u32_at(data, header.offset + n)
            .map(u64::from)
            .ok_or_else(|| image.truncated("Multiboot header", header.offset + 32))
    };
    let (header_addr, load_addr, load_end) = (field(12)?, field(16)?, field(20)?);
    let (bss_end, entry) = (field(24)?, field(28)?);
    // The file offset of load_addr follows from where the header itself must end up.
    let back = header_addr.checked_sub(load_addr).and_then(|d| header.offset.checked_sub(d));
    let Some(start) = back else {
        return Err(image.corrupt("its Multiboot load address lies before the file's first byte"));
    };
    let len =
        if load_end == 0 { data.len() as u64 - start } else { load_end.saturating_sub(load_addr) };
    let bytes =
        slice(data, start, len).ok_or_else(|| image.truncated("Multiboot image", start + len))?;
    let end = bss_end.max(load_addr + len);
    if !(load_addr..end).contains(&entry) {
        return Err(
            image.corrupt(format!("its entry point {entry:#x} lies outside what is loaded"))
        );
    }
    placer.reserve(&image.name, Gpa(load_addr), end - load_addr)?;
    placer.add_reserved(Gpa(load_addr), bytes.to_vec(), "kernel");
    Ok((entry, end))
}

/// The information structure (section 3.3), then memory map, module list and strings, in one block.
fn information(
    loader: &Loader<'_>,
    image_end: u64,
    placer: &mut Placer,
) -> Result<Vec<u8>, BootError> {
    let name = &loader.image.name;
    let map: Vec<u8> = loader.e820.iter().flat_map(mmap_entry).collect();
    let map_at = INFO;
    let list_at = map_at + map.len();
    let strings_at = list_at + 16 * loader.request.modules.len();
    let mut block = vec![0; strings_at];
    let add = |block: &mut Vec<u8>, bytes: &[u8]| {
        let gpa = layout::START_INFO.0 + block.len() as u64;
        block.extend_from_slice(bytes);
        gpa as u32
    };
    let words = |block: &mut Vec<u8>, at: usize, words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        block.put(at, &bytes);
    };
    block.put(map_at, &map);
    let line = with_name(name, &loader.cmdline_with_devices());
    let cmdline = source::cmdline(name, &line, layout::CMDLINE_MAX - 1)?;
    let cmdline = add(&mut block, &cmdline);
    let loader_name = add(&mut block, LOADER_NAME);
    for (n, module) in place_modules(loader, image_end, placer)?.iter().enumerate() {
        let string = add(&mut block, &module.line);
        words(&mut block, list_at + 16 * n, &[module.start as u32, module.end as u32, string, 0]);
    }
    if block.len() as u64 > layout::START_INFO_MAX {
        let (found, max) = (block.len() as u64, layout::START_INFO_MAX);
        return Err(BootError::CmdlineTooLong { name: name.clone(), found, max });
    }
    let (lower, upper) = memory_kib(loader.e820);
    let at = |offset: usize| layout::START_INFO.0 as u32 + offset as u32;
    words(&mut block, 0, &[INFO_FLAGS, lower, upper, 0, cmdline]);
    words(&mut block, 20, &[loader.request.modules.len() as u32, at(list_at)]);
    words(&mut block, 44, &[map.len() as u32, at(map_at)]);
    words(&mut block, 64, &[loader_name]);
    Ok(block)
}

/// A module in memory, with its zero-terminated command line.
struct Placed {
    start: u64,
    end: u64,
    line: Vec<u8>,
}

/// Each page aligned, in order, above the image.
fn place_modules(
    loader: &Loader<'_>,
    image_end: u64,
    placer: &mut Placer,
) -> Result<Vec<Placed>, BootError> {
    let mut floor = image_end.max(layout::HIGH_MEMORY.0);
    let mut placed = Vec::new();
    for module in loader.request.modules {
        let file = module.source.read("module")?;
        let line = source::cmdline(
            &file.name,
            &with_name(&file.name, module.args),
            layout::CMDLINE_MAX - 1,
        )?;
        let len = file.bytes.len() as u64;
        let place = placer.lowest(len, PAGE, Gpa(floor), Gpa(layout::FOUR_GIB - 1));
        let start = place.ok_or_else(|| placer.too_little(&file.name, Gpa(floor), len))?;
        placer.add(start, file.bytes.into_owned(), "module")?;
        let end = start.0 + len;
        floor = end;
        placed.push(Placed { start: start.0, end, line });
    }
    Ok(placed)
}

/// What GRUB passes: the file's name, then the arguments.
fn with_name(name: &str, args: &str) -> String {
    if args.is_empty() { name.to_owned() } else { format!("{name} {args}") }
}

/// mem_lower and mem_upper: KiB of RAM from 0 and from 1 MiB, to the first hole.
fn memory_kib(e820: &[E820Entry]) -> (u32, u32) {
    let run = |gpa| e820.iter().find(|e| e.gpa == gpa).map_or(0, |e| e.len >> 10);
    (run(Gpa(0)).min(640) as u32, run(layout::HIGH_MEMORY).min(u32::MAX.into()) as u32)
}

/// An entry of the memory map: the size of what follows, address, length, type (as in E820).
fn mmap_entry(e: &E820Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    bytes.extend(20u32.to_le_bytes());
    bytes.extend(e.gpa.0.to_le_bytes());
    bytes.extend(e.len.to_le_bytes());
    bytes.extend((e.kind as u32).to_le_bytes());
    bytes
}
