//! Requests of the block device (virtio 1.2, 5.2.6): what a chain asks for, and the answer.

use super::image::{DiskAccess, SECTOR, Storage};
use crate::virtio::chain::{Broken, Chain, Head, NotRam, Segments};
use memory::GuestRam;
use std::io;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

/// Bytes before the data: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes that are moved at once at the most.
const CHUNK: usize = 256 << 10;

/// A disk as its requests see it.
pub(super) struct Disk {
    pub(super) storage: Box<dyn Storage>,
    pub(super) access: DiskAccess,
    /// What GET_ID answers, padded with zeros.
    pub(super) id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    /// For data on its way; grows to [`CHUNK`].
    pub(super) buffer: Vec<u8>,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("a request without a whole header")]
    NoHeader,
    #[error("unknown request type {0}")]
    Unsupported(u32),
    #[error("{0} bytes are no whole sectors")]
    Uneven(u64),
    #[error("sector {sector} and {bytes} bytes from there are not (all) on the disk")]
    Beyond { sector: u64, bytes: u64 },
    #[error("the disk is read only")]
    ReadOnly,
    #[error("its buffers are not (all) RAM")]
    NotRam,
    #[error("the host: {0}")]
    Host(#[from] io::Error),
}

impl From<NotRam> for Refusal {
    fn from(NotRam: NotRam) -> Self {
        Self::NotRam
    }
}

impl Refusal {
    fn status(&self) -> u32 {
        match self {
            Self::Unsupported(_) => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        }
    }
}

impl Disk {
    /// Does what `chain` asks for, writes the status, and returns how many bytes were written
    /// without a gap from the beginning of the chain's writable part (2.7.8.2).
    ///
    /// # Errors
    /// There is no place for the status.
    pub(super) fn serve(
        &mut self,
        ram: &GuestRam,
        chain: Chain,
        write_through: bool,
    ) -> Result<(Head, u32), Broken> {
        let Chain { head, readable, writable: mut data } = chain;
        let no_status = || Broken::NoStatus { head: head.index() };
        let data_len = data.len().checked_sub(1).ok_or_else(no_status)?;
        let status = data.split_off(data_len);
        if !status.in_ram(ram) {
            return Err(no_status());
        }
        let (answer, written) = match self.execute(ram, readable, data, write_through) {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(why) => {
                tracing::debug!(target: "virtio", "disk request refused: {why}");
                (why.status(), 0)
            }
        };
        status.write(ram, &[answer as u8]).map_err(|_| no_status())?;
        let all = if written == data_len { written + 1 } else { written };
        Ok((head, all.try_into().unwrap_or(u32::MAX)))
    }

    /// Bytes written to `data`.
    fn execute(
        &mut self,
        ram: &GuestRam,
        mut readable: Segments,
        data: Segments,
        write_through: bool,
    ) -> Result<u64, Refusal> {
        let payload = readable.split_off(HEADER as u64);
        if readable.len() < HEADER as u64 {
            return Err(Refusal::NoHeader);
        }
        let mut header = [0; HEADER];
        readable.read(ram, &mut header)?;
        let kind = u32::from_le_bytes(std::array::from_fn(|i| header[i]));
        let sector = u64::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
        match kind {
            VIRTIO_BLK_T_IN => self.read(ram, sector, data),
            VIRTIO_BLK_T_OUT => {
                self.write(ram, sector, payload)?;
                if write_through {
                    self.storage.flush()?;
                }
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH if self.access == DiskAccess::ReadOnly => Ok(0),
            VIRTIO_BLK_T_FLUSH => self.storage.flush().map(|()| 0).map_err(Refusal::from),
            VIRTIO_BLK_T_GET_ID => {
                data.write(ram, &self.id)?;
                Ok(data.len().min(self.id.len() as u64))
            }
            _ => Err(Refusal::Unsupported(kind)),
        }
    }

    fn read(&mut self, ram: &GuestRam, sector: u64, mut data: Segments) -> Result<u64, Refusal> {
        let (mut offset, total) = (self.place(ram, sector, &data)?, data.len());
        while !data.is_empty() {
            let rest = data.split_off(CHUNK as u64);
            let buffer = room(&mut self.buffer, data.len());
            self.storage.read(offset, buffer)?;
            data.write(ram, buffer)?;
            offset += data.len();
            data = rest;
        }
        Ok(total)
    }

    fn write(&mut self, ram: &GuestRam, sector: u64, mut data: Segments) -> Result<(), Refusal> {
        if self.access == DiskAccess::ReadOnly {
            return Err(Refusal::ReadOnly);
        }
        let mut offset = self.place(ram, sector, &data)?;
        while !data.is_empty() {
            let rest = data.split_off(CHUNK as u64);
            let buffer = room(&mut self.buffer, data.len());
            data.read(ram, buffer)?;
            self.storage.write(offset, buffer)?;
            offset += data.len();
            data = rest;
        }
        Ok(())
    }

    /// The byte where the transfer of `data` begins, if all of it is sectors of the disk and in
    /// RAM.
    fn place(&self, ram: &GuestRam, sector: u64, data: &Segments) -> Result<u64, Refusal> {
        let bytes = data.len();
        if bytes == 0 || !bytes.is_multiple_of(SECTOR) {
            return Err(Refusal::Uneven(bytes));
        }
        let end = sector.checked_add(bytes / SECTOR);
        if end.is_none_or(|end| end > self.storage.sectors()) {
            return Err(Refusal::Beyond { sector, bytes });
        }
        if !data.in_ram(ram) {
            return Err(Refusal::NotRam);
        }
        sector.checked_mul(SECTOR).ok_or(Refusal::Beyond { sector, bytes })
    }
}

/// `len` bytes of `buffer`, which grows if need be. `len` is [`CHUNK`] at the most.
fn room(buffer: &mut Vec<u8>, len: u64) -> &mut [u8] {
    let len = len as usize;
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}
