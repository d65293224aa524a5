//! What a guest has done to the user's terminal, as its output tells.
//!
//! The output passes by here on its way to the terminal. Remembered is which modes are not as a
//! shell expects them, so that they, and no others, are set back when the guest has ended; and that
//! the terminal was asked for something, whose answer may still come. Sequences are those of
//! ECMA-48 and of xterm's "Control Sequences"; where a terminal might take one for a query, it
//! counts as one.
//!
//! ```text
//!            ESC            [                   final byte
//!   Ground ───────► Escape ───────► Control ─────────────────► Ground
//!     ▲               │ ] P _ ^ X                                 ▲
//!     │               └──────────► Text ───── BEL, ESC \ ─────────┘
//!     └─ CAN, SUB from anywhere
//! ```

use std::time::Instant;

/// What can be otherwise than a shell expects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// DECSET's mode of this number.
    Private(u16),
    /// SM's mode of this number.
    Standard(u16),
    /// The keypad sends sequences (DECKPAM).
    Keypad,
    /// Scrolling is kept to some of the lines (DECSTBM).
    Region,
    /// Letters are bold, coloured and the like (SGR).
    Attributes,
    /// The other character set is in use (SO, LS2, LS3).
    Shifted,
    /// The first character set is not ASCII (SCS).
    Letters,
    /// Bytes are not UTF-8 (ESC % @).
    Coding,
    /// The cursor's shape (DECSCUSR).
    Cursor,
    /// kitty's keyboard protocol.
    KeyboardFlags,
    /// xterm's modifyOtherKeys.
    OtherKeys,
    /// A colour of OSC 4 (all of the palette), 10, 11 or 12.
    Colour(u16),
    /// Output goes to a printer (MC).
    Printer,
}

/// How each is set back, in this order: out of the alternate screen first, since each screen has
/// some modes of its own. Setting back the scrolling region moves the cursor, so it is saved
/// meanwhile; not with origin mode on, which leads to the last line.
const UNDO: &[(Mode, &str)] = &[
    (Mode::Printer, "\x1b[4i\x1b[?4i"),
    (Mode::Private(2026), "\x1b[?2026l"),
    (Mode::Coding, "\x1b%G"),
    (Mode::Private(1049), "\x1b[?1049l"),
    (Mode::Private(1047), "\x1b[?1047l"),
    (Mode::Private(47), "\x1b[?47l"),
    (Mode::Private(69), "\x1b7\x1b[?69l\x1b8"),
    (Mode::Private(6), "\x1b[?6l\x1b[r\x1b[999;1H"),
    (Mode::Region, "\x1b7\x1b[r\x1b8"),
    (Mode::Private(1), "\x1b[?1l"),
    (Mode::Private(5), "\x1b[?5l"),
    (Mode::Private(7), "\x1b[?7h"),
    (Mode::Private(9), "\x1b[?9l"),
    (Mode::Private(25), "\x1b[?25h"),
    (Mode::Private(66), "\x1b[?66l"),
    (Mode::Private(1000), "\x1b[?1000l"),
    (Mode::Private(1001), "\x1b[?1001l"),
    (Mode::Private(1002), "\x1b[?1002l"),
    (Mode::Private(1003), "\x1b[?1003l"),
    (Mode::Private(1004), "\x1b[?1004l"),
    (Mode::Private(1005), "\x1b[?1005l"),
    (Mode::Private(1006), "\x1b[?1006l"),
    (Mode::Private(1015), "\x1b[?1015l"),
    (Mode::Private(1016), "\x1b[?1016l"),
    (Mode::Private(2004), "\x1b[?2004l"),
    (Mode::Private(2031), "\x1b[?2031l"),
    (Mode::Private(2048), "\x1b[?2048l"),
    (Mode::Standard(2), "\x1b[2l"),
    (Mode::Standard(4), "\x1b[4l"),
    (Mode::Standard(12), "\x1b[12h"),
    (Mode::Standard(20), "\x1b[20l"),
    (Mode::Keypad, "\x1b>"),
    (Mode::Shifted, "\x0f"),
    (Mode::Letters, "\x1b(B"),
    (Mode::Attributes, "\x1b[m"),
    (Mode::Cursor, "\x1b[0 q"),
    (Mode::KeyboardFlags, "\x1b[=0u"),
    (Mode::OtherKeys, "\x1b[>4m"),
    (Mode::Colour(4), "\x1b]104\x1b\\"),
    (Mode::Colour(10), "\x1b]110\x1b\\"),
    (Mode::Colour(11), "\x1b]111\x1b\\"),
    (Mode::Colour(12), "\x1b]112\x1b\\"),
];

