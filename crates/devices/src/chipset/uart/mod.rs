//! The 16550A UART (National PC16550D datasheet), wired to the host's terminal.
//!
//! Output goes to the sink on the vCPU's thread. Input comes from the I/O thread through
//! [`Uart::receive`], never more than the guest is ready to take: the host's end of the pipe is the
//! buffer.

mod core;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::UartState;

use self::core::Core;
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::saved::RestoreError;
use crate::time::{Clock, Expire, ExpireMut, Timer, TimerQueue};
use std::io::Write;
use std::sync::{Arc, Mutex};
use x86::addr::{Port, PortWidth};

/// What a UART is built from.
pub struct UartConfig {
    /// Its first port of eight (COM1: 3F8H).
    pub base: Port,
    /// VM time.
    pub clock: Arc<dyn Clock>,
    /// Where its timer is queued.
    pub timers: Arc<TimerQueue>,
    /// Its interrupt (COM1: IRQ4).
    pub irq: IrqLine,
    /// Where transmitted bytes go; written and flushed byte by byte on the vCPU's thread with the
    /// UART locked, so it must not block for long.
    pub output: Box<dyn Write + Send>,
}

/// A 16550A.
pub struct Uart {
    core: Core,
    base: Port,
    clock: Arc<dyn Clock>,
    timer: Timer,
    irq: IrqLine,
    output: Box<dyn Write + Send>,
    output_failed: bool,
    drained: Option<Box<dyn Fn() + Send>>,
}

impl Uart {
    /// As after reset.
    pub fn new(config: UartConfig) -> Arc<Mutex<Self>> {
        let UartConfig { base, clock, timers, irq, output } = config;
        let timer = timers.timer("uart");
        let core = Core::new();
        let uart = Self {
            core,
            base,
            clock,
            timer: timer.clone(),
            irq,
            output,
            output_failed: false,
            drained: None,
        };
        let uart = Arc::new(Mutex::new(uart));
        let owner: Arc<dyn Expire> = Arc::clone(&uart) as _;
        timer.connect(Arc::downgrade(&owner));
        uart
    }

    /// Offers received bytes; returns how many were accepted. Offer the rest when the drain
    /// callback rings.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.let_go();
        let accepted = bytes.len().min(self.core.room());
        let now = self.clock.now();
        for &byte in bytes.iter().take(accepted) {
            self.core.receive(byte, now);
        }
        self.drive();
        accepted
    }

    /// How many bytes [`Uart::receive`] would accept now: none before the guest listens (it has the
    /// receive interrupt on and RTS up, or polls the line status).
    pub fn wants_input(&self) -> usize {
        self.core.room()
    }

    /// `drained` is called when [`Uart::wants_input`] has risen from 0. It is called with the UART
    /// locked and must only ring a bell (an eventfd).
    pub fn on_drain(&mut self, drained: impl Fn() + Send + 'static) {
        self.drained = Some(Box::new(drained));
    }

    /// The saved state.
    pub fn save(&self) -> UartState {
        let Self {
            core,
            base: _,
            clock: _,
            timer: _,
            irq: _,
            output: _,
            output_failed: _,
            drained: _,
        } = self;
        core.save()
    }

    /// Goes on from `state`, and drives the interrupt and the timer.
    ///
    /// # Errors
    /// The state is another version's or no UART's; nothing was changed.
    pub fn restore(&mut self, state: &UartState) -> Result<(), RestoreError> {
        self.core = Core::restored(state, self.clock.now())?;
        self.drive();
        self.ring(0);
        Ok(())
    }

    fn drive(&mut self) {
        self.irq.set(self.core.interrupt());
        self.timer.set(self.core.timeout_at());
    }

    /// The driver does not fill the FIFO now: the next cause is an edge.
    fn let_go(&mut self) {
        if self.core.let_go() {
            self.irq.set(self.core.interrupt());
        }
    }

    fn ring(&self, room_before: usize) {
        if room_before == 0
            && self.core.room() > 0
            && let Some(drained) = &self.drained
        {
            drained();
        }
    }

    fn send(&mut self, byte: u8) {
        let result = self.output.write_all(&[byte]).and_then(|()| self.output.flush());
        if let Err(error) = result
            && !std::mem::replace(&mut self.output_failed, true)
        {
            let what = "cannot write the guest's console output; it is lost";
            tracing::warn!(target: "uart", %error, "{what}");
        }
    }

    /// Runs `body` on the core, then brings interrupt, timer and the sender up to date.
    fn access<R>(&mut self, body: impl FnOnce(&mut Core, u64) -> R) -> R {
        let now = self.clock.now();
        let room = self.core.room();
        if self.core.held_until.is_some_and(|until| now > until) {
            self.let_go();
        }
        self.core.advance(now);
        let result = body(&mut self.core, now);
        self.drive();
        self.ring(room);
        result
    }
}

impl PioDevice for Uart {
    fn read(&mut self, port: Port, _width: PortWidth) -> u32 {
        let offset = port.0.wrapping_sub(self.base.0) as u8;
        if !Core::is_read_while_filling(offset) {
            self.let_go();
        }
        u32::from(self.access(|core, now| core.read(offset, now)))
    }

    fn write(&mut self, port: Port, _width: PortWidth, value: u32) {
        let offset = port.0.wrapping_sub(self.base.0) as u8;
        match Core::is_filled_by(offset) {
            true if self.core.sends_on() => return self.send(value as u8),
            true => {}
            false => self.let_go(),
        }
        if let Some(byte) = self.access(|core, now| core.write(offset, value as u8, now)) {
            self.send(byte);
        }
    }
}

impl ExpireMut for Uart {
    fn expired(&mut self, _now: u64) {
        self.let_go();
        self.access(|_, _| ());
    }
}

impl std::fmt::Debug for Uart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uart({:#x}: {:?})", self.base, self.core)
    }
}
