//! Builders of small images, valid unless a test breaks them.

/// Writes `bytes` at `at`.
pub(crate) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Payload of the synthetic bzImage: 4 KiB that begin with this.
pub(crate) const PAYLOAD: [u8; 4] = [0xde, 0xc0, 0xad, 0x0b];

/// A bzImage with two setup sectors, protocol 2.15, relocatable by 2 MiB, 64-bit entry, preferred
/// at 16 MiB.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 3 * 512 + 4096];
    put(&mut image, 0x1f1, &[2]);
    put(&mut image, 0x1f4, &(4096u32 / 16).to_le_bytes());
    put(&mut image, 0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x20fu16.to_le_bytes());
    put(&mut image, 0x211, &[1]);
    put(&mut image, 0x214, &0x10_0000u32.to_le_bytes());
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut image, 0x230, &0x20_0000u32.to_le_bytes());
    put(&mut image, 0x234, &[1, 21]);
    put(&mut image, 0x236, &3u16.to_le_bytes());
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut image, 0x260, &0x80_0000u32.to_le_bytes());
    put(&mut image, 3 * 512, &PAYLOAD);
    image
}

/// One segment: physical address, bytes, size in memory.
pub(crate) type Segment<'a> = (u64, &'a [u8], u64);

/// An ELF64 executable; `note` becomes a Xen entry note.
pub(crate) fn elf64(entry: u64, segments: &[Segment<'_>], note: Option<u64>) -> Vec<u8> {
    let count = segments.len() + usize::from(note.is_some());
    let mut image = vec![0; 64 + 56 * count];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 0x10, &[2, 0, 62, 0, 1]);
    put(&mut image, 0x18, &entry.to_le_bytes());
    put(&mut image, 0x20, &64u64.to_le_bytes());
    put(&mut image, 0x36, &[56, 0, count as u8]);
    for (n, &(phys, bytes, mem)) in segments.iter().enumerate() {
        let virt = phys + 0xffff_ffff_8000_0000;
        header64(&mut image, n, 1, [virt, phys, bytes.len() as u64, mem]);
        image.extend(bytes);
    }
    if let Some(address) = note {
        let mut bytes: Vec<u8> = [4u32, 8, 18].into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.extend(b"Xen\0");
        bytes.extend(address.to_le_bytes());
        header64(&mut image, segments.len(), 4, [0, 0, bytes.len() as u64, 0]);
        image.extend(bytes);
    }
    image
}

fn header64(image: &mut [u8], n: usize, kind: u32, fields: [u64; 4]) {
    let (at, offset) = (64 + 56 * n, image.len() as u64);
    put(image, at, &kind.to_le_bytes());
    put(image, at + 8, &offset.to_le_bytes());
    let bytes: Vec<u8> = fields.into_iter().flat_map(u64::to_le_bytes).collect();
    put(image, at + 16, &bytes);
    put(image, at + 48, &4u64.to_le_bytes());
}

/// An ELF32 executable of one segment.
pub(crate) fn elf32(entry: u32, phys: u32, bytes: &[u8], mem: u32) -> Vec<u8> {
    let mut image = vec![0; 52 + 32];
    put(&mut image, 0, b"\x7fELF\x01\x01\x01");
    put(&mut image, 0x10, &[2, 0, 3, 0, 1]);
    put(&mut image, 0x18, &entry.to_le_bytes());
    put(&mut image, 0x1c, &52u32.to_le_bytes());
    put(&mut image, 0x2a, &[32, 0, 1]);
    let words = [1, 84, phys, phys, bytes.len() as u32, mem, 7, 4];
    let header: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    put(&mut image, 52, &header);
    image.extend(bytes);
    image
}

/// A Multiboot header with `flags` and the fields that follow the checksum.
pub(crate) fn multiboot_header(flags: u32, fields: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let sum = magic.wrapping_add(flags).wrapping_neg();
    [magic, flags, sum].iter().chain(fields).flat_map(|w| w.to_le_bytes()).collect()
}
