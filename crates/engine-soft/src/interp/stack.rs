//! The stack: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE (SDM vol. 1, 6.2).

use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Fallible, Step, step, step_to};
use crate::word::Word;
use x86::addr::La;
use x86::bus::AccessKind;
use x86::flags;
use x86::state::{Mode, Seg, Segment, gpr};

/// Pushes eight bytes in 64-bit mode.
#[inline(always)]
pub(crate) fn push64(cpu: &mut Cpu, value: u64) -> Fallible {
    let rsp = cpu.state.gpr[gpr::RSP].wrapping_sub(8);
    cpu.store::<u64>(rsp, value).or_else(|_| stack_fault(cpu))?;
    cpu.state.gpr[gpr::RSP] = rsp;
    Ok(())
}

/// Turns the fault of a stack access with a non-canonical address into #SS(0), whatever the op's
/// own operand is (SDM vol. 1, 3.3.7.1).
#[cold]
fn stack_fault<T>(cpu: &mut Cpu) -> Fallible<T> {
    cpu.raise(cpu.fault.on_stack())
}

/// The mask of the stack pointer: 64 bits in 64-bit mode, else by SS.B.
fn mask(cpu: &Cpu) -> u64 {
    if cpu.mode == Mode::Long64 {
        u64::MAX
    } else if cpu.state.seg[Seg::Ss as usize].access & Segment::DB != 0 {
        0xffff_ffff
    } else {
        0xffff
    }
}

fn set_rsp(cpu: &mut Cpu, value: u64) {
    let mask = mask(cpu);
    let rsp = &mut cpu.state.gpr[gpr::RSP];
    // A 32-bit stack pointer is written as a 32-bit register is.
    *rsp = if mask == 0xffff { *rsp & !mask | value & mask } else { value & mask };
}

fn sized_load(cpu: &mut Cpu, la: u64, size: u8) -> Fallible<u64> {
    Ok(match size {
        2 => u64::from(cpu.load::<u16>(la)?),
        4 => u64::from(cpu.load::<u32>(la)?),
        _ => cpu.load::<u64>(la)?,
    })
}

fn sized_store(cpu: &mut Cpu, la: u64, size: u8, value: u64) -> Fallible {
    match size {
        2 => cpu.store::<u16>(la, value as u16),
        4 => cpu.store::<u32>(la, value as u32),
        _ => cpu.store::<u64>(la, value),
    }
}

/// Stores at stack offset `offset` (already masked).
fn store_at(cpu: &mut Cpu, offset: u64, size: u8, value: u64) -> Fallible {
    let la = cpu.segmented(Seg::Ss as u8, offset, u64::from(size), AccessKind::Write)?;
    sized_store(cpu, la, size, value).or_else(|_| stack_fault(cpu))
}

/// Pushes `size` bytes in any mode.
pub(crate) fn push(cpu: &mut Cpu, size: u8, value: u64) -> Fallible {
    let offset = cpu.state.gpr[gpr::RSP].wrapping_sub(u64::from(size)) & mask(cpu);
    store_at(cpu, offset, size, value)?;
    set_rsp(cpu, offset);
    Ok(())
}

/// Reads `size` bytes at `depth` above the stack pointer.
pub(crate) fn peek(cpu: &mut Cpu, size: u8, depth: u64) -> Fallible<u64> {
    let offset = cpu.state.gpr[gpr::RSP].wrapping_add(depth) & mask(cpu);
    let la = cpu.segmented(Seg::Ss as u8, offset, u64::from(size), AccessKind::Read)?;
    sized_load(cpu, la, size).or_else(|_| stack_fault(cpu))
}

/// Releases `bytes`.
pub(crate) fn release(cpu: &mut Cpu, bytes: u64) {
    set_rsp(cpu, cpu.state.gpr[gpr::RSP].wrapping_add(bytes));
}

/// PUSH r64 in 64-bit mode.
pub(crate) fn push_r64(cpu: &mut Cpu, op: &Op) -> Step {
    let value = cpu.reg::<u64>(op.dst);
    step(push64(cpu, value))
}

/// POP r64 in 64-bit mode.
pub(crate) fn pop_r64(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let rsp = cpu.state.gpr[gpr::RSP];
        let value = cpu.load::<u64>(rsp)?;
        cpu.state.gpr[gpr::RSP] = rsp.wrapping_add(8);
        cpu.set_reg::<u64>(op.dst, value);
        Ok(())
    };
    step(body(cpu))
}

/// PUSH r16/r32/r64.
pub(crate) fn push_r(cpu: &mut Cpu, op: &Op) -> Step {
    let value = cpu.slot(op.dst);
    step(push(cpu, op.size, value))
}

/// PUSH imm.
pub(crate) fn push_i(cpu: &mut Cpu, op: &Op) -> Step {
    step(push(cpu, op.size, op.imm))
}

/// PUSH [mem].
pub(crate) fn push_m(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear_legacy(op, u64::from(op.size), AccessKind::Read)?;
        let value = sized_load(cpu, la, op.size)?;
        push(cpu, op.size, value)
    };
    step(body(cpu))
}

/// PUSH of a segment register (`dst`). The 64-bit form zero-extends the selector; the others store
/// 16 bits, as recent processors do for 32-bit pushes (SDM vol. 2, PUSH).
pub(crate) fn push_seg(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let selector = u64::from(cpu.state.seg[usize::from(op.dst) % 6].selector);
        if op.size == 4 {
            let offset = cpu.state.gpr[gpr::RSP].wrapping_sub(4) & mask(cpu);
            store_at(cpu, offset, 2, selector)?;
            set_rsp(cpu, offset);
            return Ok(());
        }
        push(cpu, op.size, selector)
    };
    step(body(cpu))
}

