//! fio, Debian's package, on virtio disks: how fast they are beside QEMU's, and that what was
//! written is what is read.
//!
//! `FIO_SECONDS=3` gives each job of the speeds that time, and shows QEMU's.

use e2e::{Initramfs, cache, debian_alone, packages, scratch, text};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// fio and what it is linked with.
const PACKAGES: [&str; 58] = [
    "fio",
    "libacl1",
    "libaio1",
    "libargon2-1",
    "libblkid1",
    "libboost-iostreams1.74.0",
    "libboost-thread1.74.0",
    "libbz2-1.0",
    "libc6",
    "libcom-err2",
    "libcryptsetup12",
    "libdaxctl1",
    "libdevmapper1.02.1",
    "libffi8",
    "libfmt9",
    "libgcc-s1",
    "libgfapi0",
    "libgfrpc0",
    "libgfxdr0",
    "libglusterfs0",
    "libgmp10",
    "libgnutls30",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libibverbs1",
    "libicu72",
    "libidn2-0",
    "libjson-c5",
    "libk5crypto3",
    "libkeyutils1",
    "libkmod2",
    "libkrb5-3",
    "libkrb5support0",
    "liblzma5",
    "libnbd0",
    "libndctl6",
    "libnettle8",
    "libnl-3-200",
    "libnl-route-3-200",
    "libnuma1",
    "libp11-kit0",
    "libpcre2-8-0",
    "libpmem1",
    "libpmemblk1",
    "librados2",
    "librbd1",
    "librdmacm1",
    "libselinux1",
    "libssl3",
    "libstdc++6",
    "libtasn1-6",
    "libtirpc3",
    "libudev1",
    "libunistring2",
    "libuuid1",
    "libxml2",
    "libzstd1",
    "zlib1g",
];

/// An initramfs with fio in it, whose process 1 is `init`.
fn initramfs(init: &str) -> PathBuf {
    let place = env!("CARGO_TARGET_TMPDIR");
    let mut initramfs = Initramfs::new(place);
    initramfs.tree(&packages(&Path::new(place).join("fio"), &PACKAGES));
    initramfs.file(init)
}

/// The jobs whose speed is told, and how each is described to fio.
const JOBS: [(&str, &str); 6] = [
    ("sequential read, 1 MiB, depth 8", "--rw=read --bs=1M --iodepth=8"),
    ("sequential read, 4 KiB, depth 32", "--rw=read --bs=4k --iodepth=32"),
    ("random read, 4 KiB, depth 32", "--rw=randread --bs=4k --iodepth=32"),
    ("random read, 4 KiB, depth 1", "--rw=randread --bs=4k --iodepth=1"),
    ("sequential write, 1 MiB, depth 8", "--rw=write --bs=1M --iodepth=8"),
    ("random write, 4 KiB, depth 32", "--rw=randwrite --bs=4k --iodepth=32"),
];

/// Bytes of the disk whose speed is told: they stay in the host's page cache.
const SPEED_BYTES: u64 = 512 << 20;

/// Runs each job once: fio's terse line of it follows `=` and the job's number.
fn speed_script(seconds: u32) -> String {
    let job = |(number, (_, options)): (usize, &(&str, &str))| {
        format!(
            "echo \"={number};$(fio --name=j --filename=/dev/vda --ioengine=libaio --direct=1 \
             --thread --gtod_reduce=1 --time_based --runtime={seconds} --minimal {options})\"\n"
        )
    };
    let jobs: String = JOBS.iter().enumerate().map(job).collect();
    jobs + "busybox poweroff -f\n"
}

/// KiB/s and requests a second of each job, from the guest's output.
fn speeds(output: &str) -> HashMap<usize, (u64, u64)> {
    let line = |line: &str| {
        let fields: Vec<_> = line.strip_prefix('=')?.split(';').collect();
        let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // The terse format, version 3, after our own field: reads, and 41 fields further writes.
        let [read, write] = [7, 48].map(|at| (field(at), field(at + 1)));
        let pair = if read.0? > 0 { read } else { write };
        Some((field(0)? as usize, (pair.0?, pair.1?)))
    };
    output.lines().filter_map(line).collect()
}

/// A machine on `image` with `vcpus` processors, whose process 1 is in `initrd`.
fn gemello(image: &Path, initrd: &Path, vcpus: &str) -> Command {
    let mut command = e2e::command(&["run", "--memory", "768M", "--vcpus", vcpus]);
    command.arg("--kernel").arg(cache().join("cloud/vmlinuz")).arg("--initrd").arg(initrd);
    command.args(["--cmdline", "console=ttyS0 quiet panic=-1", "--disk"]);
    command.arg(format!("{},format=raw", image.display()));
    command
}

