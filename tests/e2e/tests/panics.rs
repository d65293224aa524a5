//! A guest whose Linux kernel panics is no success, and what a program prints is no panic.

use e2e::{cache, code, debian, run, text};

/// Boots Debian to run `command`, the kernel's command line ending in `cmdline`.
fn guest(cmdline: &str, command: &[&str]) -> (i32, String) {
    let arguments = ["run", "busybox", "--timeout", "2m", "--cmdline", cmdline, "--"];
    let output = run(&[&arguments[..], command].concat());
    (code(&output), text(&output.stderr))
}

#[test]
fn a_panic_has_a_status_of_its_own_and_is_told() {
    let _turn = debian("cloud");
    let crash = ["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100"];
    // As gemello has it, the kernel resets the machine; with the second it hangs for ever.
    for cmdline in ["panic=-1", "panic=0"] {
        let (status, message) = guest(cmdline, &crash);
        assert_eq!(status, 4, "{cmdline}: {message}");
        assert!(message.contains("Kernel panic - not syncing: sysrq"), "{cmdline}: {message}");
    }
}

#[test]
fn a_kernel_without_a_root_file_system_is_no_timeout() {
    let _turn = debian("cloud");
    let kernel = cache().join("cloud/vmlinuz");
    let output = run(&["run", kernel.to_str().expect("text"), "--timeout", "2m"]);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 4, "{message}");
    assert!(message.contains("VFS: Unable to mount root fs"), "{message}");
}

#[test]
fn a_programs_text_is_no_panic() {
    let _turn = debian("cloud");
    let line = "[    1.000000] Kernel panic - not syncing: x";
    let (status, message) = guest("panic=-1", &["sh", "-c", &format!("echo '{line}'; exit 7")]);
    assert_eq!(status, 7, "{message}");
}
