//! Entries of the Boot Loader Specification (type 1): a file each in `loader/entries`.

use crate::Entry;
use crate::grub;
use crate::version;
use crate::volume::Volume;

/// Folders that entries are in, and what paths in them begin at.
const FOLDERS: [&str; 2] = ["/boot/loader/entries", "/loader/entries"];

/// The newest entry, by its version, then its name.
pub(crate) fn entry(volume: &Volume) -> Option<Entry> {
    let environment = grub::environment(volume);
    for folder in FOLDERS {
        let names = volume.names(folder);
        let names = names.iter().filter(|name| name.ends_with(".conf"));
        let read = |name: &String| {
            let text = volume.text(&format!("{folder}/{name}"))?;
            Some((parse(&text, &environment)?, name.clone()))
        };
        let newest = names.filter_map(read).max_by(|((a, _), name_a), ((b, _), name_b)| {
            version::compare(a, b).then_with(|| version::compare(name_a, name_b))
        });
        if let Some(((_, entry), _)) = newest {
            return Some(entry);
        }
    }
    None
}

/// The version and the entry in `text`; `environment` has GRUB's variables.
fn parse(text: &str, environment: &[(String, String)]) -> Option<(String, Entry)> {
    let mut entry = Entry::default();
    let mut version = String::new();
    let mut options = Vec::new();
    for line in text.lines() {
        let (key, value) = line.trim().split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        match key {
            "title" => value.clone_into(&mut entry.title),
            "version" => value.clone_into(&mut version),
            "linux" => value.clone_into(&mut entry.kernel),
            // GRUB lets several stand in a line.
            "initrd" => entry.initrd.extend(value.split_ascii_whitespace().map(str::to_owned)),
            "options" => options.push(grub::expand(value, environment)),
            _ => {}
        }
    }
    entry.initrd.retain(|path| !path.starts_with('$'));
    entry.cmdline = options.join(" ").trim().to_owned();
    (!entry.kernel.is_empty()).then_some((version, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_variables_filled_in() {
        let text = "title Fedora Linux (6.11) 41\nversion 6.11.4-301.fc41.x86_64\n\
            linux /vmlinuz-6.11.4\ninitrd /initramfs-6.11.4.img $tuned_initrd\n\
            options $kernelopts ro quiet\ngrub_users $grub_users\n# a comment\n";
        let environment = [("kernelopts".to_owned(), "root=UUID=1 rhgb".to_owned())];
        let (version, entry) = parse(text, &environment).expect("an entry");
        assert_eq!(version, "6.11.4-301.fc41.x86_64");
        let expected = Entry {
            title: "Fedora Linux (6.11) 41".into(),
            kernel: "/vmlinuz-6.11.4".into(),
            initrd: vec!["/initramfs-6.11.4.img".into()],
            cmdline: "root=UUID=1 rhgb ro quiet".into(),
        };
        assert_eq!(entry, expected);
        assert_eq!(parse("title nothing\n", &[]), None);
    }
}
