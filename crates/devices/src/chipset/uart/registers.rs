//! Registers and bits of the 16550A (National PC16550D datasheet, section 8).

/// Offset 0: receiver buffer and transmitter holding register; with DLAB the divisor's low byte.
pub(super) const RBR_THR: u8 = 0;
/// Offset 1: interrupt enable; with DLAB the divisor's high byte.
pub(super) const IER: u8 = 1;
/// Offset 2: interrupt identification (read), FIFO control (write).
pub(super) const IIR_FCR: u8 = 2;
/// Offset 3: line control.
pub(super) const LCR: u8 = 3;
/// Offset 4: modem control.
pub(super) const MCR: u8 = 4;
/// Offset 5: line status.
pub(super) const LSR: u8 = 5;
/// Offset 6: modem status.
pub(super) const MSR: u8 = 6;

/// Receiver and transmitter FIFOs.
pub(super) const FIFO: usize = 16;
/// The baud-rate generator's input, divided by 16, in Hz.
pub(super) const CLOCK_HZ: u64 = 115_200;

/// IER: received data available.
pub(super) const IER_RDA: u8 = 1 << 0;
/// IER: transmitter holding register empty.
pub(super) const IER_THRE: u8 = 1 << 1;
/// IER: receiver line status.
pub(super) const IER_RLS: u8 = 1 << 2;
/// IER: modem status.
pub(super) const IER_MSI: u8 = 1 << 3;
/// IER: the bits that exist.
pub(super) const IER_BITS: u8 = IER_RDA | IER_THRE | IER_RLS | IER_MSI;

/// IIR: nothing pending.
pub(super) const IIR_NONE: u8 = 0b0001;
pub(super) const IIR_MODEM: u8 = 0b0000;
pub(super) const IIR_THRE: u8 = 0b0010;
pub(super) const IIR_RDA: u8 = 0b0100;
pub(super) const IIR_RLS: u8 = 0b0110;
pub(super) const IIR_TIMEOUT: u8 = 0b1100;
/// IIR: FIFOs enabled.
pub(super) const IIR_FIFO: u8 = 0b1100_0000;

/// FCR: FIFOs enabled.
pub(super) const FCR_ENABLE: u8 = 1 << 0;
/// FCR: clear the receiver FIFO.
pub(super) const FCR_CLEAR_RX: u8 = 1 << 1;
/// FCR: DMA mode, kept without effect.
pub(super) const FCR_DMA: u8 = 1 << 3;
/// FCR: where the receiver's trigger level begins.
pub(super) const FCR_TRIGGER_SHIFT: u32 = 6;
/// FCR: the bits that stay.
pub(super) const FCR_BITS: u8 = FCR_ENABLE | FCR_DMA | 3 << FCR_TRIGGER_SHIFT;

/// LCR, WLS: the word's bits less five.
pub(super) const LCR_WORD: u8 = 3;
/// LCR, STB: a second stop bit.
pub(super) const LCR_STOP_SHIFT: u32 = 2;
/// LCR, PEN: a parity bit.
pub(super) const LCR_PARITY_SHIFT: u32 = 3;
/// LCR: divisor latch access.
pub(super) const LCR_DLAB: u8 = 1 << 7;

/// MCR: data terminal ready.
pub(super) const MCR_DTR: u8 = 1 << 0;
/// MCR: request to send.
pub(super) const MCR_RTS: u8 = 1 << 1;
/// MCR: OUT1.
pub(super) const MCR_OUT1: u8 = 1 << 2;
/// MCR: OUT2, which on a PC connects the interrupt.
pub(super) const MCR_OUT2: u8 = 1 << 3;
/// MCR: loopback.
pub(super) const MCR_LOOP: u8 = 1 << 4;
/// MCR: the bits that exist.
pub(super) const MCR_BITS: u8 = MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2 | MCR_LOOP;

/// LSR: data ready.
pub(super) const LSR_DR: u8 = 1 << 0;
/// LSR: overrun, the only error there is.
pub(super) const LSR_OE: u8 = 1 << 1;
/// LSR: transmitter holding register empty.
pub(super) const LSR_THRE: u8 = 1 << 5;
/// LSR: transmitter empty.
pub(super) const LSR_TEMT: u8 = 1 << 6;

/// MSR: clear to send.
pub(super) const MSR_CTS: u8 = 1 << 4;
/// MSR: data set ready.
pub(super) const MSR_DSR: u8 = 1 << 5;
/// MSR: ring indicator.
pub(super) const MSR_RI: u8 = 1 << 6;
/// MSR: data carrier detect.
pub(super) const MSR_DCD: u8 = 1 << 7;
/// MSR, DCTS, DDSR, TERI and DDCD: what has changed since MSR was read.
pub(super) const MSR_CHANGES: u8 = 0x0F;
/// MSR: trailing edge of the ring indicator.
pub(super) const MSR_TERI: u8 = 1 << 2;
