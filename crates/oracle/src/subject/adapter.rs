//! Any [`Vcpu`] as a [`Subject`].

use super::{Subject, guest};
use crate::case::{Case, layout};
use crate::derive::{Memory, Registers, Template, template};
use crate::outcome::{Event, Outcome};
use memory::GuestRam;
use std::ops::Range;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::state::{CpuState, Flags, Seg, Ymm};

/// Instructions after which a case counts as endless. Counted loops take some hundred, but a block
/// may patch a loop's count; more than this no host does before its child gives up.
const LIMIT: u64 = 200_000_000;
/// RFLAGS bits that a case sets; as in the native child.
const LOADED_FLAGS: u64 = 0x4_0dd5;

/// A virtual processor in the smallest guest that can run cases.
///
/// Between two cases the adapter changes user memory (the code page too), and tells so in the
/// memory's log as a device does.
pub struct VcpuSubject<V> {
    vcpu: V,
    ram: GuestRam,
    base: CpuState,
    /// Memory as the running case found it.
    pristine: Box<Memory>,
    /// Where in the code page there is code.
    code_place: Range<usize>,
    /// Memory as the last case left it.
    actual: Box<Memory>,
    /// The template in place.
    template: &'static Template,
}

/// Guest memory with everything in it that a case needs beside itself.
///
/// # Errors
/// The host has no memory for the guest.
pub fn guest_ram() -> Result<GuestRam, memory::Error> {
    let ram = GuestRam::new(&[(Gpa(0), guest::RAM_SIZE)])?;
    guest::build(&ram)?;
    ram.write(Gpa(guest::USER_RAM), &Memory::of(&Case::default()).bytes)?;
    Ok(ram)
}

impl<V: Vcpu> VcpuSubject<V> {
    /// Runs cases on `vcpu`, which was made on `ram`, which [`guest_ram`] has made.
    pub fn new(vcpu: V, ram: GuestRam) -> Self {
        let empty = Memory::of(&Case::default());
        Self {
            vcpu,
            ram,
            base: guest::state(),
            actual: empty.clone(),
            pristine: empty,
            code_place: 0..0,
            template: template(0),
        }
    }

    /// The processor, for its statistics.
    pub fn vcpu(&self) -> &V {
        &self.vcpu
    }

    fn place(&mut self, case: &Case) -> Result<(), memory::Error> {
        const PAGE: usize = layout::PAGE as usize;
        let wanted = template(case.seed);
        if !std::ptr::eq(wanted, self.template) {
            self.template = wanted;
            self.pristine.bytes[PAGE..].copy_from_slice(&wanted.data);
            self.write(guest::USER_RAM + layout::PAGE, &wanted.data)?;
        }
        for touched in self.pristine.replace_code(&mut self.code_place, case) {
            let to = guest::USER_RAM + touched.start as u64;
            self.write(to, &self.pristine.bytes[touched])?;
        }
        Ok(())
    }

