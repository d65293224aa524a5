//! The page walk against a naive model written from the manual's sentences (SDM vol. 3, chapter 4),
//! bit by bit and without sharing any code with the walk.
#![allow(missing_docs)]

use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use x86::addr::{Gpa, La, Vector};
use x86::bus::{Access, AccessKind, PhysicalMemory, Privilege, Smap};
use x86::exception::Exception;
use x86::paging::{self, MAXPHYADDR, Translation, translate};
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::PagingState;

/// Sparse memory of 32-bit words.
#[derive(Clone, Debug, Default, PartialEq)]
struct Words(RefCell<BTreeMap<u64, u32>>);

impl Words {
    fn put64(&self, gpa: Gpa, value: u64) {
        self.0.borrow_mut().insert(gpa.0, value as u32);
        self.0.borrow_mut().insert(gpa.0 + 4, (value >> 32) as u32);
    }
}

impl PhysicalMemory for Words {
    fn read_u32(&self, gpa: Gpa) -> u32 {
        self.0.borrow().get(&gpa.0).copied().unwrap_or(0)
    }
    fn read_u64(&self, gpa: Gpa) -> u64 {
        u64::from(self.read_u32(gpa)) | u64::from(self.read_u32(Gpa(gpa.0 + 4))) << 32
    }
    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> bool {
        assert_eq!(self.read_u32(gpa), old);
        self.0.borrow_mut().insert(gpa.0, new);
        true
    }
    fn compare_exchange_u64(&self, gpa: Gpa, old: u64, new: u64) -> bool {
        assert_eq!(self.read_u64(gpa), old);
        self.put64(gpa, new);
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bits32,
    Pae,
    Four,
}

/// One entry to be planted at its level.
#[derive(Clone, Debug)]
struct Spec {
    flags: u64,
    large: bool,
    frame: u64,
    high: u64,
    flip: Option<u8>,
}

fn spec() -> impl Strategy<Value = Spec> {
    (
        any::<u16>(),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.25),
        0u64..64,
        any::<u16>(),
        prop::bool::weighted(0.25),
        prop::option::weighted(0.15, 0u8..64),
    )
        .prop_map(|(flags, present, large, frame, high, xd, flip)| Spec {
            // U/S and R/W mostly set, or hardly any walk gets through
            flags: u64::from(flags & 0xf78)
                | u64::from(flags >> 12 != 0) << 1
                | u64::from(flags >> 13 != 0) << 2
                | u64::from(present),
            large,
            frame,
            high: u64::from(high & 0x7ff) << 52 | u64::from(xd) << 63,
            flip,
        })
}

#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    la: La,
    specs: [Spec; 4],
    cr0: Cr0,
    cr4: Cr4,
    efer: Efer,
    pkru: u32,
    smap: Smap,
    access: Access,
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![Just(Kind::Bits32), Just(Kind::Pae), Just(Kind::Four)];
    let access_kind =
        prop_oneof![Just(AccessKind::Read), Just(AccessKind::Write), Just(AccessKind::Execute)];
    let privilege =
        prop_oneof![Just(Privilege::User), Just(Privilege::Supervisor), Just(Privilege::Implicit)];
    let bits = prop::array::uniform8(any::<bool>());
    let specs = prop::array::uniform4(spec());
    (kind, any::<u64>(), specs, bits, any::<u32>(), any::<bool>(), access_kind, privilege).prop_map(
        |(kind, la, specs, b, pkru, ac, access_kind, privilege)| {
            let mut cr0 = Cr0::PE | Cr0::PG;
            cr0.set(Cr0::WP, b[0]);
            let mut cr4 = Cr4::empty();
            cr4.set(Cr4::PSE, b[1]);
            cr4.set(Cr4::PGE, b[2]);
            cr4.set(Cr4::SMEP, b[3]);
            cr4.set(Cr4::SMAP, b[4]);
            cr4.set(Cr4::PKE, b[5]);
            cr4.set(Cr4::PAE, kind != Kind::Bits32);
            let mut efer = Efer::empty();
            efer.set(Efer::NXE, b[6]);
            efer.set(Efer::LMA | Efer::LME, kind == Kind::Four);
            let la = match kind {
                Kind::Four => ((la << 16) as i64 >> 16) as u64,
                _ => la & 0xffff_ffff,
            };
            let pkru = if b[7] { pkru & 0x5555_5555 & pkru >> 7 } else { pkru & pkru >> 9 };
            let access = Access { kind: access_kind, privilege };
            let smap = if ac { Smap::Overridden } else { Smap::Enforced };
            Case { kind, la: La(la), specs, cr0, cr4, efer, pkru, smap, access }
        },
    )
}

