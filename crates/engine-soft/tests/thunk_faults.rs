//! Faults inside thunks become values with the architecture's side effects; faults elsewhere go
//! where they went before.
#![allow(unsafe_code)] // Reason: provokes host faults.

mod thunk_support;

use std::process::Command;
use std::ptr;

use engine_soft::thunk::{
    Feature, FpuClass, HostFeatures, MemAccess, ThunkCache, ThunkFault, Unthunkable,
};
use iced_x86::{Code, Decoder, DecoderOptions};
use thunk_support::{Bench, Random, synthesize, through_bytes};

const ONE: [u8; 4] = 1f32.to_le_bytes();

#[test]
fn divide_error_leaves_everything() {
    let mut bench = Bench::new();
    Random::new(3).fill(&mut bench.state, &mut bench.arena);
    bench.state.gpr[1] = 0;
    let before = bench.state.clone();
    assert_eq!(bench.run(&[0x48, 0xf7, 0xf1]), Err(ThunkFault::DivideError)); // div rcx
    assert_eq!(bench.state, before);
    bench.state.gpr[1] = u64::MAX;
    bench.state.gpr[2] = 0;
    assert_eq!(bench.run(&[0x48, 0xf7, 0xf1]), Ok(()));
    assert_eq!(bench.state.gpr[2], before.gpr[0]);
}

#[test]
fn unmasked_simd_exception_sets_mxcsr_and_nothing_else() {
    let mut bench = Bench::new();
    bench.state.ymm[0].0[..4].copy_from_slice(&ONE);
    bench.state.x87.mxcsr = 0x1f80 & !(1 << 9); // ZM clear
    let before = bench.state.clone();
    assert_eq!(bench.run(&[0xf3, 0x0f, 0x5e, 0xc1]), Err(ThunkFault::SimdFp)); // divss xmm0, xmm1
    assert_eq!(bench.state.x87.mxcsr, before.x87.mxcsr | 1 << 2, "ZE");
    assert_eq!(bench.state.ymm, before.ymm);
    // The host's own environment is back: this division would kill the process otherwise.
    assert!((std::hint::black_box(1f32) / std::hint::black_box(0f32)).is_infinite());
    bench.state.x87.mxcsr = 0x1f80;
    assert_eq!(bench.run(&[0xf3, 0x0f, 0x5e, 0xc1]), Ok(()));
    assert_eq!(bench.state.x87.mxcsr, 0x1f84);
    assert_eq!(bench.state.ymm[0].0[..4], f32::INFINITY.to_le_bytes());
}

#[test]
fn pending_x87_error_is_raised_by_the_next_waiting_instruction() {
    let mut bench = Bench::new();
    bench.state.x87.fcw = 0x37f & !(1 << 2); // ZM clear
    for bytes in [[0xd9, 0xe8], [0xd9, 0xee]] {
        bench.run(&bytes).unwrap(); // fld1; fldz
    }
    assert_eq!(bench.run(&[0xde, 0xf9]), Ok(()), "fdivp st(1), st reports nothing yet");
    assert_eq!(bench.state.x87.fsw & 0x8084, 0x8084, "ES, B, ZE");
    let before = bench.state.clone();
    for waiting in [&[0xd9, 0xe8][..], &[0x9b], &[0x0f, 0x77], &[0x0f, 0xef, 0xc0]] {
        assert_eq!(bench.run(waiting), Err(ThunkFault::X87), "{waiting:02x?}");
        assert_eq!(bench.state, before);
    }
    assert_eq!(bench.run(&[0xdf, 0xe0]), Ok(()), "fnstsw ax does not wait");
    assert_eq!(bench.state.gpr[0] & 0x8084, 0x8084);
    assert_eq!(bench.run(&[0xdb, 0xe2]), Ok(()), "nor does fnclex");
    assert_eq!(bench.run(&[0xd9, 0xe8]), Ok(()));
}

