//! Translation of one block: guest instructions to host code, with every exit recorded.
//!
//! Conventions. Host RAX to R12 hold the guest's, RSP included; R13 to R15 of the guest stay in the state. Status flags are in RFLAGS at every
//! block boundary, or provably dead. `BLOCK_IP`'s slot holds the linear address of the page the code runs on, so that a block runs
//! wherever its page is mapped. Before its address check has passed, an instruction changes nothing of the guest's: any fault or miss
//! leaves to the interpreter at that instruction.

use super::asm::{ADDRESS, Asm, RAX, RCX, RSP, SECOND, THIRD};
use super::context::Context;
use super::flow::{self, Class, FlagUse, Usage};
use crate::cpu::Cpu;
use crate::thunk::MemOperand;
use crate::tlb::Entry;
use iced_x86::{Encoder, Instruction, OpKind, Register};
use std::mem::offset_of;
use x86::state::{CpuState, Flags, Segment, X87, gpr};

pub(super) const STATE: usize = offset_of!(Cpu, state);
pub(super) const PAGE: usize = STATE + offset_of!(CpuState, gpr) + 8 * gpr::BLOCK_IP;
pub(super) const ARITH: usize = STATE + offset_of!(CpuState, flags) + offset_of!(Flags, arith);
const SYSTEM_FLAGS: usize = STATE + offset_of!(CpuState, flags) + offset_of!(Flags, system);
pub(super) const MXCSR: usize = STATE + offset_of!(CpuState, x87) + offset_of!(X87, mxcsr);
const VIEW: usize = Cpu::VIEW_OFFSET;
pub(super) const JIT: usize = offset_of!(Cpu, jit);
const COUNT: usize = JIT + offset_of!(Context, count);
const TMP_FLAGS: usize = JIT + offset_of!(Context, flags);
const SCRATCH: usize = JIT + offset_of!(Context, scratch);
pub(super) const EXIT: usize = JIT + offset_of!(Context, exit);
const TARGETS: usize = JIT + offset_of!(Context, targets);
const POLL: usize = JIT + offset_of!(Context, poll);
pub(super) const VECTORS_OUT: usize = JIT + offset_of!(Context, vectors_out);

pub(super) fn home(register: u8) -> usize {
    STATE + offset_of!(CpuState, gpr) + 8 * usize::from(register)
}

pub(super) fn ymm_home(register: u8) -> usize {
    STATE + offset_of!(CpuState, ymm) + 32 * usize::from(register)
}

/// What an exit means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Site {
    /// Go on at page + delta; the jump at `place` may be linked to that block.
    Link { place: u32, delta: i32, vectors: bool },
    /// Go on at page + delta.
    Here { delta: i32 },
    /// Go on at page + delta in the interpreter; `undone` instructions of the block were counted but not run.
    Interpret { delta: i32, undone: u16 },
}

/// A finished translation, offsets into `code`.
pub(super) struct Translation {
    pub(super) code: Vec<u8>,
    pub(super) far: usize,
    pub(super) near: usize,
    pub(super) body: usize,
    /// The stub that leaves at the block's start.
    pub(super) stub: usize,
    pub(super) sites: Vec<Site>,
    /// Jumps to the common exit: places of rel32.
    pub(super) leaves: Vec<usize>,
    /// Jumps to the code that loads the vector registers.
    pub(super) loads: Vec<usize>,
    /// What a fault means from each offset on, ascending.
    pub(super) starts: Vec<Start>,
}

/// From `offset` of the code on a fault belongs to the instruction at page + `delta`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) offset: u32,
    pub(super) delta: i32,
    /// Instructions from it to the block's end.
    pub(super) rest: u16,
    /// Status flags are in `Context::flags` rather than in RFLAGS.
    pub(super) saved: bool,
}

/// One guest instruction with what is known of it.
pub(super) struct Guest {
    pub(super) i: Instruction,
    pub(super) class: Class,
    pub(super) usage: Usage,
    pub(super) bytes: [u8; 15],
    /// Offset from the page's start.
    pub(super) delta: i32,
    /// Status flags are needed after it.
    pub(super) live_after: bool,
}

