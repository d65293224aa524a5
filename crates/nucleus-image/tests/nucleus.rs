//! The nucleus runs its own tests, and its guided tour says the same on gemello and on QEMU.
//!
//! gemello is the program that the variable GEMELLO names, or else its release build. QEMU is
//! `qemu-system-x86_64`; where it is not installed, it is left out, but not under CI (the variable
//! CI is set).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, thread};
use test_support::gemello;

/// What the debug-exit port makes of 10H.
const PASSED: i32 = 0x10 << 1 | 1;
const SWAP: u64 = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    Gemello,
    Qemu,
}

impl Machine {
    fn program(self) -> Option<PathBuf> {
        if self == Machine::Gemello {
            return Some(gemello().to_owned());
        }
        let program = PathBuf::from("qemu-system-x86_64");
        let there = Command::new(&program).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !there {
            assert!(env::var_os("CI").is_none(), "{} is not installed", program.display());
            println!("left out: {} is not installed", program.display());
        }
        there.then_some(program)
    }

    fn command(self, program: &Path, kernel: &Path, disk: Option<&Path>, cmdline: &str) -> Command {
        let mut command = Command::new(program);
        match self {
            Machine::Gemello => {
                command.arg("run").arg(kernel).args(["--memory", "64M", "--debug-exit"]);
                command.args(["--cmdline", cmdline]);
                if let Some(disk) = disk {
                    command.args(["--transport", "mmio", "--disk"]).arg(disk);
                }
            }
            Machine::Qemu => {
                // No SMAP: in QEMU 7.2's own processor, RETF and IRET at user level read the stack
                // as the system would.
                command.args(["-M", "microvm,isa-serial=on", "-cpu", "max,-smap", "-m", "64"]);
                command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
                command.args([
                    "-device",
                    "isa-debug-exit,iobase=0xf4,iosize=4",
                    "-append",
                    cmdline,
                ]);
                command.arg("-kernel").arg(kernel);
                if let Some(disk) = disk {
                    let drive =
                        format!("if=none,id=swap,format=raw,cache=unsafe,file={}", disk.display());
                    command.args(["-drive", &drive, "-device", "virtio-blk-device,drive=swap"]);
                }
            }
        }
        command
    }
}

/// Files for one run, gone afterwards.
struct Files {
    kernel: PathBuf,
    disk: PathBuf,
}

impl Files {
    fn new(name: &str, kernel: &[u8]) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let files = Self {
            kernel: place.join(format!("{name}.elf")),
            disk: place.join(format!("{name}.swap")),
        };
        fs::write(&files.kernel, kernel).expect("the test directory can be written");
        fs::File::create(&files.disk).and_then(|f| f.set_len(SWAP)).expect("so can the disk");
        files
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.kernel, &self.disk] {
            let _ = fs::remove_file(file);
        }
    }
}

struct Run {
    status: Option<i32>,
    output: String,
    wall: Duration,
}

/// Runs to the end, or until `until` comes out; types `input` first.
fn run(mut command: Command, input: &str, until: Option<&str>) -> Run {
    // One machine at a time: two would spoil each other's timing.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = sync::lock(&TURN);
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the machine starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("input can be written");
    let stdout = child.stdout.take().expect("piped");
    let reader = thread::spawn({
        let until = until.map(str::to_owned);
        move || read(stdout, until.as_deref(), start)
    });
    let status = match until {
        None => wait(&mut child),
        Some(_) => None,
    };
    let (output, wall) = reader.join().expect("output is read");
    let _ = child.kill();
    let _ = child.wait();
    Run { status, output, wall }
}

fn read(mut from: impl std::io::Read, until: Option<&str>, start: Instant) -> (String, Duration) {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match from.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend(&chunk[..n]),
        }
        if until.is_some_and(|u| String::from_utf8_lossy(&bytes).contains(u)) {
            break;
        }
    }
    (String::from_utf8_lossy(&bytes).replace('\r', ""), start.elapsed())
}

