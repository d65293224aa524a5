//! One guest on both tiers, and in lockstep: what remains of it must be the same.
//!
//! 64-bit mode, at level 0 or 3, in 256 KiB of memory mapped where it is. Of the data pages one is
//! absent, one read-only; the code's are mapped twice and writable, and in some guests their second
//! page is the first once more. Every exception comes to a handler on a stack of its own, which
//! counts it, forgets the status flags (a fault may show what is dead, ADR 0016), and goes on with
//! the next slot of [`super::blocks`]; outside the code it ends the guest.

use super::Bytes;
use super::blocks::{self, SLOT, SLOTS};
use super::scene::{descriptor, gate, segment};
use engine_soft::{Sabotage, SoftVcpu, Tier};
use memory::{Arrival, Backing, GuestRam, LEAST_RESIDENT, Pager, swap_file};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use test_support::Rng;
use vcpu::{Elements, Exit, NoDevices, Signal, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::{CpuState, Flags, Seg, Segment, TableRegister, gpr};

const RAM: &[(Gpa, u64)] = &[(Gpa(0), 0x4_0000)];
/// Where memory lies that no guest knows of.
const OTHERS: Gpa = Gpa(1 << 32);
const TABLES: u64 = 0x1000;
/// The table of 4 KiB pages.
const PAGE_TABLE: u64 = 0x4000;
const TSS: u64 = 0x5000;
const GDT: u64 = 0x6000;
const IDT: u64 = 0x7000;
const HANDLER: u64 = 0x8000;
/// Where the handler counts.
const COUNT: u64 = 0x9000;
/// The tables of the system, up to the handler: stores that stray change none of them (the TLB
/// would forget it at other times on each tier).
const SYSTEM: std::ops::Range<u64> = 1..9;
/// The page tables, which are not to be read: lockstep marks entries accessed and dirty before
/// their time.
const PAGE_TABLES: std::ops::Range<u64> = 1..5;
/// Where [`PAGE_TABLE`] can be written.
pub(super) const TABLE_ALIAS: u64 = 0x1f_f000;
const HANDLER_STACK: u64 = 0xa000;
const STACK: u64 = 0xe800;
/// The slots.
pub(super) const CODE: u64 = 0x1_0000;
/// Eight pages.
pub(super) const DATA: u64 = 0x2_0000;
/// Where the code is mapped a second time.
pub(super) const ALIAS: u64 = 0x3_0000;
/// Backward branches at the most.
pub(super) const FUEL: u64 = 400;
/// Instructions after which the reference gives a guest up.
const PATIENCE: u64 = 100_000;
/// In such a guest the code's second page is its first once more.
const FOLDED: u8 = 8;
/// Such a guest may write to its tables, so that it need not be the same on both tiers; it must do
/// no harm.
const WILD: u8 = 4;
/// Bytes of translated code.
const CODE_CACHE: usize = 1 << 20;

/// Runs the guest that `data` describes on both tiers.
///
/// # Panics
/// If they differ.
pub fn twins(data: &[u8]) {
    if data.first().is_some_and(|mode| mode & WILD != 0) {
        end(data, Tier::Interpret, None);
        end(data, Tier::Lockstep, None);
        end(data, Tier::Translate, None);
        return;
    }
    let reference = end(data, Tier::Interpret, None);
    if reference.exit == Exit::SliceOver {
        // It has overwritten what was to bring it to an end.
        return;
    }
    let lockstep = end(data, Tier::Lockstep, None);
    compare(&reference, &lockstep);
    let translated = end(data, Tier::Translate, None);
    compare(&reference, &translated);
}

/// As [`twins`], but the translator is interrupted all the time, wherever it is.
///
/// # Panics
/// If that changes anything.
pub fn disturbed(data: &[u8]) {
    if data.first().is_some_and(|mode| mode & WILD != 0) {
        return;
    }
    let reference = end(data, Tier::Interpret, None);
    // A repeated store that is interrupted after it has overwritten itself does not go on, as on
    // any processor.
    if reference.exit != Exit::SliceOver && !reference.rewrote {
        compare(&reference, &run(data, Tier::Translate, None, kicked));
    }
}

/// As [`twins`], but memory is the pager's: each page is away when the guest first needs it,
/// wherever in an instruction that is.
///
/// # Panics
/// If that changes anything.
pub fn paged(data: &[u8], swap: &Path) {
    if data.first().is_some_and(|mode| mode & WILD != 0) {
        return;
    }
    let reference = end(data, Tier::Interpret, None);
    if reference.exit == Exit::SliceOver {
        return;
    }
    for tier in [Tier::Interpret, Tier::Translate] {
        let paged = Paged::new(swap);
        let ram = &paged.ram;
        let way = |vcpu: &mut SoftVcpu, slice: Slice| {
            paged.all_away();
            brought(vcpu, slice, ram)
        };
        compare(&reference, &run_on(ram, data, tier, None, way));
    }
}

/// Runs `vcpu` to its end, and has the pages brought that it asks for.
fn brought(vcpu: &mut SoftVcpu, slice: Slice, ram: &GuestRam) -> Exit {
    let (tell, told) = std::sync::mpsc::channel();
    let arrival: Arrival = Arc::new(move |page| tell.send(page).expect("somebody waits"));
    loop {
        match vcpu.run(&mut NoDevices, slice) {
            Exit::Absent(page) => {
                if ram.request(page, &arrival) {
                    told.recv().expect("it comes");
                }
            }
            exit => return exit,
        }
    }
}

/// Memory with a pager whose budget other pages take up.
struct Paged {
    ram: GuestRam,
    pager: Option<Pager>,
    threads: Vec<JoinHandle<()>>,
}

impl Paged {
    fn new(swap: &Path) -> Self {
        let ranges = [RAM[0], (OTHERS, 2 * LEAST_RESIDENT)];
        let file = swap_file(swap, ranges.iter().map(|r| r.1).sum()).expect("a swap file");
        let backing = Backing::File { file, offset: 0, private: false };
        let ram = GuestRam::create(backing, &ranges).expect("some memory");
        let lost = |why: &str| panic!("{why}");
        let (pager, reclaimer) = Pager::new(&ram, LEAST_RESIDENT, Box::new(lost)).expect("a pager");
        let fetcher = pager.fetcher();
        let threads = vec![thread::spawn(|| reclaimer.run()), thread::spawn(|| fetcher.run())];
        Self { ram, pager: Some(pager), threads }
    }

    /// Has all of the guest's pages leave memory: others come, of twice the budget.
    fn all_away(&self) {
        for page in (0..2 * LEAST_RESIDENT).step_by(0x1000) {
            self.ram.write(OTHERS.wrapping_add(page), &[1]).expect("in RAM");
            self.ram.settle();
        }
    }
}

impl Drop for Paged {
    fn drop(&mut self) {
        drop(self.pager.take());
        self.threads.drain(..).for_each(|thread| thread.join().expect("no panic"));
    }
}

/// Runs `vcpu` to its end, interrupted from another thread every few microseconds.
fn kicked(vcpu: &mut SoftVcpu, slice: Slice) -> Exit {
    let (signals, done) = (vcpu.signals(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for pause in (1..60).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                signals.raise(Signal::Kick);
                (0..10 * pause).for_each(|_| std::hint::spin_loop());
            }
        });
        let exit = std::iter::repeat_with(|| vcpu.run(&mut NoDevices, slice));
        let exit = exit.into_iter().find(|exit| !matches!(exit, Exit::Kicked(_)));
        done.store(true, Ordering::Relaxed);
        exit.expect("it has an end")
    })
}

