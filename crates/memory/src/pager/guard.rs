//! An access to a page that the host cannot bring back is a SIGBUS. This makes it a value.
//!
//! The pager brings pages in by calls that return errors, so this is for what it does not see: the
//! file is truncated under a resident page, or the host has taken a page out by itself and cannot
//! read it any more. The handler puts a page of zeros in its place, so that the thread goes on; the
//! machine is lost from then on ([`Guard::is_hit`]), is told at once ([`Guard::wait`]), and nothing
//! that is read from its memory leaves it.
#![allow(unsafe_code)] // Reason: a signal handler, mmap over a page that is lost.

use crate::ram::PAGE;
use host::{Ranges, chain, install_handler};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Regions of paged memory that a process may have at once.
const SLOTS: usize = 1024;
static RANGES: Ranges<SLOTS> = Ranges::new();
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// What the handler finds by an address.
#[derive(Debug)]
struct Bell {
    hit: AtomicBool,
    /// Written to by the handler, and by whoever wants the pager's attention.
    event: OwnedFd,
}

/// Guards the memory of one machine until it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    bell: Box<Bell>,
    slots: Vec<usize>,
}

impl Guard {
    /// Guards `regions`, each an address and a length of mapped memory.
    pub(super) fn new(regions: impl Iterator<Item = (usize, usize)>) -> io::Result<Self> {
        install()?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Box::new(Bell { hit: AtomicBool::new(false), event });
        let mut guard = Self { bell, slots: Vec::new() };
        for (start, len) in regions {
            let data = ptr::from_ref(&*guard.bell) as usize;
            let full = || io::Error::other(format!("more than {SLOTS} regions of paged memory"));
            guard.slots.push(RANGES.enter(start, start + len, data).ok_or_else(full)?);
        }
        Ok(guard)
    }

    /// Whether a page could not be brought back.
    pub(super) fn is_hit(&self) -> bool {
        self.bell.hit.load(Ordering::SeqCst)
    }

    /// Ends a [`Guard::wait`], this one or the next.
    pub(super) fn ring(&self) {
        ring(&self.bell);
    }

    /// Waits for [`Guard::ring`] or a lost page, `milliseconds` at the most.
    pub(super) fn wait(&self, milliseconds: i64) {
        let limit = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        let mut fds = [PollFd::new(&self.bell.event, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0) {
            let _ = rustix::io::read(&self.bell.event, &mut [0_u8; 8]);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for &slot in &self.slots {
            RANGES.take(slot);
        }
    }
}

/// As a signal handler may: one write.
fn ring(bell: &Bell) {
    let one = 1_u64;
    // SAFETY: eight bytes of a live value; the descriptor is open as long as the bell lives.
    unsafe { libc::write(bell.event.as_raw_fd(), ptr::from_ref(&one).cast(), 8) };
}

fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    DONE.get_or_init(|| {
        install_handler(libc::SIGBUS, &PREVIOUS, handler)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
    })
    .map_err(io::Error::from_raw_os_error)
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Raised by an access, not sent by a process.
    let data = if code > 0 { RANGES.find(address) } else { None };
    if data.is_none_or(|data| !replace(address, data)) {
        // SAFETY: the kernel passed these arguments to this handler, for the same signal.
        unsafe { chain(signal, info, context, &PREVIOUS) };
    }
}

/// Puts a page of zeros at `address`, which is in a range with `data`.
fn replace(address: usize, data: usize) -> bool {
    // SAFETY: `data` is the address of the bell of the guard whose range it is. The guard lives:
    // the access at hand is to the memory it guards, which it leaves before that is unmapped.
    let bell = unsafe { &*(data as *const Bell) };
    bell.hit.store(true, Ordering::SeqCst);
    let page = address & !(PAGE as usize - 1);
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: replaces one page of a mapping of `GuestRam`'s, which nothing in Rust refers to, by
    // another that may be accessed alike.
    let mapped = unsafe { libc::mmap(page as *mut _, PAGE as usize, rights, kind, -1, 0) };
    ring(bell);
    mapped != libc::MAP_FAILED
}
