//! Who may see and change which system flags (SDM vol. 2, PUSHF, POPF, CLI, STI; vol. 3, 21.3.3.5
//! and 21.4).
//!
//! The permission tables of the four instructions by mode, CPL, IOPL, CR4.VME and CR4.PVI. The
//! stack is the caller's.

use crate::addr::Width;
use crate::exception::Exception;
use crate::regs::{Cr4, Rflags};
use crate::state::{CpuState, Flags, Mode};

const GP: Exception = Exception::gp(0);
const IOPL_3: u64 = 3 << 12;

/// POPF never touches these (and clears RF).
const NEVER: Rflags = Rflags::VM.union(Rflags::VIF).union(Rflags::VIP);
/// All that POPF can load.
const LOADABLE: u64 =
    Rflags::all().difference(NEVER).difference(Rflags::RF).difference(Rflags::FIXED).bits();

/// Who decides about IF.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Permission {
    /// The program changes IF itself.
    Real,
    /// The program changes VIF in its place.
    Virtual,
    /// #GP(0).
    Denied,
}

/// The current I/O privilege level.
pub const fn iopl(state: &CpuState) -> u8 {
    ((state.flags.system >> 12) & 3) as u8
}

/// CLI's and STI's table (SDM vol. 2, STI, table 4-18).
fn interrupt_flag(state: &CpuState) -> Permission {
    let cr4 = state.paging.cr4;
    match state.mode() {
        Mode::Real => Permission::Real,
        Mode::Virtual8086 if iopl(state) == 3 => Permission::Real,
        Mode::Virtual8086 if cr4.contains(Cr4::VME) => Permission::Virtual,
        Mode::Virtual8086 => Permission::Denied,
        _ if state.cpl <= iopl(state) => Permission::Real,
        _ if state.cpl == 3 && cr4.contains(Cr4::PVI) => Permission::Virtual,
        _ => Permission::Denied,
    }
}

/// CLI.
///
/// # Errors
/// #GP(0) without the privilege.
pub fn cli(state: &mut CpuState) -> Result<(), Exception> {
    match interrupt_flag(state) {
        Permission::Real => state.flags.set(Rflags::IF, false),
        Permission::Virtual => state.flags.set(Rflags::VIF, false),
        Permission::Denied => return Err(GP),
    }
    Ok(())
}

/// STI. Where IF goes from 0 to 1, interrupts wait for one more instruction.
///
/// # Errors
/// #GP(0) without the privilege, and where VIF would be set while VIP is.
pub fn sti(state: &mut CpuState) -> Result<(), Exception> {
    match interrupt_flag(state) {
        Permission::Real => {
            state.blocking.sti |= !state.flags.has(Rflags::IF);
            state.flags.set(Rflags::IF, true);
        }
        Permission::Virtual if !state.flags.has(Rflags::VIP) => state.flags.set(Rflags::VIF, true),
        Permission::Virtual | Permission::Denied => return Err(GP),
    }
    Ok(())
}

/// Virtual-8086 mode below IOPL 3, where PUSHF and POPF are the monitor's unless VME serves them.
fn needs_vme(state: &CpuState) -> bool {
    state.mode() == Mode::Virtual8086 && iopl(state) < 3
}

/// VME serves PUSHF and POPF of 16 bits only.
fn vme_serves(state: &CpuState, size: Width) -> bool {
    state.paging.cr4.contains(Cr4::VME) && size == Width::B2
}

/// The image that PUSHF pushes with an operand of `size` bytes (2, 4, 8): VM and RF read as zero.
///
/// # Errors
/// #GP(0) in virtual-8086 mode below IOPL 3, unless CR4.VME is set and `size` is 2: then the image
/// shows VIF as IF, and IOPL 3.
pub fn pushf(state: &CpuState, size: Width) -> Result<u64, Exception> {
    let mask = if size == Width::B2 { 0xffff } else { !(Rflags::VM | Rflags::RF).bits() };
    let mut image = state.flags;
    if needs_vme(state) {
        if !vme_serves(state, size) {
            return Err(GP);
        }
        image.set(Rflags::IF, state.flags.has(Rflags::VIF));
        image.set(Rflags::IOPL, true);
    }
    Ok(image.bits() & mask)
}

