//! The engines that can be held against the processor.

use anyhow::{Result, bail};
use oracle::Subject;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// The software engine's interpreter.
    Soft,
}

/// Makes the engine, in the guest that runs cases.
pub(crate) fn make(engine: Engine) -> Result<Box<dyn Subject>> {
    match engine {
        Engine::Soft => bail!(
            "the software engine has no processor yet: `--native-twice` holds the host against itself meanwhile"
        ),
    }
}
