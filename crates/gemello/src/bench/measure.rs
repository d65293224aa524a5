//! The run itself: rounds, rows, machines, in turn, so that a noisy host disturbs all alike.

use super::figures::Samples;
use super::machine::{Machine, Programs};
use super::progress::Progress;
use super::set::{Kind, Row};
use super::talk::{Farewell, Talk};
use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};

/// For a boot; the interpreter on a busy host is slow.
const BOOT: Duration = Duration::from_secs(180);
/// For one row.
const ROW: Duration = Duration::from_secs(300);

/// One run.
pub(super) struct Run<'a> {
    pub(super) programs: &'a Programs,
    pub(super) machines: &'a [Machine],
    pub(super) rounds: u32,
    pub(super) progress: Progress,
}

impl Run<'_> {
    /// Measures `rows`.
    ///
    /// # Errors
    /// A machine fails, or gives a wrong result; the message names the row.
    pub(super) fn samples(&mut self, rows: &[Row]) -> Result<Vec<Samples>> {
        let mut rows: Vec<_> = rows.iter().map(|row| Measured::new(*row)).collect();
        for round in 1..=self.rounds {
            self.progress.round(round, self.rounds);
            self.asked(&mut rows, round)?;
            self.boots(&mut rows, round)?;
        }
        Ok(rows.into_iter().map(|row| row.samples).collect())
    }

    /// The machines of a round: the interpreter, which is slow, is in the first only.
    fn machines(&self, round: u32) -> impl Iterator<Item = Machine> + use<> {
        let machines = self.machines.to_vec();
        machines.into_iter().filter(move |machine| round == 1 || *machine != Machine::T0)
    }

    /// Rows that a booted machine answers, each on every machine before the next.
    fn asked(&self, rows: &mut [Measured], round: u32) -> Result<()> {
        if !rows.iter().any(|row| matches!(row.row.kind, Kind::Asked(_))) {
            return Ok(());
        }
        let mut servers = Vec::new();
        for machine in self.machines(round) {
            self.progress.say("boot", machine);
            servers.push((machine, self.server(machine)?));
        }
        for row in rows.iter_mut().filter(|row| matches!(row.row.kind, Kind::Asked(_))) {
            for (machine, server) in &mut servers {
                self.progress.say(row.row.name, *machine);
                let answer = ask(server, row.row.name, row.row.name);
                let answer = answer
                    .with_context(|| format!("row {} on {}", row.row.name, machine.name()))?;
                row.note(*machine, answer)?;
            }
        }
        Ok(())
    }

    fn server(&self, machine: Machine) -> Result<Talk> {
        let farewell =
            if machine == Machine::Native { Farewell::EndOfInput } else { Farewell::Kill };
        let mut talk = Talk::start(machine.name(), farewell, self.programs.server(machine))?;
        let first = talk.hear("@bench ", "\n", BOOT).context("the guest does not start")?;
        if first.trim() != "ready" {
            bail!("{} cannot serve: {first}", machine.name());
        }
        Ok(talk)
    }

    /// Has each of `rows` done by one process and by `count` at once.
    ///
    /// # Errors
    /// As [`Run::samples`].
    pub(super) fn side_by_side(&mut self, rows: &[Row], count: u32) -> Result<Vec<[Samples; 2]>> {
        let both = |row: &Row| [Measured::new(*row), Measured::new(*row)];
        let mut rows: Vec<_> = rows.iter().map(both).collect();
        for round in 1..=self.rounds {
            self.progress.round(round, self.rounds);
            let machines = self.machines(round);
            let mut servers = machines
                .map(|machine| Ok((machine, self.server(machine)?)))
                .collect::<Result<Vec<_>>>()?;
            for pair in &mut rows {
                for (machine, server) in &mut servers {
                    self.progress.say(pair[0].row.name, *machine);
                    for (row, count) in pair.iter_mut().zip([1, count]) {
                        let request = format!("{} {count}", row.row.name);
                        let answer = ask(server, &request, row.row.name)
                            .with_context(|| format!("row {request} on {}", machine.name()))?;
                        row.note(*machine, answer)?;
                    }
                }
            }
        }
        Ok(rows.into_iter().map(|pair| pair.map(|row| row.samples)).collect())
    }

    /// Rows that are a boot.
    fn boots(&self, rows: &mut [Measured], round: u32) -> Result<()> {
        let kinds = |kind: Kind| move |row: &Measured| row.row.kind == kind;
        let linux = rows.iter().any(|row| kinds(Kind::Boot)(row) || kinds(Kind::PowerOff)(row));
        let nucleus = rows.iter().any(kinds(Kind::Nucleus));
        for machine in self.machines(round).filter(|machine| *machine != Machine::Native) {
            if linux {
                self.progress.say("boot", machine);
                let (uptime, wall) = self.boot(machine).context("row boot")?;
                add(rows, Kind::Boot, machine, uptime);
                add(rows, Kind::PowerOff, machine, wall);
            }
            if nucleus {
                self.progress.say("nucleus", machine);
                let wall = self.nucleus(machine).context("row nucleus")?;
                add(rows, Kind::Nucleus, machine, wall);
            }
        }
        Ok(())
    }

    /// The guest's uptime at process 1, and the time from start to end.
    fn boot(&self, machine: Machine) -> Result<(f64, f64)> {
        let begin = Instant::now();
        let mut talk = Talk::start(machine.name(), Farewell::Kill, self.programs.boot(machine))?;
        let line = talk.hear("@bench ", "\n", BOOT)?;
        talk.finish()?;
        let wall = begin.elapsed().as_nanos() as f64;
        match parse("boot", &line)? {
            Answer::Done { value: 1, nanoseconds } => Ok((nanoseconds, wall)),
            _ => bail!("{} said {line:?}", machine.name()),
        }
    }

    fn nucleus(&self, machine: Machine) -> Result<f64> {
        let begin = Instant::now();
        let mut talk = Talk::start(machine.name(), Farewell::Kill, self.programs.nucleus(machine))?;
        talk.hear("nucleus>", " ", BOOT)?;
        Ok(begin.elapsed().as_nanos() as f64)
    }
}

