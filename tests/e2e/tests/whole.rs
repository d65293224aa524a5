//! A whole Debian: made once, kept, and the ground of many machines. It takes minutes, and the
//! network: docs/measurements.md has its figures.

use e2e::whole::{Whole, digest};
use e2e::{code, succeeds, text};
use std::process::{Command, Stdio};

#[test]
#[ignore = "minutes, and the network"]
fn a_system_is_made_and_machines_go_on_with_it_by_hand() {
    let debian = Whole::new();
    debian.fetch();
    let root = debian.root();
    let before = digest(&root);
    let mut fsck = Command::new("/usr/sbin/e2fsck");
    succeeds(fsck.args(["-f", "-n"]).arg(&root));
    let in_it = |options: &[&str], script: &str| debian.said(&debian.runs(options, script));
    assert_eq!(
        in_it(&["--rm"], "dpkg --audit; dpkg --verify; cat /etc/debian_version | wc -l"),
        "1"
    );
    let modules = "modprobe loop && test -d /sys/module/loop && echo there";
    assert_eq!(in_it(&["--rm"], modules), "there");
    let running = "systemctl is-system-running --wait";
    assert_eq!(in_it(&["--rm", "--system"], running), "running");
    // A command has no init; packages start no services then, and their scripts are content.
    assert_eq!(in_it(&["--rm"], "systemctl is-system-running || true"), "offline");
    let service = "apt-get update -qq && apt-get install -y -qq cron >&2 && ! pgrep -x cron";
    in_it(&["--name", "served"], service);
    assert_eq!(in_it(&["--name", "served", "--system"], "systemctl is-active cron"), "active");
    // What is written is kept under the name, and only there.
    in_it(&["--name", "kept"], "echo mine > /root/file");
    assert_eq!(in_it(&["--name", "kept"], "cat /root/file"), "mine");
    assert_eq!(in_it(&["--rm"], "ls /root"), "");
    let install = "apt-get update -qq && apt-get install -y -qq hello >&2 && hello";
    assert_eq!(in_it(&["--name", "kept"], install), "Hello, world!");
    let machines: Vec<_> = (0..4)
        .map(|n| {
            let script = format!("echo {n} > /root/n; sync; cat /root/n");
            let mut command = debian.command(&debian.runs(&["--rm"], &script));
            command.stdout(Stdio::piped()).spawn().expect("started")
        })
        .collect();
    for (machine, n) in machines.into_iter().zip(0..) {
        let output = machine.wait_with_output().expect("it ends");
        assert_eq!(text(&output.stdout).trim(), n.to_string());
    }
    assert_eq!(digest(&root), before, "a machine has written to its base");
    debian.said(&["rm", "kept", "served"]);
    debian.said(&["prune"]);
    assert!(!root.exists());
    assert_eq!(code(&debian.run(&["rm", "kept"])), 2);
}
