//! How devices ask for the machine's end: one narrow handle.

use std::fmt;
use std::sync::Arc;

/// What the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// Soft off (ACPI S5).
    PowerOff,
    /// A platform reset.
    Reset,
    /// The byte that was written to the debug-exit port; the process ends with `code << 1 | 1`.
    DebugExit(u8),
}

/// Where [`PowerEvent`]s go.
///
/// Called on the vCPU's thread with the device locked: note the event, kick, and return.
#[derive(Clone)]
pub struct PowerSink(Arc<dyn Fn(PowerEvent) + Send + Sync>);

impl PowerSink {
    /// Events go to `receiver`.
    pub fn new(receiver: impl Fn(PowerEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receiver))
    }

    /// Reports `event`.
    pub fn send(&self, event: PowerEvent) {
        tracing::debug!(target: "power", ?event, "the guest asked for");
        (self.0)(event);
    }
}

impl fmt::Debug for PowerSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PowerSink")
    }
}
