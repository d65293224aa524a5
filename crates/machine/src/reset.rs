//! The machine's reset: everything as it was when the machine was built, but for the host's side.
//!
//! Memory is cleared and the boot files are read and placed again, as firmware does at each start.
//! Processors and devices take over the state that they had then; time begins anew. Consoles, disks
//! and counters stay. A disk's content is what the guest has made of it.
//!
//! A machine that was restored does the same: [`crate::boot_files`] says what it boots.

use crate::board::Board;
use crate::boot_files::BootFile;
use crate::console::Output;
use crate::error::ResetError;
use crate::firmware;
use crate::saved::state::RestoreError;
use crate::virtio;
use memory::GuestRam;
use sync::lock;
use vcpu::{Signal, StateError};
use x86::addr::Gpa;
use x86::state::CpuState;

/// Bytes of memory that are looked at together.
const CHUNK: usize = 64 << 10;

impl Board {
    /// Keeps the state now, before anything is booted or restored.
    pub(crate) fn remember(&self) -> Result<(), StateError> {
        let state = self.save()?;
        self.fresh.get_or_init(|| state);
        Ok(())
    }

    /// Has everything begin anew. The machine stands still.
    pub(crate) fn reset(&self) -> Result<(), ResetError> {
        let ram: Vec<_> = self.memory_map().iter().map(|&(at, len)| (Gpa(at), len)).collect();
        let boot = self.boot.try_map(BootFile::now)?;
        let tables = virtio::acpi(self.transport, self.virtio.len());
        let plan = firmware::plan(&boot, self.model.cpus, &ram, tables)?;
        let failed = |error: &dyn std::error::Error| ResetError::Failed(error.to_string());
        clear(&self.ram).map_err(|error| failed(&error))?;
        firmware::place(&self.ram, &plan).map_err(|error| failed(&error))?;
        self.generation.place(&self.ram).map_err(|error| failed(&error))?;
        self.begin_anew(&plan.cpu).map_err(|error| failed(&error))
    }

    fn begin_anew(&self, boot: &CpuState) -> Result<(), RestoreError> {
        for processor in &self.processors {
            let processor = lock(processor);
            processor.signals.clear(Signal::Init);
            processor.signals.clear(Signal::Sipi);
        }
        if let Some(fresh) = self.fresh.get() {
            self.restore(fresh)?;
        }
        self.begin(boot)?;
        self.outputs.iter().for_each(Output::begin_anew);
        Ok(())
    }
}

/// Zeroes all memory. Pages that hold only zeros are not written: the host need not back them.
fn clear(ram: &GuestRam) -> Result<(), memory::Error> {
    let zeros = vec![0; CHUNK];
    each_piece(ram, |gpa, piece| {
        let zeros = &zeros[..piece.len()];
        if piece != zeros {
            ram.write(gpa, zeros)?;
            ram.wrote(gpa, zeros.len() as u64);
        }
        Ok(())
    })
}

/// Shows all memory to `look`, a piece at a time.
pub(crate) fn each_piece(
    ram: &GuestRam,
    mut look: impl FnMut(Gpa, &[u8]) -> Result<(), memory::Error>,
) -> Result<(), memory::Error> {
    let mut piece = vec![0; CHUNK];
    for region in ram.regions() {
        let mut done = 0;
        while done < region.len {
            let (gpa, len) = (region.gpa.wrapping_add(done), (region.len - done).min(CHUNK as u64));
            let piece = &mut piece[..len as usize];
            ram.read(gpa, piece)?;
            ram.settle();
            look(gpa, piece)?;
            done += len;
        }
    }
    Ok(())
}
