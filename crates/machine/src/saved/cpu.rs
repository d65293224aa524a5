//! A processor's saved state: the registers as the architecture has them, nothing of an engine,
//! checked on entry.
//!
//! The check demands what holds between any two instructions on any processor (SDM vol. 3, 2.5 and
//! 5.4; vol. 1, 13.3). It accepts values that merely make no sense: the guest could have put them
//! there.

use serde::{Deserialize, Serialize};
use x86::addr::La;
use x86::control::cr4_allowed;
use x86::cpuid::CpuModel;
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::state::{
    Activity, Blocking, CpuState, DebugRegisters, Flags, Mode, Msrs, PagingState, Segment,
    TableRegister, X87, Ymm, gpr,
};
use x86::xsave::layout::{supported_xcr0, supported_xss};

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// One processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the register of that name
pub struct SavedCpu {
    pub version: u32,
    pub gpr: [u64; gpr::COUNT],
    pub rip: u64,
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [SavedSegment; 6],
    pub ldtr: SavedSegment,
    pub tr: SavedSegment,
    pub gdtr: SavedTable,
    pub idtr: SavedTable,
    pub cpl: u8,
    pub activity: SavedActivity,
    /// Shadows of STI and MOV SS, and NMIs until IRET.
    pub blocking: [bool; 3],
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub pkru: u32,
    pub pdpte: [u64; 4],
    pub xcr0: u64,
    pub ymm: [[u8; 32]; 16],
    pub x87: SavedX87,
    /// DR0 to DR3, DR6, DR7.
    pub dr: [u64; 6],
    pub msr: SavedMsrs,
    /// How far the guest has moved this processor's TSC from the machine's, ticks.
    pub tsc_moved: u64,
}

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SavedSegment {
    pub base: u64,
    pub limit: u32,
    pub selector: u16,
    pub access: u16,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SavedTable {
    pub base: u64,
    pub limit: u16,
}

/// What the processor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum SavedActivity {
    Running,
    Halted,
    WaitForSipi,
    Shutdown,
}

/// x87 and MXCSR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SavedX87 {
    pub fcw: u16,
    pub fsw: u16,
    pub ftw: u8,
    pub fop: u16,
    pub fip: u64,
    pub fdp: u64,
    pub fcs: u16,
    pub fds: u16,
    pub mxcsr: u32,
    pub st: [[u8; 16]; 8],
}

/// Model-specific registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SavedMsrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    pub misc_enable: u64,
    pub spec_ctrl: u64,
    pub xss: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_variable: [u64; 16],
    pub mcg_status: u64,
    pub feature_control: u64,
    pub debugctl: u64,
}

/// What is wrong with a saved processor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// Written by another version.
    #[error(
        "the saved processor has version {found}, and this gemello reads {VERSION}; use the \
         gemello that wrote it"
    )]
    Version {
        /// What was found.
        found: u32,
    },
    /// No processor can be in that state.
    #[error(
        "the saved processor is in a state that no processor can be in: {what}; the file is damaged"
    )]
    Impossible {
        /// Which registers, and why.
        what: &'static str,
    },
}

impl From<&CpuState> for SavedCpu {
    fn from(state: &CpuState) -> Self {
        // Exhaustive, so that no register is forgotten.
        let CpuState {
            gpr,
            rip,
            flags,
            seg,
            cpl,
            blocking: Blocking { sti, mov_ss, nmi },
            activity,
            paging: PagingState { cr0, cr3, cr4, efer, pkru, pdpte },
            cr2,
            xcr0,
            ymm,
            x87,
            gdtr,
            idtr,
            ldtr,
            tr,
            dr: DebugRegisters { address, dr6, dr7 },
            msr,
            tsc_offset,
        } = state;
        let [d0, d1, d2, d3] = *address;
        let mut registers = [0; gpr::COUNT];
        registers.copy_from_slice(&gpr[..gpr::COUNT]);
        Self {
            version: VERSION,
            gpr: registers,
            rip: *rip,
            rflags: flags.bits(),
            segments: seg.map(Into::into),
            ldtr: (*ldtr).into(),
            tr: (*tr).into(),
            gdtr: (*gdtr).into(),
            idtr: (*idtr).into(),
            cpl: *cpl,
            activity: match activity {
                Activity::Running => SavedActivity::Running,
                Activity::Halted => SavedActivity::Halted,
                Activity::WaitForSipi => SavedActivity::WaitForSipi,
                Activity::Shutdown => SavedActivity::Shutdown,
            },
            blocking: [*sti, *mov_ss, *nmi],
            cr0: cr0.bits(),
            cr2: *cr2,
            cr3: *cr3,
            cr4: cr4.bits(),
            efer: efer.bits(),
            pkru: *pkru,
            pdpte: *pdpte,
            xcr0: *xcr0,
            ymm: ymm.map(|Ymm(bytes)| bytes),
            x87: x87.into(),
            dr: [d0, d1, d2, d3, *dr6, *dr7],
            msr: msr.into(),
            tsc_moved: *tsc_offset,
        }
    }
}

