//! Debian's releases that a whole system can be made of.

use serde::{Deserialize, Serialize};

/// Which of Debian's releases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Release {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    #[default]
    Trixie,
    /// What becomes the next release.
    Sid,
}

impl Release {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// The suite that is to this release what `suite` is to another: `bookworm-updates` becomes
    /// `trixie-updates`. `None`: it is no suite of Debian's, or this release has none of the sort.
    pub(super) fn suite(self, suite: &str) -> Option<String> {
        let (release, sort) = suite.split_at(suite.find('-').unwrap_or(suite.len()));
        let sorts: &[&str] = match self {
            Self::Sid => &[""],
            Self::Bookworm | Self::Trixie => &["", "-updates", "-security"],
        };
        let fits = KNOWN.contains(&release) && sorts.contains(&sort);
        fits.then(|| format!("{}{sort}", self.name()))
    }
}

/// What the archive calls its releases.
const KNOWN: [&str; 11] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "unstable",
    "testing",
    "stable",
    "oldstable",
    "oldoldstable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_becomes_that_of_another_release() {
        let suite = |release: Release, suite: &str| release.suite(suite);
        assert_eq!(suite(Release::Trixie, "bookworm").as_deref(), Some("trixie"));
        assert_eq!(suite(Release::Trixie, "stable-security").as_deref(), Some("trixie-security"));
        assert_eq!(suite(Release::Bookworm, "sid").as_deref(), Some("bookworm"));
        assert_eq!(suite(Release::Sid, "trixie").as_deref(), Some("sid"));
        assert_eq!(suite(Release::Sid, "trixie-updates"), None);
        for other in ["trixie-backports", "nodistro", "jammy", "bookworm-pgdg", ""] {
            assert_eq!(suite(Release::Trixie, other), None, "{other}");
        }
    }
}
