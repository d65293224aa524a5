//! Debian's drivers let go of their devices and take them again, while programs use them.

use e2e::{Session, command, debian, scratch};
use std::fs;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// Each device's driver is unbound and bound again, three times, in the midst of reads and writes.
/// Then all of them work.
const SCRIPT: &str = r#"
dmesg -n 1
cd /sys/bus/virtio/drivers
again() {
    n=0
    while [ $n -lt 100 ] && "$@" 2>/dev/null; do n=$((n + 1)); done
    echo "stopped after $n: $*"
}
load() {
    again dd if=/dev/vda of=/dev/null bs=64k &
    again dd if=/dev/zero of=/dev/vdb bs=64k count=200 conv=fsync &
    again dd if=/dev/hwrng of=/dev/null bs=4k count=100 &
    again dd if=/dev/zero of=/mnt/work/file bs=64k count=200 &
}
for round in 1 2 3; do
    load
    usleep 100000
    for device in */virtio*; do
        driver=${device%/*} device=${device#*/}
        [ $driver = virtio_console ] && continue
        echo $device >$driver/unbind && echo $device >$driver/bind && echo "again $driver"
    done
    wait
    umount -l /mnt/work
    mount -t virtiofs work /mnt/work || echo no mount
done
for disk in vda vdb; do
    dd if=/dev/zero of=/dev/$disk bs=4k count=4 conv=fsync 2>/dev/null && echo "$disk works"
done
dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c
echo content >/mnt/work/after && cat /mnt/work/after
ls /sys/class/net/eth0/address && echo "all done"
"#;

#[test]
#[ignore = "by hand: cargo test -p e2e drivers:: -- --ignored --nocapture"]
fn drivers_come_and_go_under_load_by_hand() {
    let _turn = debian("cloud");
    let folder = scratch("beside", b"").with_file_name("work");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("script"), SCRIPT).expect("a file");
    let share = folder.to_str().expect("text");
    let [raw, second] = ["a.img", "b.img"].map(|name| scratch(name, &vec![0; 16 << 20]));
    let [raw, second] = [&raw, &second].map(|path| format!("{},format=raw", path.display()));
    let socket = format!("path={}", folder.with_file_name("vsock").display());
    let devices = ["--disk", &raw, "--disk", &second, "--share", share, "--vsock", &socket];
    let run = ["run", "busybox", "--balloon", "--vcpus", "2", "--timeout", "5m"];
    for transport in ["pci", "mmio"] {
        let more = ["--transport", transport];
        let mut session = Session::start(command(&[&run[..], &devices, &more].concat()));
        session.expect("# ", LONG);
        session.send("cp /mnt/work/script /script; sh /script\n");
        let (said, _) = session.expect("all done\r", LONG);
        println!("{said}");
        for driver in ["virtio_blk", "virtio_rng", "virtiofs", "virtio_balloon", "virtio_net"] {
            assert!(said.matches(&format!("again {driver}")).count() >= 3, "{driver}: {said}");
        }
        assert!(said.contains("vda works") && said.contains("vdb works"), "{said}");
        assert!(said.contains("\r\n64\r\ncontent\r\n") && !said.contains("no mount"), "{said}");
        session.send("poweroff\n");
        assert_eq!(session.finish(LONG).0, 0);
        let after = fs::read_to_string(folder.join("after")).expect("it is there");
        assert_eq!(after, "content\n");
    }
}
