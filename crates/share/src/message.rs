//! Requests taken apart, answers put together.

use rustix::io::Errno;
use std::ffi::CString;

/// What is left of a request's arguments.
pub(crate) struct Arguments<'a>(pub(crate) &'a [u8]);

impl<'a> Arguments<'a> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (now, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*now)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Errno> {
        self.bytes().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Errno> {
        self.bytes().map(u64::from_ne_bytes)
    }

    /// A 32-bit number and what pads it.
    pub(crate) fn padded(&mut self) -> Result<u32, Errno> {
        let value = self.u32()?;
        self.u32()?;
        Ok(value)
    }

    /// So many bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Errno> {
        let (now, rest) = self.0.split_at_checked(count).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(now)
    }

    /// A text that ends with a NUL.
    pub(crate) fn text(&mut self) -> Result<CString, Errno> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Errno::INVAL)?;
        let text = CString::new(self.take(end)?).map_err(|_| Errno::INVAL)?;
        self.take(1)?;
        Ok(text)
    }

    /// The name of something in a directory: one component, and neither `.` nor `..`.
    pub(crate) fn name(&mut self) -> Result<CString, Errno> {
        self.text().and_then(component)
    }
}

/// `text` if it is the name of something in a directory.
///
/// # Errors
/// It is more than one component, or leads up, or nowhere, or is too long.
pub(crate) fn component(text: CString) -> Result<CString, Errno> {
    match text.as_bytes() {
        b"" => Err(Errno::NOENT),
        b"." | b".." => Err(Errno::INVAL),
        name if name.contains(&b'/') => Err(Errno::INVAL),
        name if name.len() > 255 => Err(Errno::NAMETOOLONG),
        _ => Ok(text),
    }
}

/// An answer's body.
#[derive(Debug, Default)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    /// Zeros up to a multiple of eight bytes.
    pub(crate) fn align(&mut self) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }
}
