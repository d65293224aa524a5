//! What a device tells its driver.

use std::fmt;

/// What a device tells its driver, from any thread. It takes locks of the interrupt chips.
pub trait VirtioIrq: Send + Sync {
    /// Queue `queue` has used buffers. [`Queue`] calls it where the driver wants it.
    fn queue(&self, queue: u16);

    /// The configuration space has changed.
    fn config(&self);

    /// The driver broke the rules: the device cannot go on before a reset (2.1.2).
    fn needs_reset(&self);
}

impl fmt::Debug for dyn VirtioIrq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtioIrq")
    }
}
