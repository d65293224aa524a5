//! The host's apt, used without root and without touching the host's own state.
//!
//! A private configuration points apt's state and cache below a directory of ours, while its
//! sources and keyrings stay the system's: so apt itself verifies signatures exactly as it does for
//! the host.

use super::cache::{self, ROOM};
use super::sources::Sources;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// How to go on without apt.
const WITHOUT: &str =
    "give a kernel and an initial file system of your own instead, with --kernel and --initrd";

/// Hooks of the host's configuration that act on the host are dropped, and so is what we do not
/// read.
const CONFIGURATION: &str = r#"
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
APT::Sandbox::User "";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
"#;

/// For packages that are all installed anew.
const ALONE: &str = r#"
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
APT::Keep-Downloaded-Packages "true";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
"#;

/// A disk with less than this many bytes free is to blame for what failed on it.
const FULL: u64 = 4 << 20;

/// apt with a private state.
#[derive(Debug)]
pub(super) struct Apt {
    configuration: PathBuf,
}

impl Apt {
    /// Sets the private state up below `root` (created if need be).
    ///
    /// # Errors
    /// There is no apt, or the directory cannot be written.
    pub(super) fn new(root: &Path) -> Result<Self> {
        Self::set_up(root, "")
    }

    /// The same for the packages of `sources` in place of the host's, which nothing of the host's
    /// preferences chooses among.
    ///
    /// # Errors
    /// There is no apt, or the directory cannot be written.
    pub(super) fn with_sources(root: &Path, sources: &Sources) -> Result<Self> {
        let folder = root.join("sources.list.d");
        let write = || -> std::io::Result<()> {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder)?;
            let mut files = sources.files.iter();
            files.try_for_each(|(name, text)| fs::write(folder.join(name), text))
        };
        write().map_err(|error| {
            cache::refused(&format!("cannot fill {}", folder.display()), &error)
        })?;
        let folder = quoted(&folder);
        let more = format!(
            "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts {folder};\n{ALONE}"
        );
        Self::set_up(root, &more)
    }

    fn set_up(root: &Path, more: &str) -> Result<Self> {
        require("apt-get")?;
        require("dpkg-deb")?;
        let write = || -> std::io::Result<PathBuf> {
            fs::create_dir_all(root)?;
            // By the path that lasts: a link to the cache may be gone when apt next reads this.
            let root = fs::canonicalize(root)?;
            let (state, cache) = (root.join("state"), root.join("cache"));
            fs::create_dir_all(state.join("lists/partial"))?;
            fs::create_dir_all(cache.join("archives/partial"))?;
            fs::write(state.join("status"), "")?;
            let configuration = root.join("apt.conf");
            let text = format!(
                "Dir::State {};\nDir::State::status {};\nDir::Cache {};\n{CONFIGURATION}{more}",
                quoted(&state),
                quoted(&state.join("status")),
                quoted(&cache)
            );
            fs::write(&configuration, text)?;
            Ok(configuration)
        };
        let configuration = write().map_err(|error| {
            let what = format!("cannot set up apt's private state in {}", root.display());
            cache::refused(&what, &error)
        })?;
        Ok(Self { configuration })
    }

    /// Fetches and verifies the package lists; progress goes to standard error.
    ///
    /// # Errors
    /// No network, or a signature that does not verify.
    pub(super) fn update(&self) -> Result<()> {
        // Without this apt calls a list it could not fetch a warning and succeeds.
        let arguments = ["-o", "APT::Update::Error-Mode=any", "update"];
        let advice = "check the network and the sources in /etc/apt";
        self.visible("apt-get", &arguments, None, advice)
            .context("cannot fetch Debian's package lists")
    }

    /// The first package that `package` depends on whose name starts with `prefix`.
    ///
    /// # Errors
    /// The host's sources have no such package.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let found = self.dependencies(package)?.into_iter().find(|name| name.starts_with(prefix));
        match found {
            Some(name) => Ok(name),
            None => bail!(
                "the sources in /etc/apt offer no package {package}: are they Debian's?; {WITHOUT}"
            ),
        }
    }

    /// The packages that `package` depends on, virtual ones left out.
    ///
    /// # Errors
    /// apt cannot be run.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let output = self.quiet("apt-cache", &["depends", "--important", package])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text
            .lines()
            .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "))
            .filter(|name| !name.starts_with('<'));
        Ok(names.map(str::to_owned).collect())
    }

    /// The version of `package` that would be downloaded.
    ///
    /// # Errors
    /// The host's sources have no such package.
    pub(super) fn version(&self, package: &str) -> Result<String> {
        let output = self.quiet("apt-cache", &["show", "--no-all-versions", package])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        version.map(str::to_owned).with_context(|| {
            format!(
                "the sources in /etc/apt offer no package {package}: are they Debian's?; {WITHOUT}"
            )
        })
    }

    /// Downloads and verifies `packages` into `directory`, progress on standard error.
    ///
    /// # Errors
    /// No network, no space, or a checksum that does not verify.
    pub(super) fn download(&self, packages: &[&str], directory: &Path) -> Result<()> {
        let arguments: Vec<_> = ["download"].iter().chain(packages).copied().collect();
        self.visible("apt-get", &arguments, Some(directory), "check the network")
            .with_context(|| format!("cannot download {}", packages.join(", ")))
    }

    /// What a system cannot do without: every package that is essential or required.
    ///
    /// # Errors
    /// apt cannot be run, or knows no package.
    pub(super) fn essential(&self) -> Result<Vec<String>> {
        let output = self.quiet("apt-cache", &["dumpavail"])?;
        let mut names: Vec<_> = String::from_utf8_lossy(&output.stdout)
            .split("\n\n")
            .filter(|stanza| {
                stanza.lines().any(|it| it == "Essential: yes" || it == "Priority: required")
            })
            .filter_map(|stanza| stanza.lines().find_map(|it| it.strip_prefix("Package: ")))
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            bail!("the sources in /etc/apt have no packages of this release");
        }
        Ok(names)
    }

    /// Whether there is a package of this name.
    ///
    /// # Errors
    /// apt cannot be run.
    pub(super) fn has(&self, package: &str) -> Result<bool> {
        let output = self.quiet("apt-cache", &["show", "--no-all-versions", package])?;
        Ok(output.status.success() && !output.stdout.is_empty())
    }

    /// The names of the files of `packages`, and of all that they depend on.
    ///
    /// # Errors
    /// The packages cannot be had together.
    pub(super) fn resolve(&self, packages: &[String]) -> Result<Vec<String>> {
        let words = ["-y", "-qq", "--simulate", "install"].into_iter();
        let words: Vec<_> = words.chain(packages.iter().map(String::as_str)).collect();
        let output = self.quiet("apt-get", &words)?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            bail!("apt-get finds no way to install a whole system: {words}");
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(said.lines().filter_map(file_of).collect())
    }

    /// Downloads and verifies `packages` and all that they depend on, as far as that has not been
    /// done. Progress goes to standard error.
    ///
    /// # Errors
    /// No network, no space, or a checksum that does not verify.
    pub(super) fn download_all(&self, packages: &[String]) -> Result<()> {
        let words = ["-y", "-q", "--download-only", "install"].into_iter();
        let words: Vec<_> = words.chain(packages.iter().map(String::as_str)).collect();
        self.visible("apt-get", &words, None, "check the network")
            .context("cannot download Debian's packages")
    }

    /// The host's settings whose names begin with one of `names`, as a file has them.
    ///
    /// # Errors
    /// apt cannot be run.
    pub(super) fn settings(&self, names: &[&str]) -> Result<String> {
        let output = self.quiet("apt-config", &["dump"])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted = said.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        Ok(wanted.map(|line| format!("{line}\n")).collect())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.configuration).args(arguments);
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null());
        command
    }

    fn quiet(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let output = self.command(program, arguments).output();
        output.with_context(|| format!("cannot run {program}"))
    }

    /// Runs with standard output and error on our standard error: ours stays clean for the guest.
    /// Where it fails on a disk that is not full, `advice` says what to do.
    fn visible(
        &self,
        program: &str,
        arguments: &[&str],
        directory: Option<&Path>,
        advice: &str,
    ) -> Result<()> {
        let mut command = self.command(program, arguments);
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        command.stdout(Stdio::from(rustix::io::dup(rustix::stdio::stderr())?));
        let status = command.status().with_context(|| format!("cannot run {program}"))?;
        if status.success() {
            return Ok(());
        }
        let place = directory.or(self.configuration.parent()).unwrap_or(Path::new("."));
        let free =
            rustix::fs::statvfs(place).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free.is_ok_and(|bytes| bytes < FULL) {
            bail!("the disk with {} is full; {ROOM}", place.display());
        }
        bail!("{program} ended with {status}, its messages are above; {advice}")
    }
}

