//! A guest under construction: a world (mode, tables, segments), code, and what is expected of it.

use crate::describe::{access, descriptor, gate};
use crate::end::End;
use crate::layout::*;
use crate::paging::{Format, Tables};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use memory::GuestRam;
use vcpu::Exit;
use x86::addr::{Gpa, Vector};
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::state::{CpuState, Flags, Seg, Segment, TableRegister, gpr};

/// A judgement over the end.
type Check = Box<dyn Fn(&End) -> Result<(), String>>;

/// How the case has to end, apart from its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// The code runs to its end: HLT, or INT 80H in user code.
    End,
    /// This vector's stub halts.
    Vector(u8),
    /// HLT with the next instruction here.
    At(u64),
    /// Triple fault.
    Shutdown,
}

/// The guest. A fresh one is in real mode; `long`, `protected`, … make the other worlds.
pub(crate) struct Guest {
    pub(crate) ram: GuestRam,
    pub(crate) state: CpuState,
    /// Absent without paging.
    pub(crate) tables: Option<Tables>,
    /// Whether the external interrupt is pending from the start.
    pub(crate) interrupt_at_start: bool,
    /// Whether an NMI is.
    pub(crate) nmi_at_start: bool,
    bits: u32,
    next: u64,
    handler_next: u64,
    finish: Finish,
    checks: Vec<Check>,
}

/// HLT.
const HLT: u8 = 0xf4;
/// 64- and 32-bit interrupt gate, DPL 0, present.
pub(crate) const INTERRUPT_GATE: u8 = 0x8e;
/// Trap gate.
pub(crate) const TRAP_GATE: u8 = 0x8f;
/// DPL 3 in a gate's access byte.
pub(crate) const GATE_USER: u8 = 0x60;

impl Guest {
    /// Real mode, CS = DS = ES = SS = 0, code at [`CODE`], the vector table at 0.
    pub(crate) fn new() -> Self {
        let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("16 MiB of guest memory");
        let mut state = CpuState::reset();
        let flat = |access| Segment { base: 0, limit: 0xffff, selector: 0, access };
        state.seg = [flat(access::DATA16); 6];
        state.seg[Seg::Cs as usize] = flat(access::CODE16);
        state.idtr = TableRegister { base: 0, limit: 0x3ff };
        state.gdtr = TableRegister { base: GDT, limit: sel::BEYOND - 1 };
        state.paging.cr0 = Cr0::ET | Cr0::NE | Cr0::MP;
        state.gpr[gpr::RDX] = 0;
        state.gpr[gpr::RSP] = STACK;
        state.x87.fcw = 0x37f;
        state.x87.ftw = 0;
        let mut guest = Self {
            ram,
            state,
            tables: None,
            interrupt_at_start: false,
            nmi_at_start: false,
            bits: 16,
            next: CODE,
            handler_next: HANDLERS,
            finish: Finish::End,
            checks: Vec::new(),
        };
        for vector in 0..=255u64 {
            guest.write(STUBS + 16 * vector, &[HLT]);
            guest.write(4 * vector, &((STUBS + 16 * vector) as u32).to_le_bytes());
        }
        guest.write_gdt();
        guest
    }

    fn write_gdt(&mut self) {
        use access::{CODE16, CODE32, CODE64, DATA, DATA16, LDT as LDT_ACCESS, TSS, USER};
        let flat = |access| descriptor(0, 0xf_ffff, access);
        for (selector, value) in [
            (sel::CODE64, flat(CODE64)),
            (sel::DATA, flat(DATA)),
            (sel::USER_CODE32, flat(CODE32 | USER)),
            (sel::USER_DATA, flat(DATA | USER)),
            (sel::USER_CODE64, flat(CODE64 | USER)),
            (sel::CODE32, flat(CODE32)),
            (sel::CODE16, descriptor(0, 0xffff, CODE16)),
            (sel::DATA16, descriptor(0, 0xffff, DATA16)),
            (sel::CONFORMING, flat(CODE32 | 4)),
            (sel::ABSENT, flat(DATA & !0x80)),
            (sel::READ_ONLY, flat(DATA & !2)),
            (sel::EXECUTE_ONLY, flat(CODE32 & !2)),
            (sel::LDT, descriptor(LDT, 0xff, LDT_ACCESS)),
            (sel::TSS, descriptor(crate::layout::TSS, TSS_LIMIT, access::TSS_BUSY)),
            (sel::TSS2, descriptor(TSS2, 0x67, TSS)),
            (sel::FRESH, flat(DATA & !1)),
            (sel::DOWN, descriptor(0, 0xfff, 0x4097)),
            (sel::SHORT, descriptor(0, 0xff, 0x4093)),
        ] {
            self.set_gdt(selector, value);
        }
    }

