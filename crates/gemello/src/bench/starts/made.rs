//! What some starts need and nobody has at hand: an OCI image, and a disk that boots by itself.

use crate::bench::image::{base, read};
use crate::debian::Fetched;
use anyhow::{Context as _, Result};
use oci::Digest;
use rootfs::{Content, FileSystem, Identity, Tree};
use serde_json::json;
use std::fs::{self, File};
use std::path::Path;
use tar::{EntryType, Header};

/// On the disk.
const KERNEL: &str = "boot/vmlinuz-1";
const INITRD: &str = "boot/initrd.img-1";
/// What the kernel is told.
pub(super) const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// What the disk's guest says before it powers off.
pub(super) const SAID: &str = "it is up";

/// Makes `folder` what `docker save` would write of an image that is busybox alone.
///
/// # Errors
/// The host's.
pub(super) fn image(folder: &Path, busybox: &Path) -> Result<()> {
    let layer = layer(&[("bin/busybox", 0o755, read(busybox)?)], &[("bin/true", "busybox")])?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["/bin/true"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] },
    });
    let tags = ["bench:latest"];
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"] }]);
    write(&folder.join("layer.tar"), &layer)?;
    write(&folder.join("config.json"), config.to_string().as_bytes())?;
    write(&folder.join("manifest.json"), manifest.to_string().as_bytes())
}

/// Makes `image` a disk that GRUB would boot, whose guest powers off; puts its initial file system
/// at `initrd`, too.
///
/// # Errors
/// The host's.
pub(super) fn disk(image: &Path, initrd: &Path, debian: &Fetched) -> Result<()> {
    let archive = powers_off(&read(&debian.busybox)?);
    write(initrd, &archive)?;
    let menu =
        format!("menuentry 'Linux' {{\n\tlinux /{KERNEL} {CMDLINE}\n\tinitrd /{INITRD}\n}}\n");
    let files = [
        (KERNEL, 0o644, read(&debian.kernel)?),
        (INITRD, 0o644, archive),
        ("boot/grub/grub.cfg", 0o644, menu.into_bytes()),
    ];
    let spool = image.with_extension("tar");
    let bytes = layer(&files, &[])?;
    write(&spool, &bytes)?;
    let content = Content { offset: 0, bytes: bytes.len() as u64 };
    let (spool, mut tree) = (File::open(&spool)?, Tree::default());
    tree.apply(&spool, content)?;
    let file = File::create_new(image).with_context(|| format!("no {}", image.display()))?;
    tree.write(&spool, &file, FileSystem { identity: Identity([1; 16]), room: 0 })?;
    Ok(())
}

/// An initial file system that is up, says so, and powers off.
fn powers_off(busybox: &[u8]) -> Vec<u8> {
    let init = format!("#!/bin/busybox sh\necho {SAID}\nexec /bin/busybox poweroff -f\n");
    base(init.as_bytes(), busybox, &[])
}

/// A layer with `files` (path, mode, content) and `links`.
fn layer(files: &[(&str, u32, Vec<u8>)], links: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    for (path, mode, content) in files {
        let mut header = header(EntryType::Regular, *mode, content.len() as u64);
        archive.append_data(&mut header, path, content.as_slice())?;
    }
    for (path, target) in links {
        archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?;
    }
    Ok(archive.into_inner()?)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
