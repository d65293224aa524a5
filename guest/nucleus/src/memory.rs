//! Virtual memory of processes: regions promise, page faults deliver.
//!
//! A page comes into being when it is first touched: as zeros, from the program's image (pages
//! nobody may write are shared by all who run the program), back from the swap disk, or as a copy
//! of a page that was shared until someone wrote to it. The nucleus uses the same way when a system
//! call names user memory, so a bad pointer is found by the same rules as a bad access and is an
//! error, never a fault of the nucleus.

use crate::kernel::Kernel;
use crate::paging::{self, COPY_ON_WRITE, Entry, NO_EXECUTE, PRESENT, SWAPPED, USER, WRITABLE};
use crate::physical::{Frame, PAGE};
use crate::process::{Pid, Region, Source};
use crate::programs::PROGRAMS;
use crate::{cpu, swap};
use alloc::boxed::Box;
use core::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Why a page cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No region there, or not with this right.
    NotAllowed,
    /// No frame is free and none can be freed.
    NoMemory,
}

impl Kernel {
    /// A frame, if need be by moving out a page that has not been used for long.
    pub fn take_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.take() {
                return Some(frame);
            }
            if !self.evict() {
                return None;
            }
        }
    }

    /// Brings the page of `address` in, so that the process may access it in this way.
    pub fn page_in(&mut self, pid: Pid, address: u64, access: Access) -> Result<Frame, Refusal> {
        let process = self.processes.get(&pid).ok_or(Refusal::NotAllowed)?;
        let region = *process.region(address).ok_or(Refusal::NotAllowed)?;
        let allowed = match access {
            Access::Read => true,
            Access::Write => region.write,
            Access::Execute => region.execute,
        };
        if !allowed {
            return Err(Refusal::NotAllowed);
        }
        let (root, page) = (process.root, address & !(PAGE - 1));
        let place = paging::find_or_add(root, page, WRITABLE | USER, || self.take_frame())
            .ok_or(Refusal::NoMemory)?;
        loop {
            let old = place.get();
            if old & SWAPPED != 0 && old & PRESENT == 0 {
                return self.swap_in(place, &region);
            } else if old & PRESENT == 0 {
                return self.first_touch(place, &region, page);
            } else if access != Access::Write || old & WRITABLE != 0 {
                return Ok(paging::target(old));
            } else if let Some(frame) = self.copy_on_write(place, old, page)? {
                return Ok(frame);
            }
        }
    }

    fn first_touch(&mut self, place: Entry, region: &Region, page: u64) -> Result<Frame, Refusal> {
        let shared = match region.source {
            Source::Image { program, .. } if !region.write => Some((program, page)),
            _ => None,
        };
        let frame = match shared.and_then(|key| self.text.get(&key).copied()) {
            Some(frame) => frame,
            None => {
                let frame = self.take_frame().ok_or(Refusal::NoMemory)?;
                load(frame, region, page);
                frame
            }
        };
        if let Some(key) = shared {
            let known = self.text.insert(key, frame).is_some();
            // One owner is this process, another the list of texts.
            self.frames.share(frame);
            debug_assert!(known || self.frames.owners(frame) == 2);
        }
        place.set(frame.0 | rights(region));
        Ok(frame)
    }

    /// The page is shared and one of its owners writes. `None`: something changed meanwhile, look
    /// again.
    fn copy_on_write(
        &mut self,
        place: Entry,
        old: u64,
        page: u64,
    ) -> Result<Option<Frame>, Refusal> {
        let shared = paging::target(old);
        let value = (old | WRITABLE) & !COPY_ON_WRITE;
        if self.frames.owners(shared) == 1 {
            place.set(value);
            cpu::invlpg(page);
            return Ok(Some(shared));
        }
        let own = self.take_frame().ok_or(Refusal::NoMemory)?;
        if paging::target(place.get()) != shared || place.get() & PRESENT == 0 {
            self.frames.release(own); // to make room, this very page was moved out
            return Ok(None);
        }
        own.copy_from(shared);
        self.frames.release(shared);
        place.set(own.0 | (value & (PAGE - 1)) | (value & NO_EXECUTE));
        cpu::invlpg(page);
        self.copies += 1;
        Ok(Some(own))
    }

    fn swap_in(&mut self, place: Entry, region: &Region) -> Result<Frame, Refusal> {
        let slot = swap::slot(place.get());
        let frame = self.take_frame().ok_or(Refusal::NoMemory)?;
        if !self.swap.read(slot, frame) {
            self.frames.release(frame);
            return Err(Refusal::NoMemory);
        }
        self.swap.release(slot);
        place.set(frame.0 | rights(region));
        Ok(frame)
    }

    /// Copies from a process's memory. Fails without a fault if it is not all its own.
    pub fn copy_in(&mut self, pid: Pid, address: u64, to: &mut [u8]) -> Result<(), Refusal> {
        let mut done = 0;
        while done < to.len() {
            let at = address.checked_add(done as u64).ok_or(Refusal::NotAllowed)?;
            let offset = at % PAGE;
            let length = (to.len() - done).min((PAGE - offset) as usize);
            self.page_in(pid, at, Access::Read)?.read(offset, &mut to[done..done + length]);
            done += length;
        }
        Ok(())
    }

    /// Copies into a process's memory.
    pub fn copy_out(&mut self, pid: Pid, address: u64, from: &[u8]) -> Result<(), Refusal> {
        let mut done = 0;
        while done < from.len() {
            let at = address.checked_add(done as u64).ok_or(Refusal::NotAllowed)?;
            let offset = at % PAGE;
            let length = (from.len() - done).min((PAGE - offset) as usize);
            self.page_in(pid, at, Access::Write)?.write(offset, &from[done..done + length]);
            done += length;
        }
        Ok(())
    }

    /// Gives back every page in `range`.
    pub fn release_pages(&mut self, pid: Pid, range: Range<u64>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (root, mut from) = (process.root, range.start);
        while let Some((page, place)) = paging::next_used(root, from, range.end) {
            let entry = place.get();
            if entry & PRESENT != 0 {
                self.frames.release(paging::target(entry));
            } else {
                self.swap.release(swap::slot(entry));
            }
            place.set(0);
            cpu::invlpg(page);
            from = page + PAGE;
        }
    }

    /// A copy of a process. Not a page is copied: both now share all frames, and writable ones
    /// until someone writes.
    pub fn fork(&mut self, pid: Pid) -> Result<Pid, abi::Error> {
        let parent = self.processes.get(&pid).ok_or(abi::Error::NoProcess)?;
        let (context, regions) = (Box::clone(&parent.context), parent.regions.clone());
        let (name, root) = (parent.name.clone(), parent.root);
        let child = self.add(context, regions, name, pid)?;
        let child_root = self.processes[&child].root;
        let mut from = 0;
        while let Some((page, place)) = paging::next_used(root, from, paging::USER_END) {
            let copy = paging::find_or_add(child_root, page, WRITABLE | USER, || self.take_frame());
            let Some(copy) = copy else {
                self.end(child, crate::process::End::OutOfMemory);
                self.processes.remove(&child);
                return Err(abi::Error::NoMemory);
            };
            let mut entry = place.get(); // only now: making room may have moved the page out
            if entry & PRESENT == 0 {
                self.swap.share(swap::slot(entry));
            } else {
                self.frames.share(paging::target(entry));
                if entry & WRITABLE != 0 {
                    entry = (entry & !WRITABLE) | COPY_ON_WRITE;
                    place.set(entry);
                    cpu::invlpg(page);
                }
            }
            copy.set(entry);
            from = page + PAGE;
        }
        if let Some(child) = self.processes.get_mut(&child) {
            child.context.frame.rax = 0;
        }
        Ok(child)
    }

    /// How many pages of a process are in memory, and how many on disk.
    pub fn pages(&self, pid: Pid) -> (u64, u64) {
        let (mut resident, mut swapped, mut from) = (0, 0, 0);
        let Some(process) = self.processes.get(&pid) else { return (0, 0) };
        if matches!(process.state, crate::process::State::Ended(_)) {
            return (0, 0);
        }
        while let Some((page, place)) = paging::next_used(process.root, from, paging::USER_END) {
            let present = place.get() & PRESENT != 0;
            resident += u64::from(present);
            swapped += u64::from(!present);
            from = page + PAGE;
        }
        (resident, swapped)
    }
}

fn rights(region: &Region) -> u64 {
    PRESENT
        | USER
        | if region.write { WRITABLE } else { 0 }
        | if region.execute { 0 } else { NO_EXECUTE }
}

/// Fills a frame with what belongs on the page.
fn load(frame: Frame, region: &Region, page: u64) {
    frame.zero();
    if let Source::Image { program, offset, file, address } = region.source {
        let image = PROGRAMS[program].image;
        let from = page.max(address);
        let to = (page + PAGE).min(address + file);
        if from < to {
            let start = (offset + from - address) as usize;
            let bytes = image.get(start..start + (to - from) as usize).unwrap_or(&[]);
            frame.write(from - page, bytes);
        }
    }
}
