//! What a guest's input waits for: that the guest is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lets input through once open. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// One that is open, and stays so.
    pub(crate) fn opened() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// One that lets nothing through yet.
    pub(crate) fn closed() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn close(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
