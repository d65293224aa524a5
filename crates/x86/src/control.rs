//! Control registers, XCR0, PKRU, INVLPG and INVPCID (SDM vol. 3, 2.5, 4.10.4 and 10.8.5; vol. 2
//! for each instruction).
//!
//! Every function checks CPL itself and leaves state and TLB alone when it fails.
//! [`SystemBus::paging_changed`] is called whenever a paging register has been written. The effects
//! may drop more translations than the manual demands, which the architecture always allows: a
//! change of WP, SMEP, SMAP or PKE drops everything, so that an engine may keep translations with
//! their rights already judged. Only PKRU is announced with [`TlbEffect::None`]: an engine that
//! folds protection keys into its entries compares it itself.

use crate::addr::{La, Width};
use crate::bus::{AccessKind, Privilege, SystemBus, TlbEffect};
use crate::cpuid::{CpuModel, Feature, PHYSICAL_BITS};
use crate::exception::Exception;
use crate::paging::load_pdptes;
use crate::regs::{Cr0, Cr4, Efer};
use crate::segment::Operand;
use crate::state::{CpuState, Mode, PagingState, Seg, Segment};
use crate::xsave::{layout, xinuse};

const GP: Exception = Exception::gp(0);

/// CR0's defined bits; the other low ones read as zero whatever is written (SDM vol. 3, 2.5).
const CR0_DEFINED: u64 = Cr0::all().bits();
/// With PCIDE, bit 63 of the source: keep what is cached for the new PCID.
const CR3_KEEP: u64 = 1 << 63;
/// CR0 bits whose change reloads the PDPTEs under PAE paging (SDM vol. 3, 4.4.1).
const CR0_RELOADS: Cr0 = Cr0::CD.union(Cr0::NW).union(Cr0::PG);
/// CR4 bits, likewise.
const CR4_RELOADS: Cr4 = Cr4::PAE.union(Cr4::PGE).union(Cr4::PSE).union(Cr4::SMEP);
/// CR4 bits whose change makes cached translations, or the rights kept with them, wrong.
const CR4_FLUSHES: Cr4 =
    CR4_RELOADS.union(Cr4::PCIDE).union(Cr4::SMAP).union(Cr4::PKE).union(Cr4::LA57);

/// The features that let a CR4 bit be set.
const CR4_NEEDS: [(Cr4, Feature); 17] = [
    (Cr4::VME, Feature::Vme),
    (Cr4::PVI, Feature::Vme),
    (Cr4::TSD, Feature::Tsc),
    (Cr4::DE, Feature::De),
    (Cr4::PSE, Feature::Pse),
    (Cr4::PAE, Feature::Pae),
    (Cr4::MCE, Feature::Mce),
    (Cr4::PGE, Feature::Pge),
    (Cr4::OSFXSR, Feature::Fxsr),
    (Cr4::OSXMMEXCPT, Feature::Sse),
    (Cr4::UMIP, Feature::Umip),
    (Cr4::FSGSBASE, Feature::Fsgsbase),
    (Cr4::PCIDE, Feature::Pcid),
    (Cr4::OSXSAVE, Feature::Xsave),
    (Cr4::SMEP, Feature::Smep),
    (Cr4::SMAP, Feature::Smap),
    (Cr4::PKE, Feature::Pku),
];

/// The CR4 bits that may be set on `model`. PCE has no feature of its own.
pub fn cr4_allowed(model: &CpuModel) -> Cr4 {
    let granted = CR4_NEEDS.into_iter().filter(|&(_, feature)| model.has(feature));
    granted.fold(Cr4::PCE, |bits, (bit, _)| bits | bit)
}

fn need(condition: bool) -> Result<(), Exception> {
    if condition { Ok(()) } else { Err(GP) }
}

fn need_cpl0(state: &CpuState) -> Result<(), Exception> {
    need(state.cpl == 0)
}

