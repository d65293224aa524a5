//! Frames in a file, as tcpdump and Wireshark read it: pcap with nanoseconds
//! (draft-ietf-opsawg-pcap).

use std::fmt;
use std::io::Write;
use std::time::SystemTime;

/// Where captured frames go. What it refuses is lost; telling so is its own affair.
pub type Sink = Box<dyn Write + Send>;

/// The magic number of a file with nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
/// Bytes of a frame that may be in a record: any of ours fits.
const SNAP_LENGTH: u32 = 262_144;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;
/// Bytes that are gathered before they are written.
const GATHERED: usize = 256 << 10;

/// A capture that goes on.
pub(crate) struct Capture {
    sink: Sink,
    /// Records that are not written yet.
    records: Vec<u8>,
}

impl Capture {
    /// An empty one.
    pub(crate) fn new(sink: Sink) -> Self {
        let mut records = Vec::new();
        // Magic, version 2.4, two words of 0, snapshot length, link type; in the host's order.
        records.extend(MAGIC.to_ne_bytes());
        records.extend(2_u16.to_ne_bytes());
        records.extend(4_u16.to_ne_bytes());
        records.extend([0; 8]);
        records.extend(SNAP_LENGTH.to_ne_bytes());
        records.extend(ETHERNET.to_ne_bytes());
        let mut capture = Self { sink, records };
        capture.flush();
        capture
    }

    /// Notes a frame that passes now.
    pub(crate) fn note(&mut self, parts: [&[u8]; 3]) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let length = parts.iter().map(|part| part.len() as u32).sum::<u32>();
        for word in [now.as_secs() as u32, now.subsec_nanos(), length, length] {
            self.records.extend(word.to_ne_bytes());
        }
        parts.iter().for_each(|part| self.records.extend_from_slice(part));
        if self.records.len() >= GATHERED {
            self.flush();
        }
    }

    /// Writes what was noted.
    pub(crate) fn flush(&mut self) {
        if !self.records.is_empty() {
            let _ = self.sink.write_all(&self.records);
            self.records.clear();
        }
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            sync::lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_follow_a_header() {
        let written = Written::default();
        let mut capture = Capture::new(Box::new(written.clone()));
        assert_eq!(sync::lock(&written.0).len(), 24, "the header comes at once");
        capture.note([b"ab", b"", b"cde"]);
        assert_eq!(sync::lock(&written.0).len(), 24);
        capture.flush();
        let all = sync::lock(&written.0);
        assert_eq!(all[..4], MAGIC.to_ne_bytes());
        assert_eq!(all[32..40], [5_u32.to_ne_bytes(), 5_u32.to_ne_bytes()].concat());
        assert_eq!(all[40..], *b"abcde");
    }
}
