//! The disk on which cloud-init finds what a machine is to become: the seed of its data source
//! NoCloud, a FAT file system labelled CIDATA with `user-data`, `meta-data` and, if there is one,
//! `network-config` (cloud-init's documentation, "NoCloud").
//!
//! The disk is made in memory for one run. Its bytes depend on the files and the machine's name
//! alone.

use crate::pipe;
use crate::settings::cloud_init::CloudInitSettings;
use crate::settings::name::MachineName;
use crate::shell;
use anyhow::{Context as _, Result, bail};
use disk_image::SECTOR;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use machine::Scratch;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file system's name, padded.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// Bytes of a file at the most.
const FILE_MAX: u64 = 8 << 20;
/// Bytes of the disk beside the files' content.
const ROOM: usize = 1 << 20;
/// What user-data begins with, for cloud-init to know what they are: "User data formats" in its
/// documentation. A MIME message begins with either of its usual headers.
const HEADS: [&[u8]; 10] = [
    b"#cloud-config",
    b"#cloud-boothook",
    b"#include",
    b"#part-handler",
    b"#upstart-job",
    b"#!",
    b"## template:",
    b"Content-Type:",
    b"MIME-Version:",
    b"\x1F\x8B", // any of them, packed by gzip
];

/// The seed of `settings` for the machine `name`; what comes through a pipe has to come within
/// `limit`. Says on standard error what cloud-init would pass over in silence.
///
/// # Errors
/// A file cannot be read, or is too large.
pub(crate) fn disk(
    settings: &CloudInitSettings,
    name: &MachineName,
    limit: Option<Duration>,
) -> Result<Scratch> {
    let CloudInitSettings { user_data, meta_data, network_config } = settings;
    let content = |path: &PathBuf| read(path, limit);
    let user = content(user_data)?;
    if !HEADS.iter().any(|head| user.starts_with(head)) {
        eprintln!(
            "gemello: {} begins with nothing that cloud-init knows, and will be passed over; its \
             first line should be #cloud-config, or that of a script",
            shell::shown(user_data.as_os_str())
        );
    }
    let given = meta_data.as_ref().map(content).transpose()?;
    let network = network_config.as_ref().map(content).transpose()?;
    let digest = digest(name, &user, [given.as_deref(), network.as_deref()]);
    let meta = meta(given, name, &digest);
    let mut files = vec![("user-data", &*user), ("meta-data", &*meta)];
    files.extend(network.as_deref().map(|content| ("network-config", content)));
    let id = u32::from_str_radix(&digest[..8], 16).unwrap_or_default();
    let bytes = volume(&files, id).context("cannot make the disk for cloud-init")?;
    Ok(Scratch::read_only(bytes.into()))
}

fn read(path: &Path, limit: Option<Duration>) -> Result<Vec<u8>> {
    let attempt = || format!("cannot read {} for cloud-init", shell::shown(path.as_os_str()));
    if let Some(bytes) = pipe::read(path, None, limit).with_context(attempt)? {
        return Ok(bytes);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(attempt)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).with_context(attempt)?;
    if bytes.len() as u64 > FILE_MAX {
        bail!("{}: it has more than the {} MiB of a seed", attempt(), FILE_MAX >> 20);
    }
    Ok(bytes)
}

