//! Little-endian fields of untrusted files, and writing them into tables of our own.

/// `N` bytes at `offset`, if they are there.
pub(crate) fn array<const N: usize>(data: &[u8], offset: u64) -> Option<[u8; N]> {
    slice(data, offset, N as u64)?.try_into().ok()
}

/// `len` bytes at `offset`, if they are there.
pub(crate) fn slice(data: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(len)?).ok()?;
    data.get(start..end)
}

/// The byte at `offset`.
pub(crate) fn u8_at(data: &[u8], offset: u64) -> Option<u8> {
    array::<1>(data, offset).map(|b| b[0])
}

/// The 16-bit word at `offset`.
pub(crate) fn u16_at(data: &[u8], offset: u64) -> Option<u16> {
    array(data, offset).map(u16::from_le_bytes)
}

/// The 32-bit word at `offset`.
pub(crate) fn u32_at(data: &[u8], offset: u64) -> Option<u32> {
    array(data, offset).map(u32::from_le_bytes)
}

/// The 64-bit word at `offset`.
pub(crate) fn u64_at(data: &[u8], offset: u64) -> Option<u64> {
    array(data, offset).map(u64::from_le_bytes)
}

/// A table being built.
pub(crate) trait Put {
    /// Overwrites the bytes at `offset`. What would lie outside the table is dropped.
    fn put(&mut self, offset: usize, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let target = self.get_mut(offset..).unwrap_or_default();
        for (to, from) in target.iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}

/// `value` rounded up to a multiple of `align`, a power of two; `None` past the end of the address
/// space.
pub(crate) fn align_up(value: u64, align: u64) -> Option<u64> {
    let mask = align.checked_sub(1)?;
    value.checked_add(mask).map(|v| v & !mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_end_where_the_file_ends() {
        let data = [1, 2, 3, 4];
        assert_eq!(u32_at(&data, 0), Some(0x0403_0201));
        assert_eq!(u16_at(&data, 3), None);
        assert_eq!(u64_at(&data, u64::MAX), None);
        assert_eq!(slice(&data, 4, 0), Some(&[][..]));
    }

    #[test]
    fn alignment_does_not_wrap() {
        assert_eq!(align_up(0x1001, 0x1000), Some(0x2000));
        assert_eq!(align_up(u64::MAX, 0x1000), None);
    }
}
