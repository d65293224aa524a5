//! Descriptors as bits (SDM vol. 3, 3.4.5, 3.5, 6.11, 7.2).

/// Access rights as `Segment::access` keeps them: type and S, DPL, P in the low byte; AVL, L, D, G
/// in bits 12–15.
pub(crate) mod access {
    pub(crate) const CODE64: u16 = 0xa09b;
    pub(crate) const CODE32: u16 = 0xc09b;
    pub(crate) const CODE16: u16 = 0x009b;
    pub(crate) const DATA: u16 = 0xc093;
    pub(crate) const DATA16: u16 = 0x0093;
    pub(crate) const USER: u16 = 0x0060;
    pub(crate) const TSS_BUSY: u16 = 0x008b;
    pub(crate) const TSS: u16 = 0x0089;
    pub(crate) const LDT: u16 = 0x0082;
}

/// A descriptor; `limit` before granularity.
pub(crate) fn descriptor(base: u64, limit: u32, access: u16) -> u64 {
    let limit = u64::from(limit);
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | (limit & 0xf_0000) << 32
        | (base & 0xff00_0000) << 32
}

/// A gate: `kind` is its byte of access rights (type, DPL, P), `extra` the IST index or the
/// parameter count.
pub(crate) fn gate(selector: u16, offset: u64, kind: u8, extra: u8) -> [u64; 2] {
    let low = (offset & 0xffff)
        | u64::from(selector) << 16
        | u64::from(extra) << 32
        | u64::from(kind) << 40
        | (offset & 0xffff_0000) << 32;
    [low, offset >> 32]
}
