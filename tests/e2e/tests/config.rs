//! A machine's file: run, printed, laid under the command line, refused.

use e2e::{
    Ends, Session, code, command, debian, idle, run, scratch, text, until, writes_debug_exit,
};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{fs, io};

/// The status of a guest that writes 10H to port F4H.
const DEBUG_EXIT: i32 = 33;

/// A folder of this test's own with a machine's file and the files that it names.
fn folder(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let place = scratch(name, b"").with_extension("folder");
    fs::create_dir_all(&place).expect("a folder");
    for (name, content) in files {
        fs::write(place.join(name), content).expect("a file");
    }
    place
}

/// A shell's command line; `$G` is the program.
fn shell(line: &str) -> Output {
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).env("G", e2e::gemello()).stdin(Stdio::null());
    shell.output().expect("a shell")
}

fn refused(arguments: &[&str], pieces: &[&str]) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    for piece in pieces {
        assert!(message.contains(piece), "{arguments:?}: no {piece:?} in {message}");
    }
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
}

#[test]
fn a_machines_file_is_run_its_paths_beside_it() {
    let file = b"[machine]\nmemory = \"32M\"\ndebug_exit = true\n[boot]\nkernel = \"guest.elf\"\n";
    let place = folder("beside", &[("vm.toml", file), ("guest.elf", &writes_debug_exit())]);
    let output = run(&["run", place.join("vm.toml").to_str().expect("text")]);
    assert_eq!(code(&output), DEBUG_EXIT, "{}", text(&output.stderr));
    // By what is in it, whatever its name; and through a pipe, then from the working directory.
    fs::rename(place.join("vm.toml"), place.join("vm")).expect("renamed");
    let output = run(&["run", place.join("vm").to_str().expect("text")]);
    assert_eq!(code(&output), DEBUG_EXIT, "{}", text(&output.stderr));
    let output = shell(&format!("cd {} && $G run <(cat vm)", place.display()));
    assert_eq!(code(&output), DEBUG_EXIT, "{}", text(&output.stderr));
}

#[test]
fn a_machines_file_can_be_executed() {
    let file = format!(
        "#!/usr/bin/env -S {} run\n[machine]\ndebug_exit = true\n[boot]\nkernel = \"guest.elf\"\n",
        e2e::gemello().display()
    );
    let guest = writes_debug_exit();
    let place = folder("shebang", &[("vm", file.as_bytes()), ("guest.elf", &guest)]);
    let path = place.join("vm");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    // A process that another test is about to start may hold the file open for a moment.
    let output = until("a file that nobody writes", || {
        let started = Command::new(&path).stdin(Stdio::null()).output();
        let busy = |error: &io::Error| error.kind() == io::ErrorKind::ExecutableFileBusy;
        (!started.as_ref().is_err_and(busy)).then_some(started)
    });
    let output = output.expect("it starts");
    assert_eq!(code(&output), DEBUG_EXIT, "{}", text(&output.stderr));
}

#[test]
fn what_is_printed_means_the_same() {
    let place = folder("printed", &[("guest.elf", &writes_debug_exit()), ("d", &[0; 512])]);
    let options = "guest.elf --memory 24M --disk d,ro --tier interp --timeout 1m --debug-exit";
    let place = place.display();
    let printed = shell(&format!("cd {place} && $G run {options} --print-config"));
    let file = text(&printed.stdout);
    assert_eq!(code(&printed), 0, "{}", text(&printed.stderr));
    for line in ["memory = \"24M\"", "tier = \"interp\"", "read_only = true", "timeout = \"60s\""] {
        assert!(file.contains(line), "no {line} in\n{file}");
    }
    let again =
        shell(&format!("cd {place} && $G run <($G run {options} --print-config) --print-config"));
    assert_eq!(text(&again.stdout), file, "{}", text(&again.stderr));
    // It is the same machine from anywhere.
    let output = shell(&format!("cd / && $G run <(cd {place} && $G run {options} --print-config)"));
    assert_eq!(code(&output), DEBUG_EXIT, "{}", text(&output.stderr));
}

