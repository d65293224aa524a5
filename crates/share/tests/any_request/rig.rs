//! A share whose guest is made of bytes: for property tests and for cargo-fuzz.
//!
//! Besides not panicking, a run keeps a promise: nothing beside the folder is read or changed, and
//! saved state restores to itself.

#[path = "message.rs"]
mod message;

use message::Message;
use share::{Options, Owner, Share};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands beside the folder.
const SECRET: &[u8] = b"the host's secret, which no answer may contain";
/// Names that requests have, bad ones included.
const NAMES: [&[u8]; 12] =
    [b"d", b"f", b"link", b"out", b"new", b"..", b".", b"../secret", b"d/f", b"", b"/", b"\xff"];
/// No file grows larger by much.
const FILE_MAX: u64 = 1 << 20;
/// Bytes of a step.
const STEP: usize = 12;

/// A folder in another one, which goes with it.
struct Outer(PathBuf);

impl Drop for Outer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The folder `shared` beside a secret.
fn place() -> io::Result<Outer> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let outer = std::env::temp_dir().join(format!("gemello-rig-{}-{number}", std::process::id()));
    fs::create_dir(&outer)?;
    fs::write(outer.join("secret"), SECRET)?;
    let shared = outer.join("shared");
    fs::create_dir_all(shared.join("d"))?;
    fs::write(shared.join("f"), b"content")?;
    fs::write(shared.join("d/f"), b"content")?;
    symlink("../secret", shared.join("link"))?;
    symlink("..", shared.join("out"))?;
    Ok(Outer(outer))
}

/// Serves what `step` says.
fn serve(share: &Share, step: &[u8; STEP], room: usize) {
    let &[opcode, node, a, b, c, d, e, f, shape, n0, n1, cut] = step;
    let small = |byte: u8| u64::from(byte % 12);
    let wide = |byte: u8| 1_u64.checked_shl(u32::from(byte % 70)).map_or(u64::MAX, |bit| bit - 1);
    let name = |byte: u8| NAMES[usize::from(byte) % NAMES.len()];
    let mut arguments: Vec<u8> = Vec::new();
    for (bit, byte) in [a, b, c, d, e, f].into_iter().enumerate() {
        let word = if shape >> bit & 1 == 0 { small(byte) } else { wide(byte) };
        arguments.extend(word.to_ne_bytes());
    }
    // Most requests begin with none, one, two or three words.
    let words = match shape >> 6 {
        0 => 0,
        1 => 8,
        2 => 16,
        _ => usize::from(cut % 7) * 8,
    };
    arguments.truncate(words);
    for byte in [n0, n1] {
        arguments.extend(name(byte));
        arguments.push(0);
    }
    let mut request = 0_u32.to_ne_bytes().to_vec();
    request.extend(u32::from(opcode % 56).to_ne_bytes());
    request.extend(1_u64.to_ne_bytes());
    request.extend(small(node).to_ne_bytes());
    request.extend([0; 16]);
    request.extend(arguments);
    if cut >= 240 {
        request.truncate(usize::from(n0) % 80);
    }
    let message = Message::bounded(request, room, FILE_MAX);
    let written = share.serve(&message);
    let answer = message.answer.into_inner();
    assert!(written <= answer.len());
    assert!(!answer.windows(SECRET.len()).any(|bytes| bytes == SECRET), "it is out");
}

/// INIT.
fn init(share: &Share) {
    let mut request = vec![0; 104];
    request[4] = 26;
    request[40] = 7;
    request[44] = 38;
    let message = Message::bounded(request, 80, FILE_MAX);
    assert_eq!(share.serve(&message), 80);
}

/// Has a guest ask for what `data` says. Must neither panic nor hang.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((&kind, steps)) = data.split_first() else { return };
    let place = place().expect("a folder");
    let outer: &Path = &place.0;
    let owner = if kind & 2 == 0 { Owner::default() } else { Owner::Keep };
    let options = Options { read_only: kind & 1 != 0, owner, ..Options::default() };
    let share = Share::open(&outer.join("shared"), options).expect("shared");
    init(&share);
    let (steps, _) = steps.as_chunks::<STEP>();
    for (number, step) in steps.iter().take(4096).enumerate() {
        serve(&share, step, if step[1] >= 250 { step[2].into() } else { 4096 });
        if number % 64 == 63 {
            init(&share);
        }
        if number % 50 == 49 {
            let state = share.save();
            share.restore(&state);
            assert_eq!(share.save(), state);
        }
    }
    assert_eq!(fs::read(outer.join("secret")).expect("there"), SECRET);
    let mut there: Vec<_> = fs::read_dir(outer)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    there.sort();
    assert_eq!(there, ["secret", "shared"]);
    let content = fs::read(outer.join("shared/f"));
    assert!(!options.read_only || content.is_ok_and(|content| content == b"content"));
}
