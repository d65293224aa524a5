//! Interrupt lines: what a device holds to ask for an interrupt.
//!
//! A handle carries *assertion*, not voltage: `set(true)` asks, whatever polarity the guest
//! programs. Every call of [`IsaIrqs::line`] or [`GsiIrqs::line`] makes a new source; the line is
//! up while any of its sources is (wired OR). A line's mutex is held while the chips are told, so
//! that they see changes in order.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use sync::lock;
use x86::addr::Gsi;

/// An interrupt chip's inputs.
pub trait IrqInputs: Send + Sync {
    /// The level of input `pin` is now `level`. A pin that is not there is ignored.
    fn set_input(&self, pin: u8, level: bool);
}

/// The sixteen ISA interrupt lines, each wired to the 8259 pair and to the IOAPIC.
pub struct IsaIrqs {
    lines: [Arc<Line>; 16],
}

struct Line {
    /// For traces: the IRQ, or the pin.
    number: u8,
    raised: Mutex<u32>,
    /// The chips it is wired to, and the pins there.
    wires: Vec<(Arc<dyn IrqInputs>, u8)>,
}

impl IsaIrqs {
    /// Wires the lines: IRQ n to pin n of both, except IRQ0, which reaches the IOAPIC on pin 2
    /// (what the MADT's interrupt source override tells the guest), and IRQ2, the 8259's cascade,
    /// which reaches nothing.
    pub fn new(pic: &Arc<dyn IrqInputs>, ioapic: &Arc<dyn IrqInputs>) -> Self {
        let line = |irq: usize| {
            let number = irq as u8;
            let both =
                |ioapic_pin| vec![(Arc::clone(pic), number), (Arc::clone(ioapic), ioapic_pin)];
            let wires = match number {
                0 => both(2),
                2 => Vec::new(),
                _ => both(number),
            };
            Arc::new(Line { number, raised: Mutex::new(0), wires })
        };
        Self { lines: std::array::from_fn(line) }
    }

    /// A new source on line `irq` (taken modulo 16).
    pub fn line(&self, irq: u8) -> IrqLine {
        IrqLine::source(Arc::clone(&self.lines[usize::from(irq & 15)]))
    }
}

impl fmt::Debug for IsaIrqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raised = self.lines.iter().map(|line| (line.number, *lock(&line.raised)));
        f.debug_map().entries(raised).finish()
    }
}

/// The interrupt lines beyond the ISA interrupts', wired to the IOAPIC alone: PCI's INTx, which
/// devices may share.
pub struct GsiIrqs {
    lines: [Arc<Line>; 8],
}

impl GsiIrqs {
    /// The first of them.
    const FIRST: u8 = 16;

    /// Wires each to the pin of its number.
    pub fn new(ioapic: &Arc<dyn IrqInputs>) -> Self {
        let line = |index: usize| {
            let number = Self::FIRST + index as u8;
            let wires = vec![(Arc::clone(ioapic), number)];
            Arc::new(Line { number, raised: Mutex::new(0), wires })
        };
        Self { lines: std::array::from_fn(line) }
    }

    /// A new source on line `gsi`; one that leads nowhere if there is no such line.
    pub fn line(&self, gsi: Gsi) -> IrqLine {
        let index = gsi.0.checked_sub(Self::FIRST.into()).map(|index| index as usize);
        let line = index.and_then(|index| self.lines.get(index));
        line.map_or_else(IrqLine::unconnected, |line| IrqLine::source(Arc::clone(line)))
    }
}

impl fmt::Debug for GsiIrqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raised = self.lines.iter().map(|line| (line.number, *lock(&line.raised)));
        f.debug_map().entries(raised).finish()
    }
}

impl Line {
    fn drive(&self, level: bool) {
        tracing::trace!(target: "irq", irq = self.number, level, "line");
        for (chip, pin) in &self.wires {
            chip.set_input(*pin, level);
        }
    }
}

struct Source {
    line: Arc<Line>,
    up: AtomicBool,
}

/// One source on an interrupt line. Clones are the same source.
#[derive(Clone)]
pub struct IrqLine {
    source: Option<Arc<Source>>,
}

impl IrqLine {
    /// A line that leads nowhere.
    pub fn unconnected() -> Self {
        Self { source: None }
    }

    /// The only source on a line that leads to `pin` of `chip` alone.
    pub fn to_pin(pin: u8, chip: Arc<dyn IrqInputs>) -> Self {
        let wires = vec![(chip, pin)];
        Self::source(Arc::new(Line { number: pin, raised: Mutex::new(0), wires }))
    }

    fn source(line: Arc<Line>) -> Self {
        Self { source: Some(Arc::new(Source { line, up: AtomicBool::new(false) })) }
    }

    /// Asserts (`true`) or releases the line.
    pub fn set(&self, level: bool) {
        let Some(Source { line, up }) = self.source.as_deref() else { return };
        let mut raised = lock(&line.raised);
        if up.swap(level, Ordering::Relaxed) == level {
            return;
        }
        let before = *raised;
        *raised = if level { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (*raised == 0) {
            line.drive(level);
        }
    }

    /// One edge: released, then asserted. The line stays up until the next pulse, as the 8254's OUT
    /// does: the 8259 drops a request whose line falls before it is acknowledged.
    pub fn pulse(&self) {
        self.set(false);
        self.set(true);
    }
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.as_deref() {
            None => f.write_str("IrqLine(unconnected)"),
            Some(source) => write!(f, "IrqLine({})", source.line.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Pins(Mutex<Vec<(u8, bool)>>);

    impl IrqInputs for Pins {
        fn set_input(&self, pin: u8, level: bool) {
            lock(&self.0).push((pin, level));
        }
    }

    #[test]
    fn lines_are_wired_or_and_override_irq0() {
        let (pic, ioapic) = (Arc::new(Pins::default()), Arc::new(Pins::default()));
        let irqs = IsaIrqs::new(&(Arc::clone(&pic) as _), &(Arc::clone(&ioapic) as _));
        let (a, b) = (irqs.line(5), irqs.line(5));
        a.set(true);
        b.set(true);
        a.set(false);
        a.set(false);
        assert_eq!(*lock(&pic.0), [(5, true)]);
        b.set(false);
        irqs.line(0).pulse();
        irqs.line(2).pulse();
        assert_eq!(*lock(&pic.0), [(5, true), (5, false), (0, true)]);
        let gsis = GsiIrqs::new(&(Arc::clone(&ioapic) as _));
        let (gsi, shared) = (gsis.line(Gsi(17)), gsis.line(Gsi(17)));
        gsi.set(true);
        shared.set(true);
        gsi.set(false);
        shared.set(false);
        gsis.line(Gsi(24)).set(true);
        gsis.line(Gsi(15)).set(true);
        assert_eq!(lock(&pic.0).len(), 3);
        let expected = [(5, true), (5, false), (2, true), (17, true), (17, false)];
        assert_eq!(*lock(&ioapic.0), expected);
    }
}