#[test]
fn the_command_line_comes_first() {
    let file = b"[machine]\nmemory = \"1M\"\ndebug_exit = true\n[boot]\nkernel = \"guest.elf\"\n\
                 [run]\ntimeout = \"1ms\"\n";
    let place = folder("first", &[("vm.toml", file), ("guest.elf", &writes_debug_exit())]);
    let path = place.join("vm.toml");
    let path = path.to_str().expect("text");
    refused(&["run", path], &["set machine.memory in ", "vm.toml to 2M or more"]);
    refused(&["run", path, "--memory", "512K"], &["set --memory to 2M or more"]);
    let output = run(&["run", path, "--memory", "16M", "--timeout", "1m"]);
    assert_eq!(code(&output), DEBUG_EXIT, "{}", text(&output.stderr));
    let other = scratch("idle.elf", &idle());
    let output = run(&["run", path, "--memory", "16M", "--kernel", other.to_str().expect("text")]);
    assert_eq!(code(&output), 124, "{}", text(&output.stderr));
}

#[test]
fn what_is_wrong_is_told_by_file_line_and_key() {
    let cases: [(&str, &[&str]); 11] = [
        ("[machine]\nmemroy = \"1G\"", &["line 2", "machine.memroy", "did you mean memory?"]),
        ("[machine]\nmemory = \"1T\"", &["line 2", "machine.memory", "K, M or G"]),
        ("[machine]\nmemory = 512", &["line 2", "machine.memory", "\"512M\""]),
        ("[machine]\ncpu = \"i486\"", &["line 2", "machine.cpu", "gemello-v2"]),
        ("[disks]\npath = \"x\"", &["line 1", "disks", "did you mean disk?"]),
        ("[[disk]]\nread_only = true", &["disk[0]", "path"]),
        ("[machine\nmemory", &["line 1"]),
        ("[machine]", &["nothing to boot"]),
        ("[boot]\nbusybox = \"cloud\"\nkernel = \"x\"", &["boot.kernel in", "leave one out"]),
        ("[boot]\nbusybox = \"cloud\"\ninitrd = \"x\"", &["boot.initrd in", "leave"]),
        ("[boot]\nkernel = \"nowhere\"", &["cannot read kernel image", "nowhere"]),
    ];
    for (content, pieces) in cases {
        let path = scratch("wrong.toml", content.as_bytes());
        refused(&["run", path.to_str().expect("text")], pieces);
    }
    refused(&["run", "/nowhere/vm.toml"], &["cannot read /nowhere/vm.toml"]);
    let script = scratch("script", b"#!/bin/sh\n[ -f x ] && y\n");
    refused(&["run", script.to_str().expect("text")], &["a script"]);
}

#[test]
fn debian_from_a_file_runs_the_command_of_either() {
    let _turn = debian("cloud");
    let content = b"[machine]\nmemory = \"256M\"\n[boot]\nbusybox = \"cloud\"\n\
                    command = [\"sh\", \"-c\", \"echo from the file; exit 3\"]\n";
    let path = scratch("debian.toml", content);
    let path = path.to_str().expect("text");
    let output = run(&["run", path]);
    assert_eq!((code(&output), text(&output.stdout).trim_end()), (3, "from the file"));
    let output = command(&["run", path, "--", "uname", "-m"]).output().expect("gemello starts");
    assert_eq!((code(&output), text(&output.stdout).trim_end()), (0, "x86_64"));
}

/// Ctrl-A r: Linux boots again, and finds its disk.
#[test]
fn a_shell_that_is_reset_boots_again() {
    let _turn = debian("cloud");
    let disk = scratch("reset.img", &[0; 1 << 20]);
    let disk = disk.to_str().expect("text");
    let shell = command(&["run", "busybox", "--disk", disk, "--timeout", "5m"]);
    let (mut session, _terminal) = Session::on_terminal(&shell, &Ends::default());
    let boot = Duration::from_secs(120);
    session.expect("# ", boot);
    session.send("echo kept | dd of=/dev/vda conv=notrunc 2>/dev/null; sync; echo mark > /m\n");
    session.send("echo wrote $((40 + 2))\n");
    session.expect("wrote 42", boot);
    session.send("\u{1}r");
    session.expect("the machine begins anew", boot);
    session.expect("# ", boot);
    session.send("head -c 4 /dev/vda; ls /m; cut -d. -f1 /proc/uptime; echo read $((40 + 3))\n");
    session.expect("kept", boot);
    session.expect("No such file", boot);
    session.expect("read 43", boot);
    session.send("poweroff\n");
    let (status, transcript) = session.finish(boot);
    assert_eq!(status, 0, "{transcript}");
}
