//! The processor's instructions that Rust has no words for (SDM vol. 2), each as one function.
//!
//! The nucleus runs on one processor, at level 0, with interrupts off except inside
//! [`wait_for_interrupt`].

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc, CpuidResult};

/// SYSCALL's selectors, target and flag mask.
pub const STAR: u32 = 0xC000_0081;
pub const LSTAR: u32 = 0xC000_0082;
pub const FMASK: u32 = 0xC000_0084;
/// The bases of FS and GS.
pub const FS_BASE: u32 = 0xC000_0100;
pub const GS_BASE: u32 = 0xC000_0101;
/// Where the local APIC is.
pub const APIC_BASE: u32 = 0x1B;

pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: reading a port of a device the nucleus owns changes no memory of Rust's.
    unsafe { asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack)) };
    value
}

pub fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: reading a port of a device the nucleus owns changes no memory of Rust's.
    unsafe { asm!("in ax, dx", out("ax") value, in("dx") port, options(nomem, nostack)) };
    value
}

pub fn outb(port: u16, value: u8) {
    // SAFETY: no device on the ports used here writes to memory of its own accord.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nostack)) };
}

pub fn outw(port: u16, value: u16) {
    // SAFETY: no device on the ports used here writes to memory of its own accord.
    unsafe { asm!("out dx, ax", in("ax") value, in("dx") port, options(nostack)) };
}

pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: only MSRs are read here that every x86-64 processor has.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

pub fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the MSRs written here (SYSCALL's and the user's segment bases) do not concern running
    // Rust code.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack));
    }
}

pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// The time stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: RDTSC reads a counter and changes no memory.
    unsafe { _rdtsc() }
}

pub fn pause() {
    core::hint::spin_loop();
}

/// The address that the last page fault was about.
pub fn cr2() -> u64 {
    let value;
    // SAFETY: reading CR2 changes nothing, and the nucleus runs at level 0.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack)) };
    value
}

pub fn cr3() -> u64 {
    let value;
    // SAFETY: reading CR3 changes nothing, and the nucleus runs at level 0.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack)) };
    value
}

/// The page-table base register: from here on addresses mean what the tables at `root` say; the TLB
/// forgets all but global pages.
pub fn set_cr3(root: u64) {
    // SAFETY: every root that is passed has the nucleus's half of the address space in it
    // (paging.rs).
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack)) };
}

/// Makes the TLB forget one page.
pub fn invlpg(address: u64) {
    // SAFETY: forgetting a translation never changes what the tables say.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack)) };
}

/// Switches process-context identifiers on or off; either way the TLB forgets everything. CR3's
/// lowest 12 bits are 0.
pub fn use_pcid(on: bool) {
    let without = cr4() & !CR4_PCIDE;
    set_cr4(if on { without | CR4_PCIDE } else { without });
}

/// INVPCID: 0 one address, 1 one context, 2 everything, 3 everything but global pages.
pub fn invpcid(kind: u64, context: u64, address: u64) {
    let descriptor = [context, address];
    // SAFETY: forgetting translations never changes what the tables say.
    unsafe { asm!("invpcid {}, [{}]", in(reg) kind, in(reg) &descriptor, options(nostack)) };
}

pub fn cr4() -> u64 {
    let value;
    // SAFETY: reading CR4 changes nothing, and the nucleus runs at level 0.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack)) };
    value
}

fn set_cr4(value: u64) {
    // SAFETY: only called with protection bits added that the processor has.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack)) };
}

/// Sleeps until an interrupt comes; returns its vector.
pub fn wait_for_interrupt() -> u64 {
    // SAFETY: entry.s answers an interrupt of the nucleus by noting the vector and coming back,
    // with interrupts off. STI holds them off for one more instruction, so none can slip in before
    // HLT.
    unsafe {
        asm!("sti", "hlt", "cli");
        super::entry::woken_by()
    }
}

/// Reads at a virtual address that the nucleus has mapped itself, by one access.
pub fn probe(address: u64) -> u64 {
    // SAFETY: callers have mapped the page; volatile, as the mapping changes behind the compiler's
    // back.
    unsafe { (address as *const u64).read_volatile() }
}

/// Writes there.
pub fn probe_write(address: u64, value: u64) {
    // SAFETY: callers have mapped the page for writing, and nothing else of the nucleus lies there;
    // volatile, as the mapping changes behind the compiler's back.
    unsafe { (address as *mut u64).write_volatile(value) };
}

/// Stops for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing runs any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

const CR4_UMIP: u64 = 1 << 11;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
/// x87, SSE and AVX.
const XCR0: u64 = 7;

/// What of the optional protections and state this processor has; all that it has is on.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
    pub fsgsbase: bool,
    pub xsave: bool,
    pub avx: bool,
    /// There, but not on: the nucleus needs no process-context identifiers.
    pub pcid: bool,
    pub invpcid: bool,
}

impl Features {
    /// Asks CPUID (SDM vol. 2, leaves 1 and 7) and switches on.
    pub fn enable() -> Self {
        let (basic, structured) = (cpuid(1, 0), cpuid(7, 0));
        let structured_there = cpuid(0, 0).eax >= 7;
        let has = |register: u32, bit: u32| structured_there && register >> bit & 1 == 1;
        let features = Self {
            smep: has(structured.ebx, 7),
            smap: has(structured.ebx, 20),
            umip: has(structured.ecx, 2),
            fsgsbase: has(structured.ebx, 0),
            xsave: basic.ecx >> 26 & 1 == 1,
            avx: basic.ecx >> 26 & 1 == 1 && basic.ecx >> 28 & 1 == 1,
            pcid: basic.ecx >> 17 & 1 == 1,
            invpcid: has(structured.ebx, 10),
        };
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        set_cr4(
            cr4()
                | bit(features.smep, CR4_SMEP)
                | bit(features.smap, CR4_SMAP)
                | bit(features.umip, CR4_UMIP)
                | bit(features.fsgsbase, CR4_FSGSBASE)
                | bit(features.xsave, CR4_OSXSAVE),
        );
        if features.xsave {
            let mask = if features.avx { XCR0 } else { XCR0 & 3 };
            // SAFETY: CR4.OSXSAVE is on and the mask holds only what CPUID reports.
            unsafe {
                asm!("xsetbv", in("ecx") 0, in("eax") mask as u32, in("edx") 0, options(nostack));
            };
        }
        features
    }
}
