//! The reference: the interpreter's run of the code that translated code is about to run, recorded
//! instruction by instruction.
//!
//! It stops before anything that cannot be undone, and that translated code never does: an
//! instruction left to the interpreter, a fault, device memory, a store to code. Translated code
//! that goes on past such a place is wrong.

use super::super::classify::class_in;
use super::super::flow::{self, Class, FlagUse};
use super::Log;
use crate::cpu::Cpu;
use crate::interp;
use crate::mmu::Target;
use crate::op::Step;
use crate::tlb::PAGE_MASK;
use iced_x86::{Decoder, DecoderError, Instruction};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use x86::addr::Gpa;
use x86::state::{Blocking, CpuState, Flags, Mode, gpr};

/// Longest instruction.
const MAX_LEN: usize = 15;
/// Judgements of instructions that are kept.
const KNOWN: usize = 1 << 20;

/// Code bytes at RIP, as far as they lie on the page, and the mode bits they are judged under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) code: [u8; MAX_LEN],
    pub(super) len: u8,
    mode_key: u8,
}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut word = [0; 16];
        word[..MAX_LEN].copy_from_slice(&self.code);
        word[MAX_LEN] = self.len ^ self.mode_key;
        state.write_u128(u128::from_le_bytes(word));
    }
}

/// Fast, since the keys are of our own making and there are as many look-ups as instructions.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u128(byte.into()));
    }

    fn write_u128(&mut self, n: u128) {
        const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let mixed = (n ^ u128::from(self.0)).wrapping_mul(ODD);
        self.0 = (mixed >> 64) as u64 ^ mixed as u64;
        self.0 ^= self.0 >> 29;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What an instruction is to the comparison.
#[derive(Clone, Copy)]
struct Judged {
    /// Translated code may run it.
    runs: bool,
    /// It may change more than general registers, flags and RIP.
    wide: bool,
    flag_use: FlagUse,
    /// Status flags, as `Flags::arith` has them, that it certainly gives a value.
    defines: u16,
    /// Those that it may leave undefined.
    undefines: u16,
}

/// One instruction done.
pub(super) struct Done {
    pub(super) gpr: [u64; gpr::COUNT],
    pub(super) rip: u64,
    pub(super) flags: Flags,
    /// STI's shadow, foremost.
    blocking: Blocking,
    /// The state that holds all the rest: how many of `Recording::wide`.
    wide: usize,
    /// Writes of the log up to here.
    pub(super) writes: usize,
    pub(super) flag_use: FlagUse,
    /// Status flags that have no defined value now.
    undefined: u16,
    /// Where it stood.
    pub(super) from: u64,
    pub(super) bytes: Bytes,
}

/// Why the reference stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As many instructions as were asked for.
    Limit,
    /// The next instruction is left to the interpreter.
    Left,
    /// The next instruction faults.
    Fault,
    /// The next instruction touches a device, or its own code.
    Forbidden,
    /// There is no instruction to read.
    Fetch,
}

/// What the reference did.
#[derive(Default)]
pub(super) struct Recording {
    pub(super) before: CpuState,
    pub(super) done: Vec<Done>,
    wide: Vec<CpuState>,
    wides: usize,
    known: HashMap<Bytes, Judged, BuildHasherDefault<Fold>>,
}

impl Recording {
    /// Runs `limit` instructions at the most from the present state, which is kept in `before`.
    /// Afterwards `cpu`'s state is spent, and so is memory until the log is undone.
    pub(super) fn run(&mut self, cpu: &mut Cpu, limit: usize) -> End {
        self.before.clone_from(&cpu.core.state);
        self.done.clear();
        self.wides = 0;
        cpu.core.bypass_tlb();
        loop {
            if self.done.len() >= limit {
                return End::Limit;
            }
            if let Some(end) = self.step(cpu) {
                return end;
            }
        }
    }

