//! `gemello bench --vcpus N`: how much more N processes do at once than one.

use super::figures::Samples;
use super::host::Host;
use super::machine::Machine;
use super::numbers::{geometric_mean, shown};
use super::set::{Group, Kind, Row};
use serde::Serialize;
use std::fmt::Write as _;

/// The rows that are run so unless the user names some: those of user code, and fork and exec.
pub(super) fn rows(selected: Vec<Row>, all: bool) -> Vec<Row> {
    let usual =
        |row: &Row| row.group == Group::User || ["forkexec", "script200"].contains(&row.name);
    let wanted = |row: &Row| matches!(row.kind, Kind::Asked(_)) && (!all || usual(row));
    selected.into_iter().filter(wanted).collect()
}

/// How many times as much was done; null where the row was not run.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Line {
    name: &'static str,
    native: Option<f64>,
    t0: Option<f64>,
    t1: Option<f64>,
    tcg: Option<f64>,
}

/// The outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Scaling {
    machine: Host,
    processes: u32,
    rows: Vec<Line>,
}

impl Scaling {
    /// `samples` are those of one process and of `processes` at once, for each row.
    pub(super) fn new(machine: Host, processes: u32, samples: &[[Samples; 2]]) -> Self {
        Self { machine, processes, rows: samples.iter().map(line).collect() }
    }

    /// One JSON document.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and finite numbers")
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        let _ = writeln!(text, "What {} processes do at once, over what one does:", self.processes);
        let _ = write!(text, "{:<16}", "");
        for machine in Machine::ALL {
            let _ = write!(text, "{:>11}", machine.name());
        }
        for line in &self.rows {
            let _ = write!(text, "\n{:<16}", line.name);
            for times in line.all() {
                let _ = write!(text, "{:>11}", shown(times));
            }
        }
        let _ = write!(text, "\n{:<16}", "geometric mean");
        for at in 0..Machine::ALL.len() {
            let values: Vec<_> = self.rows.iter().filter_map(|line| line.all()[at]).collect();
            let _ = write!(text, "{:>11}", shown(geometric_mean(&values)));
        }
        text
    }
}

impl Line {
    fn all(&self) -> [Option<f64>; 4] {
        [self.native, self.t0, self.t1, self.tcg]
    }
}

fn line([one, several]: &[Samples; 2]) -> Line {
    let times = |machine| Some(one.median(machine)? / several.median(machine)?);
    Line {
        name: one.row().name,
        native: times(Machine::Native),
        t0: times(Machine::T0),
        t1: times(Machine::T1),
        tcg: times(Machine::Tcg),
    }
}

#[cfg(test)]
mod tests {
    use super::super::set;
    use super::*;

    #[test]
    fn the_usual_rows_or_those_that_were_named() {
        let all = rows(set::select(&[]).expect("all"), true);
        assert_eq!(all.len(), 21);
        let named = set::select(&["pipe".into(), "boot".into()]).expect("rows");
        let names: Vec<_> = rows(named, false).iter().map(|row| row.name).collect();
        assert_eq!(names, ["pipe"], "a boot is not done side by side");
    }

    #[test]
    fn the_table_shows_how_many_times_as_much_is_done() {
        let fib = set::select(&["fib".into()]).expect("a row")[0];
        let mut pair = [Samples::new(fib), Samples::new(fib)];
        pair[0].add(Machine::T1, 8.0);
        pair[1].add(Machine::T1, 4.0);
        let table = Scaling::new(Host::sample(), 2, &[pair]).table();
        let line = table.lines().find(|line| line.starts_with("fib")).expect("a line");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["fib", "-", "-", "2.00", "-"]);
        assert!(table.contains("What 2 processes do at once"), "{table}");
    }
}