/// MOV from CR0, CR2, CR3, CR4. CR8 is the local APIC's: the engine asks the machine for it.
///
/// # Errors
/// #UD for a register that does not exist, #GP(0) above level 0.
pub fn read_cr(state: &CpuState, n: u8) -> Result<u64, Exception> {
    let value = match n {
        0 => state.paging.cr0.bits(),
        2 => state.cr2,
        3 => state.paging.cr3,
        4 => state.paging.cr4.bits(),
        _ => return Err(Exception::ud()),
    };
    need_cpl0(state).map(|()| value)
}

/// MOV to CR0, CR2, CR3, CR4; outside 64-bit mode the caller zero-extends `value`.
///
/// # Errors
/// #UD for a register that does not exist; #GP(0) above level 0, for reserved bits and for the
/// combinations that the manual forbids.
pub fn write_cr<B: SystemBus + ?Sized>(
    model: &CpuModel,
    state: &mut CpuState,
    bus: &mut B,
    n: u8,
    value: u64,
) -> Result<(), Exception> {
    if !matches!(n, 0 | 2 | 3 | 4) {
        return Err(Exception::ud());
    }
    need_cpl0(state)?;
    match n {
        0 => write_cr0(state, bus, value),
        2 => {
            state.cr2 = value;
            Ok(())
        }
        3 => write_cr3(state, bus, value),
        _ => write_cr4(model, state, bus, value),
    }
}

/// Paging is on in its PAE form, which keeps its PDPTEs in registers.
fn pae_paging(paging: &PagingState) -> bool {
    paging.cr0.contains(Cr0::PG)
        && paging.cr4.contains(Cr4::PAE)
        && !paging.efer.contains(Efer::LMA)
}

fn commit<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    new: PagingState,
    effect: TlbEffect,
) {
    state.paging = new;
    bus.paging_changed(&state.paging, effect);
}

fn write_cr0<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    value: u64,
) -> Result<(), Exception> {
    need(value >> 32 == 0)?;
    let cr0 = Cr0::from_bits_retain(value & CR0_DEFINED) | Cr0::ET;
    need(cr0.contains(Cr0::PE) || !cr0.contains(Cr0::PG))?;
    need(cr0.contains(Cr0::CD) || !cr0.contains(Cr0::NW))?;
    let old = state.paging;
    let mut new = PagingState { cr0, ..old };
    let changed = cr0 ^ old.cr0;
    if changed.contains(Cr0::PG) {
        if cr0.contains(Cr0::PG) {
            enable_paging(state, &mut new)?;
        } else {
            disable_paging(state, &mut new)?;
        }
    }
    if changed.intersects(CR0_RELOADS) && pae_paging(&new) {
        new.pdpte = load_pdptes(bus, new.cr3)?;
    }
    let flush = changed.intersects(Cr0::PG | Cr0::WP);
    commit(state, bus, new, if flush { TlbEffect::FlushAll } else { TlbEffect::None });
    Ok(())
}

/// PG goes to 1: with LME this enters IA-32e mode (SDM vol. 3, 10.8.5).
fn enable_paging(state: &CpuState, new: &mut PagingState) -> Result<(), Exception> {
    if new.efer.contains(Efer::LME) {
        need(new.cr4.contains(Cr4::PAE))?;
        need(state.seg[Seg::Cs as usize].access & Segment::L == 0)?;
        // A 16-bit TSS, available (1) or busy (3), cannot be used in IA-32e mode.
        need(!matches!(state.tr.kind(), 1 | 3))?;
        new.efer |= Efer::LMA;
    }
    Ok(())
}

/// PG goes to 0: not from 64-bit code, nor with PCIDs.
fn disable_paging(state: &CpuState, new: &mut PagingState) -> Result<(), Exception> {
    need(state.mode() != Mode::Long64)?;
    need(!new.cr4.contains(Cr4::PCIDE))?;
    new.efer -= Efer::LMA;
    Ok(())
}