/// Longest list of a control sequence's numbers that is looked at.
const NUMBERS: usize = 16;
/// Longest start of a string that is looked at.
const START: usize = 8;

/// Where in a sequence the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Ground,
    /// After ESC, and the last intermediate byte if there were any.
    Escape(u8),
    /// In a control sequence.
    Control,
    /// In a string that this byte opened: OSC, DCS, APC, PM, SOS.
    Text(u8),
    /// After ESC in it.
    TextEscape(u8),
}

/// The control sequence or string that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Sequence {
    /// `<`, `=`, `>`, `?`, or 0.
    prefix: u8,
    /// The last of its intermediate bytes, or 0.
    intermediate: u8,
    numbers: [u16; NUMBERS],
    /// How many of them are complete.
    complete: usize,
    /// A string's first bytes.
    start: [u8; START],
    /// A string's length so far, as far as it matters.
    length: usize,
}

impl Sequence {
    fn digit(&mut self, byte: u8) {
        if let Some(number) = self.numbers.get_mut(self.complete) {
            *number = number.saturating_mul(10).saturating_add((byte - b'0').into());
        }
    }

    /// One at least: none is zero.
    fn numbers(&self) -> &[u16] {
        self.numbers.get(..=self.complete).unwrap_or(&self.numbers)
    }

    /// Whether a terminal may answer this control sequence. DA, DSR, DECREQTPARM, window reports,
    /// kitty's flags, XTVERSION, DECRQM, checksums, locators, graphics.
    fn asks(&self, end: u8) -> bool {
        match (end, self.prefix, self.intermediate) {
            (b'n', prefix, _) => prefix != b'>',
            (b'c' | b'x' | b't' | b'y' | b'w' | b'|', ..) | (b'q', b'>', _) => true,
            (b'p', _, b'$') => true,
            (b'u' | b'm' | b'S' | b'R' | b'P', b'?', _) | (b'u', _, b'&') => true,
            (_, _, b'#') => true,
            _ => false,
        }
    }
}

/// A terminal as the output to it has made it.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    place: Place,
    sequence: Sequence,
    /// A bit for each row of [`UNDO`].
    changed: u64,
    /// When it was asked last for something that it answers as if it were typed.
    asked: Option<Instant>,
    /// How often it was asked for its status (DSR 5).
    status: u32,
    /// It got a string that ends by itself on Linux's console, and on no other terminal.
    unsure: bool,
}

impl Screen {
    /// One that has not been written to.
    pub(crate) const fn new() -> Self {
        Self {
            place: Place::Ground,
            sequence: Sequence {
                prefix: 0,
                intermediate: 0,
                numbers: [0; NUMBERS],
                complete: 0,
                start: [0; START],
                length: 0,
            },
            changed: 0,
            asked: None,
            status: 0,
            unsure: false,
        }
    }

