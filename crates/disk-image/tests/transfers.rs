//! Transfers by the host's io_uring and by plain calls: the same memory and the same file, as a
//! model has them.

use disk_image::{Ring, Transfer};
use memory::GuestRam;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use test_support::Rng;
use x86::addr::Gpa;

const BYTES: usize = 1 << 20;
/// Transfers at once, each in a part of its own of memory and of the file.
const TOGETHER: usize = 16;
const SHARE: u64 = (BYTES / TOGETHER) as u64;

#[derive(Clone, Copy, Debug)]
enum Way {
    Ring,
    Plain,
}

/// Rounds of transfers; what memory and the file hold afterwards.
fn play(way: Way) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut ring = match way {
        // The host may forbid it.
        Way::Ring => Some(Ring::new(TOGETHER as u32).ok()?),
        Way::Plain => None,
    };
    let ram = GuestRam::new(&[(Gpa(0), BYTES as u64)]).expect("memory");
    let file = File::from(memfd_create("transfers", MemfdFlags::CLOEXEC).expect("a file"));
    let mut random = Rng::new(5);
    let mut noise = || (0..BYTES).map(|_| random.next() as u8).collect::<Vec<_>>();
    let (mut memory, mut content) = (noise(), noise());
    ram.write(Gpa(0), &memory).expect("RAM");
    file.write_all_at(&content, 0).expect("written");
    let file = Arc::new(file);
    for _ in 0..60 {
        for number in 0..TOGETHER {
            let bytes = 1 + random.below(SHARE / 2);
            let [at, offset] = [(); 2].map(|()| number as u64 * SHARE + random.below(SHARE / 2));
            let cut = random.below(bytes);
            let pieces = [(Gpa(at), cut), (Gpa(at + cut), bytes - cut)];
            let vectors = ram.vectors(pieces.into_iter().filter(|piece| piece.1 > 0));
            let vectors = vectors.expect("RAM");
            let range = |at: u64| at as usize..(at + bytes) as usize;
            let mut transfer = match random.below(5) {
                0 => Transfer::Flush,
                1 | 2 => {
                    memory[range(at)].copy_from_slice(&content[range(offset)]);
                    Transfer::Read { vectors, offset }
                }
                _ => {
                    content[range(offset)].copy_from_slice(&memory[range(at)]);
                    Transfer::Write { vectors, offset }
                }
            };
            match &mut ring {
                Some(ring) => ring.add(Arc::clone(&file), transfer, number),
                None => transfer.wait(&file).expect("made"),
            }
        }
        while let Some(ring) = ring.as_mut().filter(|ring| !ring.is_empty()) {
            ring.submit(1).expect("started");
            ring.done().into_iter().for_each(|(number, made)| {
                made.unwrap_or_else(|why| panic!("transfer {number}: {why}"));
            });
        }
    }
    let (mut found, mut written) = (vec![0; BYTES], vec![0; BYTES]);
    ram.read(Gpa(0), &mut found).expect("RAM");
    file.read_exact_at(&mut written, 0).expect("read");
    assert!(found == memory, "{way:?}: memory");
    assert!(written == content, "{way:?}: the file");
    Some((found, written))
}

#[test]
fn io_uring_and_plain_calls_do_the_same() {
    let plain = play(Way::Plain);
    assert!(plain.is_some());
    if let Some(ring) = play(Way::Ring) {
        assert!(plain == Some(ring));
    }
}

/// A transfer beyond the file's end is an error by both, and a ring that is dropped waits.
#[test]
fn the_end_of_a_file_is_an_error() {
    let ram = GuestRam::new(&[(Gpa(0), 0x4000)]).expect("memory");
    let file = File::from(memfd_create("end", MemfdFlags::CLOEXEC).expect("a file"));
    file.set_len(0x1000).expect("a size");
    let file = Arc::new(file);
    let transfer = || {
        let vectors = ram.vectors([(Gpa(0), 0x4000)]).expect("RAM");
        Transfer::Read { vectors, offset: 0 }
    };
    let kind = transfer().wait(&file).expect_err("too short").kind();
    assert_eq!(kind, std::io::ErrorKind::UnexpectedEof);
    let Ok(mut ring) = Ring::new(2) else { return };
    ring.add(Arc::clone(&file), transfer(), ());
    let made = loop {
        ring.submit(1).expect("started");
        if let Some((_, made)) = ring.done().pop() {
            break made;
        }
    };
    assert_eq!(made.expect_err("too short").kind(), std::io::ErrorKind::UnexpectedEof);
    ring.add(Arc::clone(&file), transfer(), ());
    ring.submit(0).expect("started");
    drop(ring);
}
