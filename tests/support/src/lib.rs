//! What tests of several crates share: random numbers, settings from the environment, the program
//! under test.
#![forbid(unsafe_code)]

mod program;
mod random;

pub use program::gemello;
pub use random::Rng;

/// The number in the environment variable `name`, if there is one.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}
