//! The 16550A's registers and rules (National PC16550D datasheet, section 8). Pure: bytes sent are
//! returned, the moment is passed in.
//!
//! The transmitter is infinitely fast: a byte written to THR is out, and THR is empty again, before
//! the write ends. The receiver takes what it is given; the sender asks [`Core::room`] first.
//!
//! A driver fills the FIFO in its handler: it reads IIR, which ends the THRE interrupt, then LSR,
//! and writes to THR, which would raise the next at once. So the interrupt output stays up from IIR
//! to THR: a fall and a rise between would be another edge for the interrupt chips, and pending for
//! the rest of the handler. Whatever else happens to the chip, or some time, ends that.

use super::registers::*;
use std::collections::VecDeque;

/// Consecutive reads of LSR, with nothing sent in between, that show a guest waiting for input by
/// polling.
const POLLS: u8 = 32;

/// VM nanoseconds from reading IIR that a driver has to begin to fill the FIFO.
const HOLD: u64 = 20_000;

/// The chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) rx: VecDeque<u8>,
    pub(super) ier: u8,
    pub(super) fcr: u8,
    pub(super) lcr: u8,
    pub(super) mcr: u8,
    /// The error bits of LSR; the others follow from the FIFOs.
    pub(super) errors: u8,
    /// The low half of MSR; the lines follow from MCR.
    pub(super) changes: u8,
    pub(super) scr: u8,
    pub(super) divisor: u16,
    /// The THRE interrupt is pending.
    pub(super) thre: bool,
    /// The character timeout has passed.
    pub(super) timeout: bool,
    /// When the receiver was last touched, in VM nanoseconds.
    pub(super) touched: u64,
    /// Reads of LSR since the last byte was sent.
    pub(super) polls: u8,
    /// Until when the output stays up though nothing is pending.
    pub(super) held_until: Option<u64>,
}

impl Core {
    pub(super) fn new() -> Self {
        Self {
            rx: VecDeque::new(),
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            errors: 0,
            changes: 0,
            scr: 0,
            divisor: 12,
            thre: false,
            timeout: false,
            touched: 0,
            polls: 0,
            held_until: None,
        }
    }

    /// The register `offset` (0 to 7).
    pub(super) fn read(&mut self, offset: u8, now: u64) -> u8 {
        let dlab = self.lcr & LCR_DLAB != 0;
        match offset & 7 {
            RBR_THR if dlab => self.divisor as u8,
            IER if dlab => (self.divisor >> 8) as u8,
            RBR_THR => self.read_rbr(now),
            IER => self.ier,
            IIR_FCR => self.read_iir(now),
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => self.read_lsr(),
            MSR => self.read_msr(),
            _ => self.scr,
        }
    }

    /// Writes register `offset`; the byte that goes out, if any.
    pub(super) fn write(&mut self, offset: u8, value: u8, now: u64) -> Option<u8> {
        let dlab = self.lcr & LCR_DLAB != 0;
        match offset & 7 {
            RBR_THR if dlab => self.divisor = self.divisor & 0xFF00 | u16::from(value),
            IER if dlab => self.divisor = self.divisor & 0x00FF | u16::from(value) << 8,
            RBR_THR => return self.write_thr(value, now),
            IER => self.write_ier(value),
            IIR_FCR => self.write_fcr(value),
            LCR => self.lcr = value,
            MCR => self.write_mcr(value),
            // Writing them is for the factory's test.
            LSR | MSR => {}
            _ => self.scr = value,
        }
        None
    }

    /// Whether a byte written to THR goes out and changes nothing: one was written just before.
    pub(super) fn sends_on(&self) -> bool {
        self.thre && self.polls == 0 && self.mcr & MCR_LOOP == 0 && self.lcr & LCR_DLAB == 0
    }

    /// Whether a driver that fills the FIFO reads the register `offset` before it does.
    pub(super) fn is_read_while_filling(offset: u8) -> bool {
        matches!(offset & 7, LSR | MSR)
    }

    /// Whether it writes to the register `offset`.
    pub(super) fn is_filled_by(offset: u8) -> bool {
        offset & 7 == RBR_THR
    }

    /// Lets the output fall if it is only held up; whether it was held.
    pub(super) fn let_go(&mut self) -> bool {
        self.held_until.take().is_some()
    }

    /// Whether the interrupt output is up.
    pub(super) fn interrupt(&self) -> bool {
        // In loopback the OUT2 pin is inactive.
        let up = self.held_until.is_some() || self.cause() != IIR_NONE;
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && up
    }

    /// How many bytes the receiver takes now. A guest that neither has the receive interrupt on
    /// (with RTS up) nor polls gets none: its driver would clear the FIFO when it starts. One that
    /// is not done with what it has gets none, either: filled up while it is being emptied, the
    /// FIFO would stay below the trigger level, and each time the guest would wait for the
    /// character timeout, which at 9600 baud is 4 ms.
    pub(super) fn room(&self) -> usize {
        let interrupts = self.ier & IER_RDA != 0 && self.mcr & MCR_RTS != 0;
        let listens = interrupts || self.polls >= POLLS;
        let takes = listens && self.mcr & MCR_LOOP == 0 && self.rx.is_empty();
        if takes { self.capacity() } else { 0 }
    }

