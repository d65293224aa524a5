//! Executable memory that is never writable and executable through one address.
//!
//! The area is shared memory mapped twice, once to write and once to execute. The memory is a
//! memfd's, or anonymous where the host denies memfds (seccomp, `vm.memfd_noexec`). Where the host
//! allows no second mapping, there is one whose protection is toggled around each write, which is
//! slow, and denies others to run what is there meanwhile ([`CodeArea::may_be_shared`]).
//!
//! Code that is in place is changed by the word, so that who runs it meanwhile finds the old or the
//! new (AMD APM vol. 2, 7.6.1: an aligned quadword, instruction boundaries as they were).
#![allow(unsafe_code)] // Reason: mmap, and writing through the raw pointers it gives.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::guard::Registration;

/// A bump-allocated code area, registered with the fault guard as long as it lives.
#[derive(Debug)]
pub(crate) struct CodeArea {
    write: NonNull<u8>,
    exec: NonNull<u8>,
    len: usize,
    /// Bytes in use. Whoever writes holds the lock.
    used: Mutex<usize>,
    guard: Option<Registration>,
}

// SAFETY: the mappings belong to this value alone; nothing in it is tied to the creating thread.
unsafe impl Send for CodeArea {}
// SAFETY: it is written under the lock of `used`, where nobody runs yet or by the word.
unsafe impl Sync for CodeArea {}

/// Bytes of a huge page. The instruction TLB holds few small ones: a compiler's code, translated,
/// takes tens of mebibytes.
const HUGE_PAGE: usize = 2 << 20;

/// Where code of an area begins.
const ALIGNMENT: usize = 16;

impl CodeArea {
    /// An empty area of `capacity` bytes, rounded up to whole pages.
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        let len = capacity.max(1).next_multiple_of(4096);
        let (write, exec) = mapping(len)?;
        let start = exec.as_ptr() as usize;
        match Registration::new(start, start + len) {
            Ok(guard) => Ok(Self { write, exec, len, used: Mutex::new(0), guard: Some(guard) }),
            Err(error) => {
                unmap(write, exec, len);
                Err(error)
            }
        }
    }

    /// As [`CodeArea::new`], for translated code, whose faults the translator's own registration
    /// handles.
    pub(crate) fn new_translated(capacity: usize) -> io::Result<Self> {
        let len = capacity.max(1).next_multiple_of(4096);
        let (write, exec) = mapping(len)?;
        Ok(Self { write, exec, len, used: Mutex::new(0), guard: None })
    }

    /// Whether code may be written while other threads run what is there.
    pub(crate) fn may_be_shared(&self) -> bool {
        self.write != self.exec
    }

    /// Where the next `len` bytes go, as an offset, if nobody comes between; `None`: they do not
    /// fit.
    pub(crate) fn next(&self, len: usize) -> Option<usize> {
        let start = self.used().next_multiple_of(ALIGNMENT);
        start.checked_add(len).filter(|end| *end <= self.len).map(|_| start)
    }

    /// The executable address at `offset`.
    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.exec.as_ptr() as u64 + offset as u64
    }

    /// The executable range.
    pub(crate) fn range(&self) -> (usize, usize) {
        let start = self.exec.as_ptr() as usize;
        (start, start + self.len)
    }

    /// Overwrites `code` at `offset`, which lies in one aligned quadword. Others may run it: they
    /// find the old or the new, if instructions begin where they did.
    pub(crate) fn patch(&self, offset: usize, code: &[u8]) {
        let used = sync::lock(&self.used);
        let (start, from) = (offset & !7, offset & 7);
        assert!(from + code.len() <= 8, "a patch across quadwords");
        if start + 8 > self.len || offset + code.len() > *used || !self.writable(true) {
            return;
        }
        // SAFETY: an aligned quadword inside the mapping (checked), which is changed under the lock
        // only and lives as long as `self`.
        let word = unsafe { AtomicU64::from_ptr(self.write.as_ptr().add(start).cast()) };
        let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
        bytes[from..from + code.len()].copy_from_slice(code);
        word.store(u64::from_le_bytes(bytes), Ordering::Release);
        self.writable(false);
    }

    /// Resolves the rel32 at `place`, which may be patched, to `to`, both offsets.
    pub(crate) fn patch_rel32(&self, place: u32, to: u32) {
        let rel = i64::from(to) - (i64::from(place) + 4);
        self.patch(place as usize, &(rel as i32).to_le_bytes());
    }

    /// Puts a jump to `to` in place of the instruction of five bytes at `place`, both offsets.
    pub(crate) fn patch_jump(&self, place: u32, to: u32) {
        let rel = (i64::from(to) - (i64::from(place) + 5)) as i32;
        let [a, b, c, d] = rel.to_le_bytes();
        self.patch(place as usize, &[0xe9, a, b, c, d]);
    }

    /// Appends `code` at the next 16-byte boundary; its executable address, or `None` if it does
    /// not fit.
    pub(crate) fn push(&self, code: &[u8]) -> Option<NonNull<u8>> {
        let mut used = sync::lock(&self.used);
        let start = used.next_multiple_of(ALIGNMENT);
        let end = start.checked_add(code.len()).filter(|end| *end <= self.len)?;
        if !self.writable(true) {
            return None;
        }
        // SAFETY: start..end lies inside the mapping (checked above) and is not in use, so that
        // nobody runs or reads it; `code` is another object.
        unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), self.write.as_ptr().add(start), code.len());
        }
        if !self.writable(false) {
            return None;
        }
        self.collapse(*used, end);
        *used = end;
        // SAFETY: start <= len, so the result stays inside the mapping.
        Some(unsafe { self.exec.add(start) })
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *sync::lock(&self.used) = 0;
    }

    /// A copy of `len` bytes of code at `offset`, as far as they are in use.
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let used = sync::lock(&self.used);
        let end = offset.saturating_add(len).min(*used);
        let len = end.saturating_sub(offset);
        let mut copy = vec![0; len];
        // SAFETY: inside the used part, which is mapped readable; nobody writes while the lock is
        // held.
        unsafe {
            ptr::copy_nonoverlapping(self.exec.as_ptr().add(end - len), copy.as_mut_ptr(), len);
        };
        copy
    }

    /// The first bytes of the code at `offset`; zeros beyond the area's end.
    pub(crate) fn glance(&self, offset: usize) -> [u8; 4] {
        let mut bytes = [0; 4];
        for (n, byte) in bytes.iter_mut().enumerate().take(self.len.saturating_sub(offset)) {
            // SAFETY: inside the area, which is mapped readable; volatile, since another thread may
            // patch it.
            *byte = unsafe { self.exec.as_ptr().add(offset + n).read_volatile() };
        }
        bytes
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        *sync::lock(&self.used)
    }

    /// Puts what was filled when the area grew from `from` to `to` on huge pages, if the host can.
    fn collapse(&self, from: usize, to: usize) {
        for full in from / HUGE_PAGE..to / HUGE_PAGE {
            // SAFETY: `to` is within the mapping, and so is what lies below it. The contents stay;
            // who runs or patches code there waits for the host meanwhile. A refusal changes
            // nothing.
            let _ = unsafe {
                let place = self.exec.as_ptr().add(full * HUGE_PAGE);
                libc::madvise(place.cast(), HUGE_PAGE, libc::MADV_COLLAPSE)
            };
        }
    }

    fn writable(&self, on: bool) -> bool {
        if self.write != self.exec {
            return true;
        }
        let protection = libc::PROT_READ | if on { libc::PROT_WRITE } else { libc::PROT_EXEC };
        // SAFETY: the range is this area's own mapping; the one thread that uses it is here and so
        // not executing in it (`may_be_shared`).
        unsafe { libc::mprotect(self.exec.as_ptr().cast(), self.len, protection) == 0 }
    }
}