/// Table pages: level i's table (0 the lowest) lies at 0x10000 * (i + 1).
fn table(level: usize) -> u64 {
    0x10000 * (level as u64 + 1)
}

fn shift(kind: Kind, level: usize) -> u64 {
    match kind {
        Kind::Bits32 => [12, 22][level],
        _ => [12, 21, 30, 39][level],
    }
}

fn levels(kind: Kind) -> usize {
    match kind {
        Kind::Bits32 => 2,
        Kind::Pae => 3,
        Kind::Four => 4,
    }
}

fn may_be_large(kind: Kind, level: usize, cr4: Cr4) -> bool {
    match kind {
        Kind::Bits32 => level == 1 && cr4.contains(Cr4::PSE),
        Kind::Pae => level == 1,
        Kind::Four => level == 1 || level == 2,
    }
}

fn plant(case: &Case) -> (PagingState, Words) {
    let mem = Words::default();
    let mut state = PagingState {
        cr0: case.cr0,
        cr3: table(levels(case.kind) - 1) | 0x18,
        cr4: case.cr4,
        efer: case.efer,
        pkru: case.pkru,
        pdpte: [0; 4],
    };
    for level in 0..levels(case.kind) {
        let spec = &case.specs[level];
        let large = spec.large && may_be_large(case.kind, level, case.cr4);
        let mut entry = spec.flags;
        entry |= match (large, level) {
            (true, _) => 0x80 | spec.frame << shift(case.kind, level) | (spec.flags & 8) << 9,
            (false, 0) => spec.frame << 12 | (spec.flags & 8) << 4,
            (false, _) => table(level - 1),
        };
        if case.kind == Kind::Four {
            entry |= spec.high;
        } else if case.kind == Kind::Pae {
            entry |= spec.high & 1 << 63;
        }
        if let Some(bit) = spec.flip {
            entry ^= 1 << bit;
        }
        let index_mask = if case.kind == Kind::Bits32 { 0x3ff } else { 0x1ff };
        let index = case.la.0 >> shift(case.kind, level) & index_mask;
        match (case.kind, level) {
            (Kind::Bits32, _) => {
                mem.0.borrow_mut().insert(table(level) + 4 * index, entry as u32);
            }
            (Kind::Pae, 2) => {
                state.pdpte[(index & 3) as usize] = table(1) | entry & 1;
            }
            _ => mem.put64(Gpa(table(level) + 8 * index), entry),
        }
    }
    (state, mem)
}

fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 == 1
}

fn field(value: u64, high: u32, low: u32) -> u64 {
    value >> low & ((1u64 << (high - low + 1)) - 1)
}

/// The bits that the manual's tables 4-4 to 4-20 mark "reserved (must be 0)".
fn is_reserved(case: &Case, level: usize, large: bool, n: u32) -> bool {
    let nxe = case.efer.contains(Efer::NXE);
    match case.kind {
        Kind::Bits32 => large && n == 21,
        Kind::Pae | Kind::Four => {
            let beyond = n >= MAXPHYADDR && n <= if case.kind == Kind::Pae { 62 } else { 51 };
            let frame = large && n >= 13 && n < if level == 1 { 21 } else { 30 };
            beyond || frame || (n == 63 && !nxe) || (level == 3 && n == 7)
        }
    }
}

/// What the model says: the physical address, the page size, and the entries used.
struct Model {
    gpa: Gpa,
    size: u64,
    writable: bool,
    user: bool,
    executable: bool,
    global: bool,
    dirty: bool,
    key: u8,
    pat: u8,
    used: Vec<u64>,
}

