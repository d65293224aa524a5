//! Whether a qcow2 image's tables make sense, before anything is written by them.
//!
//! An image may come from anywhere. Were one of its own tables free by its reference counts, the
//! next allocation would overwrite it. So every table has a cluster of its own in the file, which
//! is counted as used, and the refcount blocks are without a gap. What the data's clusters are
//! counted is not looked at: that takes long, and harms nobody but the guest.

use super::header::Header;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of a table at the most (QEMU's limits).
const TABLE_MAX: u64 = 32 << 20;
/// The bits of an entry that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What is wrong with the image in `file`, of `bytes` bytes, that has this `header`.
///
/// # Errors
/// It cannot be read.
pub(crate) fn tables(file: &File, bytes: u64, header: &Header) -> io::Result<Result<(), String>> {
    let order = header.refcount_order;
    if order > 6 {
        return Ok(Err(format!("its reference counts have 2^{order} bits")));
    }
    let image = Tables { file, bytes, cluster: header.cluster.into(), order };
    match image.check(header.refcount_table, header.level1) {
        Ok(()) => Ok(Ok(())),
        Err(Wrong::Here(why)) => Ok(Err(why)),
        Err(Wrong::Host(error)) => Err(error),
    }
}

enum Wrong {
    Here(String),
    Host(io::Error),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

struct Tables<'a> {
    file: &'a File,
    bytes: u64,
    cluster: u64,
    /// A reference count has two to this power bits.
    order: u32,
}

impl Tables<'_> {
    /// Both tables by offset and bytes.
    fn check(&self, refcounts: (u64, u64), level1: (u64, u64)) -> Result<(), Wrong> {
        let blocks = self.table("refcount table", refcounts)?;
        let used = blocks.iter().take_while(|&&block| block != 0).count();
        if used == 0 || blocks[used..].iter().any(|&block| block != 0) {
            return Err(Wrong::Here("its refcount table has a gap".to_owned()));
        }
        let tables = self.table("L1 table", level1)?;
        let tables: Vec<_> = tables.into_iter().map(|entry| entry & OFFSET).collect();
        let singles = blocks[..used].iter().chain(tables.iter().filter(|&&at| at != 0));
        let mut clusters = vec![0];
        for &at in singles {
            self.inside("a table", at, self.cluster)?;
            clusters.push(at / self.cluster);
        }
        for (at, len) in [refcounts, level1] {
            clusters.extend(at / self.cluster..(at + len).div_ceil(self.cluster));
        }
        clusters.sort_unstable();
        if clusters.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Wrong::Here("two of its tables are in one place".to_owned()));
        }
        self.counted(&blocks[..used], &clusters)
    }

    /// That each of `clusters`, in their order, is counted as used.
    fn counted(&self, blocks: &[u64], clusters: &[u64]) -> Result<(), Wrong> {
        let per_block = (self.cluster * 8) >> self.order;
        let (mut block, mut loaded) = (vec![0; self.cluster as usize], None);
        for &cluster in clusters {
            let (number, within) = (cluster / per_block, cluster % per_block);
            if loaded != Some(number) {
                let at = blocks.get(number as usize);
                let at = at.ok_or_else(|| Wrong::Here("a table is not counted".to_owned()))?;
                self.file.read_exact_at(&mut block, *at)?;
                loaded = Some(number);
            }
            let (bit, width) = (within << self.order, 1_u64 << self.order);
            let first = (bit / 8) as usize;
            let count = match width {
                ..8 => u64::from(block[first]) >> (bit % 8) & ((1 << width) - 1),
                _ => block[first..first + width as usize / 8].iter().map(|&b| u64::from(b)).sum(),
            };
            if count == 0 {
                return Err(Wrong::Here(format!("a table in cluster {cluster} counts as free")));
            }
        }
        Ok(())
    }

    /// The entries of the table at an offset, of some bytes.
    fn table(&self, what: &str, (at, len): (u64, u64)) -> Result<Vec<u64>, Wrong> {
        if len > TABLE_MAX {
            return Err(Wrong::Here(format!("its {what} has {len} bytes")));
        }
        self.inside(&format!("its {what}"), at, len)?;
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        let entry = |bytes: &[u8]| u64::from_be_bytes(std::array::from_fn(|i| bytes[i]));
        Ok(bytes.chunks_exact(8).map(entry).collect())
    }

    /// That a table begins a cluster and ends in the file.
    fn inside(&self, what: &str, at: u64, len: u64) -> Result<(), Wrong> {
        let ends = at.checked_add(len);
        if !at.is_multiple_of(self.cluster) || ends.is_none_or(|end| end > self.bytes) {
            return Err(Wrong::Here(format!("{what} is said to be at {at:#x}, {len} bytes")));
        }
        Ok(())
    }
}
