//! A heap that becomes large is on huge pages, as far as the host has any. Without the harness for
//! tests, whose threads have heaps of their own.

use std::fs;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: host::Allocator = host::Allocator;

/// Bytes of the heap, all in all and with MADV_HUGEPAGE (`hg` in proc_pid_smaps(5)).
fn heap() -> (u64, u64) {
    let maps = fs::read_to_string("/proc/self/smaps").expect("Linux");
    let (mut whole, mut huge, mut size) = (0, 0, None);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-') {
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).expect("an address"));
            size = line.ends_with("[heap]").then_some(to - from);
        } else if first == "VmFlags:" {
            let here = size.take().unwrap_or(0);
            whole += here;
            huge += if words.any(|flag| flag == "hg") { here } else { 0 };
        }
    }
    (whole, huge)
}

fn main() {
    host::one_heap();
    let kib = |n: usize| vec![n as u8; 1 << 10];
    let mut blocks: Vec<_> = (0..1 << 10).map(kib).collect();
    assert_eq!(heap().1, 0, "a MiB needs none");
    blocks.extend((1 << 10..200 << 10).map(kib));
    let (whole, huge) = heap();
    assert!(whole > 200 << 20, "{whole} bytes: the blocks are elsewhere");
    if Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        // But for what is at its beginning, and what was there before.
        assert!(whole - huge < 40 << 20, "{huge} of {whole} bytes");
    } else {
        assert_eq!(huge, 0);
    }
    let whole = |(n, block): (usize, &Vec<u8>)| block.iter().all(|&byte| byte == n as u8);
    assert!(blocks.iter().enumerate().all(whole), "what is in the heap has changed");
}
