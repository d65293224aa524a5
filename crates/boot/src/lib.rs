//! From files to a [`BootPlan`]: the bytes to place in guest memory and the first state of the boot
//! processor.
//!
//! This crate plays the firmware and the boot loader at once. It reads the files it is given,
//! decides by their content which boot protocol they speak, and lays out everything that protocol
//! promises to the guest. It does no other I/O and never touches guest memory itself: the machine
//! writes the pieces into *zeroed* RAM (an image's BSS is not spelled out) and sets the processor's
//! state. Hostile input yields a [`BootError`], never a panic.
//!
//! Protocols: Linux/x86 boot protocol 2.06 and later (64-bit and 32-bit entry), Linux ELF by the
//! 64-bit entry, PVH (Xen's x86/HVM direct boot ABI), Multiboot 0.6.96. All addresses are in
//! [`layout`].
#![forbid(unsafe_code)]

mod acpi;
mod boot_params;
mod bytes;
mod bzimage;
mod cpu;
mod detect;
mod e820;
mod elf;
mod error;
pub mod layout;
mod linux_elf;
mod multiboot;
mod place;
mod pvh;
mod source;

pub use acpi::{AcpiConfig, GENERATION_ID, PciHost, VirtioMmio};
pub use e820::{E820Entry, E820Type};
pub use error::BootError;
pub use source::Source;
use x86::addr::Gpa;

use x86::state::CpuState;

/// What to boot, and on what.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The kernel: bzImage, vmlinux or PVH ELF, Multiboot image. Told apart by content.
    pub image: Source<'a>,
    /// Initial RAM disk (Linux and PVH).
    pub initrd: Option<Source<'a>>,
    /// Kernel command line, without a terminating zero. PVH and Multiboot images, which may know no
    /// ACPI, are told the virtio devices on MMIO at its end: `virtio_mmio.device=4K@ADDRESS:GSI`.
    pub cmdline: &'a str,
    /// Multiboot or PVH modules, in order.
    pub modules: &'a [Module<'a>],
    /// RAM, ascending and disjoint. It must cover 0 to A0000H
    /// and [`layout::ACPI_START`] to 100000H; whether the VGA hole between is RAM too is the
    /// machine's choice.
    pub ram: &'a [Run],
    /// What the firmware tables tell.
    pub acpi: &'a AcpiConfig,
}

/// A run of guest-physical memory: its first address and its bytes.
pub type Run = (Gpa, u64);

/// A file passed along with the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// The file.
    pub source: Source<'a>,
    /// Its arguments; Multiboot prefixes them with the file's name.
    pub args: &'a str,
}

/// Bytes for one place in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Guest-physical address of the first byte.
    pub gpa: Gpa,
    /// The content.
    pub bytes: Vec<u8>,
    /// What it is, for logs.
    pub what: &'static str,
}

/// How the image is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux boot protocol, 64-bit entry of a bzImage.
    Linux64,
    /// Linux boot protocol, 32-bit entry of a bzImage.
    Linux32,
    /// Uncompressed 64-bit Linux (vmlinux) at its ELF entry point.
    LinuxElf64,
    /// PVH: 32-bit entry named by a Xen ELF note.
    Pvh,
    /// Multiboot v1.
    Multiboot,
}

/// Everything the machine needs to start the guest.
#[derive(Clone, Debug)]
pub struct BootPlan {
    /// What to write, disjoint and all inside RAM. The rest of RAM is zero.
    pub pieces: Vec<Piece>,
    /// The initial state of the boot processor.
    pub cpu: CpuState,
    /// The protocol chosen.
    pub protocol: Protocol,
    /// The memory map the guest is told.
    pub e820: Vec<E820Entry>,
}

/// Plans the boot of `request`.
///
/// # Errors
/// A file cannot be read, is not bootable here, or does not fit into memory; the message names it
/// and the remedy.
pub fn plan(request: &Request<'_>) -> Result<BootPlan, BootError> {
    let image = request.image.read("kernel image")?;
    let kind = detect::detect(&image)?;
    let mut placer = place::Placer::new(request.ram)?;
    let ecam = (request.acpi.pci.ecam, PciHost::ECAM_SIZE.into());
    let e820 = e820::map(request.ram, ecam);
    placer.add(layout::BDA, e820::bios_data_area(), "BIOS data area")?;
    placer.add(layout::EBDA, vec![1], "extended BIOS data area")?;
    for piece in acpi::tables(request.acpi) {
        placer.add(piece.gpa, piece.bytes, piece.what)?;
    }
    let loader = Loader { request, image: &image, e820: &e820 };
    let (protocol, cpu) = match kind {
        detect::Kind::BzImage => bzimage::load(&loader, &mut placer)?,
        detect::Kind::Elf(elf) => linux_elf::load(&loader, &elf, &mut placer)?,
        detect::Kind::Pvh(elf, entry) => pvh::load(&loader, &elf, entry, &mut placer)?,
        detect::Kind::Multiboot(header) => multiboot::load(&loader, &header, &mut placer)?,
    };
    Ok(BootPlan { pieces: placer.finish(), cpu, protocol, e820 })
}

/// What every protocol's loader works from.
struct Loader<'a> {
    request: &'a Request<'a>,
    image: &'a source::File<'a>,
    e820: &'a [E820Entry],
}

impl Loader<'_> {
    /// The command line with the virtio devices.
    fn cmdline_with_devices(&self) -> String {
        let devices = self.request.acpi.virtio.iter().map(VirtioMmio::parameter);
        let given = Some(self.request.cmdline.to_owned()).filter(|line| !line.is_empty());
        given.into_iter().chain(devices).collect::<Vec<_>>().join(" ")
    }

    /// Fails, because of `why`, if modules were given.
    fn no_modules(&self, why: &str) -> Result<(), BootError> {
        if self.request.modules.is_empty() {
            return Ok(());
        }
        Err(self.image.unsupported(
            format!("cannot be given modules: {why}"),
            "give one file as `initrd` instead",
        ))
    }
}
