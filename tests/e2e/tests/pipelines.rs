//! `run busybox -- CMD` among the host's processes: what a command sees of terminals, pipes and
//! arguments.

use e2e::{Ends, Session, code, command, debian, scratch, text};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// A boot and a command; a busy CI machine may need much.
const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

/// Tells which of its ends are terminals.
const ENDS: &str = "for end in 0 1 2; do test -t $end; echo $?; done";

fn start<W: AsRef<OsStr>>(words: &[W]) -> std::process::Command {
    let mut command = command(&["run", "busybox", "--timeout", "2m", "--"]);
    command.args(words);
    command
}

/// Runs `words` in the guest with `input`, output and error apart.
fn guest<W: AsRef<OsStr>>(words: &[W], input: &[u8]) -> Output {
    let input = File::open(scratch("pipeline-input", input)).expect("input");
    start(words).stdin(input).output().expect("gemello starts")
}

fn sh(script: &str) -> Output {
    guest(&["sh", "-c", script], b"")
}

#[test]
fn a_pipeline_is_no_terminal() {
    let _turn = debian("cloud");
    assert_eq!(text(&sh(ENDS).stdout), "1\n1\n1\n");
    let root = text(&guest(&["ls", "/"], b"").stdout);
    assert!(root.lines().count() >= 10 && root.lines().all(|name| !name.contains(' ')), "{root:?}");
    // A shell that reads a script shows no prompt and no echo, and its end is the shell's.
    let output = guest(&["sh"], b"echo hi\necho $((6 * 7)); exit 5\n");
    assert_eq!((code(&output), text(&output.stdout)), (5, "hi\n42\n".into()));
    assert_eq!(text(&output.stderr), "");
}

/// `ls | wc` at a prompt: the input is a terminal, and the output is none. And the other way round.
#[test]
fn a_command_has_a_terminal_where_both_its_ends_are_one() {
    let _turn = debian("cloud");
    let command = start(&["sh", "-c", ENDS]);
    let (session, _terminal) = Session::on_terminal(&command, &Ends::default());
    assert_eq!(session.finish(BOOT), (0, "0\r\n0\r\n0\r\n".into()));

    let path = scratch("pipeline-output", b"");
    let output = Some(File::create(&path).expect("a file"));
    let (session, _terminal) = Session::on_terminal(&command, &Ends { output, error: None });
    assert_eq!(session.finish(BOOT), (0, String::new()));
    assert_eq!(std::fs::read_to_string(&path).expect("output"), "1\n1\n1\n");

    let error = Some(File::create(&path).expect("a file"));
    let command = start(&["sh", "-c", "test -t 1 && test -t 2; echo $?; printf 'a\\n' >&2"]);
    let (session, _terminal) = Session::on_terminal(&command, &Ends { output: None, error });
    assert_eq!(session.finish(BOOT), (0, "1\r\n".into()));
    assert_eq!(std::fs::read_to_string(&path).expect("errors"), "a\n");
}

/// Byte by byte, both at once, and more than any buffer on the way holds.
#[test]
fn standard_error_stays_apart() {
    let _turn = debian("cloud");
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let script = "cat >/tmp/x; cat /tmp/x >&2 & tr '\\0' '\\1' </tmp/x; wait; exit 9";
    let output = guest(&["sh", "-c", script], &bytes);
    let expected: Vec<u8> = bytes.iter().map(|&byte| byte.max(1)).collect();
    assert_eq!(code(&output), 9);
    assert!(output.stdout == expected, "{} bytes of output", output.stdout.len());
    assert!(output.stderr == bytes, "{} bytes of errors", output.stderr.len());
}

