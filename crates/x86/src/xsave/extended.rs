//! The XSAVE and XRSTOR family (SDM vol. 1, 13.6 to 13.12).
//!
//! The modified optimization is not taken: XSAVEOPT and XSAVES write a component in use whether or
//! not it has changed since the last restore, which software cannot tell from a processor that had
//! lost track.

use super::area::{Area, Pass};
use super::layout::{self, bits};
use super::legacy::{self, MXCSR, ST, XMM};
use super::{FCW_INITIAL, GP, MXCSR_INITIAL, NM, check_mxcsr, vector_count};
use crate::addr::Width;
use crate::bus::{AccessKind, SystemBus};
use crate::control::set_pkru;
use crate::cpuid::{CpuModel, Feature};
use crate::exception::Exception;
use crate::regs::{Cr0, Cr4};
use crate::segment::Operand;
use crate::state::{CpuState, X87, Ymm};

/// Offset of XSTATE_BV.
const XSTATE_BV: usize = layout::HEADER as usize;
/// Offset of XCOMP_BV.
const XCOMP_BV: usize = XSTATE_BV + 8;

/// Which saving instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveForm {
    /// Standard form, every component asked for.
    Xsave,
    /// Standard form, components in their initial state left out.
    Xsaveopt,
    /// Compacted form, likewise.
    Xsavec,
    /// Compacted form, supervisor components too; level 0.
    Xsaves,
}

/// Which restoring instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreForm {
    /// Either form of image.
    Xrstor,
    /// Compacted form, supervisor components too; level 0.
    Xrstors,
}

/// Which components are not in their initial state (SDM vol. 1, 13.6). MXCSR does not count as SSE
/// state here.
pub fn xinuse(state: &CpuState) -> u64 {
    let half = |upper: bool| {
        let range = if upper { 16..32 } else { 0..16 };
        state.ymm.iter().any(|r| r.0[range.clone()].iter().any(|&b| b != 0))
    };
    [
        (bits::X87, !x87_is_initial(&state.x87)),
        (bits::SSE, half(false)),
        (bits::AVX, half(true)),
        (bits::PKRU, state.paging.pkru != 0),
    ]
    .into_iter()
    .fold(0, |used, (bit, is)| if is { used | bit } else { used })
}

fn x87_is_initial(x87: &X87) -> bool {
    x87.fcw == FCW_INITIAL
        && (x87.fsw, x87.ftw, x87.fop, x87.fip, x87.fdp) == (0, 0, 0, 0, 0)
        && x87.st.iter().all(|st| st[..10].iter().all(|&b| b == 0))
}

/// What all of the family check: the instruction exists and is enabled, level, task switch,
/// alignment.
fn check(
    model: &CpuModel,
    state: &CpuState,
    feature: Feature,
    supervisor: bool,
    operand: &Operand,
) -> Result<(), Exception> {
    if !model.has(feature) || !state.paging.cr4.contains(Cr4::OSXSAVE) {
        return Err(Exception::ud());
    }
    if supervisor && state.cpl != 0 {
        return Err(GP);
    }
    if state.paging.cr0.contains(Cr0::TS) {
        return Err(NM);
    }
    if operand.start(state).is_aligned(64) { Ok(()) } else { Err(GP) }
}

/// What a save writes.
struct Plan {
    /// Components whose bytes are written.
    components: u64,
    mxcsr: bool,
    xstate_bv: u64,
    /// Compacted form only.
    xcomp_bv: Option<u64>,
}

/// XSAVE, XSAVEOPT, XSAVEC and XSAVES with EDX:EAX = `mask`; `size` is 8 under REX.W in 64-bit
/// mode, else 4.
///
/// # Errors
/// #UD where model or CR4.OSXSAVE lack it, #NM under CR0.TS, #GP(0) for XSAVES above level 0 and
/// for an address that 64 does not divide, whatever the accesses raise.
pub fn xsave<B: SystemBus + ?Sized>(
    model: &CpuModel,
    state: &CpuState,
    bus: &mut B,
    form: SaveForm,
    operand: Operand,
    mask: u64,
    size: Width,
) -> Result<(), Exception> {
    let feature = match form {
        SaveForm::Xsave => Feature::Xsave,
        SaveForm::Xsaveopt => Feature::Xsaveopt,
        SaveForm::Xsavec => Feature::Xsavec,
        SaveForm::Xsaves => Feature::Xsaves,
    };
    let supervisor = form == SaveForm::Xsaves;
    check(model, state, feature, supervisor, &operand)?;
    let rfbm = mask & enabled(state, supervisor);
    let mut area = Area::new(state, bus, operand);
    let plan = match form {
        SaveForm::Xsave | SaveForm::Xsaveopt => {
            let inuse = xinuse(state);
            // Its segment must be writable before any page is asked for.
            operand.part(state, XSTATE_BV as u64, 8, AccessKind::Write)?;
            let old = area.get_u64(XSTATE_BV)?;
            Plan {
                components: if form == SaveForm::Xsave { rfbm } else { rfbm & inuse },
                mxcsr: rfbm & (bits::SSE | bits::AVX) != 0,
                xstate_bv: old & !rfbm | inuse & rfbm,
                xcomp_bv: None,
            }
        }
        SaveForm::Xsavec | SaveForm::Xsaves => compacted_plan(state, rfbm),
    };
    store(state, &mut area, Pass::Probe, &plan, size)?;
    store(state, &mut area, Pass::Write, &plan, size)
}

