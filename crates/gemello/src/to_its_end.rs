//! From machines that are built to their ends and the exit status.

use crate::again::Resettable;
use crate::control::{Claim, Serving};
use crate::hosted::{self, Hosted};
use crate::output::{LogFile, Progress};
use crate::settings::name::MachineName;
use crate::settings::sched::SchedSettings;
use crate::side::Side;
use crate::statistics::Table;
use crate::{detach, exit, outfile, signals, terminal};
use anyhow::{Context as _, Result};
use machine::{End, Machine};
use sched::Pool;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// A machine that is built, and how it is to be run.
pub(crate) struct Ready {
    pub(crate) name: MachineName,
    /// What holds the name.
    pub(crate) claim: Option<Claim>,
    pub(crate) machine: Machine,
    /// The user's side of it.
    pub(crate) side: Side,
    /// What is printed at the end.
    pub(crate) report: Report,
    /// Where the second serial line goes.
    pub(crate) log: LogFile,
    /// Where the frames of its network go.
    pub(crate) capture: LogFile,
    /// How its processors get the host's.
    pub(crate) sched: SchedSettings,
}

/// What is printed at the end of a run.
#[derive(Clone, Copy)]
pub(crate) struct Report {
    /// Counters.
    pub(crate) stats: bool,
    /// The machine's digest.
    pub(crate) digest: bool,
}

/// A machine that runs.
struct Running {
    machine: Machine,
    hosted: Arc<Hosted>,
    printed: Report,
    log: LogFile,
    capture: LogFile,
    /// It is the only one, and so is who is meant.
    alone: bool,
    /// It can be reached as long as this is there.
    serving: Option<Serving>,
}

/// Runs the machines to their ends on one pool of workers, which `sched` describes, and gives the
/// exit code: of the first of them whose own is not 0.
///
/// # Errors
/// The terminal cannot be had, or a machine could not be saved: nothing was run.
pub(crate) fn to_its_end(machines: Vec<Ready>, sched: &SchedSettings) -> Result<u8> {
    let alone = machines.len() == 1;
    let processors = machines.iter().map(|ready| ready.machine.tasks()).sum();
    confine();
    for ready in &machines {
        ready.side.wishes().check()?;
    }
    let raw = if machines.iter().any(|ready| ready.side.is_raw()) {
        Some(terminal::Raw::enter().context("cannot make the terminal raw")?)
    } else {
        None
    };
    detach::leave(&machines.iter().map(|ready| &ready.name).collect::<Vec<_>>())?;
    let pool = sched.pool(processors);
    let mut running: Vec<_> = machines.into_iter().map(|it| prepare(it, &pool, alone)).collect();
    hosted::enter(&running.iter().map(|one| Arc::clone(&one.hosted)).collect::<Vec<_>>());
    host::forget_code();
    let codes = match (&mut running[..], &pool) {
        (_, Err(end)) => {
            drop(raw);
            running.iter_mut().map(|one| one.report(end)).collect()
        }
        ([one], Ok(_)) => {
            let end = one.machine.run();
            drop(raw);
            vec![one.report(&end)]
        }
        (_, Ok(_)) => all_at_once(running),
    };
    let traced = if outfile::is_trace_whole() { exit::OK } else { exit::FAILED };
    Ok(codes.into_iter().chain([traced]).find(|code| *code != exit::OK).unwrap_or(exit::OK))
}

/// Connects a machine with its user and with the pool. It can be reached from now on.
fn prepare(ready: Ready, pool: &Result<Pool, End>, alone: bool) -> Running {
    let Ready { name, claim, mut machine, side, report, log, capture, sched } = ready;
    side.notify(&machine);
    // What a command has read and written is not to be had again.
    if !side.kind().is_command() {
        let anew = side.clone();
        side.wishes().arm_reset(Resettable::new(machine.handle(), move || anew.begin_anew()));
    }
    if let Ok(pool) = pool {
        machine.set_pool(pool.clone(), sched.share());
    }
    let size = (machine.ram().size(), machine.processors());
    let hosted = Arc::new(Hosted::new(name, machine.handle(), side, size));
    let serving = claim.map(|claim| claim.serve(&hosted));
    Running { machine, hosted, printed: report, log, capture, alone, serving }
}

