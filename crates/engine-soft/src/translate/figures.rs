//! Counters for `--stats`: why translated code was left, and what translation cost.
//!
//! Translated code itself counts no exits: each exit has a number already, and its meaning is noted
//! when it is made.

use super::append::AppendOnly;
use super::flow::Class;
use super::generation::Site;
use super::insn::GuestInsn;
use super::site::{Cause, ExitSite};
use iced_x86::Mnemonic;
use std::collections::HashMap;
use std::time::Duration;
use vcpu::Translator as Statistics;

/// Instructions named that are left to the interpreter.
const NAMED: usize = 10;
/// Nanoseconds of a bucket, and how many buckets there are.
const BUCKET: u64 = 10;
const BUCKETS: usize = 512;

/// See the module.
#[derive(Default)]
pub(super) struct Figures {
    /// For each exit of the generation at hand that was taken: why, and how often.
    exits: Vec<(Option<Cause>, u64)>,
    sums: Statistics,
    left: HashMap<Mnemonic, u64>,
    /// Guest instructions by the time that translating each took.
    buckets: Vec<u64>,
}

impl Figures {
    /// Exit number `site` of `sites` was taken.
    #[inline]
    pub(super) fn exit(&mut self, site: u32, sites: &AppendOnly<Site>) {
        match self.exits.get_mut(site as usize) {
            Some((Some(_), count)) => *count += 1,
            _ => self.first_exit(site, sites),
        }
    }

    #[cold]
    fn first_exit(&mut self, site: u32, sites: &AppendOnly<Site>) {
        let Some(cause) = sites.get(site).map(|site| site.cause) else { return };
        if self.exits.len() <= site as usize {
            self.exits.resize((site as usize + 1).next_power_of_two(), (None, 0));
        }
        self.exits[site as usize] = (Some(cause), 1);
    }

    /// Whether exit number `site` counts as a direct jump that is not linked yet.
    pub(super) fn is_unlinked(&self, site: u32) -> bool {
        self.exits.get(site as usize).is_some_and(|exit| exit.0 == Some(Cause::Unlinked))
    }

    /// Exit number `site`, of a direct jump, leads to what is left to the interpreter and begins
    /// with `mnemonic`.
    pub(super) fn interprets(&mut self, site: u32, mnemonic: Mnemonic) {
        let Some((cause, count)) = self.exits.get_mut(site as usize) else { return };
        let before = cause.replace(Cause::Left(mnemonic));
        add(&mut self.sums, &mut self.left, before, std::mem::take(count));
    }

    /// Translated code was left by a host fault: it was told to stop, or an instruction faulted.
    pub(super) fn fault(&mut self, told: bool) {
        *(if told { &mut self.sums.stopped } else { &mut self.sums.faults }) += 1;
    }

    /// A translation of `instructions` was made.
    pub(super) fn translated(&mut self, instructions: usize, time: Duration) {
        let count = instructions as u64;
        let each = time.as_nanos() as u64 / count.max(1) / BUCKET;
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        self.buckets[(each as usize).min(BUCKETS - 1)] += count;
        self.sums.instructions += count;
        self.sums.time += time;
    }

    /// All translations are dropped.
    pub(super) fn dropped(&mut self) {
        let exits = std::mem::take(&mut self.exits);
        for (cause, count) in exits.into_iter().filter(|exit| exit.1 != 0) {
            add(&mut self.sums, &mut self.left, cause, count);
        }
        self.sums.flushes += 1;
    }

    /// The figures up to now.
    pub(super) fn statistics(&self) -> Statistics {
        let (mut sums, mut left) = (self.sums.clone(), self.left.clone());
        for &(cause, count) in self.exits.iter().filter(|exit| exit.1 != 0) {
            add(&mut sums, &mut left, cause, count);
        }
        let mut named: Vec<_> =
            left.into_iter().map(|(m, count)| (format!("{m:?}").to_uppercase(), count)).collect();
        named.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        named.truncate(NAMED);
        sums.left_to_interpreter = named;
        sums.median = self.median();
        sums
    }

    fn median(&self) -> Duration {
        let half = self.sums.instructions.div_ceil(2);
        let mut seen = 0;
        let reached = |&count: &u64| {
            seen += count;
            seen >= half
        };
        let bucket = self.buckets.iter().position(reached).unwrap_or(0) as u64;
        Duration::from_nanos(bucket * BUCKET + BUCKET / 2)
    }
}

fn add(sums: &mut Statistics, left: &mut HashMap<Mnemonic, u64>, cause: Option<Cause>, count: u64) {
    match cause {
        Some(Cause::Miss) => sums.tlb_misses += count,
        Some(Cause::Unlinked) => sums.unlinked += count,
        Some(Cause::Target) => sums.unknown_targets += count,
        Some(Cause::Dead) => sums.dead += count,
        Some(Cause::Left(mnemonic)) => {
            sums.left += count;
            *left.entry(mnemonic).or_default() += count;
        }
        None => {}
    }
}

/// What each of `sites` means, which translate `guest`.
pub(super) fn causes(guest: &[GuestInsn], sites: &[ExitSite]) -> Vec<Cause> {
    (0..).zip(sites).map(|(n, site)| cause(guest, site, &sites[n + 1..])).collect()
}

/// What an exit means, from the instruction it belongs to and the exits behind it.
fn cause(guest: &[GuestInsn], site: &ExitSite, behind: &[ExitSite]) -> Cause {
    let delta = match *site {
        ExitSite::Link { .. } | ExitSite::CrossPage { .. } => return Cause::Unlinked,
        ExitSite::Target { .. } => return Cause::Target,
        ExitSite::Dead { .. } => return Cause::Dead,
        ExitSite::Check { .. } => return Cause::Miss,
        ExitSite::Interpret { delta, .. } => delta,
    };
    let Some(g) = guest.iter().find(|g| g.delta == delta) else { return Cause::Miss };
    // The last exit of a branch is the one at which its target is not known.
    let last =
        !behind.iter().any(|s| matches!(s, ExitSite::Interpret { delta: d, .. } if *d == delta));
    match g.class {
        Class::Return(_)
        | Class::JumpRegister
        | Class::JumpMemory
        | Class::CallRegister
        | Class::CallMemory
            if last =>
        {
            Cause::Target
        }
        Class::Other | Class::Repeat(_) | Class::Bit(_) | Class::Pause | Class::Sti => {
            Cause::Left(g.i.mnemonic())
        }
        Class::Memory(_) if g.usage.high_byte => Cause::Left(g.i.mnemonic()),
        _ => Cause::Miss,
    }
}