impl SavedCpu {
    /// The state, for a processor of `model`. Its TSC offset is what the guest has moved the TSC
    /// by.
    ///
    /// # Errors
    /// Another version's, or what no such processor can be in.
    pub fn state(&self, model: &CpuModel) -> Result<CpuState, CpuError> {
        if self.version != VERSION {
            return Err(CpuError::Version { found: self.version });
        }
        let state = self.unchecked();
        match impossible(&state, model) {
            Some(what) => Err(CpuError::Impossible { what }),
            None => Ok(state),
        }
    }

    fn unchecked(&self) -> CpuState {
        let mut registers = [0; gpr::SLOTS];
        registers[..gpr::COUNT].copy_from_slice(&self.gpr);
        let [sti, mov_ss, nmi] = self.blocking;
        let [d0, d1, d2, d3, dr6, dr7] = self.dr;
        CpuState {
            gpr: registers,
            rip: self.rip,
            flags: Flags::from_bits(self.rflags),
            seg: self.segments.map(Into::into),
            cpl: self.cpl,
            blocking: Blocking { sti, mov_ss, nmi },
            activity: match self.activity {
                SavedActivity::Running => Activity::Running,
                SavedActivity::Halted => Activity::Halted,
                SavedActivity::WaitForSipi => Activity::WaitForSipi,
                SavedActivity::Shutdown => Activity::Shutdown,
            },
            paging: PagingState {
                cr0: Cr0::from_bits_retain(self.cr0),
                cr3: self.cr3,
                cr4: Cr4::from_bits_retain(self.cr4),
                efer: Efer::from_bits_retain(self.efer),
                pkru: self.pkru,
                pdpte: self.pdpte,
            },
            cr2: self.cr2,
            xcr0: self.xcr0,
            ymm: self.ymm.map(Ymm),
            x87: (&self.x87).into(),
            gdtr: self.gdtr.into(),
            idtr: self.idtr.into(),
            ldtr: self.ldtr.into(),
            tr: self.tr.into(),
            dr: DebugRegisters { address: [d0, d1, d2, d3], dr6, dr7 },
            msr: (&self.msr).into(),
            tsc_offset: self.tsc_moved,
        }
    }
}

/// Why no processor of `model` can be in `state`.
fn impossible(state: &CpuState, model: &CpuModel) -> Option<&'static str> {
    let p = &state.paging;
    let (on, active) = (p.cr0.contains(Cr0::PG), p.efer.contains(Efer::LMA));
    let known = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE;
    let canonical = |address: u64| La(address).is_canonical();
    let bases = [state.gdtr.base, state.idtr.base, state.ldtr.base, state.tr.base];
    let fs_gs = [state.seg[4].base, state.seg[5].base, state.msr.kernel_gs_base];
    let msr = &state.msr;
    let entries = [msr.lstar, msr.cstar, msr.sysenter_esp, msr.sysenter_eip];
    let short = state.seg[..4].iter().all(|segment| segment.base >> 32 == 0);
    let (real, virtual_8086) = (!p.cr0.contains(Cr0::PE), state.flags.has(Rflags::VM));
    let rules = [
        (state.cpl > 3, "CPL is above 3"),
        (on && !p.cr0.contains(Cr0::PE), "CR0 has PG without PE"),
        (p.cr0.bits() >> 32 != 0, "CR0 has bits above 31"),
        (!p.cr0.contains(Cr0::ET), "CR0 lacks ET"),
        (p.efer.bits() & !known.bits() != 0, "EFER has reserved bits"),
        (active != (on && p.efer.contains(Efer::LME)), "EFER.LMA is not LME with paging"),
        (active && !p.cr4.contains(Cr4::PAE), "IA-32e mode without CR4.PAE"),
        (p.cr4.bits() & !cr4_allowed(model).bits() != 0, "CR4 has bits that the model has not"),
        (p.cr4.contains(Cr4::PCIDE) && !active, "CR4.PCIDE outside IA-32e mode"),
        (p.cr3 >> x86::cpuid::PHYSICAL_BITS != 0, "CR3 is beyond the physical addresses"),
        (real && state.cpl != 0, "CPL is above 0 in real mode"),
        (virtual_8086 && state.cpl != 3, "CPL is below 3 in virtual-8086 mode"),
        (
            state.mode() != Mode::Long64 && state.rip >> 32 != 0,
            "RIP is above 4 GiB outside 64-bit mode",
        ),
        (active && !canonical(state.rip), "RIP is not canonical"),
        (active && virtual_8086, "RFLAGS.VM in IA-32e mode"),
        (state.flags.bits() >> 22 != 0, "RFLAGS has bits above 21"),
        (
            state.xcr0 & 1 == 0 || state.xcr0 & !supported_xcr0(model) != 0,
            "XCR0 names states that there are not",
        ),
        (msr.xss & !supported_xss(model) != 0, "IA32_XSS names states that there are not"),
        ((state.dr.dr6 | state.dr.dr7) >> 32 != 0, "DR6 or DR7 has bits above 31"),
        (!short, "the base of ES, CS, SS or DS is above 4 GiB"),
        (!entries.into_iter().all(canonical), "an entry point is not canonical"),
        (state.xcr0 & 6 == 4, "XCR0 has AVX without SSE"),
        (state.x87.mxcsr & !0xffff != 0, "MXCSR has reserved bits"),
        (active && !bases.into_iter().chain(fs_gs).all(canonical), "a base is not canonical"),
    ];
    rules.into_iter().find_map(|(broken, what)| broken.then_some(what))
}

