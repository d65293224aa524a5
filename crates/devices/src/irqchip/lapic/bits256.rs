//! A set of vectors: IRR, ISR, TMR.

/// One bit per vector, as eight 32-bit registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits256([u32; 8]);

impl Bits256 {
    pub(super) fn get(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    pub(super) fn set(&mut self, vector: u8, on: bool) {
        let word = &mut self.0[usize::from(vector >> 5)];
        let bit = 1 << (vector & 31);
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// The highest vector in the set.
    pub(super) fn highest(&self) -> Option<u8> {
        let (index, word) = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some((index as u8) << 5 | (31 - word.leading_zeros() as u8))
    }

    /// Register `index` of eight (modulo 8).
    pub(super) fn word(&self, index: usize) -> u32 {
        self.0[index & 7]
    }

    pub(super) fn words(&self) -> [u32; 8] {
        self.0
    }

    pub(super) fn from_words(words: [u32; 8]) -> Self {
        Self(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_is_the_greatest_set() {
        let mut bits = Bits256::default();
        assert_eq!(bits.highest(), None);
        for vector in 0..=255 {
            bits.set(vector, true);
            assert_eq!(bits.highest(), Some(vector));
            assert!(bits.get(vector));
        }
        for vector in (1..=255).rev() {
            bits.set(vector, false);
            assert_eq!(bits.highest(), Some(vector - 1));
        }
    }
}
