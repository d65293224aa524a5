//! The round robin.
//!
//! One processor, many processes: each runs for a quantum, then the next in the queue has its turn.
//! A turn is three steps, begun by the timer's interrupt (or by a trap or an exception that leaves
//! the process unable to go on):
//!
//! 1. *Save*: the processor and entry.s put the whole state of the running process into its
//!    descriptor. That happens on the way out of user level, before any of this code runs; `resume`
//!    returns.
//! 2. *Next*: the process goes to the end of the ready queue, the first in the queue is taken, its
//!    descriptor's end of frame becomes TSS.RSP0 and its page table CR3.
//! 3. *Return*: its state is loaded and IRETQ jumps to its return address, at user level.
//!
//! The nucleus's own thread (the shell) calls [`Kernel::run_until`] whenever it has to wait for
//! something.

use crate::kernel::Kernel;
use crate::process::{Pid, State, Wait};
use crate::{apic, clock, cpu, entry, power, tables};

/// Length of a quantum unless told otherwise, in microseconds.
pub const QUANTUM: u64 = 5000;
/// Quanta that the timeline remembers.
pub const TIMELINE: usize = 64;

/// Why a quantum was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Timer,
    Yield,
    Blocked,
    Ended,
}

/// One turn, for the shell's `sched`.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub pid: Pid,
    pub reason: Reason,
}

impl Kernel {
    /// Gives processes their turns until `done`, which is asked between turns.
    pub fn run_until(&mut self, mut done: impl FnMut(&Kernel) -> bool) {
        loop {
            self.wake_sleepers();
            if done(self) {
                return;
            }
            match self.ready.pop_front() {
                Some(pid) => self.turn(pid),
                None => self.idle(),
            }
        }
    }

    /// One process's turn.
    fn turn(&mut self, pid: Pid) {
        self.switches += u64::from(self.last_pid != pid);
        self.last_pid = pid;
        let debt = self.processes.get(&pid).map_or(0, |p| p.debt);
        self.set_timer(self.quantum.saturating_sub(debt));
        let mut used = 0;
        let reason = loop {
            let Some(process) = self.processes.get_mut(&pid) else { break Reason::Ended };
            let start = cpu::rdtsc();
            entry::resume(&mut process.context, process.root.0, self.features.fsgsbase);
            used += cpu::rdtsc() - start;
            if let Some(reason) = self.handle(pid) {
                break reason;
            }
        };
        if matches!(reason, Reason::Timer | Reason::Yield) {
            self.ready.push_back(pid);
        }
        if let Some(process) = self.processes.get_mut(&pid) {
            process.usage.tsc += used;
            process.usage.quanta += 1;
            // The timer may be late, or the turn have been spent on something long in the nucleus:
            // made up for next time.
            let spent = debt + clock::to_microseconds(used);
            process.debt =
                if reason == Reason::Timer { spent.saturating_sub(self.quantum) } else { 0 };
        }
        if self.timeline.len() == TIMELINE {
            self.timeline.pop_front();
        }
        self.timeline.push_back(Turn { pid, reason });
    }

    /// Finds out what brought the processor back to the nucleus and serves it. Tells whether, and
    /// why, the turn is over.
    fn handle(&mut self, pid: Pid) -> Option<Reason> {
        let vector = self.processes.get(&pid)?.context.frame.vector;
        match vector {
            tables::SYSCALL => self.system_call(pid),
            0..32 => self.exception(pid),
            32..256 if vector as u8 == tables::TRAP => {
                self.interrupts[vector as usize] += 1;
                self.system_call(pid)
            }
            _ => self.interrupt(vector as u8).then_some(Reason::Timer),
        }
    }

    /// Serves an interrupt; true if it was the timer's.
    fn interrupt(&mut self, vector: u8) -> bool {
        self.interrupts[vector as usize] += 1;
        if vector == tables::CONSOLE {
            self.console_input();
        }
        if vector == tables::POWER
            && let Some(button) = self.power_button
            && power::was_pressed(button)
        {
            println!("\nthe power button was pressed");
            power::off(self.soft_off);
        }
        if vector != tables::SPURIOUS {
            apic::end_of_interrupt();
        }
        vector == tables::TIMER
    }

    /// Nobody is ready: sleeps until an interrupt.
    fn idle(&mut self) {
        self.set_timer(1_000_000);
        let start = cpu::rdtsc();
        let vector = cpu::wait_for_interrupt();
        self.idle_tsc += cpu::rdtsc() - start;
        self.interrupt(vector as u8);
        self.console_input(); // an edge that came before the IOAPIC listened is never repeated
    }

    /// Interrupts after `microseconds`, or earlier if a sleeper has to be woken.
    fn set_timer(&mut self, microseconds: u64) {
        let now = clock::microseconds();
        let until = |wait| match wait {
            State::Blocked(Wait::Until(time)) => Some(time.saturating_sub(now)),
            _ => None,
        };
        let sleeper = self.processes.values().filter_map(|p| until(p.state)).min();
        apic::set_timer(sleeper.map_or(microseconds, |time| time.min(microseconds)).max(10));
    }

    fn wake_sleepers(&mut self) {
        let now = clock::microseconds();
        self.wake(|wait| matches!(wait, Wait::Until(time) if time <= now));
    }

    /// Makes ready whoever waits for something that `is_over`.
    pub fn wake(&mut self, is_over: impl Fn(Wait) -> bool) {
        for process in self.processes.values_mut() {
            if let State::Blocked(wait) = process.state
                && is_over(wait)
            {
                process.state = State::Ready;
                self.ready.push_back(process.pid);
            }
        }
    }
}
