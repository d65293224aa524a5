//! The program's exit codes. README.md has the same table.

use machine::End;

/// The guest powered off or rebooted, or the program did what it was asked to.
pub(crate) const OK: u8 = 0;
/// gemello itself failed: a defect, an exhausted host, or output that the host does not take.
pub(crate) const FAILED: u8 = 1;
/// Wrong arguments or input files, or something that this host lacks; nothing was run.
pub(crate) const BAD_INPUT: u8 = 2;
/// The guest's processor shut down after a triple fault.
pub(crate) const TRIPLE_FAULT: u8 = 3;
/// The guest's kernel panicked.
pub(crate) const GUEST_PANIC: u8 = 4;
/// The time given with `--timeout` is over.
pub(crate) const TIMED_OUT: u8 = 124;
/// The guest ended before its command did.
pub(crate) const NO_STATUS: u8 = 125;
/// Ctrl-A x; signal n gives 128 + n.
pub(crate) const INTERRUPTED: u8 = 130;
/// Nobody reads our output any more: what a process gives that dies of SIGPIPE.
pub(crate) const OUTPUT_CLOSED: u8 = 141;

/// For `--help`.
pub(crate) const HELP: &str = "\
Exit status:
  0    the guest powered off or rebooted (run debian -- CMD: the command's own status)
  1    gemello itself failed, or its output could not be written
  2    wrong arguments or input files, or something is missing on this host
  3    triple fault: the guest's last state is printed
  4    the guest's kernel panicked: its last lines are printed
  124  the time given with --timeout is over
  125  the guest ended before its command did
  130  Ctrl-A x, or interrupted; a signal n gives 128 + n
  141  nobody reads the output any more
  With --debug-exit, a byte c written to port F4h gives c << 1 | 1.";

/// The exit code for how a run ended; `signal` is the one that interrupted it, if one did.
pub(crate) fn code(end: &End, signal: Option<i32>) -> u8 {
    match end {
        End::PowerOff | End::Reset => OK,
        End::DebugExit(byte) => byte << 1 | 1,
        End::TripleFault(_) => TRIPLE_FAULT,
        End::GuestPanic(_) => GUEST_PANIC,
        End::TimedOut => TIMED_OUT,
        End::Interrupted => signal.map_or(INTERRUPTED, |n| 128_u8.wrapping_add(n as u8)),
        End::OutputClosed => OUTPUT_CLOSED,
        End::EngineFailed(_) | End::Defect(_) | End::MemoryLost(_) | End::OutputFailed(_) => FAILED,
        End::NotStarted(_) => BAD_INPUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_the_table_says() {
        assert_eq!(code(&End::PowerOff, None), 0);
        assert_eq!(code(&End::DebugExit(0x10), None), 0x21);
        assert_eq!(code(&End::DebugExit(0xff), None), 0xff);
        assert_eq!(code(&End::Interrupted, None), 130);
        assert_eq!(code(&End::Interrupted, Some(15)), 143);
        for code in
            [OK, FAILED, BAD_INPUT, TRIPLE_FAULT, GUEST_PANIC, TIMED_OUT, NO_STATUS, INTERRUPTED]
        {
            assert!(HELP.contains(&format!("\n  {code} ")), "{code} is not explained");
        }
    }
}
