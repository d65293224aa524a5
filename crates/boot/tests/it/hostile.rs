//! No bytes make the loaders panic, and no plan leaves RAM or overlaps itself ([`any_files::fuzz`]
//! checks that).

use crate::any_files;
use crate::images::{bzimage, elf32, elf64, multiboot_header};
use proptest::prelude::*;

fn seeds() -> Vec<Vec<u8>> {
    let mut body = multiboot_header(1 << 16 | 3, &[0x10_0000, 0x10_0000, 0, 0, 0x10_0010]);
    body.resize(64, 0);
    vec![
        bzimage(),
        elf64(0x10_0000, &[(0x10_0000, &[0; 64], 64)], None),
        elf64(0x10_0000, &[(0x10_0000, &[0; 64], 64)], Some(0x10_0000)),
        elf32(0x10_0000, 0x10_0000, &body, 0x1000),
        body,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_images_never_panic(
        seed in 0..5usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        header in prop::collection::vec(
            (0usize..0x90, prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff])),
            0..6,
        ),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut image = seeds().swap_remove(seed);
        for (at, byte) in damage {
            let at = at.index(image.len());
            image[at] = byte;
        }
        let base = if seed == 0 { 0x1f1 } else { 0 };
        for (at, byte) in header {
            if let Some(target) = image.get_mut(base + at) {
                *target = byte;
            }
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        any_files::fuzz(&image);
        image.insert(0, 250);
        any_files::fuzz(&image);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..600)) {
        any_files::fuzz(&noise);
    }
}
