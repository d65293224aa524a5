//! The tables by which the processor finds its way into the nucleus: GDT, TSS and IDT (SDM vol. 3,
//! 3.4, 8.7, 7.10).

use crate::cpu;
use core::arch::asm;
use core::cell::UnsafeCell;

/// Selectors. User segments follow in the order SYSRET would want: 32-bit code (unused), data,
/// code.
const KERNEL_CODE: u16 = 0x08;
pub const USER_DATA: u16 = 0x20 | 3;
pub const USER_CODE: u16 = 0x28 | 3;
const TASK: u16 = 0x30;

/// The vectors of the trap for system calls, of the timer, the console and the power button.
pub const TRAP: u8 = 0x80;
pub const TIMER: u8 = 0x20;
pub const CONSOLE: u8 = 0x24;
pub const POWER: u8 = 0x29;
pub const SPURIOUS: u8 = 0xFF;
/// Not a vector: what entry.s notes for SYSCALL.
pub const SYSCALL: u64 = 0x100;

/// Bytes of each emergency stack.
const STACK: usize = 8192;

/// The 64-bit TSS: no task switch any more, but the stack pointers for what comes from outside.
#[repr(C, packed(4))]
pub struct TaskState {
    reserved0: u32,
    /// The system-memory register: where state is saved on the way up from user level. Always the
    /// end of the running process's frame.
    rsp0: u64,
    rsp1: u64,
    rsp2: u64,
    reserved1: u64,
    /// Stacks for #DF, NMI and #MC, which may come when no other stack can be trusted.
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

/// A table of the processor's, changed only by the nucleus's single thread of control.
#[repr(C, align(16))]
struct Shared<T>(UnsafeCell<T>);
// SAFETY: one processor, and handlers are never interrupted: there is only ever one accessor.
unsafe impl<T> Sync for Shared<T> {}

#[unsafe(export_name = "task_state")]
static TSS: Shared<TaskState> = Shared(UnsafeCell::new(TaskState {
    reserved0: 0,
    rsp0: 0,
    rsp1: 0,
    rsp2: 0,
    reserved1: 0,
    ist: [0; 7],
    reserved2: 0,
    reserved3: 0,
    io_map: size_of::<TaskState>() as u16, // no I/O permission bitmap: no port is open to users
}));
static GDT: Shared<[u64; 8]> = Shared(UnsafeCell::new([0; 8]));
static IDT: Shared<[Gate; 256]> = Shared(UnsafeCell::new([Gate { low: 0, high: 0 }; 256]));
static EMERGENCY: Shared<[[u8; STACK]; 3]> = Shared(UnsafeCell::new([[0; STACK]; 3]));

unsafe extern "C" {
    static entry_stubs: [[u8; 16]; 256];
    static entry_syscall: u8;
}

/// A gate of the IDT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    /// An interrupt gate: it masks interrupts until IRET, so a handler runs to its end. Only a gate
    /// of privilege level 3 opens to an INT instruction at user level.
    const fn interrupt(handler: u64, level: u64, stack: u64) -> Self {
        const PRESENT: u64 = 1 << 47;
        const INTERRUPT_GATE: u64 = 0xE << 40;
        let low = handler & 0xFFFF
            | (KERNEL_CODE as u64) << 16
            | stack << 32
            | INTERRUPT_GATE
            | level << 45
            | PRESENT
            | (handler >> 16 & 0xFFFF) << 48;
        Self { low, high: handler >> 32 }
    }

    pub fn handler(self) -> u64 {
        self.low & 0xFFFF | self.low >> 32 & 0xFFFF_0000 | self.high << 32
    }

    pub fn level(self) -> u64 {
        self.low >> 45 & 3
    }

    pub fn is_interrupt_gate(self) -> bool {
        self.low >> 40 & 0x1F == 0xE && self.low >> 47 & 1 == 1
    }

    pub fn stack(self) -> u64 {
        self.low >> 32 & 7
    }
}

