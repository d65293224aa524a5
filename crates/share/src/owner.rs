//! Who owns a file, as the guest sees it.
//!
//! The server acts as the host's user whatever the guest's process is, and never changes that. What
//! differs is only what the guest is shown.

use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgroups};
use serde::{Deserialize, Serialize};

/// The user and the group of what belongs to others.
const NOBODY: u32 = 65534;

/// How the guest is shown who owns a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// What is the host user's is this user's of the guest, and his group's of the same number; so
    /// are the host user's groups. All else is nobody's, 65534.
    User(u32),
    /// By the host's numbers.
    Keep,
}

impl Default for Owner {
    fn default() -> Self {
        Self::User(0)
    }
}

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What the host's user is.
#[derive(Debug)]
pub(crate) struct Ownership {
    shown: Owner,
    uid: u32,
    groups: Vec<u32>,
}

impl Ownership {
    pub(crate) fn new(shown: Owner) -> Self {
        let mut groups: Vec<_> =
            getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
        groups.push(getegid().as_raw());
        Self { shown, uid: geteuid().as_raw(), groups }
    }

    /// What the guest is shown of a file of `host`'s.
    pub(crate) fn shown(&self, host: Ids) -> Ids {
        match self.shown {
            Owner::Keep => host,
            Owner::User(own) => Ids {
                uid: if host.uid == self.uid { own } else { NOBODY },
                gid: if self.groups.contains(&host.gid) { own } else { NOBODY },
            },
        }
    }

    /// What of `wanted`, the guest's numbers, is to be asked of the host for a file of `host`'s.
    ///
    /// # Errors
    /// The file would have to change hands.
    pub(crate) fn change(
        &self,
        host: Ids,
        wanted: (Option<u32>, Option<u32>),
    ) -> Result<(Option<u32>, Option<u32>), Errno> {
        let shown = self.shown(host);
        let uid = wanted.0.filter(|&uid| uid != shown.uid);
        let gid = wanted.1.filter(|&gid| gid != shown.gid);
        match self.shown {
            Owner::Keep => Ok((uid, gid)),
            Owner::User(_) if uid.is_none() && gid.is_none() => Ok((None, None)),
            Owner::User(_) => Err(Errno::PERM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ownership(shown: Owner) -> Ownership {
        Ownership { shown, uid: 500, groups: vec![60, 70] }
    }

    #[test]
    fn the_hosts_user_is_the_guests_and_others_are_nobody() {
        let mine = ownership(Owner::User(1000));
        let of = |uid, gid| Ids { uid, gid };
        assert_eq!(mine.shown(of(500, 60)), of(1000, 1000));
        assert_eq!(mine.shown(of(500, 70)), of(1000, 1000));
        assert_eq!(mine.shown(of(0, 0)), of(NOBODY, NOBODY));
        assert_eq!(ownership(Owner::Keep).shown(of(0, 7)), of(0, 7));
    }

    #[test]
    fn nothing_changes_hands_but_as_it_appears() {
        let (mine, host) = (ownership(Owner::User(0)), Ids { uid: 500, gid: 60 });
        assert_eq!(mine.change(host, (Some(0), Some(0))), Ok((None, None)));
        assert_eq!(mine.change(host, (Some(0), None)), Ok((None, None)));
        assert_eq!(mine.change(host, (Some(500), None)), Err(Errno::PERM));
        assert_eq!(mine.change(host, (None, Some(60))), Err(Errno::PERM));
        let keep = ownership(Owner::Keep);
        assert_eq!(keep.change(host, (Some(500), Some(70))), Ok((None, Some(70))));
    }
}
