//! Packages as a root file system that dpkg takes for one that it has unpacked: their files, and
//! its database (dpkg's source, doc/triggers.txt and dpkg-query(1), tell its form).

use crate::debian::{Deb, refused};
use anyhow::{Context as _, Result, anyhow, bail};
use md5::{Digest as _, Md5};
use rootfs::{Content, Entry, Kind, Owner, Time, Tree};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// dpkg's database.
const DATABASE: &str = "var/lib/dpkg";
/// Where programs and libraries are: what packages call `/bin` is a link to `/usr/bin`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// A root that is put together.
pub(super) struct Assembly {
    tree: Tree,
    /// The content of all files.
    spool: File,
    status: String,
    /// What is interested in each path or name.
    triggers: BTreeMap<String, String>,
    /// Packages that the others take for granted.
    pub(super) essential: Vec<String>,
}

impl Assembly {
    /// Nothing but folders; content goes to `spool`.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn new(spool: File) -> Result<Self> {
        let triggers = BTreeMap::new();
        let (tree, status, essential) = (Tree::default(), String::new(), Vec::new());
        let mut this = Self { tree, spool, status, triggers, essential };
        for name in MERGED {
            let target = format!("usr/{name}");
            this.tree.make_folder(target.as_bytes())?;
            this.put(name, 0o777, Kind::Symlink(target.into_bytes()))?;
        }
        for folder in ["info", "updates", "parts", "alternatives", "triggers"] {
            this.tree.make_folder(format!("{DATABASE}/{folder}").as_bytes())?;
        }
        Ok(this)
    }

    /// Unpacks a package.
    ///
    /// # Errors
    /// It is damaged, or the disk is full.
    pub(super) fn unpack(&mut self, package: &Path) -> Result<()> {
        let deb = Deb::read(package, &mut self.spool)?;
        let damaged = |error| anyhow!("{} is damaged: {error}", package.display());
        let paths = self.tree.install(&self.spool, deb.files).map_err(damaged)?;
        let name = deb.control.qualified();
        if name.is_empty() || name.contains('/') {
            bail!("{} is no package: it has no name", package.display());
        }
        self.file(&format!("{DATABASE}/info/{name}.list"), 0o644, &list(&paths))?;
        for (file, mode, content) in &deb.others {
            let path = format!("{DATABASE}/info/{name}.{file}");
            self.put(&path, *mode, Kind::File(*content))?;
        }
        let conffiles = deb.said("conffiles", &self.spool)?;
        let conffiles = self.sums(&conffiles)?;
        self.status += &deb.control.stanza(&conffiles);
        let interest = deb.said("triggers", &self.spool)?;
        interests(&interest, &name, &mut self.triggers);
        if deb.control.is_essential() {
            self.essential.push(deb.control.package().to_owned());
        }
        Ok(())
    }

    /// Of the archive of a package that is not installed: its files alone.
    ///
    /// # Errors
    /// It is damaged, or the disk is full.
    pub(super) fn add_files(&mut self, package: &Path) -> Result<()> {
        let deb = Deb::read(package, &mut self.spool)?;
        let damaged = |error| anyhow!("{} is damaged: {error}", package.display());
        self.tree.install(&self.spool, deb.files).map_err(damaged)?;
        Ok(())
    }

    /// Makes a file of root's.
    ///
    /// # Errors
    /// The host's, or its path leads nowhere.
    pub(super) fn file(&mut self, path: &str, mode: u16, content: &[u8]) -> Result<()> {
        let mut write = || {
            let offset = self.spool.seek(SeekFrom::End(0))?;
            self.spool.write_all(content)?;
            Ok(Content { offset, bytes: content.len() as u64 })
        };
        let content = write().map_err(|error: std::io::Error| {
            refused("cannot write the unpacked packages", &error)
        })?;
        self.put(path, mode, Kind::File(content))
    }

    fn put(&mut self, path: &str, mode: u16, kind: Kind) -> Result<()> {
        let (owner, modified) = (Owner::default(), Time::default());
        let (path, attributes) = (path.as_bytes().to_vec(), Vec::new());
        let entry = Entry { path, kind, mode, owner, modified, attributes };
        self.tree.lay(entry).map(drop).context("cannot lay out the system")
    }

    /// Whether there is a file at `path`.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn has(&mut self, path: &str) -> Result<bool> {
        Ok(self.tree.read(&self.spool, path.as_bytes())?.is_some())
    }

    /// Each of the files that `list` names, and its sum.
    fn sums(&mut self, list: &str) -> Result<Vec<(String, String)>> {
        let mut sums = Vec::new();
        for path in list.lines().map(str::trim).filter(|line| line.starts_with('/')) {
            let Some(content) = self.tree.read(&self.spool, path.as_bytes())? else { continue };
            let sum = Md5::digest(&content);
            sums.push((path.to_owned(), sum.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        Ok(sums)
    }

    /// The whole, with the database.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn finish(mut self) -> Result<(Tree, File)> {
        let status = std::mem::take(&mut self.status);
        self.file(&format!("{DATABASE}/status"), 0o644, status.as_bytes())?;
        self.file(&format!("{DATABASE}/info/format"), 0o644, b"1\n")?;
        for empty in ["available", "diversions", "statoverride"] {
            self.file(&format!("{DATABASE}/{empty}"), 0o644, b"")?;
        }
        let mut files = String::new();
        for (trigger, who) in std::mem::take(&mut self.triggers) {
            if trigger.starts_with('/') {
                files.extend(who.lines().map(|who| format!("{trigger} {who}\n")));
            } else if !trigger.contains('/') {
                self.file(&format!("{DATABASE}/triggers/{trigger}"), 0o644, who.as_bytes())?;
            }
        }
        self.file(&format!("{DATABASE}/triggers/File"), 0o644, files.as_bytes())?;
        Ok((self.tree, self.spool))
    }
}

/// A package's list of files.
fn list(paths: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::new();
    for path in paths {
        list.extend_from_slice(if path.is_empty() { b"/." } else { path });
        list.push(b'\n');
    }
    list
}

/// Notes what `text`, the file `triggers` of the package `name`, is interested in
/// (deb-triggers(5)).
fn interests(text: &str, name: &str, triggers: &mut BTreeMap<String, String>) {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (Some(what), Some(trigger)) = (words.next(), words.next()) else { continue };
        let waits = match what {
            "interest" | "interest-await" => "",
            "interest-noawait" => "/noawait",
            _ => continue,
        };
        *triggers.entry(trigger.to_owned()).or_default() += &format!("{name}{waits}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A package with the files of `script`, which dpkg-deb makes in `folder`.
    fn package(folder: &Path, script: &str) -> std::path::PathBuf {
        let script = format!(
            "set -e\nmkdir -p p/DEBIAN\ncd p\n{script}\ncd ..\n\
            dpkg-deb --root-owner-group -b p x.deb >/dev/null\nrm -r p"
        );
        let status = Command::new("sh").args(["-c", &script]).current_dir(folder).status();
        assert!(status.expect("a shell").success());
        folder.join("x.deb")
    }

    #[test]
    fn an_unpacked_package_is_in_the_database() {
        let folder = std::env::temp_dir().join(format!("gemello-assembly-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let spool = folder.join("spool");
        let spool = File::options().read(true).write(true).create_new(true).open(spool);
        let mut assembly = Assembly::new(spool.expect("a file")).expect("an assembly");
        let deb = package(
            &folder,
            "mkdir -p bin etc/x lib; echo hello > bin/x; ln bin/x bin/y; echo set > etc/x/conf\n\
             printf '/etc/x/conf\\n' > DEBIAN/conffiles\n\
             printf 'interest-noawait /usr/lib\\ninterest x-name # why\\nactivate z\\n' \
             > DEBIAN/triggers\n\
             printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: m\\n\
             Essential: yes\\nDescription: d\\n' > DEBIAN/control",
        );
        assembly.unpack(&deb).expect("unpacked");
        assert_eq!(assembly.essential, ["x"]);
        let (mut tree, spool) = assembly.finish().expect("whole");
        let mut read = |path: &str| {
            let content = tree.read(&spool, path.as_bytes()).expect("read");
            String::from_utf8(content.unwrap_or_else(|| panic!("no {path}"))).expect("text")
        };
        // The links of the root have stayed links.
        assert_eq!((read("/usr/bin/x"), read("/bin/y")), ("hello\n".into(), "hello\n".into()));
        let status = read("/var/lib/dpkg/status");
        let sum = "fd328e7dac414ef8cac94502a95ccb4e";
        assert!(status.starts_with("Status: install ok unpacked\nPackage: x\n"), "{status}");
        assert!(status.contains(&format!("Conffiles:\n /etc/x/conf {sum}\n")), "{status}");
        let list = read("/var/lib/dpkg/info/x.list");
        assert!(list.starts_with("/.\n/bin\n/bin/x\n/bin/y\n"), "{list}");
        assert_eq!(read("/var/lib/dpkg/info/x.conffiles"), "/etc/x/conf\n");
        assert_eq!(read("/var/lib/dpkg/triggers/File"), "/usr/lib x/noawait\n");
        assert_eq!(read("/var/lib/dpkg/triggers/x-name"), "x\n");
        std::fs::remove_dir_all(&folder).expect("it is there");
    }
}
