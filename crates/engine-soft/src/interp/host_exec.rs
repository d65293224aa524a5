//! Instructions that the host executes for the guest: the interpreter's side of [`crate::thunk`].
//!
//! A handler here checks the unit (#NM, #UD), translates the memory operand to a host pointer (or
//! uses a bounce buffer), runs the thunk, and turns a host fault into the guest's exception.
#![allow(unsafe_code)] // thunks are generated code on host pointers; see docs/UNSAFE.md

use super::thunks::Entry;
use crate::core::Op;
use crate::core::{Core, LEGACY};
use crate::locked;
use crate::op::{Fallible, Step, step, width};
use crate::thunk::x87::{self, FarPointer, Pointers};
use crate::thunk::{FpuClass, MemOperand, ThunkFault};
use crate::tlb::PAGE_MASK;
use x86::addr::{La, Vector};
use x86::bus::AccessKind;
use x86::debug::DataAccess;
use x86::exception::Exception;
use x86::regs::{Cr0, Cr4};
use x86::state::Mode;

/// The unit's own checks (SDM vol. 3, 2.5 and 13.1; vol. 2, 2.4).
fn check_unit(core: &mut Core, class: FpuClass) -> Fallible {
    let (cr0, cr4) = (core.state.paging.cr0, core.state.paging.cr4);
    let nm = Exception::plain(Vector::NM);
    match class {
        FpuClass::None => Ok(()),
        FpuClass::X87 if cr0.intersects(Cr0::EM | Cr0::TS) => core.raise(nm),
        FpuClass::Wait if cr0.contains(Cr0::MP | Cr0::TS) => core.raise(nm),
        FpuClass::X87 | FpuClass::Wait => Ok(()),
        FpuClass::Mmx if cr0.contains(Cr0::EM) => core.ud(),
        FpuClass::Sse if cr0.contains(Cr0::EM) || !cr4.contains(Cr4::OSFXSR) => core.ud(),
        FpuClass::Avx if !avx_enabled(core) => core.ud(),
        _ if cr0.contains(Cr0::TS) => core.raise(nm),
        _ => Ok(()),
    }
}

fn avx_enabled(core: &Core) -> bool {
    core.state.paging.cr4.contains(Cr4::OSXSAVE)
        && core.state.xcr0 & 6 == 6
        && !matches!(core.mode, Mode::Real | Mode::Virtual8086)
}

/// AVX instructions that no thunk runs (masked moves, gathers, VZEROUPPER) check the same.
pub(crate) fn check_avx(core: &mut Core) -> Fallible {
    check_unit(core, FpuClass::Avx)
}

/// As [`check_avx`] for SSE.
pub(crate) fn check_sse(core: &mut Core) -> Fallible {
    check_unit(core, FpuClass::Sse)
}

/// As [`check_avx`] for MMX.
pub(crate) fn check_mmx(core: &mut Core) -> Fallible {
    check_unit(core, FpuClass::Mmx)
}

/// The guest's exception for the host's.
#[cold]
fn translate(core: &mut Core, fault: ThunkFault) -> Fallible {
    let exception = match fault {
        ThunkFault::DivideError => Exception::plain(Vector::DE),
        ThunkFault::SimdFp if core.state.paging.cr4.contains(Cr4::OSXMMEXCPT) => {
            Exception::plain(Vector::XM)
        }
        ThunkFault::SimdFp | ThunkFault::InvalidOpcode => Exception::ud(),
        ThunkFault::X87 => Exception::plain(Vector::MF),
        ThunkFault::GeneralProtection => Exception::gp(0),
        ThunkFault::Alignment => Exception::with_code(Vector::AC, 0),
        ThunkFault::HostMemory(address) => {
            core.exit = Some(vcpu::Exit::Fatal(format!("host memory at {address:#x} went away")));
            Exception::with_code(Vector::MC, 0)
        }
        ThunkFault::Other(vector) => {
            core.exit = Some(vcpu::Exit::Fatal(format!("host exception {vector} in a thunk")));
            Exception::ud()
        }
    };
    core.raise(exception)
}

fn run(core: &mut Core, entry: Entry, mem: *mut u8) -> Fallible {
    // SAFETY: ops die before their thunks (see `Thunks::reset`); `mem` covers the operand: RAM or a
    // bounce buffer.
    match unsafe { entry.thunk.run(&mut core.state, mem) } {
        Ok(()) => Ok(()),
        Err(fault) => translate(core, fault),
    }
}

