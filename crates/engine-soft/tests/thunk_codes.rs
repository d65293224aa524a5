//! Every encoding that iced knows in 64-bit mode either becomes a thunk that runs, or is refused
//! with a reason.
mod thunk_support;

use std::collections::BTreeMap;

use engine_soft::thunk::{Feature, HostFeatures, ThunkCache, Unthunkable};
use iced_x86::{Code, Decoder, DecoderOptions};
use thunk_support::{Bench, Random, synthesize, through_bytes};

#[test]
fn every_thunkable_code_compiles_and_runs() {
    let mut bench = Bench::new();
    let mut random = Random::new(1);
    let mut thunks = 0;
    let mut refused: BTreeMap<String, Vec<Code>> = BTreeMap::new();
    let mut faulted: BTreeMap<String, Vec<Code>> = BTreeMap::new();
    for code in
        Code::values().filter(|code| code.op_code().is_instruction() && code.op_code().mode64())
    {
        for (memory, seed) in [(false, 1), (true, 0), (false, 6), (true, 5)] {
            let Some((instruction, _)) =
                synthesize(code, memory, seed).as_ref().and_then(through_bytes)
            else {
                continue;
            };
            match bench.cache.compile(&instruction, HostFeatures::probe()) {
                Err(why) => refused.entry(format!("{why:?}")).or_default().push(code),
                Ok(thunk) => {
                    random.fill(&mut bench.state, &mut bench.arena);
                    let before = bench.state.clone();
                    if let Err(fault) = bench.execute(&thunk, 0) {
                        faulted.entry(format!("{fault:?}")).or_default().push(code);
                        assert_eq!(bench.state, before, "{code:?} faulted and changed the state");
                    }
                    thunks += 1;
                }
            }
        }
    }
    for (why, codes) in &refused {
        println!("{why}: {} {:?}", codes.len(), codes);
    }
    println!("{thunks} thunks, {} bytes; faulted: {faulted:?}", bench.cache.used());
    assert!(!refused.contains_key(&format!("{:?}", Unthunkable::Full)));
    assert!(thunks > 3000, "only {thunks}");
}

/// Random code in every mode: nothing panics, nothing escapes, faults leave the registers alone.
#[test]
fn random_bytes_do_no_harm() {
    let (mut bench, mut random) = (Bench::new(), Random::new(2));
    let mut ran = 0;
    for round in 0..150_000u32 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random.next().to_le_bytes());
        bytes[8..].copy_from_slice(&random.next().to_le_bytes());
        if round % 2 == 0 {
            // Half the time a two- or three-byte opcode or VEX.
            bytes[0] = [0x0f, 0x66, 0xf2, 0xf3, 0xc4, 0xc5, 0xd9, 0xf0][(round / 2 % 8) as usize];
            bytes[1] = if matches!(bytes[0], 0x66 | 0xf2 | 0xf3 | 0xf0) { 0x0f } else { bytes[1] };
        }
        let bitness = [16, 32, 64][(round % 3) as usize];
        let instruction = Decoder::with_ip(bitness, &bytes, 0, DecoderOptions::NONE).decode();
        if bench.cache.used() > 1 << 19 {
            bench.cache.reset();
        }
        let Ok(thunk) = bench.cache.compile(&instruction, HostFeatures::probe()) else { continue };
        random.fill(&mut bench.state, &mut bench.arena);
        (bench.state.x87.mxcsr, bench.state.x87.fcw) =
            (random.next() as u32 & 0xffff, random.next() as u16 & 0xf7f | 0x40);
        let mut before = bench.state.clone();
        if bench.execute(&thunk, 0).is_err() {
            before.x87.mxcsr = bench.state.x87.mxcsr;
            assert_eq!(bench.state, before, "{instruction}");
        }
        ran += 1;
    }
    assert!(ran > 30_000, "{ran}");
}

#[test]
fn a_guest_without_a_feature_gets_no_thunk_that_uses_it() {
    let all = HostFeatures::probe();
    for feature in Feature::ALL.into_iter().filter(|feature| all.has(*feature)) {
        let fewer = all.without(feature);
        assert_eq!(fewer.with(feature), *all);
        assert_eq!(all.and(fewer), fewer);
        let mut cache = ThunkCache::new(1 << 20).expect("a code cache");
        let refused = Code::values()
            .filter_map(|code| synthesize(code, false, 1).as_ref().and_then(through_bytes))
            .filter(|(i, _)| {
                cache.compile(i, &fewer).is_err_and(|why| why == Unthunkable::HostLacks(feature))
            })
            .count();
        assert!(refused > 0, "{feature:?}");
    }
}