    /// 64-bit mode at CPL 0, identity map, every vector's interrupt gate leading to its stub.
    pub(crate) fn long(&mut self) {
        self.protected_state();
        let tables = Tables::identity(&self.ram, Format::Long);
        let paging = &mut self.state.paging;
        paging.cr0 |= Cr0::PG | Cr0::WP;
        paging.cr3 = tables.root();
        paging.cr4 = Cr4::PAE | Cr4::PGE | Cr4::OSFXSR | Cr4::OSXMMEXCPT;
        paging.efer = Efer::LME | Efer::LMA | Efer::NXE | Efer::SCE;
        self.tables = Some(tables);
        self.set_seg(Seg::Cs, sel::CODE64, access::CODE64);
        for vector in 0..=255 {
            self.set_gate(vector, sel::CODE64, Self::stub(vector), INTERRUPT_GATE, 0);
        }
        self.set_gate(EXIT, sel::CODE64, Self::stub(EXIT), INTERRUPT_GATE | GATE_USER, 0);
        self.poke(TSS + 4, STACK0); // RSP0
        self.poke(TSS + 0x24, IST1); // IST1
        self.bits = 64;
    }

    /// 64-bit mode at CPL 3.
    pub(crate) fn user(&mut self) {
        self.long();
        self.enter_user(sel::USER_CODE64, access::CODE64, 64);
    }

    /// Compatibility mode at CPL 3, 32-bit code.
    pub(crate) fn compat(&mut self) {
        self.long();
        self.enter_user(sel::USER_CODE32, access::CODE32, 32);
    }

    /// 32-bit protected mode at CPL 0, no paging, flat segments.
    pub(crate) fn protected(&mut self) {
        self.protected_state();
        self.set_seg(Seg::Cs, sel::CODE32, access::CODE32);
        for vector in 0..=255 {
            self.set_gate(vector, sel::CODE32, Self::stub(vector), INTERRUPT_GATE, 0);
        }
        self.set_gate(EXIT, sel::CODE32, Self::stub(EXIT), INTERRUPT_GATE | GATE_USER, 0);
        self.poke32(TSS + 4, STACK0 as u32); // ESP0
        self.poke32(TSS + 8, sel::DATA.into()); // SS0
        self.bits = 32;
    }

    /// 32-bit protected mode at CPL 3.
    pub(crate) fn protected_user(&mut self) {
        self.protected();
        self.enter_user(sel::USER_CODE32, access::CODE32, 32);
    }

    /// Goes on at CPL 3 in a 32-bit protected world.
    pub(crate) fn continue_as_user_32(&mut self) {
        self.enter_user(sel::USER_CODE32, access::CODE32, 32);
    }

    /// 32-bit protected mode at CPL 0 with 32-bit or PAE paging.
    pub(crate) fn protected_paged(&mut self, format: Format) {
        self.protected();
        let tables = Tables::identity(&self.ram, format);
        let paging = &mut self.state.paging;
        paging.cr0 |= Cr0::PG | Cr0::WP;
        paging.cr3 = tables.root();
        paging.cr4 |= if format == Format::Pae { Cr4::PAE } else { Cr4::PSE };
        if format == Format::Pae {
            let root = tables.root();
            let mut bytes = [0; 32];
            self.ram.read(Gpa(root), &mut bytes).expect("the root is in RAM");
            for (pdpte, chunk) in self.state.paging.pdpte.iter_mut().zip(bytes.as_chunks().0) {
                *pdpte = u64::from_le_bytes(*chunk);
            }
        }
        self.tables = Some(tables);
    }

    fn protected_state(&mut self) {
        self.state.paging.cr0 |= Cr0::PE;
        for seg in [Seg::Es, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs] {
            self.set_seg(seg, sel::DATA, access::DATA);
        }
        self.state.idtr = TableRegister { base: IDT, limit: 0xfff };
        self.state.tr =
            Segment { base: TSS, limit: TSS_LIMIT, selector: sel::TSS, access: access::TSS_BUSY };
        self.state.ldtr =
            Segment { base: LDT, limit: 0xff, selector: sel::LDT, access: access::LDT };
        self.ram.write(Gpa(TSS + 0x66), &(IO_MAP as u16).to_le_bytes()).expect("the TSS is in RAM");
        self.write(TSS + IO_MAP, &[0xff; 0x21]);
    }

