//! Makes a template of a machine that has booted, at the moment when its agent asks for its job.

use super::{Template, shelf};
use anyhow::Result;
use machine::{Hardware, MachineHandle};
use std::time::Instant;

/// The machine of which a template is to be made.
pub(crate) struct Maker {
    template: Template,
    handle: MachineHandle,
    hardware: Hardware,
}

impl Maker {
    /// That of `handle`, which is of this `hardware`.
    pub(crate) fn new(template: Template, handle: MachineHandle, hardware: Hardware) -> Self {
        Self { template, handle, hardware }
    }

    /// Makes it, on another thread, since the machine stands still meanwhile; then has `then` done.
    pub(crate) fn make(self, then: impl FnOnce() + Clone + Send + 'static) {
        let last = then.clone();
        let work = move || {
            let began = Instant::now();
            match self.save() {
                Ok(()) => tracing::debug!(target: "boot", took = ?began.elapsed(), "a template"),
                Err(error) => tracing::debug!(target: "boot", %error, "no template"),
            }
            then();
        };
        if std::thread::Builder::new().name("template".into()).spawn(work).is_err() {
            last();
        }
    }

    fn save(&self) -> Result<()> {
        let path = &self.template.path;
        shelf::prepare(path)?;
        self.handle.save_template(path, &self.hardware)?;
        shelf::tidy(path);
        Ok(())
    }
}
