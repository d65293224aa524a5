//! Nanoseconds a thunk call takes: `cargo test --release -p engine-soft --test thunk_speed --
//! --ignored --nocapture`.

mod thunk_support;

use std::time::Instant;

use engine_soft::thunk::HostFeatures;
use iced_x86::{Decoder, DecoderOptions};
use thunk_support::Bench;

const CASES: [(&str, &[u8]); 14] = [
    ("addps xmm0, xmm1", &[0x0f, 0x58, 0xc1]),
    ("addps xmm0, [rbx]", &[0x0f, 0x58, 0x03]),
    ("addsd xmm0, xmm1", &[0xf2, 0x0f, 0x58, 0xc1]),
    ("pshufb xmm0, xmm1", &[0x66, 0x0f, 0x38, 0x00, 0xc1]),
    ("movdqu xmm0, [rbx]", &[0xf3, 0x0f, 0x6f, 0x03]),
    ("vpaddb ymm0, ymm1, ymm2", &[0xc5, 0xf5, 0xfc, 0xc2]),
    ("vaddps ymm0, ymm1, ymm2", &[0xc5, 0xf4, 0x58, 0xc2]),
    ("fadd st0, st1", &[0xd8, 0xc1]),
    ("paddb mm0, mm1", &[0x0f, 0xfc, 0xc1]),
    ("bsf eax, ecx", &[0x0f, 0xbc, 0xc1]),
    ("popcnt eax, ecx", &[0xf3, 0x0f, 0xb8, 0xc1]),
    ("shld rax, rcx, 3", &[0x48, 0x0f, 0xa4, 0xc8, 3]),
    ("popcnt rbx, r12", &[0xf3, 0x49, 0x0f, 0xb8, 0xdc]),
    ("lock xadd [rbx], ecx", &[0xf0, 0x0f, 0xc1, 0x0b]),
];

#[test]
#[ignore = "a measurement"]
fn nanoseconds_a_call_by_hand() {
    let mut bench = Bench::new();
    bench.state.x87.ftw = 0xff;
    bench.state.gpr[1] = 3;
    for (name, bytes) in CASES {
        let thunk = bench.compile(bytes).unwrap();
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..1_000_000 {
                bench.execute(&thunk, 0).unwrap();
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 1e6);
        }
        println!("{name:26} {best:6.1} ns");
    }
    let instruction = Decoder::new(64, CASES[1].1, DecoderOptions::NONE).decode();
    let start = Instant::now();
    for _ in 0..100_000 {
        bench.cache.compile(&instruction, HostFeatures::probe()).unwrap();
    }
    println!("compile, known             {:6.1} ns", start.elapsed().as_nanos() as f64 / 1e5);
    let start = Instant::now();
    for _ in 0..1000 {
        bench.cache.reset();
        for (_, bytes) in CASES {
            bench.compile(bytes).unwrap();
        }
    }
    println!(
        "compile, new               {:6.1} ns",
        start.elapsed().as_nanos() as f64 / 1e3 / CASES.len() as f64
    );
    bench.state.gpr[1] = 0;
    let thunk = bench.compile(&[0xf7, 0xf1]).unwrap();
    let start = Instant::now();
    for _ in 0..10_000 {
        bench.execute(&thunk, 0).unwrap_err();
    }
    println!("a fault                    {:6.1} ns", start.elapsed().as_nanos() as f64 / 1e4);
}
