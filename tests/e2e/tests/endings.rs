//! Every way a run can end, with guests of a few bytes.

use e2e::{Session, code, command, idle, kernel, run, scratch, text, writes_debug_exit, zero_idt};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn path(name: &str, image: &[u8]) -> String {
    scratch(name, image).to_str().expect("text").to_owned()
}

#[test]
fn a_timeout() {
    let began = Instant::now();
    let output = run(&["run", &path("timeout.elf", &idle()), "--timeout", "300ms"]);
    assert_eq!(code(&output), 124);
    assert!(text(&output.stderr).contains("--timeout"));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < SOON, "{took:?}");
}

#[test]
fn a_timeout_of_a_guest_that_never_halts() {
    // cli; 1: jmp 1b
    let busy = path("busy.elf", &kernel(&[0xFA, 0xEB, 0xFE]));
    assert_eq!(code(&run(&["run", &busy, "--timeout", "300ms"])), 124);
}

#[test]
fn a_triple_fault_with_the_last_state() {
    let output = run(&["run", &path("triple.elf", &zero_idt()), "--timeout", "10"]);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 3, "{message}");
    for piece in ["triple fault", "RIP 0000000000100027", "Page walk of RIP", "#DF", "CR0"] {
        assert!(message.contains(piece), "no {piece:?} in {message}");
    }
}

#[test]
fn the_debug_exit_port() {
    let guest = path("debug-exit.elf", &writes_debug_exit());
    assert_eq!(code(&run(&["run", &guest, "--debug-exit", "--timeout", "10"])), 0x21);
    assert_eq!(code(&run(&["run", &guest, "--timeout", "300ms"])), 124);
}

#[test]
fn a_reset() {
    // mov dx, 0cf9h; mov al, 6; out dx, al; cli; 1: hlt; jmp 1b
    let code_bytes = [0x66, 0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xFA, 0xF4, 0xEB, 0xFD];
    assert_eq!(
        code(&run(&["run", &path("reset.elf", &kernel(&code_bytes)), "--timeout", "10"])),
        0
    );
}

#[test]
fn signals() {
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let session = Session::start(command(&["run", &path("signal.elf", &idle())]));
        std::thread::sleep(Duration::from_millis(300));
        session.signal(signal);
        assert_eq!(session.finish(SOON).0, expected);
    }
}

#[test]
fn the_end_of_input_does_not_end_the_machine() {
    let mut session =
        Session::start(command(&["run", &path("eof.elf", &idle()), "--timeout", "1"]));
    session.close_input();
    assert_eq!(session.finish(SOON).0, 124);
}

#[test]
fn output_that_nobody_reads() {
    // mov dx, 3f8h; mov al, 'x'; 1: out dx, al; jmp 1b
    let code_bytes = [0x66, 0xBA, 0xF8, 0x03, 0xB0, b'x', 0xEE, 0xEB, 0xFD];
    let mut command = command(&["run", &path("chatty.elf", &kernel(&code_bytes))]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("gemello starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("a child").code(), Some(141));
}

#[test]
fn output_arrives_in_order_and_whole() {
    // mov ecx, 100000; mov dx, 3f8h; 1: mov al, cl; out dx, al; loop 1b; mov al, 1; out 0f4h, al;
    // 2: hlt; jmp 2b
    let code_bytes = [
        0xB9, 0xA0, 0x86, 0x01, 0x00, 0x66, 0xBA, 0xF8, 0x03, 0x88, 0xC8, 0xEE, 0xE2, 0xFB, 0xB0,
        0x01, 0xE6, 0xF4, 0xF4, 0xEB, 0xFD,
    ];
    let guest = path("counter.elf", &kernel(&code_bytes));
    let output = run(&["run", &guest, "--debug-exit", "--timeout", "20"]);
    assert_eq!(code(&output), 3);
    let expected: Vec<u8> = (1..=100_000_u32).rev().map(|n| n as u8).collect();
    assert!(output.stdout == expected, "{} bytes came", output.stdout.len());
}

#[test]
fn statistics_and_traces() {
    let guest = path("stats.elf", &writes_debug_exit());
    let trace = scratch("trace", b"");
    let trace_path = trace.to_str().expect("text");
    let arguments =
        ["run", &guest, "--debug-exit", "--stats", "--trace", "ports", "--trace-file", trace_path];
    let output = run(&arguments);
    let message = text(&output.stderr);
    for piece in ["instructions", "TLB refills", "interrupts", "exits"] {
        assert!(message.contains(piece), "no {piece:?} in {message}");
    }
    let traced = std::fs::read_to_string(trace).expect("a trace");
    assert!(traced.contains("out 0x00f4/1 = 0x10"), "{traced}");
}

#[test]
fn statistics_tell_how_translations_find_each_other() {
    let output = run(&["run", "--nucleus", "demo", "--stats"]);
    let message = text(&output.stderr);
    for (row, what) in [("direct jumps", "% linked"), ("table of targets", "% known")] {
        let line = message.lines().find(|l| l.trim().starts_with(row)).unwrap_or(&message);
        let words: Vec<_> = line.trim().trim_start_matches(row).split_whitespace().collect();
        let [count, "between", "translations,", rate, ..] = words[..] else { panic!("{line}") };
        let (count, rate): (u64, f64) = (count.parse().expect(line), rate.parse().expect(line));
        // The first time is always a miss.
        assert!(count > 1000 && rate > 50.0 && rate < 100.0 && line.ends_with(what), "{line}");
    }
}

#[test]
fn statistics_and_traces_of_the_translator() {
    let trace = scratch("blocks", b"");
    let trace_path = trace.to_str().expect("text");
    let arguments = ["run", "--nucleus", "demo", "--tier", "lockstep", "--stats"];
    let output =
        run(&[&arguments[..], &["--trace", "blocks", "--trace-file", trace_path]].concat());
    let message = text(&output.stderr);
    let pieces = [
        "ran as translated code",
        "TLB misses",
        "unknown targets",
        "left to the interpreter: ",
        "code cache: ",
        "(median ",
        "translated instructions compared",
    ];
    for piece in pieces {
        assert!(message.contains(piece), "no {piece:?} in {message}");
    }
    assert!(!message.contains("differ"), "{message}");
    let traced = std::fs::read_to_string(trace).expect("a trace");
    // A guest instruction, and below it host code.
    assert!(traced.contains("blocks: translated") && traced.contains("[gs:"), "{traced:.2000}");
}
