//! The three host registers that hold no guest register of the same name, and what each holds for
//! the moment.
//!
//! A region keeps thirteen guest registers in the host's. The three it uses least are *spilled*:
//! their values lie in the state, current at every instruction's end, and are loaded into a scratch
//! register when an instruction needs them. Between instructions a scratch register may keep a
//! spilled value or a checked address, so the next use costs nothing.

use super::address::Group;

/// Homed registers at every boundary of a region: R9 to R11, which compiled code uses least (a
/// sixth of the blocks of libc, gcc and busybox use one of them; R13 to R15: a third).
pub(super) const STANDARD: u16 = 0x0e00;
/// Scratch registers.
pub(super) const COUNT: usize = 3;

/// What a scratch register holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Held {
    #[default]
    Nothing,
    /// A copy of this spilled guest register.
    Guest(u8),
    /// A checked address.
    Group(Group),
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    host: u8,
    held: Held,
    used: u32,
    /// The instruction under way needs it.
    pinned: bool,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch {
    slots: [Slot; COUNT],
    clock: u32,
}

impl Scratch {
    /// Empty, of the host registers in `spilled` (three bits).
    pub(super) fn new(spilled: u16) -> Self {
        let mut slots = [Slot::default(); COUNT];
        // Downwards: the last is the first to be used.
        let hosts = (0..16).rev().filter(|r| spilled & 1 << r != 0);
        for (slot, host) in slots.iter_mut().zip(hosts) {
            slot.host = host;
        }
        Self { slots, clock: 0 }
    }

    /// The instruction is done: nothing is needed any more.
    pub(super) fn unpin(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.pinned = false);
    }

    /// A register to be overwritten, pinned: a free one, else the one unused the longest.
    pub(super) fn take(&mut self) -> Option<u8> {
        let free = |slot: &&mut Slot| !slot.pinned;
        let age = |slot: &&mut Slot| (slot.held != Held::Nothing, slot.used);
        let slot = self.slots.iter_mut().filter(free).min_by_key(age)?;
        slot.held = Held::Nothing;
        slot.pinned = true;
        Some(slot.host)
    }

    /// As [`Scratch::take`], just this one.
    pub(super) fn take_host(&mut self, host: u8) -> Option<()> {
        let slot = self.slots.iter_mut().find(|slot| slot.host == host && !slot.pinned)?;
        slot.held = Held::Nothing;
        slot.pinned = true;
        Some(())
    }

    /// Gives back what [`Scratch::take`] gave.
    pub(super) fn give(&mut self, host: u8) {
        self.slots.iter_mut().filter(|slot| slot.host == host).for_each(|slot| slot.pinned = false);
    }

    /// `host` holds `held` from now on.
    pub(super) fn hold(&mut self, host: u8, held: Held) {
        self.clock += 1;
        let clock = self.clock;
        for slot in self.slots.iter_mut().filter(|slot| slot.host == host) {
            (slot.held, slot.used) = (held, clock);
        }
    }

    /// The register that holds spilled guest register `guest`, pinned.
    pub(super) fn find_guest(&mut self, guest: u8) -> Option<u8> {
        self.clock += 1;
        let clock = self.clock;
        let slot = self.slots.iter_mut().find(|slot| slot.held == Held::Guest(guest))?;
        (slot.pinned, slot.used) = (true, clock);
        Some(slot.host)
    }

    /// The register that holds a checked address `fits` accepts, pinned.
    pub(super) fn find_group(&mut self, fits: impl Fn(&Group) -> bool) -> Option<(u8, Group)> {
        self.clock += 1;
        let clock = self.clock;
        self.slots.iter_mut().find_map(|slot| match slot.held {
            Held::Group(group) if fits(&group) => {
                (slot.pinned, slot.used) = (true, clock);
                Some((slot.host, group))
            }
            _ => None,
        })
    }

    /// Changes or drops (`None`) each checked address.
    pub(super) fn groups(&mut self, change: impl Fn(Group) -> Option<Group>) {
        for slot in &mut self.slots {
            if let Held::Group(group) = slot.held {
                slot.held = change(group).map_or(Held::Nothing, Held::Group);
            }
        }
    }

    /// Homed guest register `guest` was written elsewhere than in `but`.
    pub(super) fn stale_guest(&mut self, guest: u8, but: Option<u8>) {
        for slot in &mut self.slots {
            if slot.held == Held::Guest(guest) && Some(slot.host) != but {
                slot.held = Held::Nothing;
            }
        }
    }
}

/// The number of the highest bit set.
pub(super) fn last(mask: u16) -> u8 {
    mask.checked_ilog2().unwrap_or(0) as u8
}

/// Numbers of the bits set.
pub(super) fn bits(mask: u16) -> impl Iterator<Item = u8> {
    (0..16).filter(move |r| mask & 1 << r != 0)
}