/// The components that XCR0 (and IA32_XSS for the supervisor forms) enables.
fn enabled(state: &CpuState, supervisor: bool) -> u64 {
    if supervisor { state.xcr0 | state.msr.xss } else { state.xcr0 }
}

/// In the compacted form MXCSR belongs to SSE and keeps it from counting as initial.
fn compacted_plan(state: &CpuState, rfbm: u64) -> Plan {
    let mut inuse = xinuse(state);
    if state.x87.mxcsr != MXCSR_INITIAL {
        inuse |= bits::SSE;
    }
    let saved = rfbm & inuse;
    Plan {
        components: saved,
        mxcsr: saved & bits::SSE != 0,
        xstate_bv: saved,
        xcomp_bv: Some(rfbm | bits::COMPACTED),
    }
}

fn store<B: SystemBus + ?Sized>(
    state: &CpuState,
    area: &mut Area<'_, B>,
    pass: Pass,
    plan: &Plan,
    size: Width,
) -> Result<(), Exception> {
    let vectors = 16 * vector_count(state);
    let place = |index| place(plan.xcomp_bv, index);
    if plan.components & bits::X87 != 0 {
        area.put(pass, 0, &legacy::x87_header(&state.x87, size))?;
        area.put(pass, ST, &legacy::x87_registers(&state.x87))?;
    }
    if plan.mxcsr {
        area.put(pass, MXCSR, &legacy::mxcsr_pair(&state.x87))?;
    }
    if plan.components & bits::SSE != 0 {
        area.put(pass, XMM, &legacy::vector_halves(&state.ymm, false)[..vectors])?;
    }
    if plan.components & bits::AVX != 0 {
        area.put(pass, place(2), &legacy::vector_halves(&state.ymm, true)[..vectors])?;
    }
    if plan.components & bits::PKRU != 0 {
        area.put(pass, place(9), &u64::from(state.paging.pkru).to_le_bytes())?;
    }
    area.put(pass, XSTATE_BV, &plan.xstate_bv.to_le_bytes())?;
    match plan.xcomp_bv {
        Some(bits) => area.put(pass, XCOMP_BV, &bits.to_le_bytes()),
        None => Ok(()),
    }
}

/// Where component `index` of the extended region lies, given XCOMP_BV of a compacted image.
fn place(xcomp_bv: Option<u64>, index: u32) -> usize {
    let standard = || layout::component(index).map_or(layout::EXTENDED, |c| c.offset);
    xcomp_bv.map_or_else(standard, |bits| layout::compacted_offset(bits, index)) as usize
}

/// A header that has passed its checks.
struct Header {
    xstate_bv: u64,
    /// Compacted form only.
    xcomp_bv: Option<u64>,
}

/// Reads and judges the header (SDM vol. 1, 13.8 and 13.12).
fn header<B: SystemBus + ?Sized>(
    model: &CpuModel,
    area: &mut Area<'_, B>,
    enabled: u64,
    form: RestoreForm,
) -> Result<Header, Exception> {
    let bytes: [u8; 64] = area.get(XSTATE_BV)?;
    let word =
        |i: usize| bytes[8 * i..8 * i + 8].iter().rev().fold(0u64, |w, &b| w << 8 | u64::from(b));
    let (xstate_bv, xcomp_bv) = (word(0), word(1));
    let compacted = xcomp_bv & bits::COMPACTED != 0 && model.has(Feature::Xsavec);
    let zero = |words: core::ops::Range<usize>| words.into_iter().all(|i| word(i) == 0);
    let valid = if compacted {
        let present = xcomp_bv & !bits::COMPACTED;
        present & !enabled == 0 && xstate_bv & !present == 0 && zero(2..8)
    } else {
        form == RestoreForm::Xrstor && xstate_bv & !enabled == 0 && zero(1..3)
    };
    if !valid {
        return Err(GP);
    }
    Ok(Header { xstate_bv, xcomp_bv: compacted.then_some(xcomp_bv) })
}

