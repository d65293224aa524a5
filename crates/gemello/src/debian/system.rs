//! A whole system of a release: which packages, downloaded and verified by the host's apt.
//!
//! ```text
//! <cache>/debian/<release>/apt/       apt's private state, and the packages
//! <cache>/debian/<release>/kernel/    the package of the kernel that boots it, for its modules
//! ```
//! The folder stays until a system is made of it, so that an interrupted download goes on.

use super::apt::Apt;
use super::cache::{self, Lock};
use super::packages::{Fetched, Flavour, Refresh, fetch, packages_in};
use super::release::Release;
use super::sources::Sources;
use crate::room::taken;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::PathBuf;

/// What a system has beside what it cannot do without: an init, the network, and what people expect
/// when they log in.
const WANTED: [&str; 16] = [
    "apt",
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "login",
    "nano",
    "netbase",
    "passwd",
    "procps",
    "systemd-sysv",
    "udev",
];
/// Taken in place of others that would do and are larger, where there is one.
const PREFERRED: &str = "usr-is-merged";

/// A system that can be made.
#[derive(Debug)]
pub(crate) struct System {
    /// The host's sources, of the release.
    pub(crate) sources: Sources,
    /// What boots it.
    pub(crate) kernel: Fetched,
    packages: Vec<String>,
    /// The packages' files.
    names: Vec<String>,
    apt: Apt,
    folder: PathBuf,
    _lock: Lock,
}

impl System {
    /// The newest of `release`, with the newest kernel: which packages it has.
    ///
    /// # Errors
    /// No apt, no network, a full disk, a signature that does not verify.
    pub(crate) fn newest(release: Release) -> Result<Self> {
        let sources = Sources::of(release)?;
        let kernel = fetch(Flavour::Cloud, Refresh::Always)?;
        let root = cache::directory()?.join("debian");
        let lock = Lock::acquire(&root)?;
        let folder = root.join(release.name());
        let apt = Apt::with_sources(&folder.join("apt"), &sources)?;
        eprintln!("gemello: fetching the package lists of Debian {}", release.name());
        let updated = apt.update();
        let found = packages(&apt).and_then(|packages| Ok((apt.resolve(&packages)?, packages)));
        let (names, packages) = match (found, updated) {
            (Ok(found), _) => found,
            (Err(_), Err(error)) | (Err(error), Ok(())) => {
                return Err(error).with_context(|| unavailable(release));
            }
        };
        Ok(Self { sources, kernel, packages, names, apt, folder, _lock: lock })
    }

    /// What it is made of, in words: equal systems have equal ones.
    pub(crate) fn contents(&self) -> String {
        let files: String = self.sources.files.iter().map(|(_, text)| text.as_str()).collect();
        format!("{}\n{}\n{files}", self.kernel.release, self.names.join("\n"))
    }

    /// Downloads what is missing; the packages, and that of the kernel.
    ///
    /// # Errors
    /// No network, a full disk, a checksum that does not verify.
    pub(crate) fn download(&self) -> Result<(Vec<PathBuf>, PathBuf)> {
        eprintln!("gemello: fetching {} packages", self.names.len());
        self.apt.download_all(&self.packages)?;
        let archives = self.folder.join("apt/cache/archives");
        let packages: Vec<_> = self.names.iter().map(|name| archives.join(name)).collect();
        if let Some(missing) = packages.iter().find(|path| !path.is_file()) {
            bail!("apt-get has not downloaded {}; try again", missing.display());
        }
        Ok((packages, self.kernel_package()?))
    }

    fn kernel_package(&self) -> Result<PathBuf> {
        let line = self.kernel.release.lines().next().unwrap_or_default();
        let wanted = line.replacen(' ', "=", 1);
        let folder = self.folder.join("kernel");
        let refused = |error| cache::refused(&format!("cannot make {}", folder.display()), &error);
        fs::create_dir_all(&folder).map_err(refused)?;
        let apt = Apt::new(&cache::directory()?.join("debian/apt"))?; // the host's release
        apt.download(&[&wanted], &folder)?;
        let (name, version) = line.split_once(' ').unwrap_or((line, ""));
        let begin = format!("{name}_{}_", version.replace(':', "%3a"));
        let of_it = |path: &PathBuf| {
            path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&begin))
        };
        let found = packages_in(&folder)?.into_iter().find(of_it);
        found.with_context(|| format!("apt-get has not downloaded {wanted}; try again"))
    }

    /// The host's settings of apt whose names begin with one of `names`, as a file has them.
    ///
    /// # Errors
    /// apt cannot be run.
    pub(crate) fn settings(&self, names: &[&str]) -> Result<String> {
        self.apt.settings(names)
    }

    /// Removes what was downloaded: a system is made of it.
    pub(crate) fn tidy(self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes what interrupted downloads have left; how many bytes that gives back.
///
/// # Errors
/// The host's.
pub(crate) fn prune() -> Result<u64> {
    let root = cache::directory()?.join("debian");
    let mut freed = 0;
    for release in [Release::Bookworm, Release::Trixie, Release::Sid] {
        let folder = root.join(release.name());
        if folder.exists() {
            let _lock = Lock::acquire(&root)?;
            freed += taken(&folder);
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(freed)
}

fn packages(apt: &Apt) -> Result<Vec<String>> {
    let mut packages = apt.essential()?;
    packages.extend(WANTED.map(str::to_owned));
    if apt.has(PREFERRED)? {
        packages.push(PREFERRED.to_owned());
    }
    Ok(packages)
}

fn unavailable(release: Release) -> String {
    let name = release.name();
    format!(
        "cannot have Debian {name}; where apt-get says NO_PUBKEY, this host's \
         debian-archive-keyring is older than {name}: update it, or choose another release with \
         --release"
    )
}
