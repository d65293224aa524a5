//! `gemello fetch`.

pub(crate) mod arguments;

use crate::debian::{self, Refresh};
use crate::{exit, images};
use anyhow::{Result, bail};
use arguments::{Fetch, Fetchable, Guest};

/// Fetches a guest; the exit status.
pub(crate) fn fetch(arguments: &Fetch) -> Result<u8> {
    let Fetch { what, release, flavour } = arguments;
    match (what, *release, *flavour) {
        (Fetchable::Guest(Guest::Debian), release, None) => {
            images::system::refresh(release.unwrap_or_default())
        }
        (Fetchable::Guest(Guest::Busybox), None, flavour) => {
            debian::fetch(flavour.unwrap_or_default(), Refresh::Always).map(|_| exit::OK)
        }
        (Fetchable::Image(name), None, None) => images::fetch(name).map(|()| exit::OK),
        (_, _, Some(_)) => {
            bail!("--flavour chooses busybox's kernel; leave it out, or: gemello fetch busybox")
        }
        (_, Some(_), _) => {
            bail!("--release is a whole system's; leave it out, or: gemello fetch debian")
        }
    }
}
