//! The VM generation ID: 16 bytes in guest memory that are others after each restore, so that the
//! copies of a saved guest do not share their random numbers. A pause or a reset leaves them.
//!
//! In a deterministic machine the ID counts, so that restored runs of one file are the same.

use crate::config::Hardware;
use devices::irq::IrqLine;
use memory::GuestRam;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::sync::Mutex;
use sync::lock;

/// The generation of one machine.
pub(crate) struct Generation {
    id: Mutex<u128>,
    source: Source,
    /// Tells the guest that the ID has changed.
    line: IrqLine,
}

/// Where IDs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The host's random numbers.
    Host,
    /// The ID before.
    Counted,
}

impl Generation {
    /// The first of a machine of `hardware`. `line` is edge triggered.
    ///
    /// # Errors
    /// The host gives no random numbers.
    pub(crate) fn new(hardware: &Hardware, line: IrqLine) -> io::Result<Self> {
        let (source, id) = match hardware.deterministic {
            true => (Source::Counted, 1),
            false => (Source::Host, random()?),
        };
        Ok(Self { id: Mutex::new(id), source, line })
    }

    /// Puts the ID into `ram`, where the firmware tables say that it is.
    pub(crate) fn place(&self, ram: &GuestRam) -> Result<(), memory::Error> {
        let id = lock(&self.id).to_le_bytes();
        ram.write(boot::GENERATION_ID, &id)?;
        ram.wrote(boot::GENERATION_ID, id.len() as u64);
        Ok(())
    }

    /// The machine is a copy with this memory: it is another generation than the one that was
    /// saved, and is told so.
    pub(crate) fn renew(&self, ram: &GuestRam) -> Result<(), memory::Error> {
        if self.source == Source::Counted {
            let mut before = [0; 16];
            ram.read(boot::GENERATION_ID, &mut before)?;
            *lock(&self.id) = u128::from_le_bytes(before).wrapping_add(1);
        }
        self.place(ram)?;
        self.line.set(true);
        self.line.set(false);
        Ok(())
    }
}

fn random() -> io::Result<u128> {
    let mut bytes = [0; 16];
    // So few bytes come at once or not at all (getrandom(2)).
    rustix::io::retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty()))?;
    Ok(u128::from_le_bytes(bytes))
}
