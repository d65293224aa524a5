//! What `gemello fetch` is told.

use crate::debian::{Flavour, Release};
use clap::{Args, ValueEnum};
use oci::Name;

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// `debian`, `busybox`, or `docker://` and the name of a registry's image
    #[arg(value_name = "debian|busybox|docker://NAME", value_parser = fetchable)]
    pub(crate) what: Fetchable,

    /// Which of Debian's releases [default: trixie]
    #[arg(long, value_enum)]
    pub(crate) release: Option<Release>,

    /// Which of Debian's kernels busybox has [default: cloud]
    #[arg(long, value_enum)]
    pub(crate) flavour: Option<Flavour>,
}

/// What can be fetched.
#[derive(Clone, Debug)]
pub(crate) enum Fetchable {
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
