//! bzImage by the Linux/x86 boot protocol (Linux Documentation/arch/x86/boot.rst), version 2.06 and
//! later.
//!
//! The real-mode setup code is never run: the 64-bit entry is taken where the kernel has one, else
//! the 32-bit entry.

use crate::boot_params::{self, HEADER, Loading};
use crate::bytes::{align_up, slice, u8_at, u16_at, u32_at, u64_at};
use crate::place::Placer;
use crate::source::File;
use crate::{BootError, Loader, Protocol, Run, cpu, layout};
use x86::addr::Gpa;
use x86::state::{CpuState, gpr};

/// `cmdline_size` and with it a sane command line exist since 2.06.
const OLDEST: u16 = 0x206;
/// `init_size` and `pref_address` exist since 2.10.
const INIT_SIZE_SINCE: u16 = 0x20a;
/// `xloadflags` exists since 2.12.
const XLOADFLAGS_SINCE: u16 = 0x20c;
/// loadflags: the protected-mode code goes to 1 MiB.
const LOADED_HIGH: u8 = 1;
/// xloadflags: there is a 64-bit entry point at 200H.
const XLF_KERNEL_64: u16 = 1;
/// xloadflags: initrd, boot_params and command line may lie above 4 GiB.
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;
/// The 64-bit entry's offset from the load address.
const ENTRY_64: u64 = 0x200;

/// The setup header's fields that decide about loading.
#[derive(Debug)]
struct Setup {
    version: u16,
    payload: u64,
    code32_start: u64,
    relocatable: bool,
    alignment: u64,
    xloadflags: u16,
    cmdline_max: u64,
    pref_address: u64,
    init_size: u64,
    initrd_max: u64,
}

/// Places kernel, boot_params, initrd and command line.
pub(crate) fn load(
    loader: &Loader<'_>,
    placer: &mut Placer,
) -> Result<(Protocol, CpuState), BootError> {
    loader.no_modules("Linux takes no modules")?;
    let image = loader.image;
    let setup = parse(image)?;
    let kernel = slice(&image.bytes, setup.payload, image.bytes.len() as u64 - setup.payload)
        .unwrap_or_default();
    let (gpa, len) = choose(&setup, kernel.len() as u64, image, placer)?;
    placer.reserve(&image.name, gpa, len)?;
    placer.add_reserved(gpa, kernel.to_vec(), "kernel");
    let wide = setup.xloadflags & XLF_KERNEL_64 != 0;
    let (protocol, mut state) = if wide {
        (Protocol::Linux64, cpu::long_mode(placer, gpa.0 + ENTRY_64)?)
    } else {
        (Protocol::Linux32, cpu::protected_mode(placer, gpa.0)?)
    };
    let loading = Loading {
        cmdline_max: setup.cmdline_max,
        initrd_max: setup.initrd_max,
        initrd_floor: (gpa.saturating_add(len).min(Gpa(setup.initrd_max))).0,
    };
    let header = boot_params::header_of_bzimage(&image.bytes, gpa.0 as u32);
    boot_params::place(loader, header, &loading, placer)?;
    state.gpr[gpr::RSI] = layout::BOOT_PARAMS.0;
    Ok((protocol, state))
}

