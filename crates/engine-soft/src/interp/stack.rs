//! The stack: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE (SDM vol. 1, 6.2).

use crate::core::Core;
use crate::core::Op;
use crate::op::{Fallible, Step, step, step_to};
use crate::word::Word;
use x86::addr::La;
use x86::bus::AccessKind;
use x86::flags;
use x86::state::{Mode, Seg, Segment, gpr};

/// Pushes eight bytes in 64-bit mode.
#[inline(always)]
pub(crate) fn push64(core: &mut Core, value: u64) -> Fallible {
    let rsp = core.state.gpr[gpr::RSP].wrapping_sub(8);
    core.store::<u64>(rsp, value).or_else(|_| stack_fault(core))?;
    core.state.gpr[gpr::RSP] = rsp;
    Ok(())
}

/// Turns the fault of a stack access with a non-canonical address into #SS(0), whatever the op's
/// own operand is (SDM vol. 1, 3.3.7.1).
#[cold]
fn stack_fault<T>(core: &mut Core) -> Fallible<T> {
    core.raise(core.fault.on_stack())
}

/// The mask of the stack pointer: 64 bits in 64-bit mode, else by SS.B.
fn mask(core: &Core) -> u64 {
    if core.mode == Mode::Long64 {
        u64::MAX
    } else if core.state.seg[Seg::Ss as usize].access & Segment::DB != 0 {
        0xffff_ffff
    } else {
        0xffff
    }
}

fn set_rsp(core: &mut Core, value: u64) {
    let mask = mask(core);
    let rsp = &mut core.state.gpr[gpr::RSP];
    // A 32-bit stack pointer is written as a 32-bit register is.
    *rsp = if mask == 0xffff { *rsp & !mask | value & mask } else { value & mask };
}

fn sized_load(core: &mut Core, la: u64, size: u8) -> Fallible<u64> {
    Ok(match size {
        2 => u64::from(core.load::<u16>(la)?),
        4 => u64::from(core.load::<u32>(la)?),
        _ => core.load::<u64>(la)?,
    })
}

fn sized_store(core: &mut Core, la: u64, size: u8, value: u64) -> Fallible {
    match size {
        2 => core.store::<u16>(la, value as u16),
        4 => core.store::<u32>(la, value as u32),
        _ => core.store::<u64>(la, value),
    }
}

/// Stores at stack offset `offset` (already masked).
fn store_at(core: &mut Core, offset: u64, size: u8, value: u64) -> Fallible {
    let la = core.segmented(Seg::Ss as u8, offset, u64::from(size), AccessKind::Write)?;
    sized_store(core, la, size, value).or_else(|_| stack_fault(core))
}

/// Pushes `size` bytes in any mode.
pub(crate) fn push(core: &mut Core, size: u8, value: u64) -> Fallible {
    let offset = core.state.gpr[gpr::RSP].wrapping_sub(u64::from(size)) & mask(core);
    store_at(core, offset, size, value)?;
    set_rsp(core, offset);
    Ok(())
}

/// Reads `size` bytes at `depth` above the stack pointer.
pub(crate) fn peek(core: &mut Core, size: u8, depth: u64) -> Fallible<u64> {
    let offset = core.state.gpr[gpr::RSP].wrapping_add(depth) & mask(core);
    let la = core.segmented(Seg::Ss as u8, offset, u64::from(size), AccessKind::Read)?;
    sized_load(core, la, size).or_else(|_| stack_fault(core))
}

/// Releases `bytes`.
pub(crate) fn release(core: &mut Core, bytes: u64) {
    set_rsp(core, core.state.gpr[gpr::RSP].wrapping_add(bytes));
}

/// PUSH r64 in 64-bit mode.
pub(crate) fn push_r64(core: &mut Core, op: &Op) -> Step {
    let value = core.reg::<u64>(op.dst);
    step(push64(core, value))
}

/// POP r64 in 64-bit mode.
pub(crate) fn pop_r64(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let rsp = core.state.gpr[gpr::RSP];
        let value = core.load::<u64>(rsp)?;
        core.state.gpr[gpr::RSP] = rsp.wrapping_add(8);
        core.set_reg::<u64>(op.dst, value);
        Ok(())
    };
    step(body(core))
}

/// PUSH r16/r32/r64.
pub(crate) fn push_r(core: &mut Core, op: &Op) -> Step {
    let value = core.slot(op.dst);
    step(push(core, op.size, value))
}

/// PUSH imm.
pub(crate) fn push_i(core: &mut Core, op: &Op) -> Step {
    step(push(core, op.size, op.imm))
}

/// PUSH [mem].
pub(crate) fn push_m(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear_legacy(op, u64::from(op.size), AccessKind::Read)?;
        let value = sized_load(core, la, op.size)?;
        push(core, op.size, value)
    };
    step(body(core))
}

/// PUSH of a segment register (`dst`). The 64-bit form zero-extends the selector; the others store
/// 16 bits, as recent processors do for 32-bit pushes (SDM vol. 2, PUSH).
pub(crate) fn push_seg(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let selector = u64::from(core.state.seg[usize::from(op.dst) % 6].selector);
        if op.size == 4 {
            let offset = core.state.gpr[gpr::RSP].wrapping_sub(4) & mask(core);
            store_at(core, offset, 2, selector)?;
            set_rsp(core, offset);
            return Ok(());
        }
        push(core, op.size, selector)
    };
    step(body(core))
}

