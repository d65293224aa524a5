//! `cargo xtask diff`: generated cases on the host and in an engine, compared.
//!
//! The native child works on the next batch while this process runs the engine on the last one.
//! Exit code 1 if anything differs, 2 if the task itself cannot run.

use crate::subjects::{self, Engine};
use anyhow::{Result, ensure};
use oracle::{
    BATCH, Case, Difference, Event, Features, Generator, Mask, NativeRunner, Options, Outcome,
    Subject, compare, describe, layout, mask, shrink, stopped_early,
};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use x86::cpuid::CpuModel;

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Stop after this many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after this many cases.
    #[arg(long)]
    cases: Option<u64>,
    /// Leave out so many cases first, to come to a later one sooner.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    skip: u64,
    /// The same seed gives the same cases.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compare flags that the manual leaves undefined, too.
    #[arg(long)]
    strict: bool,
    /// Only instructions of this mnemonic, no blocks.
    #[arg(long, value_name = "MNEMONIC")]
    only: Option<String>,
    /// Percentage of cases that are blocks of instructions.
    #[arg(long, default_value_t = 30, value_name = "PERCENT")]
    blocks: u64,
    /// Percentage of single instructions that are 32-bit code, or 16-bit.
    #[arg(long, default_value_t = 12, value_name = "PERCENT")]
    compatible: u64,
    /// Instructions up to this level.
    #[arg(long, value_enum, default_value = "v3")]
    model: Model,
    /// The engine to judge.
    #[arg(long, value_enum, default_value = "soft")]
    engine: Engine,
    /// Judge the host by itself: shows that cases are deterministic.
    #[arg(long)]
    native_twice: bool,
    /// Run only the native side, to measure it.
    #[arg(long, conflicts_with = "native_twice")]
    native_only: bool,
    /// Stop after this many different mismatches.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    mismatches: usize,
    /// Run one case again, from the token that a mismatch printed.
    #[arg(long, value_name = "TOKEN")]
    replay: Option<String>,
    /// List every encoding covered, with its number of cases, and how cases ended.
    #[arg(long)]
    list: bool,
}

/// x86-64 levels, with the extensions that the CPU models of the same name have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Model {
    V2,
    V3,
}

impl Model {
    fn cpu(self) -> CpuModel {
        match self {
            Self::V2 => CpuModel::gemello_v2(),
            Self::V3 => CpuModel::gemello_v3(),
        }
    }
}

/// Whether an engine may leave garbage in the status flags of a fault's frame where the program
/// replaces them before it can read them: the translator does (docs/adr/0016), the interpreter does
/// not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeadFlags {
    Exact,
    Garbage,
}

impl DeadFlags {
    /// Whether a case that ended as `native` can be judged at all: where code is overwritten, the
    /// very instruction that was to replace flags may be gone, and the program reads garbage.
    fn can_judge(self, native: &Outcome) -> bool {
        let code = layout::CODE..layout::CODE + layout::PAGE;
        self == Self::Exact || !native.changes.iter().any(|change| code.contains(&change.address.0))
    }

    /// `outcome` as far as it can be judged against `native`.
    fn judged(self, mut outcome: Outcome, native: &Outcome) -> Outcome {
        const STATUS: u64 = 0x8d5;
        if self == Self::Exact || outcome.event.vector != native.event.vector {
            return outcome;
        }
        if outcome.event.fault().is_some() {
            outcome.rflags = outcome.rflags & !STATUS | native.rflags & STATUS;
        }
        outcome
    }
}

/// Whom the first native run is compared with.
enum Opponent {
    /// An engine; whether faults show it with status flags that are dead.
    Engine(Box<dyn Subject>, DeadFlags),
    /// A second child.
    Native(NativeRunner),
    /// Nobody.
    Nobody,
}

impl Opponent {
    fn of(arguments: &Arguments) -> Result<Self> {
        Ok(if arguments.native_only {
            Self::Nobody
        } else if arguments.native_twice {
            Self::Native(NativeRunner::new()?)
        } else {
            let engine = subjects::make(arguments.engine, arguments.model.cpu())?;
            let flags = match arguments.engine {
                Engine::Soft | Engine::Mistaken => DeadFlags::Exact,
                Engine::Translate => DeadFlags::Garbage,
            };
            Self::Engine(engine, flags)
        })
    }

    fn run(&mut self, cases: &[Case], native: &[Outcome]) -> Result<Vec<Outcome>> {
        Ok(match self {
            Self::Engine(..) => cases.iter().zip(native).map(|(c, n)| self.run_one(c, n)).collect(),
            Self::Native(runner) => runner.run_batch(cases)?.to_vec(),
            Self::Nobody => native.to_vec(),
        })
    }

