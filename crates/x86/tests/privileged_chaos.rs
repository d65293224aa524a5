//! No state, operand or memory makes a system instruction panic, and one that faults changes
//! nothing.
//!
//! Random processors (arithmetic overflow is checked in test builds) against every function of the
//! modules for control registers, MSRs, debug registers, XSAVE, fast calls, flags and ports. A
//! fixed seed; a failure prints its round.

use test_support::Rng;
use x86::addr::{Gpa, La, Port, PortWidth, VcpuId, Vector, Width};
use x86::bus::{Privilege, SystemBus, TlbEffect};
use x86::cpuid::{CpuModel, Feature, FeatureSet};
use x86::debug::DataAccess;
use x86::exception::Exception;
use x86::regs::{Cr0, Cr4, Efer};
use x86::segment::Operand;
use x86::state::{CpuState, Flags, PagingState, Seg, Segment, X87, Ymm};
use x86::xsave::{RestoreForm, SaveForm};
use x86::{control, cpuid, debug, flags, ioperm, msr, syscall, xsave};

/// What processors are made of.
struct Random(Rng);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// All bits random, or few of them set, or an edge: what rules are made of.
    fn word(&mut self) -> u64 {
        let value = self.next();
        match self.next() % 6 {
            0 => value,
            1 => value & self.next() & self.next(),
            2 => 1 << (value % 64),
            3 => value & 0xffff,
            4 => [0, u64::MAX, 0x7fff_ffff_ffff, 0x8000_0000_0000][value as usize % 4],
            _ => value % 64,
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.0.one_in(n)
    }

    /// An operand size.
    fn width(&mut self) -> Width {
        [Width::B2, Width::B4, Width::B8][self.next() as usize % 3]
    }
}

/// Memory that answers anything, or faults.
struct Noise {
    random: Random,
    changes: u64,
}

impl Noise {
    fn maybe_fault(&mut self, la: La) -> Result<(), Exception> {
        if self.random.one_in(50) { Err(Exception::pf(la, 2)) } else { Ok(()) }
    }
}

impl SystemBus for Noise {
    fn read(&mut self, la: La, size: Width, _: Privilege) -> Result<u64, Exception> {
        self.maybe_fault(la)?;
        let value = if self.random.one_in(2) { 0 } else { self.random.word() };
        Ok(value & size.mask())
    }

    fn write(&mut self, _: La, size: Width, value: u64, _: Privilege) -> Result<(), Exception> {
        assert!(value <= size.mask());
        Ok(())
    }

    fn probe_write(&mut self, la: La, _: u64, _: Privilege) -> Result<(), Exception> {
        self.maybe_fault(la)
    }

    fn fetch_or_u8(&mut self, _: La, _: u8) -> Result<u8, Exception> {
        Ok(0)
    }

    fn paging_changed(&mut self, _: &PagingState, _: TlbEffect) {
        self.changes += 1;
    }

    fn read_pdptes(&mut self, _: Gpa) -> [u64; 4] {
        [(); 4].map(|()| self.random.word())
    }
}

fn random_state(r: &mut Random) -> CpuState {
    let mut s = CpuState::reset();
    s.gpr.iter_mut().for_each(|g| *g = r.word());
    s.flags = Flags::from_bits(r.word() & 0x3f_7fd7);
    for segment in &mut s.seg {
        *segment = random_segment(r);
    }
    s.tr = random_segment(r);
    s.cpl = [0, 0, 3, (r.next() & 3) as u8][r.next() as usize % 4];
    s.paging.cr0 = Cr0::from_bits_truncate(r.word()) | Cr0::ET;
    s.paging.cr4 = Cr4::from_bits_truncate(r.word() | r.word());
    s.paging.efer = Efer::from_bits_truncate(r.word() | r.word());
    s.paging.cr3 = r.word() & 0x3fff_ffff_ffff;
    s.xcr0 = 1 | [0, 2, 6, 0x206][r.next() as usize % 4];
    s.dr.address = [(); 4].map(|()| r.word());
    s.dr.dr7 = r.word() & 0xffff_2bff | 0x400;
    s.x87 = X87 {
        fcw: r.word() as u16,
        fsw: r.word() as u16,
        ftw: r.word() as u8,
        fip: r.word(),
        ..X87::default()
    };
    s.x87.st.iter_mut().flatten().for_each(|b| *b = r.word() as u8);
    s.ymm = [(); 16].map(|()| Ymm([r.word() as u8; 32]));
    s.msr.star = r.word();
    s.msr.sysenter_cs = r.word() & 0xffff_ffff;
    s.msr.spec_ctrl = r.word() & 7;
    s.tsc_offset = r.word();
    s
}

