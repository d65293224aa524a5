//! The change log's protocol as a model, all of whose interleavings are tried: one takes a right
//! away and waits, two processors use it, go to sleep and come back. It must hold as it is, and the
//! search must find each way to break it.
//!
//! The model is sequentially consistent, as the operations that it stands for are (`log.rs`, *The
//! protocol*).

use std::collections::HashSet;

/// How the protocol is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    AsItIs,
    /// A processor looks at the epoch, and then says that it is active.
    LooksFirst,
    /// The poster looks who is active, and then moves the epoch.
    PostsLast,
    /// A processor acknowledges in the middle of a use.
    AcknowledgesInUse,
    /// The attribute is set only after the change is posted.
    AttributeLast,
    /// Who waits does not catch up meanwhile.
    WaitsDeaf,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    Asleep,
    /// Has looked first (wrong order), and is about to say that it is active.
    Waking,
    /// Says that it is active; has not looked yet.
    Awake,
    Runs,
    /// Has seen that it is behind.
    Dropping,
    /// In the middle of a use of the right.
    Using,
    /// Has looked at the attribute, which let it, and enters the right.
    Filling,
    /// Is to take the right away, at this stage.
    Posting(u8),
    /// Waits until the others have acknowledged this.
    Waits(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Processor {
    step: Step,
    active: bool,
    acknowledged: u8,
    /// It may use the page without looking.
    right: bool,
    /// It has yet to take the right away from the others.
    posts: bool,
    sleeps: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    epoch: u8,
    /// Nobody may be given the right any more.
    taken: bool,
    /// Somebody has waited, and relies on that nobody has it.
    relied: bool,
    /// What the poster saw of the others' activity (wrong order).
    saw_active: [bool; 2],
    all: [Processor; 2],
}

impl World {
    fn new(posters: usize) -> Self {
        let processor = |n| Processor {
            step: Step::Asleep,
            active: false,
            acknowledged: 0,
            right: true,
            posts: n < posters,
            sleeps: 3,
        };
        Self {
            epoch: 0,
            taken: false,
            relied: false,
            saw_active: [false; 2],
            all: [processor(0), processor(1)],
        }
    }

    fn with(mut self, n: usize, change: impl FnOnce(&mut Self, usize)) -> Self {
        change(&mut self, n);
        self
    }

    fn to(self, n: usize, step: Step) -> Self {
        self.with(n, |w, n| w.all[n].step = step)
    }

    /// The worlds that one step of processor `n` leads to.
    fn steps(self, n: usize, v: Variant) -> Vec<Self> {
        let me = self.all[n];
        let behind = me.acknowledged != self.epoch;
        match me.step {
            Step::Asleep if me.sleeps == 0 => vec![],
            Step::Asleep if v == Variant::LooksFirst => {
                vec![self.to(n, if behind { Step::Dropping } else { Step::Waking })]
            }
            Step::Asleep | Step::Waking => {
                let next = if me.step == Step::Waking { Step::Runs } else { Step::Awake };
                vec![self.to(n, next).with(n, |w, n| w.all[n].active = true)]
            }
            Step::Awake => vec![self.to(n, if behind { Step::Dropping } else { Step::Runs })],
            Step::Runs => {
                let mut next = vec![];
                if me.right {
                    next.push(self.to(n, Step::Using));
                } else if !self.taken {
                    next.push(self.to(n, Step::Filling));
                }
                if behind {
                    next.push(self.to(n, Step::Dropping));
                }
                if me.posts {
                    next.push(self.to(n, Step::Posting(0)));
                }
                next.push(self.to(n, Step::Asleep).with(n, |w, n| {
                    w.all[n].active = false;
                    w.all[n].sleeps -= 1;
                }));
                next
            }
            Step::Using if behind && v == Variant::AcknowledgesInUse => {
                vec![self.dropped(n), self.to(n, Step::Runs)]
            }
            Step::Using => vec![self.to(n, Step::Runs)],
            Step::Filling => vec![self.to(n, Step::Runs).with(n, |w, n| w.all[n].right = true)],
            Step::Dropping if v == Variant::LooksFirst && !me.active => {
                vec![self.dropped(n).to(n, Step::Waking)]
            }
            Step::Dropping => vec![self.dropped(n).to(n, Step::Runs)],
            Step::Posting(stage) => vec![self.post(n, stage, v)],
            Step::Waits(epoch) => {
                let other = self.all[1 - n];
                let active =
                    if v == Variant::PostsLast { self.saw_active[n] } else { other.active };
                let mut next = vec![];
                if !active || other.acknowledged >= epoch {
                    next.push(self.to(n, Step::Runs).with(n, |w, _| w.relied = true));
                }
                if behind && v != Variant::WaitsDeaf {
                    next.push(self.dropped(n));
                }
                next
            }
        }
    }

    /// Processor `n` has dropped the right and acknowledged.
    fn dropped(self, n: usize) -> Self {
        self.with(n, |w, n| {
            w.all[n].right = false;
            w.all[n].acknowledged = w.epoch;
        })
    }

    /// Takes the right away from everybody: its own, by the attribute, by the epoch; then waits.
    fn post(self, n: usize, stage: u8, v: Variant) -> Self {
        let epoch_at = if v == Variant::AttributeLast { 1 } else { 2 };
        let next = if stage == 3 { Step::Waits(self.epoch) } else { Step::Posting(stage + 1) };
        self.to(n, next).with(n, |w, n| match stage {
            0 => {
                w.all[n].right = false;
                w.all[n].posts = false;
                w.saw_active[n] = w.all[1 - n].active;
            }
            stage if stage == epoch_at => {
                if w.all[n].acknowledged == w.epoch {
                    w.all[n].acknowledged += 1;
                }
                w.epoch += 1;
            }
            1 | 2 => w.taken = true,
            _ => {}
        })
    }

    fn is_wrong(&self) -> bool {
        self.relied && self.all.iter().any(|p| p.step == Step::Using)
    }

    fn waits(&self) -> bool {
        self.all.iter().any(|p| matches!(p.step, Step::Waits(_)))
    }
}

/// What the search finds: a world where a right is used that was taken, or one where somebody waits
/// for ever.
fn search(posters: usize, v: Variant) -> Option<World> {
    let mut seen = HashSet::new();
    let mut open = vec![World::new(posters)];
    while let Some(world) = open.pop() {
        if world.is_wrong() {
            return Some(world);
        }
        if !seen.insert(world) {
            continue;
        }
        let next: Vec<_> = (0..2).flat_map(|n| world.steps(n, v)).collect();
        if next.is_empty() && world.waits() {
            return Some(world);
        }
        open.extend(next);
    }
    assert!(seen.len() > 100, "{} worlds: the model does nothing", seen.len());
    None
}

#[test]
fn no_interleaving_uses_what_was_taken_and_none_deadlocks() {
    for posters in [1, 2] {
        assert_eq!(search(posters, Variant::AsItIs), None);
    }
}

#[test]
fn every_step_of_the_protocol_is_needed() {
    use Variant::{AcknowledgesInUse, AttributeLast, LooksFirst, PostsLast, WaitsDeaf};
    for broken in [LooksFirst, PostsLast, AcknowledgesInUse, AttributeLast, WaitsDeaf] {
        assert!(search(2, broken).is_some(), "{broken:?} is not found to be wrong");
    }
}
