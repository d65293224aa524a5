//! The suite itself: cases are well-formed, and an engine that does nothing passes none of them.

use conformance::{cases, run};
use memory::GuestRam;
use std::collections::HashSet;
use std::sync::Arc;
use vcpu::{CpuIo, Elements, Exit, SignalSet, Signals, Slice, StateError, Statistics, Vcpu};
use x86::state::CpuState;

/// Ends at once, in one way.
struct Idle(CpuState, Arc<Signals>, Exit);

impl Vcpu for Idle {
    fn run(&mut self, _io: &mut dyn CpuIo, _slice: Slice) -> Exit {
        self.2.clone()
    }
    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError> {
        state.assign(elements, &self.0);
        Ok(())
    }
    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError> {
        self.0.assign(elements, state);
        Ok(())
    }
    fn set_tsc_offset(&mut self, _: u64) {}
    fn signals(&self) -> Arc<Signals> {
        self.1.clone()
    }
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

#[test]
fn names_are_unique_and_grouped() {
    let names: HashSet<_> = cases().iter().map(|c| c.name).collect();
    assert_eq!(names.len(), cases().len());
    assert!(cases().len() >= 60, "{}", cases().len());
    let manuals = ["SDM ", "APM ", "Linux Documentation/"];
    let cites = |cite: &str| manuals.iter().any(|manual| cite.starts_with(manual));
    for case in cases() {
        assert!(case.name.contains('/') && cites(case.cite), "{case:?}");
    }
}

#[test]
fn an_engine_that_halts_at_once_passes_nothing() {
    let mut idle = |_: GuestRam, state| -> Box<dyn Vcpu> {
        Box::new(Idle(state, Arc::default(), Exit::Halted(SignalSet::EMPTY)))
    };
    for case in cases() {
        assert!(run(case, &mut idle).is_err(), "{case:?} demands nothing");
    }
}