fn add(rows: &mut [Measured], kind: Kind, machine: Machine, nanoseconds: f64) {
    for row in rows.iter_mut().filter(|row| row.row.kind == kind) {
        row.samples.add(machine, nanoseconds);
    }
}

/// A row and what is known of it so far.
struct Measured {
    row: Row,
    samples: Samples,
    /// What its result has to be, and who says so.
    expected: Option<(u64, &'static str)>,
}

impl Measured {
    fn new(row: Row) -> Self {
        let expected = match row.kind {
            Kind::Asked(Some(value)) => Some((value, "the expected value")),
            _ => None,
        };
        Self { row, samples: Samples::new(row), expected }
    }

    fn note(&mut self, machine: Machine, answer: Answer) -> Result<()> {
        let Answer::Done { value, nanoseconds } = answer else { return Ok(()) };
        let (expected, by) = *self.expected.get_or_insert((value, machine.name()));
        if value != expected {
            bail!(
                "row {} on {} gives the wrong result {value:x}: {by} is {expected:x}",
                self.row.name,
                machine.name()
            );
        }
        self.samples.add(machine, nanoseconds);
        Ok(())
    }
}

/// What a machine said of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Done {
        value: u64,
        nanoseconds: f64,
    },
    /// It lacks what the row needs.
    Lacking,
}

/// The answer to `request`, which is about the row `name`.
fn ask(server: &mut Talk, request: &str, name: &str) -> Result<Answer> {
    server.say(&format!("{request}\n"))?;
    parse(name, &server.hear("@bench ", "\n", ROW)?)
}

/// Reads `NAME VALUE NANOSECONDS`, `NAME none` or `fail MESSAGE`.
fn parse(name: &str, line: &str) -> Result<Answer> {
    if let Some(message) = line.strip_prefix("fail ") {
        bail!("{}", message.trim());
    }
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [said, "none"] if said == name => Ok(Answer::Lacking),
        [said, value, nanoseconds] if said == name => {
            let value = u64::from_str_radix(value, 16).context("no value")?;
            let nanoseconds: f64 = nanoseconds.parse().context("no time")?;
            if !nanoseconds.is_finite() || nanoseconds <= 0.0 {
                bail!("a time of {nanoseconds} ns");
            }
            Ok(Answer::Done { value, nanoseconds })
        }
        _ => bail!("the guest said {line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::set;
    use super::*;

    #[test]
    fn answers_are_read() {
        let done = Answer::Done { value: 0x1f, nanoseconds: 2.5 };
        assert_eq!(parse("fib", "fib 1f 2.5\r").expect("an answer"), done);
        assert_eq!(parse("avx2", "avx2 none").expect("an answer"), Answer::Lacking);
        for wrong in ["fib", "vm 1f 2.5", "fib x 2.5", "fib 1f nan", "fib 1f 0", "fail no memory"] {
            assert!(parse("fib", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_result_names_row_and_machine() {
        let rows = set::select(&["fib".into(), "gcc".into()]).expect("rows");
        let answer = |value| Answer::Done { value, nanoseconds: 1.0 };
        let mut fib = Measured::new(rows[0]);
        let error = fib.note(Machine::T1, answer(1)).expect_err("no such Fibonacci number");
        assert!(error.to_string().contains("row fib on t1"), "{error}");
        // Without a value of ours the first machine's counts.
        let mut gcc = Measured::new(rows[1]);
        gcc.note(Machine::Native, answer(5)).expect("the first");
        gcc.note(Machine::T1, answer(5)).expect("the same");
        let error = gcc.note(Machine::Tcg, answer(6)).expect_err("another");
        assert!(error.to_string().contains("native is 5"), "{error}");
    }
}
