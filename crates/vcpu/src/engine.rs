//! Where processors come from.

use crate::{InstructionClock, Vcpu};
use memory::GuestRam;
use std::sync::Arc;
use x86::addr::VcpuId;
use x86::cpuid::CpuModel;

/// A way of executing guest instructions.
pub trait Engine: Send + Sync {
    /// As users call it.
    fn name(&self) -> &'static str;

    /// What it can do on this host.
    ///
    /// # Errors
    /// It cannot run here; the message says why and what to do.
    fn probe(&self) -> Result<Capabilities, Unavailable>;

    /// Makes what the processors of one machine share.
    ///
    /// # Errors
    /// The host refuses, or the engine cannot be the processor that is asked for.
    fn create_vm(&self, parts: VmParts) -> Result<Box<dyn EngineVm>, EngineError>;
}

/// One machine, as an engine sees it.
pub trait EngineVm: Send + Sync {
    /// Makes processor number `id` (its APIC ID) in the state after reset.
    ///
    /// # Errors
    /// The host refuses.
    fn add_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, EngineError>;
}

/// What a machine brings.
#[derive(Clone, Debug)]
pub struct VmParts {
    /// Its memory.
    pub ram: GuestRam,
    /// The processor that its guest sees.
    pub model: CpuModel,
    /// The machine's time, if it is to be counted in instructions. Its processors move it on, and
    /// read it in place of the host's TSC. It is exact whenever one asks the machine for something
    /// ([`crate::CpuIo`]), and when [`Vcpu::run`] returns. Needs
    /// [`Capabilities::counts_instructions`].
    pub clock: Option<Arc<InstructionClock>>,
}

/// What an engine can do on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It counts instructions: it ends slices after a number of them, and can carry a clock
    /// ([`VmParts::clock`]).
    pub counts_instructions: bool,
    /// It answers KVM's MSRs and hypercalls itself, as a kernel does that runs guests in hardware.
    /// The machine leaves them to it then.
    pub answers_hypercalls: bool,
}

/// Why an engine cannot run on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {engine} engine cannot run here: {reason}")]
pub struct Unavailable {
    /// Which.
    pub engine: &'static str,
    /// Why, and what to do.
    pub reason: String,
}

/// Why an engine makes no machine or processor.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It does not run on this host.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The host's processor cannot carry the model.
    #[error("this host's processor has no {}, which the processor model {model} has",
        features.join(", "))]
    Model {
        /// The model's name.
        model: String,
        /// What the host lacks, by the names that models are described with.
        features: Vec<&'static str>,
    },
    /// The host refuses what the engine needs.
    #[error("the host denies what the engine needs ({what}): {source}")]
    Host {
        /// What it is.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