    fn run_one(&mut self, case: &Case, native: &Outcome) -> Outcome {
        match self {
            // What the host did not finish cannot be judged, and would take an engine long.
            Self::Engine(..) if native.event.vector == Event::TIMEOUT => *native,
            Self::Engine(..) if stopped_early(case, native) => *native,
            Self::Engine(_, flags) if !flags.can_judge(native) => *native,
            Self::Engine(engine, flags) => flags.judged(engine.run(case), native),
            Self::Native(runner) => runner.run(case),
            Self::Nobody => *native,
        }
    }
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut native = NativeRunner::new()?;
    let opponent = Opponent::of(arguments)?;
    if let Some(token) = &arguments.replay {
        let mut session = Session::new(arguments, native, opponent);
        return session.replay(&Case::from_token(token)?);
    }
    let model = match arguments.model {
        Model::V2 => Features::v2(),
        Model::V3 => Features::v3(),
    };
    let options = Options {
        features: model.probed(&mut native),
        only: arguments.only.clone(),
        blocks: arguments.blocks,
        compatible: arguments.compatible,
        undefined_flags: arguments.strict,
        ..Options::default()
    };
    let mut generator = Generator::new(arguments.seed, options);
    ensure!(generator.encodings() != 0, "no encoding matches --only: try a mnemonic such as `add`");
    let mut session = Session::new(arguments, native, opponent);
    session.all(&mut generator)?;
    session.summary(&generator);
    Ok(session.verdict())
}

/// One such case in so many is as much as a host may show.
const UNSTEADY: u64 = 100_000;

/// A case that differed, and how.
struct Suspect {
    case: Case,
    other: Outcome,
    differences: Vec<Difference>,
}

struct Session<'a> {
    arguments: &'a Arguments,
    native: NativeRunner,
    opponent: Opponent,
    start: Instant,
    /// Cases drawn from the generator, and those judged.
    drawn: u64,
    cases: u64,
    wrong: u64,
    /// Cases in which the host did not repeat itself.
    unsteady: u64,
    unjudged: u64,
    /// What has been reported, so that one defect is not reported a thousand times.
    reported: BTreeMap<String, u64>,
    endings: BTreeMap<u32, u64>,
}

impl<'a> Session<'a> {
    fn new(arguments: &'a Arguments, native: NativeRunner, opponent: Opponent) -> Self {
        Self {
            arguments,
            native,
            opponent,
            start: Instant::now(),
            drawn: 0,
            cases: 0,
            wrong: 0,
            unsteady: 0,
            unjudged: 0,
            reported: BTreeMap::new(),
            endings: BTreeMap::new(),
        }
    }

    fn all(&mut self, generator: &mut Generator) -> Result<()> {
        let mut shown = Instant::now();
        for _ in 0..self.arguments.skip {
            generator.next_case();
        }
        let mut batch = self.next_batch(generator);
        self.native.submit(&batch)?;
        while !batch.is_empty() {
            let following = if self.done() { Vec::new() } else { self.next_batch(generator) };
            let outcomes = self.native.wait()?.to_vec();
            // The child goes on while the engine runs what it has just finished.
            self.native.submit(&following)?;
            let others = self.opponent.run(&batch, &outcomes)?;
            let suspects = self.judge(&batch, &outcomes, &others);
            if !suspects.is_empty() {
                // Asking again needs the child; what it has in hand is done first, and then again.
                self.native.wait()?;
                suspects.iter().for_each(|suspect| self.ask_again(suspect));
                self.native.submit(&following)?;
            }
            if shown.elapsed() > Duration::from_secs(1) {
                shown = Instant::now();
                self.progress();
            }
            batch = following;
        }
        self.native.wait()?;
        Ok(())
    }

    fn done(&self) -> bool {
        self.start.elapsed() >= Duration::from_secs(self.arguments.seconds)
            || self.reported.len() >= self.arguments.mismatches
    }

    fn next_batch(&mut self, generator: &mut Generator) -> Vec<Case> {
        let left = self.arguments.cases.map_or(u64::MAX, |limit| limit - self.drawn);
        let count = left.min(BATCH as u64);
        self.drawn += count;
        (0..count).map(|_| generator.next_case()).collect()
    }

    /// Compares a batch and gives the cases that differ, and how.
    fn judge(&mut self, cases: &[Case], native: &[Outcome], others: &[Outcome]) -> Vec<Suspect> {
        let mut suspects = Vec::new();
        for ((case, n), o) in cases.iter().zip(native).zip(others) {
            self.cases += 1;
            *self.endings.entry(n.event.vector).or_default() += 1;
            if n == o {
                continue;
            }
            let mask = self.mask(case);
            if mask.everything || !n.event.comparable() {
                self.unjudged += 1;
                continue;
            }
            let differences = compare(case, n, o, &mask);
            if differences.is_empty() {
                continue;
            }
            suspects.push(Suspect { case: *case, other: *o, differences });
        }
        suspects
    }

    /// Judges a case that differed by the host's further runs. The child must have nothing in hand.
    fn ask_again(&mut self, suspect: &Suspect) {
        let Suspect { case, other, differences } = suspect;
        if !self.arguments.native_twice && self.host_agrees_now(case, other, &self.mask(case)) {
            self.unsteady += 1;
            println!("the host did not repeat itself:\n{}", describe(case, differences));
        } else {
            self.wrong += 1;
            self.report(case, differences);
        }
    }

