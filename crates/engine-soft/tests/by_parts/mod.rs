//! A second engine for the contract's sake: the software engine behind an interface with KVM's
//! manners.
//!
//! The state is kept in another form: RFLAGS as an image, segments with their rights taken apart
//! and limits in units, x87 and SSE in an FXSAVE image, MSRs as a list. Each part is fetched and
//! written back by itself, and only when it is asked for or was changed. A state that such an
//! interface cannot express is refused.

use engine_soft::SoftVcpu;
use std::sync::Arc;
use vcpu::{CpuIo, Elements, Exit, Signals, Slice, StateError, Statistics, Vcpu};
use x86::state::{CpuState, Flags, Msrs, Segment, Ymm};

/// A segment as KVM_SET_SREGS has it.
#[derive(Clone, Copy, Default)]
struct PartedSegment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: bool,
    dpl: u8,
    db: bool,
    s: bool,
    l: bool,
    g: bool,
    avl: bool,
}

impl From<Segment> for PartedSegment {
    fn from(from: Segment) -> Self {
        let bit = |n: u16| from.access >> n & 1 != 0;
        Self {
            base: from.base,
            limit: from.limit,
            selector: from.selector,
            kind: from.kind(),
            present: from.present(),
            dpl: from.dpl(),
            db: bit(14),
            s: bit(4),
            l: bit(13),
            g: bit(15),
            avl: bit(12),
        }
    }
}

impl From<PartedSegment> for Segment {
    fn from(from: PartedSegment) -> Self {
        let bit = |on: bool, n: u16| u16::from(on) << n;
        let rights = u16::from(from.kind) | u16::from(from.dpl) << 5 | bit(from.present, 7);
        let more = bit(from.db, 14) | bit(from.s, 4) | bit(from.l, 13) | bit(from.g, 15);
        let access = rights | more | bit(from.avl, 12);
        Self { base: from.base, limit: from.limit, selector: from.selector, access }
    }
}

/// Where an MSR is in the state.
type Of = fn(&mut Msrs) -> &mut u64;

/// Numbers of the MSRs that are exchanged one by one.
const MSRS: [(u32, Of); 20] = [
    (0x3a, |m| &mut m.feature_control),
    (0x3b, |m| &mut m.tsc_adjust),
    (0x48, |m| &mut m.spec_ctrl),
    (0x174, |m| &mut m.sysenter_cs),
    (0x175, |m| &mut m.sysenter_esp),
    (0x176, |m| &mut m.sysenter_eip),
    (0x17a, |m| &mut m.mcg_status),
    (0x1a0, |m| &mut m.misc_enable),
    (0x1d9, |m| &mut m.debugctl),
    (0x250, |m| &mut m.mtrr_fixed[0]),
    (0x268, |m| &mut m.mtrr_fixed[3]),
    (0x277, |m| &mut m.pat),
    (0x2ff, |m| &mut m.mtrr_def_type),
    (0xda0, |m| &mut m.xss),
    (0xc000_0081, |m| &mut m.star),
    (0xc000_0082, |m| &mut m.lstar),
    (0xc000_0083, |m| &mut m.cstar),
    (0xc000_0084, |m| &mut m.fmask),
    (0xc000_0102, |m| &mut m.kernel_gs_base),
    (0xc000_0103, |m| &mut m.tsc_aux),
];

/// What the interface keeps, in its own forms. What has no other form is in `rest`.
struct Kept {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    segments: [PartedSegment; 8],
    fxsave: Box<[u8; 512]>,
    upper_halves: [[u8; 16]; 16],
    msrs: Vec<(u32, u64)>,
    rest: CpuState,
    /// What is kept and as the processor has it, or newer.
    valid: Elements,
    /// What the processor has not been told yet.
    changed: Elements,
}

/// See the module.
pub(crate) struct ByParts {
    vcpu: SoftVcpu,
    kept: Kept,
}

impl ByParts {
    pub(crate) fn new(vcpu: SoftVcpu) -> Self {
        let kept = Kept {
            gpr: [0; 16],
            rip: 0,
            rflags: 2,
            segments: [PartedSegment::default(); 8],
            fxsave: Box::new([0; 512]),
            upper_halves: [[0; 16]; 16],
            msrs: Vec::new(),
            rest: CpuState::reset(),
            valid: Elements::empty(),
            changed: Elements::empty(),
        };
        Self { vcpu, kept }
    }

    /// Fetches one element from the processor into its form.
    fn fetch(&mut self, element: Elements) -> Result<(), StateError> {
        let mut state = CpuState::reset();
        self.vcpu.get(element, &mut state)?;
        self.kept.keep(element, &state);
        self.kept.valid |= element;
        Ok(())
    }
}

