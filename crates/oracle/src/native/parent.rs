//! The parent's side: starts the child, hands it batches, and starts another when it dies.
#![allow(unsafe_code)]

use super::child::{ChildState, child_main};
use super::{BATCH, Mailbox};
use crate::case::Case;
use crate::outcome::{Event, Outcome};
use crate::subject::Subject;
use std::io::{Error as IoError, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

/// Why the host cannot run cases.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The processor or kernel lacks what the child needs.
    #[error("cannot run cases natively: the host lacks {0}; run the oracle on another machine")]
    Unsupported(&'static str),
    /// A system call failed.
    #[error("cannot {what} for the native child: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: IoError,
    },
    /// The child ends again and again before it has run a case.
    #[error(
        "the native child does not start (wait status {status:#x}): is seccomp filtering allowed \
         here?"
    )]
    Start {
        /// As `waitpid` gives it.
        status: i32,
    },
}

/// The host processor as a [`Subject`].
pub struct NativeRunner {
    mailbox: *mut Mailbox,
    child: Option<Child>,
    submitted: usize,
    restarts: u64,
}

struct Child {
    pid: i32,
    commands: PipeWriter,
    answers: PipeReader,
}

// SAFETY: the mailbox is owned by this value alone (the child is another process) and the rest is
// plain.
unsafe impl Send for NativeRunner {}

