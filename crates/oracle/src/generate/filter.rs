//! What cannot be judged natively, and why (ORACLE.md, pitfalls).

use super::catalog::Features;
use crate::case::Case;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpCodeOperandKind, OpKind,
};

/// Why `code` is left out of code of that many `bits`, if it is.
pub(crate) fn excluded(code: Code, bits: u32, amd: bool) -> Option<&'static str> {
    use Mnemonic as M;
    let op = code.op_code();
    match code.mnemonic() {
        M::Syscall | M::Sysenter | M::Sysexit | M::Sysret | M::Sysexitq | M::Sysretq => {
            return Some("system calls enter the host's kernel");
        }
        M::Int | M::Int1 | M::Into => return Some("gates are the host kernel's"),
        M::Iret | M::Iretd | M::Iretq | M::Retf | M::Rsm => return Some("far transfer"),
        M::Lss | M::Lfs | M::Lgs | M::Lds | M::Les => return Some("descriptors are the host's"),
        M::Lar | M::Lsl | M::Verr | M::Verw => return Some("descriptors are the host's"),
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => {
            return Some("the kernel emulates them under UMIP");
        }
        M::Cpuid | M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdpid | M::Rdrand | M::Rdseed => {
            return Some("not deterministic");
        }
        M::Xgetbv | M::Xrstor | M::Xrstor64 => {
            return Some("XCR0 and XSTATE_BV are the host's");
        }
        _ => {}
    }
    let kinds = || (0..op.op_count()).map(|i| op.op_kind(i));
    let pushes_segment = code.mnemonic() == M::Push && kinds().any(is_segment);
    if amd && bits != 64 && pushes_segment && op.operand_size() == 32 {
        return Some("AMD pushes 32 bits of a selector, Intel's later processors write 16");
    }
    let pops_segment = code.mnemonic() == M::Pop && kinds().any(is_segment);
    if matches!(op.op_kind(0), OpCodeOperandKind::seg_reg) || pops_segment {
        return Some("loads a descriptor of the host");
    }
    if matches!(code, Code::Jmp_m1616 | Code::Jmp_m1632 | Code::Jmp_m1664)
        || matches!(code, Code::Call_m1616 | Code::Call_m1632 | Code::Call_m1664)
        || kinds().any(|k| matches!(k, OpCodeOperandKind::farbr2_2 | OpCodeOperandKind::farbr4_2))
    {
        return Some("far transfer");
    }
    let branch = !matches!(code.flow_control(), FlowControl::Next | FlowControl::Exception);
    if bits == 64 && branch && op.operand_size() == 16 && (amd || kinds().any(is_branch16)) {
        return Some("AMD obeys the 66 prefix of near branches in 64-bit mode, Intel does not");
    }
    None
}

fn is_segment(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(kind, K::es | K::cs | K::ss | K::ds | K::fs | K::gs)
}

fn is_branch16(kind: OpCodeOperandKind) -> bool {
    matches!(kind, OpCodeOperandKind::br16_1 | OpCodeOperandKind::br16_2)
}

/// Judges whole cases.
pub(crate) struct Filter {
    features: Features,
    options: u32,
}

impl Filter {
    pub(crate) fn new(features: Features) -> Self {
        let options = if features.amd { DecoderOptions::AMD } else { DecoderOptions::NONE };
        Self { features, options }
    }

    /// Whether every instruction of straight-line code can be judged; invalid ones can (#UD).
    pub(super) fn admits(&self, case: &Case) -> bool {
        self.admits_from(case, 0)
    }

    /// As [`Filter::admits`], wherever a jump may enter.
    pub(crate) fn admits_everywhere(&self, case: &Case) -> bool {
        (0..case.code().len()).all(|start| self.admits_from(case, start))
    }

    fn admits_from(&self, case: &Case, start: usize) -> bool {
        // Filler completes what the case cuts off, as it does in the code page.
        let mut bytes = [crate::case::layout::FILL; 80];
        let code = case.code();
        let rest = code.get(start..).unwrap_or_default();
        bytes[..rest.len()].copy_from_slice(rest);
        let mut decoder =
            Decoder::with_ip(case.bits(), &bytes, case.rip() + start as u64, self.options);
        let mut instruction = Instruction::default();
        while decoder.position() < rest.len() {
            let at = decoder.position();
            decoder.decode_out(&mut instruction);
            if self.features.amd && repeated_loop(&instruction, &bytes[at..]) {
                return false;
            }
            if instruction.is_invalid() {
                return true;
            }
            if !self.admits_instruction(&instruction, case.bits()) {
                return false;
            }
        }
        true
    }

    pub(super) fn admits_instruction(&self, instruction: &Instruction, bits: u32) -> bool {
        let code = instruction.code();
        // Registers as operands of 0F 0D: #UD on AMD's processors, NOP on Intel's.
        let hint = is_hint_0f0d(code) && instruction.op0_kind() == OpKind::Register;
        !(hint && self.features.amd)
            && self.features.cover(code)
            && excluded(code, bits, self.features.amd).is_none()
    }
}

fn is_hint_0f0d(code: Code) -> bool {
    matches!(
        code,
        Code::Reservednop_rm16_r16_0F0D
            | Code::Reservednop_rm32_r32_0F0D
            | Code::Reservednop_rm64_r64_0F0D
    )
}

/// Zen 5 judges ZF by a REP prefix where there is one: F3 LOOPNE behaves like LOOPE.
fn repeated_loop(instruction: &Instruction, bytes: &[u8]) -> bool {
    let loops =
        matches!(instruction.mnemonic(), Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Loop);
    loops && bytes.iter().take(instruction.len()).any(|b| matches!(b, 0xf2 | 0xf3))
}
