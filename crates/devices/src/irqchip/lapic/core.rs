//! The local APIC's registers and rules, without clock, lock or neighbours.
//!
//! Acceptance and priorities: SDM vol. 3, 12.8; local vector table: 12.5.1; errors: 12.5.3.

use super::bits256::Bits256;
use super::registers::*;
use super::timer::{Mode, Timer};
use crate::irqchip::interconnect::Among;
use crate::irqchip::message::{BROADCAST, DeliveryMode, DestinationMode, Message, Trigger};
use crate::time::Instant;
use vcpu::{Signal, Signals};
use x86::addr::Vector;

/// What a register access asks of the neighbours, once the lock is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    /// Send this IPI.
    Ipi(Message, Among),
    /// A level-triggered interrupt was completed: tell the IOAPIC.
    BroadcastEoi(Vector),
}

/// Where an acknowledged interrupt's vector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// From here; it is now in service.
    Vector(Vector),
    /// From the 8259: run its INTA cycle.
    External,
}

/// The three states of IA32_APIC_BASE (SDM vol. 3, 12.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApicMode {
    Disabled,
    Xapic,
    X2apic,
}

#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) id: u32,
    pub(super) base: u64,
    pub(super) tpr: u8,
    pub(super) ldr: u32,
    pub(super) dfr: u32,
    pub(super) svr: u32,
    pub(super) isr: Bits256,
    pub(super) tmr: Bits256,
    pub(super) irr: Bits256,
    pub(super) esr: u32,
    /// Errors since the last write to ESR.
    pub(super) esr_pending: u32,
    pub(super) icr: u64,
    pub(super) lvt: [u32; slot::COUNT],
    pub(super) timer: Timer,
    /// Levels of the LINT0 and LINT1 inputs.
    pub(super) lint: [bool; 2],
    /// An ExtINT message has arrived and was not acknowledged yet.
    pub(super) external: bool,
    /// The vector of the last start-up IPI, until the machine takes it.
    pub(super) sipi: Option<Vector>,
}

impl Core {
    /// After power-up (SDM vol. 3, 12.4.7.1).
    pub(super) fn new(id: u32, bootstrap: bool, timer_hz: u64) -> Self {
        let bsp = if bootstrap { base::BSP } else { 0 };
        let base = DEFAULT_BASE | base::EN | bsp;
        Self {
            id,
            base,
            tpr: 0,
            ldr: 0,
            dfr: DFR_FLAT,
            svr: svr::RESET,
            isr: Bits256::default(),
            tmr: Bits256::default(),
            irr: Bits256::default(),
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt: [lvt::RESET; slot::COUNT],
            timer: Timer::new(timer_hz),
            lint: [false; 2],
            external: false,
            sipi: None,
        }
    }

    /// What INIT does: power-up values, but for IA32_APIC_BASE, the ids and the inputs' levels
    /// (12.4.7.3).
    pub(super) fn init(&mut self) {
        let fresh = Self::new(self.id, self.base & base::BSP != 0, self.timer.hz);
        *self = Self { base: self.base, lint: self.lint, sipi: self.sipi, ..fresh };
        if self.mode() == ApicMode::X2apic {
            self.ldr = self.x2apic_ldr();
        }
    }

    pub(super) fn mode(&self) -> ApicMode {
        match (self.base & base::EN != 0, self.base & base::EXTD != 0) {
            (false, _) => ApicMode::Disabled,
            (true, false) => ApicMode::Xapic,
            (true, true) => ApicMode::X2apic,
        }
    }

    /// The logical x2APIC id that the id implies (12.12.10.2).
    pub(super) fn x2apic_ldr(&self) -> u32 {
        x86::apic::x2apic_logical_id(self.id)
    }

    pub(super) fn software_enabled(&self) -> bool {
        self.mode() != ApicMode::Disabled && self.svr & svr::ENABLE != 0
    }

