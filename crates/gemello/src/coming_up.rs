//! How far a system is while it comes up: one line on the user's terminal, by what its init says of
//! each unit on the second serial line. No time is guessed, and none is waited for.

use crate::terminal;

/// Gives the line's beginning back, and what was there.
const ERASE: &str = "\r\x1b[K";

/// Where the line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Nowhere,
    /// To this program's terminal.
    Here,
}

/// What is known of a system that comes up.
#[derive(Debug)]
pub(crate) struct ComingUp {
    shown: Shown,
    /// Units that are up.
    units: usize,
    /// What its init has said last.
    said: Option<String>,
    /// It is ready: what comes up later is its own business.
    is_ready: bool,
}

impl ComingUp {
    /// Nothing yet.
    pub(crate) fn new(shown: Shown) -> Self {
        Self { shown, units: 0, said: None, is_ready: false }
    }

    /// The same for a guest that begins anew.
    pub(crate) fn anew(&self) -> Self {
        Self::new(self.shown)
    }

    /// Its processor runs.
    pub(crate) fn kernel(&self) {
        self.show("starting the kernel");
    }

    /// Its init has begun.
    pub(crate) fn init(&self) {
        self.show("starting systemd");
    }

    /// Its init says this of a unit that is up.
    pub(crate) fn up(&mut self, what: String) {
        self.units += 1;
        self.says(what);
    }

    /// Its init says this.
    pub(crate) fn says(&mut self, what: String) {
        if !self.is_ready {
            self.show(&format!("{} units are up: {what}", self.units));
            self.said = Some(what);
        }
    }

    /// It is ready, or has ended: the line goes. What its init had said last.
    pub(crate) fn end(&mut self) -> Option<String> {
        if !self.is_ready {
            self.show("");
        }
        self.is_ready = true;
        self.said.take()
    }

    fn show(&self, what: &str) {
        if self.shown == Shown::Here {
            let (_, columns) = terminal::window();
            terminal::tell(&line(what, columns));
        }
    }
}

/// What is shown of `what` in so many columns, so that it can be erased.
fn line(what: &str, columns: u16) -> String {
    if what.is_empty() {
        return ERASE.to_owned();
    }
    let text = format!("gemello: {what}");
    let text: String = text.chars().take(usize::from(columns).saturating_sub(1)).collect();
    format!("{ERASE}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_erased() {
        assert_eq!(line("x", 80), "\r\x1b[Kgemello: x");
        assert_eq!(line(&"é".repeat(300), 20).chars().count(), ERASE.len() + 19);
        assert_eq!(line("", 80), ERASE);
    }

    #[test]
    fn what_was_said_last_is_known_until_it_is_ready() {
        let mut system = ComingUp::new(Shown::Nowhere);
        assert_eq!(system.end(), None);
        let mut system = system.anew();
        system.up("Started a".into());
        system.says("A start job is running for b".into());
        assert_eq!((system.units, system.end()), (1, Some("A start job is running for b".into())));
        system.says("Started c".into());
        assert_eq!(system.end(), None);
    }
}
