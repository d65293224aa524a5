//! The 16550A's registers and rules (National PC16550D datasheet, section 8). Pure: bytes sent are
//! returned, the moment is passed in.
//!
//! The transmitter is infinitely fast: a byte written to THR is out, and THR is empty again, before
//! the write ends. The receiver takes what it is given; the sender asks [`Core::room`] first.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Receiver and transmitter FIFOs.
pub(super) const FIFO: usize = 16;
/// Consecutive reads of LSR, with nothing sent in between, that show a guest waiting for input by
/// polling.
const POLLS: u8 = 32;
/// The baud-rate generator's input, divided by 16, in Hz.
const CLOCK_HZ: u64 = 115_200;

/// IER: received data available.
pub(super) const IER_RDA: u8 = 1 << 0;
/// IER: transmitter holding register empty.
pub(super) const IER_THRE: u8 = 1 << 1;
/// IER: receiver line status.
const IER_RLS: u8 = 1 << 2;
/// IER: modem status.
const IER_MSI: u8 = 1 << 3;

/// IIR: nothing pending.
const IIR_NONE: u8 = 0b0001;
const IIR_MODEM: u8 = 0b0000;
const IIR_THRE: u8 = 0b0010;
const IIR_RDA: u8 = 0b0100;
const IIR_RLS: u8 = 0b0110;
const IIR_TIMEOUT: u8 = 0b1100;
/// IIR: FIFOs enabled.
const IIR_FIFO: u8 = 0b1100_0000;

/// FCR: FIFOs enabled.
const FCR_ENABLE: u8 = 1 << 0;
/// FCR: clear the receiver FIFO.
const FCR_CLEAR_RX: u8 = 1 << 1;

/// LCR: divisor latch access.
const LCR_DLAB: u8 = 1 << 7;

/// MCR: request to send.
const MCR_RTS: u8 = 1 << 1;
/// MCR: OUT2, which on a PC connects the interrupt.
const MCR_OUT2: u8 = 1 << 3;
/// MCR: loopback.
const MCR_LOOP: u8 = 1 << 4;

/// LSR: data ready.
pub(super) const LSR_DR: u8 = 1 << 0;
/// LSR: overrun.
const LSR_OE: u8 = 1 << 1;
/// LSR: the errors that a read clears and that interrupt.
const LSR_ERRORS: u8 = 0b0001_1110;
/// LSR: transmitter holding register empty.
const LSR_THRE: u8 = 1 << 5;
/// LSR: transmitter empty.
const LSR_TEMT: u8 = 1 << 6;

/// MSR: CTS, DSR, DCD up: a terminal that is always there.
const MSR_LINES: u8 = 0b1011_0000;