impl From<Segment> for SavedSegment {
    fn from(Segment { base, limit, selector, access }: Segment) -> Self {
        Self { base, limit, selector, access }
    }
}

impl From<SavedSegment> for Segment {
    fn from(SavedSegment { base, limit, selector, access }: SavedSegment) -> Self {
        Self { base, limit, selector, access }
    }
}

impl From<TableRegister> for SavedTable {
    fn from(TableRegister { base, limit }: TableRegister) -> Self {
        Self { base, limit }
    }
}

impl From<SavedTable> for TableRegister {
    fn from(SavedTable { base, limit }: SavedTable) -> Self {
        Self { base, limit }
    }
}

impl From<&X87> for SavedX87 {
    fn from(from: &X87) -> Self {
        let X87 { fcw, fsw, ftw, reserved: _, fop, fip, fdp, mxcsr, mxcsr_mask: _, st, fcs, fds } =
            *from;
        Self { fcw, fsw, ftw, fop, fip, fdp, fcs, fds, mxcsr, st }
    }
}

impl From<&SavedX87> for X87 {
    fn from(from: &SavedX87) -> Self {
        let SavedX87 { fcw, fsw, ftw, fop, fip, fdp, fcs, fds, mxcsr, st } = *from;
        Self { fcw, fsw, ftw, fop, fip, fdp, fcs, fds, mxcsr, st, ..Self::default() }
    }
}

/// Both directions between two structs with the same fields.
macro_rules! same_fields {
    ($one:ident, $two:ident { $($field:ident),* $(,)? }) => {
        impl From<&$one> for $two {
            fn from($one { $($field),* }: &$one) -> Self {
                Self { $($field: *$field),* }
            }
        }
        impl From<&$two> for $one {
            fn from($two { $($field),* }: &$two) -> Self {
                Self { $($field: *$field),* }
            }
        }
    };
}

same_fields!(
    Msrs,
    SavedMsrs {
        star,
        lstar,
        cstar,
        fmask,
        kernel_gs_base,
        sysenter_cs,
        sysenter_esp,
        sysenter_eip,
        pat,
        tsc_aux,
        tsc_adjust,
        misc_enable,
        spec_ctrl,
        xss,
        mtrr_def_type,
        mtrr_fixed,
        mtrr_variable,
        mcg_status,
        feature_control,
        debugctl,
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_comes_back_as_it_was() {
        let mut state = CpuState::reset();
        state.gpr[7] = 0x77;
        state.gpr[gpr::BLOCK_IP] = 5;
        state.msr.mtrr_variable[15] = 9;
        state.x87.st[3][9] = 0x40;
        state.dr.dr7 = 0x401;
        state.blocking.nmi = true;
        state.activity = Activity::Halted;
        let saved = SavedCpu::from(&state);
        let text = serde_json::to_string(&saved).expect("plain data");
        let read: SavedCpu = serde_json::from_str(&text).expect("what was written");
        let back = read.state(&CpuModel::gemello_v2()).expect("a possible state");
        state.gpr[gpr::BLOCK_IP] = 0;
        assert_eq!(back, state);
    }

    #[test]
    fn what_no_processor_can_be_in_is_refused() {
        let model = CpuModel::gemello_v2();
        let good = SavedCpu::from(&CpuState::reset());
        type Spoil = fn(&mut SavedCpu);
        let wrong: [(&str, Spoil); 15] = [
            ("CPL", |s| s.cpl = 4),
            ("PG without PE", |s| s.cr0 = 0x8000_0010),
            ("EFER has reserved", |s| s.efer = 1 << 20),
            ("LMA", |s| s.efer = 0x400),
            ("CR4", |s| s.cr4 = 1 << 12),
            ("CR3", |s| s.cr3 = 1 << 52),
            ("RIP", |s| s.rip = 1 << 40),
            ("XCR0", |s| s.xcr0 = 1 << 9),
            ("IA32_XSS", |s| s.msr.xss = 1 << 63),
            ("CPL", |s| s.cpl = 1),
            ("CPL", |s| (s.cr0, s.rflags) = (0x11, 0x2_0002)),
            ("DR6", |s| s.dr[4] = 1 << 32),
            ("DR7", |s| s.dr[5] = 1 << 63),
            ("ES", |s| s.segments[0].base = 1 << 32),
            ("entry", |s| s.msr.lstar = 1 << 60),
        ];
        for (name, spoil) in wrong {
            let mut saved = good.clone();
            spoil(&mut saved);
            let why = saved.state(&model).expect_err(name).to_string();
            assert!(why.contains(name.split(' ').next().unwrap_or(name)), "{why}");
        }
        let future = SavedCpu { version: VERSION + 1, ..good };
        assert_eq!(future.state(&model), Err(CpuError::Version { found: VERSION + 1 }));
    }
}
