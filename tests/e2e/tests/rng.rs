//! Random bytes for the guest, by Debian's own driver.

use e2e::{code, debian, run, text};

/// Runs `command` in Debian, and gives what it says.
fn says(options: &[&str], command: &str) -> String {
    let mut arguments = vec!["run", "busybox", "--timeout", "5m"];
    arguments.extend(options);
    arguments.extend(["--", "sh", "-c", command]);
    let output = run(&arguments);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The kernel's pool is fed from it, and who reads it gets bytes that no other read gets.
#[test]
fn the_guest_gets_the_hosts_random_bytes() {
    let _turn = debian("cloud");
    let command = "cat /sys/class/misc/hw_random/rng_current; \
                   for i in 1 2; do dd if=/dev/hwrng bs=64k count=1 iflag=fullblock 2>/dev/null | \
                   sha256sum; done; ls -l /dev/hwrng";
    for transport in ["pci", "mmio"] {
        let said = says(&["--transport", transport], command);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "virtio_rng.0", "{transport}: {said}");
        assert!(lines[1] != lines[2] && lines[1].len() > 60, "{transport}: {said}");
    }
}

#[test]
fn it_can_be_left_out() {
    let _turn = debian("cloud");
    let said = says(&["--rng", "off"], "cat /sys/class/misc/hw_random/rng_current");
    assert_eq!(said, "none\n");
}
