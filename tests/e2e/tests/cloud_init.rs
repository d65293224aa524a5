//! The disk on which cloud-init finds what a machine is to become, as Linux sees it.

use e2e::{Initramfs, Session, cache, code, command, debian, run, scratch, text, until};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(120);
const USER_DATA: &[u8] = b"#cloud-config\nhostname: a-host\n";

fn word(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn linux_mounts_the_disk_and_finds_the_files() {
    let _turn = debian("cloud");
    let mut initramfs = Initramfs::new(word(&scratch("modules", b"").with_extension("d")));
    for module in ["fs/fat/fat", "fs/fat/vfat", "fs/nls/nls_cp437", "fs/nls/nls_ascii"] {
        initramfs.module(module);
    }
    // By its label, as cloud-init looks for it; nothing can be written there.
    let init = "disk=$(busybox findfs LABEL=CIDATA); echo at $disk\n\
        busybox mount -t vfat -o ro $disk /mnt; cd /mnt\n\
        for file in *; do echo \"== $file\"; busybox cat $file; done; cd /\n\
        busybox umount /mnt; echo ro $(busybox cat /sys/block/vdb/ro); busybox poweroff -f\n";
    let initrd = initramfs.file(init);
    let kernel = cache().join("cloud/vmlinuz");
    let first = scratch("first.img", &[0; 1 << 20]);
    let meta = scratch("meta", b"local-hostname: other");
    let seed = [scratch("user", USER_DATA), meta, scratch("network", b"version: 2\n")];
    let seed = seed.map(|path| word(&path).to_owned()).join(",");
    let arguments = ["run", "--kernel", word(&kernel), "--initrd", word(&initrd), "--disk"];
    let more = [word(&first), "--cloud-init", &seed, "--name", "mounts", "--timeout", "60s"];
    let cmdline = ["--cmdline", "console=ttyS0 quiet"];
    let output = run(&[&arguments[..], &more, &cmdline].concat());
    let told = text(&output.stdout).replace("\r\n", "\n");
    assert_eq!(code(&output), 0, "{told}{}", text(&output.stderr));
    assert!(told.contains("at /dev/vdb\n"), "{told}");
    let meta = "== meta-data\nlocal-hostname: other\ninstance-id: mounts-";
    for piece in [meta, "== network-config\nversion: 2\n", "ro 1\n"] {
        assert!(told.contains(piece), "no {piece:?} in {told}");
    }
    assert!(told.contains(&format!("== user-data\n{}", text(USER_DATA))), "{told}");
}

/// What is on it is the saved machine's, whatever becomes of the files.
#[test]
fn the_disk_is_saved_with_its_machine() {
    let _turn = debian("cloud");
    let file = scratch("seeded.gm", b"");
    fs::remove_file(&file).expect("it was just made");
    let user = scratch("user", USER_DATA);
    let script = "read a; echo $a; sha256sum /dev/vda";
    let arguments = ["run", "busybox", "--name", "seeded", "--cloud-init", word(&user)];
    let more = ["--save", word(&file), "--timeout", "2m", "--", "sh", "-c", script];
    let mut session = Session::start(command(&[&arguments[..], &more].concat()));
    session.send("begun\n");
    session.expect("begun\n", BOOT);
    session.expect("/dev/vda\n", BOOT);
    let (status, all) = session.finish(BOOT);
    assert_eq!(status, 0, "{all}");
    let session = Session::start(command(&[&arguments[..], &more].concat()));
    std::thread::sleep(Duration::from_secs(1));
    session.signal(Signal::USR1);
    until("a saved machine", || file.exists().then_some(()));
    drop(session);
    fs::remove_file(&user).expect("it is there");
    let input = fs::File::open(scratch("input", b"begun\n")).expect("input");
    let mut restore = command(&["restore", word(&file), "--timeout", "2m"]);
    let output = restore.stdin(input).output().expect("gemello starts");
    assert_eq!((code(&output), text(&output.stdout)), (0, all), "{}", text(&output.stderr));
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn what_cloud_init_would_not_find_is_told() {
    let odd = scratch("odd", b"hostname: x\n");
    let none = ["run", "--nucleus", "test=sched", "--cloud-init", word(&odd)];
    let refused = run(&none);
    assert_eq!(code(&refused), 2, "{}", text(&refused.stderr));
    let kernel = scratch("kernel.elf", &e2e::prints(b"text", e2e::RESET));
    let seeded =
        |seed: &str| run(&["run", word(&kernel), "--cloud-init", seed, "--timeout", "60s"]);
    let warned = seeded(word(&odd));
    assert_eq!(code(&warned), 0, "{}", text(&warned.stderr));
    assert!(text(&warned.stderr).contains("#cloud-config"), "{}", text(&warned.stderr));
    let quiet = seeded(word(&scratch("good", USER_DATA)));
    assert_eq!((code(&quiet), text(&quiet.stderr)), (0, String::new()));
    let gone = seeded("/nonexistent");
    let message = text(&gone.stderr);
    assert_eq!(code(&gone), 2, "{message}");
    assert!(message.contains("/nonexistent for cloud-init: No such file"), "{message}");
    let folder = seeded("/");
    assert_eq!(code(&folder), 2, "{}", text(&folder.stderr));
    assert!(text(&folder.stderr).contains("directory"), "{}", text(&folder.stderr));
}
