//! The Linux boot protocol (Documentation/arch/x86/boot.rst).

use crate::images::{PAYLOAD, bzimage, put};
use crate::{Boot, Guest};
use boot::Run;
use boot::{E820Type, Protocol, layout};
use x86::addr::Gpa;
use x86::regs::{Cr0, Rflags};
use x86::state::{Mode, Seg, gpr};

fn params(guest: &Guest) -> u64 {
    assert_eq!(guest.0.cpu.gpr[gpr::RSI], layout::BOOT_PARAMS.0);
    layout::BOOT_PARAMS.0
}

#[test]
fn the_64_bit_entry_is_taken_200h_above_the_preferred_address() {
    let guest = Boot::new(&bzimage()).ok();
    let cpu = &guest.0.cpu;
    assert_eq!(guest.0.protocol, Protocol::Linux64);
    assert_eq!(guest.bytes(0x100_0000), PAYLOAD);
    assert_eq!(cpu.rip, 0x100_0200);
    assert_eq!(cpu.mode(), Mode::Long64);
    assert!(!cpu.flags.has(Rflags::IF));
    assert_eq!(
        (cpu.seg[Seg::Cs as usize].selector, cpu.seg[Seg::Ss as usize].selector),
        (0x10, 0x18)
    );
}

#[test]
fn boot_params_hold_the_header_the_map_and_the_pointers() {
    let guest = Boot { cmdline: "quiet", ..Boot::new(&bzimage()) }.ok();
    let zero_page = params(&guest);
    assert_eq!(guest.bytes(zero_page + 0x202), *b"HdrS");
    assert_eq!(guest.u32(zero_page + 0x214), 0x100_0000);
    assert_eq!(guest.u8(zero_page + 0x210), 0xff);
    assert_eq!(guest.string(guest.u32(zero_page + 0x228).into()), "quiet");
    assert_eq!(guest.bytes(guest.u64(zero_page + 0x70)), *b"RSD PTR ");
    let entries = guest.u8(zero_page + 0x1e8);
    assert_eq!(usize::from(entries), guest.0.e820.len());
    for (n, entry) in guest.0.e820.iter().enumerate() {
        let at = zero_page + 0x2d0 + 20 * n as u64;
        let read = (guest.u64(at), guest.u64(at + 8), guest.u32(at + 16));
        assert_eq!(read, (entry.gpa.0, entry.len, entry.kind as u32));
    }
    assert!(guest.0.e820.iter().any(|e| e.kind == E820Type::Ram && e.gpa == Gpa(1 << 32)));
}

#[test]
fn the_initrd_goes_as_high_as_the_kernel_allows() {
    let mut image = bzimage();
    let initrd = vec![7; 0x1801];
    let top = |image: &[u8]| {
        let guest = Boot { initrd: Some(&initrd), ..Boot::new(image) }.ok();
        let zero_page = params(&guest);
        let low_high = |low, high| {
            u64::from(guest.u32(zero_page + low)) | u64::from(guest.u32(zero_page + high)) << 32
        };
        assert_eq!(low_high(0x21c, 0xc4), 0x1801);
        assert_eq!(guest.piece("initrd").gpa, Gpa(low_high(0x218, 0xc0)));
        low_high(0x218, 0xc0)
    };
    assert_eq!(top(&image), (1 << 32) + (64 << 20) - 0x2000); // XLF_CAN_BE_LOADED_ABOVE_4G
    put(&mut image, 0x236, &1u16.to_le_bytes());
    assert_eq!(top(&image), (256 << 20) - 0x2000);
    put(&mut image, 0x22c, &0x37f_ffffu32.to_le_bytes());
    assert_eq!(top(&image), 0x380_0000 - 0x2000);
}

#[test]
fn the_initrd_never_lies_in_the_kernels_init_size() {
    let mut image = bzimage();
    put(&mut image, 0x22c, &0x17f_ffffu32.to_le_bytes()); // ends exactly where init_size does
    put(&mut image, 0x236, &1u16.to_le_bytes());
    let guest = Boot { initrd: Some(&[1; 100]), ..Boot::new(&image) }.ok();
    assert_eq!(guest.piece("initrd").gpa, Gpa(0x100_0000 - 0x1000));
}

#[test]
fn a_relocatable_kernel_moves_up_where_its_place_is_not_free() {
    let mut image = bzimage();
    let hole: &[Run] = &[(Gpa(0), 16 << 20), (Gpa(33 << 20), 64 << 20)]; // none at 16 MiB
    let guest = Boot { ram: hole, ..Boot::new(&image) }.ok();
    assert_eq!(guest.0.cpu.rip, 0x220_0200); // 34 MiB, the first multiple of 2 MiB
    put(&mut image, 0x258, &0x110_0000u64.to_le_bytes()); // 17 MiB is no such multiple
    assert_eq!(Boot::new(&image).ok().0.cpu.rip, 0x120_0200);
    put(&mut image, 0x234, &[0]);
    assert_eq!(Boot::new(&image).ok().0.cpu.rip, 0x110_0200);
    let error = Boot { ram: hole, ..Boot::new(&image) }.error();
    assert!(error.contains("kernel.img") && error.contains("`memory`"), "{error}");
}

