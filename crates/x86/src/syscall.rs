//! SYSCALL, SYSRET, SYSENTER, SYSEXIT and SWAPGS (SDM vol. 2, each instruction; vol. 3, 5.8.7 and
//! 5.8.8).
//!
//! As on Intel's processors: SYSCALL and SYSRET exist in 64-bit mode only, and a SYSRET to a
//! non-canonical RCX faults in ring 0. The functions set RIP; CS and SS are flat whatever the GDT
//! holds.

use crate::addr::{La, Width};
use crate::exception::Exception;
use crate::regs::{Cr0, Efer, Rflags};
use crate::state::{CpuState, Mode, Seg, Segment, gpr};

/// Present, code or data, accessed, 4 KiB granularity.
const FLAT: u16 = Segment::P | Segment::S | Segment::G | 1;
/// Execute and read.
const CODE: u16 = FLAT | 0xa;
/// Read and write, big.
const DATA: u16 = FLAT | 2 | Segment::DB;
/// What SYSRET takes from R11: all of RFLAGS but RF, VM and the reserved bits.
pub const SYSRET_FLAGS: u64 = 0x3c_7fd7;

const GP: Exception = Exception::gp(0);

/// The size of the code that a fast call enters or a fast return goes back to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CodeSize {
    Bits32,
    Bits64,
}

/// CS and the SS beside it, flat, at privilege level `cpl`.
fn flat(code: u16, stack: u16, cpl: u8, size: CodeSize) -> [Segment; 2] {
    let dpl = u16::from(cpl) << 5;
    let width = if size == CodeSize::Bits64 { Segment::L } else { Segment::DB };
    let segment =
        |selector, access| Segment { base: 0, limit: 0xffff_ffff, selector, access: access | dpl };
    [segment(code, CODE | width), segment(stack, DATA)]
}

/// CS and SS behind a SYSCALL, as IA32_STAR has them.
pub fn called(star: u64) -> [Segment; 2] {
    let code = (star >> 32) as u16 & !3;
    flat(code, code.wrapping_add(8), 0, CodeSize::Bits64)
}

/// CS and SS behind a SYSRET to 64-bit mode, as IA32_STAR has them.
pub fn returned(star: u64) -> [Segment; 2] {
    returned_to(star, CodeSize::Bits64)
}

fn returned_to(star: u64, size: CodeSize) -> [Segment; 2] {
    let base = (star >> 48) as u16;
    let code = if size == CodeSize::Bits64 { base.wrapping_add(16) } else { base };
    flat(code | 3, base.wrapping_add(8) | 3, 3, size)
}

/// Loads CS and SS, and enters level `cpl`.
fn load(state: &mut CpuState, [code, stack]: [Segment; 2], cpl: u8, size: CodeSize) {
    state.seg[Seg::Cs as usize] = code;
    state.seg[Seg::Ss as usize] = stack;
    state.cpl = cpl;
    if size == CodeSize::Bits32 {
        state.gpr[gpr::RSP] &= 0xffff_ffff;
    }
}

fn need_syscall(state: &CpuState) -> Result<(), Exception> {
    if state.mode() == Mode::Long64 && state.paging.efer.contains(Efer::SCE) {
        Ok(())
    } else {
        Err(Exception::ud())
    }
}

fn need(condition: bool) -> Result<(), Exception> {
    if condition { Ok(()) } else { Err(GP) }
}

/// SYSCALL; `next_rip` is the address after the instruction.
///
/// # Errors
/// #UD outside 64-bit mode and without EFER.SCE.
pub fn syscall(state: &mut CpuState, next_rip: u64) -> Result<(), Exception> {
    need_syscall(state)?;
    let flags = state.flags.bits() & !Rflags::RF.bits();
    state.gpr[gpr::RCX] = next_rip;
    state.gpr[11] = flags;
    state.rip = state.msr.lstar;
    state.flags = crate::state::Flags::from_bits(flags & !state.msr.fmask);
    load(state, called(state.msr.star), 0, CodeSize::Bits64);
    Ok(())
}

/// SYSRET; `size` 8 (REX.W): to 64-bit mode; 4: to compatibility mode.
///
/// # Errors
/// #UD outside 64-bit mode and without EFER.SCE; #GP(0) above level 0 and, if `size` is 8, for a
/// non-canonical RCX.
pub fn sysret(state: &mut CpuState, size: Width) -> Result<(), Exception> {
    need_syscall(state)?;
    let long = size == Width::B8;
    need(state.cpl == 0)?;
    let target = state.gpr[gpr::RCX];
    need(!long || La(target).is_canonical())?;
    state.rip = if long { target } else { target & 0xffff_ffff };
    state.flags = crate::state::Flags::from_bits(state.gpr[11] & SYSRET_FLAGS);
    let code_size = if long { CodeSize::Bits64 } else { CodeSize::Bits32 };
    load(state, returned_to(state.msr.star, code_size), 3, code_size);
    Ok(())
}