impl Kept {
    fn keep(&mut self, element: Elements, state: &CpuState) {
        self.rest.assign(element, state);
        match element {
            Elements::GENERAL => {
                self.gpr.copy_from_slice(&state.gpr[..16]);
                (self.rip, self.rflags) = (state.rip, state.flags.bits());
            }
            Elements::SEGMENTS => {
                let all = state.seg.iter().chain([&state.ldtr, &state.tr]);
                all.zip(&mut self.segments).for_each(|(&from, to)| *to = from.into());
            }
            Elements::X87 => {
                let (x, image) = (&state.x87, &mut self.fxsave);
                image[..2].copy_from_slice(&x.fcw.to_le_bytes());
                image[2..4].copy_from_slice(&x.fsw.to_le_bytes());
                image[4] = x.ftw;
                image[6..8].copy_from_slice(&x.fop.to_le_bytes());
                image[8..16].copy_from_slice(&x.fip.to_le_bytes());
                image[16..24].copy_from_slice(&x.fdp.to_le_bytes());
                image[24..28].copy_from_slice(&x.mxcsr.to_le_bytes());
                x.st.iter().enumerate().for_each(|(n, st)| {
                    image[32 + 16 * n..48 + 16 * n].copy_from_slice(st);
                });
            }
            Elements::VECTOR => {
                for (n, Ymm(bytes)) in state.ymm.iter().enumerate() {
                    self.fxsave[160 + 16 * n..176 + 16 * n].copy_from_slice(&bytes[..16]);
                    self.upper_halves[n].copy_from_slice(&bytes[16..]);
                }
            }
            Elements::MSRS => {
                let mut msr = state.msr;
                self.msrs = MSRS.iter().map(|&(number, of)| (number, *of(&mut msr))).collect();
            }
            _ => {}
        }
    }

    /// The element as the contract has it.
    fn tell(&self, element: Elements, state: &mut CpuState) {
        state.assign(element, &self.rest);
        match element {
            Elements::GENERAL => {
                state.gpr[..16].copy_from_slice(&self.gpr);
                (state.rip, state.flags) = (self.rip, Flags::from_bits(self.rflags));
            }
            Elements::SEGMENTS => {
                let all = state.seg.iter_mut().chain([&mut state.ldtr, &mut state.tr]);
                all.zip(&self.segments).for_each(|(to, &from)| *to = from.into());
            }
            Elements::X87 => {
                let (x, image) = (&mut state.x87, &self.fxsave);
                let word = |n: usize| u16::from_le_bytes([image[n], image[n + 1]]);
                let long = |n: usize| {
                    image[n..n + 8].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
                };
                (x.fcw, x.fsw, x.ftw, x.fop) = (word(0), word(2), image[4], word(6));
                (x.fip, x.fdp, x.mxcsr) = (long(8), long(16), long(24) as u32);
                x.st.iter_mut().enumerate().for_each(|(n, st)| {
                    st.copy_from_slice(&image[32 + 16 * n..48 + 16 * n]);
                });
            }
            Elements::VECTOR => {
                for (n, Ymm(bytes)) in state.ymm.iter_mut().enumerate() {
                    bytes[..16].copy_from_slice(&self.fxsave[160 + 16 * n..176 + 16 * n]);
                    bytes[16..].copy_from_slice(&self.upper_halves[n]);
                }
            }
            Elements::MSRS => {
                for &(number, of) in &MSRS {
                    let found = self.msrs.iter().find(|(known, _)| *known == number);
                    if let Some((_, value)) = found {
                        *of(&mut state.msr) = *value;
                    }
                }
            }
            _ => {}
        }
    }
}

impl Vcpu for ByParts {
    fn run(&mut self, io: &mut dyn CpuIo, slice: Slice) -> Exit {
        for element in self.kept.changed.iter() {
            let mut state = CpuState::reset();
            self.kept.tell(element, &mut state);
            if let Err(why) = self.vcpu.set(element, &state) {
                return Exit::Fatal(why.to_string());
            }
        }
        (self.kept.changed, self.kept.valid) = (Elements::empty(), Elements::empty());
        self.vcpu.run(io, slice)
    }

    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError> {
        for element in elements.iter() {
            if !self.kept.valid.contains(element) {
                self.fetch(element)?;
            }
            self.kept.tell(element, state);
        }
        Ok(())
    }

    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError> {
        if elements.contains(Elements::SEGMENTS) && state.cpl > 3 {
            let reason = format!("there is no privilege level {}", state.cpl);
            return Err(StateError { attempt: "set", elements, reason });
        }
        for element in elements.iter() {
            self.kept.keep(element, state);
        }
        self.kept.valid |= elements;
        self.kept.changed |= elements;
        Ok(())
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.kept.rest.tsc_offset = offset;
        self.kept.valid |= Elements::TSC;
        self.kept.changed |= Elements::TSC;
    }

    fn signals(&self) -> Arc<Signals> {
        self.vcpu.signals()
    }

    fn statistics(&self) -> Statistics {
        self.vcpu.statistics()
    }
}