    /// The processor-priority register (12.8.3.1).
    pub(super) fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(Vector(0));
        if self.tpr >> 4 >= in_service.0 >> 4 { self.tpr } else { in_service.0 & 0xF0 }
    }

    /// The request that may interrupt the processor now.
    fn deliverable(&self) -> Option<Vector> {
        self.irr.highest().filter(|vector| vector.0 >> 4 > self.ppr() >> 4)
    }

    /// Whether the 8259 asks through LINT0 or a message.
    fn external_pending(&self) -> bool {
        let entry = self.lvt[slot::LINT0];
        let wired = entry & lvt::MASKED == 0 && lvt_delivery(entry) == DeliveryMode::ExtInt;
        // While the APIC is disabled, LINT0 is the processor's INTR pin (12.4.3).
        let through = wired || self.mode() == ApicMode::Disabled;
        (self.lint[0] && through) || self.external
    }

    /// What [`Signal::Intr`] should be.
    pub(super) fn interrupt_pending(&self) -> bool {
        self.external_pending() || self.deliverable().is_some()
    }

    /// The processor's side of the acknowledge cycle. The 8259 goes first: it has no place in the
    /// priorities.
    pub(super) fn acknowledge(&mut self) -> Option<Acknowledged> {
        if self.external_pending() {
            self.external = false;
            return Some(Acknowledged::External);
        }
        let vector = self.deliverable()?;
        self.irr.set(vector, false);
        self.isr.set(vector, true);
        Some(Acknowledged::Vector(vector))
    }

    /// A write to EOI.
    pub(super) fn eoi(&mut self) -> Action {
        let Some(vector) = self.isr.highest() else { return Action::None };
        self.isr.set(vector, false);
        for index in [slot::LINT0, slot::LINT1] {
            if self.lvt[index] & (lvt::REMOTE_IRR | lvt::VECTOR)
                == lvt::REMOTE_IRR | u32::from(vector.0)
            {
                self.lvt[index] &= !lvt::REMOTE_IRR;
                self.sample_level(index);
            }
        }
        if self.tmr.get(vector) { Action::BroadcastEoi(vector) } else { Action::None }
    }

    /// Accepts a fixed interrupt. False if it was refused.
    pub(super) fn accept(&mut self, vector: Vector, trigger: Trigger) -> bool {
        if !self.software_enabled() {
            return false;
        }
        if vector < Vector(16) {
            self.error(esr::RECEIVED_ILLEGAL_VECTOR);
            return false;
        }
        self.irr.set(vector, true);
        self.tmr.set(vector, trigger == Trigger::Level);
        true
    }

    /// Notes an error; the first since the last write to ESR raises the LVT error interrupt.
    pub(super) fn error(&mut self, bits: u32) {
        let armed = self.esr_pending == 0;
        self.esr_pending |= bits;
        let entry = self.lvt[slot::ERROR];
        let vector = Vector(entry as u8);
        if armed && entry & lvt::MASKED == 0 && vector >= Vector(16) {
            self.accept(vector, Trigger::Edge);
        }
    }

    /// Takes a message that [`Core::is_addressed`] to it. False if it was refused.
    pub(super) fn receive(&mut self, message: &Message, signals: &Signals) -> bool {
        match message.delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                return self.accept(message.vector, message.trigger);
            }
            DeliveryMode::Nmi => signals.raise(Signal::Nmi),
            DeliveryMode::Init => self.request_init(signals),
            DeliveryMode::StartUp => {
                // The second finds the processor started.
                self.sipi.get_or_insert(message.vector);
                signals.raise(Signal::Sipi);
            }
            DeliveryMode::ExtInt => self.external = true,
            DeliveryMode::Smi => {
                let what = "SMI dropped: no system management mode";
                tracing::debug!(target: "irq", id = self.id, "{what}");
            }
        }
        true
    }

    /// INIT for the processor. A start-up IPI from before has no effect that outlasts it.
    fn request_init(&mut self, signals: &Signals) {
        self.sipi = None;
        signals.raise(Signal::Init);
    }

    /// Whether `message` is for this APIC (12.6.2, 12.12.10).
    pub(super) fn is_addressed(&self, message: &Message) -> bool {
        let destination = message.destination;
        match (self.mode(), message.mode) {
            (ApicMode::Disabled, _) => false,
            (_, _) if destination == BROADCAST => true,
            (ApicMode::Xapic, DestinationMode::Physical) => {
                destination == 0xFF || destination == self.id
            }
            (ApicMode::Xapic, DestinationMode::Logical) => self.matches_xapic_logical(destination),
            (ApicMode::X2apic, DestinationMode::Physical) => destination == self.id,
            (ApicMode::X2apic, DestinationMode::Logical) => {
                destination >> 16 == self.ldr >> 16 && destination & self.ldr & 0xFFFF != 0
            }
        }
    }

    fn matches_xapic_logical(&self, destination: u32) -> bool {
        let Ok(destination) = u8::try_from(destination) else { return false };
        let own = (self.ldr >> 24) as u8;
        match self.dfr {
            DFR_FLAT => destination & own != 0,
            DFR_CLUSTER => {
                let cluster = destination >> 4 == 0xF || destination >> 4 == own >> 4;
                cluster && destination & own & 0xF != 0
            }
            _ => false,
        }
    }

    /// The level of LINT0 (`pin` 0) or LINT1 (1) changed.
    pub(super) fn set_lint(&mut self, pin: u8, level: bool, signals: &Signals) {
        let pin = usize::from(pin);
        let Some(input) = self.lint.get_mut(pin) else { return };
        let rises = level && !*input;
        *input = level;
        let index = slot::LINT0 + pin;
        let entry = self.lvt[index];
        if self.mode() == ApicMode::Disabled {
            if rises && pin == 1 {
                signals.raise(Signal::Nmi);
            }
            return;
        }
        if entry & lvt::MASKED != 0 || !rises {
            return;
        }
        match lvt_delivery(entry) {
            DeliveryMode::Nmi => signals.raise(Signal::Nmi),
            DeliveryMode::Init => self.request_init(signals),
            DeliveryMode::Fixed if entry & lvt::LEVEL != 0 => self.sample_level(index),
            DeliveryMode::Fixed => {
                self.accept(Vector(entry as u8), Trigger::Edge);
            }
            // ExtINT follows the level; see `external_pending`.
            _ => {}
        }
    }

    /// Requests a level-triggered local interrupt if its pin is up and none is in flight.
    pub(super) fn sample_level(&mut self, index: usize) {
        let entry = self.lvt[index];
        let fixed = lvt_delivery(entry) == DeliveryMode::Fixed;
        let free = entry & (lvt::MASKED | lvt::REMOTE_IRR) == 0 && entry & lvt::LEVEL != 0;
        let up = self.lint[usize::from(index == slot::LINT1)];
        if fixed && free && up && self.accept(Vector(entry as u8), Trigger::Level) {
            self.lvt[index] |= lvt::REMOTE_IRR;
        }
    }

    /// Moves the timer to `at` and requests its interrupt if it expired.
    pub(super) fn advance(&mut self, at: Instant) {
        let entry = self.lvt[slot::TIMER];
        if self.timer.advance(at) && entry & lvt::MASKED == 0 {
            self.accept(Vector(entry as u8), Trigger::Edge);
        }
    }

    /// WRMSR of IA32_APIC_BASE; `None`: #GP (12.4.4, 12.12.5).
    pub(super) fn write_base(&mut self, value: u64) -> Option<()> {
        if value & !(base::BSP | base::EXTD | base::EN | base::ADDRESS) != 0 {
            return None;
        }
        let (enabled, extended) = (value & base::EN != 0, value & base::EXTD != 0);
        let before = self.mode();
        match (before, enabled, extended) {
            (_, false, true) => return None,
            (ApicMode::Disabled, true, true) => return None,
            (ApicMode::X2apic, true, false) => return None,
            _ => {}
        }
        self.base = value & !base::BSP | self.base & base::BSP;
        if !enabled && before != ApicMode::Disabled {
            self.init();
        }
        if self.mode() == ApicMode::X2apic && before != ApicMode::X2apic {
            self.ldr = self.x2apic_ldr();
            self.icr &= 0xFFFF_FFFF;
        }
        Some(())
    }

    /// A write to an LVT entry.
    pub(super) fn write_lvt(&mut self, index: usize, value: u32) {
        let Some(entry) = self.lvt.get_mut(index) else { return };
        let writable = lvt_bits(index) & !LVT_READ_ONLY;
        *entry = *entry & LVT_READ_ONLY | value & writable;
        if self.svr & svr::ENABLE == 0 {
            *entry |= lvt::MASKED;
        }
        // An edge-triggered entry has no remote IRR.
        if *entry & lvt::LEVEL == 0 {
            *entry &= !lvt::REMOTE_IRR;
        }
        if index == slot::TIMER {
            self.timer.set_mode(Mode::of_lvt(value));
        } else if matches!(index, slot::LINT0 | slot::LINT1) {
            self.sample_level(index);
        }
    }

    /// A write to SVR: disabling masks every LVT entry (12.4.7.2).
    pub(super) fn write_svr(&mut self, value: u32) {
        self.svr = value & SVR_BITS;
        if self.svr & svr::ENABLE == 0 {
            self.lvt.iter_mut().for_each(|entry| *entry |= lvt::MASKED);
        }
    }
}

/// The delivery mode of an LVT entry; those that the LVT has not deliver nothing (as SMI).
pub(super) fn lvt_delivery(entry: u32) -> DeliveryMode {
    match DeliveryMode::from_bits((entry & lvt::DELIVERY) >> lvt::DELIVERY_SHIFT) {
        Some(DeliveryMode::LowestPriority | DeliveryMode::StartUp) | None => DeliveryMode::Smi,
        Some(mode) => mode,
    }
}
