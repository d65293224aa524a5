//! ELF executables (System V gABI, chapters 4 and 5): the parts a boot loader needs, from untrusted
//! bytes.

use crate::BootError;
use crate::bytes::{align_up, slice, u8_at, u16_at, u32_at, u64_at};
use crate::place::Placer;
use crate::source::File;
use x86::addr::Gpa;

const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// An executable's headers.
#[derive(Debug)]
pub(crate) struct Elf {
    /// ELF64 rather than ELF32.
    pub(crate) is_64bit: bool,
    /// Entry point, physical.
    pub(crate) entry: u64,
    /// What to load.
    pub(crate) segments: Vec<Load>,
    /// Whether it asks for a dynamic linker or thread-local storage, as no kernel does.
    pub(crate) is_program: bool,
    notes: Vec<(u64, u64, u64)>,
}

/// A PT_LOAD segment with a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    offset: u64,
    virt: u64,
    /// Guest-physical address.
    pub(crate) phys: u64,
    file_size: u64,
    mem_size: u64,
}

impl Load {
    /// The first address after it.
    pub(crate) fn end(&self) -> u64 {
        self.phys.saturating_add(self.mem_size)
    }
}

/// One program header, whichever its class.
struct ProgramHeader {
    kind: u32,
    load: Load,
    align: u64,
}

/// Reads the headers of `image`, which begins with ELF's magic number.
pub(crate) fn parse(image: &File<'_>) -> Result<Elf, BootError> {
    let data = &image.bytes[..];
    let is_64bit = match u8_at(data, 4) {
        Some(CLASS_32) => false,
        Some(CLASS_64) => true,
        Some(other) => {
            return Err(image.corrupt(format!("ELF class {other} is neither 32 nor 64 bits")));
        }
        None => return Err(image.truncated("ELF header", 64)),
    };
    check_machine(image)?;
    match u16_at(data, 0x10) {
        Some(ET_EXEC | ET_DYN) => {}
        Some(1) => {
            return Err(
                image.unsupported("is an object file, not linked", "link it into an executable")
            );
        }
        other => {
            return Err(image.corrupt(format!("ELF type {} is no executable", other.unwrap_or(0))));
        }
    }
    let (entry, headers) = if is_64bit { headers64(data) } else { headers32(data) }
        .ok_or_else(|| image.truncated("ELF program headers", 64))?;
    let has = |kind| headers.iter().any(|h| h.kind == kind);
    let is_program = has(PT_INTERP) || has(PT_TLS);
    let notes = headers.iter().filter(|h| h.kind == PT_NOTE);
    let notes = notes.map(|h| (h.load.offset, h.load.file_size, h.align)).collect();
    let segments = loads(image, &headers)?;
    if segments.is_empty() {
        return Err(image.corrupt("the ELF file has no segment to load"));
    }
    Ok(Elf { is_64bit, entry: physical(entry, &segments), segments, is_program, notes })
}

fn check_machine(image: &File<'_>) -> Result<(), BootError> {
    let data = &image.bytes;
    let machine = u16_at(data, 0x12).ok_or_else(|| image.truncated("ELF header", 64))?;
    let little = u8_at(data, 5) == Some(LITTLE_ENDIAN);
    let found = match (little, machine) {
        (true, EM_386 | EM_X86_64) => return Ok(()),
        (true, 183) => "arm64 (ELF)".to_owned(),
        (true, 40) => "32-bit ARM (ELF)".to_owned(),
        (true, 243) => "RISC-V (ELF)".to_owned(),
        (true, 258) => "LoongArch (ELF)".to_owned(),
        (true, 21) => "PowerPC 64 (ELF)".to_owned(),
        (true, other) => format!("ELF machine {other}"),
        (false, other) => format!("a big-endian machine (ELF machine {})", other.swap_bytes()),
    };
    Err(BootError::WrongArchitecture { name: image.name.clone(), found })
}

/// Entry and program headers of an ELF64 file; `None` if they end outside the file.
fn headers64(data: &[u8]) -> Option<(u64, Vec<ProgramHeader>)> {
    let (start, size, count) = (u64_at(data, 0x20)?, u16_at(data, 0x36)?, u16_at(data, 0x38)?);
    let header = |n: u16| {
        let at = start.checked_add(u64::from(n) * u64::from(size))?;
        let word = |o: u64| u64_at(data, at.checked_add(o)?);
        let load = Load {
            offset: word(8)?,
            virt: word(16)?,
            phys: word(24)?,
            file_size: word(32)?,
            mem_size: word(40)?,
        };
        Some(ProgramHeader { kind: u32_at(data, at)?, load, align: word(48)? })
    };
    Some((u64_at(data, 0x18)?, (0..count).map(header).collect::<Option<_>>()?))
}