    /// `bytes` go to it.
    pub(crate) fn see(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.byte(byte);
        }
    }

    /// When it was asked last for an answer. A terminal that tells of the mouse, of its focus or
    /// its size is asked all the time.
    pub(crate) fn asked(&self) -> Option<Instant> {
        const TELLING: [u16; 8] = [9, 1000, 1002, 1003, 1004, 2031, 2048, 1001];
        let telling = TELLING.iter().any(|&mode| self.is_changed(Mode::Private(mode)));
        if telling { Some(Instant::now()) } else { self.asked }
    }

    /// How often it was asked for its status.
    pub(crate) fn status_asked(&self) -> u32 {
        self.status
    }

    /// What sets it back, written with `write`; no allocation.
    pub(crate) fn undo(&self, mut write: impl FnMut(&str)) {
        if self.place != Place::Ground || self.unsure {
            write("\x18\x1b\\"); // the guest ended within a sequence
        }
        for (row, (_, text)) in UNDO.iter().enumerate() {
            if self.changed >> row & 1 != 0 {
                write(text);
            }
        }
    }

    fn is_changed(&self, mode: Mode) -> bool {
        row(mode).is_some_and(|row| self.changed >> row & 1 != 0)
    }

    fn change(&mut self, mode: Mode, changed: bool) {
        let bit = row(mode).map_or(0, |row| 1 << row);
        self.changed = if changed { self.changed | bit } else { self.changed & !bit };
    }

    fn ask(&mut self) {
        self.asked = Some(Instant::now());
    }

    fn byte(&mut self, byte: u8) {
        match (self.place, byte) {
            (_, 0x18 | 0x1A) => self.place = Place::Ground,
            (Place::Text(kind), 0x1B) => self.place = Place::TextEscape(kind),
            (Place::Text(b']'), 0x07) => self.end_text(b']'),
            (Place::Text(kind), _) => self.text(kind, byte),
            (Place::TextEscape(kind), b'\\') => self.end_text(kind),
            (Place::TextEscape(kind), _) => {
                self.end_text(kind);
                self.place = Place::Escape(0);
                self.byte(byte);
            }
            (_, 0x1B) => self.place = Place::Escape(0),
            (_, 0x05) => self.ask(),
            (_, 0x0E) => self.change(Mode::Shifted, true),
            (_, 0x0F) => self.change(Mode::Shifted, false),
            (_, 0..0x20) | (Place::Ground, _) => {}
            (Place::Escape(_), 0x20..0x30) => self.place = Place::Escape(byte),
            (Place::Escape(intermediate), _) => self.end_escape(intermediate, byte),
            (Place::Control, _) => self.control(byte),
        }
    }

    fn end_escape(&mut self, intermediate: u8, byte: u8) {
        self.place = Place::Ground;
        match (intermediate, byte) {
            (0, b'[') => {
                self.sequence = Sequence::default();
                self.place = Place::Control;
            }
            (0, b']' | b'P' | b'_' | b'^' | b'X') => {
                self.sequence = Sequence::default();
                self.place = Place::Text(byte);
            }
            (0, b'c') => self.changed = 0,
            (0, b'=') => self.change(Mode::Keypad, true),
            (0, b'>') => self.change(Mode::Keypad, false),
            (0, b'n' | b'o') => self.change(Mode::Shifted, true),
            (0, b'Z') => self.ask(),
            (b'(', set) => self.change(Mode::Letters, set != b'B'),
            (b'%', set) => self.change(Mode::Coding, set != b'G'),
            _ => {}
        }
    }

    fn control(&mut self, byte: u8) {
        match byte {
            b'0'..=b'9' => self.sequence.digit(byte),
            b';' | b':' => self.sequence.complete = (self.sequence.complete + 1).min(NUMBERS),
            b'<'..=b'?' => self.sequence.prefix = byte,
            0x20..0x30 => self.sequence.intermediate = byte,
            _ => {
                self.place = Place::Ground;
                self.end_control(byte);
            }
        }
    }

    fn end_control(&mut self, end: u8) {
        let sequence = self.sequence;
        let numbers = sequence.numbers();
        let first = numbers.first().copied().unwrap_or(0);
        if sequence.asks(end) {
            self.ask();
        }
        match (end, sequence.prefix, sequence.intermediate) {
            (b'h' | b'l', b'?', 0) => {
                let normal = |mode| if matches!(mode, 7 | 25) { b'h' } else { b'l' };
                for &mode in numbers {
                    self.change(Mode::Private(mode), end != normal(mode));
                }
            }
            (b'h' | b'l', 0, 0) => {
                let normal = |mode| if mode == 12 { b'h' } else { b'l' };
                for &mode in numbers {
                    self.change(Mode::Standard(mode), end != normal(mode));
                }
            }
            (b'm', 0, 0) => self.change(Mode::Attributes, numbers != [0]),
            (b'm', b'>', 0) => self.change(Mode::OtherKeys, numbers.len() > 1),
            (b'n', b'>', 0) => self.change(Mode::OtherKeys, true),
            (b'n', 0, 0) if first == 5 => self.status = self.status.saturating_add(1),
            (b'r', 0, 0) => self.change(Mode::Region, numbers.iter().any(|&line| line > 1)),
            (b'q', 0, b' ') => self.change(Mode::Cursor, first != 0),
            (b'u', b'=' | b'>', 0) => self.change(Mode::KeyboardFlags, true),
            (b'i', 0 | b'?', 0) if matches!(first, 4 | 5) => self.change(Mode::Printer, first == 5),
            _ => {}
        }
    }

    fn text(&mut self, kind: u8, byte: u8) {
        let sequence = &mut self.sequence;
        if let Some(place) = sequence.start.get_mut(sequence.length) {
            *place = byte;
            sequence.length += 1;
        }
        // Linux's console: ESC ] R, and ESC ] P with seven digits (console_codes(4)).
        let palette = match sequence.start.first() {
            Some(b'R') => true,
            Some(b'P') => sequence.length == START,
            _ => false,
        };
        if kind == b']' && palette {
            self.unsure = true;
            self.place = Place::Ground;
        }
        // A question mark in place of a value asks for it.
        if kind == b']' && byte == b'?' {
            self.ask();
        }
    }

    /// Any string to the terminal's own protocols may be answered.
    fn end_text(&mut self, kind: u8) {
        self.place = Place::Ground;
        if matches!(kind, b'P' | b'_') {
            self.ask();
        }
        if kind == b']' {
            match &self.sequence.start {
                [b'1', b'0'..=b'2', b';', b'?', ..] => {}
                [b'4', b';', ..] => self.change(Mode::Colour(4), true),
                [b'1', digit @ b'0'..=b'2', b';', ..] => {
                    self.change(Mode::Colour(10 + u16::from(digit - b'0')), true);
                }
                _ => {}
            }
        }
    }
}

