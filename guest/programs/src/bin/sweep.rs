//! Works on more memory than there may be: so many pages, so many passes, in an order that jumps
//! about. Every page has contents of its own, which the next pass checks and changes.
#![no_std]
#![no_main]

use programs::abi::rights;

programs::program!(run);

const WORDS: usize = 512;

fn word(page: u64, pass: u64, index: usize, seed: u64) -> u64 {
    (page << 32 | pass << 16 | index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed
}

fn run(argument: &[u8]) -> i32 {
    let pages = programs::number(argument, 0).unwrap_or(256);
    let passes = programs::number(argument, 1).unwrap_or(3);
    let seed = programs::getpid();
    let Ok(memory) = programs::map(pages * 4096, rights::WRITE) else { return 2 };
    for pass in 0..passes {
        for i in 0..pages {
            let page = (i * 37 + pass) % pages; // every page once if 37 does not divide `pages`
            // SAFETY: the mapping has just been made, `page` lies in it.
            let words = unsafe {
                core::slice::from_raw_parts_mut(
                    memory.cast::<u64>().add(page as usize * WORDS),
                    WORDS,
                )
            };
            for (index, content) in words.iter_mut().enumerate() {
                let expected = if pass == 0 { 0 } else { word(page, pass - 1, index, seed) };
                if *content != expected {
                    programs::println!(
                        "sweep: page {page} word {index} pass {pass}: {content:#x}, not \
                         {expected:#x}"
                    );
                    return 1;
                }
                *content = word(page, pass, index, seed);
            }
        }
    }
    0
}
