//! Typed and atomic access to guest memory, for the page walk.

use crate::GuestRam;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use x86::addr::Gpa;
use x86::bus::PhysicalMemory;

impl GuestRam {
    fn word32(&self, gpa: Gpa) -> Option<&AtomicU32> {
        let host = self.host_address(gpa, 4).filter(|_| gpa.is_aligned(4))?;
        // SAFETY: the address lies in a live mapping that `self` keeps, is aligned (regions are
        // page aligned), and guest memory is only ever accessed by atomic or volatile operations.
        #[allow(unsafe_code)]
        Some(unsafe { AtomicU32::from_ptr(host.cast()) })
    }

    /// Puts `value` in the byte at `gpa`, in one step with the look at what was there: for bytes
    /// that processors change, too. `None`: it is no RAM. [`GuestRam::wrote`] is not needed.
    pub fn swap_byte(&self, gpa: Gpa, value: u8) -> Option<u8> {
        let host = self.host_address(gpa, 1)?;
        // SAFETY: the address lies in a live mapping that `self` keeps; guest memory is only ever
        // accessed by atomic or volatile operations.
        #[allow(unsafe_code)]
        let byte = unsafe { AtomicU8::from_ptr(host) };
        let before = byte.swap(value, Ordering::SeqCst);
        self.wrote(gpa, 1);
        Some(before)
    }

    fn word64(&self, gpa: Gpa) -> Option<&AtomicU64> {
        let host = self.host_address(gpa, 8).filter(|_| gpa.is_aligned(8))?;
        // SAFETY: the address lies in a live mapping that `self` keeps and is aligned; guest memory
        // is only ever accessed by atomic or volatile operations.
        #[allow(unsafe_code)]
        Some(unsafe { AtomicU64::from_ptr(host.cast()) })
    }
}

impl PhysicalMemory for GuestRam {
    fn read_u32(&self, gpa: Gpa) -> u32 {
        self.word32(gpa).map_or(u32::MAX, |w| w.load(Ordering::Relaxed))
    }

    fn read_u64(&self, gpa: Gpa) -> u64 {
        self.word64(gpa).map_or(u64::MAX, |w| w.load(Ordering::Relaxed))
    }

    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> bool {
        let Some(word) = self.word32(gpa) else { return true };
        let done = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if done {
            self.told(gpa, 4);
        }
        done
    }

    fn compare_exchange_u64(&self, gpa: Gpa, old: u64, new: u64) -> bool {
        let Some(word) = self.word64(gpa) else { return true };
        let done = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if done {
            self.told(gpa, 8);
        }
        done
    }
}