/// POPF of `image`, `size` bytes wide (2, 4, 8).
///
/// # Errors
/// #GP(0) in virtual-8086 mode below IOPL 3, unless CR4.VME is set, `size` is 2, TF is not popped
/// as 1 and IF is not popped as 1 while VIP is set: then VIF is loaded in IF's place.
pub fn popf(state: &mut CpuState, image: u64, size: Width) -> Result<(), Exception> {
    if needs_vme(state) {
        return popf_vme(state, image, size);
    }
    let mut mask = LOADABLE;
    if size == Width::B2 {
        mask &= 0xffff;
    }
    if state.mode() == Mode::Virtual8086 || state.cpl > 0 {
        mask &= !IOPL_3;
    }
    if state.cpl > iopl(state) {
        mask &= !Rflags::IF.bits();
    }
    load(state, image, mask);
    Ok(())
}

fn popf_vme(state: &mut CpuState, image: u64, size: Width) -> Result<(), Exception> {
    let popped = Flags::from_bits(image & 0xffff);
    let clashes = popped.has(Rflags::IF) && state.flags.has(Rflags::VIP);
    if !vme_serves(state, size) || clashes || popped.has(Rflags::TF) {
        return Err(GP);
    }
    load(state, image, LOADABLE & 0xffff & !IOPL_3 & !Rflags::IF.bits());
    state.flags.set(Rflags::VIF, popped.has(Rflags::IF));
    Ok(())
}

