//! Transfers between guest memory and a file that go on while the thread does something else: the
//! host's io_uring.
//!
//! A container's seccomp filter often forbids it, and `kernel.io_uring_disabled` may: then there is
//! no ring, and the caller makes the same transfers by plain calls. So it does where the kernel may
//! not have a thread for what blocks (`ulimit -u`).
#![allow(unsafe_code)] // Reason: the kernel is given addresses that it uses until it says so.

use super::Transfer;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Transfers under way, each with what its caller knows it by.
pub struct Ring<T> {
    ring: IoUring,
    /// By the number that the kernel has; its memory and file stay until the kernel is done.
    flights: Vec<Option<Flight<T>>>,
    /// Those to be started, for the first time or with what is left.
    waiting: Vec<usize>,
    /// The kernel had no thread for a transfer.
    given_up: bool,
}

/// How long the kernel may take for its first thread.
const PATIENCE_SECONDS: u64 = 2;

struct Flight<T> {
    file: Arc<File>,
    transfer: Transfer,
    token: T,
}

impl<T> Ring<T> {
    /// Room for `most` transfers at once.
    ///
    /// # Errors
    /// The host has no io_uring, forbids it, or has no thread for it.
    pub fn new(most: u32) -> io::Result<Self> {
        let mut ring = IoUring::new(most)?;
        has_a_thread(&mut ring)?;
        let flights = (0..most).map(|_| None).collect();
        Ok(Self { ring, flights, waiting: Vec::new(), given_up: false })
    }

    /// Whether the kernel has served everything so far; else plain calls are better from now on.
    pub fn serves(&self) -> bool {
        !self.given_up
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.flights.iter().all(Option::is_none)
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.flights.iter().all(Option::is_some)
    }

    /// Notes a transfer, which [`Ring::submit`] starts.
    ///
    /// # Panics
    /// There is no room.
    pub fn add(&mut self, file: Arc<File>, transfer: Transfer, token: T) {
        let vacant = self.flights.iter().position(Option::is_none);
        let number = vacant.expect("the caller keeps to the most that it asked for");
        self.flights[number] = Some(Flight { file, transfer, token });
        self.waiting.push(number);
    }

    /// Starts what waits, and waits until `least` transfers are done.
    ///
    /// # Errors
    /// The host starts none any more.
    pub fn submit(&mut self, least: usize) -> io::Result<()> {
        for number in self.waiting.drain(..) {
            let Some(flight) = &self.flights[number] else { continue };
            let entry = flight.entry().user_data(number as u64);
            // SAFETY: the file, the list of pieces and the memory that they name belong to the
            // flight. Nobody takes it out before its completion has come: `done` upholds that, and
            // `drop` waits for all.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            pushed.expect("there are as many entries as transfers");
        }
        match self.ring.submit_and_wait(least) {
            // Nothing is lost: the next call starts what is left.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// What is done, and how it went. A part that is left of a transfer is started again.
    pub fn done(&mut self) -> Vec<(T, io::Result<()>)> {
        let mut done = Vec::new();
        let completions: Vec<_> = self.ring.completion().collect();
        for completion in completions {
            let number = completion.user_data() as usize;
            let Some(mut flight) = self.flights[number].take() else { continue };
            self.given_up |= completion.result() == -libc::ECANCELED;
            match flight.progress(completion.result()) {
                Some(outcome) => done.push((flight.token, outcome)),
                None => {
                    self.flights[number] = Some(flight);
                    self.waiting.push(number);
                }
            }
        }
        done
    }
}

/// That the kernel serves what blocks: it does so with threads that count as this process's. Where
/// it may have none, it gives a transfer up, or leaves it.
fn has_a_thread(ring: &mut IoUring) -> io::Result<()> {
    let nothing = opcode::Nop::new().build().flags(squeue::Flags::ASYNC);
    // SAFETY: it names no memory and no file.
    let pushed = unsafe { ring.submission().push(&nothing) };
    pushed.expect("the ring is empty");
    let limit = types::Timespec::new().sec(PATIENCE_SECONDS);
    ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))?;
    match ring.completion().next().map(|done| done.result()) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(ErrorKind::TimedOut.into()),
    }
}

/// A signal, or a lack of memory for the moment.
fn is_passing(error: &io::Error) -> bool {
    let busy = error.raw_os_error() == Some(libc::EBUSY);
    busy || [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind())
}

impl<T> Flight<T> {
    fn entry(&self) -> io_uring::squeue::Entry {
        let fd = types::Fd(self.file.as_raw_fd());
        match &self.transfer {
            Transfer::Read { vectors, offset } => {
                let rest = vectors.rest();
                opcode::Readv::new(fd, rest.as_ptr(), rest.len() as u32).offset(*offset).build()
            }
            Transfer::Write { vectors, offset } => {
                let rest = vectors.rest();
                opcode::Writev::new(fd, rest.as_ptr(), rest.len() as u32).offset(*offset).build()
            }
            Transfer::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        }
    }

    /// Takes the kernel's answer. `None`: there is something left to do.
    fn progress(&mut self, answer: i32) -> Option<io::Result<()>> {
        if let Ok(bytes) = usize::try_from(answer) {
            return self.transfer.progress(bytes);
        }
        if answer == -libc::ECANCELED {
            // Nobody here takes a transfer back: the kernel had no thread for it.
            return Some(self.transfer.wait(&self.file));
        }
        let error = io::Error::from_raw_os_error(-answer);
        let again = [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind());
        (!again).then_some(Err(error))
    }
}

impl<T> AsFd for Ring<T> {
    /// Ready to be read when something is done.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's, which outlives what is returned.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(|number| self.flights[number] = None);
        while !self.is_empty() {
            if self.ring.submit_and_wait(1).is_err_and(|error| !is_passing(&error)) {
                // The kernel may still use them: they stay for good.
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
            let completions: Vec<_> = self.ring.completion().collect();
            completions.iter().for_each(|done| self.flights[done.user_data() as usize] = None);
        }
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flying = self.flights.iter().filter(|flight| flight.is_some()).count();
        write!(f, "Ring({flying} of {})", self.flights.len())
    }
}
