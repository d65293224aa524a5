//! The parts of a processor's state that can be read and written apart, so that an engine pays for
//! what is asked.

use crate::state::CpuState;

bitflags::bitflags! {
    /// Named parts of [`CpuState`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Elements: u32 {
        /// General registers, RIP, RFLAGS.
        const GENERAL = 1 << 0;
        /// Segment registers, CPL, GDTR, IDTR, LDTR, TR.
        const SEGMENTS = 1 << 1;
        /// CR0, CR2, CR3, CR4, EFER, PKRU, the PDPTEs, XCR0.
        const CONTROL = 1 << 2;
        /// x87 and MXCSR.
        const X87 = 1 << 3;
        /// The vector registers.
        const VECTOR = 1 << 4;
        /// The debug registers.
        const DEBUG = 1 << 5;
        /// Model-specific registers.
        const MSRS = 1 << 6;
        /// Activity, interrupt shadows, NMI blocking.
        const EVENTS = 1 << 7;
        /// The TSC's offset from the host's.
        const TSC = 1 << 8;
    }
}

impl CpuState {
    /// Takes `elements` over from `from`.
    pub fn assign(&mut self, elements: Elements, from: &Self) {
        // Exhaustive, so that no register is forgotten.
        let Self {
            gpr,
            rip,
            flags,
            seg,
            cpl,
            blocking,
            activity,
            paging,
            cr2,
            xcr0,
            ymm,
            x87,
            gdtr,
            idtr,
            ldtr,
            tr,
            dr,
            msr,
            tsc_offset,
        } = from;
        if elements.contains(Elements::GENERAL) {
            (self.gpr, self.rip, self.flags) = (*gpr, *rip, *flags);
        }
        if elements.contains(Elements::SEGMENTS) {
            (self.seg, self.cpl) = (*seg, *cpl);
            (self.gdtr, self.idtr, self.ldtr, self.tr) = (*gdtr, *idtr, *ldtr, *tr);
        }
        if elements.contains(Elements::CONTROL) {
            (self.paging, self.cr2, self.xcr0) = (*paging, *cr2, *xcr0);
        }
        if elements.contains(Elements::X87) {
            self.x87 = *x87;
        }
        if elements.contains(Elements::VECTOR) {
            self.ymm = *ymm;
        }
        if elements.contains(Elements::DEBUG) {
            self.dr = *dr;
        }
        if elements.contains(Elements::MSRS) {
            self.msr = *msr;
        }
        if elements.contains(Elements::EVENTS) {
            (self.blocking, self.activity) = (*blocking, *activity);
        }
        if elements.contains(Elements::TSC) {
            self.tsc_offset = *tsc_offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Activity;

    #[test]
    fn each_element_brings_its_own_registers() {
        let mut other = CpuState::reset();
        other.gpr[3] = 5;
        other.seg[2].base = 7;
        other.cr2 = 8;
        other.x87.fcw = 1;
        other.ymm[9].0[3] = 4;
        other.dr.dr6 = 2;
        other.msr.lstar = 3;
        other.activity = Activity::Halted;
        other.tsc_offset = 11;
        let mut all = CpuState::reset();
        for element in Elements::all().iter() {
            let mut one = CpuState::reset();
            one.assign(element, &other);
            assert_ne!(one, CpuState::reset(), "{element:?} brings nothing");
            assert_ne!(one, other, "{element:?} brings everything");
            all.assign(element, &other);
        }
        assert_eq!(all, other);
    }
}