fn load(state: &mut CpuState, image: u64, mask: u64) {
    let kept = state.flags.bits() & !mask & !Rflags::RF.bits();
    state.flags = Flags::from_bits(kept | image & mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regs::Cr0;

    fn at(cpl: u8, flags: u64) -> CpuState {
        let mut s = CpuState::reset();
        s.paging.cr0 |= Cr0::PE;
        s.cpl = cpl;
        s.flags = Flags::from_bits(flags);
        s
    }

    fn v86(iopl: u64, vme: bool, flags: u64) -> CpuState {
        let mut s = at(3, flags | iopl << 12 | 1 << 17);
        s.paging.cr4.set(Cr4::VME, vme);
        s
    }

    fn after(mut s: CpuState, f: impl Fn(&mut CpuState) -> Result<(), Exception>) -> Option<u64> {
        let before = s.clone();
        let result = f(&mut s);
        assert!(result.is_ok() || s == before);
        result.is_ok().then(|| s.flags.bits())
    }

    #[test]
    fn popf_by_level() {
        let all = u64::from(u32::MAX);
        let popf4 = |s| after(s, |s| popf(s, all, Width::B4));
        // Level 0: everything but RF, VM, VIF, VIP; reserved bits stay as they are.
        assert_eq!(popf4(at(0, 2)), Some(0x24_7fd7));
        // Level 3, IOPL 3: not IOPL; but IF.
        assert_eq!(popf4(at(3, 0x3002)), Some(0x24_7fd7));
        assert_eq!(popf4(at(3, 2)), Some(0x24_4dd7));
        // IF survives a POPF of zero above IOPL.
        assert_eq!(after(at(3, 0x202), |s| popf(s, 0, Width::B4)), Some(0x202));
        assert_eq!(after(at(1, 0x1202), |s| popf(s, 0, Width::B4)), Some(0x1002));
        // VIF and VIP are unaffected, RF is cleared.
        assert_eq!(after(at(0, 0x19_0002), |s| popf(s, 0, Width::B8)), Some(0x18_0002));
    }

    #[test]
    fn popf_16_bits_leaves_the_upper_half() {
        assert_eq!(after(at(0, 0x24_0002), |s| popf(s, 0x8d5, Width::B2)), Some(0x24_08d7));
        let mut real = CpuState::reset();
        real.flags = Flags::from_bits(2);
        assert_eq!(after(real, |s| popf(s, 0xffff, Width::B2)), Some(0x7fd7));
    }

    #[test]
    fn virtual_8086_with_iopl_3() {
        assert_eq!(after(v86(3, false, 2), |s| popf(s, 0x200, Width::B2)), Some(0x2_3202));
        assert_eq!(after(v86(3, false, 2), |s| popf(s, 0, Width::B4)), Some(0x2_3002));
        assert_eq!(pushf(&v86(3, false, 0x202), Width::B4), Ok(0x3202));
    }

    #[test]
    fn virtual_8086_below_iopl_3() {
        assert_eq!(after(v86(0, false, 2), |s| popf(s, 0x200, Width::B2)), None);
        assert_eq!(after(v86(0, true, 2), |s| popf(s, 0x200, Width::B4)), None);
        // VME: VIF in IF's place, IOPL as it was.
        assert_eq!(after(v86(0, true, 2), |s| popf(s, 0x3201, Width::B2)), Some(0xa_0003));
        assert_eq!(after(v86(0, true, 0x8_0202), |s| popf(s, 0, Width::B2)), Some(0x2_0202));
        // A pending virtual interrupt, or TF, is the monitor's.
        assert_eq!(after(v86(0, true, 0x10_0002), |s| popf(s, 0x200, Width::B2)), None);
        assert_eq!(after(v86(0, true, 0x10_0002), |s| popf(s, 0, Width::B2)), Some(0x12_0002));
        assert_eq!(after(v86(0, true, 2), |s| popf(s, 0x100, Width::B2)), None);
        assert_eq!(pushf(&v86(0, true, 0x8_0002), Width::B2), Ok(0x3202));
        assert_eq!(pushf(&v86(0, true, 0x202), Width::B2), Ok(0x3002));
        assert_eq!(pushf(&v86(0, true, 2), Width::B4), Err(GP));
        assert_eq!(pushf(&v86(0, false, 2), Width::B2), Err(GP));
    }

    #[test]
    fn pushf_hides_vm_and_rf() {
        assert_eq!(pushf(&at(3, 0x25_0202), Width::B8), Ok(0x24_0202));
        assert_eq!(pushf(&at(3, 0x25_0202), Width::B2), Ok(0x0202));
    }

    #[test]
    fn cli_and_sti_by_level() {
        assert_eq!(after(at(0, 0x202), cli), Some(2));
        assert_eq!(after(at(1, 0x202), cli), None);
        assert_eq!(after(at(1, 0x1202), cli), Some(0x1002));
        assert_eq!(after(at(3, 2), sti), None);
        assert_eq!(after(CpuState::reset(), sti), Some(0x202));
        let mut pvi = at(3, 0x8_0202);
        pvi.paging.cr4 |= Cr4::PVI;
        assert_eq!(after(pvi.clone(), cli), Some(0x202));
        pvi.flags = Flags::from_bits(2);
        assert_eq!(after(pvi.clone(), sti), Some(0x8_0002));
        pvi.flags = Flags::from_bits(0x10_0002);
        assert_eq!(after(pvi.clone(), sti), None);
        // PVI serves level 3 only.
        pvi.flags = Flags::from_bits(2);
        pvi.cpl = 2;
        assert_eq!(after(pvi, sti), None);
        assert_eq!(after(v86(0, false, 2), cli), None);
        assert_eq!(after(v86(0, true, 0x8_0202), cli), Some(0x2_0202));
        assert_eq!(after(v86(0, true, 0x10_0002), sti), None);
    }

    #[test]
    fn sti_casts_its_shadow_once() {
        let mut s = CpuState::reset();
        sti(&mut s).unwrap();
        assert!(s.blocking.sti);
        s.blocking.sti = false;
        sti(&mut s).unwrap();
        assert!(!s.blocking.sti);
    }
}