/// A cold piece: where it is jumped to from, and what it does.
struct Stub {
    from: Vec<usize>,
    restore_flags: bool,
    site: usize,
}

pub(super) struct Emitter<'a> {
    asm: Asm,
    sites: Vec<Site>,
    stubs: Vec<Stub>,
    leaves: Vec<usize>,
    loads: Vec<usize>,
    starts: Vec<Start>,
    first_site: usize,
    /// Flags are in `Context::flags` rather than in RFLAGS.
    saved: bool,
    block: &'a [Guest],
    start_delta: i32,
    vectors: bool,
}

/// Translates `block`, which begins `start_delta` bytes into its page; `next_delta` is where it falls through, if it does.
pub(super) fn translate(
    block: &[Guest],
    start_delta: i32,
    next_delta: i32,
    first_site: usize,
) -> Option<Translation> {
    let vectors = block.iter().any(|g| g.usage.vector && !matches!(g.class, Class::Other));
    let e = Emitter {
        asm: Asm::default(),
        sites: Vec::new(),
        stubs: Vec::new(),
        leaves: Vec::new(),
        loads: Vec::new(),
        starts: Vec::new(),
        first_site,
        saved: false,
        block,
        start_delta,
        vectors,
    };
    e.run(next_delta)
}

impl Emitter<'_> {
    fn run(mut self, next_delta: i32) -> Option<Translation> {
        // Far entry: the target's RIP is in ADDRESS.
        self.asm.lea(ADDRESS, ADDRESS, -self.start_delta);
        self.asm.store(PAGE, ADDRESS);
        let near = self.asm.here();
        if self.vectors {
            self.require_vectors();
        }
        let body = self.asm.here();
        self.count(self.block.len());
        let mut open = true;
        for n in 0..self.block.len() {
            let rest = (self.block.len() - n) as u16;
            self.start(n, rest);
            open = self.instruction(n, rest)?;
            if !open {
                break;
            }
        }
        if open {
            self.settle_flags(true);
            self.direct(next_delta, None);
        }
        let stub = self.asm.here();
        let site = self.site(Site::Here { delta: self.start_delta });
        self.stub_body(site, false);
        for stub in std::mem::take(&mut self.stubs) {
            for place in &stub.from {
                self.asm.resolve_here(*place);
            }
            self.stub_body(stub.site, stub.restore_flags);
        }
        Some(Translation {
            code: self.asm.code,
            far: 0,
            near,
            body,
            stub,
            sites: self.sites,
            leaves: self.leaves,
            loads: self.loads,
            starts: self.starts,
        })
    }

    /// From here on faults are instruction `n`'s, and flags where they are now.
    fn start(&mut self, n: usize, rest: u16) {
        let (offset, delta) = (self.asm.here() as u32, self.block[n].delta);
        self.starts.push(Start { offset, delta, rest, saved: self.saved });
    }

    /// Flags have moved: notes it for faults behind this point.
    fn flags_moved(&mut self, saved: bool) {
        self.saved = saved;
        if let Some(last) = self.starts.last().copied() {
            self.starts.push(Start { offset: self.asm.here() as u32, saved, ..last });
        }
    }

    fn count(&mut self, n: usize) {
        self.asm.load(ADDRESS, COUNT);
        self.asm.lea(ADDRESS, ADDRESS, n as i32);
        self.asm.store(COUNT, ADDRESS);
    }

    /// Loads the vector registers if they are not in the host's, without touching flags.
    fn require_vectors(&mut self) {
        self.asm.mov(ADDRESS, RCX);
        self.asm.load_byte(RCX, VECTORS_OUT);
        let ready = self.asm.jrcxz();
        self.asm.mov(RCX, ADDRESS);
        // LEA ADDRESS, [RIP + 5]: the address behind the jump.
        self.asm.bytes(&[0x4c, 0x8d, 0x3d, 5, 0, 0, 0]);
        let jump = self.asm.jmp();
        self.loads.push(jump);
        // The loader comes back here with RCX intact in itself: keep both paths equal.
        self.asm.mov(ADDRESS, RCX);
        self.asm.short_here(ready);
        self.asm.mov(RCX, ADDRESS);
    }

    fn site(&mut self, site: Site) -> usize {
        self.sites.push(site);
        self.first_site + self.sites.len() - 1
    }

    fn stub_body(&mut self, site: usize, restore_flags: bool) {
        if restore_flags {
            self.restore_flags();
        }
        self.asm.store_imm(EXIT, site as u32);
        let jump = self.asm.jmp();
        self.leaves.push(jump);
    }

    /// RFLAGS to `Context::flags`. Clobbers SECOND.
    fn save_flags(&mut self) {
        self.asm.mov(SECOND, RAX);
        self.asm.flags_to_ax();
        self.asm.store_word(TMP_FLAGS, RAX);
        self.asm.mov(RAX, SECOND);
    }

    fn restore_flags(&mut self) {
        self.asm.mov(SECOND, RAX);
        self.asm.load_word(RAX, TMP_FLAGS);
        self.asm.flags_from_ax();
        self.asm.mov(RAX, SECOND);
    }

    /// Brings flags back into RFLAGS if they are `needed` there.
    fn settle_flags(&mut self, needed: bool) {
        if self.saved {
            if needed {
                self.restore_flags();
            }
            self.flags_moved(false);
        }
    }

    /// Leaves to the interpreter at instruction `n`, by a jump at `from`.
    fn interpret_from(&mut self, from: usize, n: usize, rest: u16) {
        let site = self.site(Site::Interpret { delta: self.block[n].delta, undone: rest });
        self.stubs.push(Stub { from: vec![from], restore_flags: self.saved, site });
    }

    /// Translates instruction `n`; false if it ends the block.
    fn instruction(&mut self, n: usize, rest: u16) -> Option<bool> {
        let g = &self.block[n];
        let flag_use = flow::flag_use(&g.i);
        match g.class {
            Class::Nop => {}
            Class::Plain => self.plain(n, flag_use),
            Class::Lea => self.lea(n)?,
            Class::Memory(operand) => self.memory(n, rest, operand, flag_use)?,
            Class::PushRegister | Class::PushImmediate => self.push(n, rest),
            Class::PushMemory => self.push_memory(n, rest)?,
            Class::Swapgs => self.swapgs(),
            Class::Cli => self.cli(n),
            Class::Sti => self.sti(n),
            Class::Rdtsc => self.rdtsc(n),
            Class::PopRegister => self.pop(n, rest),
            Class::Leave => self.leave(n, rest),
            Class::Jump => {
                self.settle_flags(g.live_after);
                self.direct(target(g), Some(n));
                return Some(false);
            }
            Class::Jcc(cc) => {
                self.jcc(n, cc);
                return Some(false);
            }
            Class::Call => {
                self.call(n, rest);
                return Some(false);
            }
            Class::Return(bytes) => {
                self.ret(n, rest, bytes);
                return Some(false);
            }
            Class::JumpRegister | Class::JumpMemory | Class::CallRegister | Class::CallMemory => {
                self.indirect(n, rest)?;
                return Some(false);
            }
            Class::Other => {
                self.settle_flags(true);
                let jump = self.asm.jmp();
                self.interpret_from(jump, n, rest);
                return Some(false);
            }
        }
        Some(true)
    }

    fn prepare_flags(&mut self, flag_use: FlagUse, live_after: bool) {
        match flag_use {
            FlagUse::Reads => self.settle_flags(true),
            FlagUse::Changes => self.settle_flags(live_after),
            FlagUse::Replaces => self.settle_flags(false),
            FlagUse::Leaves => {}
        }
    }

    fn plain(&mut self, n: usize, flag_use: FlagUse) {
        let g = &self.block[n];
        self.prepare_flags(flag_use, g.live_after);
        self.copied(n);
    }

    /// Emits instruction `n` as it is, with guest R13 to R15 in the registers of the same name.
    fn copied(&mut self, n: usize) {
        let g = &self.block[n];
        for r in registers(g.usage.gpr & 0xe000) {
            self.asm.load(r, home(r));
        }
        self.asm.bytes(&g.bytes[..g.i.len()]);
        for r in registers(g.usage.gpr_written & 0xe000) {
            self.asm.store(home(r), r);
        }
    }

    /// Loads a guest register that lives in the state into `scratch`, or gives the one that holds it.
    fn fetch(&mut self, register: u8, scratch: u8) -> u8 {
        if register >= 13 {
            self.asm.load(scratch, home(register));
            scratch
        } else {
            register
        }
    }

    /// The linear address of the memory operand into ADDRESS; flags untouched.
    fn address(&mut self, i: &Instruction, segment: bool) -> Option<()> {
        let displacement = i.memory_displacement64() as i64;
        if i.is_ip_rel_memory_operand() {
            // Decoded with IP = offset in the page: the displacement is relative to the page's start.
            self.asm.load(ADDRESS, PAGE);
            self.asm.lea(ADDRESS, ADDRESS, i32::try_from(displacement).ok()?);
        } else {
            let disp = i32::try_from(displacement).ok()?;
            let base = i.memory_base();
            let index = i.memory_index();
            match (base, index) {
                (Register::None, Register::None) => self.absolute(disp),
                (base, Register::None) => {
                    let b = self.fetch(base.number() as u8, ADDRESS);
                    self.asm.lea(ADDRESS, b, disp);
                }
                (base, index) => {
                    let scale = i.memory_index_scale().trailing_zeros() as u8;
                    let x = self.fetch(index.number() as u8, SECOND);
                    if base == Register::None {
                        self.absolute(disp);
                        self.asm.lea_index(ADDRESS, ADDRESS, x, scale);
                    } else {
                        let b = self.fetch(base.number() as u8, ADDRESS);
                        self.asm.lea_index(ADDRESS, b, x, scale);
                        if disp != 0 {
                            self.asm.lea(ADDRESS, ADDRESS, disp);
                        }
                    }
                }
            }
        }
        if segment {
            let base = match i.memory_segment() {
                Register::FS => Some(4),
                Register::GS => Some(5),
                _ => None,
            };
            if let Some(n) = base {
                let offset = STATE
                    + offset_of!(CpuState, seg)
                    + n * size_of::<Segment>()
                    + offset_of!(Segment, base);
                self.asm.load(SECOND, offset);
                self.asm.lea_index(ADDRESS, ADDRESS, SECOND, 0);
            }
        }
        Some(())
    }

    /// MOV ADDRESS, imm32 sign-extended.
    fn absolute(&mut self, value: i32) {
        self.asm.bytes(&[0x49, 0xc7, 0xc7]);
        self.asm.bytes(&value.to_le_bytes());
    }

    /// Checks `size` bytes at ADDRESS against the TLB and makes ADDRESS a host address. Flags are put by if `live`.
    fn check(&mut self, n: usize, rest: u16, size: u16, write: bool, live: bool) {
        if live && !self.saved {
            self.save_flags();
            self.flags_moved(true);
        }
        self.asm.mov(SECOND, ADDRESS);
        self.asm.shr(SECOND, 7);
        self.asm.and(SECOND, 0xffe0);
        self.asm.add_gs(SECOND, VIEW);
        self.asm.lea(THIRD, ADDRESS, i32::from(size) - 1);
        self.asm.and(THIRD, -4096);
        let tag = if write { offset_of!(Entry, wtag) } else { offset_of!(Entry, rtag) };
        self.asm.cmp_at(THIRD, SECOND, tag as i32);
        let miss = self.asm.jcc(5);
        self.interpret_from(miss, n, rest);
        self.asm.add_at(ADDRESS, SECOND, offset_of!(Entry, addend) as i32);
    }

    fn memory(
        &mut self,
        n: usize,
        rest: u16,
        operand: MemOperand,
        flag_use: FlagUse,
    ) -> Option<()> {
        let g = &self.block[n];
        if g.usage.high_byte {
            return self.give_up(n, rest);
        }
        self.address(&g.i, true)?;
        let needed = g.live_after && flag_use != FlagUse::Replaces || flag_use == FlagUse::Reads;
        self.check(n, rest, operand.size, operand.access.writes(), needed);
        self.prepare_flags(flag_use, g.live_after);
        self.rewritten(n)
    }

    /// Emits instruction `n` with its memory operand at [ADDRESS] and guest R13 to R15 in scratch registers.
    fn rewritten(&mut self, n: usize) -> Option<()> {
        let g = &self.block[n];
        let mut i = g.i;
        i.set_memory_base(Register::R15);
        i.set_memory_index(Register::None);
        i.set_memory_index_scale(1);
        i.set_memory_displacement64(0);
        i.set_memory_displ_size(0);
        i.set_segment_prefix(Register::None);
        let mut taken: Vec<(u8, u8)> = Vec::new();
        for k in 0..i.op_count() {
            if i.op_kind(k) != OpKind::Register {
                continue;
            }
            let register = i.op_register(k);
            if !register.is_gpr() || register.full_register().number() < 13 {
                continue;
            }
            let number = register.full_register().number() as u8;
            let known = taken.iter().find(|t| t.0 == number).map(|t| t.1);
            let scratch = known.or_else(|| {
                [THIRD, SECOND].into_iter().find(|s| taken.iter().all(|t| t.1 != *s))
            })?;
            if known.is_none() {
                taken.push((number, scratch));
            }
            i.set_op_register(k, sized(scratch, register.size()));
        }
        for &(number, scratch) in &taken {
            self.asm.load(scratch, home(number));
        }
        self.encode(&i)?;
        for &(number, scratch) in &taken {
            if g.usage.gpr_written & 1 << number != 0 {
                self.asm.store(home(number), scratch);
            }
        }
        Some(())
    }

    /// The instruction turns out not to be translatable here: leave it to the interpreter, and go on behind it never.
    fn give_up(&mut self, n: usize, rest: u16) -> Option<()> {
        self.settle_flags(true);
        let jump = self.asm.jmp();
        self.interpret_from(jump, n, rest);
        Some(())
    }

    fn lea(&mut self, n: usize) -> Option<()> {
        let i = &self.block[n].i;
        if !i.is_ip_rel_memory_operand() {
            self.copied(n);
            return Some(());
        }
        if i.memory_base() != Register::RIP {
            return None;
        }
        self.address(i, false)?;
        let to = i.op0_register();
        let number = to.full_register().number() as u8;
        let mut mov =
            Instruction::with2(mov_code(to.size()), to, sized(ADDRESS, to.size())).ok()?;
        if number < 13 {
            return self.encode(&mov);
        }
        if to.size() == 8 {
            self.asm.store(home(number), ADDRESS);
            return Some(());
        }
        // A narrower result keeps or clears the rest of the register: let a scratch register do it.
        self.asm.load(SECOND, home(number));
        mov.set_op_register(0, sized(SECOND, to.size()));
        self.encode(&mov)?;
        self.asm.store(home(number), SECOND);
        Some(())
    }

    fn encode(&mut self, i: &Instruction) -> Option<()> {
        let mut encoder = Encoder::new(64);
        encoder.encode(i, 0).ok()?;
        let bytes = encoder.take_buffer();
        self.asm.bytes(&bytes);
        Some(())
    }

    fn push(&mut self, n: usize, rest: u16) {
        let g = &self.block[n];
        self.asm.lea(ADDRESS, RSP, -8);
        self.check(n, rest, 8, true, g.live_after);
        if matches!(g.class, Class::PushImmediate) {
            self.asm.store_at_imm(ADDRESS, g.i.immediate(0) as i32);
        } else {
            let r = self.fetch(g.i.op0_register().number() as u8, SECOND);
            self.asm.store_at(ADDRESS, 0, r);
        }
        self.asm.lea(RSP, RSP, -8);
    }

    fn push_memory(&mut self, n: usize, rest: u16) -> Option<()> {
        let live = self.block[n].live_after;
        self.address(&self.block[n].i, true)?;
        self.check(n, rest, 8, false, live);
        self.asm.load_at(ADDRESS, ADDRESS, 0);
        self.asm.store(SCRATCH, ADDRESS);
        self.asm.lea(ADDRESS, RSP, -8);
        self.check(n, rest, 8, true, live);
        self.asm.load(SECOND, SCRATCH);
        self.asm.store_at(ADDRESS, 0, SECOND);
        self.asm.lea(RSP, RSP, -8);
        Some(())
    }

    fn swapgs(&mut self) {
        let base = STATE
            + offset_of!(CpuState, seg)
            + 5 * size_of::<Segment>()
            + offset_of!(Segment, base);
        let other =
            STATE + offset_of!(CpuState, msr) + offset_of!(x86::state::Msrs, kernel_gs_base);
        self.asm.load(ADDRESS, base);
        self.asm.load(SECOND, other);
        self.asm.store(base, SECOND);
        self.asm.store(other, ADDRESS);
    }

    /// Puts flags by if they are live, since what follows changes RFLAGS.
    fn flags_aside(&mut self, n: usize) {
        if self.block[n].live_after && !self.saved {
            self.save_flags();
            self.flags_moved(true);
        }
    }

    fn cli(&mut self, n: usize) {
        self.flags_aside(n);
        self.asm.alu_gs_imm(4, SYSTEM_FLAGS, !0x200);
    }

    /// An interrupt that waits already is the interpreter's to deliver, with the shadow; one that comes later is served at the next poll.
    fn sti(&mut self, n: usize) {
        self.poll();
        self.flags_aside(n);
        self.asm.alu_gs_imm(1, SYSTEM_FLAGS, 0x200);
    }

    fn rdtsc(&mut self, n: usize) {
        self.flags_aside(n);
        // rdtsc; shl rdx, 32; or rax, rdx; add rax, gs:[offset]; mov rdx, rax; shr rdx, 32; mov eax, eax
        self.asm.bytes(&[0x0f, 0x31, 0x48, 0xc1, 0xe2, 32, 0x48, 0x09, 0xd0]);
        self.asm.add_gs(RAX, STATE + offset_of!(CpuState, tsc_offset));
        self.asm.mov(2, RAX);
        self.asm.shr(2, 32);
        self.asm.bytes(&[0x89, 0xc0]);
    }

    fn pop(&mut self, n: usize, rest: u16) {
        let g = &self.block[n];
        self.asm.mov(ADDRESS, RSP);
        self.check(n, rest, 8, false, g.live_after);
        let to = g.i.op0_register().number() as u8;
        if to >= 13 {
            self.asm.load_at(SECOND, ADDRESS, 0);
            self.asm.store(home(to), SECOND);
        } else {
            self.asm.load_at(to, ADDRESS, 0);
        }
        self.asm.lea(RSP, RSP, 8);
    }

    fn leave(&mut self, n: usize, rest: u16) {
        const RBP: u8 = 5;
        self.asm.mov(ADDRESS, RBP);
        self.check(n, rest, 8, false, self.block[n].live_after);
        self.asm.lea(RSP, RBP, 8);
        self.asm.load_at(RBP, ADDRESS, 0);
    }

    /// Stops here if the machine wants the processor: faults on purpose, and the fault is at this instruction.
    fn poll(&mut self) {
        self.asm.load(THIRD, POLL);
        self.asm.load_at(THIRD, THIRD, 0);
        self.asm.load32_at(THIRD, THIRD, 0);
    }

    /// Goes to page + `to`: by a link on the same page, else through the table of targets. `from` is the branch that may close a
    /// loop, which has to poll; `None`: it has polled, or control only falls through.
    fn direct(&mut self, to: i32, from: Option<usize>) {
        if (0..4096).contains(&to) {
            if from.is_some_and(|n| to <= self.block[n].delta) {
                // Backwards: part of a loop.
                self.poll();
            }
            let place = self.asm.jmp();
            self.link(place, to);
            return;
        }
        if from.is_some() {
            self.poll();
        }
        self.asm.load(ADDRESS, PAGE);
        self.asm.lea(ADDRESS, ADDRESS, to);
        let site = self.site(Site::Here { delta: to });
        self.dispatch(0, site);
    }

    fn link(&mut self, place: usize, to: i32) {
        let site = self.site(Site::Link { place: place as u32, delta: to, vectors: self.vectors });
        self.stubs.push(Stub { from: vec![place], restore_flags: false, site });
    }

    /// Jumps to the guest address in ADDRESS if the table of targets knows it, after releasing `pop` bytes of stack; else leaves by `site`.
    fn dispatch(&mut self, pop: i32, site: usize) {
        self.asm.low_word(SECOND, ADDRESS);
        self.asm.lea_index(SECOND, SECOND, SECOND, 0);
        self.asm.load(THIRD, TARGETS);
        self.asm.lea_index(SECOND, THIRD, SECOND, 3);
        self.asm.load_at(THIRD, SECOND, 0);
        self.asm.lea_index(THIRD, THIRD, ADDRESS, 0);
        self.asm.xchg(THIRD, RCX);
        let hit = self.asm.jrcxz();
        self.asm.xchg(THIRD, RCX);
        let miss = self.asm.jmp();
        self.stubs.push(Stub { from: vec![miss], restore_flags: false, site });
        self.asm.short_here(hit);
        self.asm.mov(RCX, THIRD);
        if pop != 0 {
            self.asm.lea(RSP, RSP, pop);
        }
        self.asm.jmp_at(SECOND, 8);
    }

    fn jcc(&mut self, n: usize, cc: u8) {
        let g = &self.block[n];
        self.settle_flags(true);
        let to = target(g);
        let next = g.delta + g.i.len() as i32;
        if (0..4096).contains(&to) && to > g.delta {
            let place = self.asm.jcc(cc);
            self.link(place, to);
            self.direct(next, None);
            return;
        }
        let over = self.asm.jcc(cc ^ 1);
        self.direct(to, Some(n));
        self.asm.resolve_here(over);
        self.direct(next, None);
    }

    fn push_return(&mut self, n: usize, rest: u16) {
        let g = &self.block[n];
        self.asm.lea(ADDRESS, RSP, -8);
        self.check(n, rest, 8, true, g.live_after);
        self.asm.load(SECOND, PAGE);
        self.asm.lea(SECOND, SECOND, g.delta + g.i.len() as i32);
        self.asm.store_at(ADDRESS, 0, SECOND);
        self.settle_flags(g.live_after);
    }

    fn call(&mut self, n: usize, rest: u16) {
        let g = &self.block[n];
        let to = target(g);
        self.poll();
        self.push_return(n, rest);
        self.asm.lea(RSP, RSP, -8);
        self.direct(to, None);
    }

    fn ret(&mut self, n: usize, rest: u16, bytes: u16) {
        let g = &self.block[n];
        self.poll();
        self.asm.mov(ADDRESS, RSP);
        self.check(n, rest, 8, false, g.live_after);
        self.asm.load_at(ADDRESS, ADDRESS, 0);
        self.settle_flags(g.live_after);
        let site = self.site(Site::Interpret { delta: g.delta, undone: rest });
        self.dispatch(8 + i32::from(bytes), site);
    }

    fn indirect(&mut self, n: usize, rest: u16) -> Option<()> {
        let g = &self.block[n];
        self.poll();
        let call = matches!(g.class, Class::CallRegister | Class::CallMemory);
        if matches!(g.class, Class::JumpMemory | Class::CallMemory) {
            self.address(&g.i, true)?;
            self.check(n, rest, 8, false, g.live_after);
            self.asm.load_at(ADDRESS, ADDRESS, 0);
        } else {
            let r = self.fetch(g.i.op0_register().number() as u8, ADDRESS);
            if r != ADDRESS {
                self.asm.mov(ADDRESS, r);
            }
        }
        let site = self.site(Site::Interpret { delta: g.delta, undone: rest });
        if call {
            self.asm.store(SCRATCH, ADDRESS);
            self.push_return(n, rest);
            self.asm.load(ADDRESS, SCRATCH);
            self.dispatch(-8, site);
        } else {
            self.settle_flags(g.live_after);
            self.dispatch(0, site);
        }
        Some(())
    }
}

/// Target of a direct branch, from the page's start.
fn target(g: &Guest) -> i32 {
    g.i.near_branch_target() as i32
}

fn registers(mask: u16) -> impl Iterator<Item = u8> {
    (0..16).filter(move |r| mask & 1 << r != 0)
}

fn sized(number: u8, size: usize) -> Register {
    let n = u32::from(number);
    match size {
        1 => Register::R8L + (n - 8),
        2 => Register::AX + n,
        4 => Register::EAX + n,
        _ => Register::RAX + n,
    }
}

fn mov_code(size: usize) -> iced_x86::Code {
    match size {
        2 => iced_x86::Code::Mov_rm16_r16,
        4 => iced_x86::Code::Mov_rm32_r32,
        _ => iced_x86::Code::Mov_rm64_r64,
    }
}
