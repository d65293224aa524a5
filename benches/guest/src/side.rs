//! A row by several processes at once, side by side on several processors.

use crate::kernels;
use crate::measure::{self, Outcome};
use crate::programs::Tools;
use std::process::{Command, Stdio};

/// How long each process keeps on, in nanoseconds.
const WHILE: u64 = 1_000_000_000;

/// One of the processes: the mean time of an operation of the row `name`, after a first pass.
pub(crate) fn one(name: &str, tools: &Tools) -> Outcome {
    measure::row_by(name, tools, keep_on)
}

fn keep_on(operations: f64, _: usize, pass: &mut dyn FnMut() -> Result<u64, String>) -> Outcome {
    let value = match pass() {
        Ok(value) => value,
        Err(message) => return Outcome::Failed(message),
    };
    let (began, mut passes) = (kernels::now(), 0.0);
    loop {
        match pass() {
            Ok(same) if same == value => passes += 1.0,
            Ok(_) => return Outcome::Failed("two passes gave different results".into()),
            Err(message) => return Outcome::Failed(message),
        }
        let spent = kernels::now() - began;
        if spent >= WHILE {
            return Outcome::Done { value, nanoseconds: spent as f64 / (passes * operations) };
        }
    }
}

/// The row `name` by `count` processes at once: the time in which all together do an operation.
pub(crate) fn by_side(name: &str, count: u32, tools: &Tools) -> Outcome {
    let mut command = Command::new("/proc/self/exe");
    command.arg("one").arg(name).arg(&tools.busybox).arg(&tools.compiler).arg(&tools.server);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let started: Result<Vec<_>, _> = (0..count).map(|_| command.spawn()).collect();
    let outputs = started.and_then(|all| {
        all.into_iter().map(|one| one.wait_with_output()).collect::<Result<Vec<_>, _>>()
    });
    match outputs {
        Err(error) => Outcome::Failed(format!("{name} by {count} processes: {error}")),
        Ok(outputs) => {
            together(outputs.iter().map(|output| String::from_utf8_lossy(&output.stdout)))
        }
    }
}

/// The answers of all as one.
fn together(answers: impl Iterator<Item = impl AsRef<str>>) -> Outcome {
    let (mut found, mut rate) = (None, 0.0);
    for answer in answers {
        let answer = answer.as_ref().trim();
        match answer.split_whitespace().collect::<Vec<_>>()[..] {
            ["@bench", _, "none"] => return Outcome::Lacking,
            ["@bench", _, value, nanoseconds] => {
                let value = u64::from_str_radix(value, 16).ok();
                let nanoseconds = nanoseconds.parse::<f64>().ok();
                let (Some(value), Some(nanoseconds)) = (value, nanoseconds) else {
                    return Outcome::Failed(format!("a process said {answer:?}"));
                };
                if *found.get_or_insert(value) != value {
                    return Outcome::Failed("two processes gave different results".into());
                }
                rate += 1.0 / nanoseconds;
            }
            _ => return Outcome::Failed(format!("a process said {answer:?}")),
        }
    }
    Outcome::Done { value: found.unwrap_or(0), nanoseconds: 1.0 / rate }
}
