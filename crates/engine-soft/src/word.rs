//! Operand widths: 8, 16, 32 and 64 bits, and how each reads and writes a general register.

use x86::addr::Width;
use x86::state::gpr;

/// One of `u8`, `u16`, `u32`, `u64`.
pub(crate) trait Word: Copy + Eq + Send + 'static {
    /// Bytes, as the architecture's functions take them.
    const WIDTH: Width;
    /// Bytes.
    const SIZE: u8 = Self::WIDTH as u8;
    /// Bits.
    const BITS: u32 = Self::SIZE as u32 * 8;
    /// Truncates.
    fn cut(value: u64) -> Self;
    /// Zero-extends.
    fn zext(self) -> u64;
    /// Sign-extends.
    fn sext(self) -> u64;
    /// Reads general register `r` (see [`HIGH_BYTE`]).
    fn get(file: &[u64; gpr::SLOTS], r: u8) -> Self;
    /// Writes general register `r`: 32-bit writes clear the upper half, narrower ones keep the
    /// rest.
    fn set(file: &mut [u64; gpr::SLOTS], r: u8, value: Self);
}

/// Added to 0–3 to name AH, CH, DH, BH.
pub(crate) const HIGH_BYTE: u8 = 0x20;

impl Word for u8 {
    const WIDTH: Width = Width::B1;
    #[inline(always)]
    fn cut(value: u64) -> Self {
        value as u8
    }
    #[inline(always)]
    fn zext(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self as i8 as u64
    }
    #[inline(always)]
    fn get(file: &[u64; gpr::SLOTS], r: u8) -> Self {
        (file[(r & 15) as usize] >> (r >> 5 << 3)) as u8
    }
    #[inline(always)]
    fn set(file: &mut [u64; gpr::SLOTS], r: u8, value: Self) {
        let shift = r >> 5 << 3;
        let slot = &mut file[(r & 15) as usize];
        *slot = (*slot & !(0xff << shift)) | (u64::from(value) << shift);
    }
}

impl Word for u16 {
    const WIDTH: Width = Width::B2;
    #[inline(always)]
    fn cut(value: u64) -> Self {
        value as u16
    }
    #[inline(always)]
    fn zext(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self as i16 as u64
    }
    #[inline(always)]
    fn get(file: &[u64; gpr::SLOTS], r: u8) -> Self {
        file[(r & 15) as usize] as u16
    }
    #[inline(always)]
    fn set(file: &mut [u64; gpr::SLOTS], r: u8, value: Self) {
        let slot = &mut file[(r & 15) as usize];
        *slot = (*slot & !0xffff) | u64::from(value);
    }
}

impl Word for u32 {
    const WIDTH: Width = Width::B4;
    #[inline(always)]
    fn cut(value: u64) -> Self {
        value as u32
    }
    #[inline(always)]
    fn zext(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self as i32 as u64
    }
    #[inline(always)]
    fn get(file: &[u64; gpr::SLOTS], r: u8) -> Self {
        file[(r & 15) as usize] as u32
    }
    #[inline(always)]
    fn set(file: &mut [u64; gpr::SLOTS], r: u8, value: Self) {
        file[(r & 15) as usize] = u64::from(value);
    }
}

impl Word for u64 {
    const WIDTH: Width = Width::B8;
    #[inline(always)]
    fn cut(value: u64) -> Self {
        value
    }
    #[inline(always)]
    fn zext(self) -> u64 {
        self
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self
    }
    #[inline(always)]
    fn get(file: &[u64; gpr::SLOTS], r: u8) -> Self {
        file[(r & 15) as usize]
    }
    #[inline(always)]
    fn set(file: &mut [u64; gpr::SLOTS], r: u8, value: Self) {
        file[(r & 15) as usize] = value;
    }
}
