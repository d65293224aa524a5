//! What a system's init need not do: a machine like ours has no use for it, or the agent has done
//! it already. Each program that is not started brings the system up a tenth of a second sooner.
//!
//! All of it is in `/run`. What the user has in `/etc/systemd/system` comes before that, and what
//! looks for files is left out only where there are none.

use crate::{mounts, nodes};
use rustix::mount::MountFlags;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

const UNITS: &str = "/run/systemd/system";
const GENERATORS: &str = "/run/systemd/system-generators";
const FSTAB: &str = "/etc/fstab";

/// Where a unit, or a program that makes units, has something to do.
enum Needed {
    Nowhere,
    /// One of these is there.
    With(&'static [&'static str]),
    /// One of these files, or one in these folders, says more than comments.
    Says(&'static [&'static str]),
    /// The kernel's command line has words for systemd.
    Asked,
}

/// Terminals that are ours or have no screen, drivers that the kernel asks for as soon as somebody
/// opens their device, leftovers of volumes it has not, the record of a run level, random bytes of
/// the last run (the host gives some), and what the agent does.
const UNITS_SPARED: [(&str, Needed); 16] = [
    ("getty@tty1.service", Needed::Nowhere),
    ("modprobe@configfs.service", Needed::Nowhere),
    ("modprobe@dm_mod.service", Needed::Nowhere),
    ("modprobe@drm.service", Needed::Nowhere),
    ("modprobe@efi_pstore.service", Needed::Nowhere),
    ("modprobe@fuse.service", Needed::Nowhere),
    ("modprobe@loop.service", Needed::Nowhere),
    ("e2scrub_reap.service", Needed::Nowhere),
    ("kmod-static-nodes.service", Needed::Nowhere),
    ("systemd-tmpfiles-setup-dev-early.service", Needed::Nowhere),
    ("systemd-random-seed.service", Needed::Nowhere),
    ("systemd-update-utmp-runlevel.service", Needed::Nowhere),
    ("systemd-journal-flush.service", Needed::Says(&[FSTAB])),
    ("systemd-remount-fs.service", Needed::Says(&[FSTAB])),
    (
        "systemd-modules-load.service",
        Needed::Says(&["/etc/modules", "/etc/modules-load.d", "/usr/lib/modules-load.d"]),
    ),
    ("systemd-udev-load-credentials.service", Needed::Asked),
];

/// Programs that look for what is not there: a boot loader, a partition table, a saved memory; for
/// consoles, which are ours; and for what is seldom there.
const GENERATORS_SPARED: [(&str, Needed); 11] = [
    ("systemd-bless-boot-generator", Needed::Nowhere),
    ("systemd-getty-generator", Needed::Nowhere),
    ("systemd-gpt-auto-generator", Needed::Nowhere),
    ("systemd-hibernate-resume-generator", Needed::Nowhere),
    ("systemd-debug-generator", Needed::Asked),
    ("systemd-run-generator", Needed::Asked),
    ("systemd-fstab-generator", Needed::Says(&[FSTAB, "/etc/crypttab"])),
    ("systemd-rc-local-generator", Needed::With(&["/etc/rc.local"])),
    ("systemd-ssh-generator", Needed::With(&["/usr/sbin/sshd"])),
    ("systemd-system-update-generator", Needed::With(&["/system-update", "/etc/system-update"])),
    ("systemd-tpm2-generator", Needed::With(&["/sys/class/tpm"])),
];

/// What systemd mounts by a program each, and finds mounted: unit, file system, place, options.
const MOUNTS: [(&str, &str, &str, &str); 6] = [
    ("dev-hugepages.mount", "hugetlbfs", "/dev/hugepages", ""),
    ("dev-mqueue.mount", "mqueue", "/dev/mqueue", ""),
    ("sys-kernel-debug.mount", "debugfs", "/sys/kernel/debug", ""),
    ("sys-kernel-tracing.mount", "tracefs", "/sys/kernel/tracing", ""),
    ("run-lock.mount", "tmpfs", "/run/lock", "mode=1777,size=5M"),
    ("tmp.mount", "tmpfs", "/tmp", "mode=1777,size=50%,nr_inodes=1M"),
];