/// Runs the guest in lockstep with a mistake in it; the report.
pub fn sabotaged(data: &[u8], how: Sabotage) -> Option<String> {
    match end(data, Tier::Lockstep, Some(how)).exit {
        Exit::Fatal(report) => Some(report),
        _ => None,
    }
}

/// What remains.
struct End {
    exit: Exit,
    state: CpuState,
    memory: Vec<u8>,
    /// It wrote over its code.
    rewrote: bool,
}

impl End {
    /// Its code has come to ask for the time or for random numbers, which are others on each run.
    fn asks_outside(&self) -> bool {
        let code = &self.memory[CODE as usize..CODE as usize + SLOTS * SLOT];
        code.windows(3).any(|bytes| match bytes {
            [0x0f, 0x31, _] | [0x0f, 0x01, 0xf9] => true,
            // RDRAND and RDSEED: register forms of /6 and /7.
            [0x0f, 0xc7, modrm] => *modrm >= 0xf0,
            _ => false,
        })
    }
}

fn end(data: &[u8], tier: Tier, sabotage: Option<Sabotage>) -> End {
    run(data, tier, sabotage, |vcpu, slice| vcpu.run(&mut NoDevices, slice))
}

/// The same with a way of running it.
fn run(
    data: &[u8],
    tier: Tier,
    sabotage: Option<Sabotage>,
    way: impl FnOnce(&mut SoftVcpu, Slice) -> Exit,
) -> End {
    run_on(&GuestRam::new(RAM).expect("some memory"), data, tier, sabotage, way)
}