impl Drop for CodeArea {
    fn drop(&mut self) {
        // The range is unregistered first: once it is unmapped, another thread may have code there.
        self.guard = None;
        unmap(self.write, self.exec, self.len);
    }
}

fn unmap(write: NonNull<u8>, exec: NonNull<u8>, len: usize) {
    // SAFETY: both ranges were mapped with this length by the functions below and are not used
    // afterwards.
    unsafe {
        libc::munmap(exec.as_ptr().cast(), len);
        if write != exec {
            libc::munmap(write.as_ptr().cast(), len);
        }
    }
}

fn dual_mapping(len: usize) -> io::Result<(NonNull<u8>, NonNull<u8>)> {
    // SAFETY: the name is a C string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"gemello-thunks".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fd is ours; closed once, after the mappings that keep the memory alive are made.
    let result = unsafe {
        if libc::ftruncate(fd, len as libc::off_t) < 0 {
            Err(io::Error::last_os_error())
        } else {
            map(fd, len, libc::PROT_READ | libc::PROT_WRITE).and_then(|write| {
                map(fd, len, libc::PROT_READ | libc::PROT_EXEC)
                    .map(|exec| (write, exec))
                    .inspect_err(|_| {
                        libc::munmap(write.as_ptr().cast(), len);
                    })
            })
        }
    };
    // SAFETY: `fd` is this function's own, and nothing uses it after this; the mappings keep the
    // memory.
    unsafe { libc::close(fd) };
    result
}

