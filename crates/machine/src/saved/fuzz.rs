//! The fuzzing entry: the file of a saved machine whose header and areas are anything, under a
//! valid checksum, restored, run for a while, reset and run again.

use super::file::{self, Content, Header, SavedMachine};
use crate::board::Board;
use crate::boot_files::BootFile;
use crate::config::{BootConfig, Config, File, Transport};
use crate::device::{Device, Scratch};
use crate::{Lines, Machine, ResetError};
use engine_soft::{SoftEngine, Tier};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use sync::lock;
use vcpu::{CpuIo as _, Slice};
use x86::cpuid::CpuModel;

/// Instructions that a machine runs which has taken a state.
const SLICE: Slice = Slice { instructions: 2000 };
const ENGINE: SoftEngine = SoftEngine { tier: Tier::Interpret, code_cache: 1 << 16, count: false };
/// What the guest has asked of KVM's interface: that it be told the time, wall time and
/// steal time.
const RECORDS: [(u32, u64); 3] =
    [(0x4b56_4d01, 0x8001), (0x4b56_4d00, 0x9000), (0x4b56_4d03, 0xa001)];
/// Bytes of a file before its header: magic, version, the header's length.
const PREFIX: usize = 24;
/// Bytes of a change: how (1), where (2), a shift (1), a number (8).
const CHANGE: usize = 12;

/// What is small and saved: a machine with a Multiboot kernel of no instructions (Multiboot 0.6.96,
/// 3.1.3).
pub(super) fn config() -> Config {
    let checksum = 0_u32.wrapping_sub(0x1BAD_B002).wrapping_sub(1 << 16);
    let at = 0x10_0000;
    let words = [0x1BAD_B002, 1 << 16, checksum, at, at, at + 64, at + 64, at + 32];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    bytes.resize(64, 0x90);
    let kernel = File::Bytes { name: "a kernel of nothing".into(), bytes: bytes.into() };
    let boot = BootConfig { kernel, initrd: None, cmdline: String::new(), modules: vec![] };
    let cpu = CpuModel::gemello_v2();
    let devices = vec![Device::Scratch(Scratch::zeros(1 << 20))];
    let memory = 4 << 20;
    let (paging, timeout) = (None, None);
    Config {
        memory,
        paging,
        cpu,
        vcpus: 1,
        boot,
        devices,
        transport: Transport::Pci,
        debug_exit: true,
        deterministic: false,
        timeout,
    }
}

