//! The manual's names of the vectors that the architecture assigns (SDM vol. 3, table 6-1).
//!
//! Constants alone; the nucleus includes this file.

/// Mnemonic and name of each vector below 32; `None` where the architecture assigns none.
pub(crate) const NAMES: [Option<(&str, &str)>; 32] = {
    let mut names = [None; 32];
    names[0] = Some(("#DE", "division error"));
    names[1] = Some(("#DB", "debug"));
    names[2] = Some(("NMI", "non-maskable interrupt"));
    names[3] = Some(("#BP", "breakpoint"));
    names[4] = Some(("#OF", "overflow"));
    names[5] = Some(("#BR", "bound range exceeded"));
    names[6] = Some(("#UD", "invalid opcode"));
    names[7] = Some(("#NM", "device not available"));
    names[8] = Some(("#DF", "double fault"));
    names[10] = Some(("#TS", "invalid TSS"));
    names[11] = Some(("#NP", "segment not present"));
    names[12] = Some(("#SS", "stack fault"));
    names[13] = Some(("#GP", "general protection"));
    names[14] = Some(("#PF", "page fault"));
    names[16] = Some(("#MF", "x87 floating-point error"));
    names[17] = Some(("#AC", "alignment check"));
    names[18] = Some(("#MC", "machine check"));
    names[19] = Some(("#XM", "SIMD floating-point error"));
    names[20] = Some(("#VE", "virtualization exception"));
    names[21] = Some(("#CP", "control protection"));
    names
};
