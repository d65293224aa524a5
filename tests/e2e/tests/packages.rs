//! Images of others, from Debian's packages: memtest86+ on the bare machine.

use e2e::{Session, command, debian, unpack};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The 64-bit image of Debian's memtest86+ package.
fn memtest() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memtest86+");
    let image = place.join("boot/memtest86+x64.bin");
    if !image.exists() {
        unpack("memtest86+", &place);
    }
    image
}

#[test]
fn memtest86_starts_its_first_pass() {
    for tier in ["interp", "translate"] {
        let _turn = debian("cloud");
        let image = memtest();
        let mut session = Session::start(command(&[
            "run",
            image.to_str().expect("a path"),
            "--cmdline",
            "console=ttyS0,115200",
            "--memory",
            "64M",
            "--timeout",
            "2m",
            "--tier",
            tier,
        ]));
        session.expect("Address test, walking ones", Duration::from_secs(60));
        // The next test: memory is written and read back.
        session.expect("Moving inversions", Duration::from_secs(100));
        session.expect("Pass:  0        Errors: 0", Duration::from_secs(60));
    }
}