/// XRSTOR and XRSTORS with EDX:EAX = `mask`; `size` is 8 under REX.W in 64-bit mode, else 4.
///
/// # Errors
/// As [`xsave`]; #GP(0) for a header that names components not enabled or not in the image, that
/// has reserved bytes set or, for XRSTORS, is not compacted; #GP(0) for a reserved bit of MXCSR.
pub fn xrstor<B: SystemBus + ?Sized>(
    model: &CpuModel,
    state: &mut CpuState,
    bus: &mut B,
    form: RestoreForm,
    operand: Operand,
    mask: u64,
    size: Width,
) -> Result<(), Exception> {
    let supervisor = form == RestoreForm::Xrstors;
    let feature = if supervisor { Feature::Xsaves } else { Feature::Xsave };
    check(model, state, feature, supervisor, &operand)?;
    let enabled = enabled(state, supervisor);
    let rfbm = mask & enabled;
    let mut area = Area::new(state, bus, operand);
    let header = header(model, &mut area, enabled, form)?;
    let mxcsr = load_mxcsr(state, &mut area, &header, rfbm)?;
    let mut x87 = load_x87(state, &mut area, &header, rfbm, size)?;
    x87.mxcsr = mxcsr;
    let ymm = load_vectors(state, &mut area, &header, rfbm)?;
    let pkru = load_pkru(state, &mut area, &header, rfbm)?;
    state.x87 = x87;
    state.ymm = ymm;
    set_pkru(state, bus, pkru);
    Ok(())
}

fn load_mxcsr<B: SystemBus + ?Sized>(
    state: &CpuState,
    area: &mut Area<'_, B>,
    header: &Header,
    rfbm: u64,
) -> Result<u32, Exception> {
    let compacted = header.xcomp_bv.is_some();
    let owners = if compacted { bits::SSE } else { bits::SSE | bits::AVX };
    if rfbm & owners == 0 {
        return Ok(state.x87.mxcsr);
    }
    if compacted && header.xstate_bv & bits::SSE == 0 {
        return Ok(MXCSR_INITIAL);
    }
    let value = area.get_u64(MXCSR)? as u32;
    check_mxcsr(state, value).map(|()| value)
}

fn load_x87<B: SystemBus + ?Sized>(
    state: &CpuState,
    area: &mut Area<'_, B>,
    header: &Header,
    rfbm: u64,
    size: Width,
) -> Result<X87, Exception> {
    let mut x87 = state.x87;
    if rfbm & bits::X87 == 0 {
        return Ok(x87);
    }
    if header.xstate_bv & bits::X87 == 0 {
        let X87 { mxcsr, mxcsr_mask, .. } = x87;
        return Ok(X87 { mxcsr, mxcsr_mask, ..X87::default() });
    }
    let image = area.get(0)?;
    let registers = area.get(ST)?;
    legacy::set_x87(&mut x87, &image, &registers, size);
    Ok(x87)
}

fn load_vectors<B: SystemBus + ?Sized>(
    state: &CpuState,
    area: &mut Area<'_, B>,
    header: &Header,
    rfbm: u64,
) -> Result<[Ymm; 16], Exception> {
    let mut ymm = state.ymm;
    let halves = [(bits::SSE, XMM, false), (bits::AVX, place(header.xcomp_bv, 2), true)];
    for (bit, offset, upper) in halves {
        if rfbm & bit == 0 {
            continue;
        }
        let mut image = [0; 256];
        let image = &mut image[..16 * vector_count(state)];
        if header.xstate_bv & bit != 0 {
            area.get_into(offset, image)?;
        }
        legacy::set_vector_halves(&mut ymm, upper, image);
    }
    Ok(ymm)
}

fn load_pkru<B: SystemBus + ?Sized>(
    state: &CpuState,
    area: &mut Area<'_, B>,
    header: &Header,
    rfbm: u64,
) -> Result<u32, Exception> {
    if rfbm & bits::PKRU == 0 {
        return Ok(state.paging.pkru);
    }
    if header.xstate_bv & bits::PKRU == 0 {
        return Ok(0);
    }
    area.get_u64(place(header.xcomp_bv, 9)).map(|value| value as u32)
}
