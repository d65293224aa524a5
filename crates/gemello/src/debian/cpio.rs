//! The `newc` archive that Linux unpacks into its initial file system.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Archives may be
//! concatenated when each is padded to four bytes, so a base made once can be followed by a small
//! one made for a run.

use std::fmt::Write as _;

/// File type bits of `st_mode`.
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Name of the record that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive under construction. Everything in it belongs to root and dates from the epoch, so
/// equal input gives equal bytes.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// A directory; parents must have been added before.
    pub(crate) fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, S_IFDIR | permissions, (0, 0), &[]);
    }

    /// A regular file.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, S_IFREG | permissions, (0, 0), content);
    }

    /// A symbolic link at `path` that reads `target`.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, S_IFLNK | 0o777, (0, 0), target.as_bytes());
    }

    /// A character device.
    pub(crate) fn character_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        self.entry(path, S_IFCHR | permissions, device, &[]);
    }

    /// The archive, ended and padded so that another may follow.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.record(TRAILER, 0, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        self.record(path.trim_start_matches('/'), self.inode, mode, device, content);
    }

    fn record(&mut self, name: &str, inode: u32, mode: u32, device: (u32, u32), content: &[u8]) {
        let size = u32::try_from(content.len()).expect("files of an initramfs are below 4 GiB");
        let links = 1;
        let fields = [
            inode,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            size,
            0, // device that holds the file, major and minor
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // checksum, unused by this magic
        ];
        let mut header = String::from("070701");
        for field in fields {
            let _ = write!(header, "{field:08X}");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.directory("/bin", 0o755);
        archive.file("bin/tool", 0o755, b"#!/bin/sh\n");
        archive.link("bin/alias", "tool");
        archive.character_device("console", 0o600, (5, 1));
        archive.finish()
    }

    #[test]
    fn records_are_aligned_and_ended() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        assert!(bytes.windows(TRAILER.len()).any(|w| w == TRAILER.as_bytes()));
        // The second record begins right after the first: 110 bytes of header, "bin\0", padded.
        assert_eq!(&bytes[116..122], b"070701");
    }

    /// An archive that someone else's reader accepts; skipped where there is none.
    #[test]
    fn bsdtar_or_cpio_reads_it_back() {
        for (tool, arguments) in [("cpio", &["-it"][..]), ("bsdtar", &["-tf", "-"][..])] {
            let child = Command::new(tool)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let Ok(mut child) = child else { continue };
            child.stdin.take().expect("piped").write_all(&sample()).expect("reader reads");
            let listing = child.wait_with_output().expect("reader ends").stdout;
            let listing = String::from_utf8_lossy(&listing).into_owned();
            assert_eq!(
                listing.lines().collect::<Vec<_>>(),
                ["bin", "bin/tool", "bin/alias", "console"]
            );
        }
    }
}
