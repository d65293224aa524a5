//! GRUB's configuration (`grub.cfg`). It is a script; what generators write of it is read:
//! variables that are set, menu entries and submenus, `linux` and `initrd` in them. Conditions are
//! not judged: both branches are read, in their order.

use crate::Entry;
use crate::volume::Volume;

/// Where the configuration may be.
const CONFIGURATIONS: [&str; 4] =
    ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];
/// Bytes of an environment block's first line.
const ENVIRONMENT: &str = "# GRUB Environment Block";
/// Menus in menus at the most.
const DEPTH_MAX: usize = 16;

/// The entry that GRUB would start without a key being pressed.
pub(crate) fn entry(volume: &Volume) -> Option<Entry> {
    let text = CONFIGURATIONS.iter().find_map(|path| volume.text(path))?;
    choose(&text, &environment(volume))
}

/// The variables that GRUB keeps between boots.
pub(crate) fn environment(volume: &Volume) -> Vec<(String, String)> {
    let path = |configuration: &&str| configuration.replace("grub.cfg", "grubenv");
    let text = CONFIGURATIONS.iter().find_map(|it| volume.text(&path(it)));
    let text = text.filter(|text| text.starts_with(ENVIRONMENT)).unwrap_or_default();
    let variable = |line: &str| {
        let (name, value) = line.split_once('=')?;
        (!name.starts_with('#')).then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(variable).collect()
}

/// A menu entry with what leads to it.
struct Item {
    /// Its titles or ids, from the outermost menu's.
    names: Vec<[String; 2]>,
    /// Its numbers, likewise.
    numbers: Vec<usize>,
    entry: Entry,
}

fn choose(text: &str, environment: &[(String, String)]) -> Option<Entry> {
    let mut parser = Parser { variables: environment.to_vec(), ..Parser::default() };
    text.lines().for_each(|line| parser.line(line));
    let items: Vec<_> = parser.items.into_iter().filter(|it| !it.entry.kernel.is_empty()).collect();
    let wanted = value(&parser.variables, "default").unwrap_or_default();
    let wanted = expand(&wanted, &parser.variables);
    let chosen = items.iter().position(|item| item.is(&wanted)).unwrap_or(0);
    items.into_iter().nth(chosen).map(|item| item.entry)
}

impl Item {
    /// Whether `wanted` names it: numbers, titles or ids with `>` between.
    fn is(&self, wanted: &str) -> bool {
        let parts: Vec<_> = wanted.split('>').collect();
        let same = |(part, (names, number)): (&&str, (&[String; 2], &usize))| {
            names.iter().any(|name| name == *part) || part.parse() == Ok(*number)
        };
        parts.len() == self.names.len()
            && parts.iter().zip(self.names.iter().zip(&self.numbers)).all(same)
    }
}

/// A block that is open.
enum Block {
    Menu { names: [String; 2], number: usize, items: usize },
    Entry,
    Other,
}

#[derive(Default)]
struct Parser {
    variables: Vec<(String, String)>,
    blocks: Vec<Block>,
    /// Entries and submenus of the outermost menu so far.
    top: usize,
    items: Vec<Item>,
}

impl Parser {
    fn line(&mut self, line: &str) {
        let words = words(line, &self.variables);
        let Some(first) = words.first() else { return };
        let inside = matches!(self.blocks.last(), Some(Block::Entry));
        let entry = self.items.last_mut().map(|item| &mut item.entry).filter(|_| inside);
        match (&**first, entry) {
            ("menuentry" | "submenu", _) => self.menu(&words),
            ("}", _) => drop(self.blocks.pop()),
            ("set", _) => {
                if let Some((name, value)) = words.get(1).and_then(|word| word.split_once('=')) {
                    self.set(name, value);
                }
            }
            ("linux" | "linux16" | "linuxefi", Some(entry)) => {
                entry.kernel = words.get(1).map(|path| local(path)).unwrap_or_default();
                entry.cmdline = words.get(2..).unwrap_or_default().join(" ");
            }
            ("initrd" | "initrd16" | "initrdefi", Some(entry)) => {
                entry.initrd.extend(words[1..].iter().map(|path| local(path)));
            }
            _ if words.last().is_some_and(|word| word == "{") => self.blocks.push(Block::Other),
            _ => {}
        }
    }

    /// The first value of `default` that is not itself kept between boots counts: conditions stand
    /// around the others.
    fn set(&mut self, name: &str, value: &str) {
        let value = value.trim_matches('"');
        let there = self.variables.iter().position(|(other, _)| other == name);
        let empty = |at: usize| self.variables[at].1.is_empty();
        match there {
            None => self.variables.push((name.to_owned(), value.to_owned())),
            Some(at) if name != "default" || empty(at) => self.variables[at].1 = value.to_owned(),
            Some(_) => {}
        }
    }

    fn menu(&mut self, words: &[String]) {
        if self.blocks.len() >= DEPTH_MAX {
            return self.blocks.push(Block::Other);
        }
        let title = words.get(1).cloned().unwrap_or_default();
        let id = words.windows(2).find(|pair| matches!(&*pair[0], "--id" | "menuentry_id_option"));
        let id = id.map(|pair| pair[1].clone()).unwrap_or_else(|| title.clone());
        let menu = |block: &mut Block| match block {
            Block::Menu { names: _, number: _, items } => {
                Some(std::mem::replace(items, *items + 1))
            }
            Block::Entry | Block::Other => None,
        };
        let number = self.blocks.iter_mut().rev().find_map(menu);
        let number = number.unwrap_or_else(|| {
            self.top += 1;
            self.top - 1
        });
        let names = [title.clone(), id];
        if words[0] == "submenu" {
            return self.blocks.push(Block::Menu { names, number, items: 0 });
        }
        let outer = self.blocks.iter().filter_map(|block| match block {
            Block::Menu { names, number, items: _ } => Some((names.clone(), *number)),
            Block::Entry | Block::Other => None,
        });
        let (names, numbers) = outer.chain([(names, number)]).unzip();
        let entry = Entry { title, ..Entry::default() };
        self.items.push(Item { names, numbers, entry });
        self.blocks.push(Block::Entry);
    }
}

/// A path without the device in front of it: `(hd0,gpt1)/vmlinuz`, `($root)/vmlinuz`.
fn local(path: &str) -> String {
    let rest = path.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|it| it.1);
    rest.unwrap_or(path).to_owned()
}

