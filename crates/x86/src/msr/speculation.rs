//! IA32_ARCH_CAPABILITIES and the speculation controls (SDM vol. 4, table 2-2; Intel's "CPUID
//! Enumeration and Architectural MSRs" for the security features).
//!
//! The processor we present names itself immune to what its guests would otherwise pay for: no
//! page-table isolation (RDCL_NO), no retpolines (IBRS_ALL: IBRS set once at boot), no buffer
//! clearing (MDS_NO, TAA_NO, the three MMIO bits, RFDS_NO), no history clearing (BHI_NO, and since
//! kernels distrust that one, BHI_DIS_S: a control set once at boot rather than a loop of branches
//! at each kernel entry). RSBA and RRSBA stay clear, so returns need no thunks. A guest's code
//! never shares a host process with another guest's; keeping hosts safe is the host's task.

use crate::cpuid::{CpuModel, Feature};
use crate::exception::Exception;

/// Bits of IA32_ARCH_CAPABILITIES.
#[allow(missing_docs)] // the manual's names
pub mod arch_capabilities {
    pub const RDCL_NO: u64 = 1 << 0;
    pub(super) const IBRS_ALL: u64 = 1 << 1;
    pub(super) const SKIP_L1DFL_VMENTRY: u64 = 1 << 3;
    pub(super) const SSB_NO: u64 = 1 << 4;
    pub const MDS_NO: u64 = 1 << 5;
    pub(super) const IF_PSCHANGE_MC_NO: u64 = 1 << 6;
    pub(super) const TAA_NO: u64 = 1 << 8;
    pub(super) const SBDR_SSDP_NO: u64 = 1 << 13;
    pub(super) const FBSDP_NO: u64 = 1 << 14;
    pub(super) const PSDP_NO: u64 = 1 << 15;
    pub(super) const BHI_NO: u64 = 1 << 20;
    pub(super) const PBRSB_NO: u64 = 1 << 24;
    pub(super) const GDS_NO: u64 = 1 << 26;
    pub(super) const RFDS_NO: u64 = 1 << 27;
    /// Never set by silicon: hypervisors use it to tell guests.
    pub(super) const ITS_NO: u64 = 1 << 62;
}

/// IA32_SPEC_CTRL: indirect branch restricted speculation.
const IBRS: u64 = 1 << 0;
/// IA32_SPEC_CTRL: single thread indirect branch predictors.
const STIBP: u64 = 1 << 1;
/// IA32_SPEC_CTRL: speculative store bypass disable.
const SSBD: u64 = 1 << 2;

/// IA32_SPEC_CTRL: indirect branches of level 0 are not predicted from the history of other levels.
const BHI_DIS_S: u64 = 1 << 10;

/// What IA32_ARCH_CAPABILITIES reads as.
pub fn capabilities(model: &CpuModel) -> u64 {
    use arch_capabilities::*;
    let immune = RDCL_NO
        | SKIP_L1DFL_VMENTRY
        | SSB_NO
        | MDS_NO
        | IF_PSCHANGE_MC_NO
        | TAA_NO
        | SBDR_SSDP_NO
        | FBSDP_NO
        | PSDP_NO
        | BHI_NO
        | PBRSB_NO
        | GDS_NO
        | RFDS_NO
        | ITS_NO;
    if model.has(Feature::SpecCtrl) { immune | IBRS_ALL } else { immune }
}

/// The bits of IA32_SPEC_CTRL that exist on `model`; the register exists if any does.
pub(super) fn controls(model: &CpuModel) -> u64 {
    let bits = [
        (Feature::SpecCtrl, IBRS),
        (Feature::Stibp, STIBP),
        (Feature::Ssbd, SSBD),
        (Feature::BhiCtrl, BHI_DIS_S),
    ];
    bits.into_iter().filter(|&(feature, _)| model.has(feature)).fold(0, |bits, (_, bit)| bits | bit)
}

/// A write to IA32_PRED_CMD or IA32_FLUSH_CMD: bit 0 is the command, and there is nothing to flush.
pub(super) fn command(exists: bool, value: u64) -> Result<(), Exception> {
    if exists && value <= 1 { Ok(()) } else { Err(Exception::gp(0)) }
}
