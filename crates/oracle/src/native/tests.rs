//! The native runner on instructions whose outcome the manual states.
#![allow(unsafe_code)]

use super::{BATCH, NativeRunner};
use crate::case::{Case, layout};
use crate::outcome::{Event, Outcome};
use crate::subject::Subject;
use test_support::Rng;

const ARENA: u64 = layout::ARENA;

fn run(code: &[u8], set: impl FnOnce(&mut Case)) -> Outcome {
    let mut case = Case::with_code(code);
    set(&mut case);
    NativeRunner::new().expect("native runner").run(&case)
}

fn event(vector: u32, error_code: u32, cr2: u64) -> Event {
    Event { vector, error_code, cr2 }
}

#[test]
fn addition_sets_registers_and_flags_and_ends_at_int3() {
    // add rax, rbx
    let out = run(&[0x48, 0x01, 0xd8], |c| (c.gpr[0], c.gpr[3]) = (u64::MAX, 2));
    assert_eq!((out.gpr[0], out.gpr[3]), (1, 2));
    assert_eq!(out.rflags, 0x202 | 0x1 | 0x10);
    assert_eq!(out.rip, layout::CODE + 0x800 + 4);
    assert_eq!(out.event, event(3, 0, 0));
    assert_eq!(out.changed, 0);
}

#[test]
fn all_registers_are_loaded_and_recorded() {
    let case = Case { seed: 0x1234_5677, ftw: 0xff, fsw: 0x2800, ..Case::with_code(&[]) };
    let out = run(&[], |c| {
        *c = Case { gpr: std::array::from_fn(|i| 0x1111 * i as u64), ..case };
        (c.fs_base, c.gs_base) = (0x1234, 0x5678);
    });
    let registers = crate::derive::Registers::of(&case);
    assert_eq!(out.gpr, std::array::from_fn(|i| 0x1111 * i as u64));
    assert_eq!((out.fs_base, out.gs_base), (0x1234, 0x5678));
    assert_eq!(out.ymm, registers.ymm);
    assert_eq!(out.x87.st, registers.st);
    assert_eq!((out.x87.fcw, out.x87.fsw, out.x87.ftw), (0x37f, 0x2800, 0xff));
    assert_eq!(out.mxcsr, 0x1f80);
}

#[test]
fn stores_are_reported_and_undone() {
    let mut runner = NativeRunner::new().expect("native runner");
    // mov [rdi], rax
    let mut store = Case { seed: 5, ..Case::with_code(&[0x48, 0x89, 0x07]) };
    (store.gpr[0], store.gpr[7]) = (0x1122_3344_5566_7788, ARENA + 8);
    // mov rax, [rdi]
    let load = Case { gpr: store.gpr, seed: 5, ..Case::with_code(&[0x48, 0x8b, 0x07]) };
    let outcomes = runner.run_batch(&[load, store, load]).expect("batch").to_vec();
    assert_eq!(outcomes[1].changes().len(), 1);
    assert_eq!(outcomes[1].changes()[0].address.0, ARENA + 8);
    assert_eq!(outcomes[1].changes()[0].value, 0x1122_3344_5566_7788);
    assert_eq!(outcomes[0], outcomes[2]);
}

#[test]
fn faults_carry_vector_error_code_and_address() {
    // div ecx by zero
    assert_eq!(run(&[0xf7, 0xf1], |_| ()).event, event(0, 0, 0));
    // ud2
    let out = run(&[0x0f, 0x0b], |_| ());
    assert_eq!((out.event, out.rip), (event(6, 0, 0), layout::CODE + 0x800));
    // cli
    assert_eq!(run(&[0xfa], |_| ()).event, event(13, 0, 0));
    // mov rax, [rdi], not canonical
    let load = [0x48, 0x8b, 0x07];
    assert_eq!(run(&load, |c| c.gpr[7] = 1 << 63).event, event(13, 0, 0));
    // into the guard page: read, write, and across the edge
    let guard = layout::READ_ONLY + layout::READ_ONLY_SIZE;
    assert_eq!(run(&load, |c| c.gpr[7] = guard).event, event(14, 4, guard));
    assert_eq!(run(&load, |c| c.gpr[7] = guard - 3).event, event(14, 4, guard));
    let store = [0x48, 0x89, 0x07];
    assert_eq!(run(&store, |c| c.gpr[7] = ARENA - 8).event, event(14, 6, ARENA - 8));
    // the read-only page
    assert_eq!(
        run(&store, |c| c.gpr[7] = layout::READ_ONLY).event,
        event(14, 7, layout::READ_ONLY)
    );
    // jmp rdi into data: an instruction fetch, protection violation
    assert_eq!(run(&[0xff, 0xe7], |c| c.gpr[7] = ARENA).event, event(14, 0x15, ARENA));
    // push with a non-canonical stack pointer: #SS
    assert_eq!(run(&[0x50], |c| c.gpr[4] = 1 << 63).event, event(12, 0, 0));
    // movaps from a misaligned address
    assert_eq!(run(&[0x0f, 0x28, 0x07], |c| c.gpr[7] = ARENA + 1).event, event(13, 0, 0));
    // alignment check
    let out = run(&load, |c| (c.gpr[7], c.rflags) = (ARENA + 1, 0x4_0202));
    assert_eq!(out.event, event(17, 0, 0));
    // fld1; fwait with an unmasked exception pending
    assert_eq!(run(&[0x9b], |c| (c.fcw, c.fsw) = (0x37e, 0x8081)).event, event(16, 0, 0));
    // divps xmm0, xmm0 of zeros with invalid-operation unmasked
    assert_eq!(
        run(&[0x0f, 0x5e, 0xc0], |c| (c.ymm_keep, c.mxcsr) = (0, 0x1f00)).event,
        event(19, 0, 0)
    );
}

