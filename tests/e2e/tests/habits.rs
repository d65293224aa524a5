//! What users of docker and QEMU type first: answered in one line with what it is here, exit code
//! 2.

use e2e::{code, command, run, scratch, text};

fn refused(arguments: &[&str], piece: &str) -> String {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
    assert!(message.contains(piece), "{arguments:?}: no {piece:?} in {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    message
}

#[test]
fn a_habit_is_answered_with_what_it_is_here() {
    let image = scratch("habit.img", &[0; 512]);
    let image = image.to_str().expect("text");
    let cases: [(&[&str], &str); 19] = [
        (&["run", "debain"], "did you mean: gemello run debian"),
        (&["run", "ubuntu"], "a registry's image is: gemello run docker://ubuntu"),
        (&["busybox"], "gemello run busybox"),
        (&["run", "busybox", "uname", "-a"], "gemello run busybox -- uname -a"),
        (&["run", "--", "uname", "-a"], "gemello run debian -- uname -a"),
        (&["run", "busybox", "-m", "1G"], "--memory 1G"),
        (&["run", "-m", "1024", "busybox"], "--memory 1024M"),
        (&["run", "busybox", "-smp", "2"], "it is --vcpus 2 here"),
        (&["run", "busybox", "-net", "user"], "--net user"),
        (&["run", "-v", "/a:/b", "busybox"], "--share DIR"),
        (&["run", "--expose", "80", "busybox"], "--net user"),
        (&["run", "busybox", "-hda", image], "--disk /"),
        (&["-hda", image], "--disk /"),
        (&["run", "-nographic", "busybox"], "serial console"),
        (&["run", "-kernel", "bzImage", "-append", "quiet"], "--kernel bzImage"),
        (&["-kernel", "bzImage"], "--kernel bzImage"),
        (&["run", "-it", "busybox", "bash"], "leave it out"),
        (&["pull", "debian"], "gemello fetch debian"),
        (&["--kernel", "bzImage"], "gemello run --kernel bzImage"),
    ];
    for (arguments, piece) in cases {
        refused(arguments, piece);
    }
}

/// A proposed command is one, whatever is in the words that were typed.
#[test]
fn a_proposed_command_works_when_pasted() {
    let odd = scratch("it's odd.img", &[0; 512]);
    let odd = odd.to_str().expect("text");
    let message = refused(&["--disk", odd, "--timeout", "200ms", "--nucleus"], "gemello run");
    let line = message.trim_end().split_once(": gemello ").expect("a command").1;
    let script = format!("\"$0\" {line} </dev/null");
    let mut shell = std::process::Command::new("sh");
    let output = shell.arg("-c").arg(script).arg(e2e::gemello()).output().expect("a shell");
    assert_eq!(code(&output), 124, "{line}: {}", text(&output.stderr));
}

#[test]
fn what_follows_two_dashes_is_no_habit() {
    // Refused for the option before them.
    let output = command(&["run", "busybox", "--frobnicate", "--", "-v", "-hda"]).output();
    let message = text(&output.expect("gemello starts").stderr);
    assert!(message.contains("--frobnicate") && !message.contains("--disk"), "{message}");
}
