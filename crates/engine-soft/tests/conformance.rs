//! The software engine against the conformance suite: every system-level rule that it names, on both tiers and in lockstep.

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use vcpu::Vcpu;
use x86::cpuid::CpuModel;

fn every_rule_holds(tier: Tier) {
    let model = CpuModel::parse("gemello-v3,+smap,+pku").expect("a known model");
    let mut failures = Vec::new();
    for case in conformance::cases() {
        let result = conformance::run(case, &mut |ram, state| {
            let mut vcpu = SoftVcpu::with_tier(ram, model.clone(), tier, CODE_CACHE / 16)
                .expect("the engine runs here");
            if tier != Tier::Interpret {
                vcpu.translate_at_once();
            }
            vcpu.set_state(&state);
            Box::new(vcpu)
        });
        if let Err(why) = result {
            failures.push(format!("{case:?}: {why}"));
        }
    }
    assert!(failures.is_empty(), "{} rules broken:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_rule_holds_on_the_interpreter() {
    every_rule_holds(Tier::Interpret);
}

#[test]
fn every_rule_holds_on_the_translator() {
    every_rule_holds(Tier::Translate);
}

#[test]
fn every_rule_holds_in_lockstep() {
    every_rule_holds(Tier::Lockstep);
}
