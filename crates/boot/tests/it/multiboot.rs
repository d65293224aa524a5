//! Multiboot 0.6.96.

use crate::images::{elf32, elf64, multiboot_header, put};
use crate::{Boot, Guest};
use boot::{Protocol, VirtioMmio};
use x86::addr::{Gpa, Gsi};
use x86::regs::Cr0;
use x86::state::{Mode, Seg, gpr};

const AT: u32 = 0x10_0000;

fn elf_image(flags: u32) -> Vec<u8> {
    let mut body = multiboot_header(flags, &[]);
    body.resize(0x40, 0x90);
    elf32(AT + 0x10, AT, &body, 0x3000)
}

fn info(guest: &Guest) -> u64 {
    assert_eq!(guest.0.protocol, Protocol::Multiboot);
    assert_eq!(guest.0.cpu.gpr[gpr::RAX], 0x2bad_b002);
    guest.0.cpu.gpr[gpr::RBX]
}

#[test]
fn the_machine_state_is_section_3_2s() {
    let image = elf_image(3);
    let guest = Boot::new(&image).ok();
    let cpu = &guest.0.cpu;
    assert_eq!((cpu.mode(), cpu.rip), (Mode::Protected32, u64::from(AT) + 0x10));
    assert_eq!(cpu.paging.cr0 & (Cr0::PE | Cr0::PG), Cr0::PE);
    for seg in [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs] {
        let s = cpu.seg[seg as usize];
        assert_eq!((s.base, s.limit), (0, u32::MAX));
    }
}

#[test]
fn the_information_structure_tells_everything() {
    let image = elf_image(3);
    let mut boot = Boot::new(&image);
    boot.modules = vec![(b"first", "one two"), (b"second", "")];
    let guest = boot.ok();
    let at = info(&guest);
    let word = |o| u64::from(guest.u32(at + o));
    assert_eq!(word(0) & 0x24d, 0x24d);
    assert_eq!((word(4), word(8)), (0x9_fc00 / 1024, 255 * 1024));
    assert_eq!(guest.string(word(16)), "kernel.img console=ttyS0");
    assert_eq!(guest.string(word(64)), "gemello");
    let list = word(24);
    assert_eq!(word(20), 2);
    let module = |n: u64| [0, 4, 8].map(|o| u64::from(guest.u32(list + 16 * n + o)));
    let (first, second) = (module(0), module(1));
    assert_eq!((guest.bytes(first[0]), guest.bytes(second[0])), (*b"first", *b"second"));
    assert_eq!((first[1] - first[0], second[1] - second[0]), (5, 6));
    assert_eq!((first[0] % 4096, second[0] % 4096), (0, 0));
    assert!(first[0] >= u64::from(AT) + 0x3000);
    assert_eq!(
        (guest.string(first[2]), guest.string(second[2])),
        ("mod one two".into(), "mod".into())
    );
    let (mut entry, end) = (word(48), word(48) + word(44));
    let mut seen = 0;
    while entry < end {
        assert_eq!(guest.u64(entry + 4), (guest.0.e820[seen].gpa).0);
        entry += u64::from(guest.u32(entry)) + 4;
        seen += 1;
    }
    assert_eq!((entry, seen), (end, guest.0.e820.len()));
}

#[test]
fn an_elf64_image_with_a_header_is_multiboot() {
    let mut body = multiboot_header(0, &[]);
    body.resize(64, 0);
    let image = elf64(AT.into(), &[(AT.into(), &body, 64)], None);
    info(&Boot::new(&image).ok());
}

#[test]
fn the_address_fields_load_any_format() {
    let (load, header) = (0x20_0000u32, 0x20_0010u32);
    let fields = [header, load, load + 0x40, load + 0x1000, load + 0x30];
    let mut image = vec![0xcc; 0x110];
    put(&mut image, 0x20, &multiboot_header(1 << 16, &fields));
    let guest = Boot::new(&image).ok();
    info(&guest);
    // The header is at 20H in the file and 10H in memory: what comes before 10H is not loaded.
    assert_eq!(guest.piece("kernel").bytes, image[0x10..0x50]);
    assert_eq!(guest.0.cpu.rip, u64::from(load) + 0x30);
    put(&mut image, 0x20, &multiboot_header(1 << 16, &[header, header + 4, 0, 0, 0]));
    assert!(Boot::new(&image).error().contains("corrupt"));
    put(&mut image, 0x20, &multiboot_header(1 << 16, &[header, load, load + 0x1000, 0, load]));
    assert!(Boot::new(&image).error().contains("truncated"));
}

#[test]
fn a_header_counts_only_in_the_first_8_kib_and_with_its_checksum() {
    let fields = [0x10_1ff4, 0x10_0000, 0, 0, 0x10_0000];
    let mut image = vec![0; 0x3000];
    put(&mut image, 0x1ff4, &multiboot_header(1 << 16, &fields));
    info(&Boot::new(&image).ok());
    image[0x1ffc] ^= 1;
    assert!(Boot::new(&image).error().contains("unknown format"));
    let mut late = vec![0; 0x3000];
    put(&mut late, 0x1ff8, &multiboot_header(1 << 16, &fields));
    Boot::new(&late).error();
}

#[test]
fn what_cannot_be_offered_is_refused() {
    assert!(Boot::new(&elf_image(1 << 4)).error().contains("0x10"));
    let error = Boot { initrd: Some(b"x"), ..Boot::new(&elf_image(0)) }.error();
    assert!(error.contains("`modules`"), "{error}");
}

#[test]
fn virtio_devices_are_named_on_the_command_line() {
    let image = elf_image(3);
    let mut boot = Boot::new(&image);
    let device =
        |n: u32| VirtioMmio { address: Gpa(0xfeb0_0000 + (u64::from(n) << 12)), gsi: Gsi(16 + n) };
    boot.acpi.virtio = vec![device(0), device(1)];
    let line = |boot: &Boot<'_>| {
        let guest = boot.ok();
        guest.string(guest.u32(info(&guest) + 16).into())
    };
    let devices = "virtio_mmio.device=4K@0xfeb00000:16 virtio_mmio.device=4K@0xfeb01000:17";
    assert_eq!(line(&boot), format!("kernel.img console=ttyS0 {devices}"));
    boot.cmdline = "";
    assert_eq!(line(&boot), format!("kernel.img {devices}"));
}
