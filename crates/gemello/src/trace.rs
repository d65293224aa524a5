//! `--trace`: which of the machine's events are written down; and what the user is told unasked.

use crate::terminal;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Mutex;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Where the trace goes.
enum Place {
    /// Into memory: its file is opened when all else is known to be good.
    Early(Vec<u8>),
    /// Into its file, buffered: [`finish`] writes out the rest.
    File(BufWriter<File>),
    /// Nowhere any more: the file refused.
    Lost(io::Error),
}

static PLACE: Mutex<Place> = Mutex::new(Place::Early(Vec::new()));

/// A writer to [`PLACE`].
struct Buffered;

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut place = sync::lock(&PLACE);
        match &mut *place {
            Place::Early(early) => early.extend_from_slice(bytes),
            Place::File(file) => {
                if let Err(error) = file.write_all(bytes) {
                    *place = Place::Lost(error);
                }
            }
            Place::Lost(_) => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // at the end
    }
}

/// Standard error, which takes what it can: an event must not end the program.
struct Direct;

impl Write for Direct {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The target of warnings that the user is told unasked: the host has failed a machine, and the
/// user can help. Whoever warns says the same thing seldom.
const TOLD: &str = "host";

/// Standard error, as the user reads it.
struct Told;

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        terminal::tell(&format!("gemello: {}", String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What can be followed; each is the target of the events that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Topic {
    /// Blocks entered, mode changes, control registers
    Cpu,
    /// Translations when they are made, guest and host code side by side
    Blocks,
    /// Interrupt lines, messages, acknowledgements
    Irq,
    /// Exceptions delivered
    Exceptions,
    /// Port accesses
    Ports,
    /// Device memory accesses
    Mmio,
    /// Model-specific registers
    Msr,
    /// Accesses to places where no device is, once each
    Unclaimed,
    /// Timers that expire
    Timers,
    /// Power off, reset
    Power,
    /// POST codes
    Post,
    /// What is placed in memory before the boot
    Boot,
    /// Input and output of the serial lines
    Console,
}

impl Topic {
    fn target(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Where a trace is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// The file that [`open`] gets.
    File,
    /// Standard error.
    StandardError,
}

/// An event is its words.
fn plain<S>() -> fmt::Layer<S, DefaultFields, Format<Full, ()>> {
    fmt::layer().without_time().with_level(false).with_ansi(false)
}

/// Tells the user what [`TOLD`] is for, and follows the `topics`: for the file that [`open`] gets,
/// or on standard error. Events of other topics cost nothing.
pub(crate) fn start(topics: &[Topic], to: To) {
    let warnings = Targets::new().with_target(TOLD, LevelFilter::WARN);
    let told = plain().with_target(false).with_writer(|| Told).with_filter(warnings);
    let registry = tracing_subscriber::registry().with(told);
    if topics.is_empty() {
        return registry.init();
    }
    let mut targets = Targets::new().with_default(LevelFilter::ERROR);
    for topic in topics {
        targets = targets.with_target(topic.target(), LevelFilter::TRACE);
    }
    if to == To::File {
        registry.with(plain().with_writer(|| Buffered).with_filter(targets)).init();
    } else {
        registry.with(plain().with_writer(|| Direct).with_filter(targets)).init();
    }
}

/// Writes to `file` what has been traced so far, and all that will be.
pub(crate) fn open(file: File) {
    let mut place = sync::lock(&PLACE);
    let mut file = BufWriter::new(file);
    let written = match &*place {
        Place::Early(early) => file.write_all(early),
        Place::File(_) | Place::Lost(_) => Ok(()),
    };
    *place = match written {
        Ok(()) => Place::File(file),
        Err(error) => Place::Lost(error),
    };
}

/// Writes out what is buffered.
///
/// # Errors
/// The file is not complete, and why.
pub(crate) fn finish() -> io::Result<()> {
    let mut place = sync::lock(&PLACE);
    match std::mem::replace(&mut *place, Place::Early(Vec::new())) {
        Place::Early(_) => Ok(()),
        Place::File(file) => file.into_inner().map(drop).map_err(io::IntoInnerError::into_error),
        Place::Lost(error) => Err(error),
    }
}