/// Unpacks a package's files into `directory`.
///
/// # Errors
/// The package is damaged or the disk is full; dpkg-deb's own words are in the message.
pub(super) fn unpack(package: &Path, directory: &Path) -> Result<()> {
    let output = Command::new("dpkg-deb")
        .arg("--extract")
        .args([package, directory])
        .env("LC_ALL", "C.UTF-8")
        .output()
        .context("cannot run dpkg-deb")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(unpack_failure(package, directory, &String::from_utf8_lossy(&output.stderr)))
}

/// One line, whatever dpkg-deb and the tar that it runs have said in several.
pub(super) fn unpack_failure(package: &Path, directory: &Path, words: &str) -> String {
    let place = directory.display();
    let package = package.file_name().unwrap_or_default().to_string_lossy();
    if ["No space left on device", "Disk quota exceeded"].iter().any(|full| words.contains(full)) {
        return format!("cannot unpack {package}: the disk with {place} is full; {ROOM}");
    }
    let words = words.trim().replace('\n', "; ");
    format!("cannot unpack {package} into {place}: {words}; try once more")
}

fn require(program: &str) -> Result<()> {
    let probe = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match probe {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            bail!(
                "this host has no {program}, which fetches and verifies Debian's packages; \
                 {WITHOUT}"
            )
        }
        Err(e) => Err(e).with_context(|| format!("cannot run {program}; {WITHOUT}")),
    }
}

