//! Cases from a seed.
//!
//! Most cases are one instruction of the catalog with random operands; the catalog is walked in
//! turn, so that every encoding comes up. Others are blocks of 2 to 8 instructions with branches,
//! faults and self-modification ([`block`]), instructions with random prefixes or flipped bits, and
//! random bytes. The same seed and options give the same cases on every host with the same features
//! and vendor.

pub(crate) mod block;
mod catalog;
mod edges;
mod filter;
mod operands;
mod sixteen;
mod values;

pub(crate) use catalog::is_amd;
pub use catalog::{Features, catalog};
pub(crate) use filter::{Filter, excluded};

use crate::case::{Case, layout};
use crate::derive::TEMPLATES;
use iced_x86::{Code, Encoder, FlowControl, Instruction};
use test_support::Rng;

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
    /// Percentage of single instructions and byte strings that are 32-bit code, of which every
    /// third is 16-bit where the host runs it.
    pub compatible: u64,
    /// Instructions that read flags which an earlier one leaves undefined may follow it.
    pub undefined_flags: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            features: Features::v3(),
            only: None,
            blocks: 30,
            noise: 2,
            compatible: 12,
            undefined_flags: false,
        }
    }
}

/// An endless source of cases.
pub struct Generator {
    rng: Rng,
    options: Options,
    /// 64-bit mode, and compatibility mode with 32 and 16 bits.
    modes: [Mode; 3],
    groups: Vec<Vec<Code>>,
    drawn: u64,
    filter: Filter,
}

/// The encodings of one mode, and how far the generator has got with them.
struct Mode {
    bits: u32,
    codes: Vec<Code>,
    counts: Vec<u64>,
    turn: usize,
    encoder: Encoder,
}

impl Mode {
    fn new(bits: u32, options: &Options) -> Self {
        let wanted = options.only.as_ref().map(|m| m.to_ascii_lowercase());
        let mut codes = catalog(&options.features, bits);
        if let Some(wanted) = wanted {
            codes.retain(|c| format!("{:?}", c.mnemonic()).to_ascii_lowercase() == wanted);
        }
        Self { bits, counts: vec![0; codes.len()], codes, turn: 0, encoder: Encoder::new(bits) }
    }
}

impl Generator {
    /// A generator of the cases that belong to `seed`. It gives nothing but empty cases if
    /// `options.only` names no instruction of the catalog; see [`Generator::encodings`].
    pub fn new(seed: u64, options: Options) -> Self {
        let modes = [64, 32, 16].map(|bits| Mode::new(bits, &options));
        Self {
            rng: Rng::new(seed),
            filter: Filter::new(options.features.clone()),
            options,
            groups: block::groups(&modes[0].codes),
            modes,
            drawn: 0,
        }
    }

    /// How many encodings may be generated, those of either mode counted.
    pub fn encodings(&self) -> usize {
        self.modes.iter().map(|m| m.codes.len()).sum()
    }

    /// Encodings generated as single instructions so far, with the mode's bits and the number of
    /// cases.
    pub fn coverage(&self) -> impl Iterator<Item = (u32, Code, u64)> + '_ {
        self.modes.iter().flat_map(|m| {
            let all = m.codes.iter().copied().zip(m.counts.iter().copied());
            all.map(|(code, count)| (m.bits, code, count))
        })
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
        let compatible = usize::from(self.rng.chance(self.options.compatible));
        let sixteen = !self.modes[2].codes.is_empty() && self.rng.chance(33);
        let mode = compatible * (1 + usize::from(sixteen));
        if !alone && kind < self.options.noise {
            return self.noise(mode);
        }
        if !alone && kind < self.options.noise + self.options.blocks {
            return block::generate(self);
        }
        self.single(mode)
    }

    /// One instruction of a mode's catalog, the next in turn.
    fn single(&mut self, mode: usize) -> Case {
        for _ in 0..self.modes[mode].codes.len() {
            let at = &mut self.modes[mode];
            let place = at.turn % at.codes.len();
            let code = at.codes[place];
            at.turn += 1;
            for _ in 0..16 {
                let mut case = values::state(&mut self.rng);
                if let Some(bytes) = self.one_instruction(&mut case, mode, code) {
                    case.set_code(&bytes);
                    if self.filter.admits(&case) {
                        self.modes[mode].counts[place] += 1;
                        return case;
                    }
                }
            }
        }
        Case::with_code(&[])
    }

    fn one_instruction(&mut self, case: &mut Case, mode: usize, code: Code) -> Option<Vec<u8>> {
        let rng = &mut self.rng;
        let mode = &mut self.modes[mode];
        let compatible = mode.bits != 64;
        values::place_code(rng, case);
        let style = match mode.bits {
            16 => operands::Style::Sixteen,
            32 => operands::Style::Compatible,
            _ => operands::Style::Single,
        };
        let instruction = operands::fill(rng, case, code, style)?;
        let bytes = encode(&mut mode.encoder, &instruction, case.rip())?;
        edges::aim(rng, case, &instruction, bytes.len());
        if mode.bits == 16 {
            sixteen::strings(case, &instruction);
        }
        if compatible {
            case.make_compatible(mode.bits as u8);
        }
        // A branch to itself would never end.
        let own = case.rip()..case.rip() + bytes.len() as u64;
        let endless = own.contains(&instruction.near_branch_target());
        if branches(instruction.flow_control()) && (endless || !rng.chance(20)) {
            case.rflags |= 0x100;
        }
        Some(mangle(rng, bytes, !compatible))
    }

    /// Random bytes: what the decoder makes of nonsense.
    fn noise(&mut self, mode: usize) -> Case {
        loop {
            let mut case = values::state(&mut self.rng);
            if mode != 0 {
                case.make_compatible(self.modes[mode].bits as u8);
            }
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
fn mangle(rng: &mut Rng, mut bytes: Vec<u8>, rex: bool) -> Vec<u8> {
    const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0xf0];
    match rng.below(100) {
        0..8 => {
            for _ in 0..=rng.below(2) {
                bytes.insert(0, rng.pick(&PREFIXES));
            }
        }
        8..11 if rex => {
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
