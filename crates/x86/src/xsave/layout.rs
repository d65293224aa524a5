//! Where the state components lie in an XSAVE area (SDM vol. 1, 13.4 and 13.5).

use crate::cpuid::{CpuModel, Feature};

/// Component bits of XCR0, XSTATE_BV and XCOMP_BV.
pub mod bits {
    /// x87.
    pub const X87: u64 = 1 << 0;
    /// XMM registers (and MXCSR with them).
    pub const SSE: u64 = 1 << 1;
    /// Upper halves of the YMM registers.
    pub const AVX: u64 = 1 << 2;
    /// PKRU.
    pub const PKRU: u64 = 1 << 9;
    /// Both parts of the legacy region.
    pub const LEGACY: u64 = X87 | SSE;
    /// XCOMP_BV: the image has the compacted form.
    pub const COMPACTED: u64 = 1 << 63;
}

/// Length of the legacy region and the header: where the extended region begins.
pub const EXTENDED: u32 = 576;
/// Where the header begins; XSTATE_BV first, XCOMP_BV next.
pub const HEADER: u32 = 512;

/// One component of the extended region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its bit number.
    pub index: u32,
    /// Bytes.
    pub size: u32,
    /// Offset in the standard form; none of ours asks for alignment in the compacted form.
    pub offset: u32,
}

/// The components of the extended region that we know, in order.
const COMPONENTS: [Component; 2] = [
    Component { index: 2, size: 256, offset: 576 },
    // Where processors with AVX-512 have it, so that images move between hosts.
    Component { index: 9, size: 8, offset: 2688 },
];

/// The component numbered `index`, 2 or above.
pub fn component(index: u32) -> Option<Component> {
    COMPONENTS.into_iter().find(|c| c.index == index)
}

/// The bits of XCR0 that `model` lets be set.
pub const fn supported_xcr0(model: &CpuModel) -> u64 {
    let mut bits = bits::LEGACY;
    if model.has(Feature::Avx) {
        bits |= bits::AVX;
    }
    if model.has(Feature::Pku) {
        bits |= bits::PKRU;
    }
    bits
}

/// The bits of IA32_XSS that `model` lets be set: no supervisor component is known.
pub const fn supported_xss(_model: &CpuModel) -> u64 {
    0
}

/// Bytes of a standard-form area that holds `components`.
pub fn standard_size(components: u64) -> u32 {
    let present = COMPONENTS.into_iter().filter(|c| components >> c.index & 1 != 0);
    present.fold(EXTENDED, |size, c| size.max(c.offset + c.size))
}

/// Bytes of a compacted-form area that holds `components`.
pub fn compacted_size(components: u64) -> u32 {
    let present = COMPONENTS.into_iter().filter(|c| components >> c.index & 1 != 0);
    present.fold(EXTENDED, |size, c| size + c.size)
}

/// Where component `index` lies in a compacted-form area whose XCOMP_BV names `components`.
pub fn compacted_offset(components: u64, index: u32) -> u32 {
    compacted_size(components & ((1 << (index & 63)) - 1))
}
