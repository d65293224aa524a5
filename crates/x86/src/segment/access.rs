//! One access through a segment register: limit, type and canonicality (SDM vol. 3, 5.3, 5.5; vol.
//! 1, 3.3.7.1).

use crate::addr::{La, Vector};
use crate::bus::AccessKind;
use crate::exception::Exception;
use crate::state::{CpuState, Mode, Seg, Segment};

/// Checks `len` bytes at `offset` through `seg` and gives their linear address.
///
/// Real and virtual-8086 mode check the limit only. In 64-bit mode only FS and GS have a base; the
/// address must be canonical.
///
/// # Errors
/// #SS(0) through SS, #GP(0) through any other.
pub fn check_access(
    state: &CpuState,
    seg: Seg,
    offset: u64,
    len: u32,
    kind: AccessKind,
) -> Result<La, Exception> {
    let segment = state.seg[seg as usize];
    let mode = state.mode();
    let fault = || {
        let vector = if seg == Seg::Ss { Vector::SS } else { Vector::GP };
        Exception::with_code(vector, 0)
    };
    if mode == Mode::Long64 {
        let base = if matches!(seg, Seg::Fs | Seg::Gs) { segment.base } else { 0 };
        return canonical_range(La(base.wrapping_add(offset)), len).ok_or_else(fault);
    }
    let typed = matches!(mode, Mode::Real | Mode::Virtual8086) || type_allows(&segment, kind);
    if typed && within_limit(&segment, offset, len) {
        Ok(La(segment.base.wrapping_add(offset) & 0xffff_ffff))
    } else {
        Err(fault())
    }
}

/// `la` if its first and last byte are canonical.
pub(super) fn canonical_range(la: La, len: u32) -> Option<La> {
    let last = la.wrapping_add(u64::from(len.max(1)) - 1);
    (la.is_canonical() && last.is_canonical()).then_some(la)
}

fn type_allows(segment: &Segment, kind: AccessKind) -> bool {
    segment.present()
        && match kind {
            AccessKind::Read => segment.is_readable(),
            AccessKind::Write => segment.is_writable(),
            AccessKind::Execute => segment.is_code(),
        }
}

/// SDM vol. 3, 5.3. An access that wraps at 4 GiB is always out of bounds.
pub(super) fn within_limit(segment: &Segment, offset: u64, len: u32) -> bool {
    let Some(last) = offset.checked_add(u64::from(len.max(1)) - 1) else { return false };
    let limit = u64::from(segment.limit);
    if segment.is_expand_down() {
        let top = if segment.is_big() { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}
