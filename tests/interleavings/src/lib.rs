//! The sources of `vcpu::Signals`, of the scheduler and of the code cache's epochs, with a model's
//! locks and atomics in place of the host's. The tests run them under every interleaving of a few
//! threads.
//!
//! Those files take their locks and atomics from the crate `sync`, which is this one here: the same
//! text is compiled against loom's. Time is what [`clock`] says.
#![forbid(unsafe_code)]
// The unit tests of what is included run where it is at home.
#![cfg(not(test))]
// Of what is included only a part is called here.
#![allow(dead_code, unreachable_pub)]

extern crate self as sync;
extern crate self as vcpu;

pub mod clock;
pub mod models;

#[path = "../../../crates/engine-soft/src/translate/epochs.rs"]
mod epochs;
#[path = "../../../crates/sched/src/hub.rs"]
mod hub;
#[path = "../../../crates/sched/src/idle.rs"]
mod idle;
#[path = "../../../crates/sched/src/ids.rs"]
mod ids;
#[path = "../../../crates/sched/src/policy/mod.rs"]
mod policy;
#[path = "../../../crates/sched/src/rivals.rs"]
mod rivals;
#[path = "../../../crates/sched/src/share.rs"]
mod share;
#[path = "../../../crates/vcpu/src/signals.rs"]
mod signals;
#[path = "../../../crates/sched/src/switch.rs"]
mod switch;
#[path = "../../../crates/sched/src/task.rs"]
mod task;
#[path = "../../../crates/sched/src/usage.rs"]
mod usage;

pub use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
pub use signals::{Interrupt, Kick, Kicks, Residence, Signal, SignalSet, Signals, Waker};

use std::time::Duration;

/// As `sync::lock`.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a model's thread does not panic and go on")
}

/// As `sync::wait`.
pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).expect("a model's thread does not panic and go on")
}

/// As `sync::wait_for`, but the time has passed at once.
pub fn wait_for<'a, T>(
    _: &Condvar,
    guard: MutexGuard<'a, T>,
    _: Duration,
) -> (MutexGuard<'a, T>, ()) {
    (guard, ())
}

/// As `sync::yield_until`, but the time has passed at once.
pub fn yield_until(_: impl FnMut() -> bool) {
    loom::thread::yield_now();
}
