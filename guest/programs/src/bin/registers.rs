//! Fills every register with a pattern of its own, gives the processor away, and looks whether the
//! pattern is still there: so many rounds, giving it away by a system call or, while spinning, at
//! the timer's mercy.
#![no_std]
#![no_main]

use core::arch::global_asm;
use programs::{Random, abi};

programs::program!(run);

/// 15 general registers (without RSP), two of the x87's, then 16 vector registers of 32 bytes.
type Pattern = [u64; 17 + 1 + 64];

unsafe extern "C" {
    fn exercise_sse(input: *const Pattern, output: *mut Pattern, spins: u64);
    fn exercise_avx(input: *const Pattern, output: *mut Pattern, spins: u64);
}

// exercise(input: RDI, output: RSI, spins: RDX). RAX carries the system call's number and result
// and is not compared.
global_asm!(
    ".macro EXERCISE name, move, register",
    ".global \\name",
    "\\name:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rsi",
    "push rdx",
    "fninit",
    "fild qword ptr [rdi + 15 * 8]",
    "fild qword ptr [rdi + 16 * 8]",
    ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "\\move \\register\\i, [rdi + 144 + 32 * \\i]",
    ".endr",
    "mov rbx, [rdi + 8]",
    "mov rcx, [rdi + 16]",
    "mov rdx, [rdi + 24]",
    "mov rsi, [rdi + 32]",
    "mov rbp, [rdi + 40]",
    "mov r8, [rdi + 48]",
    "mov r9, [rdi + 56]",
    "mov r10, [rdi + 64]",
    "mov r11, [rdi + 72]",
    "mov r12, [rdi + 80]",
    "mov r13, [rdi + 88]",
    "mov r14, [rdi + 96]",
    "mov r15, [rdi + 104]",
    "mov rdi, [rdi + 112]",
    "mov eax, 7", // yield
    "int 0x80",
    "2: dec qword ptr [rsp]",
    "jns 2b",
    "push rdi",
    "mov rdi, [rsp + 16]",
    "mov [rdi + 8], rbx",
    "mov [rdi + 16], rcx",
    "mov [rdi + 24], rdx",
    "mov [rdi + 32], rsi",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], r8",
    "mov [rdi + 56], r9",
    "mov [rdi + 64], r10",
    "mov [rdi + 72], r11",
    "mov [rdi + 80], r12",
    "mov [rdi + 88], r13",
    "mov [rdi + 96], r14",
    "mov [rdi + 104], r15",
    "pop qword ptr [rdi + 112]",
    ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "\\move [rdi + 144 + 32 * \\i], \\register\\i",
    ".endr",
    "fistp qword ptr [rdi + 16 * 8]",
    "fistp qword ptr [rdi + 15 * 8]",
    "pop rdx",
    "pop rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".endm",
    "EXERCISE exercise_sse, movups, xmm",
    "EXERCISE exercise_avx, vmovups, ymm",
);

fn run(argument: &[u8]) -> i32 {
    let rounds = programs::number(argument, 0).unwrap_or(1000);
    let spins = programs::number(argument, 1).unwrap_or(0);
    let avx = programs::info(abi::info::AVX) == 1;
    let mut random = Random(programs::getpid() << 32 | 0x5EED);
    let mut input: Pattern = [0; 82];
    for _ in 0..rounds {
        input.iter_mut().for_each(|word| *word = random.draw());
        input[0] = 0;
        input[17] = 0;
        if !avx {
            // Without AVX only the lower half of each vector register takes part.
            input[18..].chunks_exact_mut(4).for_each(|vector| vector[2..].fill(0));
        }
        let mut output: Pattern = [0; 82];
        // SAFETY: the functions keep C's rules; both arrays have the size they expect.
        unsafe {
            if avx {
                exercise_avx(&input, &mut output, spins);
            } else {
                exercise_sse(&input, &mut output, spins);
            }
        }
        if let Some(which) = (0..82).find(|&i| input[i] != output[i]) {
            programs::println!(
                "registers: word {which} was {:x}, is {:x}",
                input[which],
                output[which]
            );
            return 1;
        }
    }
    0
}
