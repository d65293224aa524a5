//! A processor's state in words, to find out what went wrong in a guest.

use memory::GuestRam;
use std::fmt::Write as _;
use x86::addr::{La, Vector};
use x86::descriptor::{Gate, GateKind};
use x86::paging::{self, End, LevelKind, PagingMode};
use x86::regs::Rflags;
use x86::state::{CpuState, Seg, Segment, TableRegister, gpr};

/// The segment registers in encoding order.
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

/// What a triple fault leaves behind: registers, the page walk of RIP, and the IDT's entries for
/// the exceptions that end in one.
pub fn triple_fault(state: &CpuState, ram: &GuestRam) -> String {
    let mut text = registers(state);
    let rip = state.seg[Seg::Cs as usize].base.wrapping_add(state.rip);
    let _ = writeln!(text, "Page walk of RIP ({rip:#x}):");
    walk(&mut text, state, ram, La(rip));
    if let Some(bytes) = code_at(state, ram, rip) {
        let _ = writeln!(text, "Bytes at RIP: {bytes}");
    }
    let _ = writeln!(text, "Page walk of CR2 ({:#x}):", state.cr2);
    walk(&mut text, state, ram, La(state.cr2));
    interrupt_table(&mut text, state, ram);
    text
}

/// All registers, in the manual's names.
pub fn registers(state: &CpuState) -> String {
    let mut text = String::new();
    let mode = state.mode();
    let _ =
        writeln!(text, "RIP {:016x}  CPL {}  {mode:?}  {:?}", state.rip, state.cpl, state.activity);
    for (row, names) in gpr::NAMES.chunks(4).enumerate() {
        for (column, name) in names.iter().enumerate() {
            let separator = if column == 3 { '\n' } else { ' ' };
            let _ = write!(text, "{name:<3} {:016x}{separator}", state.gpr[row * 4 + column]);
        }
    }
    let flags = state.flags.bits();
    let _ = writeln!(text, "RFLAGS {flags:08x} {}", flag_names(Rflags::from_bits_truncate(flags)));
    for (name, segment) in SEGMENTS.iter().zip(&state.seg) {
        segment_line(&mut text, name, segment);
    }
    segment_line(&mut text, "LDTR", &state.ldtr);
    segment_line(&mut text, "TR", &state.tr);
    let TableRegister { base, limit } = state.gdtr;
    let _ = writeln!(text, "GDTR base {base:016x} limit {limit:04x}");
    let TableRegister { base, limit } = state.idtr;
    let _ = writeln!(text, "IDTR base {base:016x} limit {limit:04x}");
    let p = &state.paging;
    let _ = writeln!(
        text,
        "CR0 {:08x}  CR2 {:016x}  CR3 {:016x}  CR4 {:08x}  EFER {:04x}  DR6 {:x}  DR7 {:x}",
        p.cr0.bits(),
        state.cr2,
        p.cr3,
        p.cr4.bits(),
        p.efer.bits(),
        state.dr.dr6,
        state.dr.dr7
    );
    text
}

fn flag_names(flags: Rflags) -> String {
    let shown = flags - Rflags::FIXED - Rflags::IOPL;
    let names: Vec<_> = shown.iter_names().map(|(name, _)| name).collect();
    format!("[{}] IOPL {}", names.join(" "), (flags & Rflags::IOPL).bits() >> 12)
}

fn segment_line(text: &mut String, name: &str, segment: &Segment) {
    let Segment { base, limit, selector, access } = *segment;
    let _ = writeln!(
        text,
        "{name:<4} {selector:04x} base {base:016x} limit {limit:08x} access {access:04x} DPL {}",
        segment.dpl()
    );
}

