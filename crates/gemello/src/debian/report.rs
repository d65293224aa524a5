//! What the agent tells gemello over `ttyS1`, among the kernel's messages.

/// Longest line that is looked at; the rest of a longer one is skipped.
const LONGEST: usize = 256;

/// One message of the agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The agent asks for its job.
    Asks,
    /// The lines are set up: input may be sent, and the window's size.
    Ready,
    /// The command has ended with this status.
    Status(u8),
    /// Something is not as it should be; what, on one line.
    Trouble(String),
    /// The agent listens to who comes from the host.
    Serving,
    /// It will not, and why.
    NoService(String),
    /// A system's own init begins.
    Init,
    /// It says that a unit is up; as what.
    Up(String),
    /// It says something else of a unit.
    Says(String),
}

/// Finds reports in the console's output as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    line: Vec<u8>,
}

impl Scanner {
    /// In the middle of a line, of which this was there.
    pub(crate) fn within(mut line: Vec<u8>) -> Self {
        line.truncate(LONGEST);
        Self { line }
    }

    /// What there is of the line that is not complete.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Takes the next `bytes`, and gives the reports that they complete.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Vec<Report> {
        let mut found = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                found.extend(parse(&self.line));
                self.line.clear();
            } else if self.line.len() < LONGEST {
                self.line.push(byte);
            }
        }
        found
    }
}

fn parse(line: &[u8]) -> Option<Report> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let Some(report) = text.strip_prefix(agent_job::REPORT) else { return status(text) };
    match report {
        "ready" => return Some(Report::Ready),
        agent_job::ASKS => return Some(Report::Asks),
        "init" => return Some(Report::Init),
        // What gemello says may be echoed behind it.
        _ if report.starts_with(agent_job::SERVING) => return Some(Report::Serving),
        _ => {}
    }
    if let Some(status) = report.strip_prefix("status ") {
        return Some(Report::Status(status.parse().ok()?));
    }
    let harmless = |why: &str| why.chars().filter(|c| !c.is_control()).collect();
    Some(match report.strip_prefix(agent_job::NO_SERVICE) {
        Some(why) => Report::NoService(harmless(why)),
        None => Report::Trouble(harmless(report)),
    })
}

/// A line of systemd's status: `[  OK  ] Started …`, and while it waits `[*     ] …`.
fn status(text: &str) -> Option<Report> {
    let (tag, what) = text.trim_start().strip_prefix('[')?.split_once("] ")?;
    let what: String = what.chars().filter(|c| !c.is_control()).collect();
    match tag.trim() {
        "OK" => Some(Report::Up(what)),
        "FAILED" | "DEPEND" | "TIME" | "SKIP" | "INFO" => Some(Report::Says(what)),
        stars if stars.starts_with('*') => Some(Report::Says(what)),
        _ => None, // the kernel's clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_found_however_they_are_cut() {
        let stream =
            b"[    0.1] boot\r\n\r\ngemello-init: ready\r\nnoise gemello-init: status 3\r\n\
            gemello-init: status 300\r\n\xff\xfe\r\ngemello-init: status 7\r\n\
            gemello-init: no \x1broot\r\ngemello-init: servingserve\r\n\
            gemello-init: no service: no \x1bdriver\r\n";
        for size in 1..stream.len() {
            let mut scanner = Scanner::default();
            let found = stream.chunks(size).flat_map(|c| {
                scanner = Scanner::within(scanner.line().to_vec()); // saved and restored
                scanner.scan(c)
            });
            let found: Vec<_> = found.collect();
            let expected = [
                Report::Ready,
                Report::Status(7),
                Report::Trouble("no root".into()),
                Report::Serving,
                Report::NoService("no driver".into()),
            ];
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_systems_init_is_heard() {
        let stream = b"gemello-init: init\r\n[    1.2] kernel\r\n[  OK  ] Started a - b.\r\n\
            [FAILED] Failed to start c.\r\n\r[***   ] Job d (7s / no limit)\r\n\
            \x20 Starting\r\n";
        let expected = [
            Report::Init,
            Report::Up("Started a - b.".into()),
            Report::Says("Failed to start c.".into()),
            Report::Says("Job d (7s / no limit)".into()),
        ];
        assert_eq!(Scanner::default().scan(stream), expected);
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut scanner = Scanner::default();
        scanner.scan(&vec![b'x'; 100_000]);
        assert!(scanner.line.len() <= LONGEST);
    }
}
