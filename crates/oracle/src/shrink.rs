//! Making a mismatching case small: greedy removal of everything that the mismatch does not need.

use crate::case::Case;
use iced_x86::{Decoder, DecoderOptions};

/// A small case for which `mismatches` still holds; `case` itself must mismatch.
///
/// Instructions are dropped (or become NOPs, where removal would move branch targets), then
/// registers, flags, control words and vector registers go back to their defaults. Repeats until
/// nothing changes.
pub fn shrink(case: &Case, mut mismatches: impl FnMut(&Case) -> bool) -> Case {
    let mut best = *case;
    loop {
        let before = best;
        for candidate in code_candidates(&best) {
            if candidate != best && mismatches(&candidate) {
                best = candidate;
                break;
            }
        }
        for simplify in SIMPLIFICATIONS {
            for n in 0..16 {
                let mut candidate = best;
                simplify(&mut candidate, n);
                if candidate != best && mismatches(&candidate) {
                    best = candidate;
                }
            }
        }
        if best == before {
            return best;
        }
    }
}

/// Steps towards the default state; the number selects a register where there are several.
const SIMPLIFICATIONS: [fn(&mut Case, usize); 13] = [
    |c, n| c.gpr[n] = 0,
    |c, n| c.gpr[n] &= 0xff,
    |c, _| c.rflags = 0x202 | (c.rflags & 0x100),
    |c, n| c.rflags &= !(1 << n) | 0x202,
    |c, _| c.mxcsr = 0x1f80,
    |c, _| (c.fcw, c.fsw) = (0x37f, 0),
    |c, _| c.ftw = 0,
    |c, _| c.fs_base = 0,
    |c, _| c.gs_base = 0,
    |c, _| (c.ymm_keep, c.st_keep) = (0, 0),
    |c, n| c.ymm_keep &= !(1 << n),
    |c, n| c.st_keep &= !(1 << (n % 8)),
    |c, _| c.seed &= !15,
];

/// The same case with fewer instructions, the smallest first.
fn code_candidates(case: &Case) -> Vec<Case> {
    let code = case.code();
    let mut decoder = Decoder::new(case.bits(), code, DecoderOptions::NONE);
    let mut bounds = vec![0];
    while decoder.can_decode() {
        let _ = decoder.decode();
        bounds.push(decoder.position());
    }
    let with = |bytes: &[u8]| {
        let mut candidate = *case;
        candidate.set_code(bytes);
        candidate
    };
    let mut all = Vec::new();
    for pair in bounds.windows(2) {
        // Everything from here on, everything up to here, without this one, this one as NOPs.
        all.push(with(&code[..pair[0]]));
        all.push(with(&code[pair[1]..]));
        all.push(with(&[&code[..pair[0]], &code[pair[1]..]].concat()));
        let mut nops = code.to_vec();
        nops[pair[0]..pair[1]].fill(0x90);
        all.push(with(&nops));
    }
    let mut middle = *case;
    middle.code_offset = 0x800;
    all.push(middle);
    all.retain(|c| c.code_len != 0);
    all.sort_by_key(|c| (c.code_len, std::cmp::Reverse(nop_count(c))));
    all
}

fn nop_count(case: &Case) -> usize {
    case.code().iter().filter(|b| **b == 0x90).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left() {
        // nop; add rax, rbx; inc rcx; xor rdx, rdx. The defect: ADD with RBX = 0x55.
        let code = [0x90, 0x48, 0x01, 0xd8, 0x48, 0xff, 0xc1, 0x48, 0x31, 0xd2];
        let mut case =
            Case { gpr: [0x55; 16], seed: 0xabc, rflags: 0xad7, ..Case::with_code(&code) };
        case.gpr[3] = 0x55;
        let wrong =
            |c: &Case| c.gpr[3] == 0x55 && c.code().windows(3).any(|w| w == [0x48, 0x01, 0xd8]);
        let small = shrink(&case, wrong);
        assert_eq!(small.code(), [0x48, 0x01, 0xd8]);
        let mut expected = Case { ymm_keep: 0, st_keep: 0, seed: 0xab0, ..Case::default() };
        expected.set_code(&[0x48, 0x01, 0xd8]);
        expected.gpr[3] = 0x55;
        assert_eq!(small, expected);
    }
}
