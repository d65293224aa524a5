//! The virtual devices: the bus, the interrupt chips, the chipset, PCI, virtio, KVM's interface.
//!
//! Every device is a *core* (registers as in its datasheet; no clock, bus or host: time is passed
//! in as VM nanoseconds) inside an *adapter* that holds handles: [`irq::IrqLine`], [`time::Timer`],
//! [`power::PowerSink`].
//!
//! Lock order, outermost first; a thread that holds a later one never takes an earlier one:
//!
//! 1. a chipset device (the mutex its constructor returns it in),
//! 2. an interrupt line ([`irq`]; a virtio device's interrupt just before it),
//! 3. the 8259 pair, then its output's line; or the IOAPIC,
//! 4. a local APIC (one at a time),
//! 5. leaves: the timer queue, [`vcpu::Signals`], the bus's list of unclaimed places.
//!
//! Saving a machine: what drives lines comes before what they lead to, since a device brings its
//! lines up to date when it is saved. So virtio and the chipset first, then the 8259 pair and the
//! IOAPIC, the local APICs last. Restoring goes the other way: lines then find their levels known
//! and make no new edges. A device checks all of a state before it takes any of it ([`saved`]).
//!
//! Timer owners are called without the queue's lock; a local APIC talks to the others, to the
//! IOAPIC and to the 8259 only after it has released its own lock.
#![forbid(unsafe_code)]

pub mod bus;
pub mod chipset;
pub mod irq;
pub mod irqchip;
pub mod msi;
pub mod paravirt;
pub mod pci;
pub mod power;
pub mod saved;
pub mod time;
pub mod virtio;