/// IA32_SYSENTER_CS as SYSENTER and SYSEXIT accept it: a null selector there means "not set up".
fn sysenter_selector(state: &CpuState) -> Result<u16, Exception> {
    let selector = state.msr.sysenter_cs as u16;
    need(state.paging.cr0.contains(Cr0::PE) && selector & !3 != 0)?;
    Ok(selector)
}

/// SYSENTER.
///
/// # Errors
/// #GP(0) in real mode and while IA32_SYSENTER_CS is null.
pub fn sysenter(state: &mut CpuState) -> Result<(), Exception> {
    let code = sysenter_selector(state)? & !3;
    let long = state.long_mode();
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    state.flags.set(Rflags::VM | Rflags::IF, false);
    state.gpr[gpr::RSP] = state.msr.sysenter_esp & mask;
    state.rip = state.msr.sysenter_eip & mask;
    let code_size = if long { CodeSize::Bits64 } else { CodeSize::Bits32 };
    load(state, flat(code, code.wrapping_add(8), 0, code_size), 0, code_size);
    Ok(())
}

/// SYSEXIT; `size` 8 (REX.W): to 64-bit mode; 4: to 32-bit code.
///
/// # Errors
/// #GP(0) in real mode, above level 0, while IA32_SYSENTER_CS is null and, if `size` is 8, for
/// non-canonical RCX or RDX.
pub fn sysexit(state: &mut CpuState, size: Width) -> Result<(), Exception> {
    let base = sysenter_selector(state)?;
    let long = size == Width::B8;
    need(state.cpl == 0)?;
    let (stack, target) = (state.gpr[gpr::RCX], state.gpr[gpr::RDX]);
    need(!long || La(stack).is_canonical() && La(target).is_canonical())?;
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    state.gpr[gpr::RSP] = stack & mask;
    state.rip = target & mask;
    let code = base.wrapping_add(if long { 32 } else { 16 });
    let code_size = if long { CodeSize::Bits64 } else { CodeSize::Bits32 };
    load(state, flat(code | 3, code.wrapping_add(8) | 3, 3, code_size), 3, code_size);
    Ok(())
}

