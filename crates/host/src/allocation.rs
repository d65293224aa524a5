//! Memory that the host refuses: the process says so and ends, where the standard library would
//! abort it.
#![allow(unsafe_code)] // Reason: a global allocator and _exit(2).

use crate::heap::{self, Use};
use rustix::thread::gettid;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Cursor, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// The exit status of a process that ran out of memory.
const STATUS: i32 = 1;

/// What is done first.
static LAST: OnceLock<fn()> = OnceLock::new();
/// The thread that ends the process; 0: none.
static ENDING: AtomicI32 = AtomicI32::new(0);

/// The system's allocator, for `#[global_allocator]`: a request that it refuses ends the process,
/// with a message and exit status 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

/// Before the process ends for want of memory, `last` is called, once; it must not need any, and
/// must come back.
pub fn at_exhaustion(last: fn()) {
    let _ = LAST.set(last);
}

/// Ends the process at once: nothing is written out, no destructor runs. For where the process is
/// not to be trusted any more.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions, and does not return.
    unsafe { libc::_exit(status) }
}

// SAFETY: each call goes to the system allocator with the same arguments, and whoever calls this
// one keeps the contract of `GlobalAlloc`; a null result never returns.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is passed on unchanged; the contract of `GlobalAlloc` binds the
        // caller.
        given(unsafe { System.alloc(layout) }, layout.size(), Use::All)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is passed on unchanged; the contract of `GlobalAlloc` binds the
        // caller.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size(), Use::Little)
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the block and its layout came from `System` through this allocator, by the
        // contract of `GlobalAlloc`.
        given(unsafe { System.realloc(block, layout, size) }, size, Use::All)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block and its layout came from `System` through this allocator, by the
        // contract of `GlobalAlloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[inline]
fn given(block: *mut u8, size: usize, used: Use) -> *mut u8 {
    if block.is_null() {
        exhausted(size)
    }
    heap::look(block.addr(), size, used);
    block
}

/// Says what was refused, and ends the process. Nothing here allocates.
#[cold]
fn exhausted(size: usize) -> ! {
    let me = gettid().as_raw_pid();
    match ENDING.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        Err(other) if other == me => leave(STATUS), // `LAST` has asked for memory
        Err(_) => loop {
            std::thread::sleep(Duration::from_secs(1)); // another thread is about to end us
        },
    }
    if let Some(last) = LAST.get() {
        last();
    }
    let mut text = [0; 160];
    let mut cursor = Cursor::new(&mut text[..]);
    let _ = writeln!(
        cursor,
        "gemello: the host refuses {size} bytes of memory; raise its limit (ulimit -v) or free some"
    );
    let length = cursor.position() as usize;
    let _ = rustix::io::write(rustix::stdio::stderr(), text.get(..length).unwrap_or_default());
    leave(STATUS)
}