fn parse(image: &File<'_>) -> Result<Setup, BootError> {
    let data = &image.bytes[..];
    let short = || image.truncated("setup header", HEADER.end);
    let (byte, word) =
        (|o| u8_at(data, o).ok_or_else(short), |o| u16_at(data, o).ok_or_else(short));
    let (long, quad) =
        (|o| u32_at(data, o).ok_or_else(short), |o| u64_at(data, o).ok_or_else(short));
    if word(0x1fe)? != 0xaa55 {
        return Err(image.corrupt("it has Linux's setup header without the boot signature AA55H"));
    }
    let version = word(0x206)?;
    if version < OLDEST {
        let what = format!(
            "speaks boot protocol {}.{:02}, and 2.06 is needed",
            version >> 8,
            version & 0xff
        );
        return Err(image.unsupported(what, "use Linux 2.6.22 or later"));
    }
    if byte(0x211)? & LOADED_HIGH == 0 {
        return Err(image.unsupported("is a zImage that loads below 1 MiB", "build a bzImage"));
    }
    let since = |first: u16, value: u64| if version >= first { value } else { 0 };
    let xloadflags = since(XLOADFLAGS_SINCE, word(0x236)?.into()) as u16;
    let above = xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
    let setup_sectors = match byte(0x1f1)? {
        0 => 4,
        n => u64::from(n),
    };
    let setup = Setup {
        version,
        payload: (setup_sectors + 1) * 512,
        code32_start: long(0x214)?.into(),
        relocatable: byte(0x234)? != 0,
        alignment: long(0x230)?.into(),
        xloadflags,
        cmdline_max: long(0x238)?.into(),
        pref_address: since(INIT_SIZE_SINCE, quad(0x258)?),
        init_size: since(INIT_SIZE_SINCE, long(0x260)?.into()),
        initrd_max: if above { u64::MAX } else { long(0x22c)?.into() },
    };
    check(image, &setup, u64::from(long(0x1f4)?) * 16)?;
    Ok(setup)
}

/// That the file is as long as it says (`syssize` counts the payload in 16-byte units), and aligned
/// by powers of two.
fn check(image: &File<'_>, setup: &Setup, code_size: u64) -> Result<(), BootError> {
    let found = image.bytes.len() as u64;
    // A sector may be padding: some tools drop it, and syssize is rounded up.
    let needed = setup.payload.saturating_add(code_size).saturating_sub(15);
    if found <= setup.payload || found < needed {
        return Err(image.truncated("kernel", needed.max(setup.payload + 1)));
    }
    if setup.relocatable && !setup.alignment.is_power_of_two() {
        return Err(
            image.corrupt(format!("kernel_alignment {:#x} is not a power of two", setup.alignment))
        );
    }
    if !setup.relocatable
        && setup.version < INIT_SIZE_SINCE
        && setup.code32_start < layout::HIGH_MEMORY.0
    {
        return Err(
            image.corrupt(format!("code32_start {:#x} lies below 1 MiB", setup.code32_start))
        );
    }
    Ok(())
}

/// Where the kernel goes and how much memory it needs there.
///
/// A relocatable kernel may be loaded anywhere, but it *runs* at the first multiple of
/// kernel_alignment at or above both its load address and pref_address (boot.rst, init_size):
/// loaded lower, it copies itself up. init_size counts from where it runs, so it is loaded there at
/// once: at its preferred address, or higher where that is not free. Before 2.10 there is no such
/// address, and the kernel goes to its code32_start.
fn choose(setup: &Setup, code: u64, image: &File<'_>, placer: &Placer) -> Result<Run, BootError> {
    let len = setup.init_size.max(code);
    let (preferred, align) = match setup.pref_address {
        0 => (setup.code32_start, 1),
        address if setup.relocatable => (address, setup.alignment.max(0x1000)),
        address => (address, 1),
    };
    let preferred = preferred.max(layout::HIGH_MEMORY.0);
    let runs_at = align_up(preferred, align).unwrap_or(u64::MAX);
    let last = layout::FOUR_GIB - 1; // the processor's first page tables reach no further
    if runs_at.checked_add(len).is_none_or(|end| end - 1 > last) {
        return Err(image.corrupt(format!("it wants to run at {runs_at:#x}, beyond 4 GiB")));
    }
    let found = match align {
        1 => placer.is_free(Gpa(runs_at), len).then_some(Gpa(runs_at)),
        _ => placer.lowest(len, align, Gpa(preferred), Gpa(last)),
    };
    found.map(|gpa| (gpa, len)).ok_or_else(|| placer.too_little(&image.name, Gpa(runs_at), len))
}