    fn enter_user(&mut self, cs: u16, access: u16, bits: u32) {
        self.set_seg(Seg::Cs, cs, access | access::USER);
        for seg in [Seg::Es, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs] {
            self.set_seg(seg, sel::USER_DATA, access::DATA | access::USER);
        }
        self.state.cpl = 3;
        self.state.gpr[gpr::RSP] = USER_STACK;
        self.bits = bits;
        self.next = USER_CODE;
    }

    /// Loads a flat segment register.
    pub(crate) fn set_seg(&mut self, seg: Seg, selector: u16, access: u16) {
        let limit = if access & Segment::G != 0 { u32::MAX } else { 0xffff };
        self.state.seg[seg as usize] = Segment { base: 0, limit, selector, access };
    }

    /// Writes a descriptor.
    pub(crate) fn set_gdt(&mut self, selector: u16, value: u64) {
        self.poke(GDT + u64::from(selector & !7), value);
    }

    /// Writes a gate into the GDT.
    pub(crate) fn set_call_gate(&mut self, target: u16, offset: u64, kind: u8, extra: u8) {
        let [low, high] = gate(target, offset, kind, extra);
        self.set_gdt(sel::GATE, low);
        self.set_gdt(sel::GATE + 8, high);
    }

    /// Writes a gate into the IDT, in the form of the current world.
    pub(crate) fn set_gate(&mut self, vector: u8, selector: u16, offset: u64, kind: u8, ist: u8) {
        let [low, high] = gate(selector, offset, kind, ist);
        if self.state.long_mode() {
            self.poke(IDT + 16 * u64::from(vector), low);
            self.poke(IDT + 16 * u64::from(vector) + 8, high);
        } else {
            self.poke(IDT + 8 * u64::from(vector), low);
        }
    }

    /// The address of a vector's stub.
    pub(crate) fn stub(vector: u8) -> u64 {
        STUBS + 16 * u64::from(vector)
    }

    /// Copies bytes to guest-physical memory.
    pub(crate) fn write(&mut self, gpa: u64, bytes: &[u8]) {
        self.ram.write(Gpa(gpa), bytes).expect("a case writes to RAM");
    }

    /// Writes eight bytes.
    pub(crate) fn poke(&mut self, gpa: u64, value: u64) {
        self.write(gpa, &value.to_le_bytes());
    }

    /// Writes four bytes.
    pub(crate) fn poke32(&mut self, gpa: u64, value: u32) {
        self.write(gpa, &value.to_le_bytes());
    }

    /// Maps a page of the play area; see [`crate::paging::pte`].
    pub(crate) fn map(&mut self, la: u64, gpa: u64, flags: u64) {
        self.paged().map(la, gpa, flags);
    }

    /// The page tables of a world that has them.
    pub(crate) fn paged(&mut self) -> &mut Tables {
        self.tables.as_mut().expect("a world with paging")
    }

    /// Appends code; its address.
    pub(crate) fn emit(
        &mut self,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> u64 {
        let at = self.next;
        let bytes = assemble(self.bits, at, code);
        self.raw(&bytes)
    }

    /// Appends bytes as code; their address.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> u64 {
        let at = self.next;
        self.write(at, bytes);
        self.next += bytes.len() as u64;
        at
    }

    /// Goes on emitting at `at`, as code of `bits`.
    pub(crate) fn seek(&mut self, at: u64, bits: u32) {
        self.next = at;
        self.bits = bits;
    }

    /// Where the next code goes.
    pub(crate) const fn here(&self) -> u64 {
        self.next
    }

