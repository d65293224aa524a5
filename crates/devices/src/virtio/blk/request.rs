//! Requests of the block device (virtio 1.2, 5.2.6): what a chain asks for, and the answer.

use super::shared::{FlushError, Shared};
use crate::virtio::chain::{Broken, Chain, Head, NotRam, Segments};
use disk_image::{DiskAccess, SECTOR, Space, Straight, Transfer};
use memory::{GuestRam, Vectors};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// Bytes before the data: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes that are moved at once at the most.
const CHUNK: usize = 256 << 10;
/// Bytes of a range to discard or to zero (struct virtio_blk_discard_write_zeroes).
const RANGE: usize = 16;
/// Such ranges in a request at the most.
pub(super) const RANGES: u32 = 16;
/// Sectors of such a range at the most: none keeps the disk busy for long.
pub(super) const RANGE_SECTORS: u32 = 1 << 21;

/// What one queue's requests are served with.
pub(super) struct Disk {
    pub(super) shared: Arc<Shared>,
    /// For data on its way; grows to [`CHUNK`].
    pub(super) buffer: Vec<u8>,
}

/// Where a request's answer goes.
#[derive(Debug)]
pub(super) struct Answer {
    head: Head,
    /// What the driver gave for data that it reads.
    pub(super) data: Segments,
    status: Segments,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum Step {
    /// It is done, and has written so many bytes of data.
    Done(u64),
    /// This is to be done first, and then [`Disk::resume`].
    Start(Straight, Transfer, Then),
}

/// What a transfer was for.
#[derive(Debug)]
pub(super) enum Then {
    /// What was to be read from `offset` is there.
    Read { offset: u64 },
    /// `payload` is written at `offset`; it may still have to be made safe.
    Written { offset: u64, payload: Segments },
    /// Nothing.
    Flushed,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
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
    #[error("{0} bytes are no ranges, or too many")]
    NoRanges(u64),
    #[error("a range of {0} sectors, more than {RANGE_SECTORS}")]
    LongRange(u32),
    #[error("flags {0:#x} of a range")]
    Flags(u32),
    #[error("its buffers are not (all) RAM")]
    NotRam,
    #[error("the host: {0}")]
    Host(#[from] io::Error),
    #[error("what was written has been lost")]
    Lost,
}

impl From<NotRam> for Refusal {
    fn from(NotRam: NotRam) -> Self {
        Self::NotRam
    }
}

impl From<FlushError> for Refusal {
    fn from(error: FlushError) -> Self {
        match error {
            FlushError::Host(error) => Self::Host(error),
            FlushError::Lost => Self::Lost,
        }
    }
}

impl Refusal {
    fn status(&self) -> u32 {
        match self {
            Self::Unsupported(_) | Self::Flags(_) => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        }
    }
}

impl Answer {
    /// Where the answer to `chain` goes, and what is asked.
    ///
    /// # Errors
    /// There is no place for the status.
    pub(super) fn to(chain: Chain, ram: &GuestRam) -> Result<(Self, Segments), Broken> {
        let Chain { head, readable, writable: mut data } = chain;
        let no_status = || Broken::NoStatus { head: head.index() };
        let data_len = data.len().checked_sub(1).ok_or_else(no_status)?;
        let status = data.split_off(data_len);
        if !status.in_ram(ram) {
            return Err(no_status());
        }
        Ok((Self { head, data, status }, readable))
    }

