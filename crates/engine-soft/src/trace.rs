//! `--trace cpu`: every instruction before it runs, disassembled, with the general registers.

use crate::core::Core;
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use x86::addr::{La, Width};
use x86::state::{Mode, Seg};

/// Writes one line for the instruction at RIP.
pub(crate) fn instruction(core: &mut Core) {
    let (bits, base) = match core.mode {
        Mode::Long64 => (64, 0),
        Mode::Protected32 => (32, core.state.seg[Seg::Cs as usize].base),
        _ => (16, core.state.seg[Seg::Cs as usize].base),
    };
    let la = base.wrapping_add(core.state.rip);
    let mut bytes = [0u8; 15];
    let mut len = 0;
    let privilege = core.privilege();
    for (i, byte) in bytes.iter_mut().enumerate() {
        match core.bus().load(La(la.wrapping_add(i as u64)), Width::B1, privilege) {
            Ok(value) => *byte = value as u8,
            Err(_) => break,
        }
        len = i + 1;
    }
    let mut decoder = Decoder::with_ip(bits, &bytes[..len], core.state.rip, DecoderOptions::NONE);
    let mut text = String::new();
    NasmFormatter::new().format(&decoder.decode(), &mut text);
    let g = &core.state.gpr;
    tracing::trace!(target: "cpu",
        "{:x}:{:016x} {text:40} a={:x} b={:x} c={:x} d={:x} si={:x} di={:x} bp={:x} sp={:x} \
         8={:x} 9={:x} 10={:x} 11={:x} 12={:x} 13={:x} 14={:x} 15={:x} f={:x}",
        core.state.seg[Seg::Cs as usize].selector, core.state.rip,
        g[0], g[3], g[1], g[2], g[6], g[7], g[5], g[4],
        g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15],
        core.state.flags.bits());
}
