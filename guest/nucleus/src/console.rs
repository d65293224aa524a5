//! The console: a 16550 UART at COM1 (NS16550A data sheet).
//!
//! Output waits for the transmitter; input comes by interrupt 4 and is edited into lines by
//! line.rs.

use crate::cpu::{inb, outb};
use core::fmt::{self, Write};

const COM1: u16 = 0x3F8;
const DATA: u16 = COM1;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;

const RECEIVED: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes the transmitter's FIFO takes when it is empty.
const FIFO: usize = 16;

/// 115200 baud, 8N1, FIFOs on, interrupt when a byte comes in.
pub fn start() {
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, 0x80);
    outb(DATA, 1);
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, 3);
    outb(FIFO_CONTROL, 0x07);
    outb(MODEM_CONTROL, 0x0B);
    outb(INTERRUPT_ENABLE, RECEIVED);
}

/// The next byte that came in.
pub fn received() -> Option<u8> {
    (inb(LINE_STATUS) & RECEIVED != 0).then(|| inb(DATA))
}

/// Waits until everything has gone out.
pub fn flush() {
    while inb(LINE_STATUS) & 0x40 == 0 {
        crate::cpu::pause();
    }
}

/// Sends bytes as they are.
pub fn send(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO) {
        while inb(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
            crate::cpu::pause();
        }
        for &byte in chunk {
            outb(DATA, byte);
        }
    }
}

/// Text goes to the console, line ends as terminals want them.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text_out(text.as_bytes());
        Ok(())
    }
}

/// Sends text, a carriage return before every line feed.
pub fn text_out(text: &[u8]) {
    let mut lines = text.split(|&b| b == b'\n');
    if let Some(first) = lines.next() {
        send(first);
    }
    for line in lines {
        send(b"\r\n");
        send(line);
    }
}

#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($crate::console::Console, $($arg)*);
    }};
}

#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => {{ $crate::print!($($arg)*); $crate::print!("\n"); }};
}