/// The same machine of QEMU's, which does its I/O by `aio`.
fn qemu(image: &Path, initrd: &Path, vcpus: &str, aio: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", vcpus, "-m", "768M"]);
    command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(cache().join("cloud/vmlinuz")).arg("-initrd").arg(initrd);
    command.args(["-append", "console=ttyS0 quiet panic=-1", "-drive"]);
    let path = image.display();
    command.arg(format!("file={path},if=none,id=d,format=raw,cache=writeback,aio={aio}"));
    command.args(["-device", "virtio-blk-pci,drive=d"]);
    command
}

/// gemello and QEMU in turn on the same image, in the host's page cache. Prints a table.
#[test]
#[ignore = "second step: a second for each job; FIO_SECONDS=3 for figures, with QEMU beside"]
fn speed_beside_qemu_by_hand() {
    let _turn = debian_alone("cloud");
    let asked = std::env::var("FIO_SECONDS").ok().map(|n| n.parse().expect("a number"));
    let initrd = initramfs(&speed_script(asked.unwrap_or(1)));
    let image = scratch("speed.img", b"");
    let mut noise = File::open("/dev/urandom").expect("noise").take(SPEED_BYTES);
    let mut file = File::create(&image).expect("an image");
    std::io::copy(&mut noise, &mut file).and_then(|_| file.sync_all()).expect("written");
    let mut machines = vec![("gemello", gemello(&image, &initrd, "1"))];
    if asked.is_some() {
        machines.push(("QEMU threads", qemu(&image, &initrd, "1", "threads")));
        machines.push(("QEMU io_uring", qemu(&image, &initrd, "1", "io_uring")));
        machines.push(("gemello x2", gemello(&image, &initrd, "2")));
        machines.push(("QEMU threads x2", qemu(&image, &initrd, "2", "threads")));
        machines.push(("QEMU io_uring x2", qemu(&image, &initrd, "2", "io_uring")));
    }
    for (name, mut command) in machines {
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = text(&output.expect("it starts").stdout);
        let speeds = speeds(&output);
        assert_eq!(speeds.len(), JOBS.len(), "{name}: {output}");
        for (number, (job, _)) in JOBS.iter().enumerate() {
            let (kibibytes, requests) = speeds[&number];
            let megabytes = kibibytes as f64 * 1024.0 / 1e6;
            println!("{name:<16} | {job:<32} | {megabytes:8.1} MB/s | {requests:7}/s");
        }
    }
    fs::remove_file(image).expect("it is there");
}

/// What is written by each disk's jobs is verified: in order and not, past the guest's cache.
const VERIFY: &str = "
for disk in vda vdb vdc; do for way in write randwrite; do
    fio --name=v --filename=/dev/$disk --direct=1 --ioengine=libaio --iodepth=32 --rw=$way \\
        --bsrange=512-1M --size=16M --verify=crc32c --verify_fatal=1 --thread --minimal \\
        > /tmp/log 2>&1
    status=$?
    [ $status = 0 ] || busybox cat /tmp/log
    echo \"=$disk $way $status\"
done; done
busybox poweroff -f
";

/// Raw by the host's cache and past it, and qcow2, with two processors.
#[test]
#[ignore = "second step: half a minute"]
fn what_is_written_at_depth_is_read_back() {
    let _turn = debian_alone("cloud");
    let image = |name: &str, format: &str| {
        let path = scratch(name, b"");
        fs::remove_file(&path).expect("it is there");
        let tool = ["disk", "create", "--format", format];
        e2e::succeeds(e2e::command(&tool).arg(&path).arg("24M"));
        path
    };
    let (raw, past) = (image("raw.img", "raw"), image("past.img", "raw"));
    let qcow2 = image("a.qcow2", "qcow2");
    let mut command = gemello(&raw, &initramfs(VERIFY), "2");
    command.arg("--disk").arg(format!("{},cache=none", past.display()));
    command.args(["--timeout", "5m", "--disk"]).arg(&qcow2);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = text(&output.expect("it starts").stdout);
    for disk in ["vda", "vdb", "vdc"] {
        for way in ["write", "randwrite"] {
            assert!(output.contains(&format!("={disk} {way} 0")), "{disk} {way}: {output}");
        }
    }
    e2e::succeeds(Command::new("qemu-img").arg("check").arg(qcow2));
}
