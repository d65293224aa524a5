//! Executable memory that is never writable and executable through one address.
//!
//! The area is shared memory mapped twice, once to write and once to execute. The memory is a
//! memfd's, or anonymous where the host denies memfds (seccomp, `vm.memfd_noexec`). Where the host
//! allows no second mapping, there is one whose protection is toggled around each write, which is
//! slow. One thread owns an area.
#![allow(unsafe_code)] // Reason: mmap, and writing through the raw pointers it gives.

use std::io;
use std::ptr::{self, NonNull};

use super::guard::Registration;

/// A bump-allocated code area, registered with the fault guard as long as it lives.
#[derive(Debug)]
pub(crate) struct CodeArea {
    write: NonNull<u8>,
    exec: NonNull<u8>,
    len: usize,
    used: usize,
    guard: Option<Registration>,
}

// SAFETY: the mappings belong to this value alone; nothing in it is tied to the creating thread.
unsafe impl Send for CodeArea {}

impl CodeArea {
    /// An empty area of `capacity` bytes, rounded up to whole pages.
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        let len = capacity.max(1).next_multiple_of(4096);
        let (write, exec) = mapping(len)?;
        let start = exec.as_ptr() as usize;
        match Registration::new(start, start + len) {
            Ok(guard) => Ok(Self { write, exec, len, used: 0, guard: Some(guard) }),
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
        Ok(Self { write, exec, len, used: 0, guard: None })
    }

    /// Where the next `len` bytes would go, as an offset; `None`: they do not fit.
    pub(crate) fn next(&self, len: usize) -> Option<usize> {
        let start = self.used;
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

    /// Overwrites code that is in place. It must not be executing.
    pub(crate) fn patch(&mut self, offset: usize, code: &[u8]) {
        if offset + code.len() > self.used || !self.writable(true) {
            return;
        }
        // SAFETY: inside the used part (checked), which only `self` writes.
        unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), self.write.as_ptr().add(offset), code.len());
        }
        self.writable(false);
    }

    /// Appends `code` at the next 16-byte boundary; its executable address, or `None` if it does
    /// not fit.
    pub(crate) fn push(&mut self, code: &[u8]) -> Option<NonNull<u8>> {
        let start = self.used;
        let end = start.checked_add(code.len()).filter(|end| *end <= self.len)?;
        if !self.writable(true) {
            return None;
        }
        // SAFETY: start..end lies inside the mapping (checked above), which only `self` writes;
        // `code` is another object.
        unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), self.write.as_ptr().add(start), code.len());
        }
        if !self.writable(false) {
            return None;
        }
        self.used = end;
        // SAFETY: start <= len, so the result stays inside the mapping.
        Some(unsafe { self.exec.add(start) })
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    /// A copy of `len` bytes of code at `offset`, as far as they are in use.
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len).min(self.used);
        let len = end.saturating_sub(offset);
        let mut copy = vec![0; len];
        // SAFETY: inside the used part, which is mapped readable; nobody writes meanwhile
        // (`&self`).
        unsafe {
            ptr::copy_nonoverlapping(self.exec.as_ptr().add(end - len), copy.as_mut_ptr(), len);
        };
        copy
    }

    /// The first bytes of the code at `offset`; zeros beyond the area's end.
    pub(crate) fn glance(&self, offset: usize) -> [u8; 4] {
        let mut bytes = [0; 4];
        let len = self.len.saturating_sub(offset).min(bytes.len());
        // SAFETY: inside the area, which is mapped readable.
        unsafe {
            ptr::copy_nonoverlapping(self.exec.as_ptr().add(offset), bytes.as_mut_ptr(), len);
        };
        bytes
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    fn writable(&self, on: bool) -> bool {
        if self.write != self.exec {
            return true;
        }
        let protection = libc::PROT_READ | if on { libc::PROT_WRITE } else { libc::PROT_EXEC };
        // SAFETY: the range is this area's own mapping; its one thread is here and so not executing
        // in it.
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

fn map_as(fd: i32, len: usize, protection: i32, flags: i32) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
    let address = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) };
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
            let mut area = CodeArea { write, exec, len: 4096, used: 0, guard: Some(guard) };
            let code = area.push(&[0xb8, 42, 0, 0, 0, 0xc3]).expect("room");
            // SAFETY: the bytes are `mov eax, 42; ret`, a function of the type it is called as.
            let function: extern "sysv64" fn() -> u32 =
                unsafe { std::mem::transmute(code.as_ptr()) };
            assert_eq!(function(), 42);
        }
    }
}
