//! A set of vectors: IRR, ISR, TMR.

use x86::addr::Vector;

/// One bit per vector, as eight 32-bit registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits256([u32; 8]);

impl Bits256 {
    pub(super) fn get(&self, vector: Vector) -> bool {
        self.0[usize::from(vector.0 >> 5)] & 1 << (vector.0 & 31) != 0
    }

    pub(super) fn set(&mut self, vector: Vector, on: bool) {
        let word = &mut self.0[usize::from(vector.0 >> 5)];
        let bit = 1 << (vector.0 & 31);
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// The highest vector in the set.
    pub(super) fn highest(&self) -> Option<Vector> {
        let (index, word) = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some(Vector((index as u8) << 5 | (31 - word.leading_zeros() as u8)))
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
        for vector in (0..=255).map(Vector) {
            bits.set(vector, true);
            assert_eq!(bits.highest(), Some(vector));
            assert!(bits.get(vector));
        }
        for vector in (1..=255).rev().map(Vector) {
            bits.set(vector, false);
            assert_eq!(bits.highest(), Some(Vector(vector.0 - 1)));
        }
    }
}