/// Records the last x87 instruction and operand, which the host's FXSAVE may not save.
fn note_x87(core: &mut Core, op: &Op, entry: &Entry, operand: Option<u64>) {
    if entry.pointers == Pointers::Keep {
        return;
    }
    // 64-bit mode keeps no selectors; elsewhere FCS and FDS are deprecated and read as zero (CPUID
    // 7.0 EBX bit 13).
    let place = |offset| FarPointer { selector: 0, offset };
    let ip = core.ip(op);
    x87::record(&mut core.state.x87, entry.pointers, entry.fop, place(ip), operand.map(place));
}

fn entry(core: &Core, op: &Op) -> Option<Entry> {
    core.thunks.list.get(op.imm as usize).copied()
}

/// A thunk without memory operand.
pub(crate) fn registers(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let Some(entry) = entry(core, op) else { return core.ud() };
        check_unit(core, entry.thunk.class.fpu)?;
        run(core, entry, std::ptr::null_mut())?;
        core.stats.direct += 1;
        note_x87(core, op, &entry, None);
        Ok(())
    };
    step(body(core))
}

/// A thunk with a memory operand.
pub(crate) fn memory<const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let Some(entry) = entry(core, op) else { return core.ud() };
        let Some(operand) = entry.thunk.class.mem else { return core.ud() };
        check_unit(core, entry.thunk.class.fpu)?;
        if entry.thunk.class.waits && x87::error_pending(&core.state.x87) {
            // A pending x87 error comes before the operand's faults.
            return core.raise(Exception::plain(Vector::MF));
        }
        let kind = if operand.access.writes() { AccessKind::Write } else { AccessKind::Read };
        let size = u64::from(operand.size);
        if operand.size == EXTENDED
            && (A == LEGACY || beyond_page(core.linear::<A>(op, size, kind)?))
        {
            in_parts(core, op, entry, operand)?;
            return done(core, op, &entry);
        }
        let la = core.linear::<A>(op, size, kind)?;
        check_alignment(core, la, operand)?;
        let privilege = core.privilege();
        let place = core.mmu.pin(la, size, kind, privilege);
        match core.check(place)? {
            Some((host, gpa)) => {
                run(core, entry, host)?;
                if operand.access.writes() {
                    core.mmu.wrote(gpa, size);
                }
            }
            None => bounce(core, entry, operand, la)?,
        }
        watch(core, la, operand);
        done(core, op, &entry)
    };
    step(body(core))
}

/// Records that a thunk with a memory operand has run.
fn done(core: &mut Core, op: &Op, entry: &Entry) -> Fallible {
    core.stats.direct += 1;
    if entry.pointers != Pointers::Keep {
        let offset = core.offset(op);
        note_x87(core, op, entry, Some(offset));
    }
    Ok(())
}

/// Bytes of an extended real or packed decimal, which is accessed in two parts.
const EXTENDED: u16 = 10;
/// Bytes of the first.
const LOW: u64 = 8;
/// Bytes of the second.
const HIGH: u64 = EXTENDED as u64 - LOW;

/// Whether the second part of an extended real at `address` may lie on another page than the first.
fn beyond_page(address: u64) -> bool {
    address & PAGE_MASK > PAGE_MASK + 1 - u64::from(EXTENDED)
}

/// Accesses an extended real or packed decimal in two parts, each with an address of its own
/// ([`x86::segment::Operand`]).
#[cold]
fn in_parts(core: &mut Core, op: &Op, entry: Entry, operand: MemOperand) -> Fallible {
    let mut buffer = Buffer([0; 64]);
    if !operand.access.writes() {
        let la = core.part(op, 0, LOW, AccessKind::Read)?;
        let low = core.load::<u64>(la)?;
        let la = core.part(op, LOW, HIGH, AccessKind::Read)?;
        let high = core.load::<u16>(la)?;
        buffer.0[..8].copy_from_slice(&low.to_le_bytes());
        buffer.0[8..10].copy_from_slice(&high.to_le_bytes());
        return run(core, entry, buffer.0.as_mut_ptr());
    }
    let low = core.part(op, 0, LOW, AccessKind::Write)?;
    core.aligned(low, LOW, LOW)?;
    writable(core, low, LOW)?;
    let high = core.part(op, LOW, HIGH, AccessKind::Write)?;
    writable(core, high, HIGH)?;
    run(core, entry, buffer.0.as_mut_ptr())?;
    if withheld(core, entry) {
        return Ok(());
    }
    let value = u128::from_le_bytes(std::array::from_fn(|i| buffer.0[i]));
    core.store::<u64>(low, value as u64)?;
    core.store::<u16>(high, (value >> 64) as u16)
}