    /// Assembles code of `bits` apart from the main flow; its address.
    pub(crate) fn aside(
        &mut self,
        bits: u32,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> u64 {
        let at = self.handler_next;
        let bytes = assemble(bits, at, code);
        self.write(at, &bytes);
        self.handler_next = (at + bytes.len() as u64 + 16) & !15;
        at
    }

    /// Assembles a handler and points `vector`'s interrupt gate to it; its address.
    pub(crate) fn handler(
        &mut self,
        vector: Vector,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> u64 {
        let (bits, cs) = if self.state.long_mode() { (64, sel::CODE64) } else { (32, sel::CODE32) };
        let at = self.aside(bits, code);
        self.set_gate(vector.0, cs, at, INTERRUPT_GATE, 0);
        at
    }

    /// Completes the code and gives the state to start with.
    pub(crate) fn finish(&mut self) -> CpuState {
        let end: &[u8] = if self.state.cpl == 3 { &[0xcd, EXIT] } else { &[HLT] };
        let at = self.next;
        self.write(at, end);
        if self.state.rip == CpuState::reset().rip {
            self.state.rip = if self.state.cpl == 3 { USER_CODE } else { CODE };
        }
        self.state.clone()
    }

    /// Judges the end.
    pub(crate) fn verdict(&self, end: &End) -> Result<(), String> {
        let here = match self.finish {
            Finish::Shutdown => end.exit == Exit::Shutdown,
            Finish::Vector(v) => end.frame.is_some_and(|f| f.0 == v),
            Finish::At(at) => matches!(end.exit, Exit::Halted(_)) && end.ip() == at,
            Finish::End if self.state.cpl == 3 => end.frame.is_some_and(|f| f.0 == EXIT),
            Finish::End => matches!(end.exit, Exit::Halted(_)) && end.ip() == self.next + 1,
        };
        if !here {
            return Err(format!("it should have ended in {:x?}", self.finish));
        }
        self.checks.iter().try_for_each(|check| check(end))
    }

    /// Expects a triple fault.
    pub(crate) fn shuts_down(&mut self) {
        self.finish = Finish::Shutdown;
    }

    /// Expects HLT with the next instruction at `at`.
    pub(crate) fn halts_at(&mut self, at: u64) {
        self.finish = Finish::At(at);
    }

    /// Expects that `vector`'s stub halts.
    pub(crate) fn delivers(&mut self, vector: u8) {
        self.finish = Finish::Vector(vector);
    }

    /// Expects `vector` with an error code, pushed RIP `at`.
    pub(crate) fn faults(&mut self, vector: Vector, code: u32, at: u64) {
        self.traps(vector, at);
        self.want("error code", |e| e.pushed().code.unwrap_or(u64::MAX), code.into());
    }

    /// Expects `vector` without a look at the error code, pushed RIP `at`.
    pub(crate) fn traps(&mut self, vector: Vector, at: u64) {
        self.delivers(vector.0);
        self.want("pushed RIP", |e| e.pushed().rip, at);
    }

    /// Expects a page fault: error code, CR2, pushed RIP.
    pub(crate) fn page_faults(&mut self, code: u32, cr2: u64, at: u64) {
        self.faults(Vector::PF, code, at);
        self.want("CR2", |e| e.state.cr2, cr2);
    }

    /// Expects a page fault somewhere in the page at `page`: for the processor's own multi-byte
    /// accesses.
    pub(crate) fn page_faults_on(&mut self, page: u64, code: u32, at: u64) {
        self.faults(Vector::PF, code, at);
        self.want("page of CR2", |e| e.state.cr2 & !0xfff, page);
    }

    /// Expects that `got` is `want`.
    pub(crate) fn want(
        &mut self,
        what: &'static str,
        got: impl Fn(&End) -> u64 + 'static,
        want: u64,
    ) {
        self.checks.push(Box::new(move |end| match got(end) {
            value if value == want => Ok(()),
            value => Err(format!("{what} is {value:#x}, should be {want:#x}")),
        }));
    }

    /// Expects a general register's value.
    pub(crate) fn want_reg(&mut self, n: usize, want: u64) {
        self.want(gpr::NAMES[n & 15], move |e| e.reg(n), want);
    }

    /// Expects the arithmetic or system flag to be set or clear at the end.
    pub(crate) fn want_flag(&mut self, flag: Rflags, set: bool) {
        self.want("flag", move |e| e.state.flags.has(flag).into(), set.into());
    }

    /// Expects the pushed image of a flag.
    pub(crate) fn want_pushed(&mut self, flag: Rflags, set: bool) {
        self.want("pushed flag", move |e| (e.pushed().flags & flag.bits() != 0).into(), set.into());
    }

    /// Expects `size` bytes of memory.
    pub(crate) fn want_mem(&mut self, gpa: u64, size: u8, want: u64) {
        self.want("memory", move |e| e.mem(gpa, size), want);
    }

    /// Expects these bytes on the report port, in order.
    pub(crate) fn want_reports(&mut self, want: &'static [u8]) {
        self.checks.push(Box::new(move |end| match &end.reports[..] {
            got if got == want => Ok(()),
            got => Err(format!("reports are {got:x?}, should be {want:x?}")),
        }));
    }

    /// Sets RFLAGS to start with.
    pub(crate) fn flags(&mut self, flags: Rflags) {
        self.state.flags = Flags::from_bits(flags.bits() | 2);
    }
}

/// Code of `bits` for address `at`.
fn assemble(
    bits: u32,
    at: u64,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(bits).expect("16, 32 or 64 bits");
    code(&mut assembler).expect("a case's code is valid");
    assembler.assemble(at).expect("a case's code can be encoded")
}