    fn step(&mut self, cpu: &mut Cpu) -> Option<End> {
        let Some(bytes) = bytes_at_rip(cpu) else { return Some(End::Fetch) };
        let judged = self.judge(cpu, bytes);
        if !judged.runs {
            return Some(End::Left);
        }
        let (from, mark) = (cpu.core.state.rip, log(cpu).len());
        cpu.core.state.blocking.sti = false;
        let step = interp::perform(&mut cpu.core);
        let forbidden = complete(cpu, mark);
        match step {
            None => return Some(End::Fetch),
            Some(Step::Fault | Step::FaultHere | Step::Again) => return Some(End::Fault),
            Some(_) if forbidden => return Some(End::Forbidden),
            Some(_) => {}
        }
        if judged.wide {
            self.keep(&cpu.core.state);
        }
        let undefined = self.done.last().map_or(0, |done| done.undefined);
        let mut registers = [0; gpr::COUNT];
        registers.copy_from_slice(&cpu.core.state.gpr[..gpr::COUNT]);
        self.done.push(Done {
            gpr: registers,
            rip: cpu.core.state.rip,
            flags: cpu.core.state.flags,
            blocking: cpu.core.state.blocking,
            wide: self.wides,
            writes: log(cpu).len(),
            flag_use: judged.flag_use,
            undefined: undefined & !judged.defines | judged.undefines,
            from,
            bytes,
        });
        None
    }

    fn keep(&mut self, state: &CpuState) {
        match self.wide.get_mut(self.wides) {
            Some(kept) => kept.clone_from(state),
            None => self.wide.push(state.clone()),
        }
        self.wides += 1;
    }

    fn judge(&mut self, cpu: &mut Cpu, bytes: Bytes) -> Judged {
        if let Some(judged) = self.known.get(&bytes) {
            return *judged;
        }
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        let judged = judge(cpu, &bytes);
        self.known.insert(bytes, judged);
        judged
    }

    /// Sets `state` to what it is after `n` instructions.
    pub(super) fn state_after(&self, n: usize, state: &mut CpuState) {
        let Some(done) = n.checked_sub(1).and_then(|last| self.done.get(last)) else {
            state.clone_from(&self.before);
            return;
        };
        let rest = done.wide.checked_sub(1).and_then(|last| self.wide.get(last));
        state.clone_from(rest.unwrap_or(&self.before));
        state.gpr[..gpr::COUNT].copy_from_slice(&done.gpr);
        state.rip = done.rip;
        state.flags = done.flags;
        state.blocking = done.blocking;
    }

    /// Whether status flags are needed after `n` instructions; `None`: the recording does not tell.
    pub(super) fn flags_needed(&self, n: usize) -> Option<bool> {
        self.done.get(n..)?.iter().find_map(|done| match done.flag_use {
            FlagUse::Reads => Some(true),
            FlagUse::Replaces => Some(false),
            FlagUse::Changes | FlagUse::Leaves => None,
        })
    }

    /// The status flags that have a defined value after `n` instructions.
    pub(super) fn defined(&self, n: usize) -> u16 {
        !n.checked_sub(1).and_then(|last| self.done.get(last)).map_or(0, |done| done.undefined)
    }

    /// Writes of the log that belong to the first `n` instructions.
    pub(super) fn writes(&self, n: usize) -> usize {
        n.checked_sub(1).and_then(|last| self.done.get(last)).map_or(0, |done| done.writes)
    }
}

/// The log, which is there while the reference runs.
fn log(cpu: &mut Cpu) -> &mut Log {
    cpu.core.mmu.log.get_or_insert_default()
}

/// Completes the log of an instruction; whether it did what it must not.
fn complete(cpu: &mut Cpu, mark: usize) -> bool {
    let crate::core::Mmu { ram, log, .. } = &mut cpu.core.mmu;
    let log = log.get_or_insert_default();
    log.complete(ram, mark);
    log.is_forbidden()
}