/// The words of a line, without quotes and with variables filled in. A comment ends it.
fn words(line: &str, variables: &[(String, String)]) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t' | ';') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None | Some('"'), '$') => {
                let name = variable(&mut chars);
                // The one that generators write to name an option: its value is `--id`.
                let found = value(variables, &name);
                let found = found.or_else(|| (name == "menuentry_id_option").then(|| name.clone()));
                word.get_or_insert_default().push_str(&found.unwrap_or_default());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A variable's name behind its `$`.
fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    if chars.next_if_eq(&'{').is_some() {
        return chars.by_ref().take_while(|&c| c != '}').collect();
    }
    let mut name = String::new();
    while let Some(c) = chars.next_if(|&c| c.is_ascii_alphanumeric() || c == '_') {
        name.push(c);
    }
    name
}

fn value(variables: &[(String, String)], name: &str) -> Option<String> {
    variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
}

/// `text` with variables filled in; those that are not set are nothing.
pub(crate) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '$' => expanded.push_str(&value(variables, &variable(&mut chars)).unwrap_or_default()),
            c => expanded.push(c),
        }
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's update-grub writes it.
    const DEBIAN: &str = include_str!("../tests/debian.cfg");

    fn with(variables: &[(&str, &str)]) -> Entry {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        choose(DEBIAN, &variables.iter().map(own).collect::<Vec<_>>()).expect("an entry")
    }

    #[test]
    fn the_first_entry_is_the_default() {
        let expected = Entry {
            title: "Debian GNU/Linux".into(),
            kernel: "/boot/vmlinuz-6.1.0-57".into(),
            initrd: vec!["/boot/initrd.img-6.1.0-57".into()],
            cmdline: "root=PARTUUID=2 ro console=tty0 console=ttyS0,115200".into(),
        };
        assert_eq!(with(&[]), expected);
        assert_eq!(with(&[("next_entry", "nonsense")]), expected);
    }

    #[test]
    fn the_environment_chooses_by_title_id_or_number() {
        for chosen in ["1>1", "gnulinux-advanced-1>old", "1>Debian GNU/Linux, with Linux 6.1.0-9"] {
            let entry = with(&[("next_entry", chosen)]);
            assert_eq!(entry.kernel, "/boot/vmlinuz-6.1.0-9", "{chosen}");
            assert_eq!(entry.initrd, ["/boot/microcode.img", "/boot/initrd.img-6.1.0-9"]);
            assert_eq!(entry.cmdline, "root=PARTUUID=2 quoted words  single");
        }
        assert_eq!(with(&[("next_entry", "1>0")]).title, "Debian GNU/Linux, with Linux 6.1.0-57");
    }

    #[test]
    fn a_script_without_entries_has_none() {
        for text in ["", "menuentry", "menuentry x {\n", "}\n}\n}", "linux /vmlinuz", "set", "${"] {
            assert_eq!(choose(text, &[]), None, "{text}");
        }
        let deep = "submenu x {\n".repeat(100) + "menuentry y {\nlinux /k\n";
        assert_eq!(choose(&deep, &[]), None);
    }
}