fn write_cr3<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    value: u64,
) -> Result<(), Exception> {
    let pcide = state.paging.cr4.contains(Cr4::PCIDE);
    let keep = pcide && value & CR3_KEEP != 0;
    let cr3 = if keep { value & !CR3_KEEP } else { value };
    need(cr3 >> PHYSICAL_BITS == 0)?;
    let mut new = PagingState { cr3, ..state.paging };
    if pae_paging(&new) {
        new.pdpte = load_pdptes(bus, cr3)?;
    }
    let effect = if keep { TlbEffect::SwitchKeep } else { TlbEffect::SwitchFlush };
    commit(state, bus, new, effect);
    Ok(())
}

fn write_cr4<B: SystemBus + ?Sized>(
    model: &CpuModel,
    state: &mut CpuState,
    bus: &mut B,
    value: u64,
) -> Result<(), Exception> {
    need(value & !cr4_allowed(model).bits() == 0)?;
    let cr4 = Cr4::from_bits_retain(value);
    let old = state.paging;
    let changed = cr4 ^ old.cr4;
    if old.efer.contains(Efer::LMA) {
        need(cr4.contains(Cr4::PAE))?;
    }
    if changed.contains(Cr4::PCIDE) && cr4.contains(Cr4::PCIDE) {
        need(old.efer.contains(Efer::LMA) && old.cr3 & 0xfff == 0)?;
    }
    let mut new = PagingState { cr4, ..old };
    if changed.intersects(CR4_RELOADS) && pae_paging(&new) {
        new.pdpte = load_pdptes(bus, new.cr3)?;
    }
    let flush = changed.intersects(CR4_FLUSHES);
    commit(state, bus, new, if flush { TlbEffect::FlushAll } else { TlbEffect::None });
    Ok(())
}

/// SMSW: all of CR0, of which the caller stores 16, 32 or 64 bits.
///
/// # Errors
/// #GP(0) above level 0 under UMIP.
pub fn smsw(state: &CpuState) -> Result<u64, Exception> {
    need(state.cpl == 0 || !state.paging.cr4.contains(Cr4::UMIP))?;
    Ok(state.paging.cr0.bits())
}

/// LMSW: loads PE, MP, EM and TS, and cannot clear PE.
///
/// # Errors
/// #GP(0) above level 0.
pub fn lmsw<B: SystemBus + ?Sized>(
    _model: &CpuModel,
    state: &mut CpuState,
    bus: &mut B,
    source: u16,
) -> Result<(), Exception> {
    need_cpl0(state)?;
    let old = state.paging.cr0.bits();
    let loaded = u64::from(source & 0xf) | old & Cr0::PE.bits();
    write_cr0(state, bus, old & !0xf | loaded)
}

/// CLTS.
///
/// # Errors
/// #GP(0) above level 0.
pub fn clts<B: SystemBus + ?Sized>(state: &mut CpuState, bus: &mut B) -> Result<(), Exception> {
    need_cpl0(state)?;
    let new = PagingState { cr0: state.paging.cr0 - Cr0::TS, ..state.paging };
    commit(state, bus, new, TlbEffect::None);
    Ok(())
}

/// XGETBV: XCR0 for ECX 0, the components in use among those enabled for ECX 1.
///
/// # Errors
/// #UD without CR4.OSXSAVE, #GP(0) for another index.
pub fn xgetbv(model: &CpuModel, state: &CpuState, index: u32) -> Result<u64, Exception> {
    need_osxsave(state)?;
    match index {
        0 => Ok(state.xcr0),
        1 if model.has(Feature::Xgetbv1) => Ok(state.xcr0 & xinuse(state)),
        _ => Err(GP),
    }
}

