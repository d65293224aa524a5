//! One test case: code, and the state it starts from.
//!
//! The struct is plain data with a fixed layout, because it travels to the native child through
//! shared memory. What it does not carry (vector and x87 registers, memory) follows from `seed`;
//! see [`crate::Registers`] and [`crate::Template`].

use crate::outcome::Change;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};
use test_support::Rng;

/// Where things are, in the child and in the engine alike. All but the alias lies below 2 GiB, so
/// that 32-bit displacements, RIP-relative operands and the 67 prefix reach it. Everything else is
/// absent in an engine.
pub mod layout {
    /// Page size.
    pub const PAGE: u64 = 0x1000;
    /// The code page: readable, writable, executable, a guard page on either side.
    pub const CODE: u64 = 0x2000_0000;
    /// Bytes of code page.
    pub const CODE_SIZE: u64 = PAGE;
    /// The data arena: readable and writable, not executable, guard page below.
    pub const ARENA: u64 = 0x2001_0000;
    /// Bytes of data arena.
    pub const ARENA_SIZE: u64 = 2 * PAGE;
    /// A page that only reads, right above the arena; a guard page follows.
    pub const READ_ONLY: u64 = ARENA + ARENA_SIZE;
    /// Bytes of it.
    pub const READ_ONLY_SIZE: u64 = PAGE;
    /// The stack page: readable and writable, not executable, a guard page on either side.
    pub const STACK: u64 = 0x2002_0000;
    /// Bytes of stack.
    pub const STACK_SIZE: u64 = PAGE;
    /// The arena once more, its two pages on either side of 4 GiB, a guard page on either side:
    /// there is memory both where a 32-bit address ends and where it would go on.
    pub const ALIAS: u64 = 0x1_0000_0000 - PAGE;
    /// 4 GiB.
    pub const END_32: u64 = 0x1_0000_0000;
    /// The user code and stack selectors, which are Linux's.
    pub const USER_CS: u16 = 0x33;
    /// See [`USER_CS`]: 32-bit code.
    pub const USER_CS_32: u16 = 0x23;
    /// See [`USER_CS`]; 32-bit code has it in DS, ES, FS and GS, too.
    pub const USER_SS: u16 = 0x2b;
    /// 16-bit code, by a local descriptor whose base is [`CODE`], so that IP is an offset in the
    /// code page.
    pub const USER_CS_16: u16 = 0x07;
    /// What such code has in DS, ES, FS and GS, a local descriptor of 4 GiB from [`DATA_16_BASE`]
    /// on; SS is [`USER_SS`].
    pub const USER_DATA_16: u16 = 0x0f;
    /// The first of the arena's pages is the last that 16-bit offsets reach; the second follows.
    pub const DATA_16_BASE: u64 = ARENA + PAGE - 0x1_0000;
    /// Bytes of the code segment of 16-bit code.
    pub const CODE_LIMIT_16: u64 = 0x1_0000;
    /// The base of `segment` in 16-bit code.
    pub(crate) fn base_16(segment: iced_x86::Register) -> u64 {
        match segment {
            iced_x86::Register::CS => CODE,
            iced_x86::Register::SS => 0,
            _ => DATA_16_BASE,
        }
    }
    /// The byte that fills the code page around the code: INT3.
    pub const FILL: u8 = 0xcc;
}

/// Code and the state it starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Case {
    /// General registers in encoding order.
    pub gpr: [u64; 16],
    /// RFLAGS. Status flags, DF, AC and TF are loaded; the rest is as a Linux user sees it (0x202).
    pub rflags: u64,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// Vector and x87 registers and memory follow from this.
    pub seed: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// Bit n: YMMn is as the seed says; otherwise zero.
    pub ymm_keep: u16,
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word, ES and B consistent with the control word.
    pub fsw: u16,
    /// Offset of the code in its page.
    pub code_offset: u16,
    /// Abridged x87 tag word: bit n set if physical register n is in use.
    pub ftw: u8,
    /// Bit n: ST(n) is as the seed says; otherwise zero.
    pub st_keep: u8,
    /// Bytes of `code` that count.
    pub code_len: u8,
    /// Code segment width: 64, 32 for compatibility mode with flat segments, or 16 with segments of
    /// [`layout::DATA_16_BASE`].
    pub bitness: u8,
    /// The code. What lies beyond `code_len` is zero and is not placed.
    pub code: [u8; 64],
}

