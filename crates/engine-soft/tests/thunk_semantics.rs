//! What the generated code around an instruction must get right: flags, upper halves, RSP, high
//! bytes, modes, sharing.

mod thunk_support;

use engine_soft::thunk::{Feature, HostFeatures};
use thunk_support::{Bench, Random};
use x86::state::Flags;

const CF: u64 = 1;
const ZF: u64 = 1 << 6;
const OF: u64 = 1 << 11;

#[test]
fn flags_stay_where_the_architecture_says_so() {
    let mut bench = Bench::new();
    for bits in 0..64u64 {
        let spread = [CF, 1 << 2, 1 << 4, ZF, 1 << 7, OF];
        let flags = spread.iter().enumerate().map(|(n, flag)| flag * (bits >> n & 1)).sum::<u64>();
        bench.state.flags = Flags::from_bits(flags | 0x202);
        let before = bench.state.flags;
        bench.state.gpr[1] = 0x20;
        // movaps, mulx, shl eax, cl by 32 (masked to 0), bswap: nothing changes.
        for bytes in
            [&[0x0f, 0x28, 0xc1][..], &[0xc4, 0xe2, 0x7b, 0xf6, 0xc3], &[0xd3, 0xe0], &[0x0f, 0xc8]]
        {
            if bytes[0] == 0xc4 && !HostFeatures::probe().has(Feature::Bmi2) {
                continue;
            }
            bench.run(bytes).unwrap();
            assert_eq!(bench.state.flags, before, "{bytes:02x?}");
        }
        // inc keeps CF; adox touches OF alone; setc and adc read CF.
        bench.state.gpr[0] = u64::MAX;
        bench.run(&[0x48, 0xff, 0xc0]).unwrap();
        assert_eq!(bench.state.flags.bits() & (CF | ZF | OF), flags & CF | ZF);
        bench.state.flags = before;
        bench.run(&[0x0f, 0x92, 0xc4]).unwrap(); // setc ah
        assert_eq!(bench.state.gpr[0] >> 8 & 0xff, flags & CF);
        if HostFeatures::probe().has(Feature::Adx) {
            (bench.state.gpr[0], bench.state.gpr[1]) = (u64::MAX, 1);
            bench.run(&[0xf3, 0x48, 0x0f, 0x38, 0xf6, 0xc1]).unwrap(); // adox rax, rcx
            assert_eq!(bench.state.gpr[0], flags >> 11 & 1);
            assert_eq!(bench.state.flags.bits(), before.bits() | OF);
        }
    }
}

#[test]
fn system_flags_are_not_the_thunks_business() {
    let mut bench = Bench::new();
    bench.state.flags = Flags::from_bits(1 << 10 | 1 << 18 | 1 << 8 | 1 << 9 | 2); // DF, AC, TF, IF
    bench.run(&[0xf3, 0x0f, 0xb8, 0xc1]).unwrap();
    assert_eq!(
        bench.state.flags.system,
        Flags::from_bits(1 << 10 | 1 << 18 | 1 << 8 | 1 << 9 | 2).system
    );
}

#[test]
fn upper_halves() {
    if !HostFeatures::probe().has(Feature::Avx) {
        return;
    }
    let mut bench = Bench::new();
    Random::new(11).fill(&mut bench.state, &mut bench.arena);
    let before = bench.state.clone();
    bench.run(&[0x0f, 0x57, 0xc1]).unwrap(); // xorps xmm0, xmm1
    assert_eq!(bench.state.ymm[0].0[16..], before.ymm[0].0[16..], "legacy SSE keeps them");
    bench.run(&[0xc5, 0xf8, 0x57, 0xc1]).unwrap(); // vxorps xmm0, xmm0, xmm1
    assert_eq!(bench.state.ymm[0].0[..16], before.ymm[0].0[..16]);
    assert_eq!(bench.state.ymm[0].0[16..], [0; 16], "VEX clears them");
    assert_eq!(bench.state.ymm[1..], before.ymm[1..]);
}