/// `Err(rsvd)` if the walk meets an entry that is not present (false) or has a reserved bit set
/// (true).
fn model_walk(case: &Case, state: &PagingState, mem: &Words) -> Result<Model, bool> {
    let mut m = Model {
        gpa: Gpa(0),
        size: 0,
        writable: true,
        user: true,
        executable: true,
        global: false,
        dirty: false,
        key: 0,
        pat: 0,
        used: vec![],
    };
    let mut level = levels(case.kind);
    let mut base = match case.kind {
        Kind::Bits32 => field(state.cr3, 31, 12) << 12,
        _ => field(state.cr3, MAXPHYADDR - 1, 12) << 12,
    };
    loop {
        level -= 1;
        let la = case.la;
        if case.kind == Kind::Pae && level == 2 {
            let pdpte = state.pdpte[field(la.0, 31, 30) as usize];
            if !bit(pdpte, 0) {
                return Err(false);
            }
            base = field(pdpte, MAXPHYADDR - 1, 12) << 12;
            continue;
        }
        let at;
        let entry;
        if case.kind == Kind::Bits32 {
            at = base + 4 * if level == 1 { field(la.0, 31, 22) } else { field(la.0, 21, 12) };
            entry = u64::from(mem.read_u32(Gpa(at)));
        } else {
            let low = shift(case.kind, level) as u32;
            at = base + 8 * field(la.0, low + 8, low);
            entry = mem.read_u64(Gpa(at));
        }
        if !bit(entry, 0) {
            return Err(false);
        }
        let large = bit(entry, 7) && may_be_large(case.kind, level, case.cr4);
        if (0..64).any(|n| bit(entry, n) && is_reserved(case, level, large, n)) {
            return Err(true);
        }
        m.used.push(at);
        m.writable &= bit(entry, 1);
        m.user &= bit(entry, 2);
        m.executable &= !bit(entry, 63);
        if level > 0 && !large {
            base = match case.kind {
                Kind::Bits32 => field(entry, 31, 12) << 12,
                _ => field(entry, MAXPHYADDR - 1, 12) << 12,
            };
            continue;
        }
        let low = shift(case.kind, level) as u32;
        let frame = match (case.kind, level) {
            (Kind::Bits32, 1) => field(entry, 20, 13) << 32 | field(entry, 31, 22) << 22,
            (Kind::Bits32, _) => field(entry, 31, 12) << 12,
            _ => field(entry, MAXPHYADDR - 1, low) << low,
        };
        m.gpa = Gpa(frame + field(la.0, low - 1, 0));
        m.size = 1 << low;
        m.global = bit(entry, 8) && case.cr4.contains(Cr4::PGE);
        m.dirty = bit(entry, 6);
        m.key = if case.kind == Kind::Four { field(entry, 62, 59) as u8 } else { 0 };
        let pat = bit(entry, if level == 0 { 7 } else { 12 });
        m.pat = u8::from(pat) << 2 | u8::from(bit(entry, 4)) << 1 | u8::from(bit(entry, 3));
        return Ok(m);
    }
}

/// Section 4.6.1, sentence by sentence; and 4.6.2 for keys. Gives (allowed, key violation).
fn model_rights(case: &Case, m: &Model) -> (bool, bool) {
    let wp = case.cr0.contains(Cr0::WP);
    let smap = case.cr4.contains(Cr4::SMAP);
    let smep = case.cr4.contains(Cr4::SMEP);
    let user_access = case.access.privilege == Privilege::User;
    let explicit = case.access.privilege == Privilege::Supervisor;
    let allowed = match (user_access, case.access.kind) {
        (false, AccessKind::Read) => {
            !m.user || !smap || (explicit && case.smap == Smap::Overridden)
        }
        (false, AccessKind::Write) if !m.user => !wp || m.writable,
        (false, AccessKind::Write) => {
            let smap_ok = !smap || (explicit && case.smap == Smap::Overridden);
            smap_ok && (!wp || m.writable)
        }
        (false, AccessKind::Execute) if !m.user => m.executable,
        (false, AccessKind::Execute) => !smep && m.executable,
        (true, AccessKind::Read) => m.user,
        (true, AccessKind::Write) => m.user && m.writable,
        (true, AccessKind::Execute) => m.user && m.executable,
    };
    let ad = case.pkru >> (2 * m.key) & 1 == 1;
    let wd = case.pkru >> (2 * m.key + 1) & 1 == 1;
    let keys = case.kind == Kind::Four && case.cr4.contains(Cr4::PKE) && m.user;
    let violation = keys
        && match case.access.kind {
            AccessKind::Execute => false,
            AccessKind::Read => ad,
            AccessKind::Write => ad || (wd && (user_access || wp)),
        };
    (allowed && !violation, violation)
}

