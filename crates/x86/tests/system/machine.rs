//! A megabyte of memory, descriptor tables with one of everything, and states of every mode.

use std::cell::RefCell;
use x86::addr::{Gpa, La, Vector, Width};
use x86::bus::{Access, AccessKind, PhysicalMemory, Privilege, Smap, SystemBus, TlbEffect};
use x86::exception::Exception;
use x86::paging::translate;
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::state::{CpuState, Flags, PagingState, Seg, Segment, TableRegister, gpr};

pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x3000;
pub const TSS_B: u64 = 0x5000;
pub const LDT: u64 = 0x4000;
/// Ring 0's stack in the TSS, and rings 1 and 2.
pub const STACK0: u64 = 0x8000;
pub const STACK1: u64 = 0x8800;
/// Where RSP is at the start.
pub const STACK: u64 = 0x9000;
pub const CODE_IP: u64 = 0x1234;

pub const CODE0: u16 = 0x08;
pub const DATA0: u16 = 0x10;
pub const CODE3: u16 = 0x1b;
pub const DATA3: u16 = 0x23;
pub const LONG0: u16 = 0x28;
pub const LONG3: u16 = 0x33;
pub const CONFORMING0: u16 = 0x38;
pub const CODE0_ABSENT: u16 = 0x40;
pub const DATA0_ABSENT: u16 = 0x48;
pub const DATA1: u16 = 0x51;
/// 16 bytes in IA-32e mode.
pub const TSS_SELECTOR: u16 = 0x58;
pub const TSS_B_SELECTOR: u16 = 0x68;
/// Call gate, 16 bytes in IA-32e mode; tests fill it in.
pub const GATE: u16 = 0x70;
pub const LDT_SELECTOR: u16 = 0x80;
pub const CODE16: u16 = 0x90;
pub const READ_ONLY0: u16 = 0x98;
pub const EXECUTE_ONLY0: u16 = 0xa0;
pub const DATA16: u16 = 0xa8;
pub const CODE1: u16 = 0xb1;
pub const SMALL_CODE0: u16 = 0xb8;
pub const LONG_AND_BIG0: u16 = 0xc0;
pub const EXPAND_DOWN0: u16 = 0xc8;
pub const GDT_LIMIT: u16 = 0xcf;

/// A descriptor from base, limit (20 bits), access byte and the flags nibble (G, D/B, L, AVL).
pub fn descriptor(base: u64, limit: u64, access: u64, flags: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 15) << 48
        | flags << 52
        | (base >> 24 & 0xff) << 56
}

/// A gate from selector, offset, access byte and the count (or IST) byte.
pub fn gate(selector: u16, offset: u64, access: u64, count: u64) -> u64 {
    offset & 0xffff
        | u64::from(selector) << 16
        | count << 32
        | access << 40
        | (offset >> 16 & 0xffff) << 48
}

pub struct Machine {
    ram: RefCell<Vec<u8>>,
    pub paging: PagingState,
    pub effects: Vec<TlbEffect>,
    /// Linear pages that fault on any access.
    pub holes: Vec<u64>,
    /// Linear pages that fault on writes.
    pub read_only: Vec<u64>,
}

