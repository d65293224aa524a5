//! The fuzzing entry: a saved machine of which any numbers are wrong, restored and run for a while.

use crate::board::lock;
use crate::config::{BootConfig, Config, File};
use crate::{Lines, Machine};
use engine_soft::{SoftEngine, Tier};
use serde_json::Value;
use std::sync::OnceLock;
use vcpu::Slice;
use x86::cpuid::CpuModel;

/// Instructions that a machine runs which has taken a state.
const SLICE: Slice = Slice { instructions: 2000 };
const ENGINE: SoftEngine = SoftEngine { tier: Tier::Interpret, code_cache: 1 << 16, count: false };

/// A machine with a Multiboot kernel of no instructions (Multiboot 0.6.96, 3.1.3).
fn machine() -> Machine {
    let checksum = 0_u32.wrapping_sub(0x1BAD_B002).wrapping_sub(1 << 16);
    let at = 0x10_0000;
    let words = [0x1BAD_B002, 1 << 16, checksum, at, at, at + 64, at + 64, at + 32];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    bytes.resize(64, 0x90);
    let kernel = File::Bytes { name: "a kernel of nothing".into(), bytes };
    let boot = BootConfig { kernel, initrd: None, cmdline: String::new(), modules: vec![] };
    let cpu = CpuModel::gemello_v2();
    let config =
        Config { memory: 4 << 20, cpu, boot, devices: vec![], debug_exit: true, timeout: None };
    Machine::build(&config, Lines::default(), &ENGINE).expect("a machine of a few pages")
}

/// Sets number `at` of `value`, counted in the order in which they stand there.
fn spoil(value: &mut Value, at: &mut Option<usize>, with: u64) {
    match value {
        Value::Number(number) => match at {
            Some(0) => {
                *number = with.into();
                *at = None;
            }
            Some(left) => *left -= 1,
            None => {}
        },
        Value::Bool(bit) if *at == Some(0) => {
            *bit = with & 1 != 0;
            *at = None;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| spoil(item, at, with)),
        Value::Object(map) => map.values_mut().for_each(|item| spoil(item, at, with)),
        _ => {}
    }
}

/// Restores the state of a small machine, changed as `data` says: each 11 bytes are a place (2), a
/// shift (1) and a value (8).
///
/// # Panics
/// If a state does harm: it is either refused, or runs.
pub fn fuzz(data: &[u8]) {
    static STATE: OnceLock<Value> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let state = machine().save().expect("the engine tells its state");
        serde_json::to_value(state).expect("plain data")
    });
    let mut state = state.clone();
    for change in data.chunks_exact(11) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % 1500;
        let value = u64::from_le_bytes(change[3..].try_into().expect("eight bytes"));
        spoil(&mut state, &mut Some(place), value >> (change[2] & 63));
    }
    let Ok(state) = serde_json::from_value(state) else { return };
    let mut machine = machine();
    if machine.restore(&state).is_err() {
        return;
    }
    let board = &machine.board;
    board.clock.start();
    for _ in 0..3 {
        board.timers.expire(devices::time::Clock::now(&*board.clock));
        lock(&board.processors[0]).turn(SLICE, &board.ram);
    }
    machine.save().expect("the engine tells its state");
}