    /// Writes to guest memory, and tells processors.
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), memory::Error> {
        self.ram.write(Gpa(gpa), bytes)?;
        self.ram.wrote(Gpa(gpa), bytes.len() as u64);
        Ok(())
    }

    /// Notes what the case changed in memory, and undoes it.
    fn collect_memory(&mut self, outcome: &mut Outcome) -> Result<(), memory::Error> {
        self.ram.read(Gpa(guest::USER_RAM), &mut self.actual.bytes)?;
        let mut undo = Vec::new();
        for (_, start, len) in Memory::PARTS {
            let actual = &self.actual.bytes[start..start + len];
            self.pristine.find_changes(start, actual, outcome, |offset, old| {
                undo.push((guest::USER_RAM + (start + offset) as u64, old));
            });
        }
        undo.into_iter().try_for_each(|(gpa, old)| self.write(gpa, &old.to_le_bytes()))
    }

    fn execute(&mut self, case: &Case) -> Result<Outcome, memory::Error> {
        self.place(case)?;
        load(&mut self.base, case);
        if self.vcpu.set(Elements::all(), &self.base).is_err() {
            return Ok(Outcome::ended(Event::ENGINE, 3));
        }
        let exit = self.vcpu.run(&mut NoDevices, Slice { instructions: LIMIT });
        let mut outcome = match exit {
            Exit::Halted(_) => self.halted(case)?,
            Exit::SliceOver => Outcome::ended(Event::TIMEOUT, 0),
            Exit::Shutdown => Outcome::ended(Event::SHUTDOWN, 0),
            _ => Outcome::ended(Event::ENGINE, 0),
        };
        self.collect_memory(&mut outcome)?;
        Ok(outcome)
    }

    /// The outcome when a handler has halted: registers from the state, the rest from the exception
    /// frame.
    fn halted(&mut self, case: &Case) -> Result<Outcome, memory::Error> {
        let Ok(state) = self.vcpu.state() else { return Ok(Outcome::ended(Event::ENGINE, 4)) };
        let place = guest::frame_address(state.gpr[4]);
        let (Some(vector), Some(place)) = (guest::halted_vector(state.rip), place) else {
            return Ok(Outcome::ended(Event::ENGINE, 1));
        };
        let with_code = matches!(vector, 8 | 10..=14 | 17);
        let mut raw = [0; 48];
        self.ram.read(Gpa(place), &mut raw[usize::from(!with_code) * 8..])?;
        let frame: [u64; 6] =
            std::array::from_fn(|i| raw[i * 8..i * 8 + 8].try_into().map_or(0, u64::from_le_bytes));
        let mut outcome = registers(&state);
        outcome.event = Event {
            vector,
            error_code: frame[0] as u32,
            cr2: if vector == 14 { state.cr2 } else { 0 },
        };
        outcome.rip = case.code_base() + frame[1];
        outcome.rflags = frame[3];
        outcome.gpr[4] = frame[4];
        Ok(outcome)
    }
}

impl<V: Vcpu> Subject for VcpuSubject<V> {
    fn run(&mut self, case: &Case) -> Outcome {
        self.execute(case).unwrap_or(Outcome::ended(Event::ENGINE, 2))
    }
}

/// Puts the registers of `case` into `state`, which keeps its system registers.
fn load(state: &mut CpuState, case: &Case) {
    let canonical = |base: u64| ((base as i64) << 16 >> 16) as u64;
    let registers = Registers::of(case);
    state.gpr[..16].copy_from_slice(&case.gpr);
    state.rip = case.rip() - case.code_base();
    state.flags = Flags::from_bits(case.rflags & LOADED_FLAGS | 0x202);
    guest::set_segments(state, case.bits());
    if case.bits() != 16 {
        state.seg[Seg::Fs as usize].base = canonical(case.fs_base);
        state.seg[Seg::Gs as usize].base = canonical(case.gs_base);
    }
    state.ymm = registers.ymm.map(Ymm);
    state.x87.st = registers.st;
    state.x87.fcw = case.fcw;
    state.x87.fsw = case.fsw;
    state.x87.ftw = case.ftw;
    state.x87.mxcsr = case.mxcsr;
}

fn registers(state: &CpuState) -> Outcome {
    let mut outcome = Outcome::ZERO;
    outcome.gpr.copy_from_slice(&state.gpr[..16]);
    outcome.fs_base = state.seg[Seg::Fs as usize].base;
    outcome.gs_base = state.seg[Seg::Gs as usize].base;
    outcome.ymm = state.ymm.map(|y| y.0);
    for (to, from) in outcome.x87.st.iter_mut().zip(&state.x87.st) {
        to[..10].copy_from_slice(&from[..10]);
    }
    outcome.x87.fcw = state.x87.fcw;
    outcome.x87.fsw = state.x87.fsw;
    outcome.x87.ftw = u16::from(state.x87.ftw);
    outcome.mxcsr = state.x87.mxcsr;
    outcome
}

#[cfg(test)]
mod tests;
