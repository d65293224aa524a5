//! What the user can have done with one machine by a key: to save it, to reset it.
//!
//! The user's side of a machine is there before the machine is, so both are armed later.

use crate::again::Resettable;
use crate::save::Saver;
use crate::terminal;
use anyhow::Result;
use std::fmt;
use std::sync::{Arc, Mutex};
use sync::lock;

/// What can be done with one machine. Clones are the same one's.
#[derive(Clone, Default)]
pub(crate) struct Wishes(Arc<Mutex<Armed>>);

#[derive(Default)]
struct Armed {
    saver: Option<Arc<Saver>>,
    resettable: Option<Resettable>,
}

impl fmt::Debug for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wishes").finish_non_exhaustive()
    }
}

impl Wishes {
    /// From now on the machine can be saved.
    pub(crate) fn arm_save(&self, saver: Saver) {
        lock(&self.0).saver = Some(Arc::new(saver));
    }

    /// From now on the machine can be reset.
    pub(crate) fn arm_reset(&self, resettable: Resettable) {
        lock(&self.0).resettable = Some(resettable);
    }

    /// Nothing can be done with the machine any more: what is armed keeps its memory.
    pub(crate) fn disarm(&self) {
        let armed = std::mem::take(&mut *lock(&self.0));
        drop(armed);
    }

    fn saver(&self) -> Option<Arc<Saver>> {
        lock(&self.0).saver.clone()
    }

    /// That the machine can be saved where it is to be, if anywhere.
    ///
    /// # Errors
    /// The host would refuse it.
    pub(crate) fn check(&self) -> Result<()> {
        self.saver().map_or(Ok(()), |saver| saver.check())
    }

    /// Saves the machine, or says why not.
    pub(crate) fn save(&self) {
        match self.saver() {
            Some(saver) => saver.request(),
            None => terminal::tell(
                "\ngemello: nothing is saved: start with --save FILE to save the machine there\n",
            ),
        }
    }

    /// Resets the machine, or says why not.
    pub(crate) fn reset(&self) {
        let resettable = lock(&self.0).resettable.clone();
        match resettable {
            Some(resettable) => resettable.request(),
            None => terminal::tell(
                "\ngemello: the machine of a command is not reset; run the command again\n",
            ),
        }
    }
}