/// Where both are one file, what was written first comes first.
#[test]
fn output_and_error_in_one_place_keep_their_order() {
    let _turn = debian("cloud");
    let path = scratch("pipeline-both", b"");
    let both = File::create(&path).expect("a file");
    let script = "for n in 1 2 3 4; do echo out $n; echo error $n >&2; done";
    let mut command = start(&["sh", "-c", script]);
    let status = command.stdout(both.try_clone().expect("a file")).stderr(both).status();
    assert!(status.expect("gemello starts").success());
    let lines = (1..=4).map(|n| format!("out {n}\nerror {n}\n")).collect::<String>();
    assert_eq!(std::fs::read_to_string(&path).expect("output"), lines);
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let _turn = debian("cloud");
    let began = Instant::now();
    let output = sh("seq 1 20000; (sleep 1000; echo late) & (while :; do echo; done) >&2 & exit 4");
    assert_eq!(code(&output), 4);
    assert!(began.elapsed() < BOOT);
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert!(text(&output.stdout) == expected, "{} bytes", output.stdout.len());
}

#[test]
fn arguments_are_any_bytes_and_as_many_as_the_host_takes() {
    let _turn = debian("cloud");
    let long = vec![b'x'; 131_000];
    let words: [&[u8]; 9] =
        [b"printf", b"%s|", b"", b"it's", b"a\nb\r", b"\xff\x81\x88\xc3", b"$HOME", b"-w", &long];
    let output = guest(&words.map(OsStr::from_bytes), b"");
    let expected: Vec<u8> = words[2..].iter().flat_map(|word| [word, &b"|"[..]].concat()).collect();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(output.stdout == expected, "{:?}", text(&output.stdout[..100]));

    let many: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let words = ["sh", "-c", "echo $#", "sh"].map(String::from);
    assert_eq!(text(&guest(&[&words[..], &many].concat(), b"").stdout), "20000\n");
}

/// What follows `--` is the command, also where it looks like an option of a helper's.
#[test]
fn a_command_may_look_like_an_option() {
    let _turn = debian("cloud");
    for word in ["-w", "-c", "--help", "--", ""] {
        let output = guest(&[word, "true"], b"");
        let message = text(&output.stderr);
        assert_eq!(code(&output), 127, "{word}: {message}");
        assert!(message.contains(&format!("'{word}'")), "{word}: {message}");
    }
}

#[test]
fn the_window_is_followed_all_the_time() {
    let _turn = debian("cloud");
    let script = "trap 'echo now $(stty size)' WINCH; echo first $(stty size); \
        while :; do read -t 1 word; [ \"$word\" ] && exit; done";
    let (mut session, terminal) =
        Session::on_terminal(&start(&["sh", "-c", script]), &Ends::default());
    // Before the guest listens.
    terminal.resize(30, 90);
    session.expect("first ", BOOT);
    for (rows, cols) in [(50, 132), (10, 20), (43, 2000)] {
        std::thread::sleep(Duration::from_millis(300));
        terminal.resize(rows, cols);
        session.expect(&format!("now {rows} {cols}\r\n"), SOON);
    }
    session.send("end\r");
    let (code, transcript) = session.finish(SOON);
    assert_eq!(code, 0, "{transcript}");
    assert!(transcript.contains("first 30 90") || transcript.contains("now 30 90"), "{transcript}");

    let shell = command(&["run", "busybox", "--timeout", "2m"]);
    let (mut session, terminal) = Session::on_terminal(&shell, &Ends::default());
    session.expect("# ", BOOT);
    terminal.resize(33, 99);
    std::thread::sleep(Duration::from_millis(500));
    session.send("stty size; exit\r");
    session.expect("33 99\r\n", SOON);
    assert_eq!(session.finish(SOON).0, 0);
}

#[test]
fn who_stops_reading_errors_ends_it() {
    let _turn = debian("cloud");
    let mut command = start(&["sh", "-c", "yes >&2"]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("gemello starts");
    let mut errors = child.stderr.take().expect("piped");
    let mut line = [0; 2];
    std::io::Read::read_exact(&mut errors, &mut line).expect("a line");
    drop(errors);
    assert_eq!(child.wait().expect("a child").code(), Some(141));
}
