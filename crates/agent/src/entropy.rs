//! The kernel's random numbers, where several guests begin as copies of one.

use agent_job::Seed;
use anyhow::{Context as _, Result};
use rustix::ioctl::{NoArg, ioctl, opcode};
use std::fs::File;
use std::io::Write as _;

const RANDOM: &str = "/dev/urandom";

/// `RNDRESEEDCRNG` (random(4), linux/random.h): what is in the pool counts from now on.
const RESEED: rustix::ioctl::Opcode = opcode::none(b'R', 7);

/// Makes this kernel's random numbers others than those of its copies, from here on.
pub(crate) fn add(Seed(bytes): &Seed) -> Result<()> {
    let mut pool = File::options().write(true).open(RANDOM).context("cannot open it")?;
    pool.write_all(bytes).context("cannot write to it")?;
    reseed(&pool)
}

#[allow(unsafe_code)]
fn reseed(pool: &File) -> Result<()> {
    // SAFETY: this number has no argument, so the kernel touches no memory of this process.
    let done = unsafe { ioctl(pool, NoArg::<RESEED>::new()) };
    done.context("cannot have it taken")
}
