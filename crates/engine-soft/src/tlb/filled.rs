//! Which places of a table were filled since the last flush.

/// Which entries were filled since the last flush, by kind: a bit for each.
pub(crate) struct Filled<const WORDS: usize> {
    local: [u64; WORDS],
    global: [u64; WORDS],
}

impl<const WORDS: usize> Filled<WORDS> {
    pub(crate) const NONE: Self = Self { local: [0; WORDS], global: [0; WORDS] };

    pub(crate) fn note(&mut self, index: usize, global: bool) {
        let words = if global { &mut self.global } else { &mut self.local };
        words[index >> 6] |= 1 << (index & 63);
    }

    /// Calls `visit` for each entry of `words` (a range of the bitmap's words) that was filled.
    pub(crate) fn each(&self, words: std::ops::Range<usize>, mut visit: impl FnMut(usize)) {
        for n in words {
            bits(n, self.local[n] | self.global[n], &mut visit);
        }
    }

    /// Calls `visit` for each entry that was filled with something not global, and forgets these.
    pub(crate) fn take_local(&mut self, mut visit: impl FnMut(usize)) {
        for (n, word) in self.local.iter_mut().enumerate() {
            bits(n, std::mem::take(word), &mut visit);
        }
    }
}

/// The indices of the bits set in word `n` of a bitmap.
pub(crate) fn bits(n: usize, mut word: u64, visit: &mut impl FnMut(usize)) {
    while word != 0 {
        visit(n << 6 | word.trailing_zeros() as usize);
        word &= word - 1;
    }
}
