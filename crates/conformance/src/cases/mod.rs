//! All cases, by topic.

// In a table of code, `|a| a.hlt()` reads like its neighbours; a path to the method does not.
#![allow(clippy::redundant_closure_for_method_calls)]

mod caches;
mod debug;
mod features;
mod flags;
mod hypercalls;
mod interrupts;
mod modes;
mod operands;
mod pages;
mod paging;
mod privilege;
mod segments;
mod strings;
mod syscalls;
mod tasks;
mod tlb;

use crate::Case;
use crate::guest::Guest;
use std::sync::LazyLock;

/// Every case.
pub fn cases() -> &'static [Case] {
    static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let groups = [
            modes::CASES,
            paging::CASES,
            tlb::CASES,
            operands::CASES,
            pages::CASES,
            caches::CASES,
            segments::CASES,
            strings::CASES,
            interrupts::CASES,
            tasks::CASES,
            syscalls::CASES,
            privilege::CASES,
            debug::CASES,
            features::CASES,
            flags::CASES,
            hypercalls::CASES,
        ];
        groups.concat()
    });
    &ALL
}

/// One row of a table.
const fn case(name: &'static str, cite: &'static str, build: fn(&mut Guest)) -> Case {
    Case { name, cite, build }
}
