//! Typed and atomic access to guest memory, for the page walk.

use crate::GuestRam;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vm_memory::{Bytes, GuestAddress};
use x86::bus::PhysicalMemory;

impl PhysicalMemory for GuestRam {
    fn read_u32(&self, gpa: u64) -> u32 {
        self.map.load(GuestAddress(gpa), Ordering::Relaxed).unwrap_or(u32::MAX)
    }

    fn read_u64(&self, gpa: u64) -> u64 {
        self.map.load(GuestAddress(gpa), Ordering::Relaxed).unwrap_or(u64::MAX)
    }

    fn compare_exchange_u32(&self, gpa: u64, old: u32, new: u32) -> bool {
        let Some(host) = self.host_address(gpa, 4) else { return true };
        if gpa % 4 != 0 {
            return true;
        }
        // SAFETY: the address lies in a live mapping that `self` keeps, is aligned (checked above; regions are
        // page aligned), and guest memory is only accessed by atomic or volatile operations.
        #[allow(unsafe_code)]
        let word = unsafe { AtomicU32::from_ptr(host.cast()) };
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn compare_exchange_u64(&self, gpa: u64, old: u64, new: u64) -> bool {
        let Some(host) = self.host_address(gpa, 8) else { return true };
        if gpa % 8 != 0 {
            return true;
        }
        // SAFETY: as above.
        #[allow(unsafe_code)]
        let word = unsafe { AtomicU64::from_ptr(host.cast()) };
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