/// A file of this process.
fn path() -> PathBuf {
    let name = format!("gemello-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
    std::env::temp_dir().join(name)
}

/// The header of a saved machine, and its file.
fn saved() -> (Value, Vec<u8>) {
    let config = config();
    let machine = Machine::build(&config, Lines::default(), &ENGINE).expect("a small machine");
    let board = &machine.board;
    for (register, value) in RECORDS {
        let taken = lock(&board.processors[0]).io.msr_write(register, value);
        assert_eq!(taken, Some(Ok(())), "a register of KVM's interface");
    }
    let state = machine.save().expect("the engine tells its state");
    let (hardware, boot) = (config.hardware(), board.boot.saved());
    let header = Header { hardware, state, boot, session: json!({ "any": [1] }) };
    let path = path();
    let scratch = board.scratch();
    scratch[0].write_all_at(b"content", 0x2_0000).expect("room");
    let inside = board.boot.files().filter_map(BootFile::inside).collect();
    let content = Content { inside, ram: &board.ram, scratch };
    file::write(&path, &header, &content, file::Kept::OnDisk).expect("a temporary file");
    let bytes = std::fs::read(&path).expect("what was written");
    std::fs::remove_file(path).expect("it is there");
    (serde_json::to_value(header).expect("plain data"), bytes)
}

/// What follows the header of `file`, up to the checksum.
fn areas(file: &[u8]) -> &[u8] {
    let (prefix, rest) = file.split_at(PREFIX);
    let len = u32::from_le_bytes(prefix[PREFIX - 4..].try_into().expect("four bytes")) as usize;
    &rest[len..rest.len() - 4]
}

/// The file `original` with another header and other areas, and the checksum that goes with them.
fn with(original: &[u8], header: &Value, areas: &[u8]) -> Vec<u8> {
    let fixed = &original[..PREFIX - 4];
    let header = serde_json::to_vec(header).expect("plain data");
    let mut bytes = [fixed, &(header.len() as u32).to_le_bytes(), &header, areas].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Something else in place of `value`.
fn replaced(value: &Value, how: u8, number: u64) -> Value {
    match how % 16 {
        0 => Value::Null,
        1 => json!(-(number as i64 >> 1)),
        2 => json!(number as f64 / 3.0),
        3 => json!(number.to_string()),
        4 => json!([value, value]),
        5 => json!({ "version": value }),
        6 => json!([]),
        7 => json!(number & 1 != 0),
        _ => json!(number),
    }
}

/// Changes the value that comes `at` values after `value`, itself and those that it holds counted
/// in their order. Whether there was one.
fn spoil(value: &mut Value, at: &mut usize, change: &[u8; CHANGE]) -> bool {
    let [how, _, _, shift, number @ ..] = *change;
    if *at == 0 {
        *value = replaced(value, how, u64::from_le_bytes(number) >> (shift & 63));
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(items) => {
            if *at == 0 && how & 0xF0 == 0xF0 {
                items.pop();
                return true;
            }
            items.iter_mut().any(|item| spoil(item, at, change))
        }
        Value::Object(map) => {
            if *at == 0 && how & 0xF0 == 0xF0 {
                let nth = usize::from(number[0]) % map.len().max(1);
                let name = map.keys().nth(nth).cloned();
                name.map(|name| map.remove(&name));
                return true;
            }
            map.values_mut().any(|item| spoil(item, at, change))
        }
        _ => false,
    }
}

/// Restores a small machine from a file which is changed as `data` says: the first byte chooses the
/// tier, every [`CHANGE`] bytes after it are a change. Whether the file was taken.
///
/// # Panics
/// If a file does harm: it is either refused, or the machine runs.
pub fn fuzz(data: &[u8]) -> bool {
    static SAVED: OnceLock<(Value, Vec<u8>)> = OnceLock::new();
    let (header, original) = SAVED.get_or_init(saved);
    let Some((&tier, changes)) = data.split_first() else { return false };
    let (mut header, mut areas) = (header.clone(), areas(original).to_vec());
    for change in changes.chunks_exact(CHANGE) {
        let change: &[u8; CHANGE] = change.try_into().expect("a chunk");
        let place = usize::from(u16::from_le_bytes([change[1], change[2]]));
        if change[3] >= 0xC0 {
            let place = place % areas.len();
            areas[place] = change[4];
        } else {
            spoil(&mut header, &mut (place % 2500), change);
        }
    }
    let path = path();
    std::fs::write(&path, with(original, &header, &areas)).expect("a temporary file");
    let taken =
        restore_and_run(&path, if tier & 1 == 0 { Tier::Interpret } else { Tier::Translate });
    std::fs::remove_file(path).expect("it is there");
    taken
}

fn restore_and_run(path: &std::path::Path, tier: Tier) -> bool {
    let Ok(mut saved) = SavedMachine::open(path) else { return false };
    let engine = SoftEngine { tier, ..ENGINE };
    let Ok(machine) = Machine::from_saved(&mut saved, Lines::default(), &engine) else {
        return false;
    };
    run(&machine.board);
    let reset = machine.board.reset();
    assert!(!matches!(reset, Err(ResetError::Failed(_))), "{reset:?}");
    run(&machine.board);
    machine.save().expect("the engine tells its state");
    true
}

fn run(board: &Board) {
    board.start_time();
    for _ in 0..3 {
        board.timers.expire(devices::time::Clock::now(&*board.clock));
        let mut processor = lock(&board.processors[0]);
        processor.arrives(std::time::Duration::ZERO).expect("the engine takes its own state");
        processor.turn(SLICE, &board.ram);
        processor.leaves();
    }
    board.stop_time();
}