/// The first kind of mapping that this host allows, or why it denies each of them.
fn mapping(len: usize) -> io::Result<(NonNull<u8>, NonNull<u8>)> {
    dual_mapping(len).or_else(|memfd| {
        anonymous_mapping(len).or_else(|anonymous| {
            toggled_mapping(len).map_err(|toggled| {
                // The kind that needs least has found no room.
                if toggled.raw_os_error() == Some(libc::ENOMEM) {
                    let size = match len >> 20 {
                        0 => format!("{} KiB", len >> 10),
                        mib => format!("{mib} MiB"),
                    };
                    return io::Error::other(format!(
                        "it has no {size} of address space left; raise the limit (ulimit -v)"
                    ));
                }
                io::Error::other(format!(
                    "a memfd: {memfd}; anonymous memory: {anonymous}; \
                     changing protections: {toggled}"
                ))
            })
        })
    })
}

/// Anonymous shared memory, mapped a second time by `mremap` of a length of zero (mremap(2)).
/// No mapping becomes executable later, which a host may deny (PR_SET_MDWE).
fn anonymous_mapping(len: usize) -> io::Result<(NonNull<u8>, NonNull<u8>)> {
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let exec = map_as(-1, len, libc::PROT_READ | libc::PROT_EXEC, shared)?;
    // SAFETY: `exec` is a shared mapping of our own; the new one is at an address of the kernel's
    // choice.
    let second = unsafe { libc::mremap(exec.as_ptr().cast(), 0, len, libc::MREMAP_MAYMOVE) };
    let write = match NonNull::new(second.cast::<u8>()) {
        Some(write) if second != libc::MAP_FAILED => write,
        _ => {
            let error = io::Error::last_os_error();
            unmap(exec, exec, len);
            return Err(error);
        }
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the range is the mapping just made, which nothing refers to.
    if unsafe { libc::mprotect(second, len, protection) } != 0 {
        let error = io::Error::last_os_error();
        unmap(write, exec, len);
        return Err(error);
    }
    Ok((write, exec))
}

/// One mapping, if the host lets its protection change there and back.
fn toggled_mapping(len: usize) -> io::Result<(NonNull<u8>, NonNull<u8>)> {
    let area = map(-1, len, libc::PROT_READ | libc::PROT_EXEC)?;
    for protection in [libc::PROT_WRITE, libc::PROT_EXEC] {
        // SAFETY: the range is the mapping just made, which nothing refers to.
        if unsafe { libc::mprotect(area.as_ptr().cast(), len, libc::PROT_READ | protection) } != 0 {
            let error = io::Error::last_os_error();
            unmap(area, area, len);
            return Err(error);
        }
    }
    Ok((area, area))
}

/// Maps `len` bytes of `fd`, or anonymous memory if it is -1.
fn map(fd: i32, len: usize, protection: i32) -> io::Result<NonNull<u8>> {
    let flags = if fd < 0 { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    map_as(fd, len, protection, flags)
}

/// A free place for `len` bytes that begins with a huge page, if there is one now.
fn huge_place(len: usize) -> *mut libc::c_void {
    let (flags, room) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, len + HUGE_PAGE);
    // SAFETY: a new mapping at an address of the kernel's choice, which goes again at once.
    unsafe {
        let place = libc::mmap(ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0);
        if place == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        libc::munmap(place, room);
        place.map_addr(|at| at.next_multiple_of(HUGE_PAGE))
    }
}

fn map_as(fd: i32, len: usize, protection: i32, flags: i32) -> io::Result<NonNull<u8>> {
    let hint = if len < HUGE_PAGE { ptr::null_mut() } else { huge_place(len) };
    // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
    let address = unsafe { libc::mmap(hint, len, protection, flags, fd, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned address zero"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_where_an_area_was_is_nobodys_code() {
        let done = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(order) {
                    drop(CodeArea::new(4096));
                }
            });
            let free = (0..50_000).all(|_| {
                let page = map(-1, 4096, libc::PROT_READ).expect("a page");
                let free = !super::super::guard::is_thunk(page.as_ptr() as usize);
                unmap(page, page, 4096);
                free
            });
            done.store(true, order);
            assert!(free);
        });
    }

    #[test]
    fn all_kinds_of_mapping_execute() {
        for pair in [dual_mapping(4096), anonymous_mapping(4096), toggled_mapping(4096)] {
            let Ok((write, exec)) = pair else { continue };
            let start = exec.as_ptr() as usize;
            let guard = Registration::new(start, start + 4096).expect("a free slot");
            let area = CodeArea { write, exec, len: 4096, used: Mutex::new(0), guard: Some(guard) };
            let code = area.push(&[0xb8, 42, 0, 0, 0, 0xc3]).expect("room");
            // SAFETY: the bytes are `mov eax, 42; ret`, a function of the type it is called as.
            let function: extern "sysv64" fn() -> u32 =
                unsafe { std::mem::transmute(code.as_ptr()) };
            assert_eq!(function(), 42);
        }
    }
}
