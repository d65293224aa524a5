//! Small guests: a Multiboot kernel, and how it starts the other processors.

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use machine::{BootConfig, File, layout};

/// Where the kernel is; its code follows the header.
pub const KERNEL: u64 = 0x10_0000;
pub const CODE: u64 = KERNEL + 32;
/// Where the start-up IPI begins.
pub const START: u64 = 0x8000;
/// The local APIC (SDM vol. 3, table 12-1).
pub const SVR: u32 = layout::LAPIC.0 as u32 + 0xF0;
pub const ICR_LOW: u32 = layout::LAPIC.0 as u32 + 0x300;
pub const ICR_HIGH: u32 = layout::LAPIC.0 as u32 + 0x310;
/// ICR: to all but the sender; INIT, asserted; start-up at [`START`].
const OTHERS: u32 = 3 << 18;
pub const INIT: u32 = OTHERS | 5 << 8 | 1 << 14;
pub const START_UP: u32 = OTHERS | 6 << 8 | 1 << 14 | (START >> 12) as u32;
/// The port that ends the run, and what is said there when all went well.
pub const DEBUG_EXIT: u32 = 0xF4;
pub const DONE: u32 = 0x55;

pub type Written = Result<(), IcedError>;

pub fn assemble(bits: u32, at: u64, write: impl FnOnce(&mut CodeAssembler) -> Written) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).expect("16, 32 or 64 bits");
    write(&mut a).and_then(|()| a.assemble(at)).expect("it assembles")
}

/// A Multiboot kernel of `code`, which follows its header (Multiboot 0.6.96, 3.1.3).
pub fn kernel(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    const FLAGS: u32 = 1 << 16;
    let checksum = 0_u32.wrapping_sub(MAGIC).wrapping_sub(FLAGS);
    let (at, end) = (KERNEL as u32, CODE as u32 + code.len() as u32);
    let words = [MAGIC, FLAGS, checksum, at, at, end, end, CODE as u32];
    let header = words.iter().flat_map(|word| word.to_le_bytes());
    header.chain(code.iter().copied()).collect()
}

/// Boots `image` without a command line.
pub fn boot(image: Vec<u8>) -> BootConfig {
    let kernel = File::Bytes { name: "test kernel".into(), bytes: image.into() };
    BootConfig { kernel, initrd: None, cmdline: String::new(), modules: vec![] }
}
