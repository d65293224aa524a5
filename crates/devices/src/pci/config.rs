//! A function's configuration space: the type 0 header, BARs and capabilities (PCI Local Bus 3.0,
//! chapter 6), without bus or device.
//!
//! All of it is bytes, each with the bits that can be written; what stands in them is what they do.
//! Every BAR is 32-bit memory, not prefetchable.

use super::decoder::Decoder;
use super::registers::*;
use std::fmt;
use std::sync::Arc;
use x86::addr::PortWidth;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    /// Base class, sub-class, programming interface (appendix D).
    pub(crate) class: [u8; 3],
    pub(crate) subsystem_vendor: u16,
    pub(crate) subsystem: u16,
}

/// See the module.
pub(crate) struct Config {
    pub(super) bytes: [u8; SPACE as usize],
    pub(super) writable: [u8; SPACE as usize],
    bars: Vec<Arc<Decoder>>,
    /// Where the last capability's link is, and where the next one goes.
    link: u16,
    free: u16,
}

impl Config {
    /// A function without BARs and capabilities.
    pub(crate) fn new(identity: &Identity) -> Self {
        let &Identity { vendor, device, revision, class, subsystem_vendor, subsystem } = identity;
        let mut config = Self {
            bytes: [0; SPACE as usize],
            writable: [0; SPACE as usize],
            bars: Vec::new(),
            link: CAPABILITIES,
            free: HEADER_END,
        };
        config.set(VENDOR, &vendor.to_le_bytes());
        config.set(DEVICE, &device.to_le_bytes());
        let [base, sub, interface] = class;
        config.set(REVISION, &[revision, interface, sub, base]);
        config.set(SUBSYSTEM_VENDOR, &subsystem_vendor.to_le_bytes());
        config.set(SUBSYSTEM, &subsystem.to_le_bytes());
        config.allow(COMMAND, &COMMAND_BITS.to_le_bytes());
        config.allow(CACHE_LINE, &[0xFF]);
        config
    }

    /// Gives it INTA#. No line of the 8259 pair is connected to it, which the interrupt line
    /// register says.
    pub(crate) fn add_interrupt_pin(&mut self) {
        self.set(INTERRUPT_LINE, &[0xFF]);
        self.allow(INTERRUPT_LINE, &[0xFF]);
        self.set(INTERRUPT_PIN, &[1]);
    }

    /// The next BAR, of `len` bytes, a power of two from 16 on.
    pub(crate) fn add_bar(&mut self, len: u32) {
        assert!(len.is_power_of_two() && len >= 16 && self.bars.len() < BARS, "a BAR of {len}");
        self.allow(bar_register(self.bars.len()), &(!(len - 1)).to_le_bytes());
        self.bars.push(Arc::new(Decoder::new(len)));
    }

    /// The next capability: `body` follows its identifier and link, with `writable` bits in it.
    /// Returns where it is.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.free;
        self.set(self.link, &[at as u8]);
        self.set(STATUS, &CAPABILITY_LIST.to_le_bytes());
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.allow(at + 2, writable);
        self.link = at + 1;
        self.free = (at + 2 + body.len() as u16).next_multiple_of(4);
        at
    }

    /// Puts `bytes` where the guest reads them.
    pub(crate) fn set(&mut self, register: u16, bytes: &[u8]) {
        let at = usize::from(register);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, register: u16, bits: &[u8]) {
        let at = usize::from(register);
        self.writable[at..at + bits.len()].copy_from_slice(bits);
    }

    /// A read. What is beyond the space reads all-ones.
    pub(crate) fn read(&self, register: u16, width: PortWidth) -> u32 {
        let mut value = [0xFF; 4];
        let there = self.bytes.iter().skip(register.into()).take(width.bytes());
        value.iter_mut().zip(there).for_each(|(to, from)| *to = *from);
        u32::from_le_bytes(value) & width.mask()
    }

    /// A write, of what can be written.
    pub(crate) fn write(&mut self, register: u16, width: PortWidth, value: u32) {
        let value = value.to_le_bytes();
        let places = self.bytes.iter_mut().zip(&self.writable).skip(register.into());
        for ((byte, writable), new) in places.zip(&value[..width.bytes()]) {
            *byte = *byte & !writable | new & writable;
        }
        self.publish();
    }

    /// A word of it.
    pub(crate) fn word(&self, register: u16) -> u16 {
        self.read(register, PortWidth::B2) as u16
    }

    /// A doubleword of it.
    pub(crate) fn dword(&self, register: u16) -> u32 {
        self.read(register, PortWidth::B4)
    }

    /// Whether all of `bits` are set in Command.
    pub(crate) fn commands(&self, bits: u16) -> bool {
        self.word(COMMAND) & bits == bits
    }

    /// Status's INTx bit.
    pub(crate) fn set_interrupt_status(&mut self, asks: bool) {
        let status = self.word(STATUS) & !INTERRUPT_STATUS;
        let bit = if asks { INTERRUPT_STATUS } else { 0 };
        self.set(STATUS, &(status | bit).to_le_bytes());
    }

    /// Each BAR's addresses.
    pub(crate) fn decoders(&self) -> Vec<Arc<Decoder>> {
        self.bars.clone()
    }

    /// Bytes of BAR `index`, if it is there.
    pub(crate) fn bar_len(&self, index: usize) -> Option<u32> {
        self.bars.get(index).map(|bar| bar.len())
    }

    /// As the firmware leaves it: each BAR at the next free place from `from` on, and decoding.
    /// Returns where it ends.
    pub(crate) fn assign(&mut self, from: u32) -> u32 {
        let mut next = from;
        for index in 0..self.bars.len() {
            let register = bar_register(index);
            self.write(register, PortWidth::B4, u32::MAX);
            let len = self.dword(register).wrapping_neg();
            next = next.next_multiple_of(len);
            self.write(register, PortWidth::B4, next);
            next += len;
        }
        self.write(COMMAND, PortWidth::B2, MEMORY_SPACE.into());
        next
    }

    /// Tells those who look addresses up where each BAR is.
    pub(super) fn publish(&self) {
        let decodes = self.commands(MEMORY_SPACE);
        for (index, bar) in self.bars.iter().enumerate() {
            bar.publish(decodes.then(|| self.dword(bar_register(index))));
        }
    }
}

/// BAR `index`'s register.
fn bar_register(index: usize) -> u16 {
    BAR0 + 4 * index as u16
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("vendor", &format_args!("{:#06x}", self.word(VENDOR)))
            .field("device", &format_args!("{:#06x}", self.word(DEVICE)))
            .field("command", &format_args!("{:#06x}", self.word(COMMAND)))
            .field("bars", &self.bars)
            .finish_non_exhaustive()
    }
}
