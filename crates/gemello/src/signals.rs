//! Signals from outside: end the machines in good order, the terminal restored.

use crate::{hosted, limits, terminal, window};
use anyhow::{Result, anyhow};
use machine::End;
use signal_hook::consts::{
    SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGWINCH, SIGXCPU, SIGXFSZ,
};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// How long machines may take to end before the process is ended without that.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the command of an image may take that was asked to end.
const GRACE: Duration = Duration::from_secs(10);

static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Who gets the signals, if they are for a command elsewhere.
static ELSEWHERE: OnceLock<Box<dyn Fn(i32) + Send + Sync>> = OnceLock::new();

/// From now on signals end nothing here: they are told to `elsewhere`.
pub(crate) fn forward(elsewhere: impl Fn(i32) + Send + Sync + 'static) {
    let _ = ELSEWHERE.set(Box::new(elsewhere));
}

/// Starts the thread that receives them.
///
/// # Errors
/// The host refuses a handler or a thread.
pub(crate) fn handle() -> Result<()> {
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT, SIGWINCH, SIGUSR1, SIGXCPU, SIGXFSZ];
    let mut signals = signal_hook::iterator::Signals::new(wanted)
        .map_err(|error| anyhow!("cannot handle signals: {error}{}", limits::and_advice(&error)))?;
    let work = move || {
        // Its thread, and those that it starts, open nothing that the user alone could not.
        let _ = host::give_up_privileges();
        for signal in signals.forever() {
            if let Some(elsewhere) = ELSEWHERE.get() {
                if signal == SIGCONT {
                    let _ = terminal::again();
                }
                elsewhere(signal);
                continue;
            }
            match signal {
                SIGCONT => {
                    let _ = terminal::again();
                    window::changed();
                }
                SIGWINCH => window::changed(),
                SIGUSR1 => hosted::all().iter().for_each(|machine| machine.side.wishes().save()),
                SIGXFSZ => {} // the write that went too far fails, and is told as that
                _ => end(signal),
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(work)
        .map_err(|error| anyhow!("cannot start a thread: {error}{}", limits::and_advice(&error)))?;
    Ok(())
}

/// The signal that ended the machines, if one did.
pub(crate) fn received() -> Option<i32> {
    Some(RECEIVED.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
}

fn end(signal: i32) {
    let first = RECEIVED.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    let machines = hosted::all();
    match machines.is_empty() {
        false if first => {
            let (asked, others): (Vec<_>, Vec<_>) =
                machines.into_iter().partition(|machine| machine.side.is_asked_by_signal());
            others.iter().for_each(|machine| machine.handle.stop(End::Interrupted));
            asked.iter().for_each(|machine| machine.side.power_off());
            let patience = move || {
                if !asked.is_empty() {
                    std::thread::sleep(GRACE);
                    asked.iter().for_each(|machine| machine.handle.stop(End::Interrupted));
                }
                std::thread::sleep(PATIENCE);
                leave(signal);
            };
            // Where the host has no thread left for it, a second signal ends what does not end by
            // itself.
            let _ = std::thread::Builder::new().name("patience".into()).spawn(patience);
        }
        _ => leave(signal),
    }
}

fn leave(signal: i32) -> ! {
    terminal::restore();
    let _ = crate::trace::finish();
    std::process::exit(128 + signal)
}
