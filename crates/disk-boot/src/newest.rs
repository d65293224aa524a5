//! The newest kernel in `/boot`, for a disk without a boot loader's configuration.

use crate::Entry;
use crate::version;
use crate::volume::Volume;

/// What kernels are called, before their version.
const KERNELS: [&str; 2] = ["vmlinuz-", "bzImage-"];

/// Boots it with this file system as root.
pub(crate) fn entry(volume: &Volume) -> Option<Entry> {
    let names = volume.names("/boot");
    let version = |name: &String| {
        KERNELS.iter().find_map(|start| name.strip_prefix(start)).map(str::to_owned)
    };
    let newest = names
        .iter()
        .filter_map(|name| Some((version(name)?, name)))
        .max_by(|(a, _), (b, _)| version::compare(a, b));
    let (kernel, initrd) = match newest {
        Some((version, name)) => {
            let of = [
                format!("/boot/initrd.img-{version}"),
                format!("/boot/initramfs-{version}.img"),
                format!("/boot/initrd-{version}"),
            ];
            (format!("/boot/{name}"), of.into_iter().find(|path| volume.has(path)))
        }
        // A kernel without a version, as small systems have it.
        None => {
            let there = |path: &&str| volume.has(path);
            let kernel = ["/boot/vmlinuz", "/vmlinuz", "/boot/bzImage"].into_iter().find(there)?;
            let initrd = ["/boot/initrd.img", "/initrd.img", "/boot/initramfs"];
            (kernel.to_owned(), initrd.into_iter().find(there).map(str::to_owned))
        }
    };
    Some(Entry {
        title: kernel.clone(),
        kernel,
        initrd: initrd.into_iter().collect(),
        cmdline: format!("root=UUID={} ro", volume.uuid()),
    })
}