/// What tells this machine with these files from any other.
fn digest(name: &MachineName, user: &[u8], others: [Option<&[u8]>; 2]) -> String {
    let mut hasher = Sha256::new();
    let own = name.to_string();
    let parts = [Some(own.as_bytes()), Some(user)].into_iter().chain(others);
    for part in parts {
        // Its length first, so that no two lists of parts are one stream of bytes.
        hasher.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default());
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The file `meta-data`: as it is `given`, and with an identity where that says none. cloud-init
/// does its work once for each identity.
fn meta(given: Option<Vec<u8>>, name: &MachineName, digest: &str) -> Vec<u8> {
    let identity = format!("instance-id: {name}-{digest}\n");
    // A host's name has no low line.
    let Some(mut given) = given else {
        let host = name.to_string().replace('_', "-");
        return format!("{identity}local-hostname: {host}\n").into_bytes();
    };
    let text = String::from_utf8_lossy(&given);
    let json = text.trim_start().starts_with('{');
    if !json && !text.lines().any(|line| line.starts_with("instance-id:")) {
        // Behind the rest, which may begin with a mark of its own.
        if !given.is_empty() && !given.ends_with(b"\n") {
            given.push(b'\n');
        }
        given.extend(identity.bytes());
    }
    given
}

/// A file system with these files.
fn volume(files: &[(&str, &[u8])], id: u32) -> io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, content)| content.len()).sum();
    let mut disk = vec![0; (content + ROOM).next_multiple_of(SECTOR as usize)];
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(id);
    fatfs::format_volume(Cursor::new(&mut disk[..]), options)?;
    let volume = FileSystem::new(Cursor::new(&mut disk[..]), FsOptions::new())?;
    for (name, content) in files {
        volume.root_dir().create_file(name)?.write_all(content)?;
    }
    volume.unmount()?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::Text as _;

    fn name(name: &str) -> MachineName {
        MachineName::parse(name).expect("a name")
    }

    fn read_back(disk: &Scratch, file: &str) -> Vec<u8> {
        let volume = FileSystem::new(Cursor::new(disk.content.to_vec()), FsOptions::new());
        let volume = volume.expect("a file system");
        assert_eq!(
            volume.read_volume_label_from_root_dir().expect("a root"),
            Some("CIDATA".into())
        );
        let mut content = Vec::new();
        let mut file = volume.root_dir().open_file(file).expect("a file");
        file.read_to_end(&mut content).expect("all of it");
        content
    }

    #[test]
    fn the_disk_has_the_files() {
        let place = std::env::temp_dir().join(format!("gemello-seed-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a folder");
        let file = |name: &str, content: &[u8]| {
            let path = place.join(name);
            std::fs::write(&path, content).expect("a file");
            path
        };
        let large = [b"#cloud-config\n", &[b'#'; 3 << 20][..]].concat();
        let settings = CloudInitSettings {
            user_data: file("u", &large),
            meta_data: None,
            network_config: Some(file("n", b"version: 2\n")),
        };
        let disk =
            |settings: &CloudInitSettings, name: &MachineName| super::disk(settings, name, None);
        let made = disk(&settings, &name("web_1")).expect("a disk");
        assert!(read_back(&made, "user-data") == large);
        assert_eq!(read_back(&made, "network-config"), b"version: 2\n");
        let meta = String::from_utf8(read_back(&made, "meta-data")).expect("text");
        assert!(meta.starts_with("instance-id: web_1-"), "{meta}");
        assert!(meta.ends_with("\nlocal-hostname: web-1\n"), "{meta}");
        // The same for the same, and another identity for anything else.
        let again = disk(&settings, &name("web_1")).expect("a disk");
        assert!(again.content == made.content);
        let other = disk(&settings, &name("web_2")).expect("a disk");
        assert_ne!(read_back(&other, "meta-data"), meta.as_bytes());
        file("n", b"version: 1\n");
        let changed = disk(&settings, &name("web_1")).expect("a disk");
        assert_ne!(read_back(&changed, "meta-data"), meta.as_bytes());
        let gone = CloudInitSettings { user_data: place.join("gone"), ..settings };
        let refused = format!("{:#}", disk(&gone, &name("x")).expect_err("no file"));
        assert!(refused.contains("gone for cloud-init: No such file"), "{refused}");
        file("u", &vec![b'#'; (8 << 20) + 1]);
        let settings = CloudInitSettings { user_data: place.join("u"), ..gone };
        assert!(disk(&settings, &name("x")).is_err(), "too large");
        std::fs::remove_dir_all(&place).expect("it is there");
    }

    #[test]
    fn an_identity_is_added_where_there_is_none() {
        let of = |given: &str| {
            let meta = meta(Some(given.into()), &name("a"), "77");
            String::from_utf8(meta).expect("text")
        };
        let own = "instance-id: mine\nlocal-hostname: x\n";
        assert_eq!(of(own), own);
        assert_eq!(of("{\"instance-id\": \"i\"}"), "{\"instance-id\": \"i\"}");
        assert_eq!(of("---\na: b"), "---\na: b\ninstance-id: a-77\n");
        assert_eq!(of(""), "instance-id: a-77\n");
    }
}
