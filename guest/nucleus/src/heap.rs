//! The nucleus's own dynamic memory: a fixed arena, so that it never competes with the processes
//! for frames.
//!
//! First fit over a list of free blocks sorted by address, neighbours merged when one is freed.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

/// Enough for as many processes as there may be, each with all the regions and messages it may
/// have.
const ARENA: usize = 3 << 20;
/// Every block's size and place is a multiple of this: the largest alignment in use (the XSAVE
/// area's).
const GRAIN: usize = 64;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; ARENA]>);

/// At the beginning of every free block.
struct Free {
    bytes: usize,
    next: *mut Free,
}

/// The allocator.
struct Heap {
    arena: Arena,
    state: UnsafeCell<State>,
}

struct State {
    first: *mut Free,
    started: bool,
    used: usize,
}

// SAFETY: one processor, and handlers are never interrupted: there is only ever one caller.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap {
    arena: Arena(UnsafeCell::new([0; ARENA])),
    state: UnsafeCell::new(State { first: ptr::null_mut(), started: false, used: 0 }),
};

/// Bytes in use, of [`total`].
pub fn used() -> usize {
    // SAFETY: one processor, and handlers are never interrupted: nothing else is in the heap now.
    unsafe { (*HEAP.state.get()).used }
}

/// Bytes there are.
pub const fn total() -> usize {
    ARENA
}

fn rounded(layout: Layout) -> usize {
    layout.size().max(1).next_multiple_of(GRAIN)
}

// SAFETY: blocks handed out lie in the arena, do not overlap, and are aligned to GRAIN, which is
// checked to be enough.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > GRAIN {
            return ptr::null_mut();
        }
        let bytes = rounded(layout);
        // SAFETY: single caller; the list links only blocks inside the arena that are free.
        unsafe {
            let state = &mut *self.state.get();
            if !state.started {
                state.started = true;
                state.first = self.arena.0.get().cast();
                state.first.write(Free { bytes: ARENA, next: ptr::null_mut() });
            }
            let mut link: *mut *mut Free = &mut state.first;
            while !(*link).is_null() {
                let block = *link;
                if (*block).bytes >= bytes {
                    let rest = (*block).bytes - bytes;
                    *link = if rest == 0 {
                        (*block).next
                    } else {
                        let tail: *mut Free = block.cast::<u8>().add(bytes).cast();
                        tail.write(Free { bytes: rest, next: (*block).next });
                        tail
                    };
                    state.used += bytes;
                    return block.cast();
                }
                link = &mut (*block).next;
            }
        }
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let bytes = rounded(layout);
        // SAFETY: one processor and uninterrupted handlers: there is a single caller. `alloc`
        // handed the block out with the same layout.
        unsafe {
            let state = &mut *self.state.get();
            state.used -= bytes;
            let mut previous: *mut Free = ptr::null_mut();
            let mut next = state.first;
            while !next.is_null() && next.cast::<u8>() < pointer {
                previous = next;
                next = (*next).next;
            }
            let mut block: *mut Free = pointer.cast();
            block.write(Free { bytes, next });
            if previous.is_null() {
                state.first = block;
            } else if previous.cast::<u8>().add((*previous).bytes) == pointer {
                (*previous).bytes += bytes;
                block = previous;
            } else {
                (*previous).next = block;
            }
            if !next.is_null() && block.cast::<u8>().add((*block).bytes) == next.cast() {
                (*block).bytes += (*next).bytes;
                (*block).next = (*next).next;
            } else {
                (*block).next = next;
            }
        }
    }
}
