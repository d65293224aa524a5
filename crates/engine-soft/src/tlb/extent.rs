//! From which pages a view holds translations, coarsely: what INVLPG has to look at.

/// Offset within a page.
pub(crate) const PAGE_MASK: u64 = 0xfff;

/// A set of regions of `2^shift` bytes that may say yes where it should say no.
pub(crate) struct Regions {
    pub(crate) bits: Box<[u64]>,
    pub(crate) shift: u32,
    bits_log2: u32,
}

impl Regions {
    pub(crate) fn new(shift: u32, bits_log2: u32) -> Self {
        Self { bits: vec![0; 1 << (bits_log2 - 6)].into_boxed_slice(), shift, bits_log2 }
    }

    pub(crate) fn place(&self, la: u64) -> (usize, u64) {
        /// 2^64 over the golden ratio: spreads neighbours.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let n = (la >> self.shift).wrapping_mul(SPREAD) >> (64 - self.bits_log2);
        ((n >> 6) as usize, 1 << (n & 63))
    }

    pub(crate) fn note(&mut self, la: u64) {
        let (word, bit) = self.place(la);
        self.bits[word] |= bit;
    }

    /// False: nothing of `la`'s region was noted.
    pub(crate) fn may_hold(&self, la: u64) -> bool {
        let (word, bit) = self.place(la);
        self.bits[word] & bit != 0
    }

    pub(crate) fn clear(&mut self) {
        self.bits.fill(0);
    }
}

/// Largest page but those of 1 GiB: what INVLPG drops with any address in it is dropped in regions
/// of this size.
pub(crate) const LARGE: u32 = 22;

/// A page of 1 GiB.
pub(crate) const HUGE: u32 = 30;

/// From which pages larger than 4 KiB a view holds pieces.
pub(crate) struct Large {
    pub(crate) regions: Regions,
    /// Gigabytes.
    pub(crate) huge: Vec<u64>,
}

/// What INVLPG has to drop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Page,
    Region,
    Everything,
}

impl Large {
    pub(crate) fn new() -> Self {
        Self { regions: Regions::new(LARGE, 12), huge: Vec::new() }
    }

    pub(crate) fn note(&mut self, la: u64, size: u64) {
        if size > 1 << LARGE {
            if !self.huge.contains(&(la >> HUGE)) {
                self.huge.push(la >> HUGE);
            }
        } else if size > PAGE_MASK + 1 {
            self.regions.note(la);
        }
    }

    pub(crate) fn around(&self, la: u64) -> Extent {
        if self.huge.contains(&(la >> HUGE)) {
            Extent::Everything
        } else if self.regions.may_hold(la) {
            Extent::Region
        } else {
            Extent::Page
        }
    }

    pub(crate) fn clear(&mut self) {
        self.regions.clear();
        self.huge.clear();
    }
}
