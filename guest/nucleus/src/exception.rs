//! Exceptions (SDM vol. 3, 7.15): a page fault may bring a page in; any other ends the process it
//! comes from, with a report. An exception of the nucleus itself is an error of the nucleus: full
//! report, halt.

use crate::kernel::Kernel;
use crate::memory::{Access, Refusal};
use crate::paging::{self, LEVELS};
use crate::physical::Frame;
use crate::process::{End, Frame64, Pid};
use crate::sched::Reason;
use crate::{cpu, kernel, power};
use alloc::format;
use alloc::string::String;

pub const PAGE_FAULT: u8 = 14;

// Bits of a page fault's error code.
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const RESERVED: u64 = 1 << 3;
const FETCH: u64 = 1 << 4;

/// The manual's names, as the machine has them.
#[path = "../../../crates/x86/src/vectors.rs"]
mod vectors;

/// Mnemonic and name of a vector below 32.
pub fn name(vector: u8) -> (&'static str, &'static str) {
    let name = vectors::NAMES.get(usize::from(vector)).copied().flatten();
    name.unwrap_or(("#??", "reserved"))
}

/// The error code in words.
pub fn describe(vector: u8, error: u64) -> String {
    let word = |bit: u64, yes, no| if error & bit != 0 { yes } else { no };
    match vector {
        PAGE_FAULT => format!(
            "{} by {} level, {}{}",
            if error & FETCH != 0 { "instruction fetch" } else { word(WRITE, "write", "read") },
            word(USER, "user", "system"),
            word(PRESENT, "page present but not permitted", "page not present"),
            word(RESERVED, ", reserved bit set", ""),
        ),
        10..=13 if error != 0 => {
            let table = match error >> 1 & 3 {
                0 => "GDT",
                2 => "LDT",
                _ => "IDT",
            };
            format!("{table} entry {:#x}{}", error >> 3, word(1, ", external event", ""))
        }
        _ => String::from("no detail"),
    }
}

impl Kernel {
    /// An exception at user level. Tells whether the process's turn is over.
    pub fn exception(&mut self, pid: Pid) -> Option<Reason> {
        let address = cpu::cr2();
        let process = self.processes.get_mut(&pid)?;
        let (vector, error) = (process.context.frame.vector as u8, process.context.frame.error);
        self.interrupts[vector as usize] += 1;
        if vector != PAGE_FAULT {
            self.end_by_exception(pid, End::Exception { vector, error, address: 0 });
            return Some(Reason::Ended);
        }
        process.usage.faults += 1;
        let access = match error {
            _ if error & WRITE != 0 => Access::Write,
            _ if error & FETCH != 0 => Access::Execute,
            _ => Access::Read,
        };
        match self.page_in(pid, address, access) {
            Ok(_) => return None, // the instruction is executed again
            Err(Refusal::NotAllowed) => {
                self.end_by_exception(pid, End::Exception { vector, error, address });
            }
            Err(Refusal::NoMemory) => {
                if !self.quiet {
                    self.report_out_of_memory(pid);
                }
                self.end(pid, End::OutOfMemory);
            }
        }
        Some(Reason::Ended)
    }

    fn report_out_of_memory(&self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        self.lines.hide();
        println!("process {pid} ({}) ended: out of memory", process.name);
        if self.swap.total() == 0 || !self.swap.enabled {
            println!(
                "  no frame is free, and there is no disk to move pages to (gemello: --disk FILE)"
            );
        } else {
            println!("  no frame is free, and the swap disk is full");
        }
        self.lines.unhide();
    }

    fn end_by_exception(&mut self, pid: Pid, end: End) {
        if !self.quiet {
            self.report(pid, end);
        }
        self.end(pid, end);
    }

    fn report(&mut self, pid: Pid, end: End) {
        let End::Exception { vector, error, address } = end else { return };
        let Some(process) = self.processes.get(&pid) else { return };
        let (short, long) = name(vector);
        let rip = process.context.frame.rip;
        self.lines.hide();
        println!("process {pid} ({}) ended: {short} {long}", process.name);
        print!("  error code {error:#x}: {}", describe(vector, error));
        if vector == PAGE_FAULT {
            print!("; address {address:#x}");
            let guard = kernel::STACK_TOP - kernel::STACK_SIZE;
            if (guard - 65536..guard).contains(&address) {
                print!(" (stack overflow)");
            }
        }
        print!("\n  instruction at {rip:#x}");
        let mut code = [0; 8];
        if self.copy_in(pid, rip, &mut code).is_ok() {
            print!(":");
            for byte in code {
                print!(" {byte:02x}");
            }
        }
        println!();
        self.lines.unhide();
    }
}

/// An exception in the nucleus: entry.s comes here with what it found.
#[unsafe(no_mangle)]
extern "C" fn kernel_exception(frame: &Frame64) -> ! {
    let (vector, error) = (frame.vector as u8, frame.error);
    let (short, long) = name(vector);
    println!("\n*** The nucleus itself failed: {short} {long}, error code {error:#x}");
    println!("    {}", describe(vector, error));
    println!("{frame:#x?}");
    println!("CR2 {:#x}  CR3 {:#x}  CR4 {:#x}", cpu::cr2(), cpu::cr3(), cpu::cr4());
    if vector == PAGE_FAULT || vector == 8 {
        for (level, entry) in paging::walk(Frame::of(cpu::cr3()), cpu::cr2()) {
            println!("  {:4} {entry:#018x}", LEVELS[level]);
        }
        if (paging::stack_guard()..paging::stack_guard() + 4096).contains(&cpu::cr2()) {
            println!("  the nucleus's stack is exhausted");
        }
    }
    power::fail()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("\n*** The nucleus itself failed: {info}");
    power::fail()
}