impl Machine {
    pub fn get(&self, at: u64, size: usize) -> u64 {
        let ram = self.ram.borrow();
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&ram[at as usize..at as usize + size]);
        u64::from_le_bytes(bytes)
    }

    pub fn put(&self, at: u64, size: usize, value: u64) {
        let mut ram = self.ram.borrow_mut();
        ram[at as usize..at as usize + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    pub fn set_descriptor(&self, selector: u16, raw: u64) {
        self.put(GDT + u64::from(selector & !7), 8, raw);
    }

    pub fn descriptor(&self, selector: u16) -> u64 {
        self.get(GDT + u64::from(selector & !7), 8)
    }

    /// Items of `size` bytes from `at` up.
    pub fn items(&self, at: u64, size: usize, count: usize) -> Vec<u64> {
        (0..count).map(|i| self.get(at + (i * size) as u64, size)).collect()
    }

    /// Lays `items` out so that the first is on top of the stack at `at`.
    pub fn lay(&self, at: u64, size: usize, items: &[u64]) {
        for (i, item) in items.iter().enumerate() {
            self.put(at + (i * size) as u64, size, *item);
        }
    }

    fn physical(&self, la: La, kind: AccessKind, privilege: Privilege) -> Result<u64, Exception> {
        assert!(la.is_canonical(), "{la:#x} must have been checked");
        let page = la.page().0;
        let write = kind == AccessKind::Write;
        if self.holes.contains(&page) || (write && self.read_only.contains(&page)) {
            return Err(Exception::pf(la, if write { 2 } else { 0 }));
        }
        Ok(translate(&self.paging, Smap::Enforced, self, la, Access { kind, privilege })?.gpa.0)
    }
}

impl PhysicalMemory for Machine {
    fn read_u32(&self, gpa: Gpa) -> u32 {
        self.get(gpa.0, 4) as u32
    }
    fn read_u64(&self, gpa: Gpa) -> u64 {
        self.get(gpa.0, 8)
    }
    fn compare_exchange_u32(&self, gpa: Gpa, _: u32, new: u32) -> bool {
        self.put(gpa.0, 4, new.into());
        true
    }
    fn compare_exchange_u64(&self, gpa: Gpa, _: u64, new: u64) -> bool {
        self.put(gpa.0, 8, new);
        true
    }
}

impl SystemBus for Machine {
    fn read(&mut self, la: La, size: Width, access: Privilege) -> Result<u64, Exception> {
        let mut value = 0;
        for i in 0..u64::from(size) {
            let at = self.physical(la.wrapping_add(i), AccessKind::Read, access)?;
            value |= self.get(at, 1) << (8 * i);
        }
        Ok(value)
    }
    fn write(
        &mut self,
        la: La,
        size: Width,
        value: u64,
        access: Privilege,
    ) -> Result<(), Exception> {
        self.probe_write(la, size.into(), access)?;
        for i in 0..u64::from(size) {
            let at = self.physical(la.wrapping_add(i), AccessKind::Write, access)?;
            self.put(at, 1, value >> (8 * i));
        }
        Ok(())
    }
    fn probe_write(&mut self, la: La, len: u64, access: Privilege) -> Result<(), Exception> {
        (0..len).try_for_each(|i| {
            self.physical(la.wrapping_add(i), AccessKind::Write, access).map(|_| ())
        })
    }
    fn fetch_or_u8(&mut self, la: La, bits: u8) -> Result<u8, Exception> {
        let at = self.physical(la, AccessKind::Write, Privilege::Implicit)?;
        let old = self.get(at, 1) as u8;
        self.put(at, 1, u64::from(old | bits));
        Ok(old)
    }
    fn paging_changed(&mut self, state: &PagingState, effect: TlbEffect) {
        self.paging = *state;
        self.effects.push(effect);
    }
    fn read_pdptes(&mut self, gpa: Gpa) -> [u64; 4] {
        [0, 1, 2, 3].map(|i| self.get(gpa.0 + 8 * i, 8))
    }
}

/// The selector's segment as a load would cache it.
pub fn cached(m: &Machine, selector: u16) -> Segment {
    let mut segment = Segment::decode(selector, m.descriptor(selector));
    if !segment.is_system() {
        segment.access |= 1;
    }
    segment
}

fn machine() -> Machine {
    let m = Machine {
        ram: RefCell::new(vec![0; 0x10_0000]),
        paging: CpuState::reset().paging,
        effects: vec![],
        holes: vec![],
        read_only: vec![],
    };
    let flat = |access, flags| descriptor(0, 0xf_ffff, access, flags);
    for (selector, raw) in [
        (CODE0, flat(0x9a, 0xc)),
        (DATA0, flat(0x92, 0xc)),
        (CODE3, flat(0xfa, 0xc)),
        (DATA3, flat(0xf2, 0xc)),
        (LONG0, flat(0x9a, 0xa)),
        (LONG3, flat(0xfa, 0xa)),
        (CONFORMING0, flat(0x9e, 0xc)),
        (CODE0_ABSENT, flat(0x1a, 0xc)),
        (DATA0_ABSENT, flat(0x12, 0xc)),
        (DATA1, flat(0xb2, 0xc)),
        (LDT_SELECTOR, descriptor(LDT, 0x1f, 0x82, 0)),
        (CODE16, descriptor(0x5_0000, 0xffff, 0x9a, 0)),
        (READ_ONLY0, flat(0x90, 0xc)),
        (EXECUTE_ONLY0, flat(0x98, 0xc)),
        (DATA16, descriptor(0x6_0000, 0xffff, 0x92, 0)),
        (CODE1, flat(0xba, 0xc)),
        (SMALL_CODE0, descriptor(0, 0xfff, 0x9a, 4)),
        (LONG_AND_BIG0, flat(0x9a, 0xe)),
        (EXPAND_DOWN0, descriptor(0, 0xfff, 0x96, 4)),
    ] {
        m.set_descriptor(selector, raw);
    }
    m
}

fn state(m: &Machine, code: u16, data: u16) -> CpuState {
    let mut s = CpuState::reset();
    s.paging.cr0 = Cr0::PE | Cr0::ET;
    let data_segment = cached(m, data);
    s.seg = [data_segment; 6];
    s.seg[Seg::Cs as usize] = cached(m, code);
    s.cpl = code as u8 & 3;
    s.rip = CODE_IP;
    s.gpr[gpr::RSP] = STACK;
    s.flags = Flags::from_bits(0x202);
    s.gdtr = TableRegister { base: GDT, limit: GDT_LIMIT };
    s.idtr = TableRegister { base: IDT, limit: 0x7ff };
    s
}

/// Protected mode, paging off, with a 32-bit TSS.
pub fn protected(code: u16, data: u16) -> (CpuState, Machine) {
    let m = machine();
    m.set_descriptor(TSS_SELECTOR, descriptor(TSS, 0x67, 0x8b, 0));
    m.set_descriptor(TSS_B_SELECTOR, descriptor(TSS_B, 0x67, 0x89, 0));
    m.lay(TSS + 4, 4, &[STACK0, DATA0.into(), STACK1, DATA1.into()]);
    let mut s = state(&m, code, data);
    s.tr = cached(&m, TSS_SELECTOR);
    (s, m)
}

/// Ring 0 and ring 3 of protected mode.
pub fn kernel32() -> (CpuState, Machine) {
    protected(CODE0, DATA0)
}

pub fn user32() -> (CpuState, Machine) {
    protected(CODE3, DATA3)
}

/// Virtual-8086 mode with ES = 5000H, CS = 5001H, SS = 5002H, … and SP = 9000H.
pub fn virtual_8086() -> (CpuState, Machine) {
    let (mut s, m) = user32();
    for (segment, selector) in s.seg.iter_mut().zip(0x5000..) {
        let base = u64::from(selector) << 4;
        *segment = Segment { base, limit: 0xffff, selector, access: 0xf3 };
    }
    s.flags = Flags::from_bits(0x202 | Rflags::VM.bits());
    (s, m)
}

/// Real mode: stack at 4000:9000, IVT at 0.
pub fn real() -> (CpuState, Machine) {
    let m = machine();
    let mut s = CpuState::reset();
    s.idtr = TableRegister { base: 0, limit: 0x3ff };
    s.seg[Seg::Cs as usize] =
        Segment { base: 0x2_0000, limit: 0xffff, selector: 0x2000, access: 0x9b };
    s.seg[Seg::Ss as usize] =
        Segment { base: 0x4_0000, limit: 0xffff, selector: 0x4000, access: 0x93 };
    s.rip = CODE_IP;
    s.gpr[gpr::RSP] = 0xabcd_9000;
    s.flags = Flags::from_bits(0x202);
    (s, m)
}

/// IA-32e mode with the first gigabyte mapped onto itself, for user mode too, and a 64-bit TSS.
pub fn long(code: u16, data: u16) -> (CpuState, Machine) {
    let mut m = machine();
    m.put(0xf_0000, 8, 0xf_1007);
    m.put(0xf_1000, 8, 0x87);
    m.set_descriptor(TSS_SELECTOR, descriptor(TSS, 0x67, 0x8b, 0));
    m.lay(TSS + 4, 8, &[STACK0, STACK1]);
    let mut s = state(&m, code, data);
    s.paging.cr0 |= Cr0::PG | Cr0::WP;
    s.paging.cr3 = 0xf_0000;
    s.paging.cr4 = Cr4::PAE;
    s.paging.efer = Efer::LME | Efer::LMA;
    s.idtr.limit = 0xfff;
    s.tr = cached(&m, TSS_SELECTOR);
    m.paging = s.paging;
    (s, m)
}

pub fn kernel64() -> (CpuState, Machine) {
    let (mut s, m) = long(LONG0, DATA0);
    s.seg[Seg::Ss as usize] = Segment::null(0);
    (s, m)
}

pub fn user64() -> (CpuState, Machine) {
    long(LONG3, DATA3)
}

/// Runs `f`, which must fail, and verifies that it left the state alone.
pub fn fails(
    s: &mut CpuState,
    m: &mut Machine,
    f: impl FnOnce(&mut CpuState, &mut Machine) -> Result<(), Exception>,
) -> (Vector, u32) {
    let before = s.clone();
    let error = f(s, m).expect_err("must fault");
    assert!(*s == before, "a fault changed the state");
    (error.vector, error.error_code.unwrap_or(u32::MAX))
}

pub fn selector(s: &CpuState, seg: Seg) -> u16 {
    s.seg[seg as usize].selector
}

pub fn rsp(s: &CpuState) -> u64 {
    s.gpr[gpr::RSP]
}