/// `init_size` bytes are needed from where the kernel runs, which is never below `pref_address`,
/// wherever it is loaded.
#[test]
fn a_memory_that_cannot_hold_the_running_kernel_is_refused_at_every_size() {
    for relocatable in [0, 1] {
        let mut image = bzimage();
        put(&mut image, 0x234, &[relocatable]);
        put(&mut image, 0x260, &(52_u32 << 20).to_le_bytes());
        for mib in 1..=200_u64 {
            let ram: &[Run] = &[(Gpa(0), mib << 20)];
            if mib >= 16 + 52 {
                let guest = Boot { ram, ..Boot::new(&image) }.ok();
                assert_eq!(guest.0.cpu.rip, 0x100_0200, "{mib} MiB");
                continue;
            }
            let error = Boot { ram, ..Boot::new(&image) }.error();
            let pieces = ["needs 52M at 0x1000000", "set `memory` to at least 76M"];
            assert!(pieces.iter().all(|piece| error.contains(piece)), "{mib} MiB: {error}");
        }
    }
}

#[test]
fn without_a_64_bit_entry_the_32_bit_protocol_is_followed() {
    let mut image = bzimage();
    put(&mut image, 0x236, &0u16.to_le_bytes());
    let guest = Boot::new(&image).ok();
    let cpu = &guest.0.cpu;
    params(&guest);
    assert_eq!(guest.0.protocol, Protocol::Linux32);
    assert_eq!((cpu.mode(), cpu.rip), (Mode::Protected32, 0x100_0000));
    assert!(!cpu.paging.cr0.contains(Cr0::PG));
    assert_eq!([gpr::RBP, gpr::RDI, gpr::RBX].map(|r| cpu.gpr[r]), [0; 3]);
    let cs = cpu.seg[Seg::Cs as usize];
    assert_eq!((cs.base, cs.limit, cs.selector), (0, u32::MAX, 0x10));
    assert_eq!(guest.u64(cpu.gdtr.base + 0x10), 0x00cf_9b00_0000_ffff);
}

#[test]
fn before_2_10_the_kernel_lies_at_its_code32_start() {
    let mut image = bzimage();
    put(&mut image, 0x206, &0x206u16.to_le_bytes());
    let guest = Boot::new(&image).ok();
    assert_eq!((guest.0.protocol, guest.0.cpu.rip), (Protocol::Linux32, 0x10_0000));
}

#[test]
fn bad_headers_are_named() {
    let broken = |at: usize, bytes: &[u8]| {
        let mut image = bzimage();
        put(&mut image, at, bytes);
        Boot::new(&image).error()
    };
    assert!(broken(0x206, &[5, 2]).contains("2.05"));
    assert!(broken(0x211, &[0]).contains("zImage"));
    assert!(broken(0x230, &[1]).contains("power of two"));
    assert!(broken(0x1fe, &[0]).contains("AA55H"));
    assert!(broken(0x260, &0x7fff_ffffu32.to_le_bytes()).contains("`memory`"));
}

#[test]
fn a_truncated_kernel_is_found_at_every_length() {
    let image = bzimage();
    for len in (1..image.len() - 16).step_by(37) {
        Boot::new(&image[..len]).error();
    }
    assert!(Boot::new(&image[..2000]).error().contains("truncated"));
}

#[test]
fn the_command_line_is_bounded_by_the_kernel() {
    let image = bzimage();
    let fits = "x".repeat(2047);
    Boot { cmdline: &fits, ..Boot::new(&image) }.ok();
    let error = Boot { cmdline: &(fits + "x"), ..Boot::new(&image) }.error();
    assert!(error.contains("2048") && error.contains("2047"), "{error}");
    assert!(Boot { cmdline: "a\0b", ..Boot::new(&image) }.error().contains("zero byte"));
}

#[test]
fn a_large_initrd_names_the_memory_it_needs() {
    let initrd = vec![0; 60 << 20];
    let small: &[Run] = &[(Gpa(0), 64 << 20)];
    let error = Boot { initrd: Some(&initrd), ram: small, ..Boot::new(&bzimage()) }.error();
    assert!(error.contains("initrd.img") && error.contains("`memory`"), "{error}");
    let need = error.split("at least ").nth(1).and_then(|s| s.split('M').next()).unwrap();
    let enough = [(Gpa(0), need.parse::<u64>().unwrap() << 20)];
    Boot { initrd: Some(&initrd), ram: &enough, ..Boot::new(&bzimage()) }.ok();
}