/// The chip. Its fields are its saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Core {
    pub(super) rx: VecDeque<u8>,
    pub(super) ier: u8,
    pub(super) fcr: u8,
    pub(super) lcr: u8,
    pub(super) mcr: u8,
    /// The error bits of LSR; the others follow from the FIFOs.
    pub(super) errors: u8,
    pub(super) msr: u8,
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
            msr: MSR_LINES,
            scr: 0,
            divisor: 12,
            thre: false,
            timeout: false,
            touched: 0,
            polls: 0,
        }
    }

    /// The register `offset` (0 to 7).
    pub(super) fn read(&mut self, offset: u8, now: u64) -> u8 {
        let dlab = self.lcr & LCR_DLAB != 0;
        match offset & 7 {
            0 if dlab => self.divisor as u8,
            1 if dlab => (self.divisor >> 8) as u8,
            0 => self.read_rbr(now),
            1 => self.ier,
            2 => self.read_iir(),
            3 => self.lcr,
            4 => self.mcr,
            5 => self.read_lsr(),
            6 => self.read_msr(),
            _ => self.scr,
        }
    }

    /// Writes register `offset`; the byte that goes out, if any.
    pub(super) fn write(&mut self, offset: u8, value: u8, now: u64) -> Option<u8> {
        let dlab = self.lcr & LCR_DLAB != 0;
        match offset & 7 {
            0 if dlab => self.divisor = self.divisor & 0xFF00 | u16::from(value),
            1 if dlab => self.divisor = self.divisor & 0x00FF | u16::from(value) << 8,
            0 => return self.write_thr(value, now),
            1 => self.write_ier(value),
            2 => self.write_fcr(value),
            3 => self.lcr = value,
            4 => self.write_mcr(value),
            // LSR and MSR are read-only (factory test).
            5 | 6 => {}
            _ => self.scr = value,
        }
        None
    }

    /// Whether the interrupt output is up.
    pub(super) fn interrupt(&self) -> bool {
        // In loopback the OUT2 pin is inactive.
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && self.cause() != IIR_NONE
    }

    /// How many bytes the receiver takes now. A guest that neither has the receive interrupt on
    /// (with RTS up) nor polls gets none: its driver would clear the FIFO when it starts.
    pub(super) fn room(&self) -> usize {
        let interrupts = self.ier & IER_RDA != 0 && self.mcr & MCR_RTS != 0;
        let listens = interrupts || self.polls >= POLLS;
        if !listens || self.mcr & MCR_LOOP != 0 {
            return 0;
        }
        self.capacity().saturating_sub(self.rx.len())
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

    fn capacity(&self) -> usize {
        if self.fifo() { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        if !self.fifo() {
            return 1;
        }
        [1, 4, 8, 14][usize::from(self.fcr >> 6)]
    }

    /// One character in VM nanoseconds: start bit, word, parity, stop bits.
    fn character_ns(&self) -> u64 {
        let bits = 1 + 5 + u64::from(self.lcr & 3) + u64::from(self.lcr >> 3 & 1);
        let bits = bits + 1 + u64::from(self.lcr >> 2 & 1);
        bits * u64::from(self.divisor.max(1)) * 1_000_000_000 / CLOCK_HZ
    }

    fn touch(&mut self, now: u64) {
        self.touched = now;
        self.timeout = false;
    }

    /// The pending interrupt with the highest priority (table IV).
    fn cause(&self) -> u8 {
        if self.ier & IER_RLS != 0 && self.errors & LSR_ERRORS != 0 {
            IIR_RLS
        } else if self.ier & IER_RDA != 0 && self.rx.len() >= self.trigger() {
            IIR_RDA
        } else if self.ier & IER_RDA != 0 && self.timeout && !self.rx.is_empty() {
            IIR_TIMEOUT
        } else if self.ier & IER_THRE != 0 && self.thre {
            IIR_THRE
        } else if self.ier & IER_MSI != 0 && self.msr & 0x0F != 0 {
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

    fn read_iir(&mut self) -> u8 {
        let cause = self.cause();
        if cause == IIR_THRE {
            self.thre = false;
        }
        cause | if self.fifo() { IIR_FIFO } else { 0 }
    }

    fn read_lsr(&mut self) -> u8 {
        self.polls = self.polls.saturating_add(1);
        let ready = if self.rx.is_empty() { 0 } else { LSR_DR };
        ready | std::mem::take(&mut self.errors) | LSR_THRE | LSR_TEMT
    }

    fn read_msr(&mut self) -> u8 {
        let value = self.msr;
        self.msr &= 0xF0;
        value
    }

    fn write_thr(&mut self, byte: u8, now: u64) -> Option<u8> {
        self.thre = true;
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
        self.ier = value & 0x0F;
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (value ^ self.fcr) & FCR_ENABLE != 0;
        if toggled || value & (FCR_ENABLE | FCR_CLEAR_RX) == FCR_ENABLE | FCR_CLEAR_RX {
            self.rx.clear();
            self.timeout = false;
        }
        self.fcr = if value & FCR_ENABLE != 0 { value & 0xC9 } else { 0 };
    }

    fn write_mcr(&mut self, value: u8) {
        self.mcr = value & 0x1F;
        let lines = if self.mcr & MCR_LOOP == 0 {
            MSR_LINES
        } else {
            // RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
            (self.mcr & 0b10) << 3 | (self.mcr & 1) << 5 | (self.mcr & 0b1100) << 4
        };
        let changed = (lines ^ self.msr) >> 4;
        // TERI notes the end of ringing only.
        let ring_begins = lines & 0x40 != 0;
        let delta = if ring_begins { changed & !0b100 } else { changed };
        self.msr = lines | self.msr & 0x0F | delta;
    }
}
