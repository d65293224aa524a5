//! The escape key of the terminal, Ctrl-A.
//!
//! ```text
//!          Ctrl-A            x        ──► Quit
//!   Plain ────────► Escaped  h        ──► Help,        back to Plain
//!     ▲                │     s        ──► Save,        back to Plain
//!     ▲                │     r        ──► Reset,       back to Plain
//!     ▲                │     Ctrl-A   ──► that key,    back to Plain
//!     └────────────────┘     another  ──► Ctrl-A and that key, back to Plain
//! ```
//! With `gemello console`, which has no machine of its own, only d and h are keys for gemello, and
//! d quits.

/// Ctrl-A.
const ESCAPE: u8 = 1;

/// What Ctrl-A h prints.
pub(crate) const HELP: &str = "
Ctrl-A x       quit: end the machine at once
Ctrl-A s       save the machine to the file given with --save; it goes on
Ctrl-A r       reset the machine: it boots again, its disks as they are
Ctrl-A h       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
Inside: poweroff or reboot ends it cleanly.
";

/// What Ctrl-A h prints in `gemello console`.
pub(crate) const HELP_ATTACHED: &str = "
Ctrl-A d       leave the console; the machine goes on
Ctrl-A h       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
";

/// Keys after Ctrl-A, in small letters, and what they mean.
type Keys = &'static [(u8, Wish)];

/// Those of a terminal that is a machine's.
pub(crate) const OWN: Keys = &[
    (b'x', Wish::Quit),
    (b's', Wish::Save),
    (b'r', Wish::Reset),
    (b'h', Wish::Help),
    (b'?', Wish::Help),
];

/// Those of a terminal that looks at a machine's console.
pub(crate) const ATTACHED: Keys = &[(b'd', Wish::Quit), (b'h', Wish::Help), (b'?', Wish::Help)];

/// What the user wants of gemello rather than of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// End the machine, or leave its console.
    Quit,
    /// Explain the keys.
    Help,
    /// Save the machine.
    Save,
    /// Have the machine begin anew.
    Reset,
}

/// Tells keys for gemello from keys for the guest.
#[derive(Debug)]
pub(crate) struct Escape {
    known: Keys,
    escaped: bool,
}

impl Escape {
    /// With these keys.
    pub(crate) fn new(known: Keys) -> Self {
        Self { known, escaped: false }
    }

    /// Appends what of `keys` is the guest's to `guest`; the first wish ends it (what follows is
    /// dropped for Quit).
    pub(crate) fn keys(&mut self, keys: &[u8], guest: &mut impl Extend<u8>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for &key in keys {
            if !std::mem::take(&mut self.escaped) {
                if key == ESCAPE {
                    self.escaped = true;
                } else {
                    guest.extend([key]);
                }
                continue;
            }
            let small = key.to_ascii_lowercase();
            let known = self.known.iter().find(|(known, _)| *known == small);
            match (key, known) {
                (_, Some((_, wish))) => {
                    wishes.push(*wish);
                    if *wish == Wish::Quit {
                        return wishes;
                    }
                }
                (ESCAPE, None) => guest.extend([ESCAPE]),
                (other, None) => guest.extend([ESCAPE, other]),
            }
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Wish>) {
        let (mut escape, mut guest) = (Escape::new(OWN), Vec::new());
        let wishes = pieces.iter().flat_map(|p| escape.keys(p, &mut guest)).collect();
        (guest, wishes)
    }

    #[test]
    fn keys_are_told_apart_even_when_they_come_one_by_one() {
        assert_eq!(typed(&[b"ls\r\x03"]), (b"ls\r\x03".to_vec(), vec![]));
        assert_eq!(typed(&[b"\x01", b"h", b"a"]), (b"a".to_vec(), vec![Wish::Help]));
        assert_eq!(typed(&[b"a\x01sb"]), (b"ab".to_vec(), vec![Wish::Save]));
        assert_eq!(typed(&[b"a\x01rb"]), (b"ab".to_vec(), vec![Wish::Reset]));
        assert_eq!(typed(&[b"\x01\x01x"]), (b"\x01x".to_vec(), vec![]));
        assert_eq!(typed(&[b"\x01d"]), (b"\x01d".to_vec(), vec![]));
        assert_eq!(typed(&[b"a\x01xb"]), (b"a".to_vec(), vec![Wish::Quit]));
        assert_eq!(typed(&[b"\x01X"]), (vec![], vec![Wish::Quit]));
    }

    #[test]
    fn a_console_that_is_looked_at_is_left_not_ended() {
        let (mut escape, mut guest) = (Escape::new(ATTACHED), Vec::new());
        assert_eq!(escape.keys(b"a\x01x\x01s\x01h", &mut guest), [Wish::Help]);
        assert_eq!(escape.keys(b"\x01D", &mut guest), [Wish::Quit]);
        assert_eq!(guest, b"a\x01x\x01s");
    }
}
