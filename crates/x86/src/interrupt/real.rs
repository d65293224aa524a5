//! Delivery through the interrupt vector table: real mode (SDM vol. 3, 20.1.4), and software
//! interrupts that virtual-8086 mode extensions redirect to the 8086 program itself (20.3.3).

use super::Delivery;
use crate::addr::{La, Vector, Width};
use crate::bus::{Privilege, SystemBus};
use crate::exception::Exception;
use crate::regs::{Cr4, Rflags};
use crate::segment::{Stack, check_ip, real_mode_code, virtual_8086};
use crate::state::{CpuState, Seg, Segment};

/// Offset in the TSS of the 16-bit I/O map base; the redirection bitmap is the 32 bytes before the
/// map.
const IO_MAP_BASE: u64 = 0x66;
const REDIRECTION_BYTES: u64 = 32;

pub(super) fn deliver<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    delivery: &Delivery,
) -> Result<(), Exception> {
    let offset = 4 * u64::from(delivery.vector.0);
    if offset + 3 > u64::from(state.idtr.limit) {
        return Err(delivery.idt_fault(Vector::GP));
    }
    let entry = bus.read(
        La(state.idtr.base.wrapping_add(offset) & 0xffff_ffff),
        Width::B4,
        Privilege::Implicit,
    )?;
    let ip = entry & 0xffff;
    let cs = real_mode_code(state.seg[Seg::Cs as usize], (entry >> 16) as u16);
    check_ip(&cs, false, ip)?;
    let cleared = Rflags::IF | Rflags::TF | Rflags::AC | Rflags::RF;
    enter(state, bus, delivery, delivery.image, (cs, ip), cleared)
}

/// INT n in virtual-8086 mode: true if it was delivered to the 8086 program, false if the IDT is to
/// be used.
///
/// # Errors
/// #GP(0) where IOPL forbids it.
pub(super) fn redirect<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    delivery: &Delivery,
) -> Result<bool, Exception> {
    let iopl3 = delivery.image & Rflags::IOPL.bits() == Rflags::IOPL.bits();
    let to_program = state.paging.cr4.contains(Cr4::VME) && !intercepted(state, bus, delivery)?;
    if !to_program {
        return if iopl3 { Ok(false) } else { Err(Exception::gp(0)) };
    }
    let entry = bus.read(La(4 * u64::from(delivery.vector.0)), Width::B4, Privilege::Implicit)?;
    let target = (virtual_8086((entry >> 16) as u16), entry & 0xffff);
    if iopl3 {
        enter(state, bus, delivery, delivery.image, target, Rflags::IF | Rflags::TF)?;
    } else {
        // The program sees its virtual IF, and an IOPL that lets it believe it has the real one.
        let virtual_if = delivery.image & Rflags::VIF.bits() != 0;
        let image = (delivery.image & !Rflags::IF.bits())
            | Rflags::IOPL.bits()
            | if virtual_if { Rflags::IF.bits() } else { 0 };
        enter(state, bus, delivery, image, target, Rflags::VIF | Rflags::TF)?;
    }
    Ok(true)
}

/// The vector's bit in the TSS's redirection bitmap: set for "use the IDT".
fn intercepted<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    delivery: &Delivery,
) -> Result<bool, Exception> {
    let limit = u64::from(state.tr.limit);
    if IO_MAP_BASE + 1 > limit {
        return Err(Exception::gp(0));
    }
    let base = state.tr.base;
    let map =
        bus.read(La(base.wrapping_add(IO_MAP_BASE) & 0xffff_ffff), Width::B2, Privilege::Implicit)?;
    let byte = match map.checked_sub(REDIRECTION_BYTES) {
        Some(bitmap) if map - 1 <= limit => bitmap + u64::from(delivery.vector.0 / 8),
        _ => return Err(Exception::gp(0)),
    };
    let bits =
        bus.read(La(base.wrapping_add(byte) & 0xffff_ffff), Width::B1, Privilege::Implicit)?;
    Ok(bits >> (delivery.vector.0 % 8) & 1 != 0)
}

/// Pushes the 8086 frame and jumps.
fn enter<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    delivery: &Delivery,
    image: u64,
    (cs, ip): (Segment, u64),
    cleared: Rflags,
) -> Result<(), Exception> {
    let mut stack = Stack::current(state);
    stack.push(bus, Width::B2, image)?;
    stack.push(bus, Width::B2, state.seg[Seg::Cs as usize].selector.into())?;
    stack.push(bus, Width::B2, delivery.return_rip)?;
    stack.store_pointer(state);
    state.seg[Seg::Cs as usize] = cs;
    state.rip = ip;
    state.flags.set(cleared, false);
    Ok(())
}
