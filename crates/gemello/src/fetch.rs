//! `gemello fetch`: what it is told, and what it brings.

use crate::debian::{self, Flavour, Refresh, Release};
use crate::{exit, images};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use oci::Name;

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// `debian`, `busybox`, or `docker://` and the name of a registry's image
    #[arg(value_name = "debian|busybox|docker://NAME", value_parser = fetchable)]
    what: Fetchable,

    /// Which of Debian's releases [default: trixie]
    #[arg(long, value_enum)]
    release: Option<Release>,

    /// Which of Debian's kernels busybox has [default: cloud]
    #[arg(long, value_enum)]
    flavour: Option<Flavour>,
}

/// What can be fetched.
#[derive(Clone, Debug)]
enum Fetchable {
    Guest(Guest),
    Image(Name),
}

fn fetchable(word: &str) -> Result<Fetchable, String> {
    if Name::is_meant(word.as_bytes()) {
        return Name::parse(word).map(Fetchable::Image);
    }
    let guest = Guest::from_str(word, false);
    guest.map(Fetchable::Guest).map_err(|_| "debian, busybox, or docker:// and a name".to_owned())
}

/// A guest that gemello can fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Guest {
    /// A whole system.
    Debian,
    /// Debian's kernel and busybox.
    Busybox,
}

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
