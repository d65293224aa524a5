//! A machine whose RAM may be larger than the host memory that it takes.

use crate::config::{Hardware, Paging};
use crate::end::End;
use crate::error::BuildError;
use crate::layout;
use crate::power::Stopper;
use host::Owner;
use memory::{Backing, FETCHERS, GuestRam, Pager, swap_file};

/// The machine's RAM, on a swap file if it has a budget.
pub(crate) fn ram(hardware: &Hardware) -> Result<GuestRam, BuildError> {
    let ranges = layout::ram(hardware.memory);
    let Some(Paging { swap, .. }) = &hardware.paging else { return Ok(GuestRam::new(&ranges)?) };
    let file = swap_file(swap, ranges.iter().map(|&(_, len)| len).sum())?;
    Ok(GuestRam::create(Backing::File { file, offset: 0, private: false }, &ranges)?)
}

/// Keeps `ram` within its budget from now on, if it has one. A failure of the swap file ends the
/// machine.
pub(crate) fn start(
    hardware: &Hardware,
    ram: &GuestRam,
    stopper: &Stopper,
) -> Result<Option<Pager>, BuildError> {
    let Some(Paging { resident, .. }) = hardware.paging else { return Ok(None) };
    let (stopper, owner) = (stopper.clone(), stopper.owner());
    let on_loss = move |why: &str| stopper.stop(End::MemoryLost(why.into()));
    let (pager, reclaimer) = Pager::new(ram, resident, Box::new(on_loss))?;
    thread("pager", &owner, || reclaimer.run())?;
    for _ in 0..FETCHERS {
        let fetcher = pager.fetcher();
        thread("page-in", &owner, || fetcher.run())?;
    }
    Ok(Some(pager))
}

/// Has a thread of its own do `work` in the name of `owner`; it ends when the pager is dropped.
fn thread(
    name: &str,
    owner: &Owner,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), BuildError> {
    let owner = owner.clone();
    let work = move || {
        let _ = host::give_up_privileges();
        let _counted = owner.count_thread();
        owner.run(work);
    };
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(BuildError::Host)?;
    Ok(())
}