#[test]
fn a_single_step_ends_after_the_branch() {
    // jmp +0x10
    let out = run(&[0xeb, 0x10], |c| c.rflags = 0x302);
    assert_eq!((out.event, out.rip), (event(1, 0, 0), layout::CODE + 0x812));
    assert_eq!(out.rflags & 0x100, 0x100);
}

#[test]
fn self_modifying_code_sees_its_modification() {
    // mov byte [rip+3], 0x42 ; mov eax, 0x11 (its immediate is patched)
    let code = [0xc6, 0x05, 1, 0, 0, 0, 0x42, 0xb8, 0x11, 0, 0, 0];
    let out = run(&code, |_| ());
    assert_eq!(out.gpr[0], 0x42);
    assert_eq!(out.changes().len(), 1);
}

#[test]
fn system_calls_are_refused_and_endless_loops_end() {
    // syscall: exit_group
    assert_eq!(run(&[0x0f, 0x05], |c| c.gpr[0] = 231).event.vector, Event::SYSCALL);
    // int 0x80
    assert_eq!(run(&[0xcd, 0x80], |c| c.gpr[0] = 1).event.vector, Event::SYSCALL);
    assert_eq!(run(&[0xeb, 0xfe], |_| ()).event.vector, Event::TIMEOUT);
}

#[test]
fn what_one_case_leaves_behind_does_not_reach_the_next() {
    let mut runner = NativeRunner::new().expect("native runner");
    let plain = Case { seed: 77, ..Case::with_code(&[0x9c, 0x58]) };
    // popf of AC, ID, NT, DF; mov ds, ax; wrfsbase rax
    let mut popf = Case::with_code(&[0x9d, 0x8e, 0xd8, 0xf3, 0x48, 0x0f, 0xae, 0xd0]);
    popf.gpr[4] = ARENA;
    let flags = 0x24_4602u64;
    popf.code[8..12].copy_from_slice(&[0x6a, 0, 0, 0]);
    let mut seeded = popf;
    // push imm32; popf
    seeded.set_code(&[&[0x68], &(flags as u32).to_le_bytes()[..], &popf.code[..8]].concat());
    seeded.gpr[4] = layout::STACK + 64;
    let outcomes = runner.run_batch(&[plain, seeded, plain]).expect("batch");
    assert_ne!(outcomes[1].rflags & flags, 2, "the flags were set at all");
    assert_eq!(outcomes[0], outcomes[2]);
}

#[test]
fn a_killed_child_is_replaced_and_its_case_run_again() {
    let mut runner = NativeRunner::new().expect("native runner");
    let case = Case::with_code(&[0x90]);
    let before = *runner.run_batch(&[case]).expect("batch").first().expect("outcome");
    // SAFETY: kill has no memory precondition; the id is that of the runner's own child.
    unsafe { libc::kill(runner.pid(), libc::SIGKILL) };
    let after = *runner.run_batch(&[case]).expect("batch").first().expect("outcome");
    assert_eq!(before, after);
    assert_eq!(runner.restarts(), 1);
}

#[test]
fn a_case_that_kills_the_child_costs_only_itself() {
    let mut runner = NativeRunner::new().expect("native runner");
    let good = Case::with_code(&[0x90]);
    // mov [rdi], rax destroys the handler's pointer to its state.
    let mut evil = Case::with_code(&[0x48, 0x89, 0x07]);
    evil.gpr[7] = &raw const super::child::STATE as u64;
    evil.gpr[0] = 1;
    let outcomes = runner.run_batch(&[good, evil, good]).expect("batch").to_vec();
    assert_eq!(outcomes[1].event.vector, Event::DIED);
    assert_eq!(outcomes[0], outcomes[2]);
    assert_eq!(outcomes[0].event.vector, 3);
    assert_eq!(runner.restarts(), 2);
}

#[test]
fn the_same_batch_gives_the_same_outcomes() {
    let mut runner = NativeRunner::new().expect("native runner");
    let mut rng = Rng::new(9);
    let cases: Vec<Case> = (0..BATCH)
        .map(|_| {
            let mut case = Case::with_code(&[0x48, 0x0f, 0xaf, 0xc3, 0x0f, 0x58, 0xc1, 0xd8, 0xc1]);
            case.gpr = std::array::from_fn(|_| rng.next());
            case.seed = rng.next();
            case
        })
        .collect();
    let first = runner.run_batch(&cases).expect("batch").to_vec();
    let second = runner.run_batch(&cases).expect("batch");
    assert!(first == second);
}