    /// Writes the status, and returns how many bytes were written without a gap from the beginning
    /// of the chain's writable part (2.7.8.2).
    pub(super) fn give(
        self,
        ram: &GuestRam,
        shared: &Shared,
        outcome: Result<u64, Refusal>,
    ) -> Result<(Head, u32), Broken> {
        let Self { head, data, status } = self;
        let (answer, written) = match outcome {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(why) => {
                tracing::debug!(target: "virtio", "disk request refused: {why}");
                if let Refusal::Host(error) = &why {
                    shared.tell(error);
                }
                (why.status(), 0)
            }
        };
        let no_status = |_| Broken::NoStatus { head: head.index() };
        status.write(ram, &[answer as u8]).map_err(no_status)?;
        let all = if written == data.len() { written + 1 } else { written };
        Ok((head, all.try_into().unwrap_or(u32::MAX)))
    }
}

impl Disk {
    /// Does what `readable` asks for, or says which transfer does.
    pub(super) fn begin(
        &mut self,
        ram: &GuestRam,
        mut readable: Segments,
        answer: &Answer,
    ) -> Result<Step, Refusal> {
        let data = &answer.data;
        let payload = readable.split_off(HEADER as u64);
        if readable.len() < HEADER as u64 {
            return Err(Refusal::NoHeader);
        }
        let mut header = [0; HEADER];
        readable.read(ram, &mut header)?;
        let kind = u32::from_le_bytes(std::array::from_fn(|i| header[i]));
        let sector = u64::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
        self.shared.pay(data.len() + payload.len());
        match kind {
            VIRTIO_BLK_T_IN => self.read(ram, sector, data),
            VIRTIO_BLK_T_OUT => self.write(ram, sector, payload),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                self.ranges(ram, kind, &payload)?;
                self.written()
            }
            VIRTIO_BLK_T_FLUSH => self.flush(),
            VIRTIO_BLK_T_GET_ID => {
                let id = &self.shared.id;
                data.write(ram, id)?;
                Ok(Step::Done(data.len().min(id.len() as u64)))
            }
            _ => Err(Refusal::Unsupported(kind)),
        }
    }

    /// Goes on after a transfer with this `outcome`; `data` is what the driver gave for reading.
    pub(super) fn resume(
        &mut self,
        ram: &GuestRam,
        data: &Segments,
        then: Then,
        outcome: io::Result<()>,
    ) -> Result<Step, Refusal> {
        // Past its cache, the host wants things aligned.
        let unaligned = |error: &io::Error| error.kind() == ErrorKind::InvalidInput;
        match then {
            Then::Read { offset } => {
                // The engines are told whatever came of it: a part may have been written.
                data.wrote(ram);
                match outcome {
                    Err(error) if unaligned(&error) => {
                        self.read_by_copy(ram, offset, data.clone())?;
                    }
                    outcome => outcome?,
                }
                Ok(Step::Done(data.len()))
            }
            Then::Written { offset, payload } => {
                match outcome {
                    Err(error) if unaligned(&error) => self.write_by_copy(ram, offset, payload)?,
                    outcome => outcome?,
                }
                self.written()
            }
            Then::Flushed => {
                self.shared.synced(outcome)?;
                Ok(Step::Done(0))
            }
        }
    }

    /// What was written is answered with no bytes, and as safe as the driver expects.
    fn written(&self) -> Result<Step, Refusal> {
        if self.shared.writes_through() { self.flush() } else { Ok(Step::Done(0)) }
    }

    /// Makes what was written as safe as the disk's cache is to be.
    fn flush(&self) -> Result<Step, Refusal> {
        if self.shared.syncs()
            && let Some(straight) = self.shared.storage.straight()
        {
            self.shared.intact()?;
            return Ok(Step::Start(straight.clone(), Transfer::Flush, Then::Flushed));
        }
        self.shared.flush()?;
        Ok(Step::Done(0))
    }

    /// Guest memory at `data` for a transfer without a copy, where the disk knows such.
    fn vectors(&self, ram: &GuestRam, data: &Segments) -> Option<(Straight, Vectors)> {
        let straight = self.shared.storage.straight()?.clone();
        Some((straight, ram.vectors(data.ranges())?))
    }

    /// Discards or zeroes the ranges in `payload`: all of them, or none if one makes no sense.
    fn ranges(&self, ram: &GuestRam, kind: u32, payload: &Segments) -> Result<(), Refusal> {
        self.writable()?;
        let bytes = payload.len();
        let most = u64::from(RANGES) * RANGE as u64;
        if bytes == 0 || !bytes.is_multiple_of(RANGE as u64) || bytes > most {
            return Err(Refusal::NoRanges(bytes));
        }
        let mut list = vec![0; bytes as usize];
        payload.read(ram, &mut list)?;
        let ranges: Result<Vec<_>, _> =
            list.chunks_exact(RANGE).map(|range| self.range(kind, range)).collect();
        for (offset, bytes, space) in ranges? {
            match kind {
                VIRTIO_BLK_T_DISCARD => self.shared.storage.discard(offset, bytes)?,
                _ => self.shared.storage.write_zeroes(offset, bytes, space)?,
            }
        }
        Ok(())
    }

