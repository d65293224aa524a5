//! vmlinux: an uncompressed 64-bit Linux, entered at its ELF entry point with boot_params in RSI
//! (Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

use crate::boot_params::{self, Loading};
use crate::elf::Elf;
use crate::place::Placer;
use crate::{BootError, Loader, Protocol, cpu, elf, layout};
use x86::state::{CpuState, gpr};

/// Longest command line of x86 Linux (COMMAND_LINE_SIZE less its zero).
const CMDLINE_MAX: u64 = 2047;

/// Places kernel, boot_params, initrd and command line.
pub(crate) fn load(
    loader: &Loader<'_>,
    elf: &Elf,
    placer: &mut Placer,
) -> Result<(Protocol, CpuState), BootError> {
    loader.no_modules("Linux takes no modules")?;
    elf::check_entry(loader.image, elf, elf.entry)?;
    elf::load(loader.image, elf, placer)?;
    let mut state = cpu::long_mode(placer, elf.entry)?;
    let loading = Loading {
        cmdline_max: CMDLINE_MAX,
        initrd_max: u64::MAX,
        initrd_floor: layout::HIGH_MEMORY.0,
    };
    boot_params::place(loader, boot_params::header_of_elf(), &loading, placer)?;
    state.gpr[gpr::RSI] = layout::BOOT_PARAMS.0;
    Ok((Protocol::LinuxElf64, state))
}