fn random_segment(r: &mut Random) -> Segment {
    Segment {
        base: r.word(),
        limit: r.word() as u32,
        selector: r.word() as u16,
        access: (r.word() | r.word()) as u16,
    }
}

fn random_model(r: &mut Random) -> CpuModel {
    let mut model = CpuModel::gemello_v3();
    model.features = FeatureSet::ALL;
    while r.one_in(2) {
        let feature = Feature::ALL[r.next() as usize % Feature::ALL.len()];
        model.features = model.features.disable(feature);
    }
    model.tsc_hz = 1 + r.next() % 6_000_000_000;
    model.cpus = 1 + (r.next() % 300) as u32;
    model.apic_id = VcpuId(r.word() as u32);
    model
}

/// Runs `f` on a copy: on success gives the new state, after a fault insists on the old one.
fn attempt(
    state: &CpuState,
    bus: &mut Noise,
    f: impl FnOnce(&mut CpuState, &mut Noise) -> Result<(), Exception>,
) -> Option<CpuState> {
    let mut copy = state.clone();
    let changes = bus.changes;
    match f(&mut copy, bus) {
        Ok(()) => Some(copy),
        Err(fault) => {
            assert_eq!(copy, *state, "{fault:?}");
            assert_eq!(bus.changes, changes, "{fault:?}");
            let known = [
                Vector::UD,
                Vector::NM,
                Vector::GP,
                Vector::SS,
                Vector::PF,
                Vector::DB,
                Vector::MF,
            ];
            assert!(known.contains(&fault.vector));
            None
        }
    }
}

fn system_registers(model: &CpuModel, s: &CpuState, bus: &mut Noise, r: &mut Random) {
    let (n, value) = ((r.next() % 10) as u8, r.word());
    if let Some(after) = attempt(s, bus, |s, b| control::write_cr(model, s, b, n, value)) {
        let paging = after.paging;
        assert!(paging.cr0.contains(Cr0::PE) || !paging.cr0.contains(Cr0::PG) || n != 0);
        assert!(n != 4 || paging.cr4.bits() & !control::cr4_allowed(model).bits() == 0);
    }
    attempt(s, bus, |s, b| control::lmsw(model, s, b, value as u16));
    attempt(s, bus, control::clts);
    attempt(s, bus, |s, _| control::xsetbv(model, s, n.into(), value & 0x207));
    attempt(s, bus, |s, b| control::wrpkru(s, b, value as u32, 0, u32::from(n) / 8));
    attempt(s, bus, |s, b| control::invlpg(s, b, La(value)));
    attempt(s, bus, |s, b| control::invpcid(model, s, b, n.into(), Operand::flat(La(value))));
    attempt(s, bus, |s, _| debug::write_dr(s, n, value));
    let _ = (control::read_cr(s, n), debug::read_dr(s, n), control::smsw(s));
    let _ = (control::xgetbv(model, s, n.into()), control::rdpkru(s, n.into()));
    let mut hits = [DataAccess::Read, DataAccess::Write]
        .map(|access| debug::data_breakpoint(s, La(value), r.word(), access).unwrap_or(0))
        .to_vec();
    let port = Port(value as u16);
    hits.push(debug::port_breakpoint(s, port, PortWidth::B2).unwrap_or(0));
    assert!(hits.iter().all(|hits| hits & !u64::from(debug::data_mask(s)) == 0));
    assert_eq!(debug::code_mask(s) & debug::data_mask(s), 0);
    let _ = debug::code_breakpoint(s, La(value));
}

