//! What the user can have done with one machine by a key: to save it, to reset it; and that a
//! template is made of it, once.
//!
//! The user's side of a machine is there before the machine is, so all are armed later.

use crate::again::Resettable;
use crate::save::Saver;
use crate::template::Maker;
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
    maker: Option<Maker>,
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

    /// A template is made of the machine when its agent asks for its job.
    pub(crate) fn arm_template(&self, maker: Maker) {
        lock(&self.0).maker = Some(maker);
    }

    /// No template is made of the machine any more.
    pub(crate) fn make_no_template(&self) {
        lock(&self.0).maker = None;
    }

    /// Makes a template of the machine, if one is wanted, and has `then` done.
    pub(crate) fn make_template(&self, then: impl FnOnce() + Clone + Send + 'static) {
        let maker = lock(&self.0).maker.take();
        match maker {
            Some(maker) => maker.make(then),
            None => then(),
        }
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