/// Whether `apt-get` can be run here.
pub(crate) fn present() -> bool {
    require("apt-get").is_ok() && require("dpkg-deb").is_ok()
}

/// The file of the package that a line of a simulation installs, as apt calls it:
/// `Inst NAME (VERSION ARCHIVE [ARCHITECTURE])`.
fn file_of(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let name = name.split([':', ' ']).next()?;
    let version = rest.split(' ').next()?.replace(':', "%3a");
    // Another bracket may follow the parenthesis: what is not configured yet.
    let architecture = rest.split(')').next()?.rsplit_once('[')?.1.split(']').next()?;
    Some(format!("{name}_{version}_{architecture}.deb"))
}

/// A path as apt.conf(5) reads it.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_up_through_a_link_outlives_it() {
        let place = std::env::temp_dir().join(format!("gemello-apt-{}", std::process::id()));
        let (real, link) = (place.join("real"), place.join("link"));
        fs::create_dir_all(&real).expect("a folder");
        std::os::unix::fs::symlink(&real, &link).expect("a link");
        let apt = Apt::new(&link.join("apt")).expect("the host's apt");
        let configuration = fs::read_to_string(apt.configuration).expect("written");
        fs::remove_dir_all(&place).expect("there");
        assert!(configuration.contains("real/apt/state"), "{configuration}");
        assert!(!configuration.contains("link/"), "{configuration}");
    }

    #[test]
    fn a_full_disk_is_blamed_in_one_line() {
        let said = "tar: ./boot/vmlinuz: Wrote only 2048 of 10240 bytes\n\
            tar: ./lib: Cannot mkdir: No space left on device\n\
            tar: Exiting with failure status due to previous errors\n\
            dpkg-deb: error: tar subprocess returned error exit status 2\n";
        let (package, place) = (Path::new("/cache/linux.deb"), Path::new("/cache/files"));
        let line = unpack_failure(package, place, said);
        assert!(line.starts_with("cannot unpack linux.deb: the disk with /cache/files is full;"));
        assert!(!line.contains('\n') && !line.contains("tar"), "{line}");
        let line = unpack_failure(package, place, "dpkg-deb: error: not a Debian format archive\n");
        assert!(!line.contains('\n') && !line.contains("full"), "{line}");
    }

    #[test]
    fn a_simulation_names_the_files() {
        let file = |line: &str| file_of(line);
        assert_eq!(
            file("Inst libc6 (2.41-12 Debian:13.0/stable [amd64])").as_deref(),
            Some("libc6_2.41-12_amd64.deb")
        );
        let line = "Inst login (1:4.16.0-2+really2.41-5 Debian:13.0/stable, Other:13 [all]) []";
        let expected = "login_1%3a4.16.0-2+really2.41-5_all.deb";
        assert_eq!(file(line).as_deref(), Some(expected));
        assert_eq!(file("Conf libc6 (2.41-12 Debian:13.0/stable [amd64])"), None);
    }
}
