//! `gemello bench` from the command line, on rows that are quick.

use e2e::{Session, code, command, debian_alone, run, text};
use rustix::process::Signal;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The guest programs are compiled first, SQLite among them.
const SOON: Duration = Duration::from_secs(600);

fn qemu() -> bool {
    let mut command = Command::new("qemu-system-x86_64");
    let there = command.arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "qemu-system-x86_64 is not installed");
    there
}

/// The figure of a row on a machine, within what is possible at all.
fn figure(row: &Value, machine: &str, least: f64, most: f64) -> f64 {
    let value = row[machine].as_f64().unwrap_or_else(|| panic!("{row} was not run on {machine}"));
    assert!((least..most).contains(&value), "{row}: {machine}");
    value
}

#[test]
fn rows_are_measured_on_every_machine_and_told_as_json() {
    let _turn = debian_alone("cloud");
    let machines = if qemu() { "native,t1,tcg" } else { "native,t1" };
    let output = run(&[
        "bench",
        "--json",
        "--rounds",
        "1",
        "--only",
        "getppid,fib,avx2,script200,poweroff,boot,nucleus",
        "--on",
        machines,
    ]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let keys: Vec<_> = report.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["machine", "rows"]);
    assert!(report["machine"]["cpu"].is_string(), "{}", report["machine"]);
    let rows = report["rows"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["fib", "avx2", "getppid", "script200", "boot", "poweroff", "nucleus"]);
    for row in rows {
        let keys: Vec<_> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut expected = vec!["name", "group", "unit", "native", "t0", "t1", "tcg"];
        expected.sort_unstable();
        assert_eq!(keys, expected); // serde_json's map is sorted
        assert!(row["t0"].is_null(), "{row}: not asked for");
    }
    // A recursive call: some instructions of a processor of some GHz, and of an emulated one.
    figure(&rows[0], "native", 0.2, 50.0);
    figure(&rows[0], "t1", 0.2, 1000.0);
    figure(&rows[2], "t1", 0.01, 100.0); // a system call, in µs
    figure(&rows[3], "native", 5.0, 20e3); // 200 programs started, in ms
    figure(&rows[3], "t1", 20.0, 60e3);
    let boot = figure(&rows[4], "t1", 50.0, 60e3);
    let power_off = figure(&rows[5], "t1", 50.0, 90e3);
    assert!(boot < power_off, "a guest cannot be up before it was started: {boot} < {power_off}");
    figure(&rows[6], "t1", 1.0, 20e3);
    assert!(rows[4]["native"].is_null());
    if qemu() {
        for row in rows {
            // avx2, in ns, takes more than any other on a host that is busy otherwise.
            let most = if row["name"] == "avx2" { 20e6 } else { 200e3 };
            figure(row, "tcg", 0.01, most);
        }
    }
}

#[test]
fn the_interpreter_takes_part_and_the_table_shows_it() {
    let _turn = debian_alone("cloud");
    let output = run(&["bench", "--rounds", "2", "--only", "getppid", "--on", "t0"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let row = table.lines().find(|line| line.starts_with("getppid")).expect("a line");
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words[..3], ["getppid", "us", "-"], "{table}");
    assert!(words[3].parse::<f64>().expect("a figure") > 0.1, "{table}");
}

#[test]
fn commands_are_timed_from_outside() {
    let _turn = debian_alone("cloud");
    let on = if qemu() { "t1,tcg" } else { "t1" };
    let only = "run-busybox,run-oci,run-disk,exec";
    let output = run(&["bench", "--json", "--rounds", "1", "--only", only, "--on", on]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let starts = report["starts"].as_array().expect("starts");
    let [busybox, image, disk, exec] = &starts[..] else { panic!("{starts:?}") };
    for start in [busybox, image] {
        let warm = figure(start, "warm", 0.05, 100.0);
        assert!(warm < figure(start, "cold", 0.1, 200.0), "{start}");
        if qemu() {
            assert!(warm < figure(start, "tcg", 0.2, 300.0), "{start}");
        }
    }
    figure(disk, "cold", 0.1, 200.0);
    assert!(disk["warm"].is_null(), "{disk}: no machine of gemello's own making");
    if qemu() {
        figure(disk, "tcg", 0.2, 300.0);
    }
    figure(exec, "warm", 0.001, 20.0);
    assert!(exec["tcg"].is_null(), "{exec}");
    let images = run(&["images"]);
    assert!(!text(&images.stdout).contains("gemello-image-"), "{}", text(&images.stdout));
}

#[test]
fn what_it_does_not_know_it_refuses() {
    for (arguments, expected) in [
        (["--only", "fib,nothing"], "sha256sum64m"),
        (["--on", "vax"], "native"),
        (["--rounds", "0"], "rounds"),
        (["--guest", "/no/such/file"], "/no/such/file"),
    ] {
        let output = run(&[&["bench"][..], &arguments].concat());
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_a_cargo_it_says_what_else_helps() {
    let output =
        command(&["bench"]).env_remove("CARGO").env("PATH", "/nowhere").output().expect("starts");
    assert_eq!(code(&output), 2);
    let said = text(&output.stderr);
    assert!(said.contains("no cargo") && said.contains("--guest"), "{said}");
}

#[test]
fn a_guest_program_with_other_results_is_found_out() {
    let _turn = debian_alone("cloud");
    let liar = e2e::scratch(
        "liar",
        b"#!/bin/sh\necho '@bench ready'\nwhile read name; do echo \"@bench $name 7 1.0\"; done\n",
    );
    e2e::succeeds(Command::new("chmod").arg("+x").arg(&liar));
    let guest = liar.to_str().expect("a path");
    let output = run(&["bench", "--guest", guest, "--only", "fib", "--on", "native"]);
    assert_eq!(code(&output), 1);
    let said = text(&output.stderr);
    assert!(said.contains("row fib on native gives the wrong result 7"), "{said}");
    assert!(output.stdout.is_empty());
}

/// Processes whose command line names `word`.
fn running(word: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let lines = entries.filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(text(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(word)).collect()
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let _turn = debian_alone("cloud");
    let session = Session::start(command(&["bench", "--only", "vm", "--rounds", "1000"]));
    // Its machines boot files below its entry in /proc.
    let mark = format!("/proc/{}/fd/", session.pid().as_raw_nonzero());
    let deadline = std::time::Instant::now() + SOON;
    while running(&mark).is_empty() {
        assert!(std::time::Instant::now() < deadline, "no machine was started");
        std::thread::sleep(Duration::from_millis(20));
    }
    session.signal(Signal::INT);
    let (status, said) = session.finish(Duration::from_secs(10));
    assert_eq!(status, 130, "{said}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(running(&mark), Vec::<String>::new());
}