/// The code at RIP, if it is RAM.
fn bytes_at_rip(cpu: &mut Cpu) -> Option<Bytes> {
    if cpu.core.mode != Mode::Long64 {
        return None;
    }
    let la = cpu.core.state.rip;
    let gpa = code_address(cpu, la)?;
    let room = MAX_LEN.min((PAGE_MASK + 1 - (gpa & PAGE_MASK)) as usize);
    let mut bytes = Bytes { code: [0; MAX_LEN], len: room as u8, mode_key: cpu.core.mode_key };
    cpu.core.mmu.ram.read(Gpa(gpa), &mut bytes.code[..room]).ok()?;
    if room < MAX_LEN
        && let Some(next) = code_address(cpu, (la | PAGE_MASK).wrapping_add(1))
        && cpu.core.mmu.ram.read(Gpa(next), &mut bytes.code[room..]).is_ok()
    {
        bytes.len = MAX_LEN as u8;
    }
    Some(bytes)
}

/// Where the code at `la` lies in RAM.
fn code_address(cpu: &mut Cpu, la: u64) -> Option<u64> {
    let entry = cpu.core.fetch_entry(la);
    if entry.tag == la & !PAGE_MASK {
        return Some(entry.gpa | la & PAGE_MASK);
    }
    let privilege = cpu.core.privilege();
    match cpu.core.mmu.fetch_target(la, privilege) {
        Ok(Target::Ram { gpa, .. }) => Some(gpa),
        _ => None,
    }
}

impl Bytes {
    pub(super) fn instruction(&self, cpu: &Cpu, ip: u64) -> Option<Instruction> {
        let code = self.code.get(..usize::from(self.len))?;
        let mut decoder = Decoder::with_ip(64, code, ip, cpu.core.features.decoder_options);
        let i = decoder.decode();
        (decoder.last_error() == DecoderError::None).then_some(i)
    }
}

fn judge(cpu: &mut Cpu, bytes: &Bytes) -> Judged {
    let stops =
        Judged { runs: false, wide: false, flag_use: FlagUse::Reads, defines: 0, undefines: 0 };
    let Some(i) = bytes.instruction(cpu, 0) else { return stops };
    let class = class_in(&cpu.core, &i, true);
    if matches!(class, Class::Other) {
        return stops;
    }
    let usage = flow::usage(&mut cpu.translator.factory, &i, class);
    let wide = usage.vector || matches!(class, Class::Swapgs);
    let flag_use = flow::flag_use(&i);
    let written = i.rflags_written() | i.rflags_cleared() | i.rflags_set();
    let defines = if flow::may_keep_flags(&i) { 0 } else { written };
    let undefines = arith(i.rflags_undefined());
    Judged { runs: true, wide, flag_use, defines: arith(defines), undefines }
}

/// Status flags as iced has them, where `Flags::arith` has them.
fn arith(bits: u32) -> u16 {
    use iced_x86::RflagsBits as B;
    let places = [
        (B::OF, 0x0001),
        (B::CF, 0x0100),
        (B::PF, 0x0400),
        (B::AF, 0x1000),
        (B::ZF, 0x4000),
        (B::SF, 0x8000),
    ];
    places.iter().filter(|place| bits & place.0 != 0).fold(0, |sum, place| sum | place.1)
}

/// Whether the status flags at `rip` are replaced before anything can read them, as far as the code
/// there shows.
pub(super) fn replaced_at(cpu: &mut Cpu, rip: u64) -> bool {
    let entry = cpu.core.fetch_entry(rip);
    if entry.tag != rip & !PAGE_MASK {
        return false;
    }
    let mut code = [0; 64];
    let len = code.len().min((PAGE_MASK + 1 - (rip & PAGE_MASK)) as usize);
    cpu.core.mmu.ram.read(Gpa(entry.gpa | rip & PAGE_MASK), &mut code[..len]).is_ok()
        && flow::replaced_within(&code[..len]).is_some()
}