/// Runs each machine on a thread of its own; their exit codes, in their order.
fn all_at_once(machines: Vec<Running>) -> Vec<u8> {
    let begin = |mut one: Running| {
        let hosted = Arc::clone(&one.hosted);
        let work = move || {
            let end = one.machine.run();
            one.report(&end)
        };
        // Nothing of a machine that has ended is to be kept here.
        thread::Builder::new().name("machine".into()).spawn(work).map_err(|error| (hosted, error))
    };
    let begun: Vec<_> = machines.into_iter().map(begin).collect();
    let code = |begun: Result<JoinHandle<u8>, (Arc<Hosted>, io::Error)>| match begun {
        Ok(thread) => thread.join().unwrap_or(exit::FAILED),
        Err((hosted, error)) => {
            explain(&End::no_thread(&error), &format!("{}: ", hosted.name));
            hosted.end(exit::BAD_INPUT);
            exit::BAD_INPUT
        }
    };
    begun.into_iter().map(code).collect()
}

impl Running {
    /// Says how the machine has ended; the exit code.
    fn report(&mut self, end: &End) -> u8 {
        let before = if self.alone { String::new() } else { format!("{}: ", self.hosted.name) };
        if let Some(said) = self.hosted.side.end() {
            eprintln!("gemello: {before}the system was not up yet; its init's last words: {said}");
        }
        if self.printed.stats {
            let resident = self.machine.handle().resident();
            eprint!("{before}{}", Table { stats: &self.machine.stats(), resident });
        }
        if self.printed.digest {
            match self.machine.digest() {
                Ok(digest) => eprintln!("gemello: {before}digest: {digest}"),
                Err(error) => eprintln!("gemello: {before}no digest: {error}"),
            }
        }
        detach::keep(&self.hosted);
        explain(end, &before);
        let code = code(end, &before, self.hosted.side.command().as_ref());
        let lost = self.log.is_lost() || self.capture.is_lost();
        let code = if lost && code == exit::OK { exit::FAILED } else { code };
        // Its name is free before anyone is told of its end.
        self.serving = None;
        self.hosted.end(code);
        if !self.alone {
            hosted::leave(&self.hosted);
            self.hosted.side.wishes().disarm();
        }
        code
    }
}

/// Everything is open: what the guest runs on, and whatever this thread starts, has no privileges.
/// The machine's other threads have given up theirs.
fn confine() {
    if let Err(error) = host::give_up_privileges() {
        eprintln!(
            "gemello: the host keeps this program's privileges, which it wants to give up: {error}"
        );
    }
}

/// The command's status, where there was a command and it came to its end.
fn code(end: &End, before: &str, progress: Option<&Progress>) -> u8 {
    match (end, progress) {
        (End::PowerOff | End::Reset, Some(progress)) => progress.status().unwrap_or_else(|| {
            let why = progress.trouble().map(|what| format!(": {what}")).unwrap_or_default();
            eprintln!(
                "gemello: {before}the guest ended before its command did{why}; --log FILE shows \
                 its messages"
            );
            exit::NO_STATUS
        }),
        _ => exit::code(end, signals::received()),
    }
}

/// Says why a run ended, where that is no matter of course; `before` tells whose.
fn explain(end: &End, before: &str) {
    match end {
        End::TripleFault(report) => {
            eprint!("gemello: {before}triple fault; the guest's last state:\n{report}");
        }
        End::Defect(text) => {
            eprintln!("gemello: {before}a defect of gemello has ended the machine: {text}");
        }
        End::EngineFailed(text) => {
            eprintln!("gemello: {before}the engine failed, please report this: {text}");
        }
        End::MemoryLost(why) => eprintln!(
            "gemello: {before}the guest's memory is lost: {why}; look after the disk that --swap \
             names"
        ),
        End::GuestPanic(lines) => {
            eprintln!("gemello: {before}the guest's kernel panicked; its last lines:\n{lines}");
        }
        End::TimedOut => eprintln!("gemello: {before}the time given with --timeout is over"),
        End::OutputFailed(text) => {
            eprintln!("gemello: {before}cannot write the guest's output: {text}");
        }
        End::NotStarted(text) => {
            eprintln!("gemello: {before}this host cannot run the machine: {text}");
        }
        End::PowerOff | End::Reset | End::DebugExit(_) | End::Interrupted | End::OutputClosed => {}
    }
}
