//! System instructions.

use super::context::Choice;
use super::context::{Context, Kind};
use crate::core::Handler;
use crate::interp::system::{
    caches, cpuid, hypercall, interrupts, msr, ports, registers, segments, selectors, syscall,
    tables,
};
use iced_x86::{Code, Mnemonic as M};

/// Picks the handler for a register or for a memory operand.
fn either(c: &mut Context<'_>, register: Handler, memory: Handler) -> Handler {
    c.op.size = c.size(0);
    if c.kind(0) == Kind::Register {
        c.op.dst = c.reg(0);
        register
    } else {
        memory
    }
}

pub(super) fn select(c: &mut Context<'_>) -> Choice {
    Some(match c.i.mnemonic() {
        M::Hlt => interrupts::hlt,
        M::Vmcall | M::Vmmcall => hypercall::hypercall,
        M::Cpuid => cpuid::cpuid,
        M::Rdtsc => msr::rdtsc::<false>,
        M::Rdtscp => msr::rdtsc::<true>,
        M::Rdpmc => msr::rdpmc,
        M::Rdmsr => msr::rdmsr,
        M::Wrmsr => msr::wrmsr,
        M::Rdpid => {
            c.op.dst = c.reg(0);
            msr::rdpid
        }
        M::Swapgs => syscall::swapgs,
        M::Clts => registers::clts,
        M::Lmsw => either(c, registers::lmsw::<false>, registers::lmsw::<true>),
        M::Smsw => either(c, registers::smsw::<false>, registers::smsw::<true>),
        M::Sldt | M::Str => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Str);
            either(c, tables::sldt_str::<false>, tables::sldt_str::<true>)
        }
        M::Lldt | M::Ltr => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Ltr);
            either(c, tables::lldt_ltr::<false>, tables::lldt_ltr::<true>)
        }
        M::Verr | M::Verw => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Verw);
            either(c, selectors::verr_verw::<false>, selectors::verr_verw::<true>)
        }
        M::Sgdt | M::Sidt => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Sidt);
            tables::sgdt_sidt
        }
        M::Lgdt | M::Lidt => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Lidt);
            c.op.size =
                if matches!(c.i.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) { 2 } else { 4 };
            tables::lgdt_lidt
        }
        M::Lar | M::Lsl => return Some(lar_lsl(c)),
        M::Arpl => {
            c.op.src = c.reg(1);
            either(c, selectors::arpl::<false>, selectors::arpl::<true>)
        }
        M::Les => load_far(c, 0),
        M::Lss => load_far(c, 2),
        M::Lds => load_far(c, 3),
        M::Lfs => load_far(c, 4),
        M::Lgs => load_far(c, 5),
        M::In | M::Out => return Some(port(c)),
        M::Invlpg => caches::invlpg,
        M::Invpcid => {
            (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
            caches::invpcid
        }
        M::Invd | M::Wbinvd | M::Wbnoinvd => caches::cache_control,
        M::Clflush | M::Clflushopt | M::Clwb => caches::flush_line,
        M::Lfence | M::Mfence | M::Sfence => caches::fence,
        // REX.B changes nothing, as on Intel's processors.
        M::Pause => caches::pause,
        M::Xgetbv => registers::xgetbv,
        M::Xsetbv => registers::xsetbv,
        M::Rdpkru => registers::rdpkru,
        M::Wrpkru => registers::wrpkru,
        M::Rdfsbase => base(c, 4, segments::read_base),
        M::Rdgsbase => base(c, 5, segments::read_base),
        M::Wrfsbase => base(c, 4, segments::write_base),
        M::Wrgsbase => base(c, 5, segments::write_base),
        _ => return None,
    })
}

fn base(c: &mut Context<'_>, seg: u64, run: Handler) -> Handler {
    (c.op.dst, c.op.size, c.op.imm) = (c.reg(0), c.size(0), seg);
    run
}

fn lar_lsl(c: &mut Context<'_>) -> Handler {
    c.op.imm = u64::from(c.i.mnemonic() == M::Lsl);
    (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
    if c.kind(1) == Kind::Register {
        c.op.src = c.reg(1);
        selectors::lar_lsl::<false>
    } else {
        selectors::lar_lsl::<true>
    }
}

fn load_far(c: &mut Context<'_>, seg: u8) -> Handler {
    (c.op.dst, c.op.src, c.op.size) = (c.reg(0), seg, c.size(0));
    segments::load_far
}

/// IN and OUT: the accumulator gives the size, the other operand the port.
fn port(c: &mut Context<'_>) -> Handler {
    let input = c.i.mnemonic() == M::In;
    let (data, port) = if input { (0, 1) } else { (1, 0) };
    c.op.size = c.size(data);
    if c.kind(port) == Kind::Immediate {
        c.op.imm = c.i.immediate(port) & 0xff;
        if input { ports::input::<false> } else { ports::output::<false> }
    } else if input {
        ports::input::<true>
    } else {
        ports::output::<true>
    }
}