impl NativeRunner {
    /// Starts a child.
    ///
    /// # Errors
    /// The host lacks AVX or FSGSBASE, or refuses memory, a process or its sandbox.
    pub fn new() -> Result<Self, NativeError> {
        const HWCAP2_FSGSBASE: u64 = 2;
        // SAFETY: getauxval reads the auxiliary vector, which the kernel has placed before `main`.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
            return Err(NativeError::Unsupported("FSGSBASE (Linux 5.9 or later)"));
        }
        if !std::arch::is_x86_feature_detected!("avx") {
            return Err(NativeError::Unsupported("AVX"));
        }
        let mut this = Self { mailbox: map_mailbox()?, child: None, submitted: 0, restarts: 0 };
        this.start()?;
        Ok(this)
    }

    /// Children started after the first, each because one died.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Runs up to [`BATCH`] cases (more are dropped) and gives their outcomes in the same order.
    ///
    /// # Errors
    /// A new child was needed and did not start.
    pub fn run_batch(&mut self, cases: &[Case]) -> Result<&[Outcome], NativeError> {
        self.submit(cases)?;
        self.wait()
    }

    /// Lets the child start on up to [`BATCH`] cases; [`NativeRunner::wait`] must follow.
    ///
    /// # Errors
    /// As [`NativeRunner::run_batch`].
    pub fn submit(&mut self, cases: &[Case]) -> Result<(), NativeError> {
        self.submitted = cases.len().min(BATCH);
        // SAFETY: the child waits for a command, so the mailbox is ours.
        let mailbox = unsafe { &mut *self.mailbox };
        mailbox.cases[..self.submitted].copy_from_slice(&cases[..self.submitted]);
        mailbox.count = self.submitted as u32;
        mailbox.current = 0;
        self.command(0)
    }

    /// Waits for the outcomes of what was submitted.
    ///
    /// # Errors
    /// As [`NativeRunner::run_batch`].
    pub fn wait(&mut self) -> Result<&[Outcome], NativeError> {
        let mut suspect = None;
        while self.submitted != 0 && !self.answered() {
            let status = self.bury();
            // SAFETY: the child is dead (`bury` has waited for it), so nothing else accesses the
            // mailbox.
            let mailbox = unsafe { &mut *self.mailbox };
            let mut next = mailbox.current;
            // A case is to blame only if the child dies on it twice.
            if suspect == Some(next) {
                if let Some(outcome) = mailbox.outcomes.get_mut(next as usize) {
                    *outcome = Outcome::ended(Event::DIED, status as u32);
                }
                next += 1;
            }
            suspect = Some(next);
            self.restarts += 1;
            self.start()?;
            if next >= self.submitted as u32 {
                break;
            }
            self.command(next)?;
        }
        // SAFETY: the child waits for a command, so the mailbox is ours.
        Ok(unsafe { &(&(*self.mailbox).outcomes)[..self.submitted] })
    }

    /// Tells the child to run the submitted cases from `first` on. If it is dead, `wait` notices.
    fn command(&mut self, first: u32) -> Result<(), NativeError> {
        if self.submitted == 0 {
            return Ok(());
        }
        // SAFETY: the child waits for a command, so the mailbox is ours.
        unsafe {
            (*self.mailbox).first = first;
            (*self.mailbox).current = first;
        }
        if self.child.is_none() {
            self.start()?;
        }
        if let Some(child) = &mut self.child {
            // A failure means that the child is gone.
            let _ = child.commands.write_all(&[0]);
        }
        Ok(())
    }

    /// Waits for the child's answer; false if it died instead.
    fn answered(&mut self) -> bool {
        let mut byte = [0];
        self.child.as_mut().is_some_and(|c| c.answers.read_exact(&mut byte).is_ok())
    }

    /// Takes leave of a dead (or doomed) child and returns its wait status.
    fn bury(&mut self) -> i32 {
        let mut status = 0;
        if let Some(child) = self.child.take() {
            // SAFETY: our own child, not yet waited for, so the id is still its.
            unsafe {
                libc::kill(child.pid, libc::SIGKILL);
                libc::waitpid(child.pid, &raw mut status, 0);
            }
        }
        status
    }

    /// Forks a child and waits until it is ready.
    fn start(&mut self) -> Result<(), NativeError> {
        let failed = |what| move |source| NativeError::System { what, source };
        let (child_commands, commands) = pipe().map_err(failed("make a pipe"))?;
        let (answers, child_answers) = pipe().map_err(failed("make a pipe"))?;
        let state = Box::into_raw(ChildState::new(self.mailbox));
        // SAFETY: the child calls nothing but `child_main`, which keeps to what is allowed after
        // `fork`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: freshly forked, and `state` is the child's copy.
            unsafe { child_main(state, child_commands.as_raw_fd(), child_answers.as_raw_fd()) }
        }
        // SAFETY: from `Box::into_raw` above; the child has its own copy.
        drop(unsafe { Box::from_raw(state) });
        if pid < 0 {
            return Err(failed("fork")(IoError::last_os_error()));
        }
        drop((child_commands, child_answers));
        self.child = Some(Child { pid, commands, answers });
        if self.answered() { Ok(()) } else { Err(NativeError::Start { status: self.bury() }) }
    }

    /// The child's process id, for a test that kills it.
    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.pid)
    }
}

impl Subject for NativeRunner {
    /// One case; [`NativeRunner::run_batch`] is much faster. A child that cannot be restarted ends
    /// as [`Event::DIED`].
    fn run(&mut self, case: &Case) -> Outcome {
        match self.run_batch(std::slice::from_ref(case)) {
            Ok([outcome]) => *outcome,
            _ => Outcome::ended(Event::DIED, 0),
        }
    }
}

impl Drop for NativeRunner {
    fn drop(&mut self) {
        self.bury();
        // SAFETY: mapped by `map_mailbox` with this size, and no reference into it is left.
        unsafe { libc::munmap(self.mailbox.cast(), size_of::<Mailbox>()) };
    }
}

fn map_mailbox() -> Result<*mut Mailbox, NativeError> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping. All-zero bytes are a valid Mailbox: it holds integers only.
    let mailbox = unsafe { libc::mmap(null_mut(), size_of::<Mailbox>(), protection, flags, -1, 0) };
    if mailbox == libc::MAP_FAILED {
        let source = IoError::last_os_error();
        return Err(NativeError::System { what: "map shared memory", source });
    }
    Ok(mailbox.cast())
}
