//! Counts the primes below a number (10000), by division.
#![no_std]
#![no_main]

programs::program!(run);

fn run(argument: &[u8]) -> i32 {
    let end = programs::number(argument, 0).unwrap_or(10_000);
    let is_prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    let count = (2..end).filter(is_prime).count();
    programs::println!("process {}: {count} primes below {end}", programs::getpid());
    0
}
