//! `--trace`: which of the machine's events are written down.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The trace file, buffered: [`finish`] writes out the rest.
static FILE: OnceLock<Arc<Mutex<BufWriter<File>>>> = OnceLock::new();

struct Buffered(Arc<Mutex<BufWriter<File>>>);

impl std::io::Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(()) // at the end
    }
}

/// What can be followed; each is the target of the events that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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

/// Writes the `topics` to `file`, or to standard error. Without topics nothing is set up, and events cost nothing.
///
/// # Errors
/// The file cannot be created.
pub(crate) fn start(topics: &[Topic], file: Option<&Path>) -> Result<()> {
    if topics.is_empty() {
        return Ok(());
    }
    let mut targets = Targets::new().with_default(LevelFilter::ERROR);
    for topic in topics {
        targets = targets.with_target(topic.target(), LevelFilter::TRACE);
    }
    let format = fmt::layer().without_time().with_level(false).with_ansi(false);
    let registry = tracing_subscriber::registry().with(targets);
    match file {
        None => registry.with(format.with_writer(std::io::stderr)).init(),
        Some(path) => {
            let file = File::create(path)
                .with_context(|| format!("cannot write the trace to {}", path.display()))?;
            let file = FILE.get_or_init(|| Arc::new(Mutex::new(BufWriter::new(file))));
            registry.with(format.with_writer(|| Buffered(Arc::clone(file)))).init();
        }
    }
    Ok(())
}

/// Writes out what is buffered.
pub(crate) fn finish() {
    if let Some(file) = FILE.get() {
        let _ = file.lock().unwrap_or_else(PoisonError::into_inner).flush();
    }
}
