//! Does what a program must not do: the argument says what. If the processor lets it, the exit code
//! is 99.
#![no_std]
#![no_main]

use abi::rights;
use core::arch::asm;
use core::hint::black_box;
use programs::abi;

programs::program!(run);

/// Inside the nucleus: the first page of its image.
const NUCLEUS: u64 = 0xFFFF_FFFF_8010_0000;

fn run(argument: &[u8]) -> i32 {
    let text = core::str::from_utf8(argument).unwrap_or("");
    let kind = text.split_ascii_whitespace().next().unwrap_or("");
    // SAFETY: each of these is meant to end the process; none harms anything but it.
    unsafe {
        match kind {
            "divide" => {
                asm!("xor ecx, ecx", "div ecx", inout("eax") 1 => _, inout("edx") 0 => _,
                    out("ecx") _);
            }
            "opcode" => asm!("ud2"),
            "breakpoint" => asm!("int3"),
            "step" => asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop"),
            "hlt" => asm!("hlt"),
            "cli" => asm!("cli"),
            "port" => asm!("out 0x80, al"),
            "cr3" => asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _),
            "msr" => asm!("rdmsr", in("ecx") 0xC000_0080u32, out("eax") _, out("edx") _),
            "lgdt" => asm!("lgdt [{}]", in(reg) &[0u64; 2]),
            "lidt" => asm!("lidt [{}]", in(reg) &[0u64; 2]),
            "sgdt" => asm!("sgdt [{}]", in(reg) &mut [0u64; 2]),
            "invlpg" => asm!("invlpg [{}]", in(reg) 0u64),
            "sysret" => asm!("sysretq"),
            "selector" => asm!("mov ds, {:x}", in(reg) 0x10),
            "far" => asm!("push 8", "push {}", "retfq", in(reg) NUCLEUS),
            "iret" => {
                asm!("push 0x10", "push {0}", "push 0x202", "push 8", "push {0}", "iretq",
                    in(reg) NUCLEUS);
            }
            "gate" => interrupt(programs::number(argument, 1).unwrap_or(0) as u8),
            "null" => touch(0),
            "unmapped" => touch(0x10_0000_0000),
            "nucleus-read" => touch(NUCLEUS),
            "nucleus-write" => asm!("mov byte ptr [{}], 0", in(reg) NUCLEUS),
            "nucleus-jump" => asm!("call {}", in(reg) NUCLEUS),
            "direct-map" => touch(0xFFFF_8000_0010_0000),
            "noncanonical" => touch(1 << 63),
            "stack-segment" => {
                asm!("mov rbp, {}", "mov al, [rbp]", in(reg) 1u64 << 62, out("al") _);
            }
            "text" => asm!("mov byte ptr [{}], 0", in(reg) 0x40_0000u64),
            "nx" => asm!("push 0xC3", "call rsp", "pop rax", out("rax") _),
            "overflow" => drop(black_box(deeper(0))),
            "x87" => {
                asm!("fninit", "push 0x33B", "fldcw [rsp]", "fld1", "fldz", "fdivp", "fwait",
                    "pop rax", out("rax") _);
            }
            "sse" => {
                asm!("push 0x1D80", "ldmxcsr [rsp]", "pop rax", "pxor xmm1, xmm1",
                    "mov eax, 0x3F800000", "movd xmm0, eax", "divss xmm0, xmm1", out("rax") _,
                    out("xmm0") _, out("xmm1") _);
            }
            _ => {
                programs::println!("fault: unknown kind");
                return 98;
            }
        }
    }
    99
}

fn touch(address: u64) {
    // SAFETY: it is not sound, on purpose: the nucleus must stop this process.
    unsafe { asm!("mov al, [{}]", in(reg) address, out("al") _) };
}

/// INT n for any n, from memory that may be written and executed.
fn interrupt(vector: u8) {
    let Ok(code) = programs::map(4096, rights::WRITE | rights::EXECUTE) else { return };
    // SAFETY: the page has just been mapped; the instruction returns, or the process ends.
    unsafe {
        code.copy_from([0xCD, vector, 0xC3].as_ptr(), 3);
        asm!("call {}", in(reg) code, inout("rax") abi::call::GETPID => _);
    }
}

#[allow(unconditional_recursion)]
#[inline(never)]
fn deeper(n: u64) -> u64 {
    let page = black_box([n; 64]);
    black_box(deeper(n + 1)) + page[63]
}
