//! `--hvc`: a virtio console as the guest's own, in a window.

use e2e::{Ends, Initramfs, Session, cache, command, debian};
use std::path::PathBuf;
use std::time::Duration;

/// A boot; a busy CI machine may need much.
const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

/// A shell on the virtio console, whose end is the machine's.
const SHELL: &str = "until busybox test -e /dev/hvc0; do busybox sleep 0.1; done
busybox setsid -c busybox sh -c 'echo \"a shell\"; exec busybox sh' </dev/hvc0 >/dev/hvc0 2>&1
busybox poweroff -f
";

fn initrd() -> PathBuf {
    let mut initramfs = Initramfs::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/hvc"));
    initramfs.module("drivers/char/virtio_console");
    initramfs.file(SHELL)
}

/// Kernel's words come by the serial line, the shell's by the console; who types, types there. The
/// guest hears of the window's size, and of each that it has later.
#[test]
fn a_virtio_console_is_as_large_as_the_window() {
    let _turn = debian("cloud");
    let (kernel, initrd) = (cache().join("cloud/vmlinuz"), initrd());
    for transport in ["pci", "mmio"] {
        let mut run = command(&["run", "--hvc", "--timeout", "4m", "--transport", transport]);
        run.arg("--kernel").arg(&kernel).arg("--initrd").arg(&initrd);
        let (mut session, terminal) = Session::on_terminal(&run, &Ends::default());
        terminal.resize(31, 97);
        session.expect("Linux version", BOOT);
        session.expect("a shell", BOOT);
        session.send("until busybox stty size | busybox grep '31 97'; do :; done\n");
        session.expect("\n31 97", SOON);
        terminal.resize(50, 132);
        session.send("until busybox stty size | busybox grep '50 132'; do :; done\n");
        session.expect("\n50 132", SOON);
        session.send("busybox tty; exit\n");
        let (status, transcript) = session.finish(SOON);
        assert!(status == 0 && transcript.contains("/dev/hvc0"), "{transcript}");
    }
}
