//! vmlinux and PVH.

use crate::Boot;
use crate::images::{elf32, elf64, put};
use boot::{Protocol, layout};
use x86::state::{Mode, gpr};

const MIB: u64 = 1 << 20;

#[test]
fn vmlinux_is_entered_in_long_mode_with_boot_params() {
    let image = elf64(16 * MIB + 2, &[(16 * MIB, &[1, 2, 3], 0x1000), (20 * MIB, &[4], 1)], None);
    let guest = Boot { initrd: Some(b"initrd"), ..Boot::new(&image) }.ok();
    let cpu = &guest.0.cpu;
    assert_eq!(guest.0.protocol, Protocol::LinuxElf64);
    assert_eq!((cpu.mode(), cpu.rip), (Mode::Long64, 16 * MIB + 2));
    assert_eq!(cpu.gpr[gpr::RSI], layout::BOOT_PARAMS.0);
    assert_eq!((guest.bytes(16 * MIB), guest.bytes(20 * MIB)), ([1, 2, 3], [4]));
    assert_eq!(guest.u32(layout::BOOT_PARAMS.0 + 0x21c), 6);
    assert_eq!(guest.bytes(layout::BOOT_PARAMS.0 + 0x202), *b"HdrS");
}

#[test]
fn a_virtual_entry_point_is_made_physical() {
    let image = elf64(0xffff_ffff_8100_0010, &[(16 * MIB, &[0; 32], 32)], None);
    assert_eq!(Boot::new(&image).ok().0.cpu.rip, 16 * MIB + 0x10);
}

#[test]
fn the_pvh_note_is_preferred() {
    let image = elf64(16 * MIB, &[(16 * MIB, &[0; 64], 64)], Some(16 * MIB + 8));
    let mut boot = Boot { initrd: Some(b"initrd"), ..Boot::new(&image) };
    boot.modules = vec![(b"module", "with args"), (b"m2", "")];
    let guest = boot.ok();
    let cpu = &guest.0.cpu;
    assert_eq!(guest.0.protocol, Protocol::Pvh);
    assert_eq!((cpu.mode(), cpu.rip), (Mode::Protected32, 16 * MIB + 8));
    let info = cpu.gpr[gpr::RBX];
    assert_eq!((guest.u32(info), guest.u32(info + 4), guest.u32(info + 12)), (0x336e_c578, 1, 3));
    assert_eq!(guest.string(guest.u64(info + 24)), "console=ttyS0");
    assert_eq!(guest.bytes(guest.u64(info + 32)), *b"RSD PTR ");
    let list = guest.u64(info + 16);
    assert_eq!(guest.bytes(guest.u64(list)), *b"initrd");
    assert_eq!((guest.u64(list + 8), guest.u64(list + 16)), (6, 0));
    assert_eq!(guest.bytes(guest.u64(list + 32)), *b"module");
    assert_eq!(guest.string(guest.u64(list + 32 + 16)), "with args");
    assert_eq!(guest.bytes(guest.u64(list + 64)), *b"m2");
    let map = guest.u64(info + 40);
    assert_eq!(guest.u32(info + 48) as usize, guest.0.e820.len());
    for (n, entry) in guest.0.e820.iter().enumerate() {
        let at = map + 24 * n as u64;
        assert_eq!(
            (guest.u64(at), guest.u64(at + 8), guest.u32(at + 16)),
            (entry.gpa.0, entry.len, entry.kind as u32)
        );
    }
}

#[test]
fn damaged_elf_files_are_named() {
    let good = elf64(16 * MIB, &[(16 * MIB, &[0; 64], 64)], None);
    let broken = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        put(&mut image, at, bytes);
        Boot::new(&image).error()
    };
    assert!(broken(0x12, &[183]).contains("arm64"));
    assert!(broken(0x12, &[243]).contains("RISC-V"));
    assert!(broken(0x10, &[1]).contains("object file"));
    assert!(broken(0x18, &[0; 8]).contains("entry point"));
    assert!(broken(0x40, &[3]).contains("no segment"));
    assert!(broken(64 + 32, &[0xff; 8]).contains("corrupt"));
    assert!(broken(64 + 32, &[0, 1]).contains("truncated"));
    assert!(broken(64 + 40, &[1, 0]).contains("larger in the file"));
    assert!(broken(0x18 + 2, &[0xff]).contains("0x1ff0000"));
    assert!(Boot::new(&good[..100]).error().contains("truncated"));
    let low = elf64(0x400, &[(0x400, &[0; 64], 64)], None);
    assert!(Boot::new(&low).error().contains("asks to be loaded at 0x400"));
}

#[test]
fn programs_are_not_kernels() {
    let mut image = elf64(16 * MIB, &[(16 * MIB, &[0; 64], 64), (17 * MIB, &[0; 8], 8)], None);
    put(&mut image, 64 + 56, &[3]);
    assert!(Boot::new(&image).error().contains("a program"));
    let image = elf32(0x10_0000, 0x10_0000, &[0; 8], 8);
    assert!(Boot::new(&image).error().contains("32-bit ELF"));
}

#[test]
fn beyond_memory_names_how_much_is_needed() {
    let image = elf64(512 * MIB, &[(512 * MIB, &[0; 64], 64)], None);
    let error = Boot::new(&image).error();
    assert!(error.contains("320M of RAM") && error.contains("at least 521M"), "{error}");
}
