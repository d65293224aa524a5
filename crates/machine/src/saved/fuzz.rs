//! The fuzzing entry: the file of a saved machine whose header is anything, under a valid checksum,
//! restored and run for a while.

use super::file::{self, Header, SavedMachine};
use crate::config::{BootConfig, Config, File};
use crate::{Lines, Machine};
use engine_soft::{SoftEngine, Tier};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::OnceLock;
use sync::lock;
use vcpu::Slice;
use x86::cpuid::CpuModel;

/// Instructions that a machine runs which has taken a state.
const SLICE: Slice = Slice { instructions: 2000 };
const ENGINE: SoftEngine = SoftEngine { tier: Tier::Interpret, code_cache: 1 << 16, count: false };
/// Bytes of a file before its header: magic, version, the header's length.
const PREFIX: usize = 24;
/// Bytes of a change: how (1), where (2), a shift (1), a number (8).
const CHANGE: usize = 12;

/// What is small and saved: a machine with a Multiboot kernel of no instructions (Multiboot 0.6.96,
/// 3.1.3).
fn config() -> Config {
    let checksum = 0_u32.wrapping_sub(0x1BAD_B002).wrapping_sub(1 << 16);
    let at = 0x10_0000;
    let words = [0x1BAD_B002, 1 << 16, checksum, at, at, at + 64, at + 64, at + 32];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    bytes.resize(64, 0x90);
    let kernel = File::Bytes { name: "a kernel of nothing".into(), bytes };
    let boot = BootConfig { kernel, initrd: None, cmdline: String::new(), modules: vec![] };
    let cpu = CpuModel::gemello_v2();
    Config {
        memory: 4 << 20,
        paging: None,
        cpu,
        boot,
        devices: vec![],
        debug_exit: true,
        timeout: None,
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
    let state = machine.save().expect("the engine tells its state");
    let header = Header { hardware: config.hardware(), state, session: json!({ "any": [1] }) };
    let path = path();
    file::write(&path, &header, machine.ram()).expect("a temporary file");
    let bytes = std::fs::read(&path).expect("what was written");
    std::fs::remove_file(path).expect("it is there");
    (serde_json::to_value(header).expect("plain data"), bytes)
}

/// The file `original` with another header, and the checksum that goes with it.
fn with_header(original: &[u8], header: &Value) -> Vec<u8> {
    let (prefix, rest) = original.split_at(PREFIX);
    let (fixed, len) = prefix.split_at(PREFIX - 4);
    let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
    let memory = &rest[len..rest.len() - 4];
    let header = serde_json::to_vec(header).expect("plain data");
    let mut bytes = [fixed, &(header.len() as u32).to_le_bytes(), &header, memory].concat();
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

/// Restores a small machine from a file whose header is changed as `data` says: the first byte
/// chooses the tier, every [`CHANGE`] bytes after it are a change. Whether the file was taken.
///
/// # Panics
/// If a file does harm: it is either refused, or the machine runs.
pub fn fuzz(data: &[u8]) -> bool {
    static SAVED: OnceLock<(Value, Vec<u8>)> = OnceLock::new();
    let (header, original) = SAVED.get_or_init(saved);
    let Some((&tier, changes)) = data.split_first() else { return false };
    let mut header = header.clone();
    for change in changes.chunks_exact(CHANGE) {
        let change: &[u8; CHANGE] = change.try_into().expect("a chunk");
        let mut place = usize::from(u16::from_le_bytes([change[1], change[2]])) % 2500;
        spoil(&mut header, &mut place, change);
    }
    let path = path();
    std::fs::write(&path, with_header(original, &header)).expect("a temporary file");
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
    let board = &machine.board;
    board.clock.start();
    for _ in 0..3 {
        board.timers.expire(devices::time::Clock::now(&*board.clock));
        lock(&board.processors[0]).turn(SLICE, &board.ram);
    }
    machine.save().expect("the engine tells its state");
    true
}
