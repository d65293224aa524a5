//! The kernels and system calls in C, behind safe functions.

// Linked for the C kernels, which call it.
use libsqlite3_sys as _;
use std::ffi::{CStr, CString, c_char, c_int};

/// A row of `c/rows.c`'s table; only pointed to.
#[repr(C)]
struct Row {
    _opaque: [u8; 0],
}

// SAFETY: these are their signatures in `c/rows.c` and `c/system.h`; a safe one takes nothing that
// could be wrong.
unsafe extern "C" {
    fn bench_row(name: *const c_char) -> *const Row;
    fn bench_operations(row: *const Row) -> u64;
    fn bench_prepare(row: *const Row);
    fn bench_run(row: *const Row) -> u64;
    fn bench_finish(row: *const Row);
    pub(crate) safe fn system_init();
    pub(crate) safe fn system_power_off();
    pub(crate) safe fn system_now() -> u64;
    pub(crate) safe fn system_uptime() -> u64;
    safe fn system_has_avx2() -> c_int;
}

/// A kernel, prepared as long as this value lives. One at a time: kernels have static data.
pub(crate) struct Kernel {
    row: *const Row,
}

impl Kernel {
    /// The kernel of this name, prepared.
    pub(crate) fn prepare(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: a C string; what comes back is null or an entry of a static table.
        let row = unsafe { bench_row(<CString as AsRef<CStr>>::as_ref(&name).as_ptr()) };
        if row.is_null() {
            return None;
        }
        // SAFETY: an entry of the table; this program has one thread.
        unsafe { bench_prepare(row) };
        Some(Self { row })
    }

    /// Operations in a pass.
    pub(crate) fn operations(&self) -> u64 {
        // SAFETY: `row` is an entry of the static table: only `prepare` makes a `Kernel`.
        unsafe { bench_operations(self.row) }
    }

    /// One pass; its result.
    pub(crate) fn pass(&mut self) -> u64 {
        // SAFETY: `row` is an entry of the static table, which `prepare` has prepared; one thread
        // runs.
        unsafe { bench_run(self.row) }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // SAFETY: an entry of the table, prepared once and finished once.
        unsafe { bench_finish(self.row) }
    }
}

pub(crate) use system_init as init;
pub(crate) use system_now as now;
pub(crate) use system_power_off as power_off;
pub(crate) use system_uptime as uptime;

/// Whether processor and kernel let AVX2 be used.
pub(crate) fn has_avx2() -> bool {
    system_has_avx2() != 0
}
