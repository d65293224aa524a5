//! Entries of the Boot Loader Specification (UAPI.1), as systemd-boot and GRUB read them: files of
//! text in `loader/entries` (type 1), and unified kernel images in `EFI/Linux` (type 2).

use crate::Entry;
use crate::grub;
use crate::version;
use crate::volume::Volume;
use std::cmp::{Ordering, Reverse};

/// Folders that entries are in.
const FOLDERS: [&str; 2] = ["/boot/loader/entries", "/loader/entries"];
/// The folder of unified kernel images.
const IMAGES: &str = "/EFI/Linux";
/// What says which entry is the default.
const LOADER: &str = "/loader/loader.conf";
/// Entries of a folder that are read, at the most.
const ENTRIES_MAX: usize = 256;

/// An entry, with what decides its place in the menu.
#[derive(Debug, Default, PartialEq, Eq)]
struct Item {
    /// Its file's name.
    id: String,
    sort_key: String,
    machine: String,
    version: String,
    /// The number of the file system that has it.
    volume: usize,
    entry: Entry,
}

/// The entry that is started without a key being pressed, and the number of its file system.
pub(crate) fn entry(volumes: &[Volume]) -> Option<(usize, Entry)> {
    let items = (0..).zip(volumes).flat_map(|(at, volume)| items(at, volume));
    let mut items: Vec<_> = items.collect();
    items.sort_by(order);
    let wanted = volumes.iter().find_map(|volume| wanted(&volume.text(LOADER)?));
    let is = |item: &Item| wanted.as_ref().is_some_and(|pattern| matches(pattern, &item.id));
    let chosen = items.iter().position(is).unwrap_or(0);
    items.into_iter().nth(chosen).map(|item| (item.volume, item.entry))
}

fn items(volume: usize, files: &Volume) -> Vec<Item> {
    let environment = grub::environment(files);
    let named = |folder: &str, ending: &str| {
        let mut names = files.names(folder);
        names.retain(|name| name.to_lowercase().ends_with(ending));
        names.truncate(ENTRIES_MAX);
        names
    };
    let mut items = Vec::new();
    for folder in FOLDERS {
        items.extend(named(folder, ".conf").into_iter().filter_map(|id| {
            let text = files.text(&format!("{folder}/{id}"))?;
            Some(Item { id, volume, ..parse(&text, &environment)? })
        }));
    }
    items.extend(named(IMAGES, ".efi").into_iter().map(|id| {
        let kernel = format!("{IMAGES}/{id}");
        let entry = Entry { title: id.clone(), kernel, ..Entry::default() };
        Item { version: id.to_lowercase(), id, volume, entry, ..Item::default() }
    }));
    items
}

/// The menu's order ("Sorting"): whoever has a key to sort by comes first; in the same system the
/// newest does. An entry that has failed as often as it may be tried is the last.
fn order(a: &Item, b: &Item) -> Ordering {
    let has_failed = |item: &Item| {
        let stem = item.id.rsplit_once('.').map_or(&*item.id, |it| it.0);
        stem.rsplit_once('+').is_some_and(|(_, tries)| tries.split('-').next() == Some("0"))
    };
    let place = |item: &Item| (has_failed(item), Reverse(!item.sort_key.is_empty()));
    let system = |item: &Item| match item.sort_key.as_str() {
        "" => (String::new(), String::new()),
        key => (key.to_owned(), item.machine.clone()),
    };
    place(a)
        .cmp(&place(b))
        .then_with(|| system(a).cmp(&system(b)))
        .then_with(|| version::compare(&b.version, &a.version))
        .then_with(|| version::compare(&b.id, &a.id))
}

/// What `loader.conf` says of the default. Words that begin with `@` ask for what a firmware keeps.
fn wanted(text: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.trim().split_once(char::is_whitespace)?;
        (key == "default").then(|| value.trim().to_owned())
    };
    text.lines().filter_map(value).next_back().filter(|value| !value.starts_with('@'))
}

/// Whether `pattern`, with `*` and `?`, stands for the entry `id`, whose ending may be left out.
fn matches(pattern: &str, id: &str) -> bool {
    let stem = id.rsplit_once('.').map_or(id, |it| it.0);
    [id, stem].into_iter().any(|name| glob(&pattern.to_lowercase(), &name.to_lowercase()))
}

fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // The last `*`, and what it stands for so far.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, end)) => {
                    *end += 1;
                    (p, n) = (*at + 1, *end);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// The entry in `text`; `environment` has GRUB's variables. None for another processor, and none
/// that starts a program of the firmware's.
fn parse(text: &str, environment: &[(String, String)]) -> Option<Item> {
    let mut item = Item::default();
    let mut options = Vec::new();
    for line in text.lines() {
        let (key, value) = line.trim().split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        let entry = &mut item.entry;
        match key {
            "title" => value.clone_into(&mut entry.title),
            "version" => value.clone_into(&mut item.version),
            "sort-key" => value.clone_into(&mut item.sort_key),
            "machine-id" => value.clone_into(&mut item.machine),
            "architecture" if !value.eq_ignore_ascii_case("x64") => return None,
            // Whether a file is a kernel, or has one in it, is seen when it is read.
            "linux" | "uki" => value.clone_into(&mut entry.kernel),
            // GRUB lets several stand in a line.
            "initrd" => entry.initrd.extend(value.split_ascii_whitespace().map(str::to_owned)),
            "options" => options.push(grub::expand(value, environment)),
            _ => {}
        }
    }
    item.entry.initrd.retain(|path| !path.starts_with('$'));
    item.entry.cmdline = options.join(" ").trim().to_owned();
    (!item.entry.kernel.is_empty()).then_some(item)
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
        let item = parse(text, &environment).expect("an entry");
        assert_eq!(item.version, "6.11.4-301.fc41.x86_64");
        let expected = Entry {
            title: "Fedora Linux (6.11) 41".into(),
            kernel: "/vmlinuz-6.11.4".into(),
            initrd: vec!["/initramfs-6.11.4.img".into()],
            cmdline: "root=UUID=1 rhgb ro quiet".into(),
        };
        assert_eq!(item.entry, expected);
        assert_eq!(parse("title nothing\n", &[]), None);
        assert_eq!(parse("linux /k\narchitecture aa64\n", &[]), None);
        assert!(parse("linux /k\narchitecture X64\n", &[]).is_some());
    }

    #[test]
    fn the_menu_has_the_specifications_order() {
        let item = |id: &str, sort_key: &str, version: &str| Item {
            id: id.into(),
            sort_key: sort_key.into(),
            version: version.into(),
            ..Item::default()
        };
        let expected = [
            item("c", "arch", "6.2"),
            item("b", "arch", "6.1.10"),
            item("a", "arch", "6.1.9"),
            item("x", "debian", "7"),
            item("z-10.efi", "", "z-10.efi"),
            item("z-9.efi", "", "z-9.efi"),
            item("c+0-3.conf", "arch", "6.3"),
        ];
        for (n, first) in expected.iter().enumerate() {
            for second in &expected[n + 1..] {
                assert_eq!(order(first, second), Ordering::Less, "{} {}", first.id, second.id);
                assert_eq!(order(second, first), Ordering::Greater);
            }
        }
        assert_eq!(order(&item("a+3.conf", "k", "1"), &item("b", "k", "0")), Ordering::Less);
    }

    #[test]
    fn a_default_is_a_pattern() {
        let said = "# a comment\ndefault first\ntimeout 3\ndefault  debian-*\n";
        assert_eq!(wanted(said), Some("debian-*".into()));
        assert_eq!(wanted("default @saved\n"), None);
        for (pattern, id) in [
            ("debian-*", "debian-6.1.conf"),
            ("debian-6.1", "debian-6.1.conf"),
            ("DEBIAN-?.1.conf", "debian-6.1.conf"),
            ("*6*1*", "debian-6.1.conf"),
            ("*", "x.efi"),
        ] {
            assert!(matches(pattern, id), "{pattern} {id}");
        }
        for (pattern, id) in [("debian", "debian-6.1.conf"), ("?", "ab.conf"), ("*x", "ab.conf")] {
            assert!(!matches(pattern, id), "{pattern} {id}");
        }
    }
}
