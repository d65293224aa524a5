//! Disks that boot by themselves.

use e2e::{code, run, scratch, system_disk, text};
use std::fs;
use std::path::Path;

fn word(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_disk_boots_its_newest_kernel() {
    for format in ["raw", "qcow2"] {
        let disk = system_disk(format);
        let before = fs::read(&disk).expect("a disk");
        let output = run(&["run", "--disk", word(&disk), "--timeout", "60s"]);
        assert_eq!(text(&output.stdout), "the newest kernel", "{}", text(&output.stderr));
        assert_eq!(code(&output), 0);
        assert_eq!(fs::read(&disk).expect("a disk"), before, "nothing was written");
    }
}

#[test]
fn a_disk_without_a_kernel_is_refused_with_advice() {
    let zeros = scratch("zeros.img", &[0; 1 << 20]);
    let output = run(&["run", "--disk", word(&zeros)]);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{message}");
    for piece in ["zeros.img", "no ext4 or FAT file system", "--kernel"] {
        assert!(message.contains(piece), "{message}");
    }
    let twice = run(&["run", "--disk", word(&system_disk("raw")), "--disk", "/nonexistent"]);
    assert_eq!(code(&twice), 2, "the second disk is still opened");
}
