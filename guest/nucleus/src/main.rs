//! The nucleus: a small multiprogrammed operating system for x86-64.
//!
//! README.md says where each concept is. This file is the bootstrap: what is set up, in which
//! order.
#![no_std]
#![no_main]

extern crate alloc;

#[macro_use]
mod console;
mod acpi;
mod apic;
mod boot_info;
mod clock;
mod cpu;
mod demo;
mod elf;
mod entry;
mod exception;
mod frames;
mod heap;
mod kernel;
mod line;
mod memory;
mod paging;
mod physical;
mod power;
mod process;
mod programs;
mod sched;
mod semaphore;
mod shell;
mod swap;
mod syscall;
mod tables;
mod tests;
mod unwind;
mod views;
mod virtio_blk;

use alloc::string::String;
use boot_info::BootInfo;
use cpu::Features;
use frames::Frames;
use kernel::Kernel;

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));
core::arch::global_asm!(include_str!("entry.s"), options(att_syntax));

/// Memory above this is left alone.
const RAM_MAX: u64 = 64 << 30;

/// boot.s comes here: 64-bit mode, the first 4 GiB mapped, this stack, nothing else.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(magic: u32, boot_info: u32) -> ! {
    let first = cpu::rdtsc();
    console::start();
    let info = BootInfo::read(magic, boot_info.into());
    let acpi = acpi::Acpi::read(info.rsdp);
    let features = Features::enable();
    tables::start();
    entry::use_xsave(features.xsave);

    let top = info.memory.last().map_or(0, |range| range.1).min(RAM_MAX);
    let mut frames = Frames::new(&info.memory, paging::image_end_physical(), top);
    let root = paging::kernel_root(&mut frames, top);
    cpu::set_cr3(root.0);

    let clock_source = clock::start(first);
    apic::start();

    let mut kernel = Kernel::new(info, features, frames, root);
    kernel.soft_off = acpi.soft_off;
    kernel.power_button = acpi.power_button;
    acpi.power_button.into_iter().for_each(power::listen);
    let disk = find_disk(&mut kernel, &acpi);
    kernel.boot_time = clock::microseconds();
    banner(&kernel, clock_source, disk);
    if let Some(frames) = kernel.info.word("frames").and_then(|n| n.parse().ok()) {
        kernel.frames.set_limit(Some(frames));
    }
    if let Some(how) = kernel.info.word("crash") {
        crash(how == "stack");
    }
    if let Some(name) = kernel.info.word("test").map(String::from) {
        tests::main(&mut kernel, &name);
    }
    if kernel.info.word("demo").is_some() {
        demo::run(&mut kernel);
        power::off(acpi.soft_off);
    }
    kernel.console_input();
    println!("Type help for the commands, demo for a guided tour.");
    shell::main(&mut kernel, acpi.soft_off)
}

/// Fails on purpose, to show the report: by reading where nothing is, or by using up the stack.
#[allow(unconditional_recursion)]
fn crash(stack: bool) {
    if !stack {
        cpu::probe(paging::stack_guard());
    }
    let room = core::hint::black_box([0u8; 4096]);
    crash(core::hint::black_box(true));
    core::hint::black_box(room);
}

/// `~` stands before what differs between machines (demo.rs).
fn banner(k: &Kernel, clock_source: &str, disk: Option<u64>) {
    println!("nucleus: ready after ~{} us, ~{} MiB free", k.boot_time, k.frames.free() / 256);
    let source = clock_source.replace(' ', "-");
    println!(
        "clock: ~{} Hz (~{source}) LAPIC timer ~{} Hz",
        clock::frequency(),
        apic::timer_frequency()
    );
    print!("processor has: ~");
    let f = k.features;
    let all = [
        ("SMEP", f.smep),
        ("SMAP", f.smap),
        ("UMIP", f.umip),
        ("FSGSBASE", f.fsgsbase),
        ("XSAVE", f.xsave),
        ("AVX", f.avx),
    ];
    for (name, has) in all {
        print!("{}", if has { alloc::format!("{name},") } else { String::new() });
    }
    println!();
    match disk {
        Some(place) => {
            println!("swap disk: virtio-blk at ~{place:#x} with ~{} slots", k.swap.total());
        }
        None => println!("swap disk: none (gemello: --disk FILE)"),
    }
}

/// The first block device among those that ACPI or the command line
/// (`virtio_mmio.device=SIZE@ADDRESS:IRQ`) announces.
fn find_disk(kernel: &mut Kernel, acpi: &acpi::Acpi) -> Option<u64> {
    let announced = kernel.info.words("virtio_mmio.device").filter_map(|device| {
        let address = device.split(['@', ':']).nth(1)?;
        u64::from_str_radix(address.trim_start_matches("0x"), 16).ok()
    });
    let mut places: alloc::vec::Vec<u64> = acpi.virtio.iter().copied().chain(announced).collect();
    places.retain(|place| place % 4 == 0 && *place < 1 << 32);
    let frames = &mut kernel.frames;
    let (place, disk) = places
        .into_iter()
        .find_map(|place| Some((place, virtio_blk::Disk::start(place, frames)?)))?;
    kernel.swap.attach(disk);
    Some(place)
}
