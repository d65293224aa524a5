//! PAT and MTRRs (SDM vol. 3, 12.11 and 12.12). Memory types have no effect here; their validity
//! does.

use super::names::*;
use crate::cpuid::{CpuModel, Feature, PHYSICAL_BITS};
use crate::exception::Exception;
use crate::state::Msrs;

/// Eight variable ranges, fixed ranges, write combining; no SMRR.
pub const MTRRCAP: u64 = 8 | 1 << 8 | 1 << 10;

/// IA32_MTRR_DEF_TYPE: fixed ranges enabled.
const DEF_TYPE_FE: u64 = 1 << 10;
/// IA32_MTRR_DEF_TYPE: MTRRs enabled.
const DEF_TYPE_E: u64 = 1 << 11;

const PHYSMASK_VALID: u64 = 1 << 11;
const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & !0xfff;

/// Where a memory-type register is kept.
pub(super) enum Slot {
    Pat,
    DefType,
    Fixed(usize),
    /// Even: PHYSBASE, odd: PHYSMASK.
    Variable(usize),
}

/// The register that `msr` names on `model`, if it is one of these.
pub(super) fn slot(model: &CpuModel, msr: u32) -> Option<Slot> {
    if msr == IA32_PAT {
        return model.has(Feature::Pat).then_some(Slot::Pat);
    }
    if !model.has(Feature::Mtrr) {
        return None;
    }
    match msr {
        IA32_MTRR_DEF_TYPE => Some(Slot::DefType),
        IA32_MTRR_FIX64K_00000 => Some(Slot::Fixed(0)),
        IA32_MTRR_FIX16K_80000 | IA32_MTRR_FIX16K_A0000 => {
            Some(Slot::Fixed((msr - IA32_MTRR_FIX16K_80000) as usize + 1))
        }
        IA32_MTRR_FIX4K_C0000..=IA32_MTRR_FIX4K_F8000 => {
            Some(Slot::Fixed((msr - IA32_MTRR_FIX4K_C0000) as usize + 3))
        }
        0x200..=0x20f => Some(Slot::Variable((msr - IA32_MTRR_PHYSBASE0) as usize)),
        _ => None,
    }
}

impl Slot {
    /// The register itself.
    pub(super) fn of<'a>(&self, msrs: &'a mut Msrs) -> &'a mut u64 {
        match *self {
            Self::Pat => &mut msrs.pat,
            Self::DefType => &mut msrs.mtrr_def_type,
            Self::Fixed(n) => &mut msrs.mtrr_fixed[n],
            Self::Variable(n) => &mut msrs.mtrr_variable[n],
        }
    }

    /// Its value.
    pub(super) fn get(&self, msrs: &Msrs) -> u64 {
        match *self {
            Self::Pat => msrs.pat,
            Self::DefType => msrs.mtrr_def_type,
            Self::Fixed(n) => msrs.mtrr_fixed[n],
            Self::Variable(n) => msrs.mtrr_variable[n],
        }
    }

    /// Whether `value` may be written: #GP(0) otherwise.
    pub(super) fn check(&self, value: u64) -> Result<(), Exception> {
        let valid = match *self {
            // PAT alone knows type 7, UC-.
            Self::Pat => value.to_le_bytes().into_iter().all(|t| t == 7 || is_type(t)),
            Self::Fixed(_) => value.to_le_bytes().into_iter().all(is_type),
            Self::DefType => {
                is_type(value as u8) && value & !(0xff | DEF_TYPE_FE | DEF_TYPE_E) == 0
            }
            Self::Variable(n) if n % 2 == 0 => {
                is_type(value as u8) && value & !(0xff | ADDRESS) == 0
            }
            Self::Variable(_) => value & !(PHYSMASK_VALID | ADDRESS) == 0,
        };
        if valid { Ok(()) } else { Err(Exception::gp(0)) }
    }
}

/// UC, WC, WT, WP, WB.
const fn is_type(byte: u8) -> bool {
    matches!(byte, 0 | 1 | 4 | 5 | 6)
}
