//! Exceptions during delivery: double fault and shutdown (SDM vol. 3, 6.15, tables 6-4 and 6-5).

use super::{DR6_CONDITIONS, Event, Shutdown, deliver};
use crate::addr::Vector;
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::state::{Activity, CpuState};

/// Table 6-4, with the double fault itself as a fourth class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

impl Class {
    const fn of(event: Event) -> Self {
        let Event::Exception(exception) = event else { return Self::Benign };
        match exception.vector {
            Vector::DE | Vector::TS | Vector::NP | Vector::SS | Vector::GP => Self::Contributory,
            Vector::PF => Self::PageFault,
            Vector::DF => Self::DoubleFault,
            _ => Self::Benign,
        }
    }
}

/// The longest chain of exceptions that leads anywhere. Only task gates to tasks with the T flag,
/// described in memory that swallows the busy bit, could go on for ever.
const CHAIN: u32 = 16;

/// What follows when `second` is raised while `first` is delivered.
fn combine(first: Event, second: Exception) -> Result<Event, Shutdown> {
    let next = Event::Exception(second);
    match (Class::of(first), Class::of(next)) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault) => Err(Shutdown),
        (Class::Contributory, Class::Contributory)
        | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            Ok(Event::Exception(Exception::with_code(Vector::DF, 0)))
        }
        _ => Ok(next),
    }
}

/// Delivers `event`, then whatever its delivery raises, until one arrives.
///
/// `state.activity` becomes [`Activity::Shutdown`] on error; the rest of the state is then as at
/// the last attempt.
///
/// # Errors
/// A fault while a double fault is delivered.
pub fn deliver_or_escalate<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    event: Event,
) -> Result<(), Shutdown> {
    let mut event = event;
    raise(state, event);
    for _ in 0..CHAIN {
        let Err(second) = deliver(state, bus, event) else { return Ok(()) };
        raise(state, Event::Exception(second)); // even if it becomes a double fault
        match combine(event, second) {
            Ok(next) => event = next,
            Err(Shutdown) => break,
        }
    }
    state.activity = Activity::Shutdown;
    Err(Shutdown)
}

/// What the event leaves behind even if its delivery fails.
fn raise(state: &mut CpuState, event: Event) {
    match event {
        Event::Nmi => state.blocking.nmi = true,
        Event::Exception(e) if e.vector == Vector::PF => state.cr2 = e.payload,
        Event::Exception(e) if e.vector == Vector::DB => {
            state.dr.dr6 = (state.dr.dr6 & !DR6_CONDITIONS) | e.payload;
        }
        _ => {}
    }
}