    /// Whether the host ends `case` as `other` did, each time that it is asked again: what it did
    /// before was its own mistake (docs/oracle.md).
    fn host_agrees_now(&mut self, case: &Case, other: &Outcome, mask: &Mask) -> bool {
        (0..3).all(|_| compare(case, &self.native.run(case), other, mask).is_empty())
    }

    fn mask(&self, case: &Case) -> Mask {
        if self.arguments.native_twice {
            Mask::default()
        } else {
            mask(case, self.arguments.strict)
        }
    }

    /// Runs `case` once on either side.
    fn differences(&mut self, case: &Case) -> Vec<Difference> {
        self.examine(case).1
    }

    /// The two endings and what differs, on a new run of `case`.
    fn examine(&mut self, case: &Case) -> ([u32; 2], Vec<Difference>) {
        let native = self.native.run(case);
        let other = self.opponent.run_one(case, &native);
        let differences = compare(case, &native, &other, &self.mask(case));
        ([native.event.vector, other.event.vector], differences)
    }

    /// Reports `case`, which differed as `seen`, in its smallest form.
    fn report(&mut self, case: &Case, seen: &[Difference]) {
        let (endings, found) = self.examine(case);
        let Some(first) = found.first().map(part) else {
            let key = "does not happen again when the case runs alone".to_owned();
            if !self.already(&key) {
                println!("MISMATCH that {key}:\n{}", describe(case, seen));
            }
            return;
        };
        // Making it small may take a while, and fail.
        eprintln!("a mismatch: {}", case.to_token());
        // The small case must differ in the same way, or it may show another defect than the one
        // found.
        let small = shrink(case, |candidate| {
            let (e, found) = self.examine(candidate);
            e == endings && found.first().map(part).as_ref() == Some(&first)
        });
        let differences = self.differences(&small);
        if !self.already(&kind(&small, &differences)) {
            println!("MISMATCH\n{}", describe(&small, &differences));
        }
    }

    /// Whether a mismatch of this kind has been reported; counts it.
    fn already(&mut self, kind: &str) -> bool {
        let count = self.reported.entry(kind.to_owned()).or_default();
        *count += 1;
        *count > 1
    }

    fn replay(&mut self, case: &Case) -> Result<ExitCode> {
        let native = self.native.run(case);
        let differences = self.differences(case);
        println!("{}", describe(case, &differences));
        println!("native: {:x?} rip {:#x} flags {:#x}", native.event, native.rip, native.rflags);
        if differences.is_empty() {
            println!("no difference");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(ExitCode::from(1))
    }

    fn rate(&self) -> f64 {
        self.cases as f64 / self.start.elapsed().as_secs_f64()
    }

    fn progress(&self) {
        let seconds = self.start.elapsed().as_secs();
        let (cases, rate, wrong) = (self.cases, self.rate(), self.wrong);
        eprintln!("{seconds:>5} s  {cases:>10} cases  {rate:>8.0}/s  {wrong} mismatches");
    }

    fn summary(&self, generator: &Generator) {
        let covered = generator.coverage().filter(|c| c.2 != 0).count();
        if self.arguments.list {
            for (bits, code, count) in generator.coverage().filter(|c| c.2 != 0) {
                let text = code.op_code().instruction_string();
                println!("{count:>8}  {bits}-bit  {text:<40} {code:?}");
            }
            for (vector, count) in &self.endings {
                println!("{count:>8}  ended with vector {vector:#x}");
            }
        }
        for (kind, count) in &self.reported {
            println!("{count:>8}  {kind}");
        }
        let (cases, rate, wrong) = (self.cases, self.rate(), self.wrong);
        let (all, restarts, unjudged) =
            (generator.encodings(), self.native.restarts(), self.unjudged);
        println!(
            "{cases} cases at {rate:.0}/s, {wrong} mismatches ({} kinds)",
            self.reported.len()
        );
        println!("{} cases in which the host did not repeat itself", self.unsteady);
        println!(
            "{covered} of {all} encodings as single instructions, {unjudged} cases differ where \
             the manual leaves it open, {restarts} restarts"
        );
    }

    fn verdict(&self) -> ExitCode {
        // A host that often does something else is no measure.
        let unsteady = self.unsteady * UNSTEADY > self.cases.max(UNSTEADY);
        ExitCode::from(u8::from(self.wrong != 0 || unsteady))
    }
}

/// What a defect looks like: the instructions and the parts of the state that differ.
fn kind(case: &Case, differences: &[Difference]) -> String {
    let instructions = case.instructions();
    let mut names: Vec<String> = instructions.iter().map(|i| format!("{:?}", i.code())).collect();
    let mut parts: Vec<String> = differences.iter().map(part).collect();
    parts.dedup();
    names.push(format!("({})", parts.join(", ")));
    names.join(" ")
}

/// The part of the state that differs, registers of one kind as one.
fn part(difference: &Difference) -> String {
    let memory = difference.what.starts_with('[');
    if memory {
        "memory".to_owned()
    } else {
        difference.what.trim_end_matches(char::is_numeric).to_owned()
    }
}
