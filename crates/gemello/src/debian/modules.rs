//! The drivers of a kernel that the user names: found where its release says, as `modules.dep`
//! lists them.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where a bzImage says at which place after [`SETUP`] its release is
/// (Documentation/arch/x86/boot.rst, `kernel_version`).
const RELEASE: usize = 0x20E;
const SETUP: usize = 0x200;
/// The header's magic, and its place.
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");

/// The files of the modules `wanted`, by their names without ending, and of those that they depend
/// on, in the order in which they are loaded. What is not listed is taken for a part of the kernel.
///
/// The folder of modules is looked for beside `kernel` and in `root`, then on this host.
///
/// # Errors
/// The modules are listed and cannot be read.
pub(crate) fn find(
    image: &[u8],
    kernel: &Path,
    root: &Path,
    wanted: &[&str],
) -> Result<Vec<PathBuf>> {
    let Some(release) = release(image) else { return Ok(Vec::new()) };
    let beside = kernel.parent().and_then(Path::parent).unwrap_or(root);
    let roots = [beside, root, Path::new("/")];
    let folders =
        roots.iter().flat_map(|root| ["lib/modules", "usr/lib/modules"].map(|it| root.join(it)));
    let mut folders = folders.map(|folder| folder.join(&release));
    let Some(folder) = folders.find(|folder| folder.join("modules.dep").is_file()) else {
        tracing::info!(target: "boot", %release, "no folder of modules: is all in the kernel?");
        return Ok(Vec::new());
    };
    let list = folder.join("modules.dep");
    let text =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    Ok(in_order(&text, wanted).into_iter().map(|module| folder.join(module)).collect())
}

/// The release of a bzImage, `6.1.0-9-amd64`.
fn release(image: &[u8]) -> Option<String> {
    if image.get(MAGIC.0..)?.get(..MAGIC.1.len())? != MAGIC.1 {
        return None;
    }
    let at =
        image.get(RELEASE..)?.first_chunk().map(|bytes| usize::from(u16::from_le_bytes(*bytes)))?;
    let text = image.get(SETUP + at..)?;
    let end = text.iter().take(256).position(|byte| matches!(byte, b' ' | 0))?;
    let release = std::str::from_utf8(text.get(..end)?).ok()?;
    (!release.is_empty() && !release.contains('/')).then(|| release.to_owned())
}

/// What `list` says of the modules `wanted`: each after those that it depends on, and once.
fn in_order<'a>(list: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in wanted {
        let line = list.lines().filter_map(|line| line.split_once(':'));
        let Some((module, needed)) = line.into_iter().find(|(module, _)| is(module, name)) else {
            continue;
        };
        for module in needed.split_whitespace().rev().chain([module]) {
            if !found.contains(&module) {
                found.push(module);
            }
        }
    }
    found
}

/// Whether the module at `path` is called `name`; `-` and `_` are the same.
fn is(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let own = file.split('.').next().unwrap_or(file);
    own.replace('-', "_") == name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let list = "kernel/fs/fuse/fuse.ko.xz:\n\
            kernel/d/virtio_ring.ko.xz: kernel/d/virtio.ko.xz\n\
            kernel/fs/fuse/virtiofs.ko.xz: kernel/fs/fuse/fuse.ko.xz kernel/d/virtio_ring.ko.xz \
            kernel/d/virtio.ko.xz\nkernel/d/virtio.ko.xz:\nkernel/d/virtio-rng.ko.xz:\n";
        let order = in_order(list, &["fuse", "virtiofs", "virtio_rng", "overlay"]);
        assert_eq!(
            order,
            [
                "kernel/fs/fuse/fuse.ko.xz",
                "kernel/d/virtio.ko.xz",
                "kernel/d/virtio_ring.ko.xz",
                "kernel/fs/fuse/virtiofs.ko.xz",
                "kernel/d/virtio-rng.ko.xz"
            ]
        );
    }

    #[test]
    fn a_kernels_release_is_in_its_head() {
        let mut image = vec![0; 0x400];
        assert_eq!(release(&image), None);
        image[MAGIC.0..MAGIC.0 + 4].copy_from_slice(MAGIC.1);
        assert_eq!(release(&image), None);
        image[RELEASE..RELEASE + 2].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x30C].copy_from_slice(b"6.1.0-9 (x) ");
        assert_eq!(release(&image).as_deref(), Some("6.1.0-9"));
        image[0x300..0x303].copy_from_slice(b"../");
        assert_eq!(release(&image), None);
        image[RELEASE..RELEASE + 2].copy_from_slice(&0xFFFF_u16.to_le_bytes());
        assert_eq!(release(&image), None);
    }

    #[test]
    fn modules_are_found_beside_the_kernel() {
        let root = std::env::temp_dir().join(format!("gemello-modules-{}", std::process::id()));
        let folder = root.join("lib/modules/6.1.0-9");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("modules.dep"), "kernel/overlay.ko:\n").expect("a file");
        let mut image = vec![0; 0x400];
        image[MAGIC.0..MAGIC.0 + 4].copy_from_slice(MAGIC.1);
        image[RELEASE..RELEASE + 2].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x308].copy_from_slice(b"6.1.0-9 ");
        let kernel = root.join("boot/vmlinuz");
        let found = find(&image, &kernel, Path::new("/none"), &["overlay", "fuse"]);
        assert_eq!(found.expect("found"), [folder.join("kernel/overlay.ko")]);
        fs::remove_dir_all(&root).expect("it is there");
    }
}
