//! PVH: Xen's x86/HVM direct boot ABI (docs/misc/pvh.pandoc,
//! xen/include/public/arch-x86/hvm/start_info.h).
//!
//! 32-bit protected mode, flat segments, paging off, EBX pointing to hvm_start_info.

use crate::elf::Elf;
use crate::place::Placer;
use crate::{BootError, E820Entry, Loader, Protocol, cpu, elf, layout, source};
use x86::addr::Gpa;
use x86::state::{CpuState, gpr};

/// "xEn3" with the top bit of its E set.
const MAGIC: u32 = 0x336e_c578;
/// The version with a memory map.
const VERSION: u32 = 1;
/// Bytes of hvm_start_info, version 1.
const START_INFO: u64 = 56;
/// Bytes of hvm_modlist_entry.
const MODULE: u64 = 32;
/// Longest command line: what Linux takes.
const CMDLINE_MAX: u64 = layout::CMDLINE_MAX - 1;

/// Places kernel, start info, modules and command line.
pub(crate) fn load(
    loader: &Loader<'_>,
    elf: &Elf,
    entry: u32,
    placer: &mut Placer,
) -> Result<(Protocol, CpuState), BootError> {
    elf::check_entry(loader.image, elf, entry.into())?;
    elf::load(loader.image, elf, placer)?;
    let mut state = cpu::protected_mode(placer, entry.into())?;
    let cmdline = source::cmdline(&loader.image.name, &loader.cmdline_with_devices(), CMDLINE_MAX)?;
    placer.add(layout::CMDLINE, cmdline, "command line")?;
    let info = start_info(loader, &modules(loader, placer)?)?;
    placer.add(layout::START_INFO, info, "hvm_start_info")?;
    state.gpr[gpr::RBX] = layout::START_INFO.0;
    Ok((Protocol::Pvh, state))
}

/// A module in memory: address, size, and its arguments.
struct Placed<'a> {
    gpa: u64,
    len: u64,
    args: &'a str,
    name: String,
}

/// The initrd first, as Linux expects, then the modules: as high as possible below 4 GiB.
fn modules<'a>(loader: &'a Loader<'_>, placer: &mut Placer) -> Result<Vec<Placed<'a>>, BootError> {
    let initrd = loader.request.initrd.map(|s| (s, "", "initrd"));
    let rest = loader.request.modules.iter().map(|m| (m.source, m.args, "module"));
    let mut placed = Vec::new();
    for (source, args, role) in initrd.into_iter().chain(rest) {
        let file = source.read(role)?;
        let len = file.bytes.len() as u64;
        let (floor, max) = (layout::HIGH_MEMORY, layout::FOUR_GIB - 1);
        let Some(gpa) = placer.highest(len, floor, Gpa(max)) else {
            let free = placer.largest(floor, Gpa(max));
            let needed =
                placer.size().saturating_add(len.saturating_sub(free)).saturating_add(2 << 20);
            return Err(BootError::InitrdTooLarge { name: file.name, bytes: len, free, needed });
        };
        placer.add(gpa, file.bytes.into_owned(), role)?;
        placed.push(Placed { gpa: gpa.0, len, args, name: file.name });
    }
    Ok(placed)
}

/// hvm_start_info, then the module list, the memory map and the modules' arguments, in one block.
fn start_info(loader: &Loader<'_>, modules: &[Placed<'_>]) -> Result<Vec<u8>, BootError> {
    let list_gpa = layout::START_INFO.0 + START_INFO;
    let map_gpa = list_gpa + MODULE * modules.len() as u64;
    let map: Vec<u8> = loader.e820.iter().flat_map(memmap_entry).collect();
    let mut strings_gpa = map_gpa + map.len() as u64;
    let (mut list, mut strings) = (Vec::new(), Vec::new());
    for module in modules {
        let args = source::cmdline(&module.name, module.args, CMDLINE_MAX)?;
        let args_gpa = if module.args.is_empty() { 0 } else { strings_gpa };
        list.extend([module.gpa, module.len, args_gpa, 0].into_iter().flat_map(u64::to_le_bytes));
        strings_gpa += args.len() as u64;
        strings.extend(args);
    }
    let mut info: Vec<u8> =
        [MAGIC, VERSION, 0, modules.len() as u32].into_iter().flat_map(u32::to_le_bytes).collect();
    let list_or_none = if modules.is_empty() { 0 } else { list_gpa };
    let pointers = [list_or_none, layout::CMDLINE.0, layout::ACPI_START.0, map_gpa];
    info.extend(pointers.into_iter().flat_map(u64::to_le_bytes));
    info.extend([loader.e820.len() as u32, 0].into_iter().flat_map(u32::to_le_bytes));
    for part in [list, map, strings] {
        info.extend(part);
    }
    if info.len() as u64 > layout::START_INFO_MAX {
        let (found, max) = (info.len() as u64, layout::START_INFO_MAX);
        return Err(BootError::CmdlineTooLong { name: loader.image.name.clone(), found, max });
    }
    Ok(info)
}

/// hvm_memmap_table_entry: address, size, type (as in E820), reserved.
fn memmap_entry(e: &E820Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    bytes.extend(e.gpa.0.to_le_bytes());
    bytes.extend(e.len.to_le_bytes());
    bytes.extend((e.kind as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}
