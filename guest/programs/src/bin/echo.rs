//! Reads lines from the console and repeats them, until an empty one.
#![no_std]
#![no_main]

programs::program!(run);

fn run(_: &[u8]) -> i32 {
    let mut line = [0; 128];
    loop {
        match programs::read(&mut line) {
            Ok(0) | Err(_) => return 0,
            Ok(n) => programs::println!("{}", core::str::from_utf8(&line[..n]).unwrap_or("?")),
        }
    }
}
