//! The effect of INIT and of a start-up IPI on a processor (SDM vol. 3, 9.1.1, 9.4.4 and table
//! 10-1).

use x86::addr::{VcpuId, Vector};
use x86::regs::Cr0;
use x86::state::{Activity, CpuState, Seg};

/// A processor's part in starting the machine (SDM vol. 3, 9.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It starts first.
    Bootstrap,
    /// It waits until another starts it.
    Application,
}

impl Role {
    /// That of this processor.
    pub(crate) fn of(vcpu: VcpuId) -> Self {
        if vcpu == VcpuId::BOOT { Self::Bootstrap } else { Self::Application }
    }
}

/// The state after INIT: as after a reset, but for what INIT leaves alone.
///
/// The bootstrap processor goes on at the reset vector, the others wait for a start-up IPI.
pub(crate) fn after_init(before: &CpuState, role: Role) -> CpuState {
    let reset = CpuState::reset();
    let keep = Cr0::CD | Cr0::NW;
    let mut paging = reset.paging;
    paging.cr0 = (paging.cr0 - keep) | (before.paging.cr0 & keep);
    CpuState {
        paging,
        x87: before.x87,
        ymm: before.ymm,
        xcr0: before.xcr0,
        msr: before.msr,
        tsc_offset: before.tsc_offset,
        activity: match role {
            Role::Bootstrap => Activity::Running,
            Role::Application => Activity::WaitForSipi,
        },
        ..reset
    }
}

/// The state after the start-up IPI with `vector`, the number of a page; `None` where the processor
/// was not waiting for one.
pub(crate) fn after_sipi(before: &CpuState, vector: Vector) -> Option<CpuState> {
    if before.activity != Activity::WaitForSipi {
        return None;
    }
    let mut state = before.clone();
    let code = &mut state.seg[Seg::Cs as usize];
    code.selector = u16::from(vector.0) << 8;
    code.base = u64::from(vector.0) << 12;
    state.rip = 0;
    state.activity = Activity::Running;
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_keeps_what_the_manual_says_and_sipi_names_the_page() {
        let mut before = CpuState::reset();
        before.gpr[0] = 7;
        before.msr.lstar = 0x1234;
        before.paging.cr0 = Cr0::PE | Cr0::PG | Cr0::CD;
        before.tsc_offset = 99;
        let waiting = after_init(&before, Role::Application);
        assert_eq!((waiting.gpr[0], waiting.msr.lstar, waiting.tsc_offset), (0, 0x1234, 99));
        assert_eq!(waiting.paging.cr0, Cr0::ET | Cr0::CD);
        assert_eq!(waiting.activity, Activity::WaitForSipi);
        let started = after_sipi(&waiting, Vector(0x9a)).expect("was waiting");
        let cs = started.seg[Seg::Cs as usize];
        assert_eq!((cs.selector, cs.base, started.rip), (0x9a00, 0x9_a000, 0));
        assert_eq!(after_sipi(&started, Vector(0x9a)), None);
        assert_eq!(after_init(&before, Role::Bootstrap).activity, Activity::Running);
    }
}
