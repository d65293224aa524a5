//! What goes on in another process: a command's streams and status, a disk without a name, what a
//! machine boots when it is reset.

use e2e::{Ends, Session, code, command, debian, idle, run, scratch, text};
use rustix::process::Signal;
use std::fs::{self, File};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// A busy CI machine may need much.
const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

/// A name in the scratch directory with nothing there.
fn fresh(name: &str) -> String {
    let path = scratch(name, b"");
    fs::remove_file(&path).expect("it was just made");
    path.to_str().expect("text").to_owned()
}

/// Has the machine of `session` saved to `file`, where there is nothing.
fn save(session: &Session, file: &str) {
    session.signal(Signal::USR1);
    let deadline = Instant::now() + SOON;
    while !fs::exists(file).expect("a directory") {
        assert!(Instant::now() < deadline, "it is not saved");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `script` as a command of Debian, to be saved to `file`.
fn debian_command(script: &str, file: &str) -> Session {
    let arguments = ["run", "busybox", "--save", file, "--timeout", "4m", "--", "sh", "-c", script];
    Session::start(command(&arguments))
}

/// The machine in `file` to its end, with this input.
fn restored(file: &str, input: &[u8]) -> Output {
    let input = File::open(scratch("restored-input", input)).expect("input");
    let mut restore = command(&["restore", file, "--timeout", "4m"]);
    restore.stdin(input).output().expect("gemello starts")
}

#[test]
fn a_commands_streams_and_status_go_on() {
    let _turn = debian("cloud");
    let file = fresh("streams.gm");
    let script = "read a; echo \"got $a\"; echo early >&2; read b; echo \"got $b\"; cat; \
                  echo late >&2; exit 42";
    let mut session = debian_command(script, &file);
    session.send("first\n");
    session.expect("got first\n", BOOT);
    save(&session, &file);
    drop(session); // killed
    let any: Vec<u8> = (0..6000_u32).map(|n| (n * 7 % 256) as u8).collect();
    for _ in 0..2 {
        let output = restored(&file, &[b"second\n", &*any].concat());
        assert_eq!(code(&output), 42, "{}", text(&output.stderr));
        assert!(output.stdout == [b"got second\n", &*any].concat(), "{}", text(&output.stdout));
        assert_eq!(text(&output.stderr), "late\n");
    }
    fs::remove_file(&file).expect("it is there");
}

/// Nothing is lost between the two outputs, whatever was on its way.
#[test]
fn a_command_is_saved_in_the_middle_of_its_output() {
    let _turn = debian("cloud");
    let file = fresh("output.gm");
    let script = "n=0; while [ $n -lt 1500 ]; do n=$((n+1)); echo line $n; usleep 2000; done; \
                  exit 3";
    let all: String = (1..=1500).map(|n| format!("line {n}\n")).collect();
    let mut session = debian_command(script, &file);
    let (before, _) = session.expect("line 200\n", BOOT);
    save(&session, &file);
    let (status, transcript) = session.finish(BOOT);
    assert_eq!((status, &transcript), (3, &all), "the saved one goes on");
    let output = restored(&file, b"");
    assert_eq!(code(&output), 3, "{}", text(&output.stderr));
    let rest = text(&output.stdout);
    assert!(all.ends_with(&rest) && !rest.is_empty(), "{rest}");
    assert!(all.len() - rest.len() >= before.len(), "what was written before comes again");
    assert_eq!(text(&output.stderr), "");
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn the_end_of_a_commands_input_is_not_undone() {
    let _turn = debian("cloud");
    let file = fresh("ended.gm");
    let mut session = debian_command("cat; echo ended; sleep 5; cat; echo done; exit 5", &file);
    session.send("all there is\n");
    session.close_input();
    session.expect("ended\n", BOOT);
    save(&session, &file);
    drop(session);
    let output = restored(&file, b"what is no part of it\n");
    assert_eq!((code(&output), text(&output.stdout)), (5, "done\n".into()));
    fs::remove_file(&file).expect("it is there");
}

/// Saved by its key. Half of the run is on one terminal, half on another.
#[test]
fn a_command_on_a_terminal_goes_on_on_another() {
    let _turn = debian("cloud");
    let file = fresh("terminal.gm");
    let script = "echo begun; read a; echo \"<$a>\"; test -t 0 && test -t 1 && exit 9";
    let arguments = ["run", "busybox", "--save", &file, "--name", "two-ends", "--", "sh", "-c"];
    let mut command_line = command(&arguments);
    command_line.arg(script);
    let (mut session, _terminal) = Session::on_terminal(&command_line, &Ends::default());
    session.expect("begun", BOOT);
    session.send("hel\u{1}r");
    session.expect("the machine of a command is not reset", SOON);
    session.send("\u{1}s");
    session.expect("two-ends is saved to", SOON);
    drop(session);
    let restore = command(&["restore", &file, "--timeout", "4m"]);
    let (mut session, _terminal) = Session::on_terminal(&restore, &Ends::default());
    session.send("lo\r");
    session.expect("<hello>", SOON);
    assert_eq!(session.finish(SOON).0, 9);
    fs::remove_file(&file).expect("it is there");
}

/// The nucleus looks at each page that it has swapped out.
#[test]
fn the_nucleus_finds_its_swap_disk_again() {
    let file = fresh("swap.gm");
    let mut session = Session::start(command(&["run", "--nucleus", "test=swap", "--save", &file]));
    session.expect("swap disk", SOON);
    // It takes two seconds on a quiet host.
    std::thread::sleep(Duration::from_millis(500));
    save(&session, &file);
    drop(session);
    let output = run(&["restore", &file, "--timeout", "8m"]);
    assert_eq!(code(&output), 33, "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("1 tests, 0 failed"), "{}", text(&output.stdout));
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn a_restored_shell_is_reset_and_saved_again() {
    let _turn = debian("cloud");
    let (file, later) = (fresh("reset.gm"), fresh("later.gm"));
    let mut session = Session::start(command(&["run", "busybox", "--save", &file]));
    session.expect("# ", BOOT);
    session.send("echo mark > /m; echo wrote $((40 + 2))\n");
    session.expect("wrote 42", SOON);
    save(&session, &file);
    drop(session);
    // Once from the saved machine, once from what was saved of that.
    let first = command(&["restore", &file, "--save", &later, "--timeout", "4m"]);
    let second = command(&["restore", &later, "--name", "other", "--timeout", "4m"]);
    for restore in [first, second] {
        let (mut session, terminal) = Session::on_terminal(&restore, &Ends::default());
        terminal.resize(50, 132);
        session.send("ls /m; echo seen $((40 + 2))\r");
        session.expect("seen 42", SOON);
        if restore.get_args().any(|argument| argument == "--save") {
            save(&session, &later);
        }
        session.send("\u{1}r");
        session.expect("the machine begins anew", SOON);
        session.expect("# ", BOOT);
        session.send("ls /m; echo seen $((40 + 3))\r");
        session.expect("No such file", SOON);
        session.expect("seen 43", SOON);
        session.send("sleep 1; stty size\r");
        session.expect("50 132", SOON);
        session.send("poweroff\r");
        assert_eq!(session.finish(SOON).0, 0);
    }
    fs::remove_file(&file).expect("it is there");
    fs::remove_file(&later).expect("it is there");
}

#[test]
fn a_machine_whose_kernel_is_another_is_not_reset_and_goes_on() {
    let file = fresh("kernel.gm");
    let kernel = scratch("a kernel é.elf", &idle());
    let path = kernel.to_str().expect("text");
    let mut run = command(&["run", path, "--save", &file, "--timeout", "4m"]);
    run.stderr(Stdio::null());
    let session = Session::start(run);
    std::thread::sleep(Duration::from_secs(1));
    save(&session, &file);
    drop(session);
    let restore = command(&["restore", &file, "--save", &file, "--timeout", "4m"]);
    let (mut session, _terminal) = Session::on_terminal(&restore, &Ends::default());
    fs::write(&kernel, [idle(), vec![0; 8]].concat()).expect("a file");
    session.send("\u{1}r");
    session.expect("cannot boot again: ", SOON);
    session.expect("has changed since the machine was saved; put it back", SOON);
    fs::remove_file(&kernel).expect("it is there");
    session.send("\u{1}r");
    session.expect("cannot boot again: cannot read", SOON);
    session.send("\u{1}s");
    session.expect("a-kernel-- is saved to", SOON);
    fs::write(&kernel, idle()).expect("a file");
    session.send("\u{1}r");
    session.expect("the machine begins anew", SOON);
    session.send("\u{1}x");
    assert_eq!(session.finish(SOON).0, 130);
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn a_machine_has_a_name() {
    let output = run(&["run", "busybox", "--name", "web-1.a_B", "--print-config"]);
    assert!(text(&output.stdout).contains("name = \"web-1.a_B\""), "{}", text(&output.stdout));
    let longest = "x".repeat(65);
    for name in ["", "a b", "a/b", "..", &longest] {
        for arguments in [&["run", "--nucleus"][..], &["restore", "x.gm"]] {
            let output = command(arguments).args(["--name", name]).output().expect("it starts");
            assert_eq!(code(&output), 2, "{name}");
            assert!(text(&output.stderr).contains("a name has"), "{}", text(&output.stderr));
        }
    }
}