/// The same on `ram`, which holds zeros.
fn run_on(
    ram: &GuestRam,
    data: &[u8],
    tier: Tier,
    sabotage: Option<Sabotage>,
    way: impl FnOnce(&mut SoftVcpu, Slice) -> Exit,
) -> End {
    let mut bytes = Bytes(data);
    let mode = bytes.u8();
    let mut random = Rng::new(bytes.u64());
    let model = CpuModel::parse("gemello-v3").expect("a known model");
    let state = build(ram, mode, &mut random);
    let mut vcpu = SoftVcpu::with_tier(ram.clone(), model, tier, CODE_CACHE).expect("an engine");
    if mode & 2 == 0 {
        vcpu.translate_at_once();
    }
    if let Some(how) = sabotage {
        vcpu.sabotage(how);
    }
    vcpu.set(Elements::all(), &state).expect("a state");
    // Without a limit translated code is not made to stop at each poll.
    let slice = Slice { instructions: PATIENCE };
    let wild = mode & WILD != 0;
    let slice = if tier == Tier::Interpret || wild { slice } else { Slice::UNTIL_KICKED };
    let exit = way(&mut vcpu, slice);
    if std::env::var_os("FUZZ_VERBOSE").is_some() {
        let s = vcpu.statistics();
        eprintln!(
            "{tier:?} {exit:?} {} instructions, exceptions {:?}, invalidated {} mmio {} {:?}",
            s.instructions, s.exceptions, s.blocks_invalidated, s.mmio, s.lockstep
        );
    }
    let mut state = vcpu.state_now().clone();
    state.gpr[gpr::BLOCK_IP] = 0;
    let mut memory = vec![0; RAM[0].1 as usize];
    ram.read(Gpa(0), &mut memory).expect("all of it");
    // An address check may mark a page accessed or dirty though the instruction then faults on
    // something else.
    let tables = TABLES as usize..PAGE_TABLE as usize + 0x1000;
    memory[tables].iter_mut().step_by(8).for_each(|low| *low &= !0x60);
    let rewrote = vcpu.statistics().blocks_invalidated != 0;
    End { exit, state, memory, rewrote }
}

fn compare(reference: &End, other: &End) {
    if let Exit::Fatal(report) = &other.exit {
        panic!("{report}");
    }
    if [reference, other].iter().any(|end| end.rewrote && end.asks_outside()) {
        return;
    }
    assert_eq!(reference.exit, other.exit);
    let differences = engine_soft::differences(&reference.state, &other.state);
    assert!(differences.is_empty(), "the guest ends differently\n{differences}");
    if let Some(at) = (0..reference.memory.len()).find(|&n| reference.memory[n] != other.memory[n])
    {
        panic!("memory differs at {at:#x}: {:#x} {:#x}", reference.memory[at], other.memory[at]);
    }
}

fn build(ram: &GuestRam, mode: u8, random: &mut Rng) -> CpuState {
    let put = |gpa: u64, bytes: &[u8]| ram.write(Gpa(gpa), bytes).expect("within memory");
    let data: Vec<u8> = (0..0x1000).flat_map(|_| number(random).to_le_bytes()).collect();
    put(DATA, &data);
    tables(&put, mode, random);
    put(GDT, &gdt());
    put(IDT, &idt());
    put(TSS + 4, &HANDLER_STACK.to_le_bytes());
    put(TSS + 0x24, &HANDLER_STACK.to_le_bytes());
    put(HANDLER, &handler());
    let mut code = blocks::generate(mode & FOLDED != 0, random);
    stop_the_clock(&mut code);
    put(CODE, &code);
    state(mode & 1 != 0, random)
}

/// Takes RDTSC and RDTSCP from `code`, where a stray branch may find them in the middle of other
/// instructions: time is another on each run.
fn stop_the_clock(code: &mut [u8]) {
    for at in 0..code.len().saturating_sub(2) {
        match code[at..at + 3] {
            [0x0f, 0x31, _] => code[at + 1] = 0x1f,
            [0x0f, 0x01, 0xf9] => code[at + 2] = 0xfa,
            _ => {}
        }
    }
}

fn number(random: &mut Rng) -> u64 {
    match random.below(6) {
        0 => random.next(),
        1 => 1.5f64.to_bits(),
        2 => DATA + random.below(0x8000),
        3 => 0x7f80_0001_3f80_0000,
        4 => u64::MAX,
        _ => random.below(100),
    }
}

