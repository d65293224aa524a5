//! Virtio disks: Debian's own driver and the tiniest one, and what cannot be a disk.

use e2e::{Initramfs, cache, code, command, debian, kernel, run, scratch, text};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::Rng;

/// Process 1: each line that it prints and that begins with `=` is an answer.
const INIT: &str = r#"
for applet in cat dd sha256sum poweroff; do alias $applet="busybox $applet"; done
for disk in vda vdb; do
    at=/sys/block/$disk
    echo =$disk size $(cat $at/size) ro $(cat $at/ro) $(cat $at/serial)
    echo =$disk $(sha256sum < /dev/$disk)
done
dd if=/dev/urandom of=/noise bs=64k count=64 2> /dev/null
dd if=/noise of=/dev/vda bs=4k seek=100 conv=fsync 2> /dev/null &&
    echo =written $(sha256sum < /noise)
dd if=/noise of=/dev/vdb bs=4k count=1 conv=fsync 2> /dev/null || echo =vdb refuses
echo 3 > /proc/sys/vm/drop_caches
while read line; do case "$line" in *virtio*) echo "=interrupt $line"; esac; done < /proc/interrupts
echo =again $(dd if=/dev/vda bs=4k skip=100 count=1024 2> /dev/null | sha256sum)
poweroff -f
"#;

/// An initramfs with `init` as process 1.
fn initramfs(init: &str) -> PathBuf {
    Initramfs::new(env!("CARGO_TARGET_TMPDIR")).file(init)
}

/// An image of `bytes` bytes of noise.
fn image(name: &str, bytes: usize) -> PathBuf {
    let mut random = Rng::new(1);
    let noise = std::iter::repeat_with(|| random.next() as u8);
    scratch(name, &noise.take(bytes).collect::<Vec<_>>())
}

/// The host's sum of part of a file.
fn sum(path: &Path, skip: usize, bytes: usize) -> String {
    let content = fs::read(path).expect("an image");
    let part = scratch("part", &content[skip..skip + bytes]);
    let output = Command::new("sha256sum").arg(part).output().expect("sha256sum");
    text(&output.stdout).split_whitespace().next().expect("a sum").to_owned()
}

/// Debian's modules find the disks on PCI, and interrupts are messages.
#[test]
fn debians_driver_reads_and_writes() {
    let transcript = reads_and_writes("pci", "");
    for interrupt in ["PCI-MSI 16384-edge      virtio0-config", "virtio0-req.0", "virtio1-req.0"] {
        assert!(transcript.contains(interrupt), "no {interrupt} in {transcript}");
    }
}

/// Without messages it is INTA#, which _PRT routes.
#[test]
fn debians_driver_works_with_pin_interrupts() {
    let transcript = reads_and_writes("pci", "pci=nomsi");
    for interrupt in ["16-fasteoi   virtio0", "17-fasteoi   virtio1"] {
        assert!(transcript.contains(interrupt), "no {interrupt} in {transcript}");
    }
}

/// The same on MMIO, which ACPI tells of.
#[test]
fn debians_driver_reads_and_writes_on_mmio() {
    let transcript = reads_and_writes("mmio", "");
    for interrupt in ["16-fasteoi   virtio0", "17-fasteoi   virtio1"] {
        assert!(transcript.contains(interrupt), "no {interrupt} in {transcript}");
    }
}

/// Debian's modules find the disks, read what is there, and write what the host then finds. Returns
/// what the guest said.
fn reads_and_writes(transport: &str, option: &str) -> String {
    let _turn = debian("cloud");
    let name = |disk| format!("{disk}-{transport}{option}.img");
    let (first, second) = (image(&name("first"), 16 << 20), image(&name("second"), 1 << 20));
    let before = [sum(&first, 0, 16 << 20), sum(&second, 0, 1 << 20)];
    let cmdline = format!("console=ttyS0 quiet panic=-1 {option}");
    let output = command(&["run", "--timeout", "3m", "--cmdline", &cmdline])
        .args(["--transport", transport, "--kernel"])
        .arg(cache().join("cloud/vmlinuz"))
        .arg("--initrd")
        .arg(initramfs(INIT))
        .arg("--disk")
        .arg(&first)
        .arg("--disk")
        .arg(format!("{},ro", second.display()))
        .output()
        .expect("gemello starts");
    let transcript = text(&output.stdout);
    assert_eq!(code(&output), 0, "{transcript}");
    let written = sum(&first, 100 << 12, 4 << 20);
    for answer in [
        "=vda size 32768 ro 0 gemello-disk0",
        &format!("=vda {} -", before[0]),
        "=vdb size 2048 ro 1 gemello-disk1",
        &format!("=vdb {} -", before[1]),
        &format!("=written {written} -"),
        "=vdb refuses",
        &format!("=again {written} -"),
    ] {
        assert!(transcript.contains(&format!("{answer}\r\n")), "no {answer:?} in {transcript}");
    }
    assert_eq!(sum(&second, 0, 1 << 20), before[1], "a read-only disk was written");
    transcript
}

