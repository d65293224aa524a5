//! What an engine counts.

use std::time::Duration;

/// Comparisons of translated code with the interpreter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockstep {
    /// Entries into translated code.
    pub entries: u64,
    /// Instructions that the interpreter ran ahead.
    pub ahead: u64,
    /// Translated instructions found right.
    pub judged: u64,
    /// Translated instructions about which nothing could be said.
    pub unjudged: u64,
    /// Translated instructions of long loops, of which only the first iterations are compared.
    pub unwatched: u64,
}

/// How translated code fared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translator {
    /// Exits because an operand's page was not in the TLB (or not for that access).
    pub tlb_misses: u64,
    /// Exits at instructions that are left to the interpreter.
    pub left: u64,
    /// Those instructions, the most frequent first.
    pub left_to_interpreter: Vec<(String, u64)>,
    /// Exits at direct jumps that were not linked yet.
    pub unlinked: u64,
    /// Exits because a branch's target was not in the table.
    pub unknown_targets: u64,
    /// Exits because the code that was gone to had been rewritten.
    pub dead: u64,
    /// Look-ups of targets in the table, where translations count.
    pub looked_up: u64,
    /// Entries into translations, from outside and from each other, where translations count.
    pub entered: u64,
    /// Exits because the machine wanted the processor.
    pub stopped: u64,
    /// Exits by faults of the host.
    pub faults: u64,
    /// Bytes of code in the cache, which the processors of a machine share.
    pub code_used: u64,
    /// Room in the cache.
    pub code_capacity: u64,
    /// Times the cache was emptied.
    pub flushes: u64,
    /// Guest instructions translated.
    pub instructions: u64,
    /// Time spent on translating.
    pub time: Duration,
    /// The median over those instructions of the time that one took.
    pub median: Duration,
}

/// Counters of one virtual processor since its creation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Guest instructions completed.
    pub instructions: u64,
    /// Of those, run as thunks: by the host processor on the guest's own operands.
    pub direct: u64,
    /// Of those, run as translated code.
    pub translated: u64,
    /// Times translated code was left.
    pub translated_exits: u64,
    /// Of those, by a host fault.
    pub translated_faults: u64,
    /// Blocks translated.
    pub translated_blocks: u64,
    /// Direct jumps made between translations.
    pub translated_links: u64,
    /// More about translations, from an engine that makes any.
    pub translator: Option<Translator>,
    /// Blocks entered.
    pub blocks: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Blocks thrown away because their code was written to.
    pub blocks_invalidated: u64,
    /// TLB misses that walked the page tables.
    pub tlb_refills: u64,
    /// TLB flushes of any kind.
    pub tlb_flushes: u64,
    /// Exceptions delivered, by vector.
    pub exceptions: [u64; 32],
    /// External interrupts delivered.
    pub interrupts: u64,
    /// INT n, INT3, INTO.
    pub software_interrupts: u64,
    /// Port accesses.
    pub pio: u64,
    /// Device memory accesses.
    pub mmio: u64,
    /// RDMSR and WRMSR.
    pub msr: u64,
    /// CPUID.
    pub cpuid: u64,
    /// HLT.
    pub halts: u64,
    /// CR3 loads: the guest's own context switches.
    pub cr3_loads: u64,
    /// Where translated code is held against the interpreter.
    pub lockstep: Option<Lockstep>,
}
