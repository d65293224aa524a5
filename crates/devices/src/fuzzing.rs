//! Entry points for fuzzing.

/// Builds all devices on a bus and accesses them as `data` says. Must neither panic nor hang.
pub fn fuzz(data: &[u8]) {
    let _ = data;
}
