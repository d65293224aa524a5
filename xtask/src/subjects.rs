//! The engines that can be held against the processor.

use anyhow::{Context, Result};
use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use oracle::{Case, Outcome, Subject, VcpuSubject, guest_ram};
use x86::cpuid::{CpuModel, Feature};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// The software engine's interpreter.
    Soft,
    /// The software engine's translator, every block translated at once.
    Translate,
    /// The interpreter, made to get a case in a thousand wrong: shows that mistakes are found.
    Mistaken,
}

/// An engine that makes the same mistakes each time that it is asked.
struct Mistaken(Box<dyn Subject>);

impl Subject for Mistaken {
    fn run(&mut self, case: &Case) -> Outcome {
        const RBX: usize = 3;
        let mut outcome = self.0.run(case);
        if case.gpr[RBX].wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54 == 0 {
            outcome.gpr[RBX] ^= 1 << 33;
        }
        outcome
    }
}

/// Makes the engine with a processor of that model, in the guest that runs cases. It makes no
/// hypercalls: what VMCALL does to the host's own code is the affair of whatever lies below.
pub(crate) fn make(engine: Engine, mut model: CpuModel) -> Result<Box<dyn Subject>> {
    model.features = model.features.disable(Feature::Kvm);
    let ram = guest_ram()?;
    Ok(match engine {
        Engine::Soft => {
            let vcpu =
                SoftVcpu::new(ram.clone(), model).context("cannot make a software processor")?;
            Box::new(VcpuSubject::new(vcpu, ram))
        }
        Engine::Translate => {
            let mut vcpu = SoftVcpu::with_tier(ram.clone(), model, Tier::Translate, CODE_CACHE)
                .context("cannot make a software processor")?;
            vcpu.translate_at_once();
            Box::new(VcpuSubject::new(vcpu, ram))
        }
        Engine::Mistaken => Box::new(Mistaken(make(Engine::Soft, model)?)),
    })
}

#[cfg(test)]
mod tests {
    //! Where AMD's processors go another way, the engines go Intel's, which the host cannot always
    //! judge.

    use super::*;
    use oracle::layout;

    const RSP: usize = 4;
    const AC: u64 = 1 << 18;
    const TF: u64 = 1 << 8;
    const CF: u64 = 1;
    const ZF: u64 = 1 << 6;

    /// What both engines make of `case`.
    fn run(case: &Case) -> Outcome {
        let outcomes = [Engine::Soft, Engine::Translate].map(|engine| {
            make(engine, CpuModel::gemello_v3()).expect("a processor for the test").run(case)
        });
        assert_eq!(outcomes[0], outcomes[1]);
        outcomes[0]
    }

    #[test]
    fn a_call_writes_its_return_address_before_its_target_is_found_not_canonical() {
        let mut case = Case::with_code(&[0xff, 0xd0]); // call rax
        case.gpr[0] = 1 << 47;
        let end = run(&case);
        assert_eq!((end.event.vector, end.rip), (13, case.rip()));
        assert_eq!(end.gpr, case.gpr, "RSP included");
        let written = end.changes();
        assert_eq!(written.len(), 1);
        assert_eq!((written[0].address.0, written[0].value), (case.gpr[RSP] - 8, case.rip() + 2));
    }

    #[test]
    fn an_interrupted_comparison_leaves_flags_as_they_were() {
        let mut case = Case::with_code(&[0xf3, 0xa6]); // repe cmpsb
        case.rflags |= TF | CF;
        (case.gpr[1], case.gpr[6], case.gpr[7]) = (3, layout::ARENA, layout::ARENA);
        let end = run(&case);
        assert_eq!((end.event.vector, end.rip, end.gpr[1]), (1, case.rip(), 2));
        assert_eq!(end.rflags & (CF | ZF), CF, "equal bytes would be ZF");
        // The last iteration tells.
        case.gpr[1] = 1;
        let end = run(&case);
        assert_eq!((end.rip, end.rflags & (CF | ZF)), (case.rip() + 2, ZF));
    }

    #[test]
    fn a_pause_with_rex_b_exchanges_nothing() {
        let mut case = Case::with_code(&[0xf3, 0x41, 0x90]);
        (case.gpr[0], case.gpr[8]) = (1, 2);
        let end = run(&case);
        assert_eq!((end.event.vector, end.gpr), (3, case.gpr));
    }

    #[test]
    fn alignment_is_checked_up_to_eight_bytes() {
        let vector = |code: &[u8]| {
            let mut case = Case::with_code(code);
            case.rflags |= AC;
            case.gpr[6] = layout::ARENA + 1;
            run(&case).event.vector
        };
        assert_eq!(vector(&[0x48, 0x8b, 0x06]), 17, "mov rax, [rsi]");
        assert_eq!(vector(&[0xf3, 0x0f, 0x7e, 0x06]), 17, "movq xmm0, [rsi]");
        assert_eq!(vector(&[0x0f, 0x10, 0x06]), 3, "movups xmm0, [rsi]");
        assert_eq!(vector(&[0xc5, 0xfc, 0x10, 0x06]), 3, "vmovups ymm0, [rsi]");
    }
}
