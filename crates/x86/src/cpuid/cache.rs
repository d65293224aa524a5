//! The caches a model tells of (SDM vol. 2A, CPUID, leaf 4 and leaf 8000_0006H).

use super::CpuModel;

/// One cache, in the terms of leaf 4.
struct Cache {
    /// 1 data, 2 instruction, 3 unified.
    kind: u32,
    level: u32,
    ways: u32,
    sets: u32,
    /// Shared by the whole package rather than private to a core.
    shared: bool,
}

const LINE: u32 = 64;

const CACHES: [Cache; 4] = [
    Cache { kind: 1, level: 1, ways: 12, sets: 64, shared: false },
    Cache { kind: 2, level: 1, ways: 8, sets: 64, shared: false },
    Cache { kind: 3, level: 2, ways: 16, sets: 1024, shared: false },
    Cache { kind: 3, level: 3, ways: 16, sets: 16384, shared: true },
];

const SELF_INITIALIZING: u32 = 1 << 8;

/// Deterministic cache parameters; subleaf 4 and above: no more caches.
pub(super) fn leaf4(model: &CpuModel, subleaf: u32) -> [u32; 4] {
    let Some(cache) = CACHES.get(subleaf as usize) else { return [0; 4] };
    let cores = model.cpus.max(1).next_power_of_two() - 1;
    let sharing = if cache.shared { cores & 0xfff } else { 0 };
    let eax =
        cache.kind | cache.level << 5 | SELF_INITIALIZING | sharing << 14 | (cores & 0x3f) << 26;
    let ebx = (LINE - 1) | (cache.ways - 1) << 22;
    [eax, ebx, cache.sets - 1, 0]
}

/// The second-level cache in the extended leaf's form: 64-byte lines, associativity code 8 (16
/// ways), KiB.
pub(super) fn leaf8000_0006() -> [u32; 4] {
    let l2 = &CACHES[2];
    let kib = l2.ways * l2.sets * LINE / 1024;
    [0, 0, LINE | 8 << 12 | kib << 16, 0]
}
