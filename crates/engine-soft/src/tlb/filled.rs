//! Which places of a table were filled since the last flush.

/// Which entries were filled since the last flush, by kind: a bit for each.
pub(crate) struct Filled {
    local: Box<[u64]>,
    global: Box<[u64]>,
    /// Which words of either hold a bit: a bit for each.
    words: Box<[u64]>,
}

impl Filled {
    /// None of `entries`.
    pub(crate) fn none(entries: usize) -> Self {
        let bitmap = |bits: usize| vec![0; bits.div_ceil(64)].into_boxed_slice();
        let (local, global) = (bitmap(entries), bitmap(entries));
        Self { words: bitmap(local.len()), local, global }
    }

    pub(crate) fn note(&mut self, index: usize, global: bool) {
        let words = if global { &mut self.global } else { &mut self.local };
        words[index >> 6] |= 1 << (index & 63);
        self.words[index >> 12] |= 1 << (index >> 6 & 63);
    }

    /// Calls `visit` for each entry that was filled.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize)) {
        for (n, &word) in self.words.iter().enumerate() {
            bits(n, word, &mut |n| bits(n, self.local[n] | self.global[n], &mut visit));
        }
    }

    /// As [`Filled::each`], for entries of `words`, a range of the bitmap's words.
    pub(crate) fn each_of(&self, words: std::ops::Range<usize>, mut visit: impl FnMut(usize)) {
        for n in words {
            bits(n, self.local[n] | self.global[n], &mut visit);
        }
    }

    /// Calls `visit` for each entry that was filled with something not global, and forgets these.
    pub(crate) fn take_local(&mut self, mut visit: impl FnMut(usize)) {
        let Self { local, global, words } = self;
        for (n, word) in words.iter_mut().enumerate() {
            bits(n, *word, &mut |n| bits(n, std::mem::take(&mut local[n]), &mut visit));
            bits(n, *word, &mut |n| *word &= !(u64::from(global[n] == 0) << (n & 63)));
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        let Self { local, global, words } = self;
        for (n, word) in words.iter_mut().enumerate() {
            bits(n, std::mem::take(word), &mut |n| (local[n], global[n]) = (0, 0));
        }
    }
}

/// The indices of the bits set in word `n` of a bitmap.
fn bits(n: usize, mut word: u64, visit: &mut impl FnMut(usize)) {
    while word != 0 {
        visit(n << 6 | word.trailing_zeros() as usize);
        word &= word - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(filled: &Filled) -> Vec<usize> {
        let mut all = Vec::new();
        filled.each(|i| all.push(i));
        all
    }

    #[test]
    fn what_is_noted_is_told_until_it_is_forgotten() {
        let mut filled = Filled::none(8192);
        for (index, global) in [(0, false), (63, true), (64, false), (4096, true), (8191, false)] {
            filled.note(index, global);
        }
        assert_eq!(held(&filled), [0, 63, 64, 4096, 8191]);
        let mut some = Vec::new();
        filled.each_of(1..65, |i| some.push(i));
        assert_eq!(some, [64, 4096]);
        let mut local = Vec::new();
        filled.take_local(|i| local.push(i));
        assert_eq!((local, held(&filled)), (vec![0, 64, 8191], vec![63, 4096]));
        filled.note(64, false);
        assert_eq!(held(&filled), [63, 64, 4096]);
        filled.clear();
        assert!(held(&filled).is_empty());
        let empty = |words: &[u64]| words.iter().all(|word| *word == 0);
        assert!([&filled.local, &filled.global, &filled.words].into_iter().all(|w| empty(w)));
    }
}
