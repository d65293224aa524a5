//! What is no kernel is called by its name, with the remedy.

use crate::Boot;
use crate::images::put;
use boot::{AcpiConfig, Request, Source, plan};
use std::path::Path;
use x86::addr::Gpa;

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x9000];
    put(&mut image, at, bytes);
    image
}

#[test]
fn every_stranger_is_recognized() {
    let cases: &[(usize, &[u8], &str)] = &[
        (0, &[0x1f, 0x8b, 8], "gzip"),
        (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], "compressed with xz"),
        (0, &[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd"),
        (0, b"070701", "`initrd`"),
        (0, b"QFI\xfb", "qcow2"),
        (0x8001, b"CD001", "ISO 9660"),
        (0x38, b"ARM\x64", "arm64"),
        (0x38, b"RSC\x05", "RISC-V"),
        (0x1fe, &[0x55, 0xaa], "disk image"),
        (0, b"MZ", "EFI or Windows"),
        (0, b"#!/bin/sh", "script"),
        (0x40, &[0xd6, 0x50, 0x52, 0xe8], "Multiboot2"),
        (0, &[0xaa, 0xbb], "aa bb 00"),
    ];
    for &(at, bytes, want) in cases {
        let error = Boot::new(&with(at, bytes)).error();
        assert!(error.contains("kernel.img") && error.contains(want), "{want}: {error}");
    }
}

fn request<'a>(image: Source<'a>, acpi: &'a AcpiConfig) -> Request<'a> {
    Request { image, initrd: None, cmdline: "", modules: &[], ram: crate::RAM, acpi }
}

#[test]
fn missing_and_empty_files_are_named() {
    let acpi = AcpiConfig::example();
    let missing =
        plan(&request(Source::Path(Path::new("/nonexistent/vmlinuz")), &acpi)).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/vmlinuz"), "{missing}");
    let directory = plan(&request(Source::Path(Path::new("/")), &acpi)).unwrap_err();
    assert!(directory.to_string().contains("cannot read kernel image /"), "{directory}");
    let device = plan(&request(Source::Path(Path::new("/dev/zero")), &acpi)).unwrap_err();
    let cause = std::error::Error::source(&device).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("it is a device, not a file"));
    let empty = plan(&request(Source::Bytes { name: "e.img", bytes: &[] }, &acpi)).unwrap_err();
    assert!(empty.to_string().contains("e.img is empty"), "{empty}");
}

#[test]
fn an_arm64_efi_program_is_of_another_architecture() {
    let mut image = with(0, b"MZ");
    put(&mut image, 0x3c, &[0x80]);
    put(&mut image, 0x80, &[b'P', b'E', 0, 0, 0x64, 0xaa]);
    assert!(Boot::new(&image).error().contains("arm64 (EFI)"));
}

#[test]
fn a_machine_too_small_for_the_tables_says_so() {
    let error = Boot { ram: &[(Gpa(0), 0x1000)], ..Boot::new(&crate::images::bzimage()) }.error();
    assert!(error.contains("`memory`"), "{error}");
    Boot { ram: &[], ..Boot::new(&crate::images::bzimage()) }.error();
}
