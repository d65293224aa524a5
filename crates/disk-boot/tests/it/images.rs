//! ext4 and GRUB's configuration.

use crate::support::{FIRST, PLAIN, ROOT, SECTOR, UUID, boots, ext4, fat, gpt, record};

pub(crate) fn debian(name: &str) -> Vec<u8> {
    let files: [(&str, &[u8]); 4] = [
        ("boot/vmlinuz-6.1.0-9-amd64", b"older"),
        ("boot/vmlinuz-6.1.0-57-amd64", b"kernel"),
        ("boot/initrd.img-6.1.0-57-amd64", b"initrd"),
        ("etc/hostname", b"debian"),
    ];
    ext4(name, &files)
}

#[test]
fn the_newest_kernel_is_found_on_any_sort_of_table() {
    let volume = debian("tables");
    let sectors = volume.len() / SECTOR;
    let gap =
        |bytes: &[u8], sectors: usize| [bytes, &vec![0; sectors * SECTOR - bytes.len()]].concat();
    let primary = [gap(&record(&[(0x82, 1, 1), (0x83, FIRST, sectors)]), FIRST), volume.clone()];
    let extended = record(&[(0x05, 8, FIRST + sectors)]);
    let logical = record(&[(0x83, FIRST - 8, sectors)]);
    let logical = [gap(&extended, 8), gap(&logical, FIRST - 8), volume.clone()];
    let disks = [
        ("whole", volume.clone()),
        ("primary", primary.concat()),
        ("logical", logical.concat()),
        ("gpt", gpt(&[(PLAIN, &volume)])),
    ];
    for (name, disk) in disks {
        let boot = boots(name, &disk).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(boot.kernel.path, "/boot/vmlinuz-6.1.0-57-amd64", "{name}");
        assert_eq!(boot.kernel.bytes, b"kernel");
        assert_eq!(boot.initrd.expect("one").bytes, b"initrd");
        assert_eq!(boot.cmdline, format!("root=UUID={UUID} ro console=ttyS0"));
    }
}

#[test]
fn grubs_configuration_comes_first() {
    let configuration = b"menuentry 'mine' {\n linux ($root)/vmlinuz-5 root=LABEL=x quiet\n \
        initrd /one /two\n}\n";
    let files: [(&str, &[u8]); 5] = [
        ("grub2/grub.cfg", configuration),
        ("vmlinuz-5", b"five"),
        ("vmlinuz-6", b"six"),
        ("one", b"1"),
        ("two", b"2"),
    ];
    let boot = boots("grub", &ext4("grub", &files)).expect("it boots");
    assert_eq!((boot.title.as_str(), boot.kernel.bytes.as_slice()), ("mine", &b"five"[..]));
    assert_eq!(boot.initrd.expect("two").bytes, b"1\0\0\x002");
    assert_eq!(boot.cmdline, "root=LABEL=x quiet console=ttyS0");
}

#[test]
fn what_is_missing_is_said() {
    let said = |name: &str, bytes: &[u8]| boots(name, bytes).expect_err("nothing").to_string();
    assert!(said("zeros", &[0; 1 << 20]).contains("no ext4 or FAT file system"));
    let mut xfs = vec![0; 1 << 20];
    xfs[..4].copy_from_slice(b"XFSB");
    assert!(said("xfs", &xfs).contains("XFS"));
    assert!(said("empty", &ext4("empty", &[("etc/hostname", b"x")])).contains("a kernel"));
    let both = gpt(&[(PLAIN, &fat(1, &[("EFI/debian/grub.cfg", b"configfile")])), (ROOT, &xfs)]);
    let why = said("both", &both);
    assert!(why.contains("a kernel in /boot") && why.contains("(but XFS)"), "{why}");
    let lost = b"menuentry 'lost' {\n linux /boot/gone\n}\n";
    let why = said("lost", &ext4("lost", &[("boot/grub/grub.cfg", lost)]));
    assert!(why.contains("\"lost\"") && why.contains("/boot/gone"), "{why}");
}
