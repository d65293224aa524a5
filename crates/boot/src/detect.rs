//! The boot protocol of an image, recognized by its content; and what the image is if it has none.

use crate::BootError;
use crate::bytes::{slice, u16_at, u32_at};
use crate::elf::{self, Elf};
use crate::multiboot::{self, Header};
use crate::source::File;

/// What to boot it with.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Linux boot protocol.
    BzImage,
    /// A 64-bit ELF file without a note: Linux.
    Elf(Elf),
    /// An ELF file with a PVH entry address.
    Pvh(Elf, u32),
    /// A Multiboot header.
    Multiboot(Header),
}

/// Decides.
pub(crate) fn detect(image: &File<'_>) -> Result<Kind, BootError> {
    let data = &image.bytes;
    if let Some(error) = foreign(image) {
        return Err(error);
    }
    if slice(data, 0x202, 4) == Some(b"HdrS") {
        return Ok(Kind::BzImage);
    }
    if data.starts_with(b"\x7fELF") {
        return detect_elf(image);
    }
    if let Some(header) = multiboot::find(data) {
        return Ok(Kind::Multiboot(header));
    }
    Err(stranger(image))
}

fn detect_elf(image: &File<'_>) -> Result<Kind, BootError> {
    let elf = elf::parse(image)?;
    if let Some(entry) = elf::pvh_entry(image, &elf)? {
        return Ok(Kind::Pvh(elf, entry));
    }
    if let Some(header) = multiboot::find(&image.bytes) {
        return Ok(Kind::Multiboot(header));
    }
    if elf.is_program {
        return Err(not_a_kernel(image, "a program of an operating system", KERNEL_WANTED));
    }
    if !elf.is_64bit {
        let what = "is a 32-bit ELF file without a Multiboot header or PVH note";
        return Err(image.unsupported(what, "link one in, so that the entry protocol is known"));
    }
    Ok(Kind::Elf(elf))
}

/// Kernels of other processors in Linux's "Image" format: some look like PE files, so they are
/// tested first.
fn foreign(image: &File<'_>) -> Option<BootError> {
    let found = match slice(&image.bytes, 0x38, 4)? {
        b"ARM\x64" => "arm64 (Linux Image)",
        b"RSC\x05" => "RISC-V (Linux Image)",
        _ => return None,
    };
    Some(BootError::WrongArchitecture { name: image.name.clone(), found: found.to_owned() })
}

const KERNEL_WANTED: &str =
    "give a bzImage (Debian: /boot/vmlinuz-…), a vmlinux or PVH ELF, or a Multiboot image";
const INITRD_WANTED: &str = "give it as `initrd`, and a kernel as `kernel`";
const DISK_WANTED: &str = "take the kernel and the initrd out of it and pass those";

/// Magic numbers of compressed files, with what decompresses standard input to standard output.
const COMPRESSED: &[(&[u8], &str, &str)] = &[
    (&[0x1f, 0x8b], "gzip", "gzip -dc"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", "xz -dc"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "zstd -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4 (legacy)", "lz4 -dc"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", "lz4 -dc"),
    (&[0x5d, 0, 0], "lzma", "xz --format=lzma -dc"),
    (&[0x89, b'L', b'Z', b'O'], "lzop", "lzop -dc"),
];

/// Magic numbers of what people pass by mistake.
const STRANGERS: &[(u64, &[u8], &str, &str)] = &[
    (0, b"070701", "a cpio archive (an initramfs)", INITRD_WANTED),
    (0, b"070702", "a cpio archive (an initramfs)", INITRD_WANTED),
    (0, b"QFI\xfb", "a qcow2 disk image", DISK_WANTED),
    (0x8001, b"CD001", "an ISO 9660 image", DISK_WANTED),
    (0, b"!<arch>", "an archive (a .deb or .a file)", "unpack it and pass the kernel inside"),
    (0, &[0xed, 0xab, 0xee, 0xdb], "an RPM package", "unpack it and pass the kernel inside"),
    (0, &[0x27, 0x05, 0x19, 0x56], "a U-Boot image", KERNEL_WANTED),
    (0, &[0xd0, 0x0d, 0xfe, 0xed], "a device tree or FIT image", KERNEL_WANTED),
    (0, b"#!", "a script", KERNEL_WANTED),
    (0, b"<", "a web page (a failed download?)", KERNEL_WANTED),
];

/// The error for an image of no known protocol.
fn stranger(image: &File<'_>) -> BootError {
    let data = &image.bytes;
    let name = image.name.clone();
    if let Some(&(_, format, tool)) = COMPRESSED.iter().find(|c| data.starts_with(c.0)) {
        return BootError::Compressed { name, format, tool };
    }
    let known = STRANGERS.iter().find(|s| slice(data, s.0, s.1.len() as u64) == Some(s.1));
    if let Some(&(_, _, found, remedy)) = known {
        return not_a_kernel(image, found, remedy);
    }
    if multiboot::has_v2_header(data) {
        let remedy = "build it with a Multiboot v1 header as well";
        return image.unsupported("is a Multiboot2 image, and only Multiboot v1 is known", remedy);
    }
    if data.starts_with(b"MZ") {
        return portable_executable(image);
    }
    if u16_at(data, 0x1fe) == Some(0xaa55) {
        return not_a_kernel(image, "a boot sector or raw disk image", DISK_WANTED);
    }
    let head: Vec<String> = data.iter().take(8).map(|b| format!("{b:02x}")).collect();
    not_a_kernel(
        image,
        &format!("of an unknown format (it begins with {})", head.join(" ")),
        KERNEL_WANTED,
    )
}

/// EFI applications without a Linux header: name their machine.
fn portable_executable(image: &File<'_>) -> BootError {
    let machine = u32_at(&image.bytes, 0x3c).and_then(|pe| u16_at(&image.bytes, u64::from(pe) + 4));
    let found = match machine {
        Some(0xaa64) => "arm64 (EFI)",
        Some(0x01c0 | 0x01c2 | 0x01c4) => "32-bit ARM (EFI)",
        Some(0x5064) => "RISC-V (EFI)",
        Some(0x6264 | 0x6232) => "LoongArch (EFI)",
        _ => return not_a_kernel(image, "an EFI or Windows program", KERNEL_WANTED),
    };
    BootError::WrongArchitecture { name: image.name.clone(), found: found.to_owned() }
}

fn not_a_kernel(image: &File<'_>, found: &str, remedy: &'static str) -> BootError {
    BootError::NotAKernel { name: image.name.clone(), found: found.to_owned(), remedy }
}