impl Default for Case {
    fn default() -> Self {
        Self {
            gpr: [0; 16],
            rflags: 0x202,
            fs_base: 0,
            gs_base: 0,
            seed: 0,
            mxcsr: 0x1f80,
            ymm_keep: u16::MAX,
            fcw: 0x37f,
            fsw: 0,
            code_offset: 0x800,
            ftw: 0,
            st_keep: u8::MAX,
            code_len: 0,
            bitness: 64,
            code: [0; 64],
        }
    }
}

/// Why a replay token was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not pairs of hexadecimal digits.
    #[error("a replay token is hexadecimal; this one is not: copy the whole word after --replay")]
    NotHex,
    /// Ends early, or is of another version of the format.
    #[error(
        "the replay token is truncated or of another version: copy the whole word after --replay"
    )]
    Malformed,
}

impl Case {
    /// A case with `code` at the default offset and the stack pointer in the middle of the stack,
    /// all else default. Bytes beyond 64 are dropped.
    pub fn with_code(code: &[u8]) -> Self {
        let mut case = Self::default();
        case.set_code(code);
        case.gpr[4] = layout::STACK + layout::STACK_SIZE / 2;
        case
    }

    /// Replaces the code. Bytes beyond 64 are dropped.
    pub fn set_code(&mut self, code: &[u8]) {
        let len = code.len().min(64);
        self.code = [0; 64];
        self.code[..len].copy_from_slice(&code[..len]);
        self.code_len = len as u8;
    }

    /// Code segment width, 16, 32 or 64.
    pub const fn bits(&self) -> u32 {
        match self.bitness {
            16 => 16,
            32 => 32,
            _ => 64,
        }
    }

    /// Base of the code segment.
    pub const fn code_base(&self) -> u64 {
        if self.bitness == 16 { layout::CODE } else { 0 }
    }

    /// Makes this a case of compatibility mode with code of 16 or 32 `bits`: registers are cut to
    /// what such code has.
    pub fn make_compatible(&mut self, bits: u8) {
        self.bitness = bits;
        self.gpr.iter_mut().for_each(|r| *r &= 0xffff_ffff);
        self.gpr[8..].fill(0);
        (self.fs_base, self.gs_base) = (0, 0);
    }

    /// The code bytes that count: cut off at the end of the page.
    pub fn code(&self) -> &[u8] {
        let room = (layout::CODE_SIZE as usize).saturating_sub(self.offset());
        &self.code[..usize::from(self.code_len).min(64).min(room)]
    }

    /// The code's offset in its page, always inside it.
    pub fn offset(&self) -> usize {
        usize::from(self.code_offset) % layout::CODE_SIZE as usize
    }

    /// The address of the first instruction.
    pub fn rip(&self) -> u64 {
        layout::CODE + self.offset() as u64
    }

