//! What an engine counts.

/// Comparisons of translated code with the interpreter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockstep {
    /// Entries into translated code.
    pub entries: u64,
    /// Translated instructions found right.
    pub judged: u64,
    /// Translated instructions about which nothing could be said.
    pub unjudged: u64,
    /// Translated instructions of long loops, of which only the first iterations are compared.
    pub unwatched: u64,
}

/// Counters of one virtual processor since its creation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Guest instructions completed.
    pub instructions: u64,
    /// Of those, run by the host processor on the guest's own operands (thunks; later: translated code).
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
