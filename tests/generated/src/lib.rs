//! Generated guests: any bytes as a processor's state, tables and code ([`run`]), and code for
//! translators that both tiers must run alike ([`twins`]).
//!
//! Nothing that a guest can set up may panic the engine, hang it beyond its slice, or make it touch
//! host memory that is not the guest's. `scene` builds the guest from the bytes, in any mode, under
//! page tables of which a part is arbitrary; every exception leads on into arbitrary code.

#![forbid(unsafe_code)]

mod blocks;
mod code;
mod scene;
mod twins;

pub use twins::{disturbed, paged, sabotaged, twins};
use x86::addr::{Gpa, Port, PortWidth, Vector, Width};

use engine_soft::{SoftVcpu, Tier};
use memory::GuestRam;
use std::sync::Arc;
use test_support::Rng;
use vcpu::{CpuIo, Elements, Exit, MsrFault, Signal, Signals, Slice, Vcpu};
use x86::cpuid::CpuModel;
use x86::regs::{Cr0, Efer};
use x86::state::{CpuState, gpr};

/// Instructions of one run.
const INSTRUCTIONS: u64 = 10_000;
/// Bytes of translated code.
const CODE_CACHE: usize = 1 << 16;
/// Times that a run goes on after an exit.
const EXITS: usize = 200;

/// Bytes, and zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn u64(&mut self) -> u64 {
        (0..8).fold(0, |value, n| value | u64::from(self.u8()) << (8 * n))
    }
}

/// A machine that answers anything, and interrupts now and then.
struct Anything {
    random: Rng,
    signals: Arc<Signals>,
}

impl Anything {
    /// A number of `size` bytes.
    fn answer(&mut self, size: u8) -> u64 {
        if self.random.one_in(16) {
            let signals = [Signal::Intr, Signal::Nmi, Signal::Kick];
            self.signals.raise(signals[self.random.below(3) as usize]);
        }
        self.random.next() >> (64 - 8 * u32::from(size))
    }
}

impl CpuIo for Anything {
    fn pio_read(&mut self, _: Port, size: PortWidth) -> u32 {
        self.answer(u8::from(size)) as u32
    }
    fn pio_write(&mut self, _: Port, size: PortWidth, _: u32) {
        self.answer(u8::from(size));
    }
    fn mmio_read(&mut self, _: Gpa, size: Width) -> u64 {
        self.answer(u8::from(size))
    }
    fn mmio_write(&mut self, _: Gpa, size: Width, _: u64) {
        self.answer(u8::from(size));
    }
    fn msr_read(&mut self, msr: u32) -> Option<Result<u64, MsrFault>> {
        matches!(msr, 0x1b | 0x800..=0x8ff).then(|| Ok(self.answer(8)))
    }
    fn msr_write(&mut self, msr: u32, _: u64) -> Option<Result<(), MsrFault>> {
        let mine = matches!(msr, 0x1b | 0x800..=0x8ff);
        mine.then(|| if self.random.one_in(2) { Ok(()) } else { Err(MsrFault) })
    }
    fn ack_interrupt(&mut self) -> Option<Vector> {
        self.signals.clear(Signal::Intr);
        (!self.random.one_in(8)).then(|| Vector(self.random.next() as u8))
    }
    fn task_priority(&mut self) -> u8 {
        self.random.next() as u8 & 15
    }
    fn set_task_priority(&mut self, _: u8) {}
}

/// Runs the guest that `data` describes, for a bounded number of instructions.
///
/// # Panics
/// If the engine breaks a promise: it fails by itself, or leaves a state that no processor can be
/// in.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mode = bytes.u8();
    let mut random = Rng::new(bytes.u64());
    let ram = GuestRam::new(scene::RAM).expect("a megabyte of memory");
    let model = CpuModel::parse("gemello-v3,+smap,+pku").expect("a known model");
    let state = scene::build(&ram, &model, mode, &mut random, &mut bytes);
    // A code cache of little room, so that it runs over.
    let tier = if mode & 0x40 == 0 { Tier::Interpret } else { Tier::Translate };
    let mut vcpu = SoftVcpu::with_tier(ram, model, tier, CODE_CACHE).expect("an engine");
    vcpu.translate_at_once();
    vcpu.set(Elements::all(), &state).expect("a state");
    let mut io = Anything { random, signals: vcpu.signals() };
    go(&mut vcpu, &mut io);
}

fn go(vcpu: &mut SoftVcpu, io: &mut Anything) {
    for _ in 0..EXITS {
        let spent = vcpu.statistics().instructions;
        let left = INSTRUCTIONS.saturating_sub(spent);
        // Odd slices end blocks in their middle.
        let instructions = if io.random.one_in(4) { io.random.below(8) + 1 } else { left };
        let exit = vcpu.run(io, Slice { instructions: instructions.min(left) });
        check(vcpu.state_now());
        match exit {
            Exit::SliceOver if left <= 8 => return,
            Exit::SliceOver | Exit::Kicked(_) => {}
            Exit::Halted(_) => {
                let wake = if io.random.one_in(3) { Signal::Nmi } else { Signal::Intr };
                io.signals.raise(wake);
            }
            Exit::Shutdown | Exit::Reset => return,
            Exit::Absent(page) => panic!("{page:#x} is absent, of memory without a pager"),
            Exit::Fatal(why) => panic!("the engine gave up: {why}"),
        }
        if io.random.one_in(16) {
            let state = vcpu.state_now().clone();
            vcpu.set(Elements::all(), &state).expect("a state");
        }
    }
}

/// What holds between any two instructions on any processor.
fn check(state: &CpuState) {
    let paging = &state.paging;
    let (on, active) = (paging.cr0.contains(Cr0::PG), paging.efer.contains(Efer::LMA));
    assert!(!on || paging.cr0.contains(Cr0::PE), "paging without protection");
    assert_eq!(active, on && paging.efer.contains(Efer::LME), "IA-32e mode");
    assert!(state.cpl <= 3 && state.gpr[gpr::ZERO] == 0 && state.xcr0 & 1 != 0);
    assert!(state.long_mode() || state.rip >> 32 == 0, "RIP outside IA-32e mode: {state:#x?}");
}