    /// Where a range begins, its bytes, and what becomes of the space.
    fn range(&self, kind: u32, range: &[u8]) -> Result<(u64, u64, Space), Refusal> {
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| range[at + i]));
        let sector = u64::from_le_bytes(std::array::from_fn(|i| range[i]));
        let (sectors, flags) = (half(8), half(12));
        let space = match flags {
            0 => Space::Keep,
            VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP if kind == VIRTIO_BLK_T_WRITE_ZEROES => {
                Space::GiveBack
            }
            _ => return Err(Refusal::Flags(flags)),
        };
        if sectors > RANGE_SECTORS {
            return Err(Refusal::LongRange(sectors));
        }
        let bytes = u64::from(sectors) * SECTOR;
        Ok((self.on_disk(sector, bytes)?, bytes, space))
    }

    fn writable(&self) -> Result<(), Refusal> {
        match self.shared.access {
            DiskAccess::ReadOnly => Err(Refusal::ReadOnly),
            DiskAccess::ReadWrite => Ok(()),
        }
    }

    fn read(&mut self, ram: &GuestRam, sector: u64, data: &Segments) -> Result<Step, Refusal> {
        let offset = self.place(ram, sector, data)?;
        if let Some((straight, vectors)) = self.vectors(ram, data) {
            let transfer = Transfer::Read { vectors, offset };
            return Ok(Step::Start(straight, transfer, Then::Read { offset }));
        }
        self.read_by_copy(ram, offset, data.clone())?;
        Ok(Step::Done(data.len()))
    }

    fn read_by_copy(
        &mut self,
        ram: &GuestRam,
        mut offset: u64,
        mut data: Segments,
    ) -> Result<(), Refusal> {
        while !data.is_empty() {
            let rest = data.split_off(CHUNK as u64);
            let buffer = room(&mut self.buffer, data.len());
            self.shared.storage.read(offset, buffer)?;
            data.write(ram, buffer)?;
            offset += data.len();
            data = rest;
        }
        Ok(())
    }

    fn write(&mut self, ram: &GuestRam, sector: u64, data: Segments) -> Result<Step, Refusal> {
        self.writable()?;
        let offset = self.place(ram, sector, &data)?;
        if let Some((straight, vectors)) = self.vectors(ram, &data) {
            let then = Then::Written { offset, payload: data };
            return Ok(Step::Start(straight, Transfer::Write { vectors, offset }, then));
        }
        self.write_by_copy(ram, offset, data)?;
        self.written()
    }

    fn write_by_copy(
        &mut self,
        ram: &GuestRam,
        mut offset: u64,
        mut data: Segments,
    ) -> Result<(), Refusal> {
        while !data.is_empty() {
            let rest = data.split_off(CHUNK as u64);
            let buffer = room(&mut self.buffer, data.len());
            data.read(ram, buffer)?;
            self.shared.storage.write(offset, buffer)?;
            offset += data.len();
            data = rest;
        }
        Ok(())
    }

    /// The byte where the transfer of `data` begins, if all of it is sectors of the disk and in
    /// RAM.
    fn place(&self, ram: &GuestRam, sector: u64, data: &Segments) -> Result<u64, Refusal> {
        let offset = self.on_disk(sector, data.len())?;
        if !data.in_ram(ram) {
            return Err(Refusal::NotRam);
        }
        Ok(offset)
    }

    /// The byte where `bytes` from `sector` begin, if they are sectors of the disk.
    fn on_disk(&self, sector: u64, bytes: u64) -> Result<u64, Refusal> {
        if bytes == 0 || !bytes.is_multiple_of(SECTOR) {
            return Err(Refusal::Uneven(bytes));
        }
        let end = sector.checked_add(bytes / SECTOR);
        if end.is_none_or(|end| end > self.shared.storage.sectors()) {
            return Err(Refusal::Beyond { sector, bytes });
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