/// The same for ELF32.
fn headers32(data: &[u8]) -> Option<(u64, Vec<ProgramHeader>)> {
    let (start, size, count) = (u32_at(data, 0x1c)?, u16_at(data, 0x2a)?, u16_at(data, 0x2c)?);
    let header = |n: u16| {
        let at = u64::from(start) + u64::from(n) * u64::from(size);
        let word = |o: u64| u32_at(data, at + o).map(u64::from);
        let load = Load {
            offset: word(4)?,
            virt: word(8)?,
            phys: word(12)?,
            file_size: word(16)?,
            mem_size: word(20)?,
        };
        Some(ProgramHeader { kind: u32_at(data, at)?, load, align: word(28)? })
    };
    Some((u32_at(data, 0x18)?.into(), (0..count).map(header).collect::<Option<_>>()?))
}

/// The PT_LOAD segments, checked against the file and the address space.
fn loads(image: &File<'_>, headers: &[ProgramHeader]) -> Result<Vec<Load>, BootError> {
    let mut segments = Vec::new();
    for load in headers.iter().filter(|h| h.kind == PT_LOAD && h.load.mem_size > 0).map(|h| h.load)
    {
        let Some(end) = load.offset.checked_add(load.file_size) else {
            return Err(image.corrupt("an ELF segment wraps around the file"));
        };
        if slice(&image.bytes, load.offset, load.file_size).is_none() {
            return Err(image.truncated("ELF segment", end));
        }
        if load.file_size > load.mem_size || load.phys.checked_add(load.mem_size).is_none() {
            return Err(image
                .corrupt("an ELF segment is larger in the file than in memory, or wraps around"));
        }
        segments.push(load);
    }
    Ok(segments)
}

/// The physical address of `entry`, which some linkers give as a virtual one.
fn physical(entry: u64, segments: &[Load]) -> u64 {
    let inside = |base: u64, s: &Load| entry.checked_sub(base).filter(|o| *o < s.mem_size);
    if segments.iter().any(|s| inside(s.phys, s).is_some()) {
        return entry;
    }
    segments.iter().find_map(|s| inside(s.virt, s).map(|o| s.phys + o)).unwrap_or(entry)
}

/// The address in the XEN_ELFNOTE_PHYS32_ENTRY note, if there is one.
pub(crate) fn pvh_entry(image: &File<'_>, elf: &Elf) -> Result<Option<u32>, BootError> {
    for &(offset, size, align) in &elf.notes {
        let notes = slice(&image.bytes, offset, size)
            .ok_or_else(|| image.truncated("ELF notes", offset.saturating_add(size)))?;
        if let Some(desc) = find_note(notes, if align == 8 { 8 } else { 4 }) {
            // The note holds 4 or 8 bytes; the entry is 32-bit code in either case.
            let wide = u64_at(desc, 0).or_else(|| u32_at(desc, 0).map(u64::from));
            let entry = wide.and_then(|e| u32::try_from(e).ok());
            return entry
                .map(Some)
                .ok_or_else(|| image.corrupt("its PVH note holds no 32-bit entry address"));
        }
    }
    Ok(None)
}

/// The descriptor of the entry note among `notes` (gABI, "Note Section"), padded to `align`.
fn find_note(notes: &[u8], align: u64) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let (name_size, desc_size) = (u32_at(notes, at)?.into(), u32_at(notes, at + 4)?.into());
        let kind = u32_at(notes, at + 8)?;
        let name = slice(notes, at + 12, name_size)?;
        let desc_at = align_up(at + 12 + name_size, align)?;
        let desc = slice(notes, desc_at, desc_size)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && name == b"Xen\0" {
            return Some(desc);
        }
        at = align_up(desc_at + desc_size, align)?;
    }
}

/// Places every segment; BSS is reserved, since RAM is zero.
pub(crate) fn load(image: &File<'_>, elf: &Elf, placer: &mut Placer) -> Result<(), BootError> {
    for segment in &elf.segments {
        placer.reserve(&image.name, Gpa(segment.phys), segment.mem_size)?;
        let bytes = slice(&image.bytes, segment.offset, segment.file_size).unwrap_or_default();
        placer.add_reserved(Gpa(segment.phys), bytes.to_vec(), "kernel segment");
    }
    Ok(())
}

/// Fails unless `entry` lies in a segment.
pub(crate) fn check_entry(image: &File<'_>, elf: &Elf, entry: u64) -> Result<(), BootError> {
    let inside = |s: &Load| entry.checked_sub(s.phys).is_some_and(|o| o < s.mem_size);
    if elf.segments.iter().any(inside) {
        return Ok(());
    }
    Err(image.corrupt(format!("the entry point {entry:#x} lies in no loaded segment")))
}
