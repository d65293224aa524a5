//! How a row is timed.

use crate::kernels::{self, Kernel};
use crate::network::{self, PASS_MIB};
use crate::programs::{self, Tools};

/// What became of a row.
pub(crate) enum Outcome {
    /// The result, and the time of one operation.
    Done {
        value: u64,
        nanoseconds: f64,
    },
    /// This machine lacks what the row needs.
    Lacking,
    Failed(String),
}

/// Passes of one row at the most.
const MOST: usize = 8;
/// No further pass once this much time was spent, in nanoseconds.
const ENOUGH: u64 = 250_000_000;
/// After a first pass of this length there is no second: what is being warmed up no longer matters.
const LONG: u64 = 1_000_000_000;

/// Runs the row called `name`; `tools` are the programs that some rows start.
pub(crate) fn row(name: &str, tools: &Tools) -> Outcome {
    row_by(name, tools, timed)
}

/// Times a pass of so many operations, at the most so often.
pub(crate) type Timing = fn(f64, usize, &mut dyn FnMut() -> Result<u64, String>) -> Outcome;

/// As [`row`], timed by `how`.
pub(crate) fn row_by(name: &str, tools: &Tools, how: Timing) -> Outcome {
    if name == "avx2" && !kernels::has_avx2() {
        return Outcome::Lacking;
    }
    if let Some(mut kernel) = Kernel::prepare(name) {
        let operations = kernel.operations() as f64;
        return how(operations, MOST, &mut || Ok(kernel.pass()));
    }
    match network::find(name, tools) {
        Ok(None) => {}
        Ok(Some(mut transfer)) => return how(PASS_MIB as f64, MOST, &mut || transfer.pass()),
        Err(error) => return Outcome::Failed(format!("{name}: {error}")),
    }
    // Once, as a user starts it: what a translator has to do for a program it has not seen is part
    // of it.
    match programs::find(name, tools) {
        Ok(Some(mut program)) => how(1.0, 1, &mut || program.pass()),
        Ok(None) => Outcome::Failed(format!("there is no row {name}")),
        Err(error) => Outcome::Failed(format!("{name}: {error}")),
    }
}

/// The fastest of several passes, the first (which fills caches, and a translator's) counting like
/// the others.
fn timed(operations: f64, most: usize, pass: &mut dyn FnMut() -> Result<u64, String>) -> Outcome {
    let began = kernels::now();
    let mut fastest = u64::MAX;
    let mut first = None;
    for number in 0..most {
        let begin = kernels::now();
        let value = match pass() {
            Ok(value) => value,
            Err(message) => return Outcome::Failed(message),
        };
        let end = kernels::now();
        if *first.get_or_insert(value) != value {
            return Outcome::Failed("two passes gave different results".into());
        }
        fastest = fastest.min(end - begin);
        let spent = end - began;
        if spent > LONG || number > 0 && spent > ENOUGH {
            break;
        }
    }
    Outcome::Done { value: first.unwrap_or(0), nanoseconds: fastest as f64 / operations }
}