fn writable(core: &mut Core, la: u64, len: u64) -> Fallible {
    let privilege = core.privilege();
    let probe = core.mmu.probe_write(La(la), len, privilege);
    core.check(probe)
}

fn check_alignment(core: &mut Core, la: u64, operand: MemOperand) -> Fallible {
    let size = u64::from(operand.size);
    if la & (u64::from(operand.alignment) - 1) != 0 {
        // This check comes before the canonical one and raises #GP(0) for stack references, too.
        return core.gp();
    }
    // Intel's processors do not check the alignment of vector operands, AMD's do. SDM vol. 3, table
    // 7-7, ends at a double quadword, and vol. 2, MOVUPS, leaves it to the processor.
    if operand.alignment != 1 || size >= 16 {
        return Ok(());
    }
    // An extended double is aligned as a double is.
    let natural = if size == 10 { 8 } else { size.next_power_of_two() };
    core.aligned(la, size, natural)
}

/// Runs a thunk on a bounce buffer: the operand crosses a page or is device memory.
#[cold]
fn bounce(core: &mut Core, entry: Entry, operand: MemOperand, la: u64) -> Fallible {
    if operand.locked
        && let Some(_serialized) = locked::split_lock(core, la, u64::from(operand.size))?
    {
        return bounce_locked(core, entry, operand, la);
    }
    let mut buffer = Buffer([0; 64]);
    let bytes = usize::from(operand.size).min(64);
    let privilege = core.privilege();
    if operand.access != crate::thunk::MemAccess::Write {
        let read = if bytes.is_power_of_two() && bytes <= 8 {
            // A single access: the operand may be a device's register.
            let value = core.bus().load(La(la), width(bytes as u8), privilege);
            value.map(|v| buffer.0[..8].copy_from_slice(&v.to_le_bytes()))
        } else {
            core.bus().read_bytes(la, &mut buffer.0[..bytes], privilege)
        };
        core.check(read)?;
    }
    run(core, entry, buffer.0.as_mut_ptr())?;
    if operand.access.writes() && !withheld(core, entry) {
        let written = if bytes.is_power_of_two() && bytes <= 8 {
            let value = buffer.0[..8].iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b));
            core.bus().store(La(la), width(bytes as u8), value, privilege)
        } else {
            core.bus().write_bytes(la, &buffer.0[..bytes], privilege)
        };
        core.check(written)?;
    }
    Ok(())
}

/// Runs a thunk on a copy of its locked operand, which crosses a page of RAM, until nobody has
/// stored to that meanwhile.
fn bounce_locked(core: &mut Core, entry: Entry, operand: MemOperand, la: u64) -> Fallible {
    let before = (core.state.gpr, core.state.flags);
    let privilege = core.privilege();
    loop {
        let old = core.bus().load(La(la), width(operand.size as u8), privilege);
        let old = core.check(old)?;
        let mut word = old;
        run(core, entry, std::ptr::from_mut(&mut word).cast())?;
        if locked::exchange(core, la, u64::from(operand.size), old, word)? {
            return Ok(());
        }
        (core.state.gpr, core.state.flags) = before;
    }
}

/// Whether the x87 store that has just run stored nothing, because of an unmasked exception (SDM
/// vol. 1, 8.5: invalid operation, overflow and underflow leave the destination as it is). None was
/// pending before.
fn withheld(core: &Core, entry: Entry) -> bool {
    const INVALID_OVERFLOW_UNDERFLOW: u16 = 0b1_1001;
    let x87 = &core.state.x87;
    entry.thunk.class.waits
        && entry.thunk.class.fpu == FpuClass::X87
        && x87.fsw & !x87.fcw & INVALID_OVERFLOW_UNDERFLOW != 0
}

#[repr(align(64))]
struct Buffer([u8; 64]);

fn watch(core: &mut Core, la: u64, operand: MemOperand) {
    let access = if operand.access.writes() { DataAccess::Write } else { DataAccess::Read };
    core.watch(la, operand.size as u8, access);
}
