//! The fixed set of rows. What each one does: docs/benchmark.md.

use super::{crowd, starts};
use serde::Serialize;

/// Which part of a computer a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Group {
    /// Code at user level.
    User,
    /// System calls, faults, processes.
    Kernel,
    /// Boots and whole programs.
    Whole,
}

impl Group {
    pub(super) const ALL: [Self; 3] = [Self::User, Self::Kernel, Self::Whole];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Whole => "whole",
        }
    }
}

/// What a row's figures are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
        }
    }

    /// `nanoseconds` in this unit.
    pub(super) fn of(self, nanoseconds: f64) -> f64 {
        match self {
            Self::Nanoseconds => nanoseconds,
            Self::Microseconds => nanoseconds / 1e3,
            Self::Milliseconds => nanoseconds / 1e6,
        }
    }
}

/// How a row is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By `bench-guest`, asked by name, and its result: the same on every machine. `None`: depends
    /// on the packages fetched.
    Asked(Option<u64>),
    /// A boot of its own: the guest's uptime when process 1 starts.
    Boot,
    /// The same boot: from the start of the program to its end.
    PowerOff,
    /// A boot of the nucleus, up to its prompt.
    Nucleus,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) group: Group,
    pub(super) unit: Unit,
    pub(super) kind: Kind,
}

/// The rows of the network.
const OUT: &str = "netout";
const IN: &str = "netin";

impl Row {
    /// Whether it needs a network.
    pub(super) fn is_of_the_network(&self) -> bool {
        [OUT, IN].contains(&self.name)
    }
}

const fn user(name: &'static str, unit: Unit, value: u64) -> Row {
    Row { name, group: Group::User, unit, kind: Kind::Asked(Some(value)) }
}

const fn kernel(name: &'static str, value: u64) -> Row {
    Row { name, group: Group::Kernel, unit: Unit::Microseconds, kind: Kind::Asked(Some(value)) }
}

const fn whole(name: &'static str, kind: Kind) -> Row {
    Row { name, group: Group::Whole, unit: Unit::Milliseconds, kind }
}

use Unit::{Microseconds as US, Milliseconds as MS, Nanoseconds as NS};

/// All rows, in the order in which they are run and shown.
pub(super) const ROWS: [Row; 39] = [
    user("list256k", NS, 0x1_f3e0_c000),
    user("list64m", NS, 0x7f_fff8_0000),
    user("hash", NS, 0x8c_f697_5597_0000),
    user("sha256", NS, 0xc9c0_449d_9ad5_6b90),
    user("copy8", NS, 0x6252_e504_246f_0378),
    user("copysse", NS, 0x6252_e504_246f_0378),
    user("vm", NS, 0x1cb_ac09_dd80),
    user("fib", NS, 0x35_c7e2),
    user("virt", NS, 0x29_e181_98d0),
    user("qsort", NS, 0xef3a_4fd5_ef0e_8e7c),
    user("tree", NS, 0xe078_8273_4d32_99af),
    user("matmul", US, 0xd289_96b6_bfb8_b3c8),
    user("lz", NS, 0x75a3_e0e8_2ada_b90c),
    user("str", NS, 0x63f8_b1b0_39c9_f91c),
    user("bignum", NS, 0x5acb_e66d_a0d9_8d74),
    user("sqlite", MS, 0xc4e9_789e_ac81_610e),
    user("lua", MS, 0x4c81_fbe9_1ba6_29dc),
    user("avx2", NS, 0x02e0_61f2_e32a_4144),
    user("clock", NS, 200_000),
    kernel("getppid", 120_000),
    kernel("read0-1", 100_000),
    kernel("read0-4k", 50_000 << 12),
    kernel("read0-64k", 16_000 << 16),
    kernel("stat", 20_000),
    kernel("openclose", 20_000),
    kernel("mmap", 16_000),
    kernel("pipe", 0x1_f9d0),
    kernel("forkwait", 0x4332),
    kernel("forkexec", 60 * 7),
    kernel("filecopy", 0x1d00_682c_1e41_0000),
    kernel("signal", 10_000),
    kernel(OUT, 0x3fc_0000),
    kernel(IN, 0x3fc_0000),
    whole("script200", Kind::Asked(Some(200))),
    whole("sha256sum64m", Kind::Asked(Some(0x7fcf_d210_6c86_e8f9))),
    whole("gcc", Kind::Asked(None)),
    whole("boot", Kind::Boot),
    whole("poweroff", Kind::PowerOff),
    whole("nucleus", Kind::Nucleus),
];

/// The rows that `names` (of rows or groups) ask for, in the set's order; all if there are none.
///
/// # Errors
/// A name is neither; the message lists what there is.
pub(super) fn select(names: &[String]) -> Result<Vec<Row>, String> {
    let (starts, crowds) = (starts::STARTS.map(|it| it.name), crowd::CROWDS.map(|it| it.name));
    let known = |name: &str| {
        let outside = [starts::GROUP, crowd::GROUP].iter().chain(&starts).chain(&crowds);
        outside.into_iter().any(|known| *known == name) || ROWS.iter().any(|row| wanted(row, name))
    };
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(format!("there is no row or group {name:?}; there are:\n{}", listing()));
    }
    let selected =
        ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| wanted(row, name)));
    Ok(selected.copied().collect())
}

fn wanted(row: &Row, name: &str) -> bool {
    row.name == name || row.group.name() == name
}

/// Groups and their rows, a line for each group.
pub(super) fn listing() -> String {
    let line = |group: Group| {
        let rows = ROWS.iter().filter(|row| row.group == group);
        let names: Vec<_> = rows.map(|row| row.name).collect();
        format!("  {:<10}{}", format!("{}:", group.name()), names.join(" "))
    };
    let others = [
        (starts::GROUP, starts::STARTS.map(|start| start.name).join(" ")),
        (crowd::GROUP, crowd::CROWDS.map(|crowd| crowd.name).join(" ")),
    ];
    let others = others.map(|(group, names)| format!("  {:<10}{names}", format!("{group}:")));
    Group::ALL.map(line).into_iter().chain(others).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(asked: &[&str]) -> Result<Vec<&'static str>, String> {
        let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
        select(&asked).map(|rows| rows.iter().map(|row| row.name).collect())
    }

    #[test]
    fn rows_and_groups_are_selected_in_the_sets_order() {
        assert_eq!(names(&[]).expect("all").len(), ROWS.len());
        assert_eq!(names(&["getppid", "fib"]), Ok(vec!["fib", "getppid"]));
        let kernel = names(&["kernel", "pipe"]).expect("a group");
        assert_eq!((kernel.len(), kernel[0], kernel[13]), (14, "getppid", "netin"));
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let error = names(&["fib", "fibb"]).expect_err("no such row");
        assert!(error.contains("\"fibb\""), "{error}");
        for row in ROWS {
            assert!(error.contains(row.name), "{error}");
        }
    }

    #[test]
    fn names_are_unique_and_every_row_is_documented() {
        let text = include_str!("../../../../docs/benchmark.md");
        for (at, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..at].iter().all(|other| other.name != row.name), "{}", row.name);
            assert!(Group::ALL.iter().all(|group| group.name() != row.name));
            let line = format!("| `{}` | {} |", row.name, row.unit.name());
            assert!(text.contains(&line), "docs/benchmark.md has no line {line}");
        }
    }

    #[test]
    fn units() {
        assert_eq!(Unit::Milliseconds.of(1.5e6), 1.5);
        assert_eq!(Unit::Microseconds.of(250.0), 0.25);
    }
}