/// Process 1 of the qcow2 test: it writes, discards, and says what it finds.
const SECOND_INIT: &str = r#"
for applet in cat dd sha256sum poweroff blkdiscard; do alias $applet="busybox $applet"; done
echo =size $(cat /sys/block/vda/size) $(cat /sys/block/vda/serial)
echo =cpus $(echo /sys/block/vda/mq/*)
echo =found $(sha256sum < /dev/vda)
dd if=/dev/urandom of=/noise bs=64k count=64 2> /dev/null
dd if=/noise of=/dev/vda bs=1M seek=4 conv=fsync 2> /dev/null && echo =noise $(sha256sum < /noise)
dd if=/noise of=/dev/vda bs=1M seek=10 count=4 conv=fsync 2> /dev/null
blkdiscard -o 10485760 -l 4194304 /dev/vda && echo =discarded
poweroff -f
"#;

/// A qcow2 image on a raw one: Debian reads the one through the other, writes to the first alone,
/// gives space back, and what it wrote is in the second after a commit.
#[test]
fn debian_writes_to_an_overlay_that_is_committed() {
    let _turn = debian("cloud");
    let base = image("overlay-base.img", 16 << 20);
    let over = base.with_file_name("overlay.qcow2");
    let _ = fs::remove_file(&over);
    let tool = |words: &[&str], files: &[&Path]| {
        let output = command(&["disk"]).args(words).args(files).output().expect("gemello starts");
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output.stderr));
    };
    tool(&["create", "--backing"], &[&base, &over]);
    let before = sum(&base, 0, 16 << 20);
    let output = command(&["run", "--timeout", "3m", "--vcpus", "2", "--kernel"])
        .arg(cache().join("cloud/vmlinuz"))
        .args(["--cmdline", "console=ttyS0 quiet panic=-1", "--initrd"])
        .arg(initramfs(SECOND_INIT))
        .arg("--disk")
        .arg(format!("{},serial=over-1,bps=1G", over.display()))
        .output()
        .expect("gemello starts");
    let transcript = text(&output.stdout);
    assert_eq!(code(&output), 0, "{transcript}");
    assert_eq!(sum(&base, 0, 16 << 20), before, "a backing file was written");
    // The last 4 MiB were written and given back.
    let taken = fs::metadata(&over).expect("an image").blocks() * 512;
    assert!((4 << 20..7 << 20).contains(&taken), "{taken} bytes on the host");
    tool(&["commit"], &[&over]);
    let noise = sum(&base, 4 << 20, 4 << 20);
    for answer in [
        "=size 32768 over-1".to_owned(),
        "=cpus /sys/block/vda/mq/0 /sys/block/vda/mq/1".to_owned(),
        format!("=found {before} -"),
        format!("=noise {noise} -"),
        "=discarded".to_owned(),
    ] {
        assert!(transcript.contains(&format!("{answer}\r\n")), "no {answer:?} in {transcript}");
    }
}

/// 32-bit code that drives the disk by straight stores, for flat segments and no paging.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    /// mov dword [address], value
    fn store(&mut self, address: u32, value: u32) {
        self.0.extend([0xC7, 0x05]);
        self.0.extend(address.to_le_bytes());
        self.0.extend(value.to_le_bytes());
    }

    /// 1: cmp word [address], value; jne 1b
    fn wait(&mut self, address: u32, value: u16) {
        self.0.extend([0x66, 0x81, 0x3D]);
        self.0.extend(address.to_le_bytes());
        self.0.extend(value.to_le_bytes());
        self.0.extend([0x75, 0xF5]);
    }

    /// mov eax, address; call eax
    fn call(&mut self, address: u32) {
        self.0.push(0xB8);
        self.0.extend(address.to_le_bytes());
        self.0.extend([0xFF, 0xD0]);
    }
}

/// A device that writes over code that has run: the processor must run the new code, also one that
/// decoded the old.
#[test]
fn code_from_the_disk_replaces_code_that_ran() {
    const DEVICE: u32 = 0xFEB0_0000;
    const DESCRIPTORS: u32 = 0x20_0000;
    const AVAILABLE: u32 = 0x20_1000;
    const USED: u32 = 0x20_2000;
    const HEADER: u32 = 0x20_3000;
    const STATUS: u32 = 0x20_3800;
    const ROUTINE: u32 = 0x30_0000;
    let mut guest = Code::default();
    // mov al, 21h; ret
    guest.store(ROUTINE, 0x00C3_21B0);
    (0..100).for_each(|_| guest.call(ROUTINE));
    for (register, value) in [
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x24, 1), // VIRTIO_F_VERSION_1
        (0x20, 1),
        (0x70, 0xB),
        (0x30, 0),
        (0x38, 8),
        (0x80, DESCRIPTORS),
        (0x90, AVAILABLE),
        (0xA0, USED),
        (0x44, 1),
        (0x70, 0xF),
    ] {
        guest.store(DEVICE + register, value);
    }
    let descriptors = [(HEADER, 16, 1 << 16 | 1), (ROUTINE, 512, 2 << 16 | 3), (STATUS, 1, 2)];
    for (at, (address, len, flags)) in (DESCRIPTORS..).step_by(16).zip(descriptors) {
        guest.store(at, address);
        guest.store(at + 8, len);
        guest.store(at + 12, flags);
    }
    guest.store(AVAILABLE, 1 << 16 | 1); // one request, no interrupt
    guest.store(DEVICE + 0x50, 0);
    guest.wait(USED + 2, 1);
    // cpuid: the processor must not have fetched ahead (SDM vol. 3, 8.1.3).
    guest.0.extend([0x0F, 0xA2]);
    guest.call(ROUTINE);
    // out 0f4h, al; cli; 1: hlt; jmp 1b
    guest.0.extend([0xE6, 0xF4, 0xFA, 0xF4, 0xEB, 0xFD]);

    // mov al, 42h; ret
    let mut sector = [0; 512];
    sector[..3].copy_from_slice(&[0xB0, 0x42, 0xC3]);
    let (image, disk) = (scratch("dma.elf", &kernel(&guest.0)), scratch("dma.img", &sector));
    let [image, disk] = [&image, &disk].map(|path| path.to_str().expect("text"));
    let device = ["--transport", "mmio", "--disk", disk];
    let output = run(&[&["run", image, "--debug-exit", "--timeout", "20"], &device[..]].concat());
    assert_ne!(code(&output), 0x21 << 1 | 1, "the old code ran");
    assert_eq!(code(&output), 0x42 << 1 | 1, "{}", text(&output.stderr));
}

/// Bad disks: a message that names the file and the remedy, exit code 2.
#[test]
fn what_is_no_disk_is_refused() {
    let guest = scratch("idle-with-disk.elf", &e2e::idle());
    let guest = guest.to_str().expect("text");
    let (empty, uneven) = (scratch("empty.img", b""), scratch("uneven.img", &[0; 1000]));
    let good = scratch("good.img", &[0; 1024]);
    let [empty, uneven, good] = [&empty, &uneven, &good].map(|path| path.to_str().expect("text"));
    let shared = format!("{good},ro");
    let many = [["--disk", good]; 32].concat();
    let on_mmio = [&["--transport", "mmio"], &many[..18]].concat();
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--disk", "/nonexistent/a.img"], &["/nonexistent/a.img", "check the path"]),
        (&["--disk", "/tmp,ro"], &["/tmp", "directory"]),
        (&["--disk", empty], &[empty, "truncate -s '>64M'"]),
        (&["--disk", uneven], &[uneven, "a copy of it: cp "]),
        (&["--disk", good, "--disk", &shared], &[good, "in use"]),
        (&many, &["32 devices are too many", "slots for 31"]),
        (&on_mmio, &["9 devices are too many", "with this --transport there are slots for 8"]),
    ];
    for (disks, pieces) in cases {
        let output = run(&[&["run", guest, "--timeout", "10"], disks].concat());
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{disks:?}: {message}");
        for piece in pieces {
            assert!(message.contains(piece), "{disks:?}: no {piece:?} in {message}");
        }
    }
    let both = run(&["run", guest, "--timeout", "500ms", "--disk", &shared, "--disk", &shared]);
    assert_eq!(code(&both), 124, "two readers: {}", text(&both.stderr));
}

#[test]
fn run_debian_shows_its_disks() {
    let _turn = debian("cloud");
    let image = scratch("shown.img", &[]);
    fs::write(&image, [b"first sector".as_slice(), &[0; 4096 - 12]].concat())
        .expect("a scratch file");
    let disk = image.to_str().expect("a path");
    let command = "head -c 12 /dev/vda; cat /sys/block/vda/size";
    for transport in ["pci", "mmio"] {
        let machine = ["run", "busybox", "--transport", transport, "--disk", disk];
        let guest = ["--timeout", "5m", "--", "sh", "-c", command];
        let run = run(&[&machine[..], &guest].concat());
        assert_eq!(code(&run), 0, "{}", text(&run.stderr));
        assert_eq!(text(&run.stdout), "first sector8\n");
    }
}