    /// Receives `byte`; a full receiver overruns.
    pub(super) fn receive(&mut self, byte: u8, now: u64) {
        if self.rx.len() >= self.capacity() {
            self.errors |= LSR_OE;
            // With the FIFO the new byte is lost, without it the old one.
            if self.fifo() {
                return;
            }
            self.rx.clear();
        }
        self.rx.push_back(byte);
        self.touch(now);
    }

    /// When the character timeout passes: four characters after the receiver was last touched,
    /// while it holds fewer than the trigger level.
    pub(super) fn timeout_at(&self) -> Option<u64> {
        let waits = self.fifo() && !self.rx.is_empty() && !self.timeout;
        waits.then(|| self.touched.saturating_add(4 * self.character_ns()))
    }

    /// Notes the character timeout.
    pub(super) fn advance(&mut self, now: u64) {
        if self.timeout_at().is_some_and(|at| now >= at) {
            self.timeout = true;
        }
    }

    fn fifo(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    /// How many bytes the receiver holds at the most.
    pub(super) fn capacity(&self) -> usize {
        if self.fifo() { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        if !self.fifo() {
            return 1;
        }
        [1, 4, 8, 14][usize::from(self.fcr >> FCR_TRIGGER_SHIFT)]
    }

    /// One character in VM nanoseconds: start bit, word, parity, stop bits.
    fn character_ns(&self) -> u64 {
        let word = 5 + u64::from(self.lcr & LCR_WORD);
        let parity = u64::from(self.lcr >> LCR_PARITY_SHIFT & 1);
        let stop = 1 + u64::from(self.lcr >> LCR_STOP_SHIFT & 1);
        let bits = 1 + word + parity + stop;
        bits * u64::from(self.divisor.max(1)) * 1_000_000_000 / CLOCK_HZ
    }

    fn touch(&mut self, now: u64) {
        self.touched = now;
        self.timeout = false;
    }

    /// The pending interrupt with the highest priority (table IV).
    fn cause(&self) -> u8 {
        if self.ier & IER_RLS != 0 && self.errors != 0 {
            IIR_RLS
        } else if self.ier & IER_RDA != 0 && self.rx.len() >= self.trigger() {
            IIR_RDA
        } else if self.ier & IER_RDA != 0 && self.timeout && !self.rx.is_empty() {
            IIR_TIMEOUT
        } else if self.ier & IER_THRE != 0 && self.thre {
            IIR_THRE
        } else if self.ier & IER_MSI != 0 && self.changes != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn read_rbr(&mut self, now: u64) -> u8 {
        let byte = self.rx.pop_front().unwrap_or(0);
        self.touch(now);
        byte
    }

    fn read_iir(&mut self, now: u64) -> u8 {
        let cause = self.cause();
        if cause == IIR_THRE {
            self.thre = false;
            self.held_until = Some(now.saturating_add(HOLD));
        }
        cause | if self.fifo() { IIR_FIFO } else { 0 }
    }

    fn read_lsr(&mut self) -> u8 {
        self.polls = self.polls.saturating_add(1);
        let ready = if self.rx.is_empty() { 0 } else { LSR_DR };
        ready | std::mem::take(&mut self.errors) | LSR_THRE | LSR_TEMT
    }

    fn read_msr(&mut self) -> u8 {
        modem_lines(self.mcr) | std::mem::take(&mut self.changes)
    }

    fn write_thr(&mut self, byte: u8, now: u64) -> Option<u8> {
        self.thre = true;
        self.held_until = None;
        self.polls = 0;
        if self.mcr & MCR_LOOP != 0 {
            self.receive(byte, now);
            return None;
        }
        Some(byte)
    }

    fn write_ier(&mut self, value: u8) {
        // Enabling the THRE interrupt while THR is empty, as it always is, raises it.
        if value & !self.ier & IER_THRE != 0 {
            self.thre = true;
        }
        self.ier = value & IER_BITS;
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (value ^ self.fcr) & FCR_ENABLE != 0;
        if toggled || value & (FCR_ENABLE | FCR_CLEAR_RX) == FCR_ENABLE | FCR_CLEAR_RX {
            self.rx.clear();
            self.timeout = false;
        }
        self.fcr = if value & FCR_ENABLE != 0 { value & FCR_BITS } else { 0 };
    }

    fn write_mcr(&mut self, value: u8) {
        let before = modem_lines(self.mcr);
        self.mcr = value & MCR_BITS;
        let lines = modem_lines(self.mcr);
        let changed = (lines ^ before) >> 4;
        // TERI notes the end of ringing only.
        let ring_begins = lines & MSR_RI != 0;
        self.changes |= if ring_begins { changed & !MSR_TERI } else { changed };
    }
}

/// MSR's lines: a terminal that is always there, or in loopback the outputs of `mcr`.
fn modem_lines(mcr: u8) -> u8 {
    if mcr & MCR_LOOP == 0 {
        return MSR_CTS | MSR_DSR | MSR_DCD;
    }
    let wires = [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)];
    let up = wires.into_iter().filter(|(output, _)| mcr & output != 0);
    up.fold(0, |lines, (_, input)| lines | input)
}