fn set_sized(cpu: &mut Cpu, r: u8, size: u8, value: u64) {
    match size {
        2 => cpu.set_reg::<u16>(r, value as u16),
        4 => cpu.set_reg::<u32>(r, value as u32),
        _ => cpu.set_reg::<u64>(r, value),
    }
}

/// POP r16/r32/r64.
pub(crate) fn pop_r(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = peek(cpu, op.size, 0)?;
        release(cpu, u64::from(op.size));
        set_sized(cpu, op.dst, op.size, value);
        Ok(())
    };
    step(body(cpu))
}

/// POP [mem]: the address is formed after RSP has moved.
pub(crate) fn pop_m(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = peek(cpu, op.size, 0)?;
        let before = cpu.state.gpr[gpr::RSP];
        release(cpu, u64::from(op.size));
        let stored = cpu
            .linear_legacy(op, u64::from(op.size), AccessKind::Write)
            .and_then(|la| sized_store(cpu, la, op.size, value));
        if stored.is_err() {
            cpu.state.gpr[gpr::RSP] = before;
        }
        stored
    };
    step(body(cpu))
}

/// PUSHA, PUSHAD.
pub(crate) fn pusha(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let before = cpu.state.gpr[gpr::RSP];
        for r in 0..8 {
            let value = if r == gpr::RSP { before } else { cpu.state.gpr[r] };
            if let Err(fault) = push(cpu, op.size, value) {
                cpu.state.gpr[gpr::RSP] = before;
                return Err(fault);
            }
        }
        Ok(())
    };
    step(body(cpu))
}

/// POPA, POPAD.
pub(crate) fn popa(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let mut values = [0; 8];
        for (i, value) in values.iter_mut().enumerate() {
            *value = peek(cpu, op.size, i as u64 * u64::from(op.size))?;
        }
        release(cpu, 8 * u64::from(op.size));
        for (i, value) in values.iter().rev().enumerate() {
            if i != gpr::RSP {
                set_sized(cpu, i as u8, op.size, *value);
            }
        }
        Ok(())
    };
    step(body(cpu))
}

/// PUSHF.
pub(crate) fn pushf(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let image = flags::pushf(&cpu.state, op.width());
        let image = cpu.check(image)?;
        push(cpu, op.size, image)
    };
    step(body(cpu))
}

/// POPF. Ends the block: IF, TF and AC may have changed.
pub(crate) fn popf(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let image = peek(cpu, op.size, 0)?;
        let result = flags::popf(&mut cpu.state, image, op.width());
        cpu.check(result)?;
        release(cpu, u64::from(op.size));
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// LEAVE.
pub(crate) fn leave(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let mask = mask(cpu);
        let frame = cpu.state.gpr[gpr::RBP] & mask;
        let la = cpu.segmented(Seg::Ss as u8, frame, u64::from(op.size), AccessKind::Read)?;
        let value = sized_load(cpu, la, op.size)?;
        set_rsp(cpu, frame.wrapping_add(u64::from(op.size)));
        set_sized(cpu, gpr::RBP as u8, op.size, value);
        Ok(())
    };
    step(body(cpu))
}

/// ENTER imm16 (low half of `imm`), nesting level (bits 16–20).
pub(crate) fn enter(cpu: &mut Cpu, op: &Op) -> Step {
    let before = (cpu.state.gpr[gpr::RSP], cpu.state.gpr[gpr::RBP]);
    let result = enter_frame(cpu, op);
    if result.is_err() {
        (cpu.state.gpr[gpr::RSP], cpu.state.gpr[gpr::RBP]) = before;
    }
    step(result)
}

fn enter_frame(cpu: &mut Cpu, op: &Op) -> Fallible {
    let (size, level) = (op.size, op.imm >> 16 & 31);
    let mask = mask(cpu);
    let rbp = cpu.state.gpr[gpr::RBP];
    push(cpu, size, rbp)?;
    let frame = cpu.state.gpr[gpr::RSP];
    for n in 1..level {
        let offset = rbp.wrapping_sub(n * u64::from(size)) & mask;
        let la = cpu.segmented(Seg::Ss as u8, offset, u64::from(size), AccessKind::Read)?;
        let value = sized_load(cpu, la, size)?;
        push(cpu, size, value)?;
    }
    if level > 0 {
        push(cpu, size, frame)?;
    }
    release(cpu, (op.imm & 0xffff).wrapping_neg());
    // The manual's last step: a write to the new top of stack must not fault.
    let top = cpu.state.gpr[gpr::RSP] & mask;
    let la = cpu.segmented(Seg::Ss as u8, top, u64::from(size), AccessKind::Write)?;
    cpu.aligned(la, u64::from(size), u64::from(size))?;
    let probe = {
        let privilege = cpu.privilege();
        cpu.mmu.probe_write(La(la), u64::from(size), privilege)
    };
    cpu.check(probe)?;
    set_sized(cpu, gpr::RBP as u8, size, frame);
    Ok(())
}

/// MOV r/m, Sreg (`dst` register, `src` segment).
pub(crate) fn mov_r_seg(cpu: &mut Cpu, op: &Op) -> Step {
    let selector = u64::from(cpu.state.seg[usize::from(op.src) % 6].selector);
    set_sized(cpu, op.dst, op.size, selector);
    Step::Next
}

/// MOV [mem], Sreg.
pub(crate) fn mov_m_seg(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let selector = cpu.state.seg[usize::from(op.src) % 6].selector;
        let la = cpu.linear_legacy(op, 2, AccessKind::Write)?;
        cpu.store::<u16>(la, selector.zext() as u16)
    };
    step(body(cpu))
}