fn walk(text: &mut String, state: &CpuState, ram: &GuestRam, la: La) {
    let walk = paging::explain(&state.paging, ram, la);
    if walk.mode == PagingMode::FourLevel && !la.is_canonical() {
        let _ = writeln!(text, "  not canonical: no walk");
        return;
    }
    for level in walk.levels() {
        let name = match level.kind {
            LevelKind::Pml4e => "PML4E",
            LevelKind::Pdpte => "PDPTE",
            LevelKind::Pde => "PDE",
            LevelKind::Pte => "PTE",
        };
        let bits = entry_bits(level.entry);
        let _ = writeln!(text, "  {name:<5} at {:#012x} = {:016x} {bits}", level.gpa, level.entry);
    }
    let _ = match walk.end {
        End::Mapped(m) => writeln!(
            text,
            "  -> {:#x} ({} KiB page, {}{}{}){}",
            m.gpa,
            m.page_size >> 10,
            if m.rights.user { "user, " } else { "supervisor, " },
            if m.rights.writable { "writable, " } else { "read-only, " },
            if m.rights.executable { "executable" } else { "no execute" },
            if ram.host_address(m.gpa, 1).is_some() { "" } else { ": NOT RAM" },
        ),
        End::NotPresent => writeln!(text, "  -> not present"),
        End::Reserved(bits) => writeln!(text, "  -> reserved bits set: {bits:#x}"),
    };
}

/// The low bits of a paging-structure entry.
fn entry_bits(entry: u64) -> String {
    let names =
        [(0, "P"), (1, "RW"), (2, "US"), (5, "A"), (6, "D"), (7, "PS"), (8, "G"), (63, "XD")];
    let set: Vec<_> =
        names.iter().filter(|(bit, _)| entry >> bit & 1 != 0).map(|&(_, name)| name).collect();
    format!("[{}]", set.join(" "))
}

/// Guest memory at linear address `la`, byte by byte through the page walk; `None` where it is not
/// mapped to RAM.
fn read(state: &CpuState, ram: &GuestRam, la: La, into: &mut [u8]) -> Option<()> {
    for (offset, byte) in (0..).zip(into) {
        if state.long_mode() && !la.wrapping_add(offset).is_canonical() {
            return None;
        }
        let End::Mapped(mapping) = paging::explain(&state.paging, ram, la.wrapping_add(offset)).end
        else {
            return None;
        };
        ram.read(mapping.gpa, std::slice::from_mut(byte)).ok()?;
    }
    Some(())
}

fn code_at(state: &CpuState, ram: &GuestRam, rip: u64) -> Option<String> {
    let mut bytes = [0; 16];
    read(state, ram, La(rip), &mut bytes)?;
    Some(bytes.map(|b| format!("{b:02x}")).join(" "))
}

/// The entries for #DF and for the faults that lead to it.
fn interrupt_table(text: &mut String, state: &CpuState, ram: &GuestRam) {
    let _ = writeln!(text, "IDT entries on the way to a triple fault:");
    let vectors =
        [Vector::DF, Vector::PF, Vector::GP, Vector::SS, Vector::NP, Vector::TS, Vector::UD];
    for vector in vectors {
        let entry = gate(state, ram, vector);
        let _ = writeln!(text, "  {:>2} {vector} {entry}", vector.0);
    }
}

/// One entry of the IDT, decoded (SDM vol. 3, 6.11 and 6.14.1; in real mode vol. 3, 20.1.4).
pub fn gate(state: &CpuState, ram: &GuestRam, vector: Vector) -> String {
    let real = !state.paging.cr0.contains(x86::regs::Cr0::PE);
    let size: u64 = match (real, state.long_mode()) {
        (true, _) => 4,
        (false, false) => 8,
        (false, true) => 16,
    };
    let offset = u64::from(vector.0) * size;
    if offset + size - 1 > u64::from(state.idtr.limit) {
        return format!("beyond the IDT's limit ({:#x})", state.idtr.limit);
    }
    let la = state.idtr.base.wrapping_add(offset);
    let mut raw = [0_u8; 16];
    let Some(bytes) = raw.get_mut(..size as usize) else { return String::new() };
    if read(state, ram, La(la), bytes).is_none() {
        return format!("at {la:#x}, which is not mapped to RAM");
    }
    let low = u64::from_le_bytes(std::array::from_fn(|i| raw[i]));
    let high = u64::from_le_bytes(std::array::from_fn(|i| raw[i + 8]));
    if real {
        return format!("{:04x}:{:04x}", (low >> 16) & 0xffff, low & 0xffff);
    }
    match Gate::decode(low, high, state.long_mode()) {
        Some(gate) => describe_gate(&gate),
        None => format!("no gate: {high:016x}{low:016x}"),
    }
}

