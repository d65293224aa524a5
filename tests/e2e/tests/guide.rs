//! The guide's pages, docs/guide: each command in them does what is shown.
//!
//! A block of `console` has commands behind `$ ` and what they put out. It is one shell's, so `$?`
//! may be asked. `…` in a line is anything, alone in a line any lines. A command whose status is
//! not asked has to succeed. Lines behind `/root # ` are typed on a terminal.

use crate::place;
use e2e::{Ends, Session, cache, debian, system_disk, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
/// What a shell in a guest shows before it reads.
const PROMPT: &str = "/root # ";
/// Between what two commands put out.
const MARK: char = '\u{1e}';

fn folder() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide")).to_owned()
}

/// A command, and the lines that are shown of what it puts out.
#[derive(Debug)]
struct Shown<'a> {
    command: &'a str,
    output: Vec<&'a str>,
}

/// The commands of each block of a page.
fn blocks(page: &str) -> Vec<Vec<Shown<'_>>> {
    let mut blocks = Vec::new();
    for block in page.split("\n```console\n").skip(1) {
        let (block, _) = block.split_once("\n```").expect("a block's end");
        let mut shown: Vec<Shown<'_>> = Vec::new();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => shown.push(Shown { command, output: Vec::new() }),
                None => shown.last_mut().expect("a command comes first").output.push(line),
            }
        }
        blocks.push(shown);
    }
    blocks
}

/// Whether `line` is what `pattern` says.
fn is(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else { return pattern == line };
    let Some(after) = line.strip_prefix(start) else { return false };
    after.char_indices().map(|(at, _)| at).chain([after.len()]).any(|at| is(rest, &after[at..]))
}

fn are(patterns: &[&str], lines: &[&str]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), first) => {
            are(rest, lines) || first.is_some_and(|(_, lines)| are(patterns, lines))
        }
        (Some((pattern, patterns)), Some((line, lines))) => {
            is(pattern, line) && are(patterns, lines)
        }
        _ => false,
    }
}

#[test]
fn what_is_shown_is_compared() {
    let page = "x\n```console\n$ a\n…\nb …\n$ c\n```\n";
    let blocks = blocks(page);
    let commands: Vec<_> = blocks.iter().flatten().map(|shown| shown.command).collect();
    assert_eq!(commands, ["a", "c"]);
    let shown = &blocks[0][0].output;
    assert!(are(shown, &["b x"]) && are(shown, &["", "a", "b "]));
    assert!(!are(shown, &["b x", "c"]) && !are(shown, &[]) && !are(shown, &["ab x"]));
    assert!(are(&[], &[]) && !are(&[], &["x"]));
    assert!(is("…a…", "bac") && !is("…a", "ab"));
}

/// The page called `name`, in a folder that has what `fill` puts there.
fn follow(name: &str, fill: impl FnOnce(&Path)) {
    let _turn = debian("cloud");
    let place = place::place();
    let here = place.join("here");
    fs::create_dir(&here).expect("a folder");
    fill(&here);
    let page = fs::read_to_string(folder().join(name)).expect("a page");
    for block in blocks(&page) {
        if block.iter().any(|shown| shown.output.iter().any(|line| line.starts_with(PROMPT))) {
            typed(&block, &place, &here);
        } else {
            run(&block, &place, &here);
        }
    }
    fs::remove_dir_all(&place).expect("it is there");
}

