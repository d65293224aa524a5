//! Whatever is wrong with what the user gives: a message that names it and the remedy, exit code 2,
//! no panic.

use e2e::{code, command, idle, run, scratch, text};

/// Runs, and checks code, the message's pieces, and that nothing else happened.
fn refused(arguments: &[&str], pieces: &[&str]) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{arguments:?}: {message}");
    assert!(output.stdout.is_empty());
    for piece in pieces {
        assert!(message.contains(piece), "{arguments:?}: no {piece:?} in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn missing_files() {
    refused(
        &["run", "--kernel", "/nonexistent/vmlinuz"],
        &["/nonexistent/vmlinuz", "No such file"],
    );
    refused(&["run", "/nonexistent/kernel.elf"], &["/nonexistent/kernel.elf"]);
    let kernel = scratch("idle.elf", &idle());
    let kernel = kernel.to_str().expect("text");
    refused(&["run", kernel, "--module", "/nonexistent/module=x"], &["/nonexistent/module"]);
    refused(&["run", "/tmp"], &["/tmp"]);
}

#[test]
fn files_that_are_no_kernels() {
    let cases: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("text", b"#!/bin/sh\necho no kernel\n"),
        ("zeros", &[0; 100_000]),
        ("gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
    ];
    for (name, content) in cases {
        let path = scratch(name, content);
        let path = path.to_str().expect("text");
        refused(&["run", "--kernel", path], &[path]);
    }
}

#[test]
fn a_kernel_for_another_processor() {
    let mut elf = vec![0_u8; 128];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    elf[16] = 2; // executable
    elf[18] = 183; // AArch64
    elf[20] = 1;
    let path = scratch("aarch64", &elf);
    refused(&["run", "--kernel", path.to_str().expect("text")], &["x86-64"]);
}

#[test]
fn truncated_kernels_at_every_length() {
    let whole = idle();
    for length in [1, 4, 11, 12, 31, 32, 33, 100] {
        let path = scratch("truncated", &whole[..length]);
        let output = run(&["run", path.to_str().expect("text"), "--timeout", "1"]);
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{length} bytes: {message}");
        assert!(message.contains("truncated"), "{length} bytes: {message}");
    }
}

#[test]
fn wrong_arguments() {
    refused(&["run"], &["--kernel"]);
    refused(&["run", "busybox", "--memory", "512"], &["unit"]);
    refused(&["run", "busybox", "--memory", "1M"], &["--memory"]);
    refused(&["run", "busybox", "--cpu", "pentium"], &["gemello-v2"]);
    refused(&["run", "busybox", "--cpu", "gemello-v2,+nonsense"], &["nonsense"]);
    refused(&["run", "busybox", "--cpu", "gemello-v3,-sse2"], &["'sse2'", "leave it in"]);
    refused(&["run", "busybox", "--cpu", "gemello-v2,-lm"], &["'lm'", "leave it in"]);
    refused(&["run", "busybox", "--code-cache", "512K"], &["--code-cache", "1M or more"]);
    refused(&["run", "busybox", "--code-cache", "4G"], &["--code-cache", "1G or less"]);
    refused(&["run", "--nucleus", "foo"], &["foo", "demo or test"]);
    refused(&["run", "--nucleus", "--flavour", "full"], &["--flavour"]);
    refused(&["run", "busybox", "--engine", "hard"], &["soft"]);
    refused(&["run", "busybox", "--timeout", "0"], &["time"]);
    refused(&["run", "busybox", "--trace", "everything"], &["ports"]);
    let kernel = scratch("idle2.elf", &idle());
    refused(&["run", kernel.to_str().expect("text"), "--", "ls"], &["run debian"]);
}

#[test]
fn too_little_memory_and_a_large_initrd() {
    let kernel = scratch("small.elf", &idle());
    let kernel = kernel.to_str().expect("text");
    refused(&["run", kernel, "--memory", "512K"], &["--memory"]);
    let module = scratch("large", &vec![1; 8 << 20]);
    let module = module.to_str().expect("text");
    refused(&["run", kernel, "--memory", "4M", "--module", module], &["--memory"]);
}

#[test]
fn no_apt_and_no_place_for_the_cache() {
    let without = |variable: &str, value: &str| {
        let cache = scratch("x", b"").with_file_name("empty-cache");
        command(&["run", "busybox"])
            .env("XDG_CACHE_HOME", cache)
            .env(variable, value)
            .output()
            .expect("gemello starts")
    };
    let output = without("PATH", "/nonexistent");
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{message}");
    assert!(message.contains("--kernel") && message.contains("--initrd"), "{message}");
    let output = without("XDG_CACHE_HOME", "/proc/nonexistent");
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{message}");
    assert!(
        message.contains("/proc/nonexistent") && message.contains("XDG_CACHE_HOME"),
        "{message}"
    );
}

/// On a disk of 60 MB, which the packages fit on and what is in them does not. Not where the host
/// allows no mount.
#[test]
fn a_full_disk_is_blamed_in_one_line() {
    let place = scratch("x", b"").with_file_name("small-disk");
    std::fs::create_dir_all(&place).expect("a directory");
    let mount =
        "mount -t tmpfs -o size=60m none \"$0\" || exit 77; XDG_CACHE_HOME=\"$0\" exec \"$@\"";
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "sh", "-c", mount]).arg(&place);
    let Ok(output) = unshare.arg(e2e::gemello()).args(["fetch", "debian"]).output() else {
        return;
    };
    let message = text(&output.stderr);
    if output.status.code() != Some(2) {
        assert!(!message.contains("gemello:"), "{message}");
        return;
    }
    let ours: Vec<_> = message.lines().filter(|line| line.starts_with("gemello: cannot")).collect();
    assert_eq!(ours.len(), 1, "{message}");
    assert!(ours[0].contains("is full; make room") && !ours[0].contains("tar"), "{message}");
    assert!(message.ends_with(&format!("{}\n", ours[0])), "{message}");
}

#[test]
fn a_log_that_cannot_be_written() {
    let kernel = scratch("idle3.elf", &idle());
    let kernel = kernel.to_str().expect("text");
    refused(&["run", kernel, "--log", "/nonexistent/log"], &["/nonexistent/log"]);
}

#[test]
fn help_tells_examples_and_exit_codes() {
    for arguments in [&["--help"][..], &["run", "--help"][..]] {
        let output = run(arguments);
        let help = text(&output.stdout);
        assert_eq!(code(&output), 0);
        assert!(help.contains("gemello run debian -- uname -a"), "{help}");
        assert!(help.contains("124") && help.contains("triple fault"), "{help}");
    }
    assert_eq!(code(&run(&["doctor"])), 0);
}
