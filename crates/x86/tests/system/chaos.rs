//! Any state, any memory, any operation: no panic, and a failing operation leaves the state alone
//! (a task switch that fails after its commit point excepted, which shows in TR).

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use test_support::Rng;
use x86::addr::{Gpa, La, Vector, Width};
use x86::bus::{AccessKind, Privilege, SystemBus, TlbEffect};
use x86::exception::Exception;
use x86::far::{far_call, far_jump, far_return};
use x86::interrupt::{Event, deliver, deliver_or_escalate};
use x86::iret::iret;
use x86::protect::{lar, lsl, verr, verw};
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::segment::{check_access, lldt, load_data_segment, ltr};
use x86::state::{CpuState, Flags, PagingState, Seg, Segment, TableRegister};

/// 4 KiB that repeats through the whole address space; one page in eight is missing if `holes`.
struct Echo {
    page: Vec<u8>,
    holes: bool,
}

impl Echo {
    fn check(&self, la: La) -> Result<(), Exception> {
        assert!(la.is_canonical(), "{la:#x}");
        let hole = self.holes && la.0 >> 12 & 7 == 5;
        if hole { Err(Exception::pf(la, 0)) } else { Ok(()) }
    }
}

impl SystemBus for Echo {
    fn read(&mut self, la: La, size: Width, _: Privilege) -> Result<u64, Exception> {
        self.check(la)?;
        let byte = |i: u64| u64::from(self.page[(la.wrapping_add(i).0 & 0xfff) as usize]);
        Ok((0..u64::from(size)).fold(0, |value, i| value | byte(i) << (8 * i)))
    }
    fn write(&mut self, la: La, size: Width, value: u64, _: Privilege) -> Result<(), Exception> {
        self.check(la)?;
        for i in 0..u64::from(size) {
            self.page[(la.wrapping_add(i).0 & 0xfff) as usize] = (value >> (8 * i)) as u8;
        }
        Ok(())
    }
    fn probe_write(&mut self, la: La, _: u64, _: Privilege) -> Result<(), Exception> {
        self.check(la)
    }
    fn fetch_or_u8(&mut self, la: La, bits: u8) -> Result<u8, Exception> {
        self.check(la)?;
        let byte = &mut self.page[(la.0 & 0xfff) as usize];
        let old = *byte;
        *byte |= bits;
        Ok(old)
    }
    fn paging_changed(&mut self, _: &PagingState, _: TlbEffect) {}
    fn read_pdptes(&mut self, gpa: Gpa) -> [u64; 4] {
        [0, 1, 2, 3]
            .map(|i| self.read(La(gpa.0 + 8 * i), Width::B8, Privilege::Implicit).unwrap_or(0))
    }
}

/// A case is its seed.
struct Dice(Rng);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0.next()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.0.one_in(n)
    }

    /// An address: small, near an end of some range, or anything canonical.
    fn address(&mut self) -> u64 {
        let edge = [0, 0xffff, 0xffff_ffff, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX];
        let at = match self.roll() % 4 {
            0 => self.roll() & 0xffff,
            1 => edge[(self.roll() % 6) as usize].wrapping_add(self.roll() % 17).wrapping_sub(8),
            _ => self.roll(),
        };
        ((at << 16) as i64 >> 16) as u64
    }

    /// A descriptor or gate that has a fair chance to be good.
    fn descriptor(&mut self) -> u64 {
        let kinds = [0x9a, 0x92, 0xfa, 0xf2, 0x9e, 0x8e, 0x8f, 0xee, 0xec, 0x89, 0x8b, 0x85, 0x82];
        let access = match self.roll() % 8 {
            0 => self.roll() & 0xff,
            _ => kinds[(self.roll() % 13) as usize],
        };
        let flags = [0xc, 0xa, 0, 4][(self.roll() % 4) as usize];
        let rest = self.roll();
        let selector = rest & 0x7f;
        (rest & 0xff00_00ff_0000_ffff)
            | selector << 16
            | access << 40
            | flags << 52
            | (rest & 0xf) << 48
    }

    fn segment(&mut self, long_mode: bool) -> Segment {
        let mut segment = Segment::decode(self.roll() as u16 & 0x7f, self.descriptor());
        if self.one_in(2) {
            segment.limit = u32::MAX;
        }
        if long_mode {
            segment.base = self.address();
        }
        segment
    }
}

