//! The VM generation ID, by the driver of Debian's full kernel: the copies of a saved guest are
//! told, and get random numbers of their own.

use e2e::{Session, command, debian, scratch};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
/// What Linux says when it has taken the notice.
const TOLD: &str = "crng reseeded due to virtual machine fork";

/// What `command` says in the shell of `session`, on one line.
fn ask(session: &mut Session, command: &str) -> String {
    session.send(&format!("echo \"a\"nswer $({command}).\n"));
    session.expect("answer ", SOON);
    let (text, _) = session.expect(".", SOON);
    text.trim_end_matches('.').to_owned()
}

/// Saves the machine of `session` to `file`.
fn save(session: &Session, file: &std::path::Path) {
    session.signal(Signal::USR1);
    let deadline = Instant::now() + SOON;
    while !file.exists() {
        assert!(Instant::now() < deadline, "it is not saved");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "by hand: Debian's full kernel, three times"]
fn copies_of_a_saved_guest_have_random_numbers_by_hand() {
    let _turn = debian("full");
    let file = scratch("generation.gm", b"");
    std::fs::remove_file(&file).expect("it was just made");
    let path = file.to_str().expect("text");
    let full = ["run", "busybox", "--flavour", "full", "--save", path];
    let mut session = Session::start(command(&full));
    session.expect("# ", BOOT);
    // The generic event device's interrupt has not come yet.
    let told = "dmesg | grep -c 'machine fork'";
    assert_eq!(ask(&mut session, told), "0");
    save(&session, &file);
    assert_eq!(ask(&mut session, told), "0", "who was saved is the same still");
    drop(session);

    let mut random = Vec::new();
    for _ in 0..2 {
        let mut session = Session::start(command(&["restore", path, "--timeout", "120"]));
        let said = format!("while ! dmesg | grep -q '{TOLD}'; do usleep 50000; done; echo told");
        assert_eq!(ask(&mut session, &said), "told");
        random.push(ask(&mut session, "head -c 16 /dev/urandom | od -An -tx1"));
        session.send("poweroff\n");
        assert_eq!(session.finish(SOON).0, 0);
    }
    assert_ne!(random[0], random[1]);
    std::fs::remove_file(&file).expect("it is there");
}
