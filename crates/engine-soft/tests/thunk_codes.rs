//! Every encoding that iced knows in 64-bit mode either becomes a thunk that runs, or is refused with a reason.
#![allow(unsafe_code)]

mod thunk_support;

use std::collections::BTreeMap;

use engine_soft::thunk::{HostFeatures, ThunkFault, Unthunkable};
use iced_x86::Code;
use thunk_support::{Bench, Random, synthesize, through_bytes};

#[test]
fn every_thunkable_code_compiles_and_runs() {
    let mut bench = Bench::new();
    let mut random = Random(1);
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
    let _ = ThunkFault::DivideError;
}
