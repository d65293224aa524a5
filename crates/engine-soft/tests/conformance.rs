//! The software engine against the conformance suite: every system-level rule that it names, on
//! both tiers and in lockstep.

mod by_parts;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vcpu::{CpuIo, Elements, Exit, Signal, Signals, Slice, StateError, Statistics, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::state::CpuState;

/// Long enough for any case.
const PATIENCE: Duration = Duration::from_secs(60);

/// A processor that is never short of instructions: with a limit, translated code counts, and is
/// another than a user's machine runs.
struct Unhurried(SoftVcpu);

impl Vcpu for Unhurried {
    fn run(&mut self, io: &mut dyn CpuIo, _: Slice) -> Exit {
        self.0.run(io, Slice::UNTIL_KICKED)
    }
    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError> {
        self.0.get(elements, state)
    }
    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError> {
        self.0.set(elements, state)
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        self.0.set_tsc_offset(offset);
    }
    fn signals(&self) -> Arc<Signals> {
        self.0.signals()
    }
    fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
}

/// What is translated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// All code, so that each rule meets the translator; other registers are homed each time.
    AtOnce,
    /// Hot code, as in a user's machine.
    Hot,
}

fn every_rule_holds(mut wrap: impl FnMut(SoftVcpu) -> Box<dyn Vcpu>, tier: Tier, when: When) {
    let model = CpuModel::parse("gemello-v3,+smap,+pku").expect("a known model");
    let mut failures = Vec::new();
    for case in conformance::cases() {
        let result = conformance::run(case, &mut |ram, state| {
            let mut vcpu = SoftVcpu::with_tier(ram, model.clone(), tier, CODE_CACHE / 16)
                .expect("the engine runs here");
            if tier != Tier::Interpret && when == When::AtOnce {
                vcpu.translate_at_once();
            }
            let mut vcpu = wrap(vcpu);
            vcpu.set(Elements::all(), &state).expect("a state that the suite sets");
            vcpu
        });
        if let Err(why) = result {
            failures.push(format!("{case:?}: {why}"));
        }
    }
    assert!(failures.is_empty(), "{} rules broken:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_rule_holds_on_the_interpreter() {
    every_rule_holds(|vcpu| Box::new(vcpu), Tier::Interpret, When::AtOnce);
}

#[test]
fn every_rule_holds_on_an_engine_with_the_manners_of_kvm() {
    every_rule_holds(|vcpu| Box::new(by_parts::ByParts::new(vcpu)), Tier::Interpret, When::AtOnce);
}

#[test]
fn every_rule_holds_on_the_translator() {
    every_rule_holds(|vcpu| Box::new(vcpu), Tier::Translate, When::AtOnce);
}

#[test]
fn every_rule_holds_in_lockstep() {
    every_rule_holds(|vcpu| Box::new(vcpu), Tier::Lockstep, When::AtOnce);
}

#[test]
fn every_rule_holds_on_the_translator_left_to_itself() {
    every_rule_holds_unhurried(Tier::Translate, When::AtOnce);
}

#[test]
fn every_rule_holds_on_the_translator_of_hot_code() {
    every_rule_holds_unhurried(Tier::Translate, When::Hot);
}

#[test]
fn every_rule_holds_in_lockstep_left_to_itself() {
    every_rule_holds_unhurried(Tier::Lockstep, When::AtOnce);
}

fn every_rule_holds_unhurried(tier: Tier, when: When) {
    let running = Arc::new(Mutex::new(None::<Arc<Signals>>));
    let (done, watched) = mpsc::channel::<()>();
    let watchdog = running.clone();
    let watch = std::thread::spawn(move || {
        while watched.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let signals = sync::lock(&watchdog);
            signals.iter().for_each(|signals| signals.raise(Signal::Kick));
        }
    });
    let wrap = |vcpu: SoftVcpu| -> Box<dyn Vcpu> {
        *sync::lock(&running) = Some(vcpu.signals());
        Box::new(Unhurried(vcpu))
    };
    every_rule_holds(wrap, tier, when);
    drop(done);
    watch.join().expect("the watchdog only waits");
}

#[test]
fn what_an_engine_refuses_is_told() {
    let ram = memory::GuestRam::new(&[(Gpa(0), 1 << 16)]).expect("memory");
    let vcpu = SoftVcpu::new(ram, CpuModel::gemello_v2()).expect("the engine runs here");
    let mut vcpu = by_parts::ByParts::new(vcpu);
    let wrong = CpuState { cpl: 4, ..CpuState::reset() };
    let why = vcpu.set(Elements::all(), &wrong).expect_err("no processor has a level 4");
    assert!(why.to_string().contains("privilege level 4"), "{why}");
    assert_eq!(vcpu.set(Elements::GENERAL, &wrong), Ok(()), "that element is right");
    vcpu.set_tsc_offset(77);
    assert_eq!(vcpu.state().expect("it can be read").tsc_offset, 77);
}