fn set_sized(core: &mut Core, r: u8, size: u8, value: u64) {
    match size {
        2 => core.set_reg::<u16>(r, value as u16),
        4 => core.set_reg::<u32>(r, value as u32),
        _ => core.set_reg::<u64>(r, value),
    }
}

/// POP r16/r32/r64.
pub(crate) fn pop_r(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let value = peek(core, op.size, 0)?;
        release(core, u64::from(op.size));
        set_sized(core, op.dst, op.size, value);
        Ok(())
    };
    step(body(core))
}

/// POP [mem]: the address is formed after RSP has moved.
pub(crate) fn pop_m(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let value = peek(core, op.size, 0)?;
        let before = core.state.gpr[gpr::RSP];
        release(core, u64::from(op.size));
        let stored = core
            .linear_legacy(op, u64::from(op.size), AccessKind::Write)
            .and_then(|la| sized_store(core, la, op.size, value));
        if stored.is_err() {
            core.state.gpr[gpr::RSP] = before;
        }
        stored
    };
    step(body(core))
}

/// PUSHA, PUSHAD.
pub(crate) fn pusha(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let before = core.state.gpr[gpr::RSP];
        for r in 0..8 {
            let value = if r == gpr::RSP { before } else { core.state.gpr[r] };
            if let Err(fault) = push(core, op.size, value) {
                core.state.gpr[gpr::RSP] = before;
                return Err(fault);
            }
        }
        Ok(())
    };
    step(body(core))
}

/// POPA, POPAD.
pub(crate) fn popa(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let mut values = [0; 8];
        for (i, value) in values.iter_mut().enumerate() {
            *value = peek(core, op.size, i as u64 * u64::from(op.size))?;
        }
        release(core, 8 * u64::from(op.size));
        for (i, value) in values.iter().rev().enumerate() {
            if i != gpr::RSP {
                set_sized(core, i as u8, op.size, *value);
            }
        }
        Ok(())
    };
    step(body(core))
}

/// PUSHF.
pub(crate) fn pushf(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let image = flags::pushf(&core.state, op.width());
        let image = core.check(image)?;
        push(core, op.size, image)
    };
    step(body(core))
}

/// POPF. Ends the block: IF, TF and AC may have changed.
pub(crate) fn popf(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let image = peek(core, op.size, 0)?;
        let result = flags::popf(&mut core.state, image, op.width());
        core.check(result)?;
        release(core, u64::from(op.size));
        core.state.rip = core.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(core))
}

/// LEAVE.
pub(crate) fn leave(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let mask = mask(core);
        let frame = core.state.gpr[gpr::RBP] & mask;
        let la = core.segmented(Seg::Ss as u8, frame, u64::from(op.size), AccessKind::Read)?;
        let value = sized_load(core, la, op.size)?;
        set_rsp(core, frame.wrapping_add(u64::from(op.size)));
        set_sized(core, gpr::RBP as u8, op.size, value);
        Ok(())
    };
    step(body(core))
}

/// ENTER imm16 (low half of `imm`), nesting level (bits 16–20).
pub(crate) fn enter(core: &mut Core, op: &Op) -> Step {
    let before = (core.state.gpr[gpr::RSP], core.state.gpr[gpr::RBP]);
    let result = enter_frame(core, op);
    if result.is_err() {
        (core.state.gpr[gpr::RSP], core.state.gpr[gpr::RBP]) = before;
    }
    step(result)
}

fn enter_frame(core: &mut Core, op: &Op) -> Fallible {
    let (size, level) = (op.size, op.imm >> 16 & 31);
    let mask = mask(core);
    let rbp = core.state.gpr[gpr::RBP];
    push(core, size, rbp)?;
    let frame = core.state.gpr[gpr::RSP];
    for n in 1..level {
        let offset = rbp.wrapping_sub(n * u64::from(size)) & mask;
        let la = core.segmented(Seg::Ss as u8, offset, u64::from(size), AccessKind::Read)?;
        let value = sized_load(core, la, size)?;
        push(core, size, value)?;
    }
    if level > 0 {
        push(core, size, frame)?;
    }
    release(core, (op.imm & 0xffff).wrapping_neg());
    // The manual's last step: a write to the new top of stack must not fault.
    let top = core.state.gpr[gpr::RSP] & mask;
    let la = core.segmented(Seg::Ss as u8, top, u64::from(size), AccessKind::Write)?;
    core.aligned(la, u64::from(size), u64::from(size))?;
    let probe = {
        let privilege = core.privilege();
        core.mmu.probe_write(La(la), u64::from(size), privilege)
    };
    core.check(probe)?;
    set_sized(core, gpr::RBP as u8, size, frame);
    Ok(())
}

/// MOV r/m, Sreg (`dst` register, `src` segment).
pub(crate) fn mov_r_seg(core: &mut Core, op: &Op) -> Step {
    let selector = u64::from(core.state.seg[usize::from(op.src) % 6].selector);
    set_sized(core, op.dst, op.size, selector);
    Step::Next
}

/// MOV [mem], Sreg.
pub(crate) fn mov_m_seg(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let selector = core.state.seg[usize::from(op.src) % 6].selector;
        let la = core.linear_legacy(op, 2, AccessKind::Write)?;
        core.store::<u16>(la, selector.zext() as u16)
    };
    step(body(core))
}
