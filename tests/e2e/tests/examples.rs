//! Every command that the help and README.md show, run as it is shown, in a folder that has the
//! files it names. gemello's own tests hold that each is parsed; what takes minutes is left out.

use crate::place;
use e2e::{RESET, cache, code, debian, prints, run, system_disk, text};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Not run here: what measures, needs a key pressed first or a machine that runs, fetches a system
/// or another kernel, or asks a registry. `saved.rs`, `balloon.rs`, `detached.rs`, `bench.rs`,
/// `images.rs` and `whole.rs` do.
const LEFT_OUT: [&str; 11] = [
    "--system",
    "docker://",
    "gemello bench",
    "gemello fetch debian",
    "--release",
    "gemello restore",
    "gemello balloon",
    "--detach",
    "--tier lockstep",
    "--flavour full",
    " web",
];

/// What the nucleus, which runs here, has no agent for; `guests.rs` has.
const OF_THE_AGENT: [&str; 4] = ["gemello exec", "gemello cp", "gemello nc", "gemello ssh"];

/// The commands in `text`'s indented lines, up to their explanation.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::trim);
    let shown = lines.filter_map(|line| Some(line.split("  ").next()?.split(" #").next()?.trim()));
    let ours = |line: &&str| line.starts_with("gemello") || line.contains("| gemello ");
    shown.filter(ours).map(str::to_owned).collect()
}

fn of_the_readme() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    commands(&fs::read_to_string(path).expect("README.md"))
}

fn every_command() -> BTreeSet<String> {
    let mut all = BTreeSet::from_iter(of_the_readme());
    for help in [&["--help"][..], &["run", "--help"], &["fetch", "--help"], &["doctor", "--help"]] {
        let output = run(help);
        assert_eq!(code(&output), 0, "{help:?}");
        let found = commands(&text(&output.stdout));
        assert!(!found.is_empty(), "{help:?} shows no example");
        all.extend(found);
    }
    for help in [["bench", "--help"], ["restore", "--help"]] {
        assert!(!commands(&text(&run(&help).stdout)).is_empty(), "{help:?} shows no example");
    }
    all
}

/// A folder with `gemello` in the path, and what the examples name.
fn filled() -> PathBuf {
    let place = place::place();
    let file = |name: &str, content: &[u8]| fs::write(place.join(name), content).expect("a file");
    file("names", b"b\na\nb\n");
    file("kernel.elf", &prints(b"text\r\n", RESET));
    file("init.bin", b"content");
    file("data.img", &[0; 1 << 20]);
    file("user-data", b"#cloud-config\n");
    fs::create_dir(place.join("src")).expect("a folder");
    let base = place.join("base.qcow2");
    assert_eq!(code(&run(&["disk", "create", base.to_str().expect("text"), "1M"])), 0);
    fs::copy(system_disk("qcow2"), place.join("system.qcow2")).expect("a disk");
    for name in ["web.toml", "db.toml"] {
        file(name, b"[boot]\nnucleus = \"\"\n");
    }
    file("machine.toml", b"[boot]\nkernel = \"kernel.elf\"\n");
    fs::copy(cache().join("cloud/vmlinuz"), place.join("vmlinuz")).expect("Debian's kernel");
    place::initrd(&place);
    place::image(&place, &["/bin/sh"]);
    place
}

/// Runs `line` in `place`; a guest that gives a shell is told to end. The input stays open.
fn paste(line: &str, place: &Path) -> (i32, String) {
    let mut shell = place::shell(line, place, place);
    shell.env_remove("XDG_RUNTIME_DIR");
    let out = fs::File::create(place.join("out")).expect("a file");
    shell.stdin(Stdio::piped()).stdout(out.try_clone().expect("a file")).stderr(out);
    let of_an_image = line.contains("oci:");
    if of_an_image {
        shell.env("XDG_CACHE_HOME", place.join("cache"));
    }
    let mut child = shell.spawn().expect("timeout");
    let mut input = child.stdin.take().expect("piped");
    // It may not read it. An image's shell is a command, and has a status.
    let _ = input.write_all(if of_an_image { b"exit\n".as_slice() } else { b"poweroff\n" });
    let status = child.wait().expect("a child");
    (status.code().unwrap_or(-1), text(&fs::read(place.join("out")).expect("there")))
}

/// Each has a folder of its own, in which its lines run one after the other.
const AT_ONCE: usize = 2;

#[test]
fn each_works_as_it_is_shown() {
    let _turn = debian("cloud");
    let here =
        |line: &String| line.contains("--list") || !LEFT_OUT.iter().any(|what| line.contains(what));
    let lines: Vec<String> = every_command().into_iter().filter(here).collect();
    assert!(lines.len() > 15, "{lines:?}");
    thread::scope(|scope| {
        for part in 0..AT_ONCE {
            let lines = lines.iter().skip(part).step_by(AT_ONCE);
            let named = thread::Builder::new().name(format!("examples-{part}"));
            named.spawn_scoped(scope, || try_each(lines)).expect("a thread");
        }
    });
}

fn try_each<'a>(lines: impl Iterator<Item = &'a String>) {
    let place = filled();
    for line in lines {
        let began = Instant::now();
        // A whole Debian takes minutes to make, and `whole.rs` does; the small guest does the same.
        let (status, told) = paste(&line.replace("run debian", "run busybox"), &place);
        assert_eq!(status, 0, "{line}: {told}");
        eprintln!("{:.1} s: {line}", began.elapsed().as_secs_f64());
    }
    fs::remove_dir_all(&place).expect("it is there");
}

/// A command line in `place`, with a runtime folder of its own.
fn shell(line: &str, place: &Path) -> Command {
    let mut shell = place::shell(line, place, place);
    shell.stdin(Stdio::null());
    shell
}

/// What is said to running machines, in the order in which it is shown.
#[test]
fn what_is_said_to_running_machines_works() {
    let _turn = debian("cloud");
    let place = filled();
    let there = |name: &str| place.join(format!("runtime/gemello/{name}.sock")).exists();
    for shown in [of_the_readme(), commands(&text(&run(&["ps", "--help"]).stdout))] {
        let shown = shown.into_iter().filter(|line| line.contains(" web"));
        let mut shown = shown.filter(|line| !OF_THE_AGENT.iter().any(|what| line.contains(what)));
        let first = shown.next().expect("machines are run first");
        let mut machines: Option<Child> = None;
        for line in shown {
            if !there("web") || !there("db") {
                end(machines.take());
                machines = Some(shell(&format!("exec {first}"), &place).spawn().expect("sh"));
                let deadline = Instant::now() + Duration::from_secs(60);
                while !there("web") || !there("db") {
                    assert!(Instant::now() < deadline, "{first}");
                    thread::sleep(Duration::from_millis(20));
                }
            }
            let console = line.contains("console");
            let said = if console { format!("timeout 5 {line}") } else { line.clone() };
            let output = shell(&said, &place).output().expect("sh");
            let told = text(&output.stdout) + &text(&output.stderr);
            if console {
                assert!(told.contains("nucleus>"), "{line}: {told}");
            } else {
                assert_eq!(code(&output), 0, "{line}: {told}");
            }
        }
        end(machines);
    }
    fs::remove_dir_all(&place).expect("it is there");
}

/// Ends the machines, if they run still. SIGTERM, which `timeout` passes on: killed, it would leave
/// them behind.
fn end(machines: Option<Child>) {
    if let Some(mut machines) = machines {
        let _ = kill_process(Pid::from_child(&machines), Signal::TERM);
        let _ = machines.wait();
    }
}
