//! One blob: brought to its place, however often the connection is cut on the way.
//!
//! It lies in `<place>.partial` until it is whole and verified, and appears by a rename.

use super::RegistryError;
use super::client::{Ask, Client};
use crate::digest::Hashing;
use crate::layout::Descriptor;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use ureq::http::{Response, header};

/// Bytes after which the registry is taken to be well again.
const PROGRESS: u64 = 1 << 20;

/// What has come of a blob so far.
struct Partial {
    path: PathBuf,
    /// Its file, and the digest of what is in it.
    file: Hashing<File>,
    bytes: u64,
}

/// Why no more comes.
enum End {
    Whole,
    Cut(io::Error),
    /// More came than the blob has.
    Longer,
}

/// Brings the blob of `descriptor` to `place`; `progress` hears how many bytes are there.
///
/// # Errors
/// The registry does not give it, it is not what its name says, or the host's.
pub(super) fn fetch(
    client: &mut Client,
    descriptor: &Descriptor,
    place: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), RegistryError> {
    if fs::metadata(place).is_ok_and(|there| there.len() == descriptor.size) {
        return Ok(());
    }
    let name = descriptor.digest.to_string();
    let store = |source| RegistryError::Store { path: place.to_owned(), source };
    let mut partial = Partial::open(place, descriptor.size).map_err(store)?;
    // What an earlier run left may be damaged; it is given one more chance, from the beginning.
    let mut fresh = partial.bytes == 0;
    loop {
        let ask = Ask::Blob(&name, partial.bytes);
        if partial.bytes < descriptor.size {
            let response = client.get(ask)?;
            if begins_anew(&response, partial.bytes) {
                partial.clear().map_err(store)?;
                fresh = true;
                if response.status() == 416 {
                    let error = io::Error::other("it knows no such range");
                    client.cut(ask, &error)?;
                    continue;
                }
            }
            let end = take(response, &mut partial, descriptor.size, client, progress);
            match end.map_err(store)? {
                End::Whole => {}
                End::Cut(error) => {
                    client.cut(ask, &error)?;
                    continue;
                }
                End::Longer => {
                    partial.clear().map_err(store)?;
                    let why = format!("it is longer than the {} bytes it has", descriptor.size);
                    return Err(client.failure(ask, why));
                }
            }
        }
        let found = partial.file.digest();
        if found == descriptor.digest {
            return partial.publish(place).map_err(store);
        }
        partial.clear().map_err(store)?;
        if fresh {
            let why = format!("what came is damaged: its digest is {found}");
            return Err(client.failure(ask, why));
        }
        fresh = true;
    }
}

/// Whether `response` does not go on after `bytes`.
fn begins_anew<B>(response: &Response<B>, bytes: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|it| it.to_str().ok());
    let goes_on = range.is_some_and(|range| range.starts_with(&format!("bytes {bytes}-")));
    bytes > 0 && !(response.status() == 206 && goes_on)
}

/// Adds what comes to `partial`. An error is the host's.
fn take(
    response: Response<ureq::Body>,
    partial: &mut Partial,
    size: u64,
    client: &mut Client,
    progress: &mut dyn FnMut(u64),
) -> io::Result<End> {
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 128 << 10];
    let mut well = partial.bytes + PROGRESS;
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) if partial.bytes == size => return Ok(End::Whole),
            Ok(0) => return Ok(End::Cut(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // All is there; what the connection says after that does not matter.
            Err(_) if partial.bytes == size => return Ok(End::Whole),
            Err(error) => return Ok(End::Cut(error)),
        };
        if count as u64 > size - partial.bytes {
            return Ok(End::Longer);
        }
        partial.file.write_all(&buffer[..count])?;
        partial.bytes += count as u64;
        if partial.bytes >= well {
            client.progressed();
            well += PROGRESS;
        }
        progress(partial.bytes);
    }
}

impl Partial {
    /// What is there of the blob at `place`, which has `size` bytes.
    fn open(place: &Path, size: u64) -> io::Result<Self> {
        let path = place.with_extension("partial");
        let options = File::options().read(true).write(true).create(true).truncate(false).clone();
        let mut file = Hashing::new(options.open(&path)?);
        let bytes = io::copy(&mut file, &mut io::sink())?;
        let mut partial = Self { path, file, bytes };
        if bytes > size {
            partial.clear()?;
        }
        Ok(partial)
    }

    fn clear(&mut self) -> io::Result<()> {
        let mut file = self.file.inner();
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        self.file = Hashing::new(file.try_clone()?);
        self.bytes = 0;
        Ok(())
    }

    fn publish(self, place: &Path) -> io::Result<()> {
        self.file.inner().sync_data()?;
        fs::rename(&self.path, place)
    }
}