#[test]
fn rsp_as_an_operand() {
    let mut bench = Bench::new();
    let stack = 0xffff_8880_1234_5678;
    bench.state.gpr[4] = stack;
    bench.run(&[0x66, 0x48, 0x0f, 0x6e, 0xc4]).unwrap(); // movq xmm0, rsp
    assert_eq!(bench.state.ymm[0].0[..8], stack.to_le_bytes());
    bench.run(&[0x48, 0x0f, 0xcc]).unwrap(); // bswap rsp
    assert_eq!(bench.state.gpr[4], stack.swap_bytes());
    // movq xmm0, r8: the same bytes as the first thunk's, since RSP became R8 there; not the same
    // thunk.
    bench.state.gpr[8] = 7;
    bench.run(&[0x66, 0x49, 0x0f, 0x6e, 0xc0]).unwrap();
    assert_eq!(bench.state.ymm[0].0[..8], 7u64.to_le_bytes());
    // popcnt esp, [rbx]; xadd spl, ah is not encodable; lock xadd [rbx], rsp
    bench.arena.0[..8].copy_from_slice(&0xffu64.to_le_bytes());
    bench.run(&[0xf0, 0x48, 0x0f, 0xc1, 0x23]).unwrap();
    assert_eq!(bench.state.gpr[4], 0xff);
    assert_eq!(bench.arena.0[..8], stack.swap_bytes().wrapping_add(0xff).to_le_bytes());
    // movzx esp, ah: no REX prefix may appear.
    bench.state.gpr[0] = 0x4200;
    bench.run(&[0x0f, 0xb6, 0xe4]).unwrap();
    assert_eq!(bench.state.gpr[4], 0x42);
}

#[test]
fn high_bytes_with_memory() {
    let mut bench = Bench::new();
    // xadd [rbx], ah|ch|dh|bh
    for (n, modrm) in [(0, 0x23), (1, 0x2b), (2, 0x33), (3, 0x3b)] {
        bench.state.gpr[n] = 0x1234_5678;
        bench.arena.0[0] = 9;
        bench.run(&[0x0f, 0xc0, modrm]).unwrap();
        assert_eq!(bench.state.gpr[n], 0x1234_0978);
        assert_eq!(bench.arena.0[0], 0x56 + 9);
    }
}

#[test]
fn modes_share_what_they_share() {
    let mut bench = Bench::new();
    bench.state.gpr[1] = 0xf0f0_f0f0;
    // popcnt eax, ecx in 64- and 32-bit code; with 66H in 16-bit code. All are one thunk.
    let wide = bench.compile(&[0xf3, 0x0f, 0xb8, 0xc1]).unwrap();
    let protected = bench.compile_in(32, &[0xf3, 0x0f, 0xb8, 0xc1]).unwrap();
    let real = bench.compile_in(16, &[0x66, 0xf3, 0x0f, 0xb8, 0xc1]).unwrap();
    assert_eq!(wide.address(), protected.address());
    assert_eq!(wide.address(), real.address());
    // Without it, 16-bit code means the 16-bit form.
    let narrow = bench.compile_in(16, &[0xf3, 0x0f, 0xb8, 0xc1]).unwrap();
    bench.state.gpr[0] = 0xaaaa_aaaa;
    bench.execute(&narrow, 0).unwrap();
    assert_eq!(bench.state.gpr[0], 0xaaaa_0008);
    bench.execute(&real, 0).unwrap();
    assert_eq!(bench.state.gpr[0], 16);
    // Addresses do not matter, segments neither: addps xmm0, [bx+si+4] / fs:[rip+..] / [rax].
    let one = bench.compile_in(16, &[0x0f, 0x58, 0x40, 4]).unwrap();
    let two = bench.compile(&[0x64, 0x0f, 0x58, 0x05, 1, 2, 3, 4]).unwrap();
    let three = bench.compile_in(32, &[0x0f, 0x58, 0x00]).unwrap();
    assert_eq!(one.address(), two.address());
    assert_eq!(one.address(), three.address());
}

#[test]
fn atomics_and_conditional_writes() {
    let mut bench = Bench::new();
    let xadd = bench.compile(&[0xf0, 0x0f, 0xc1, 0x0b]).unwrap(); // lock xadd [rbx], ecx
    assert!(xadd.class.mem.is_some_and(|m| m.locked && m.size == 4 && m.access.writes()));
    let xchg = bench.compile(&[0x87, 0x0b]).unwrap();
    assert!(xchg.class.mem.is_some_and(|m| m.locked));
    // cmpxchg [rbx], ecx: equal, then unequal.
    bench.arena.0[..4].copy_from_slice(&5u32.to_le_bytes());
    (bench.state.gpr[0], bench.state.gpr[1]) = (5, 6);
    bench.run(&[0xf0, 0x0f, 0xb1, 0x0b]).unwrap();
    assert_eq!((bench.arena.0[0], bench.state.flags.bits() & ZF), (6, ZF));
    bench.run(&[0xf0, 0x0f, 0xb1, 0x0b]).unwrap();
    assert_eq!((bench.state.gpr[0], bench.state.flags.bits() & ZF), (6, 0));
    // cmovz eax, ecx with ZF clear still zero-extends.
    bench.state.gpr[0] = u64::MAX;
    bench.run(&[0x0f, 0x44, 0xc1]).unwrap();
    assert_eq!(bench.state.gpr[0], 0xffff_ffff);
}
