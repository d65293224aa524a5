//! A machine with a scripted processor: each step plays what an engine would do between two exits.

#![allow(dead_code, missing_docs, unreachable_pub)] // each test uses a part

pub mod guest;

use machine::console::{Input, Line};
use machine::{Config, End, Lines, Machine, Transport};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vcpu::{
    Capabilities, CpuIo, Elements, Engine, EngineError, EngineVm, Exit, Signal, SignalSet, Signals,
    Slice, StateError, Statistics, Unavailable, Vcpu, VmParts,
};
use x86::addr::VcpuId;
use x86::cpuid::CpuModel;
use x86::state::CpuState;

/// What one step may touch.
pub struct Guest<'a> {
    pub io: &'a mut dyn CpuIo,
    pub state: &'a mut CpuState,
    pub signals: &'a Arc<Signals>,
    /// How often the machine had the processor drop its translations of addresses.
    pub flushes: u32,
}

pub type Step = Box<dyn FnMut(&mut Guest<'_>) -> Exit + Send>;

/// A processor that plays a script, and halts with interrupts on when it has come to its end.
struct Scripted {
    state: CpuState,
    signals: Arc<Signals>,
    script: VecDeque<Step>,
    flushes: u32,
}

impl Vcpu for Scripted {
    fn run(&mut self, io: &mut dyn CpuIo, _slice: Slice) -> Exit {
        let leaves = [Signal::Kick, Signal::Unhalt, Signal::Arrival];
        if leaves.into_iter().any(|signal| self.signals.is_raised(signal)) {
            return Exit::Kicked(self.signals.take_kicks());
        }
        let (signals, flushes) = (&self.signals, self.flushes);
        let mut guest = Guest { io, state: &mut self.state, signals, flushes };
        match self.script.pop_front() {
            Some(mut step) => step(&mut guest),
            None => halt(&mut guest),
        }
    }

    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError> {
        state.assign(elements, &self.state);
        Ok(())
    }

    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError> {
        self.flushes += u32::from(elements == Elements::CONTROL);
        self.state.assign(elements, state);
        Ok(())
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.state.tsc_offset = offset;
    }

    fn signals(&self) -> Arc<Signals> {
        Arc::clone(&self.signals)
    }

    fn statistics(&self) -> Statistics {
        Statistics { instructions: 42, ..Statistics::default() }
    }
}

/// HLT with interrupts on.
pub fn halt(guest: &mut Guest<'_>) -> Exit {
    guest.state.flags.set(x86::regs::Rflags::IF, true);
    Exit::Halted(SignalSet::waking(guest.state))
}

/// An engine with one processor, which plays a script.
pub struct Script(Mutex<VecDeque<Step>>);

impl Engine for Script {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn probe(&self) -> Result<Capabilities, Unavailable> {
        Ok(Capabilities::default())
    }

    fn create_vm(&self, _: VmParts) -> Result<Box<dyn EngineVm>, EngineError> {
        let script = std::mem::take(&mut *self.0.lock().expect("not poisoned"));
        Ok(Box::new(Script(Mutex::new(script))))
    }
}

impl EngineVm for Script {
    fn add_vcpu(&self, _: VcpuId) -> Result<Box<dyn Vcpu>, EngineError> {
        let script = std::mem::take(&mut *self.0.lock().expect("not poisoned"));
        let (state, signals) = (CpuState::reset(), Arc::default());
        Ok(Box::new(Scripted { state, signals, script, flushes: 0 }))
    }
}

/// A kernel of no instructions but HLT.
pub fn kernel() -> Vec<u8> {
    guest::kernel(&[0xf4; 32])
}

pub fn config() -> Config {
    Config {
        memory: 16 << 20,
        paging: None,
        cpu: CpuModel::gemello_v2(),
        vcpus: 1,
        boot: guest::boot(kernel()),
        devices: vec![],
        transport: Transport::Pci,
        debug_exit: false,
        deterministic: false,
        timeout: Some(std::time::Duration::from_secs(10)), // a test that fails must not hang
    }
}

/// An engine whose processor plays `script`.
pub fn script_engine(script: Vec<Step>) -> Script {
    Script(Mutex::new(VecDeque::from(script)))
}

/// The machine of `config` whose processor plays `script`.
pub fn machine(config: &Config, lines: Lines, script: Vec<Step>) -> Machine {
    let engine = Script(Mutex::new(VecDeque::from(script)));
    Machine::build(config, lines, &engine).expect("a machine")
}

/// Runs `script` without consoles.
pub fn run(script: Vec<Step>) -> End {
    machine(&config(), Lines::default(), script).run()
}

/// A step.
pub fn step(work: impl FnMut(&mut Guest<'_>) -> Exit + Send + 'static) -> Step {
    Box::new(work)
}

/// A guest that counts until it is kicked, for ever.
pub fn counting(counter: &Arc<AtomicU64>) -> Vec<Step> {
    let turn = |counter: Arc<AtomicU64>| {
        step(move |guest| {
            while !guest.signals.is_raised(Signal::Kick) {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            Exit::Kicked(guest.signals.take_kicks())
        })
    };
    (0..100_000).map(|_| turn(counter.clone())).collect()
}

/// Collects what is written.
#[derive(Clone, Default)]
pub struct Collector(pub Arc<Mutex<Vec<u8>>>);

impl Write for Collector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe's reading end as console input.
pub struct PipeInput {
    pub pipe: OwnedFd,
    pub queue: VecDeque<u8>,
    pub ended: bool,
    /// The most that was ever read ahead.
    pub ahead: Arc<Mutex<usize>>,
}

impl Input for PipeInput {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended && self.queue.len() < 100).then(|| self.pipe.as_fd())
    }

    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; 64];
        let count = rustix::io::read(&self.pipe, &mut buffer).map_err(|_| End::Interrupted)?;
        self.ended = count == 0;
        self.queue.extend(&buffer[..count]);
        let mut ahead = self.ahead.lock().expect("not poisoned");
        *ahead = self.queue.len().max(*ahead);
        Ok(())
    }

    fn take(&mut self, room: usize) -> Vec<u8> {
        let count = room.min(self.queue.len());
        self.queue.drain(..count).collect()
    }
}

/// A line that only collects.
pub fn collecting(collector: &Collector) -> Line {
    Line { input: None, output: Some(Box::new(collector.clone())) }
}