fn describe_gate(gate: &Gate) -> String {
    let kind = match gate.kind {
        GateKind::Call => "call gate",
        GateKind::Interrupt => "interrupt gate",
        GateKind::Trap => "trap gate",
        GateKind::Task => "task gate",
    };
    let (selector, offset) = (gate.selector.0, gate.offset);
    let (dpl, ist) = (gate.dpl, gate.ist);
    let present = if gate.present { "" } else { ", NOT PRESENT" };
    format!("{kind} to {selector:04x}:{offset:x}, DPL {dpl}, IST {ist}{present}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86::addr::Gpa;
    use x86::regs::{Cr0, Cr4, Efer};

    /// 64-bit mode with 1 GiB of identity mapping, an IDT at 2000H.
    fn guest() -> (CpuState, GuestRam) {
        let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("memory");
        ram.write(Gpa(0x1000), &0x3003_u64.to_le_bytes()).expect("PML4E");
        ram.write(Gpa(0x3000), &0x83_u64.to_le_bytes()).expect("PDPTE, 1 GiB");
        let gate = [0x5678_8e01_0010_1234_u64, 0xffff_ffff];
        ram.write(Gpa(0x2000 + 8 * 16), &gate[0].to_le_bytes()).expect("gate");
        ram.write(Gpa(0x2000 + 8 * 16 + 8), &gate[1].to_le_bytes()).expect("gate");
        let mut state = CpuState::reset();
        state.paging.cr0 = Cr0::PE | Cr0::PG;
        state.paging.cr4 = Cr4::PAE;
        state.paging.efer = Efer::LME | Efer::LMA;
        state.paging.cr3 = 0x1000;
        state.seg[Seg::Cs as usize] =
            Segment { base: 0, limit: u32::MAX, selector: 0x10, access: 0xa09b };
        state.rip = 0x4000;
        state.idtr = TableRegister { base: 0x2000, limit: 0xfff };
        state.cr2 = 0x40_0000_0000;
        (state, ram)
    }

    #[test]
    fn a_triple_fault_is_explained() {
        let (state, ram) = guest();
        ram.write(Gpa(0x4000), &[0xf4, 0x90]).expect("code");
        let text = triple_fault(&state, &ram);
        for expected in [
            "RIP 0000000000004000  CPL 0  Long64",
            "CS   0010 base",
            "PML4E at 0x0000001000 = 0000000000003003 [P RW]",
            "PDPTE at 0x0000003000 = 0000000000000083 [P RW PS]",
            "-> 0x4000 (1048576 KiB page, supervisor, writable, executable)",
            "Bytes at RIP: f4 90 00",
            "-> not present",
            " 8 #DF interrupt gate to 0010:ffffffff56781234, DPL 0, IST 1",
            "14 #PF no gate: 0000",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
    }

    #[test]
    fn nonsense_is_named_and_never_panics() {
        let (mut state, ram) = guest();
        state.idtr = TableRegister { base: 1 << 62, limit: 0xffff };
        state.rip = 1 << 63;
        let text = triple_fault(&state, &ram);
        assert!(text.contains("not canonical") && text.contains("not mapped to RAM"), "{text}");
        state.idtr.limit = 0;
        assert!(gate(&state, &ram, Vector(8)).contains("beyond"));
        assert!(triple_fault(&CpuState::reset(), &ram).contains("Real"));
    }
}