#[test]
fn who_waits_for_pending_errors() {
    let mut bench = Bench::new();
    let mut waiting = 0;
    for code in Code::values().filter(|code| code.op_code().mode64()) {
        for memory in [false, true] {
            let made = synthesize(code, memory, 1);
            let Some((instruction, _)) = made.as_ref().and_then(through_bytes) else { continue };
            let Ok(thunk) = bench.cache.compile(&instruction, HostFeatures::probe()) else {
                continue;
            };
            (bench.state.gpr[1], bench.state.gpr[2]) = (1, 0);
            bench.state.x87.fcw = 0x37b;
            bench.state.x87.fsw = 0x8084;
            let class = thunk.class;
            // CVTPI2PS and CVTPI2PD from memory: as the processor likes.
            let free = class.mmx && !class.waits;
            if class.waits || matches!(class.fpu, FpuClass::X87 | FpuClass::Sse) && !free {
                let failed = bench.execute(&thunk, 0) == Err(ThunkFault::X87);
                assert_eq!(failed, class.waits, "{instruction}");
                waiting += u32::from(class.waits);
            }
        }
    }
    assert!(waiting > 200, "{waiting}");
}

#[test]
fn a_pending_error_keeps_the_operands_and_stops_the_next_instruction() {
    let mut bench = Bench::new();
    bench.state.x87.fcw = 0x37f & !(1 << 2);
    // fld1; fldz; fdivp; fld1
    let programs: [&[u8]; 4] = [&[0xd9, 0xe8], &[0xd9, 0xee], &[0xde, 0xf9], &[0xd9, 0xe8]];
    let thunks = programs.map(|bytes| bench.compile(bytes).unwrap());
    let results = thunks.map(|thunk| bench.execute(&thunk, 0));
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), Err(ThunkFault::X87)]);
    assert_eq!(
        (bench.state.x87.fsw & 0xb884, bench.state.x87.ftw),
        (6 << 11 | 0x8084, 0xc0),
        "an unmasked error keeps the operands"
    );
}