fn row(mode: Mode) -> Option<usize> {
    UNDO.iter().position(|(other, _)| *other == mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(output: &[u8]) -> Screen {
        let mut screen = Screen::new();
        // Wherever it is cut.
        output.chunks(1).for_each(|piece| screen.see(piece));
        let mut whole = Screen::new();
        whole.see(output);
        assert_eq!(undone(&screen), undone(&whole));
        screen
    }

    fn undone(screen: &Screen) -> String {
        let mut text = String::new();
        screen.undo(|piece| text.push_str(piece));
        text
    }

    #[test]
    fn what_was_not_touched_is_left_alone() {
        for output in [
            &b"text \xc3\xa9\r\n\x1b[1;31mred\x1b[0m \x1b[7mx\x1b[m\x07"[..],
            b"\x1b[?1049h\x1b[?1h\x1b=\x1b[2J\x1b[H\x1b[?1l\x1b>\x1b[?1049l",
            b"\x1b[?25l\x1b[?25h\x1b[?7l\x1b[?7h\x0e\x0f\x1b(0q\x1b(B",
            b"\x1b[2;10r\x1b[r\x1b[4h\x1b[4l\x1b]0;a title\x07\x1b[K\x1b[10;10H",
            b"\x1b[?1;25;2004;1049l\x1b[?25h\x1b[?1000;2004;5h\x1bc",
        ] {
            let screen = after(output);
            assert_eq!(undone(&screen), "", "{output:?}");
            assert!(screen.asked().is_none(), "{output:?}");
        }
    }

    #[test]
    fn each_mode_is_set_back() {
        let cases: [(&[u8], &str); 16] = [
            (b"\x1b[?1049h", "\x1b[?1049l"),
            (b"\x1b[?25l", "\x1b[?25h"),
            (b"\x1b[?1;7;2004h", "\x1b[?1l\x1b[?2004l"),
            (b"\x1b[?7l", "\x1b[?7h"),
            (b"\x1b[?1002;1006h", "\x1b[?1002l\x1b[?1006l"),
            (b"\x1b=", "\x1b>"),
            (b"\x1b[1;31m", "\x1b[m"),
            (b"\x1b[0;38;5;0;1m", "\x1b[m"),
            (b"\x1b[3;20r", "\x1b7\x1b[r\x1b8"),
            (b"\x1b[?6h", "\x1b[?6l\x1b[r\x1b[999;1H"),
            (b"\x1b[4h", "\x1b[4l"),
            (b"\x1b(0", "\x1b(B"),
            (b"\x0e", "\x0f"),
            (b"\x1b[5 q", "\x1b[0 q"),
            (b"\x1b[5i", "\x1b[4i\x1b[?4i"),
            (b"\x1b]11;red\x1b\\", "\x1b]111\x1b\\"),
        ];
        for (output, expected) in cases {
            assert_eq!(undone(&after(output)), expected, "{output:?}");
        }
        // Every row can be reached, and is undone by what it says.
        for (row, (mode, undo)) in UNDO.iter().enumerate() {
            let mut screen = Screen::new();
            screen.change(*mode, true);
            assert_eq!(screen.changed, 1 << row);
            screen.see(undo.as_bytes());
            let printed = matches!(mode, Mode::Colour(_) | Mode::KeyboardFlags);
            assert!(printed || screen.changed == 0, "{mode:?} after its undoing");
        }
        assert!(UNDO.len() <= 64);
    }

    #[test]
    fn a_sequence_that_was_cut_is_ended() {
        for output in [&b"\x1b"[..], b"\x1b[12", b"\x1b]0;title", b"\x1bPq", b"\x1b]0;x\x1b"] {
            assert_eq!(undone(&after(output)), "\x18\x1b\\", "{output:?}");
        }
        assert_eq!(undone(&after(b"\x1b]0;x\x1b\\")), "");
        assert_eq!(undone(&after(b"\x1b[12\x18")), "");
        assert_eq!(undone(&after(b"\x1b]P1ff00ff\x1b[?25l")), "\x18\x1b\\\x1b[?25h");
    }

    #[test]
    fn queries_are_known() {
        let queries: [&[u8]; 19] = [
            b"\x1b[6n",
            b"\x1b[5n",
            b"\x1b[?6n",
            b"\x1b[c",
            b"\x1b[>c",
            b"\x1b[=c",
            b"\x1bZ",
            b"\x05",
            b"\x1b[18t",
            b"\x1b[?2026$p",
            b"\x1b[?u",
            b"\x1b[>q",
            b"\x1b[x",
            b"\x1b[1;1;1;1;1;1*y",
            b"\x1b]11;?\x07",
            b"\x1b]52;c;?\x1b\\",
            b"\x1bP$qm\x1b\\",
            b"\x1b_Gi=1,a=q;\x1b\\",
            b"\x1b[?1003h",
        ];
        for query in queries {
            assert!(after(query).asked().is_some(), "{query:?}");
        }
        assert_eq!(after(b"\x1b[5n\x1b[6n\x1b[05n\x1b[?5n").status_asked(), 2);
    }

    /// Any bytes are taken, and what is sent in the end is no more than the table.
    #[test]
    fn hostile_output_is_bounded() {
        let mut random = test_support::Rng::new(1);
        let mut screen = Screen::new();
        for _ in 0..200_000 {
            let pool = b"\x1b\x1b[]P_?;:0159hlmnrqucptw$ >=\x07\\\x18\x0e(%#";
            let at = (random.next() >> 33) as usize;
            screen.see(&[pool.get(at % (pool.len() + 8)).copied().unwrap_or((at >> 8) as u8)]);
        }
        screen.see("\x1b[99999999999999;".repeat(40).as_bytes());
        assert!(
            undone(&screen).len() <= UNDO.iter().map(|(_, undo)| undo.len()).sum::<usize>() + 3
        );
    }
}