fn wait(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("the machine can be waited for") {
            return status.code();
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("the machine can be ended");
    None
}

/// Runs the image on a machine, with a disk.
fn on(machine: Machine, name: &str, cmdline: &str) -> Option<Run> {
    let program = machine.program()?;
    let files = Files::new(&format!("{name}-{machine:?}"), nucleus_image::NUCLEUS);
    Some(run(machine.command(&program, &files.kernel, Some(&files.disk), cmdline), "", None))
}

fn self_tests(machine: Machine, name: &str, cmdline: &str) {
    let Some(run) = on(machine, name, cmdline) else { return };
    println!("{}", run.output);
    assert_eq!(run.status, Some(PASSED), "the nucleus's own tests on {machine:?}:\n{}", run.output);
    assert!(!run.output.contains("there is no disk"), "the swap test had no disk on {machine:?}");
}

#[test]
fn own_tests_pass_on_gemello() {
    self_tests(Machine::Gemello, "test", "test");
}

#[test]
fn own_tests_pass_on_qemu() {
    self_tests(Machine::Qemu, "test", "test");
}

#[test]
#[ignore = "second step: twenty seconds on each machine, or as many as FUZZ_SECONDS says"]
fn random_system_calls_do_no_harm() {
    let seconds = env::var("FUZZ_SECONDS").unwrap_or_else(|_| "20".into());
    for machine in [Machine::Gemello, Machine::Qemu] {
        self_tests(machine, "fuzz", &format!("test=fuzz fuzz={seconds}"));
    }
}

/// Figures have a `~` before them; what is left must be the same everywhere.
fn masked(transcript: &str) -> String {
    let from = transcript.find("[1] ").unwrap_or(0);
    let mask = |word: &str| match word.find('~') {
        Some(at) => format!("{}~", &word[..at]),
        None => word.to_owned(),
    };
    let line = |line: &str| line.trim_end().split(' ').map(mask).collect::<Vec<_>>().join(" ");
    transcript[from..].lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_tour_says_the_same_on_every_machine() {
    let ours = on(Machine::Gemello, "demo", "demo");
    let theirs = on(Machine::Qemu, "demo", "demo");
    for run in [&ours, &theirs].into_iter().flatten() {
        assert_eq!(run.status, Some(0), "the tour ends by powering off:\n{}", run.output);
        assert!(run.output.contains("That was the tour."), "the tour is complete:\n{}", run.output);
        for bad in ["DAMAGED", "STOPPED", "itself failed"] {
            assert!(!run.output.contains(bad), "{bad}:\n{}", run.output);
        }
    }
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        let (ours, theirs) = (masked(&ours.output), masked(&theirs.output));
        let differs = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b);
        assert_eq!(ours, theirs, "the first line that differs: {differs:#?}");
    }
}

#[test]
fn the_shell_answers() {
    let Some(program) = Machine::Gemello.program() else { return };
    let files = Files::new("shell", nucleus_image::NUCLEUS);
    let command = Machine::Gemello.command(&program, &files.kernel, None, "");
    // A typing error is corrected on the way: cursor left, delete.
    let input = "run helXlo\x1b[D\x1b[D\x7f\x1b[F me\rrun count &\rps\rkill 2\rswap\rpoweroff\r";
    let run = run(command, input, None);
    assert_eq!(run.status, Some(0), "{}", run.output);
    for expected in ["hello from process 1: me", "[2] count", "ready", "[2] killed", "no disk"] {
        assert!(run.output.contains(expected), "{expected:?} is missing:\n{}", run.output);
    }
}

/// A fault of the nucleus's own, its stack used up included, ends in a report and not in a reset.
#[test]
fn a_fault_of_the_nucleus_is_reported() {
    for (word, expected) in [("crash", "#PF page fault"), ("crash=stack", "#DF double fault")] {
        let Some(run) = on(Machine::Gemello, "crash", word) else { return };
        assert_eq!(run.status, Some(0x12 << 1 | 1), "{}", run.output);
        let report =
            run.output.contains("The nucleus itself failed") && run.output.contains(expected);
        assert!(report, "{expected} is missing:\n{}", run.output);
        assert!(run.output.contains("the nucleus's stack is exhausted"), "{}", run.output);
    }
}

#[test]
fn boots_by_multiboot_too() {
    let Some(program) = Machine::Gemello.program() else { return };
    let mut image = nucleus_image::NUCLEUS.to_vec();
    let note = [4u32, 4, 18].map(u32::to_le_bytes).concat();
    let at = image.windows(12).position(|w| w == note).expect("the image has a PVH note");
    image[at + 8] = 99;
    let files = Files::new("multiboot", &image);
    let command = Machine::Gemello.command(&program, &files.kernel, None, "test=idt");
    let run = run(command, "", None);
    assert_eq!(run.status, Some(PASSED), "{}", run.output);
}

#[test]
fn time_to_the_prompt() {
    for machine in [Machine::Gemello, Machine::Qemu] {
        let Some(program) = machine.program() else { continue };
        let files = Files::new(&format!("prompt-{machine:?}"), nucleus_image::NUCLEUS);
        let times = (0..3).map(|_| {
            let command = machine.command(&program, &files.kernel, None, "");
            let run = run(command, "", Some("nucleus> "));
            assert!(run.output.contains("nucleus> "), "{}", run.output);
            run.wall
        });
        println!("{machine:?}: prompt after {:?} of wall time", times.min().unwrap_or_default());
    }
}

/// Multiboot wants its header in the first 8 KiB; QEMU looks only as far as 48 bytes before, and
/// would refuse an ELF64 image with one instead of going on to the PVH note.
#[test]
fn the_multiboot_header_is_where_it_must_be() {
    let magic = 0x1BAD_B002u32.to_le_bytes();
    let at = nucleus_image::NUCLEUS.chunks_exact(4).position(|w| w == magic).map(|i| i * 4);
    assert_eq!(at, Some(8192 - 32));
}