/// XSETBV with ECX `index`.
///
/// # Errors
/// #UD without CR4.OSXSAVE; #GP(0) above level 0, for an index other than 0, for a component the
/// model does not have, without x87, and for AVX without SSE (SDM vol. 1, 13.3).
pub fn xsetbv(
    model: &CpuModel,
    state: &mut CpuState,
    index: u32,
    value: u64,
) -> Result<(), Exception> {
    need_osxsave(state)?;
    need_cpl0(state)?;
    need(index == 0 && value & !layout::supported_xcr0(model) == 0)?;
    need(value & layout::bits::X87 != 0)?;
    need(value & layout::bits::AVX == 0 || value & layout::bits::SSE != 0)?;
    state.xcr0 = value;
    Ok(())
}

fn need_osxsave(state: &CpuState) -> Result<(), Exception> {
    if state.paging.cr4.contains(Cr4::OSXSAVE) { Ok(()) } else { Err(Exception::ud()) }
}

fn need_pke(state: &CpuState) -> Result<(), Exception> {
    if state.paging.cr4.contains(Cr4::PKE) { Ok(()) } else { Err(Exception::ud()) }
}

/// RDPKRU: EAX; EDX becomes zero. Any level.
///
/// # Errors
/// #UD without CR4.PKE, #GP(0) unless `ecx` is zero.
pub fn rdpkru(state: &CpuState, ecx: u32) -> Result<u32, Exception> {
    need_pke(state)?;
    need(ecx == 0).map(|()| state.paging.pkru)
}

/// WRPKRU of EAX. Any level.
///
/// # Errors
/// #UD without CR4.PKE, #GP(0) unless `ecx` and `edx` are zero.
pub fn wrpkru<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    eax: u32,
    ecx: u32,
    edx: u32,
) -> Result<(), Exception> {
    need_pke(state)?;
    need(ecx == 0 && edx == 0)?;
    set_pkru(state, bus, eax);
    Ok(())
}

/// Loads PKRU and tells the bus, as WRPKRU and XRSTOR do.
pub(crate) fn set_pkru<B: SystemBus + ?Sized>(state: &mut CpuState, bus: &mut B, value: u32) {
    if state.paging.pkru != value {
        commit(state, bus, PagingState { pkru: value, ..state.paging }, TlbEffect::None);
    }
}

/// INVLPG of linear address `la`: no fault for what it names, and nothing done for a non-canonical
/// one.
///
/// # Errors
/// #GP(0) above level 0.
pub fn invlpg<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    la: La,
) -> Result<(), Exception> {
    need_cpl0(state)?;
    if la.is_canonical() {
        bus.paging_changed(&state.paging, TlbEffect::Page(la));
    }
    Ok(())
}

/// INVPCID of type `kind` with its descriptor of two quadwords.
///
/// # Errors
/// #UD where the model lacks it; #GP(0) above level 0, for another type, reserved descriptor bits,
/// a PCID while CR4.PCIDE is clear, or a non-canonical address in type 0; whatever reading the
/// descriptor raises.
pub fn invpcid<B: SystemBus + ?Sized>(
    model: &CpuModel,
    state: &CpuState,
    bus: &mut B,
    kind: u64,
    descriptor: Operand,
) -> Result<(), Exception> {
    if !model.has(Feature::Invpcid) {
        return Err(Exception::ud());
    }
    need_cpl0(state)?;
    need(kind <= 3)?;
    let mut word = |at| {
        let la = descriptor.part(state, at, 8, AccessKind::Read)?;
        bus.read(la, Width::B8, Privilege::Supervisor)
    };
    let (low, address) = (word(0)?, word(8)?);
    need(low >> 12 == 0)?;
    let pcid = low as u16;
    need(kind > 1 || pcid == 0 || state.paging.cr4.contains(Cr4::PCIDE))?;
    need(kind != 0 || La(address).is_canonical())?;
    let effect = match kind {
        0 => TlbEffect::PageOfPcid(pcid, La(address)),
        1 => TlbEffect::Pcid(pcid),
        2 => TlbEffect::FlushAll,
        _ => TlbEffect::FlushNonGlobal,
    };
    bus.paging_changed(&state.paging, effect);
    Ok(())
}

#[cfg(test)]
mod tests;
