//! The software engine against the conformance suite: every system-level rule that it names.

use engine_soft::SoftVcpu;
use vcpu::Vcpu;
use x86::cpuid::CpuModel;

#[test]
fn every_rule_holds_on_the_interpreter() {
    let model = CpuModel::parse("gemello-v3,+smap,+pku").expect("a known model");
    let mut failures = Vec::new();
    for case in conformance::cases() {
        let result = conformance::run(case, &mut |ram, state| {
            let mut vcpu = SoftVcpu::new(ram, model.clone()).expect("the engine runs here");
            vcpu.set_state(&state);
            Box::new(vcpu)
        });
        if let Err(why) = result {
            failures.push(format!("{case:?}: {why}"));
        }
    }
    assert!(failures.is_empty(), "{} rules broken:\n{}", failures.len(), failures.join("\n"));
}
