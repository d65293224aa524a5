//! Thunks against the processor itself: the unmodified instruction, memory operand included, runs
//! between a full load and a full store of the registers, and must leave what its thunk leaves:
//! every register, flag (undefined ones too: same silicon), vector, MXCSR, the x87 registers, and
//! memory.

mod thunk_support;

use engine_soft::thunk::{Feature, HostFeatures};
use iced_x86::{Code, Instruction, Mnemonic};
use thunk_support::native::{Native, differences};
use thunk_support::{Bench, Random, synthesize, through_bytes};

fn prepare(random: &mut Random, bench: &mut Bench, stack: u64) {
    random.fill(&mut bench.state, &mut bench.arena);
    let state = &mut bench.state;
    let few = random.next();
    // Small numbers and special values, half the time.
    for n in 0..16 {
        if few >> n & 1 != 0 {
            state.gpr[n] =
                [0, 1, 2, 31, 32, 63, 64, u64::MAX, 1 << 63, 1 << 31][random.next() as usize % 10];
        }
    }
    state.gpr[4] = stack;
    state.gpr[6] = random.next() % 1000;
    state.gpr[3] = (bench.arena.0.as_ptr() as u64).wrapping_sub(0x40 + 2 * state.gpr[6]);
    state.x87.mxcsr = 0x1f80 | random.next() as u32 & 0xe07f;
    state.x87.fcw = 0x7f | (random.next() as u16 & 0xf00);
    state.x87.fsw = random.next() as u16 & 0x7f7f;
    state.x87.ftw = random.next() as u8 | random.next() as u8;
    for st in &mut state.x87.st {
        let value = [0.0, 1.0, -2.5, 1e300, 3.7, f64::INFINITY][random.next() as usize % 6];
        *st = [0; 16];
        st[..10].copy_from_slice(&extended(value));
        if random.next().is_multiple_of(4) {
            st[..8].copy_from_slice(&random.next().to_le_bytes());
        }
    }
    if random.next().is_multiple_of(2) {
        for (n, y) in state.ymm.iter_mut().enumerate() {
            for lane in 0..8 {
                let value = (random.next() as i32 % 1000) as f32 / (n + 1) as f32;
                y.0[4 * lane..4 * lane + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// Double to double extended, for values without subtleties.
fn extended(value: f64) -> [u8; 10] {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as u16;
    let mut out = [0; 10];
    if value != 0.0 {
        out[..8].copy_from_slice(&(1 << 63 | bits << 11).to_le_bytes());
        let wide = if exponent == 0x7ff { 0x7fff } else { exponent + 16383 - 1023 };
        out[8..].copy_from_slice(&(wide | (bits >> 63 << 15) as u16).to_le_bytes());
    }
    out
}

fn deterministic(instruction: &Instruction) -> bool {
    !matches!(instruction.mnemonic(), Mnemonic::Rdrand | Mnemonic::Rdseed)
}

#[test]
fn thunks_do_what_the_processor_does() {
    if !HostFeatures::probe().has(Feature::Avx) {
        return;
    }
    // More of them: THUNK_CASES=1000 THUNK_SEED=2 cargo test …
    let number =
        |name, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (cases, seed) = (number("THUNK_CASES", 24) as u32, number("THUNK_SEED", 7));
    let (mut bench, mut native, mut random) = (Bench::new(), Native::new(), Random::new(seed));
    let (mut compared, mut wrong) = (0u64, Vec::new());
    for code in
        Code::values().filter(|code| code.op_code().is_instruction() && code.op_code().mode64())
    {
        for case in 0..cases {
            let lock = case % 6 == 5;
            let Some(mut instruction) = synthesize(code, case % 2 == 1 || lock, case * 5 + 1)
            else {
                continue;
            };
            if lock {
                if !code.op_code().can_use_lock_prefix() {
                    continue;
                }
                instruction.set_has_lock_prefix(true);
            }
            let Some((instruction, bytes)) = through_bytes(&instruction) else { continue };
            if bench.cache.used() > 1 << 19 {
                bench.cache.reset();
            }
            let Ok(thunk) = bench.cache.compile(&instruction, HostFeatures::probe()) else {
                continue;
            };
            if !deterministic(&instruction) {
                continue;
            }
            prepare(&mut random, &mut bench, native.rsp());
            let (mut before, memory) = (bench.state.clone(), bench.arena);
            if bench.execute(&thunk, 0).is_err() || bench.state.gpr[4] != before.gpr[4] {
                continue;
            }
            let thunk_memory = std::mem::replace(&mut bench.arena, memory);
            native.run(&bytes, &mut before);
            compared += 1;
            // A rotation through carry by a multiple of the width plus one leaves OF to chance on
            // this silicon.
            if matches!(instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) {
                before.flags.arith &= !1;
                bench.state.flags.arith &= !1;
            }
            if before != bench.state || thunk_memory != bench.arena {
                let memory = if thunk_memory == bench.arena { "" } else { " memory" };
                wrong.push(format!(
                    "{instruction} {bytes:02x?}:{memory}{}",
                    differences(&bench.state, &before)
                ));
            }
        }
    }
    println!("{compared} compared");
    assert!(compared > 20_000, "{compared}");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n")
    );
}
