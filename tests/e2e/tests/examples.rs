//! Every command that the help and README.md show, run as it is shown, in a folder that has the
//! files it names. gemello's own tests hold that each is parsed; what takes minutes is left out.

use e2e::{RESET, cache, code, debian, gemello, prints, run, text};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Not run here: what measures, needs a key pressed first, or fetches another kernel. `saved.rs`
/// and `bench.rs` do.
const LEFT_OUT: [&str; 4] =
    ["gemello bench", "gemello restore", "--tier lockstep", "--flavour full"];

/// The commands in `text`'s indented lines, up to their explanation.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::trim);
    let shown = lines.filter_map(|line| Some(line.split("  ").next()?.split(" #").next()?.trim()));
    let ours = |line: &&str| line.starts_with("gemello") || line.contains("| gemello ");
    shown.filter(ours).map(str::to_owned).collect()
}

fn every_command() -> BTreeSet<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let mut all = BTreeSet::from_iter(commands(&fs::read_to_string(root).expect("README.md")));
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
fn place() -> PathBuf {
    let place = std::env::temp_dir().join(format!("gemello-examples-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.join("bin")).expect("a directory");
    std::os::unix::fs::symlink(
        fs::canonicalize(gemello()).expect("built"),
        place.join("bin/gemello"),
    )
    .expect("a link");
    let file = |name: &str, content: &[u8]| fs::write(place.join(name), content).expect("a file");
    file("names", b"b\na\nb\n");
    file("kernel.elf", &prints(b"text\r\n", RESET));
    file("init.bin", b"content");
    file("data.img", &[0; 1 << 20]);
    file("machine.toml", b"[boot]\nkernel = \"kernel.elf\"\n");
    fs::copy(cache().join("cloud/vmlinuz"), place.join("vmlinuz")).expect("Debian's kernel");
    initrd(&place);
    place
}

/// An initial file system whose init powers off.
fn initrd(place: &Path) {
    let tree = place.join("tree");
    fs::create_dir_all(tree.join("bin")).expect("a directory");
    fs::copy(cache().join("cloud/busybox"), tree.join("bin/busybox")).expect("busybox");
    fs::write(tree.join("init"), "#!/bin/busybox sh\n/bin/busybox poweroff -f\n").expect("a file");
    let script = "chmod +x init bin/busybox && find . | \"$0\" cpio -o -H newc > ../initrd.img";
    let busybox = cache().join("cloud/busybox");
    let mut shell = Command::new("sh");
    e2e::succeeds(shell.arg("-c").arg(script).arg(busybox).current_dir(&tree));
}

/// Runs `line` in `place`; a guest that gives a shell is told to end. The input stays open.
fn paste(line: &str, place: &Path) -> (i32, String) {
    let path = format!("{}:{}", place.join("bin").display(), std::env::var("PATH").expect("PATH"));
    let mut shell = Command::new("timeout");
    shell.args(["90", "sh", "-c", line]).current_dir(place).env("PATH", path);
    let out = fs::File::create(place.join("out")).expect("a file");
    shell.stdin(Stdio::piped()).stdout(out.try_clone().expect("a file")).stderr(out);
    let mut child = shell.spawn().expect("timeout");
    let mut input = child.stdin.take().expect("piped");
    // It may not read it.
    let _ = input.write_all(b"poweroff\n");
    let status = child.wait().expect("a child");
    (status.code().unwrap_or(-1), text(&fs::read(place.join("out")).expect("there")))
}

#[test]
fn each_works_as_it_is_shown() {
    let _turn = debian("cloud");
    let place = place();
    let mut tried = 0;
    for line in every_command() {
        if LEFT_OUT.iter().any(|what| line.contains(what)) && !line.contains("--list") {
            continue;
        }
        let began = Instant::now();
        let (status, told) = paste(&line, &place);
        assert_eq!(status, 0, "{line}: {told}");
        eprintln!("{:.1} s: {line}", began.elapsed().as_secs_f64());
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
    fs::remove_dir_all(&place).expect("it is there");
}
