//! Cases from a seed.
//!
//! Most cases are one instruction of the catalog with random operands; the catalog is walked in turn, so that every
//! encoding comes up. Others are blocks of 2 to 8 instructions with branches, faults and self-modification
//! ([`block`]), instructions with random prefixes or flipped bits, and random bytes.
//! The same seed and options give the same cases on every host with the same features and vendor.

mod block;
mod catalog;
mod filter;
mod operands;
mod values;

pub(crate) use catalog::is_amd;
pub use catalog::{Features, catalog};
pub(crate) use filter::{Filter, excluded};

use crate::case::{Case, layout};
use crate::derive::TEMPLATES;
use crate::prng::Rng;
use iced_x86::{Code, Encoder, FlowControl, Instruction};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Processor features that may be used.
    pub features: Features,
    /// Only instructions of this mnemonic (in any case), and no blocks.
    pub only: Option<String>,
    /// Percentage of blocks.
    pub blocks: u64,
    /// Percentage of random byte strings.
    pub noise: u64,
    /// Instructions that read flags which an earlier one leaves undefined may follow it.
    pub undefined_flags: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { features: Features::v3(), only: None, blocks: 30, noise: 2, undefined_flags: false }
    }
}

/// An endless source of cases.
pub struct Generator {
    rng: Rng,
    options: Options,
    codes: Vec<Code>,
    groups: Vec<Vec<Code>>,
    counts: Vec<u64>,
    turn: usize,
    drawn: u64,
    filter: Filter,
    encoder: Encoder,
}

impl Generator {
    /// A generator of the cases that belong to `seed`. It gives nothing but empty cases if `options.only` names
    /// no instruction of the catalog; see [`Generator::encodings`].
    pub fn new(seed: u64, options: Options) -> Self {
        let wanted = options.only.as_ref().map(|m| m.to_ascii_lowercase());
        let mut codes = catalog(&options.features);
        if let Some(wanted) = wanted {
            codes.retain(|c| format!("{:?}", c.mnemonic()).to_ascii_lowercase() == wanted);
        }
        let groups = block::groups(&codes);
        Self {
            rng: Rng::new(seed),
            counts: vec![0; codes.len()],
            filter: Filter::new(options.features.clone()),
            options,
            codes,
            groups,
            turn: 0,
            drawn: 0,
            encoder: Encoder::new(64),
        }
    }

    /// Encodings that may be generated.
    pub fn encodings(&self) -> &[Code] {
        &self.codes
    }

    /// Encodings generated as single instructions so far, with the number of cases.
    pub fn coverage(&self) -> impl Iterator<Item = (Code, u64)> + '_ {
        self.codes.iter().copied().zip(self.counts.iter().copied())
    }

    /// The next case.
    pub fn next_case(&mut self) -> Case {
        // Runs of cases share a memory template, so that runners seldom have to refill memory.
        let template = self.drawn / 256 % TEMPLATES as u64;
        self.drawn += 1;
        let mut case = self.draw();
        case.seed = case.seed & !(TEMPLATES as u64 - 1) | template;
        case
    }

    fn draw(&mut self) -> Case {
        let kind = self.rng.below(100);
        let alone = self.options.only.is_some();
        if !alone && kind < self.options.noise {
            return self.noise();
        }
        if !alone && kind < self.options.noise + self.options.blocks {
            return block::generate(self);
        }
        self.single()
    }

    /// One instruction of the catalog, the next in turn.
    fn single(&mut self) -> Case {
        for _ in 0..self.codes.len() {
            let place = self.turn % self.codes.len();
            self.turn += 1;
            for _ in 0..16 {
                let mut case = values::state(&mut self.rng);
                if let Some(bytes) = self.one_instruction(&mut case, self.codes[place]) {
                    case.set_code(&bytes);
                    if self.filter.admits(&case) {
                        self.counts[place] += 1;
                        return case;
                    }
                }
            }
        }
        Case::with_code(&[])
    }

    fn one_instruction(&mut self, case: &mut Case, code: Code) -> Option<Vec<u8>> {
        let rng = &mut self.rng;
        values::place_code(rng, case);
        let instruction = operands::fill(rng, case, code, operands::Style::Single)?;
        let bytes = encode(&mut self.encoder, &instruction, case.rip())?;
        // A branch to itself would never end.
        let own = case.rip()..case.rip() + bytes.len() as u64;
        let endless = own.contains(&instruction.near_branch_target());
        if branches(instruction.flow_control()) && (endless || !rng.chance(20)) {
            case.rflags |= 0x100;
        }
        Some(mangle(rng, bytes))
    }

    /// Random bytes: what the decoder makes of nonsense.
    fn noise(&mut self) -> Case {
        loop {
            let mut case = values::state(&mut self.rng);
            let rng = &mut self.rng;
            values::place_code(rng, &mut case);
            let len = 1 + rng.below(15) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
            if rng.chance(50) {
                bytes.insert(0, 0x0f);
            }
            if rng.chance(50) {
                bytes.insert(0, 0x40 | rng.below(16) as u8);
            }
            case.set_code(&bytes);
            case.rflags |= 0x100;
            if self.filter.admits_everywhere(&case) {
                return case;
            }
        }
    }
}

/// Whether an instruction of this kind may go somewhere else than to its successor.
fn branches(flow: FlowControl) -> bool {
    !matches!(flow, FlowControl::Next | FlowControl::Exception | FlowControl::Interrupt)
}

/// The bytes of `instruction` at `rip`, or nothing if it has no encoding.
fn encode(encoder: &mut Encoder, instruction: &Instruction, rip: u64) -> Option<Vec<u8>> {
    let len = encoder.encode(instruction, rip);
    let bytes = encoder.take_buffer();
    len.is_ok().then_some(bytes)
}

/// Sometimes adds prefixes, sometimes flips a bit, sometimes cuts.
fn mangle(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0xf0];
    match rng.below(100) {
        0..8 => {
            for _ in 0..=rng.below(2) {
                bytes.insert(0, rng.pick(&PREFIXES));
            }
        }
        8..11 => {
            let legacy = bytes.iter().take_while(|b| PREFIXES.contains(b)).count();
            bytes.insert(legacy, 0x40 | rng.below(16) as u8);
        }
        11..13 => {
            let place = rng.below(bytes.len() as u64) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << rng.below(8);
            }
        }
        _ => {}
    }
    bytes
}

/// An address that code might jump to: mostly in the code page.
fn jump_target(rng: &mut Rng, near: u64) -> u64 {
    match rng.below(10) {
        0..6 => near.wrapping_add(rng.below(100)).wrapping_sub(30),
        6 | 7 => layout::CODE + rng.below(layout::CODE_SIZE),
        8 => layout::ARENA + rng.below(layout::ARENA_SIZE),
        _ => layout::CODE.wrapping_sub(rng.below(300)),
    }
}

#[cfg(test)]
mod tests;
