//! Programs: ELF64 images (System V ABI, chapter 4), embedded in the nucleus, mapped page by page
//! when touched.

use crate::physical::{PAGE, u32_at, u64_at};
use crate::process::{Region, Source};
use crate::programs::PROGRAMS;
use alloc::vec::Vec;

const PT_LOAD: u32 = 1;
const EXECUTE: u32 = 1;
const WRITE: u32 = 2;

/// A program's first instruction and its regions.
pub fn regions(program: usize) -> Option<(u64, Vec<Region>)> {
    let image = PROGRAMS.get(program)?.image;
    let entry = u64_at(image, 24)?;
    let headers = u64_at(image, 32)? as usize;
    let count = u32_at(image, 56)? & 0xFFFF;
    let mut regions = Vec::new();
    for i in 0..count as usize {
        let header = image.get(headers + i * 56..)?;
        let (flags, memory) = (u32_at(header, 4)?, u64_at(header, 40)?);
        if u32_at(header, 0)? != PT_LOAD || memory == 0 {
            continue;
        }
        let (address, offset, file) =
            (u64_at(header, 16)?, u64_at(header, 8)?, u64_at(header, 32)?);
        let (write, execute) = (flags & WRITE != 0, flags & EXECUTE != 0);
        regions.push(Region {
            start: address & !(PAGE - 1),
            end: (address + memory).next_multiple_of(PAGE),
            write,
            execute,
            source: Source::Image { program, offset, file, address },
            name: if execute {
                "text"
            } else if write {
                "data"
            } else {
                "constants"
            },
        });
    }
    Some((entry, regions))
}
