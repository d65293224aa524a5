//! Hypercalls, in KVM's convention. The test's machine answers with the number and the arguments as
//! digits in base 16.

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::NO_CALL;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::Rflags;
use x86::state::gpr::{RAX, RBX, RCX, RDI, RDX, RSI};

const CITE: &str = "Linux Documentation/virt/kvm/x86/hypercalls.rst";
/// EPERM, negated.
const NOT_PERMITTED: u64 = (-1i64) as u64;
/// KVM_ENOSYS, negated.
const UNKNOWN: u64 = (-1000i64) as u64;

/// Calls number 7 with 1, 2, 3 and 4.
fn call(g: &mut Guest, by: fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    for (register, value) in [(RAX, 7), (RBX, 1), (RCX, 2), (RDX, 3), (RSI, 4)] {
        g.state.gpr[register] = value;
    }
    g.emit(by);
}

pub(super) const CASES: &[Case] = &[
    case("hypercalls/vmcall-passes-five-registers", CITE, |g| {
        g.long();
        call(g, |a| a.vmcall());
        g.want_reg(RAX, 0x7_1234);
    }),
    case("hypercalls/vmmcall-is-the-same", CITE, |g| {
        g.long();
        call(g, |a| a.vmmcall());
        g.want_reg(RAX, 0x7_1234);
    }),
    case("hypercalls/nothing-but-the-answer-changes", CITE, |g| {
        g.long();
        g.flags(Rflags::CF | Rflags::OF);
        call(g, |a| a.vmcall());
        for (register, value) in [(RBX, 1), (RCX, 2), (RDX, 3), (RSI, 4)] {
            g.want_reg(register, value);
        }
        g.want_flag(Rflags::CF, true);
        g.want_flag(Rflags::OF, true);
    }),
    case("hypercalls/an-unknown-call-is-refused", CITE, |g| {
        g.long();
        g.state.gpr[RAX] = NO_CALL;
        g.emit(|a| a.vmcall());
        g.want_reg(RAX, UNKNOWN);
    }),
    case("hypercalls/user-code-may-not-call", CITE, |g| {
        g.user();
        call(g, |a| a.vmcall());
        g.want_reg(RAX, NOT_PERMITTED);
    }),
    case("hypercalls/nor-by-vmmcall", CITE, |g| {
        g.user();
        call(g, |a| a.vmmcall());
        g.want_reg(RAX, NOT_PERMITTED);
    }),
    case("hypercalls/32-bit-code-passes-and-gets-32-bits", CITE, |g| {
        g.protected();
        call(g, |a| a.vmcall());
        g.state.gpr[RAX] |= 1 << 32;
        g.state.gpr[RBX] |= 1 << 32;
        g.want_reg(RAX, 0x7_1234);
        g.emit(|a| {
            a.mov(edi, eax)?;
            a.mov(eax, NO_CALL as u32)?;
            a.vmcall()?;
            a.xchg(eax, edi)
        });
        g.want_reg(RDI, UNKNOWN & 0xffff_ffff);
    }),
    case("hypercalls/real-mode-is-level-0", CITE, |g| {
        call(g, |a| a.vmcall());
        g.want_reg(RAX, 0x7_1234);
    }),
    case("hypercalls/vmcall-takes-no-lock", "SDM 3C 30.3 VMCALL", |g| {
        g.long();
        let at = g.raw(&[0xf0, 0x0f, 0x01, 0xc1]);
        g.traps(Vector::UD, at);
    }),
];