fn model_specific(model: &CpuModel, s: &CpuState, bus: &mut Noise, r: &mut Random) {
    let base = [0, 0x170, 0x200, 0x260, 0xc000_0080, 0xc000_0100][r.next() as usize % 6];
    let (msr, value) = (base + (r.next() % 0x120) as u32, r.word());
    let after = attempt(s, bus, |s, _| msr::write(model, s, msr, value, 7).map(drop));
    // What took a write can be read, the commands and the microcode trigger aside.
    let commands = [msr::names::IA32_PRED_CMD, msr::names::IA32_FLUSH_CMD, 0x79];
    if let Some(after) = after.filter(|_| !commands.contains(&msr)) {
        assert!(msr::read(model, &after, msr, 7).is_ok(), "{msr:#x}");
    }
    let _ = msr::read(model, s, r.word() as u32, 7);
    cpuid::cpuid(model, s, r.word() as u32, r.word() as u32);
    cpuid::cpuid(model, s, (r.next() % 0x22) as u32, (r.next() % 12) as u32);
}

fn images(model: &CpuModel, s: &CpuState, bus: &mut Noise, r: &mut Random) {
    let (mask, size) = (r.word(), r.width());
    let seg = [Seg::Ds, Seg::Ss, Seg::Fs][r.next() as usize % 3];
    let la = Operand { seg, offset: r.word() & !63, address_size: r.width() };
    for form in [SaveForm::Xsave, SaveForm::Xsaveopt, SaveForm::Xsavec, SaveForm::Xsaves] {
        attempt(s, bus, |s, b| xsave::xsave(model, s, b, form, la, mask, size));
    }
    for form in [RestoreForm::Xrstor, RestoreForm::Xrstors] {
        attempt(s, bus, |s, b| xsave::xrstor(model, s, b, form, la, mask, size));
    }
    attempt(s, bus, |s, b| xsave::fxsave(s, b, la, size));
    attempt(s, bus, |s, b| xsave::fxrstor(s, b, la, size));
    attempt(s, bus, |s, b| xsave::fnstenv(s, b, la, size));
    attempt(s, bus, |s, b| xsave::fldenv(s, b, la, size));
    attempt(s, bus, |s, b| xsave::fnsave(s, b, la, size));
    attempt(s, bus, |s, b| xsave::frstor(s, b, la, size));
    attempt(s, bus, |s, _| xsave::fninit(s));
    attempt(s, bus, |s, _| xsave::ldmxcsr(s, mask as u32));
}

fn transfers_and_permissions(s: &CpuState, bus: &mut Noise, r: &mut Random) {
    let (value, size) = (r.word(), r.width());
    attempt(s, bus, |s, _| syscall::syscall(s, value));
    attempt(s, bus, |s, _| syscall::sysret(s, size));
    attempt(s, bus, |s, _| syscall::sysenter(s));
    attempt(s, bus, |s, _| syscall::sysexit(s, size));
    attempt(s, bus, |s, _| syscall::swapgs(s));
    let size = r.width();
    if let Some(after) = attempt(s, bus, |s, _| flags::popf(s, value, size)) {
        // Above level 0 IOPL never changes, and VM never does at all.
        assert!(s.cpl == 0 || flags::iopl(&after) == flags::iopl(s));
        assert_eq!(after.flags.bits() & 1 << 17, s.flags.bits() & 1 << 17);
        assert_eq!(after.flags.bits() & !0x3f_7fd7, 0);
    }
    let _ = flags::pushf(s, size);
    let width = [PortWidth::B1, PortWidth::B4][usize::from(size == Width::B2)];
    attempt(s, bus, |s, _| flags::cli(s));
    attempt(s, bus, |s, _| flags::sti(s));
    attempt(s, bus, |s, b| ioperm::check(s, b, Port(value as u16), width));
}

#[test]
fn nothing_panics_and_faults_change_nothing() {
    let mut r = Random(Rng::new(1));
    let mut bus = Noise { random: Random(Rng::new(42)), changes: 0 };
    let mut model = random_model(&mut r);
    for round in 0..20_000 {
        if round % 100 == 0 {
            model = random_model(&mut r);
        }
        let state = random_state(&mut r);
        system_registers(&model, &state, &mut bus, &mut r);
        model_specific(&model, &state, &mut bus, &mut r);
        images(&model, &state, &mut bus, &mut r);
        transfers_and_permissions(&state, &mut bus, &mut r);
    }
}