/// SWAPGS.
///
/// # Errors
/// #UD outside 64-bit mode, #GP(0) above level 0.
pub fn swapgs(state: &mut CpuState) -> Result<(), Exception> {
    if state.mode() != Mode::Long64 {
        return Err(Exception::ud());
    }
    need(state.cpl == 0)?;
    core::mem::swap(&mut state.seg[Seg::Gs as usize].base, &mut state.msr.kernel_gs_base);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Flags;

    const KERNEL: u64 = 0xffff_ffff_8100_0000;
    const NON_CANONICAL: u64 = 0x8000_0000_0000;

    fn long64(cpl: u8) -> CpuState {
        let mut s = CpuState::reset();
        s.paging.cr0 |= Cr0::PE | Cr0::PG;
        s.paging.efer = Efer::SCE | Efer::LME | Efer::LMA;
        s.seg[Seg::Cs as usize] = Segment { base: 0, limit: !0, selector: 0x33, access: 0xa0fb };
        s.cpl = cpl;
        // As Linux has it: kernel CS 10H, user CS32 23H, user SS 2BH, user CS 33H.
        s.msr.star = 0x0023_0010 << 32;
        s.msr.lstar = KERNEL;
        s.msr.fmask = 0x4_7700;
        s.msr.sysenter_cs = 0x10;
        s.msr.sysenter_esp = KERNEL + 0x1000;
        s.msr.sysenter_eip = KERNEL + 0x2000;
        s
    }

    fn cs_ss(s: &CpuState) -> [(u16, u16); 2] {
        [Seg::Cs, Seg::Ss].map(|r| (s.seg[r as usize].selector, s.seg[r as usize].access))
    }

    fn fails(mut s: CpuState, f: impl Fn(&mut CpuState) -> Result<(), Exception>) -> Exception {
        let before = s.clone();
        let fault = f(&mut s).unwrap_err();
        assert_eq!(s, before);
        fault
    }

    #[test]
    fn there_and_back() {
        let mut s = long64(3);
        s.flags = Flags::from_bits(0x1_0303);
        syscall(&mut s, 0x40_1002).unwrap();
        assert_eq!((s.rip, s.gpr[gpr::RCX], s.cpl), (KERNEL, 0x40_1002, 0));
        // RF is not kept; TF and IF are masked, CF stays.
        assert_eq!((s.gpr[11], s.flags.bits()), (0x303, 0x003));
        assert_eq!(cs_ss(&s), [(0x10, 0xa09b), (0x18, 0xc093)]);
        assert_eq!(s.mode(), Mode::Long64);
        s.gpr[11] |= Rflags::RF.bits() | Rflags::VM.bits() | Rflags::AC.bits();
        sysret(&mut s, Width::B8).unwrap();
        assert_eq!((s.rip, s.cpl), (0x40_1002, 3));
        assert_eq!(s.flags.bits(), 0x4_0303);
        assert_eq!(cs_ss(&s), [(0x33, 0xa0fb), (0x2b, 0xc0f3)]);
    }

    #[test]
    fn sysret_to_compatibility_mode_truncates() {
        let mut s = long64(0);
        s.gpr[gpr::RCX] = NON_CANONICAL | 0x1234;
        s.gpr[gpr::RSP] = KERNEL;
        sysret(&mut s, Width::B4).unwrap();
        assert_eq!((s.rip, s.gpr[gpr::RSP]), (0x1234, KERNEL & 0xffff_ffff));
        assert_eq!(cs_ss(&s), [(0x23, 0xc0fb), (0x2b, 0xc0f3)]);
        assert_eq!(s.mode(), Mode::Protected32);
    }

    #[test]
    fn syscall_and_sysret_refuse() {
        let ud = Exception::ud();
        let mut compat = long64(3);
        compat.seg[Seg::Cs as usize].access = 0xc0fb;
        assert_eq!(fails(compat, |s| syscall(s, 0)), ud);
        let mut off = long64(0);
        off.paging.efer -= Efer::SCE;
        assert_eq!(fails(off.clone(), |s| syscall(s, 0)), ud);
        assert_eq!(fails(off, |s| sysret(s, Width::B8)), ud);
        assert_eq!(fails(long64(3), |s| sysret(s, Width::B8)), GP);
        let mut wild = long64(0);
        wild.gpr[gpr::RCX] = NON_CANONICAL;
        assert_eq!(fails(wild, |s| sysret(s, Width::B8)), GP);
    }

    #[test]
    fn sysenter_in_long_and_legacy_mode() {
        let mut s = long64(3);
        s.flags = Flags::from_bits(0x2_0202);
        sysenter(&mut s).unwrap();
        assert_eq!((s.rip, s.gpr[gpr::RSP], s.cpl), (KERNEL + 0x2000, KERNEL + 0x1000, 0));
        assert_eq!(s.flags.bits(), 2);
        assert_eq!(cs_ss(&s), [(0x10, 0xa09b), (0x18, 0xc093)]);
        let mut s = long64(3);
        s.paging.efer = Efer::empty();
        sysenter(&mut s).unwrap();
        assert_eq!((s.rip, s.gpr[gpr::RSP]), (0x8100_2000, 0x8100_1000));
        assert_eq!(cs_ss(&s), [(0x10, 0xc09b), (0x18, 0xc093)]);
    }

    #[test]
    fn sysexit_wide_and_narrow() {
        let mut s = long64(0);
        s.gpr[gpr::RCX] = 0x7fff_ffff_f000;
        s.gpr[gpr::RDX] = 0x7000_0000_0000;
        let narrow = s.clone();
        sysexit(&mut s, Width::B8).unwrap();
        assert_eq!((s.rip, s.gpr[gpr::RSP], s.cpl), (0x7000_0000_0000, 0x7fff_ffff_f000, 3));
        assert_eq!(cs_ss(&s), [(0x33, 0xa0fb), (0x3b, 0xc0f3)]);
        let mut s = narrow;
        sysexit(&mut s, Width::B4).unwrap();
        assert_eq!((s.rip, s.gpr[gpr::RSP]), (0, 0xffff_f000));
        assert_eq!(cs_ss(&s), [(0x23, 0xc0fb), (0x2b, 0xc0f3)]);
    }

    #[test]
    fn sysenter_and_sysexit_refuse() {
        let mut real = CpuState::reset();
        real.msr.sysenter_cs = 0x10;
        assert_eq!(fails(real.clone(), sysenter), GP);
        assert_eq!(fails(real, |s| sysexit(s, Width::B4)), GP);
        let mut null = long64(0);
        null.msr.sysenter_cs = 3;
        assert_eq!(fails(null.clone(), sysenter), GP);
        assert_eq!(fails(null, |s| sysexit(s, Width::B8)), GP);
        assert_eq!(fails(long64(1), |s| sysexit(s, Width::B8)), GP);
        for register in [gpr::RCX, gpr::RDX] {
            let mut wild = long64(0);
            wild.gpr[register] = NON_CANONICAL;
            assert_eq!(fails(wild, |s| sysexit(s, Width::B8)), GP);
        }
    }

    #[test]
    fn swapgs_exchanges() {
        let mut s = long64(0);
        s.msr.kernel_gs_base = KERNEL;
        s.seg[Seg::Gs as usize].base = 7;
        swapgs(&mut s).unwrap();
        assert_eq!((s.seg[Seg::Gs as usize].base, s.msr.kernel_gs_base), (KERNEL, 7));
        assert_eq!(fails(long64(3), swapgs), GP);
        assert_eq!(fails(CpuState::reset(), swapgs), Exception::ud());
    }
}
