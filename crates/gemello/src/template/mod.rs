//! Boot templates: a guest that gemello makes is saved when its agent asks for its job, and the
//! next machine that would boot the same begins there (docs/adr/0063-boot-templates.md).
//!
//! [`key`] tells what is the same, [`shelf`] keeps the files, [`maker`] saves a machine that boots.
//! A template that cannot be used costs time and nothing else: the machine boots.

mod key;
mod maker;
mod shelf;

use crate::settings::Settings;
use anyhow::Result;
use machine::{BuildError, Config, FileError, Lines, Machine, SavedMachine};
use std::path::PathBuf;
use vcpu::Engine;

pub(crate) use maker::Maker;
pub(crate) use shelf::{prune, room};

/// Where a machine's template is, or is to be.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    path: PathBuf,
}

/// Whether a machine of `settings`, which gemello makes, may begin from a template: nobody wants to
/// see how it boots, have that the same each time, or go on from where it is saved.
pub(crate) fn may_serve(settings: &Settings) -> bool {
    let run = &settings.run;
    let watched = run.log.is_some() || !run.trace.is_empty() || run.stats() || run.digest();
    let alike = settings.machine.deterministic.unwrap_or_default();
    !(watched || alike || run.save.is_some() || run.cold.unwrap_or_default())
}

impl Template {
    /// That of the machine of `config`.
    ///
    /// # Errors
    /// Its boot files cannot be looked at, or there is no cache.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        Ok(Self { path: shelf::place(&key::of(config)?)? })
    }

    /// Builds the machine of `config`, and leaves it where its guest asks for its job, or at its
    /// kernel if that cannot be. `None`: there is no template, and `lines` was not called.
    ///
    /// # Errors
    /// As for [`Machine::build`].
    pub(crate) fn begin(
        &self,
        config: &Config,
        lines: impl FnOnce() -> Lines,
        engine: &dyn Engine,
    ) -> Result<Option<(Machine, Begun)>, BuildError> {
        let mut saved = match SavedMachine::open(&self.path) {
            Ok(saved) => saved,
            Err(FileError::Io { .. }) => return Ok(None),
            Err(error) => {
                self.forget(&error);
                return Ok(None);
            }
        };
        shelf::used(&self.path);
        let (machine, begun) = Machine::from_template(config, &mut saved, lines(), engine)?;
        let begun = match begun {
            Ok(()) => Begun::AtItsJob,
            Err(error) => {
                self.forget(&error);
                Begun::AtTheKernel
            }
        };
        Ok(Some((machine, begun)))
    }

    fn forget(&self, why: &FileError) {
        tracing::info!(target: "boot", %why, "a template is of no use, and removed");
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where a machine begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// At the kernel's first instruction.
    AtTheKernel,
    /// Where its agent has asked for its job.
    AtItsJob,
}