fn state(dice: &mut Dice) -> CpuState {
    let mut s = CpuState::reset();
    let mode = dice.roll() % 4; // real, virtual-8086, protected, IA-32e
    s.paging.cr0.set(Cr0::PE, mode > 0);
    s.paging.cr0.set(Cr0::PG, mode == 3 || dice.one_in(2));
    if mode == 3 {
        s.paging.efer = Efer::LMA | Efer::LME;
    }
    s.paging.cr4.set(Cr4::PAE, mode == 3 || dice.one_in(2));
    s.paging.cr4.set(Cr4::VME, dice.one_in(2));
    s.cpl = [0, 3, dice.roll() as u8 & 3][(dice.roll() % 3) as usize];
    s.flags = Flags::from_bits(dice.roll() & 0x003d_7fd5);
    s.flags.set(Rflags::NT, dice.one_in(4));
    for i in 0..6 {
        s.seg[i] = dice.segment(mode == 3);
    }
    let cs = &mut s.seg[Seg::Cs as usize];
    cs.access = [0x409b, 0x9b, 0x209b][(dice.roll() % 3) as usize] | u16::from(s.cpl) << 5;
    s.seg[Seg::Ss as usize].access = 0x4093 | u16::from(s.cpl) << 5;
    match mode {
        0 => s.cpl = 0,
        1 => {
            s.cpl = 3;
            for segment in &mut s.seg {
                let base = u64::from(segment.selector) << 4;
                *segment = Segment { base, limit: 0xffff, access: 0xf3, ..*segment };
            }
        }
        _ => {}
    }
    s.flags.set(Rflags::VM, mode == 1);
    for register in &mut s.gpr[..16] {
        *register = dice.address();
    }
    s.rip = dice.address();
    s.gdtr = TableRegister { base: dice.address(), limit: dice.roll() as u16 | 0x7f };
    s.idtr = TableRegister { base: dice.address(), limit: dice.roll() as u16 };
    let access = [0x8b, 0x83][usize::from(dice.one_in(4))];
    s.tr = Segment { base: dice.address(), access, ..dice.segment(false) };
    s.ldtr = Segment { base: dice.address(), access: 0x82, ..dice.segment(false) };
    if !dice.one_in(8) {
        for base in [&mut s.gdtr.base, &mut s.idtr.base, &mut s.ldtr.base] {
            *base &= !7; // or the tables are noise
        }
    }
    if mode < 3 {
        for base in [&mut s.gdtr.base, &mut s.idtr.base, &mut s.tr.base, &mut s.ldtr.base] {
            *base &= 0xffff_ffff;
        }
    }
    s
}

const OPERATIONS: usize = 14;

fn operation(
    which: usize,
    dice: &mut Dice,
    s: &mut CpuState,
    m: &mut Echo,
) -> Result<(), Exception> {
    let selector = dice.roll() as u16 & if dice.one_in(8) { 0xffff } else { 0x7f };
    let size = [Width::B2, Width::B4, Width::B8][(dice.roll() % 3) as usize];
    let offset = dice.address();
    let next_rip = s.rip.wrapping_add(5);
    let vector = dice.roll() as u8;
    match which {
        0 => deliver(s, m, Event::External(Vector(vector))),
        1 => deliver(s, m, Event::SoftwareInt { vector: Vector(vector), next_rip }),
        2 => deliver(s, m, Event::Exception(Exception::with_code(Vector::GP, 0x18))),
        3 => {
            let event = Event::Exception(Exception::pf(La(offset), 2));
            let saved = s.clone();
            deliver_or_escalate(s, m, event).map_err(|_| {
                *s = saved; // a shutdown may leave CR2, DR6 and a half-switched task
                Exception::with_code(Vector::DF, 0)
            })
        }
        4 => iret(s, m, size, next_rip),
        5 => far_jump(s, m, selector, offset, size, next_rip),
        6 => far_call(s, m, selector, offset, size, next_rip),
        7 => far_return(s, m, size, vector.into()),
        8 => load_data_segment(s, m, Seg::Ds, selector),
        9 => load_data_segment(s, m, Seg::Ss, selector),
        10 => lldt(s, m, selector),
        11 => ltr(s, m, selector),
        12 => lar(s, m, selector)
            .and(lsl(s, m, selector))
            .and(verr(s, m, selector))
            .and(verw(s, m, selector))
            .map(|_| ()),
        _ => check_access(s, Seg::Gs, offset, 16, AccessKind::Write).map(|_| ()),
    }
}

/// Which operation the seed chose, and whether it completed.
fn play(seed: u64) -> (usize, bool) {
    let mut dice = Dice(Rng::new(seed));
    let mut page = vec![0; 0x1000];
    for slot in page.chunks_mut(8) {
        slot.copy_from_slice(&dice.descriptor().to_le_bytes());
    }
    let mut m = Echo { page, holes: dice.one_in(2) };
    let mut s = state(&mut dice);
    let mut before = s.clone();
    let which = dice.roll() as usize % OPERATIONS;
    let result = operation(which, &mut dice, &mut s, &mut m);
    if result.is_err() {
        before.blocking.nmi = s.blocking.nmi;
        assert!(s == before || s.tr != before.tr, "seed {seed:#x}: {result:?} changed the state");
    }
    assert!(s.cpl <= 3);
    (which, result.is_ok())
}

#[test]
fn nothing_panics_and_faults_change_nothing() {
    let completed = RefCell::new([0; OPERATIONS]);
    let config = Config { cases: 60_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&any::<u64>(), |seed| {
            let (which, ok) = play(seed);
            completed.borrow_mut()[which] += u32::from(ok);
            Ok(())
        })
        .unwrap();
    let completed = completed.into_inner();
    assert!(completed.iter().all(|&n| n > 0), "not all got through: {completed:?}");
    assert!(completed.iter().sum::<u32>() > 6_000, "too few got through: {completed:?}");
}
