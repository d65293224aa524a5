//! The interrupt chips: local APICs, the IOAPIC, the 8259 pair, and what joins them.

mod interconnect;
mod ioapic;
mod lapic;
mod message;
mod pic;

pub use interconnect::{Among, EoiListener, ExternalVector, Interconnect, Receiver};
pub use ioapic::{IoApic, IoApicState};
pub use lapic::{CountDown, Lapic, LapicConfig, LapicState};
pub use message::{BROADCAST, DeliveryMode, DestinationMode, Message, Trigger};
pub use pic::{PicChipState, PicPair, PicState};
use x86::addr::{Gpa, Gsi, Port};

use crate::bus::{Bus, BusError};
use crate::irq::{GsiIrqs, IrqInputs, IrqLine, IsaIrqs};
use std::sync::Arc;

/// All interrupt chips of a machine, wired together.
#[derive(Debug)]
pub struct IrqChips {
    /// The local APICs, the bootstrap processor's first.
    pub lapics: Vec<Arc<Lapic>>,
    /// Carries messages to the local APICs.
    pub interconnect: Arc<Interconnect>,
    /// The IOAPIC.
    pub ioapic: Arc<IoApic>,
    /// The 8259 pair.
    pub pic: Arc<PicPair>,
    /// The ISA interrupt lines.
    pub isa: IsaIrqs,
    /// The interrupt lines beyond them.
    pub gsi: GsiIrqs,
}

impl IrqChips {
    /// Wires an IOAPIC with APIC id `ioapic_id` and a 8259 pair to `lapics`; the pair's output goes
    /// to LINT0 of the first, the bootstrap processor's.
    pub fn new(lapics: Vec<Arc<Lapic>>, ioapic_id: u8) -> Self {
        let receivers = lapics.iter().map(|lapic| Arc::clone(lapic) as _).collect();
        let interconnect = Interconnect::new(receivers);
        lapics.iter().for_each(|lapic| lapic.connect(Arc::downgrade(&interconnect)));
        let ioapic = IoApic::new(ioapic_id, Arc::clone(&interconnect) as _);
        let int = lapics.first().map_or_else(IrqLine::unconnected, |bootstrap| {
            IrqLine::to_pin(Lapic::LINT0, Arc::clone(bootstrap) as _)
        });
        let pic = PicPair::new(int);
        let eoi: Arc<dyn EoiListener> = Arc::clone(&ioapic) as _;
        let external: Arc<dyn ExternalVector> = Arc::clone(&pic) as _;
        interconnect.connect(Arc::downgrade(&eoi), Arc::downgrade(&external));
        let inputs: [Arc<dyn IrqInputs>; 2] = [Arc::clone(&pic) as _, Arc::clone(&ioapic) as _];
        let isa = IsaIrqs::new(&inputs[0], &inputs[1]);
        let gsi = GsiIrqs::new(&inputs[1]);
        Self { lapics, interconnect, ioapic, pic, isa, gsi }
    }

    /// A new source on ISA interrupt line `irq`.
    pub fn isa_line(&self, irq: u8) -> IrqLine {
        self.isa.line(irq)
    }

    /// A new source on the line to pin `gsi` of the IOAPIC, for a device that is on no ISA
    /// interrupt: 16 to 23.
    pub fn gsi_line(&self, gsi: Gsi) -> IrqLine {
        self.gsi.line(gsi)
    }

    /// Puts the 8259 pair on its ports (20H, 21H, A0H, A1H, 4D0H, 4D1H) and the IOAPIC at
    /// `ioapic_base` (a 4 KiB page). The local APICs' page is private to each vCPU: see
    /// [`Lapic::mmio_base`].
    ///
    /// # Errors
    /// If another device is there.
    pub fn attach(&self, bus: &mut Bus, ioapic_base: Gpa) -> Result<(), BusError> {
        bus.add_pio("pic", Port(0x20)..=Port(0x21), Arc::clone(&self.pic) as _)?;
        bus.add_pio("pic", Port(0xA0)..=Port(0xA1), Arc::clone(&self.pic) as _)?;
        bus.add_pio("elcr", Port(0x4D0)..=Port(0x4D1), Arc::clone(&self.pic) as _)?;
        let last = ioapic_base.saturating_add(0xFFF);
        bus.add_mmio("ioapic", ioapic_base..=last, Arc::clone(&self.ioapic) as _)
    }
}
