//! From samples to what is printed: medians, ratios, means, a table, JSON.

use super::crowd::{self, Taken};
use super::host::Host;
use super::machine::Machine;
use super::numbers::{geometric_mean, median, ratio, shown};
use super::set::{Group, Row, Unit};
use super::starts::{self, Waited};
use serde::Serialize;
use std::fmt::Write as _;

/// All samples of one row, in nanoseconds, for each machine.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    row: Row,
    taken: [Vec<f64>; 4],
}

impl Samples {
    pub(super) fn new(row: Row) -> Self {
        Self { row, taken: Default::default() }
    }

    pub(super) fn add(&mut self, machine: Machine, nanoseconds: f64) {
        self.taken[machine as usize].push(nanoseconds);
    }

    pub(super) fn row(&self) -> Row {
        self.row
    }

    /// Of one machine, in nanoseconds.
    pub(super) fn median(&self, machine: Machine) -> Option<f64> {
        median(&self.taken[machine as usize])
    }

    fn line(&self) -> Line {
        let median =
            |machine| self.median(machine).map(|nanoseconds| self.row.unit.of(nanoseconds));
        Line {
            name: self.row.name,
            group: self.row.group,
            unit: self.row.unit,
            native: median(Machine::Native),
            t0: median(Machine::T0),
            t1: median(Machine::T1),
            tcg: median(Machine::Tcg),
        }
    }
}

/// One row's medians, in its unit; null where it was not run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    name: &'static str,
    group: Group,
    unit: Unit,
    native: Option<f64>,
    t0: Option<f64>,
    t1: Option<f64>,
    tcg: Option<f64>,
}

/// The outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    machine: Host,
    rows: Vec<Line>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    starts: Vec<Waited>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    crowds: Vec<Taken>,
}

impl Report {
    pub(super) fn new(
        machine: Host,
        samples: &[Samples],
        starts: Vec<Waited>,
        crowds: Vec<Taken>,
    ) -> Self {
        Self { machine, rows: samples.iter().map(Samples::line).collect(), starts, crowds }
    }

    /// One JSON document.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and finite numbers")
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        for group in Group::ALL {
            let lines: Vec<_> = self.rows.iter().filter(|line| line.group == group).collect();
            if !lines.is_empty() {
                text.push_str(&block(group, &lines));
            }
        }
        if Group::ALL.iter().filter(|g| self.rows.iter().any(|line| line.group == **g)).count() > 1
        {
            let lines: Vec<_> = self.rows.iter().collect();
            let _ = writeln!(text, "\n{}", means("all rows, geometric mean", &lines));
        }
        text.push_str(&self.slower());
        if !self.starts.is_empty() {
            text.push_str(&starts::table(&self.starts));
        }
        if !self.crowds.is_empty() {
            text.push_str(&crowd::table(&self.crowds));
        }
        text
    }
}

impl Report {
    /// The rows in which the translator is behind QEMU's.
    fn slower(&self) -> String {
        let ratios =
            self.rows.iter().filter_map(|line| Some((line.name, ratio(line.t1, line.tcg)?)));
        let (slower, faster): (Vec<_>, Vec<_>) = ratios.partition(|(_, ratio)| *ratio >= 1.0);
        let names: Vec<_> = slower.iter().map(|(name, _)| *name).collect();
        match (names.is_empty(), faster.is_empty()) {
            (true, true) => String::new(),
            (true, false) => "\nt1 is faster than tcg in every row\n".into(),
            (false, _) => format!("\nt1 is slower than tcg in: {}\n", names.join(" ")),
        }
    }
}

/// A quotient of two machines' figures.
type Ratio = fn(&Line) -> Option<f64>;

/// The table's quotients, with their heads.
const RATIOS: [(&str, Ratio); 3] = [
    ("t1/native", |line| ratio(line.t1, line.native)),
    ("tcg/native", |line| ratio(line.tcg, line.native)),
    ("t1/tcg", |line| ratio(line.t1, line.tcg)),
];

fn block(group: Group, lines: &[&Line]) -> String {
    let mut text = format!("\n{:<16}{:>4}", group.name(), "unit");
    for machine in ["native", "t0", "t1", "tcg"] {
        let _ = write!(text, "{machine:>11}");
    }
    for (head, _) in RATIOS {
        let _ = write!(text, "{head:>12}");
    }
    text.push('\n');
    for line in lines {
        let _ = write!(text, "{:<16}{:>4}", line.name, line.unit.name());
        for figure in [line.native, line.t0, line.t1, line.tcg] {
            let _ = write!(text, "{:>11}", shown(figure));
        }
        for (_, of) in RATIOS {
            let _ = write!(text, "{:>12}", shown(of(line)));
        }
        text.push('\n');
    }
    text.push_str(&means("geometric mean", lines));
    text.push('\n');
    text
}

/// The quotients' geometric means, below their columns.
fn means(name: &str, lines: &[&Line]) -> String {
    let mut text = format!("{name:<64}");
    for (_, of) in RATIOS {
        let values: Vec<_> = lines.iter().filter_map(|line| of(line)).collect();
        let _ = write!(text, "{:>12}", shown(geometric_mean(&values)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::set;
    use super::*;

    fn report() -> Report {
        let rows = set::select(&["fib".into(), "boot".into()]).expect("rows");
        let mut samples: Vec<_> = rows.into_iter().map(Samples::new).collect();
        for nanoseconds in [5.0, 2.0, 3.0] {
            samples[0].add(Machine::Native, nanoseconds);
            samples[0].add(Machine::T1, nanoseconds * 2.0);
            samples[0].add(Machine::Tcg, nanoseconds * 8.0);
        }
        samples[1].add(Machine::T1, 1.5e9);
        samples[1].add(Machine::Tcg, 3e9);
        Report::new(Host::sample(), &samples, Vec::new(), Vec::new())
    }

    #[test]
    fn json_has_medians_and_nulls() {
        let value: serde_json::Value = serde_json::from_str(&report().json()).expect("JSON");
        let keys: Vec<_> = value.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["machine", "rows"]);
        let expected = serde_json::json!([
            {"name": "fib", "group": "user", "unit": "ns",
             "native": 3.0, "t0": null, "t1": 6.0, "tcg": 24.0},
            {"name": "boot", "group": "whole", "unit": "ms",
             "native": null, "t0": null, "t1": 1500.0, "tcg": 3000.0},
        ]);
        assert_eq!(value["rows"], expected);
    }

    #[test]
    fn the_table_shows_figures_ratios_and_means() {
        let table = report().table();
        let words = |start: &str| {
            let line = table.lines().find(|line| line.starts_with(start)).expect("a line");
            line[start.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words("fib"), ["ns", "3.00", "-", "6.00", "24.0", "2.00", "8.00", "0.250"]);
        assert_eq!(words("boot"), ["ms", "-", "-", "1500", "3000", "-", "-", "0.500"]);
        assert_eq!(words("all rows, geometric mean"), ["2.00", "8.00", "0.354"]);
        assert!(table.ends_with("t1 is faster than tcg in every row\n"), "{table}");
        let mut report = report();
        report.rows[0].t1 = Some(24.0);
        assert!(report.table().ends_with("t1 is slower than tcg in: fib\n"));
    }
}
