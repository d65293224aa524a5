//! The machine's reset: everything as it was when the machine was built, but for the host's side.
//!
//! Memory is cleared and the boot files are read and placed again, as firmware does at each start.
//! Processors and devices take over the state that they had then; time begins anew. Consoles, disks
//! and counters stay. A disk's content is what the guest has made of it.

use crate::board::{Board, Origin};
use crate::config::BootConfig;
use crate::console::SharedWitness;
use crate::error::ResetError;
use crate::firmware;
use crate::saved::state::RestoreError;
use memory::GuestRam;
use sync::lock;
use vcpu::{Signal, StateError};
use x86::addr::Gpa;

/// Bytes of memory that are looked at together.
const CHUNK: usize = 64 << 10;

impl Board {
    /// Keeps what a reset needs: the state now, before the first run, and what `boot` says.
    pub(crate) fn remember(&self, boot: &BootConfig) -> Result<(), StateError> {
        let origin = Origin { boot: boot.clone(), state: self.save()? };
        self.origin.get_or_init(|| origin);
        Ok(())
    }

    /// Has everything begin anew. The machine stands still.
    pub(crate) fn reset(&self) -> Result<(), ResetError> {
        let origin = self.origin.get().ok_or(ResetError::Restored)?;
        let ram: Vec<_> = origin.state.memory.iter().map(|&(at, len)| (Gpa(at), len)).collect();
        let plan = firmware::plan(&origin.boot, &ram, self.virtio.len())?;
        let failed = |error: &dyn std::error::Error| ResetError::Failed(error.to_string());
        clear(&self.ram).map_err(|error| failed(&error))?;
        firmware::place(&self.ram, &plan).map_err(|error| failed(&error))?;
        self.begin_anew(origin).map_err(|error| failed(&error))?;
        Ok(())
    }

    fn begin_anew(&self, origin: &Origin) -> Result<(), RestoreError> {
        for processor in &self.processors {
            let processor = lock(processor);
            processor.signals.clear(Signal::Init);
            processor.signals.clear(Signal::Sipi);
        }
        self.restore(&origin.state)?;
        self.witnesses.iter().for_each(SharedWitness::forget);
        Ok(())
    }
}

/// Zeroes all memory. Pages that hold only zeros are not written: the host need not back them.
fn clear(ram: &GuestRam) -> Result<(), memory::Error> {
    let (mut chunk, zeros) = (vec![0; CHUNK], vec![0; CHUNK]);
    for region in ram.regions() {
        let mut done = 0;
        while done < region.len {
            let (gpa, len) = (region.gpa.wrapping_add(done), (region.len - done).min(CHUNK as u64));
            let chunk = &mut chunk[..len as usize];
            ram.read(gpa, chunk)?;
            ram.settle();
            if *chunk != zeros[..len as usize] {
                ram.write(gpa, &zeros[..len as usize])?;
                ram.wrote(gpa, len);
            }
            done += len;
        }
    }
    Ok(())
}
