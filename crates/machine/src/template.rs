//! Templates: a guest that has booted, and touched no device, from which machines begin that differ
//! only in what is behind their devices.
//!
//! A template is a saved machine whose virtio devices nobody has used; that is checked when it is
//! made. What the guest has seen of them is the functions on PCI and their places, which a machine
//! that begins from it has at the same ones. All else of a device is as its host's side has it now.

use crate::board::Board;
use crate::boot_files::{BootFile, SavedFile};
use crate::build::{assemble, processor_model, saved_model};
use crate::config::{BootConfig, Config, Hardware};
use crate::error::{BuildError, ResetError, SaveError};
use crate::handle::MachineHandle;
use crate::machine::Machine;
use crate::saved::file::{self, Content, FileError, Header, Kept, SavedMachine};
use crate::saved::state::VirtioState;
use crate::virtio::kind;
use crate::wiring::Lines;
use std::io;
use std::path::Path;
use vcpu::Engine;

impl Config {
    /// What a guest can have seen of this machine that has touched no device, as text: a template
    /// of another one is none for this. The boot files are not in it.
    #[must_use]
    pub fn as_seen_at_boot(&self) -> String {
        let Self { memory, paging, cpu, vcpus, boot, devices, .. } = self;
        let Self { transport, debug_exit, deterministic, .. } = self;
        let kinds: Vec<_> = devices.iter().map(kind).collect();
        format!(
            "memory {memory} paged {} cpu {cpu} vcpus {vcpus} devices {kinds:?} on {transport:?} \
             debug_exit {debug_exit} deterministic {deterministic} cmdline {}",
            paging.is_some(),
            boot.cmdline
        )
    }
}

impl MachineHandle {
    /// Saves this machine of `hardware` to the file at `path`, as a template. The machine stands
    /// still meanwhile, and goes on.
    ///
    /// # Errors
    /// Its guest has touched a device, or as for [`Self::save_to`].
    pub fn save_template(&self, path: &Path, hardware: &Hardware) -> Result<(), SaveError> {
        let lost = |_: &BootFile| SavedFile::Lost {
            name: "what a template has booted".into(),
            why: "is not in it".into(),
        };
        let boot = self.board.boot.map(lost);
        let nothing = || serde_json::Value::Null;
        self.with_state(nothing, |board, state, session| {
            if !board.is_untouched(&state.virtio) {
                return Err(SaveError::Touched);
            }
            let header = Header { hardware: hardware.clone(), state, boot, session };
            let content = Content { inside: Vec::new(), ram: &board.ram, scratch: Vec::new() };
            Ok(file::write(path, &header, &content, Kept::InCache)?)
        })
    }
}

impl Machine {
    /// Builds the machine of `config`, and leaves it where the guest of `template` was saved: or
    /// stopped at the boot image's first instruction, where that cannot be, and tells why.
    ///
    /// # Errors
    /// As for [`Self::build`].
    pub fn from_template(
        config: &Config,
        template: &mut SavedMachine,
        lines: Lines,
        engine: &dyn Engine,
    ) -> Result<(Self, Result<(), FileError>), BuildError> {
        config.validate()?;
        let hardware = config.hardware();
        let path = template.path().to_owned();
        let (model, fits) = match saved_model(&template.header.state, &hardware) {
            Ok(model) => (model, Ok(())),
            Err(source) => {
                let model = processor_model(&config.cpu, config.vcpus, &hardware);
                (model, Err(FileError::State { path, source }))
            }
        };
        let boot = BootConfig::current(&config.boot);
        let mut machine = assemble(&hardware, model, boot, lines, engine)?;
        machine.timeout = config.timeout;
        let begun = fits.and_then(|()| machine.board.begin_from(template));
        if begun.is_err() {
            machine.board.reset().map_err(|error| match error {
                ResetError::Boot(error) => BuildError::Boot(error),
                other => BuildError::Host(io::Error::other(other.to_string())),
            })?;
        }
        Ok((machine, begun))
    }
}

impl Board {
    /// Whether no driver has done anything to the devices in this state. Their places, and what the
    /// host's side has become meanwhile, are no matter.
    fn is_untouched(&self, devices: &[VirtioState]) -> bool {
        let Some(fresh) = self.fresh.get() else { return false };
        let untouched = |(fresh, now): (&VirtioState, &VirtioState)| {
            placed_as(fresh, now) == with_device_of(now, fresh)
        };
        fresh.virtio.len() == devices.len() && fresh.virtio.iter().zip(devices).all(untouched)
    }

    /// Goes on where the guest of `template` was; memory holds zeros.
    fn begin_from(&self, template: &mut SavedMachine) -> Result<(), FileError> {
        let path = template.path().to_owned();
        template.load(&self.ram, &[])?;
        let mut state = template.header.state.clone();
        if let Some(fresh) = self.fresh.get()
            && fresh.virtio.len() == state.virtio.len()
        {
            let devices = fresh.virtio.iter().zip(&state.virtio);
            state.virtio = devices.map(|(fresh, placed)| placed_as(fresh, placed)).collect();
        }
        self.restore(&state).map_err(|source| FileError::State { path: path.clone(), source })?;
        self.generation.renew(&self.ram).map_err(|error| FileError::Io {
            attempt: "begin from",
            path,
            source: io::Error::other(error),
        })
    }
}

/// The device `fresh`, at the place where the guest has put the other.
fn placed_as(fresh: &VirtioState, placed: &VirtioState) -> VirtioState {
    match (fresh, placed) {
        (VirtioState::Pci(fresh), VirtioState::Pci(placed)) => {
            let mut state = fresh.clone();
            state.config.clone_from(&placed.config);
            VirtioState::Pci(state)
        }
        (fresh, _) => fresh.clone(),
    }
}

/// The transport `now`, with the device behind it as in `fresh`.
fn with_device_of(now: &VirtioState, fresh: &VirtioState) -> VirtioState {
    let mut state = now.clone();
    match (&mut state, fresh) {
        (VirtioState::Pci(state), VirtioState::Pci(fresh)) => {
            state.transport.device.clone_from(&fresh.transport.device);
        }
        (VirtioState::Mmio(state), VirtioState::Mmio(fresh)) => {
            state.transport.device.clone_from(&fresh.transport.device);
        }
        _ => {}
    }
    state
}