/// Runs a block in one shell.
fn run(block: &[Shown<'_>], place: &Path, here: &Path) {
    let marked = |shown: &Shown<'_>| {
        format!("{}\nlast=$?; printf '{MARK}%s{MARK}' $last; (exit $last)\n", shown.command)
    };
    let script: String = block.iter().map(marked).collect();
    let mut shell = place::shell(&script, place, here);
    let out = fs::File::create(place.join("out")).expect("a file");
    shell.env("HOME", place.join("home")).env("XDG_CACHE_HOME", place.join("cache"));
    shell.stdin(Stdio::null()).stdout(out.try_clone().expect("a file")).stderr(out);
    let began = std::time::Instant::now();
    shell.status().expect("a shell");
    let told = text(&fs::read(place.join("out")).expect("what was put out")).replace('\r', "");
    eprintln!("{:.1} s: {}", began.elapsed().as_secs_f64(), block[0].command);
    let mut told = told.split(MARK);
    let asked = |n: usize| block.get(n + 1).is_some_and(|next| next.command == "echo $?");
    for (n, Shown { command, output }) in block.iter().enumerate() {
        let (said, status) = (told.next().unwrap_or_default(), told.next());
        let lines: Vec<_> = said.lines().collect();
        assert!(are(output, &lines), "{command}\nputs out:\n{said}\nand not:\n{output:#?}");
        let fine = status == Some("0") || status.is_some() && asked(n);
        assert!(fine, "{command}: status {status:?}\n{said}");
    }
}

/// Types a block on a terminal.
fn typed(block: &[Shown<'_>], place: &Path, here: &Path) {
    let [Shown { command, output }] = block else { panic!("one command is on a terminal") };
    let line = format!("exec {command}");
    let (mut session, _terminal) =
        Session::on_terminal(&place::shell(&line, place, here), &Ends::default());
    for line in output {
        match line.strip_prefix(PROMPT) {
            Some(words) => {
                session.expect(PROMPT, LONG);
                session.send(&format!("{words}\r"));
                session.expect("\n", LONG);
            }
            None => drop(session.expect(line, LONG)),
        }
    }
    assert_eq!(session.finish(LONG).0, 0, "{command}");
}

#[test]
fn every_page_is_followed() {
    let names = fs::read_dir(folder()).expect("the guide").map(|entry| entry.expect("a page"));
    let mut names: Vec<_> =
        names.map(|name| name.file_name().into_string().expect("text")).collect();
    names.sort_unstable();
    let followed = ["ci", "disks", "images", "machines", "network", "rootfs", "run", "shares"];
    let pages = followed.map(|name| format!("{name}.md"));
    assert_eq!(names, [&["README.md".to_owned()][..], &pages].concat());
    let index = fs::read_to_string(folder().join("README.md")).expect("the index");
    assert!(pages.iter().all(|page| index.contains(&format!("({page})"))));
}

fn nothing(_: &Path) {}

#[test]
#[ignore = "boots ten guests"]
fn run_a_guest() {
    follow("run.md", |here| {
        fs::copy(cache().join("cloud/vmlinuz"), here.join("vmlinuz")).expect("a kernel");
        place::initrd(here);
    });
}

#[test]
#[ignore = "boots some guests"]
fn your_own_files_as_its_root() {
    follow("rootfs.md", |here| {
        fs::copy(cache().join("cloud/busybox"), here.join("busybox")).expect("busybox");
    });
}

#[test]
#[ignore = "boots some guests"]
fn images() {
    let says = "echo the image\\'s own command";
    follow("images.md", |here| place::image(here, &["/bin/sh", "-c", says]));
}

#[test]
#[ignore = "boots some guests"]
fn disks() {
    follow("disks.md", |here| {
        fs::copy(system_disk("qcow2"), here.join("system.qcow2")).expect("a disk");
        fs::write(here.join("empty.img"), [0; 1 << 20]).expect("a disk");
    });
}

#[test]
#[ignore = "boots some guests"]
fn the_network() {
    follow("network.md", nothing);
}

#[test]
#[ignore = "boots some guests"]
fn shared_folders() {
    follow("shares.md", nothing);
}

#[test]
#[ignore = "boots some guests"]
fn many_machines() {
    follow("machines.md", nothing);
}

#[test]
#[ignore = "boots some guests"]
fn in_ci_and_containers() {
    follow("ci.md", nothing);
}