    /// A stream of random numbers for the part of the state called `purpose`.
    pub(crate) const fn stream(&self, purpose: u64) -> Rng {
        Rng::new(self.seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The instructions in order, the last one completed by what fills the page.
    pub fn instructions(&self) -> Vec<Instruction> {
        let mut all = Vec::new();
        let mut place = 0;
        while let Some(i) = self.instruction_at(place) {
            all.push(i);
            place += i.len().max(1);
        }
        all
    }

    /// The instruction at that offset of the code, completed by what fills the page.
    fn instruction_at(&self, place: usize) -> Option<Instruction> {
        let rest = self.code().get(place..).filter(|rest| !rest.is_empty())?;
        let mut padded = [layout::FILL; 80];
        padded[..rest.len()].copy_from_slice(rest);
        let rip = self.rip() + place as u64;
        Some(Decoder::with_ip(self.bits(), &padded, rip, DecoderOptions::NONE).decode())
    }

    /// The instructions in order, and those that branches reach in the middle of them, as where a
    /// branch has been patched.
    pub(crate) fn reachable(&self) -> Vec<Instruction> {
        let mut all = self.instructions();
        let mut next = 0;
        while let Some(i) = all.get(next).copied() {
            next += 1;
            for target in [i.near_branch_target(), i.next_ip()] {
                let place = target.wrapping_sub(self.rip());
                let known = all.iter().any(|other| other.ip() == target);
                let found = usize::try_from(place).ok().and_then(|p| self.instruction_at(p));
                all.extend(found.filter(|_| !known));
            }
        }
        all
    }

    /// The case itself, and as its own stores of immediate bytes into its code may leave it: after
    /// any of them, in any order, those included that another one has changed.
    pub(crate) fn variants(&self) -> Vec<Self> {
        const ENOUGH: usize = 32;
        let mut variants = vec![*self];
        let mut next = 0;
        while let Some(case) = variants.get(next).copied() {
            next += 1;
            for i in case.instructions() {
                let stores = i.code() == Code::Mov_rm8_imm8 && i.is_ip_rel_memory_operand();
                let place = i.ip_rel_memory_address().wrapping_sub(case.rip());
                if stores && place < case.code.len() as u64 {
                    let mut patched = case;
                    patched.patch(place as usize, i.immediate8());
                    if variants.len() < ENOUGH && !variants.contains(&patched) {
                        variants.push(patched);
                    }
                }
            }
        }
        variants
    }

    /// The case with its code as these changes left it.
    pub(crate) fn changed_by(&self, changes: &[Change]) -> Self {
        let mut changed = *self;
        for change in changes {
            for (n, byte) in change.value.to_le_bytes().into_iter().enumerate() {
                let place = change.address.0.wrapping_add(n as u64).wrapping_sub(self.rip());
                if place < self.code.len() as u64 {
                    changed.patch(place as usize, byte);
                }
            }
        }
        changed
    }

    /// Sets one byte of code; what comes to lie between is filler.
    fn patch(&mut self, place: usize, value: u8) {
        let len = usize::from(self.code_len).min(self.code.len());
        if let Some(gap) = self.code.get_mut(len..place + 1) {
            gap.fill(layout::FILL);
            self.code_len = place as u8 + 1;
        }
        self.code[place] = value;
    }

    /// The case as one hexadecimal word; [`Case::from_token`] reads it back.
    pub fn to_token(&self) -> String {
        let mut out = vec![TOKEN_VERSION, self.bitness, self.code_len];
        out.extend_from_slice(&self.code[..usize::from(self.code_len).min(64)]);
        let words = self.words();
        let present =
            words.iter().enumerate().fold(0u32, |m, (i, w)| m | (u32::from(*w != 0) << i));
        out.extend_from_slice(&present.to_le_bytes());
        for word in words.into_iter().filter(|w| *w != 0) {
            let bytes = word.to_le_bytes();
            let len = 8 - word.leading_zeros() as usize / 8;
            out.push(len as u8);
            out.extend_from_slice(&bytes[..len]);
        }
        out.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads what [`Case::to_token`] wrote.
    ///
    /// # Errors
    /// The token is not one.
    pub fn from_token(token: &str) -> Result<Self, TokenError> {
        let bytes = unhex(token.trim()).ok_or(TokenError::NotHex)?;
        parse(&bytes).ok_or(TokenError::Malformed)
    }

    /// All fields but the code, each in one word.
    fn words(&self) -> [u64; 26] {
        let mut words = [0; 26];
        words[..16].copy_from_slice(&self.gpr);
        words[16] = self.rflags;
        words[17] = self.fs_base;
        words[18] = self.gs_base;
        words[19] = self.seed;
        words[20] = u64::from(self.mxcsr);
        words[21] = u64::from(self.ymm_keep);
        words[22] = u64::from(self.fcw);
        words[23] = u64::from(self.fsw);
        words[24] = u64::from(self.code_offset);
        words[25] = u64::from(self.ftw) | (u64::from(self.st_keep) << 8);
        words
    }

    fn set_words(&mut self, words: &[u64; 26]) {
        self.gpr.copy_from_slice(&words[..16]);
        self.rflags = words[16];
        self.fs_base = words[17];
        self.gs_base = words[18];
        self.seed = words[19];
        self.mxcsr = words[20] as u32;
        self.ymm_keep = words[21] as u16;
        self.fcw = words[22] as u16;
        self.fsw = words[23] as u16;
        self.code_offset = words[24] as u16;
        self.ftw = words[25] as u8;
        self.st_keep = (words[25] >> 8) as u8;
    }
}

const TOKEN_VERSION: u8 = 1;

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}

fn parse(bytes: &[u8]) -> Option<Case> {
    let mut rest = bytes;
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    let head = take(3)?;
    if head[0] != TOKEN_VERSION || head[2] > 64 {
        return None;
    }
    let mut case = Case { bitness: head[1], ..Case::default() };
    case.set_code(take(usize::from(head[2]))?);
    let present = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let mut words = [0u64; 26];
    for (i, word) in words.iter_mut().enumerate() {
        if present >> i & 1 == 1 {
            let len = usize::from(take(1)?[0]);
            let mut raw = [0; 8];
            raw.get_mut(..len)?.copy_from_slice(take(len)?);
            *word = u64::from_le_bytes(raw);
        }
    }
    case.set_words(&words);
    rest.is_empty().then_some(case)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_the_same_case() {
        let mut rng = Rng::new(5);
        for _ in 0..1000 {
            let mut case = Case::with_code(&rng.next().to_le_bytes()[..rng.below(9) as usize]);
            for r in &mut case.gpr {
                *r = rng.next() >> rng.below(65).min(63);
            }
            case.rflags = rng.next() & 0xfff;
            case.seed = rng.next();
            case.fsw = rng.next() as u16;
            case.ftw = rng.next() as u8;
            case.st_keep = rng.next() as u8;
            assert_eq!(Case::from_token(&case.to_token()), Ok(case));
        }
    }

    #[test]
    fn a_branch_into_an_instruction_reaches_others() {
        // vpsrld xmm8, xmm1, 255 ; mov byte [rip+1], 0xf6 ; jne to the former's last byte: inc esi
        // ; add eax, 1 ; div byte [rbp+6]
        let code = [0xc5, 0xb9, 0x72, 0xd1, 0xff, 0xc6, 0x05, 1, 0, 0, 0, 0xf6, 0x75, 0xf6, 0x06];
        let case = Case::with_code(&code);
        let names = |list: Vec<Instruction>| list.iter().map(Instruction::code).collect::<Vec<_>>();
        let straight = names(case.instructions());
        let all = names(case.reachable());
        assert_eq!(straight[..2], [Code::VEX_Vpsrld_xmm_xmm_imm8, Code::Mov_rm8_imm8]);
        assert_eq!(all[..straight.len()], straight);
        assert_eq!(all[straight.len()..], [Code::Inc_rm32, Code::Add_EAX_imm32, Code::Div_rm8]);
    }

    #[test]
    fn bad_tokens_are_refused() {
        assert_eq!(Case::from_token("xyz"), Err(TokenError::NotHex));
        assert_eq!(Case::from_token("00"), Err(TokenError::Malformed));
        let token = Case::with_code(&[0x90]).to_token();
        assert_eq!(Case::from_token(&token[..token.len() - 2]), Err(TokenError::Malformed));
    }
}
