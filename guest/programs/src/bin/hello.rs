//! Says hello, and who it is.
#![no_std]
#![no_main]

programs::program!(main);

fn main(argument: &[u8]) -> i32 {
    let name = core::str::from_utf8(argument).unwrap_or("?");
    programs::println!(
        "hello from process {}{}{name}",
        programs::getpid(),
        if name.is_empty() { "" } else { ": " }
    );
    0
}