/// What an error code tells of the page tables (section 4.7).
struct Found {
    present: bool,
    rsvd: bool,
    pk: bool,
}

/// Section 4.7.
fn model_code(case: &Case, found: &Found) -> u32 {
    let Found { present, rsvd, pk } = *found;
    let fetch_reported = case.cr4.contains(Cr4::SMEP)
        || (case.cr4.contains(Cr4::PAE) && case.efer.contains(Efer::NXE));
    u32::from(present)
        | u32::from(case.access.kind == AccessKind::Write) << 1
        | u32::from(case.access.privilege == Privilege::User) << 2
        | u32::from(rsvd) << 3
        | u32::from(case.access.kind == AccessKind::Execute && fetch_reported) << 4
        | u32::from(pk) << 5
}

fn check(case: &Case) {
    let (state, mem) = plant(case);
    let before = mem.clone();
    let result = translate(&state, case.smap, &mem, case.la, case.access);
    let pf = |code| Err::<Translation, _>(Exception::pf(case.la, code));
    let m = match model_walk(case, &state, &before) {
        Err(rsvd) => {
            assert_eq!(result, pf(model_code(case, &Found { present: rsvd, rsvd, pk: false })));
            assert_eq!(mem, before, "a failing walk changed an entry");
            return;
        }
        Ok(m) => m,
    };
    let (allowed, pk) = model_rights(case, &m);
    if !allowed {
        assert_eq!(result, pf(model_code(case, &Found { present: true, rsvd: false, pk })));
        assert_eq!(mem, before, "a forbidden access changed an entry");
        return;
    }
    let t = result.expect("the model allows it");
    let write = case.access.kind == AccessKind::Write;
    let as_write =
        Case { access: Access { kind: AccessKind::Write, ..case.access }, ..case.clone() };
    let dirty = m.dirty || write;
    let expected = Translation {
        gpa: m.gpa,
        page_size: m.size,
        writable_now: dirty && model_rights(&as_write, &m).0,
        writable: m.writable,
        user: m.user,
        executable: m.executable,
        global: m.global,
        dirty,
        key: m.key,
        pat_index: m.pat,
    };
    assert_eq!(t, expected);
    for (i, at) in m.used.iter().enumerate() {
        let last = i + 1 == m.used.len();
        let new = before.read_u32(Gpa(*at)) | 0x20 | if last && write { 0x40 } else { 0 };
        before.0.borrow_mut().insert(*at, new);
    }
    assert_eq!(mem, before, "accessed and dirty bits");

    // Every other access to the page is judged by the same rights.
    for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Execute] {
        for privilege in [Privilege::User, Privilege::Supervisor, Privilege::Implicit] {
            let other = Case { access: Access { kind, privilege }, ..case.clone() };
            let walked = translate(&state, case.smap, &mem, case.la, other.access);
            assert_eq!(walked.is_ok(), model_rights(&other, &m).0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None,
        ..ProptestConfig::default() })]
    #[test]
    fn walk_equals_the_model(case in case()) {
        check(&case);
    }
}

/// The generator reaches every outcome often enough for the comparison to mean something.
#[test]
fn the_cases_are_varied() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut mapped, mut denied, mut absent, mut reserved) = (0, 0, 0, 0);
    for _ in 0..3000 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let (state, mem) = plant(&case);
        match model_walk(&case, &state, &mem) {
            Ok(m) if model_rights(&case, &m).0 => mapped += 1,
            Ok(_) => denied += 1,
            Err(false) => absent += 1,
            Err(true) => reserved += 1,
        }
    }
    for (what, count) in
        [("mapped", mapped), ("denied", denied), ("absent", absent), ("reserved", reserved)]
    {
        assert!(count > 150, "{what}: {count} of 3000");
    }
}

fn state32() -> PagingState {
    PagingState {
        cr0: Cr0::PE | Cr0::PG,
        cr3: 0x1000,
        cr4: Cr4::PSE,
        efer: Efer::empty(),
        pkru: 0,
        pdpte: [0; 4],
    }
}

#[test]
fn paging_off_is_the_identity_for_everyone() {
    let state = PagingState { cr0: Cr0::PE, cr4: Cr4::SMAP | Cr4::SMEP, ..state32() };
    for privilege in [Privilege::User, Privilege::Supervisor, Privilege::Implicit] {
        for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Execute] {
            let access = Access { kind, privilege };
            let t = translate(&state, Smap::Enforced, &Words::default(), La(0xfee0_0123), access)
                .unwrap();
            assert_eq!(t.gpa, Gpa(0xfee0_0123));
            assert!(t.writable_now);
        }
    }
}