#[test]
fn threads_fault_independently() {
    let threads: Vec<_> = (0..4u64)
        .map(|n| {
            std::thread::spawn(move || {
                let mut bench = Bench::new();
                bench.state.x87.mxcsr = 0x1f80 & !(1 << 9);
                bench.state.ymm[0].0[..4].copy_from_slice(&ONE);
                for _ in 0..500 {
                    bench.state.gpr[1] = 0;
                    assert_eq!(bench.run(&[0xf7, 0xf1]), Err(ThunkFault::DivideError));
                    assert_eq!(bench.run(&[0xf3, 0x0f, 0x5e, 0xc1]), Err(ThunkFault::SimdFp));
                    bench.state.gpr[1] = n + 1;
                    (bench.state.gpr[0], bench.state.gpr[2]) = (120, 0);
                    assert_eq!(bench.run(&[0xf7, 0xf1]), Ok(()));
                    assert_eq!(bench.state.gpr[0], 120 / (n + 1));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn misaligned_operands() {
    let mut bench = Bench::new();
    let addps = bench.compile(&[0x0f, 0x58, 0x03]).unwrap(); // addps xmm0, [rbx]
    let mem = addps.class.mem.unwrap();
    assert_eq!((mem.size, mem.alignment, mem.access), (16, 16, MemAccess::Read));
    assert_eq!(bench.execute(&addps, 4), Err(ThunkFault::GeneralProtection));
    assert_eq!(bench.execute(&addps, 16), Ok(()));
    let movups = bench.compile(&[0x0f, 0x10, 0x03]).unwrap();
    assert_eq!(movups.class.mem.unwrap().alignment, 1);
    assert_eq!(bench.execute(&movups, 4), Ok(()));
    if HostFeatures::probe().has(Feature::Avx) {
        let vaddps = bench.compile(&[0xc5, 0xf4, 0x58, 0x03]).unwrap(); // vaddps ymm0, ymm1, [rbx]
        assert_eq!(vaddps.class.mem.unwrap().alignment, 1);
        assert_eq!(bench.execute(&vaddps, 4), Ok(()));
        let vmovaps = bench.compile(&[0xc5, 0xfc, 0x29, 0x03]).unwrap(); // vmovaps [rbx], ymm0
        assert_eq!(vmovaps.class.mem.unwrap().alignment, 32);
        assert_eq!(bench.execute(&vmovaps, 16), Err(ThunkFault::GeneralProtection));
    }
    let cmpxchg16b = bench.compile(&[0xf0, 0x48, 0x0f, 0xc7, 0x0b]).unwrap();
    assert_eq!(bench.execute(&cmpxchg16b, 8), Err(ThunkFault::GeneralProtection));
}

#[test]
fn unreachable_memory_is_reported_with_its_address() {
    let mut bench = Bench::new();
    let load = bench.compile(&[0xf3, 0x0f, 0xb8, 0x03]).unwrap(); // popcnt eax, [rbx]
    // SAFETY: deliberately not: page zero faults, which is what is tested; nothing is written.
    let result = unsafe { load.run(&mut bench.state, ptr::without_provenance_mut(8)) };
    assert_eq!(result, Err(ThunkFault::HostMemory(8)));
}

#[test]
fn callee_saved_registers_survive_faults() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        bench.state.gpr[15] = 0;
        // idiv r15 with RBX, RBP, R12 to R15 of the caller live around it (any loss crashes the
        // loop).
        assert_eq!(bench.run(&[0x49, 0xf7, 0xff]), Err(ThunkFault::DivideError));
        bench.state.gpr[12] = 5;
        assert_eq!(bench.run(&[0xf3, 0x49, 0x0f, 0xb8, 0xec]), Ok(())); // popcnt rbp, r12
        assert_eq!(bench.state.gpr[5], 2);
    }
}

#[test]
fn classes_and_refusals() {
    let mut bench = Bench::new();
    let host = HostFeatures::probe();
    let cases: [(&[u8], Unthunkable); 12] = [
        (&[0x0f, 0xa3, 0x03], Unthunkable::BitString),
        (&[0x66, 0x0f, 0xf7, 0xc1], Unthunkable::MaskedMove),
        (&[0xc4, 0xe2, 0x75, 0x90, 0x04, 0x13], Unthunkable::Gather),
        (&[0x0f, 0xae, 0x13], Unthunkable::StateImage),
        (&[0xdd, 0x23], Unthunkable::StateImage),
        (&[0xc5, 0xf8, 0x77], Unthunkable::VectorZero),
        (&[0xa4], Unthunkable::ImplicitMemory),
        (&[0xd7], Unthunkable::ImplicitMemory),
        (&[0x50], Unthunkable::Stack),
        (&[0x0f, 0xa2], Unthunkable::System),
        (&[0x8e, 0xd8], Unthunkable::System),
        (&[0xeb, 0x00], Unthunkable::ControlFlow),
    ];
    for (bytes, why) in cases {
        assert_eq!(bench.compile(bytes).map(|t| t.class), Err(why), "{bytes:02x?}");
    }
    assert_eq!(bench.compile_in(32, &[0x27]).map(|t| t.class), Err(Unthunkable::NotIn64), "DAA");
    let pshufb = Decoder::new(64, &[0x66, 0x0f, 0x38, 0x00, 0xc1], DecoderOptions::NONE).decode();
    let lacking = host.without(Feature::Ssse3);
    let mut cache = ThunkCache::new(4096).unwrap();
    assert_eq!(
        cache.compile(&pshufb, &lacking).map(|t| t.class),
        Err(Unthunkable::HostLacks(Feature::Ssse3))
    );
    let classes: [(&[u8], FpuClass); 8] = [
        (&[0x9b], FpuClass::Wait),
        (&[0xd9, 0xe8], FpuClass::X87),
        (&[0x0f, 0x77], FpuClass::Mmx),
        (&[0x0f, 0x58, 0xc1], FpuClass::Sse),
        (&[0xf3, 0x0f, 0x2c, 0x03], FpuClass::Sse),
        (&[0xc5, 0xf0, 0x58, 0xc1], FpuClass::Avx),
        (&[0xc4, 0xe2, 0x73, 0xf5, 0xc9], FpuClass::None),
        (&[0xf2, 0x0f, 0x38, 0xf1, 0xc9], FpuClass::None),
    ];
    for (bytes, class) in classes {
        assert_eq!(bench.compile(bytes).unwrap().class.fpu, class, "{bytes:02x?}");
    }
}

#[test]
fn a_full_cache_says_so_and_serves_again_after_a_reset() {
    let mut bench = Bench::new();
    bench.cache = ThunkCache::new(4096).unwrap();
    let shufps = |n: u8| [0x0f, 0xc6, 0xc1, n];
    let first_refused =
        (0..=255).find(|n| matches!(bench.compile(&shufps(*n)), Err(Unthunkable::Full)));
    assert!(first_refused.is_some());
    bench.cache.reset();
    assert_eq!(bench.run(&shufps(0x1b)), Ok(()));
}

/// What the child of the next test does: a fault outside any thunk, with the handlers installed.
#[test]
#[ignore = "run by foreign_faults_still_kill, in a process of its own"]
fn foreign_fault() {
    let mut bench = Bench::new();
    bench.run(&[0xf3, 0x0f, 0xb8, 0xc1]).unwrap();
    match std::env::var("THUNK_FOREIGN").as_deref() {
        // SAFETY: deliberately not: the process must die of it.
        Ok("segv") => unsafe { ptr::write_volatile(ptr::without_provenance_mut::<u8>(8), 1) },
        // SAFETY: as above.
        Ok("ill") => unsafe { std::arch::asm!("ud2") },
        // SAFETY: as above.
        Ok("fpe") => unsafe {
            std::arch::asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _);
        },
        // SAFETY: raise has no precondition.
        Ok("sent") => drop(unsafe { libc::raise(libc::SIGILL) }),
        _ => {}
    }
    println!("survived");
}

#[test]
fn foreign_faults_still_kill() {
    use std::os::unix::process::ExitStatusExt;
    let cases = [
        ("segv", libc::SIGSEGV),
        ("ill", libc::SIGILL),
        ("fpe", libc::SIGFPE),
        ("sent", libc::SIGILL),
    ];
    for (kind, signal) in cases {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "foreign_fault", "--ignored", "--nocapture"])
            .env("THUNK_FOREIGN", kind)
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(signal), "{kind}: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("survived"));
    }
}

#[test]
fn a_handler_installed_before_gets_foreign_faults() {
    static SEEN: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
    extern "C" fn seen(signal: i32) {
        SEEN.store(signal, std::sync::atomic::Ordering::SeqCst);
    }
    if std::env::var_os("THUNK_CHAIN").is_none() {
        // In a process where nothing has installed the guard yet.
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_handler_installed_before_gets_foreign_faults"])
            .env("THUNK_CHAIN", "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    // SAFETY: the handler only stores to an atomic.
    unsafe { libc::signal(libc::SIGFPE, seen as *const () as usize) };
    let mut bench = Bench::new();
    bench.state.gpr[1] = 0;
    assert_eq!(bench.run(&[0xf7, 0xf1]), Err(ThunkFault::DivideError));
    assert_eq!(SEEN.load(std::sync::atomic::Ordering::SeqCst), 0, "a thunk's fault is ours alone");
    // SAFETY: raise has no precondition.
    unsafe { libc::raise(libc::SIGFPE) };
    assert_eq!(SEEN.load(std::sync::atomic::Ordering::SeqCst), libc::SIGFPE);
}