/// Of the devices that are there at the boot, udev looks at those of which somebody hears by it, or
/// whose drivers it loads. The others are a hundred terminals without a screen, and the kernel's
/// own book-keeping.
const DEVICES: &str = "\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add \
--subsystem-nomatch=tty --subsystem-nomatch=vc --subsystem-nomatch=cpu \
--subsystem-nomatch=mem --subsystem-nomatch=bdi --subsystem-nomatch=workqueue \
--subsystem-nomatch=memory --subsystem-nomatch=node --subsystem-nomatch=clocksource \
--subsystem-nomatch=clockevents --subsystem-nomatch=event_source \
--subsystem-nomatch=machinecheck --subsystem-nomatch=container --subsystem-nomatch=platform \
--subsystem-nomatch=pnp --subsystem-nomatch=pci_bus --subsystem-nomatch=vtconsole
";

/// Does what can be done beforehand, and tells systemd what to leave out.
pub(crate) fn spare() -> io::Result<()> {
    let asked = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let asked = asked.split_whitespace().any(|word| word.starts_with("systemd."));
    fs::create_dir_all(GENERATORS)?;
    for (folder, all) in [(UNITS, &UNITS_SPARED[..]), (GENERATORS, &GENERATORS_SPARED)] {
        let spared = all.iter().filter(|(_, needed)| !is_there(needed, asked));
        for (name, _) in spared {
            symlink("/dev/null", Path::new(folder).join(name))?;
        }
    }
    let trigger = format!("{UNITS}/systemd-udev-trigger.service.d");
    fs::create_dir(&trigger)?;
    fs::write(format!("{trigger}/gemello.conf"), DEVICES)?;
    nodes::make();
    if !says(Path::new(FSTAB)) {
        mount_all();
        // The journal begins on the disk, which is there already, rather than in memory.
        fs::create_dir_all("/run/systemd/journal")?;
        fs::write("/run/systemd/journal/flushed", "")?;
    }
    Ok(())
}

fn is_there(needed: &Needed, asked: bool) -> bool {
    match needed {
        Needed::Nowhere => false,
        Needed::With(paths) => paths.iter().any(|path| Path::new(path).symlink_metadata().is_ok()),
        Needed::Says(paths) => paths.iter().any(|path| says(Path::new(path))),
        Needed::Asked => asked,
    }
}

/// Whether the file at `path`, or one in the folder there, has a line that is no comment.
fn says(path: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(path) {
        return entries.filter_map(Result::ok).any(|entry| says(&entry.path()));
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

/// Mounts what the distribution has a unit for that is wanted, where the user has no other.
fn mount_all() {
    for (unit, kind, place, options) in MOUNTS {
        let wanted = ["sysinit.target.wants", "local-fs.target.wants"].into_iter().any(|by| {
            let link = Path::new("/usr/lib/systemd/system").join(by).join(unit);
            link.symlink_metadata().is_ok()
        });
        let own = Path::new("/etc/systemd/system").join(unit).symlink_metadata().is_ok();
        if wanted && !own {
            let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
            if !matches!(place, "/tmp" | "/dev/hugepages") {
                flags |= MountFlags::NOEXEC;
            }
            let _ = mounts::at(Path::new(place), kind, flags, options); // or systemd does
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_say_nothing() {
        let folder = std::env::temp_dir().join(format!("agent-spared-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("a.conf");
        for (text, expected) in [("# a\n\n ; b\n", false), ("# a\n loop\n", true)] {
            fs::write(&file, text).expect("a file");
            assert_eq!((says(&file), says(&folder)), (expected, expected), "{text:?}");
        }
        fs::remove_dir_all(&folder).expect("it is there");
        assert!(!says(&file));
    }
}