#[test]
fn pse36_reaches_above_four_gigabytes() {
    let mem = Words::default();
    mem.0.borrow_mut().insert(0x1004, 0x0080_0083 | 0x5 << 13); // PS, address bits 39:32 = 5
    let t = translate(&state32(), Smap::Enforced, &mem, La(0x0041_2345), Access::write(0)).unwrap();
    assert_eq!((t.gpa, t.page_size), (Gpa(0x5_0081_2345), 4 << 20));
    assert_eq!(mem.read_u32(Gpa(0x1004)) & 0x60, 0x60);
}

/// Memory in which another processor wins the first race.
struct Contended {
    words: Words,
    races: Cell<u32>,
}

impl PhysicalMemory for Contended {
    fn read_u32(&self, gpa: Gpa) -> u32 {
        self.words.read_u32(gpa)
    }
    fn read_u64(&self, gpa: Gpa) -> u64 {
        self.words.read_u64(gpa)
    }
    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> bool {
        if self.races.get() == 0 {
            return self.words.compare_exchange_u32(gpa, old, new);
        }
        self.races.set(self.races.get() - 1);
        self.words.0.borrow_mut().insert(gpa.0, old & !1); // unmapped meanwhile
        false
    }
    fn compare_exchange_u64(&self, _: Gpa, _: u64, _: u64) -> bool {
        unreachable!("32-bit paging")
    }
}

#[test]
fn a_lost_race_walks_again_and_sees_the_new_entry() {
    let mem = Contended { words: Words::default(), races: Cell::new(1) };
    mem.words.0.borrow_mut().insert(0x1000, 0x83);
    let error =
        translate(&state32(), Smap::Enforced, &mem, La(0x1234), Access::read(0)).unwrap_err();
    assert_eq!((error.vector, error.error_code), (Vector::PF, Some(0)));
    assert_eq!(mem.read_u32(Gpa(0x1000)), 0x82, "no accessed bit on an entry that is not present");
}

#[test]
fn explain_lists_every_entry_and_changes_nothing() {
    let mem = Words::default();
    mem.put64(Gpa(0x1000), 0x2007);
    mem.put64(Gpa(0x2000), 0x3007);
    mem.put64(Gpa(0x3008), 0x4007);
    let state = PagingState { cr4: Cr4::PAE, efer: Efer::LMA | Efer::LME, ..state32() };
    let before = mem.clone();
    let walk = paging::explain(&state, &mem, La(0x20_5000));
    let seen: Vec<_> = walk.levels().iter().map(|l| (l.kind, l.gpa, l.entry)).collect();
    use paging::LevelKind::{Pde, Pdpte, Pml4e, Pte};
    let expected =
        [(Pml4e, 0x1000, 0x2007), (Pdpte, 0x2000, 0x3007), (Pde, 0x3008, 0x4007), (Pte, 0x4028, 0)]
            .map(|(kind, gpa, entry)| (kind, Gpa(gpa), entry));
    assert_eq!(seen, expected);
    assert_eq!(walk.end, paging::End::NotPresent);
    assert_eq!(mem, before);
}

/// SDM vol. 3, 4.4.1.
#[test]
fn pdptes_with_reserved_bits_are_refused_only_if_present() {
    let gp = Err(Exception::gp(0));
    assert_eq!(paging::check_pdptes(&[0x1001, 0, 0x1e6, !1]), Ok(()));
    for n in [1, 2, 5, 6, 7, 8, MAXPHYADDR, 63] {
        assert_eq!(paging::check_pdptes(&[0, 0, 0x1001 | 1 << n, 0]), gp, "bit {n}");
    }
    for n in [3, 4, 9, 11, 12, MAXPHYADDR - 1] {
        assert_eq!(paging::check_pdptes(&[0x1 | 1 << n, 0, 0, 0]), Ok(()), "bit {n}");
    }
}

#[test]
fn canonical_means_bits_63_to_47_alike() {
    for la in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
        assert!(La(la).is_canonical());
    }
    for la in [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63] {
        assert!(!La(la).is_canonical());
    }
}
