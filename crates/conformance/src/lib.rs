//! The conformance suite: system-level rules of the architecture as small guest programs with the
//! outcome that the manual prescribes. Every engine must pass it; nothing here knows which engine
//! runs.
//!
//! A case prepares memory and a processor state ([`guest`]), runs until HLT or shutdown, and judges
//! the final state, memory and port writes. Every gate leads to a stub that halts, so that the
//! stub's address tells the vector and the stack holds the frame. The expectations are written from
//! the manual, not computed by `crates/x86`.
#![forbid(unsafe_code)]

mod cases;
mod describe;
mod end;
mod guest;
mod io;
mod layout;
mod paging;

pub use cases::cases;

use end::End;
use guest::Guest;
use io::TestIo;
use memory::GuestRam;
use vcpu::{Exit, Signal, Slice, Vcpu};
use x86::state::CpuState;

/// One rule.
#[derive(Clone, Copy)]
pub struct Case {
    /// Unique; the part before the first `/` names the group.
    pub name: &'static str,
    /// The manual's section.
    pub cite: &'static str,
    build: fn(&mut Guest),
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.cite)
    }
}

/// Instructions after which a case is taken to be lost.
const LIMIT: u64 = 100_000;

/// Puts an engine through `case`; `make` creates it over the memory and state given.
///
/// # Errors
/// What was expected, what happened instead, and where the processor stood.
pub fn run(
    case: &Case,
    make: &mut dyn FnMut(GuestRam, CpuState) -> Box<dyn Vcpu>,
) -> Result<(), String> {
    let mut guest = Guest::new();
    (case.build)(&mut guest);
    let start = guest.finish();
    let mut vcpu = make(guest.ram.clone(), start);
    let mut io = TestIo::new(vcpu.signals());
    if guest.interrupt_at_start {
        io.interrupt();
    }
    if guest.nmi_at_start {
        vcpu.signals().raise(Signal::Nmi);
    }
    let exit = run_to_end(vcpu.as_mut(), &mut io);
    let state = vcpu.state().map_err(|why| format!("{}: {why}", case.name))?;
    let end = End::new(&guest, state, exit, io);
    guest.verdict(&end).map_err(|why| format!("{}: {why}\n{end}", case.name))
}

fn run_to_end(vcpu: &mut dyn Vcpu, io: &mut TestIo) -> Exit {
    let limit = LIMIT;
    let mut left = limit;
    loop {
        let before = vcpu.statistics().instructions;
        let exit = vcpu.run(io, Slice { instructions: left });
        let spent = vcpu.statistics().instructions.saturating_sub(before);
        left = left.saturating_sub(spent.max(1));
        if !matches!(exit, Exit::SliceOver | Exit::Kicked(_)) || left == 0 {
            return exit;
        }
    }
}