/// Fills and loads GDT, TSS and IDT, and tells SYSCALL where to go.
pub fn start() {
    fill_gdt();
    fill_idt();
    cpu::wrmsr(cpu::STAR, u64::from(KERNEL_CODE) << 32 | 0x1B << 48);
    cpu::wrmsr(cpu::LSTAR, (&raw const entry_syscall) as u64);
    cpu::wrmsr(cpu::FMASK, 0x4_7700); // AC, NT, IOPL's neighbours DF, IF, TF: off on entry
}

fn fill_gdt() {
    let tss = TSS.0.get() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    // SAFETY: nothing else holds a reference into the tables; the selectors loaded are those just
    // described.
    unsafe {
        for (i, ist) in
            [0, 1, 2].into_iter().zip(&mut *(&raw mut (*TSS.0.get()).ist).cast::<[u64; 3]>())
        {
            *ist = EMERGENCY.0.get() as u64 + ((i + 1) * STACK) as u64;
        }
        *GDT.0.get() = [
            0,
            0x00AF_9B00_0000_FFFF, // 08 nucleus: code, 64 bit
            0x00CF_9300_0000_FFFF, // 10 nucleus: data
            0,                     // 18 (32-bit user code)
            0x00CF_F300_0000_FFFF, // 20 user: data
            0x00AF_FB00_0000_FFFF, // 28 user: code, 64 bit
            limit | (tss & 0xFF_FFFF) << 16 | 0x89 << 40 | (tss >> 24 & 0xFF) << 56, // 30 TSS
            tss >> 32,
        ];
        let pointer = table_pointer(GDT.0.get() as u64, 63);
        asm!("lgdt [{}]", in(reg) &pointer, options(readonly, nostack));
        asm!("ltr {:x}", in(reg) TASK, options(nostack));
        asm!("push 0x08", "lea {t}, [rip + 2f]", "push {t}", "retfq", "2:", "mov ss, {z:x}",
            t = out(reg) _, z = in(reg) 0x10);
    }
}

/// The 256 gates, before the reader's eyes: exceptions 0 to 31, interrupts from 32 on, and one
/// trap.
fn fill_idt() {
    // SAFETY: nothing else holds a reference into the tables; entry.s has a stub for each vector.
    unsafe {
        let stubs = (&raw const entry_stubs) as u64;
        for vector in 0..256usize {
            let handler = stubs + 16 * vector as u64;
            let level = match vector {
                // INT3 and INT 80H may be used at user level; any other INT n is a #GP there
                3 | 0x80 => 3,
                _ => 0,
            };
            let stack = match vector {
                8 => 1,  // #DF
                2 => 2,  // NMI
                18 => 3, // #MC
                _ => 0,  // TSS.RSP0
            };
            (*IDT.0.get())[vector] = Gate::interrupt(handler, level, stack);
        }
        let pointer = table_pointer(IDT.0.get() as u64, 256 * 16 - 1);
        asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack));
    }
}

/// What LGDT and LIDT read: limit, then address.
fn table_pointer(address: u64, limit: u16) -> [u16; 5] {
    [limit, address as u16, (address >> 16) as u16, (address >> 32) as u16, (address >> 48) as u16]
}

/// Where the processor saves state on its next way up.
pub fn set_rsp0(end: u64) {
    // SAFETY: the nucleus has one thread of control, and no reference into the tables outlives a
    // function.
    unsafe { (&raw mut (*TSS.0.get()).rsp0).write_unaligned(end) };
}

/// What was last set by [`set_rsp0`].
pub fn rsp0() -> u64 {
    // SAFETY: the nucleus has one thread of control, and no reference into the tables outlives a
    // function.
    unsafe { (&raw const (*TSS.0.get()).rsp0).read_unaligned() }
}

/// A gate, for the shell.
pub fn gate(vector: u8) -> Gate {
    // SAFETY: the nucleus has one thread of control, and no reference into the tables outlives a
    // function.
    unsafe { (*IDT.0.get())[vector as usize] }
}

/// A descriptor, for the shell.
pub fn descriptor(index: usize) -> Option<u64> {
    // SAFETY: the nucleus has one thread of control, and no reference into the tables outlives a
    // function.
    unsafe { (*GDT.0.get()).get(index).copied() }
}