fn tables(put: &impl Fn(u64, &[u8]), mode: u8, random: &mut Rng) {
    let (wild, folded) = (mode & WILD != 0, mode & FOLDED != 0);
    for level in 0..3 {
        put(TABLES + 0x1000 * level, &((TABLES + 0x1000 * (level + 1)) | 7).to_le_bytes());
    }
    let (absent, read_only) = (random.below(8), random.below(8));
    for n in 1..0x40 {
        let page = n << 12;
        let alias = (ALIAS..ALIAS + 0x2000).contains(&page);
        let frame = if alias { page - ALIAS + CODE } else { page };
        let frame = if folded && frame == CODE + 0x1000 { CODE } else { frame };
        let rights = match page.checked_sub(DATA) {
            Some(offset) if offset >> 12 == absent => 0,
            Some(offset) if offset >> 12 == read_only => 5,
            _ if PAGE_TABLES.contains(&n) && !wild => 0,
            _ if SYSTEM.contains(&n) && !wild => 1,
            _ => 7,
        };
        put(PAGE_TABLE + 8 * n, &(frame | rights).to_le_bytes());
    }
    put(PAGE_TABLE + 0xff8, &(PAGE_TABLE | 3).to_le_bytes());
}

/// Selectors 8 and 10H for level 0, 18H and 20H for level 3, 28H the TSS.
fn gdt() -> Vec<u8> {
    let flat = 0xf_ffff;
    let table = [
        0,
        descriptor(0, flat, 0xa09b),
        descriptor(0, flat, 0xc093),
        descriptor(0, flat, 0xa0fb),
        descriptor(0, flat, 0xc0f3),
        descriptor(TSS, 0x67, 0x8b),
        0,
    ];
    table.iter().flat_map(|d| d.to_le_bytes()).collect()
}

fn idt() -> Vec<u8> {
    let mut table = Vec::new();
    for vector in 0..32u64 {
        let code = matches!(vector, 8 | 10..=14 | 17);
        let entry = gate(8, HANDLER + if code { 0 } else { 4 }, 0xee) | 1 << 32;
        table.extend(entry.to_le_bytes());
        table.extend(0u64.to_le_bytes());
    }
    table
}

/// See the module.
fn handler() -> Vec<u8> {
    let mut code = vec![0x48, 0x83, 0xc4, 0x08]; // add rsp, 8: the error code
    code.extend([0xff, 0x04, 0x25]); // inc dword [COUNT]
    code.extend((COUNT as u32).to_le_bytes());
    // and qword [rsp + 10h], ~status
    code.extend([0x48, 0x81, 0x64, 0x24, 0x10, 0x2a, 0xf7, 0xff, 0xff]);
    code.extend([0x50, 0x48, 0x8b, 0x44, 0x24, 0x08]); // push rax; mov rax, [rsp + 8]
    code.extend([0x48, 0x2d]); // sub rax, CODE
    code.extend((CODE as u32).to_le_bytes());
    code.extend([0x48, 0x3d]); // cmp rax, the last slot
    code.extend((((SLOTS - 1) * SLOT) as u32).to_le_bytes());
    code.extend([0x73, 0x12]); // jae the end
    code.extend([0x48, 0x83, 0xe0, 0xe0]); // and rax, -32
    code.extend([0x48, 0x05]); // add rax, CODE + 32
    code.extend((CODE as u32 + SLOT as u32).to_le_bytes());
    code.extend([0x48, 0x89, 0x44, 0x24, 0x08]); // mov [rsp + 8], rax
    code.extend([0x58, 0x48, 0xcf]); // pop rax; iretq
    code.extend([0x58, 0xf4]); // pop rax; hlt
    code
}

fn state(user: bool, random: &mut Rng) -> CpuState {
    let mut s = CpuState::reset();
    s.gpr[..16].iter_mut().for_each(|r| *r = number(random));
    for pointer in [gpr::RSI, gpr::RDI, gpr::RBP, 14] {
        s.gpr[pointer] = DATA + random.below(0x8000);
    }
    s.gpr[gpr::RSP] = STACK;
    s.gpr[12] = blocks::fuel(random);
    s.rip = CODE;
    s.flags = Flags::from_bits(2);
    let level = if user { 3 } else { 0 };
    s.cpl = level as u8;
    let (code, data) = if user { (0x1b, 0x23) } else { (0x08, 0x10) };
    s.seg = [segment(data, 0xc093 | level << 5); 6];
    s.seg[Seg::Cs as usize] = segment(code, 0xa09b | level << 5);
    s.seg[Seg::Fs as usize].base = DATA + 0x800;
    s.seg[Seg::Gs as usize].base = DATA + 0x1ff8;
    s.msr.kernel_gs_base = DATA + 0x4000;
    s.gdtr = TableRegister { base: GDT, limit: 0x37 };
    s.idtr = TableRegister { base: IDT, limit: 0x1ff };
    s.tr = Segment { base: TSS, limit: 0x67, selector: 0x28, access: 0x8b };
    s.paging.cr3 = TABLES;
    s.paging.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::ET | Cr0::NE | Cr0::MP;
    s.paging.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE;
    s.paging.efer = Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
    s.xcr0 = 7;
    s.x87.mxcsr = if random.one_in(4) { 0x1f80 & !(1 << (7 + random.below(6))) } else { 0x1f80 };
    s
}
