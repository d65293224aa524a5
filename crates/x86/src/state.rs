//! The state of one virtual processor: the VCPU of the textbook.
//!
//! [`CpuState`] keeps everything that software can observe of a processor. Its layout is fixed
//! (`repr(C)`), hot fields first, because translated code addresses it directly. For that alone
//! there are two slots behind the general registers ([`gpr::ZERO`], [`gpr::BLOCK_IP`]): they are no
//! state, and nothing saves them.

use crate::regs::{Cr0, Cr4, Efer, Rflags};

/// General register numbers as instructions encode them.
pub mod gpr {
    #![allow(missing_docs)]
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    /// Number of general registers.
    pub const COUNT: usize = 16;
    /// Slot 16 is always zero: an address without base or index needs no branch.
    pub const ZERO: usize = 16;
    /// Slot 17 belongs to the engine: the RIP at which the running block begins.
    pub const BLOCK_IP: usize = 17;
    /// Length of the register file.
    pub const SLOTS: usize = 18;
    /// Names in encoding order.
    pub const NAMES: [&str; COUNT] = [
        "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12",
        "R13", "R14", "R15",
    ];
}

/// Segment register numbers as instructions encode them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Seg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

/// A segment register with its descriptor cache (SDM vol. 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Base linear address.
    pub base: u64,
    /// Limit in bytes, granularity applied (the last valid offset).
    pub limit: u32,
    /// The visible selector.
    pub selector: u16,
    /// Access rights as bits 8 to 23 of a descriptor's second word, moved down by 8: type 0–3, S 4,
    /// DPL 5–6, P 7, AVL 12, L 13, D/B 14, G 15.
    pub access: u16,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TableRegister {
    /// Base linear address.
    pub base: u64,
    /// The last valid offset.
    pub limit: u16,
}

/// RFLAGS, its six status flags kept as LAHF and SETO leave them in AX.
///
/// An engine that lets the host's ALU compute flags stores AX with one move. The architectural
/// image is assembled only where it is needed (PUSHF, an interrupt).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Flags {
    /// Bits 8–15: SF:ZF:0:AF:0:PF:1:CF, as LAHF gives them. Bit 0: OF.
    pub arith: u16,
    /// All other bits of RFLAGS; the six status bits are zero here.
    pub system: u64,
}

impl Flags {
    /// From the architectural image. Bit 1 is forced to one.
    pub const fn from_bits(bits: u64) -> Self {
        let low = (bits & 0xd5) | 2;
        let of = (bits >> 11) & 1;
        Self { arith: ((low << 8) | of) as u16, system: (bits & !Rflags::ARITH.bits()) | 2 }
    }

    /// The architectural image.
    pub const fn bits(self) -> u64 {
        let low = (self.arith >> 8) as u64 & 0xd5;
        let of = (self.arith & 1) as u64;
        self.system | low | (of << 11)
    }

    /// Whether any bit of `flag` is set.
    pub const fn has(self, flag: Rflags) -> bool {
        self.bits() & flag.bits() != 0
    }

    /// Sets or clears the bits of `flag`.
    pub const fn set(&mut self, flag: Rflags, on: bool) {
        let bits = self.bits();
        *self = Self::from_bits(if on { bits | flag.bits() } else { bits & !flag.bits() });
    }
}

impl core::fmt::Debug for Flags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x} {:?}", self.bits(), Rflags::from_bits_truncate(self.bits()))
    }
}

/// One 256-bit vector register; its low half is the XMM register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Ymm(pub [u8; 32]);

/// The x87 unit, in FXSAVE's 64-bit form without the XMM part (SDM vol. 1, table 10-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct X87 {
    /// Control word.
    pub fcw: u16,
    /// Status word, TOP in bits 11–13.
    pub fsw: u16,
    /// Abridged tag word: bit n set if physical register n is in use.
    pub ftw: u8,
    /// Reserved.
    pub reserved: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction pointer, offset.
    pub fip: u64,
    /// Last data pointer, offset.
    pub fdp: u64,
    /// MXCSR, the SSE control and status register.
    pub mxcsr: u32,
    /// The bits of MXCSR that may be set.
    pub mxcsr_mask: u32,
    /// ST(0) to ST(7), each 80 bits in 16 bytes; MMn aliases physical register n.
    pub st: [[u8; 16]; 8],
    /// Selector of the last instruction pointer.
    pub fcs: u16,
    /// Selector of the last data pointer.
    pub fds: u16,
}

impl Default for X87 {
    fn default() -> Self {
        Self {
            fcw: 0x37f,
            fsw: 0,
            ftw: 0,
            reserved: 0,
            fop: 0,
            fip: 0,
            fdp: 0,
            mxcsr: 0x1f80,
            mxcsr_mask: 0xffff,
            st: [[0; 16]; 8],
            fcs: 0,
            fds: 0,
        }
    }
}

/// The registers that decide how a linear address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PagingState {
    /// CR0.
    pub cr0: Cr0,
    /// CR3: physical address of the page table, PCID or cache bits below, never bit 63.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// PKRU: access-disable and write-disable bits of the 16 protection keys.
    pub pkru: u32,
    /// The four PDPTEs loaded with CR3 under PAE paging.
    pub pdpte: [u64; 4],
}

/// The debug registers (SDM vol. 3, 18.2). DR4 and DR5 are aliases, not state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DebugRegisters {
    /// DR0 to DR3, linear addresses.
    pub address: [u64; 4],
    /// Status.
    pub dr6: u64,
    /// Control.
    pub dr7: u64,
}

/// Model-specific registers that hold state (the APIC's are its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // each is the manual's MSR of that name
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    pub misc_enable: u64,
    pub spec_ctrl: u64,
    pub xss: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_variable: [u64; 16],
    pub mcg_status: u64,
    pub feature_control: u64,
    pub debugctl: u64,
}

/// What the processor is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Running,
    /// In HLT, until an interrupt.
    Halted,
    /// After INIT, until a start-up IPI.
    WaitForSipi,
    /// After a triple fault.
    Shutdown,
}

/// What holds events back for the moment (SDM vol. 3, 6.8.3 and 6.7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Blocking {
    /// The instruction after STI: no maskable interrupt before it has completed.
    pub sti: bool,
    /// The instruction after MOV SS or POP SS: no interrupt and no debug trap before it has
    /// completed.
    pub mov_ss: bool,
    /// Between an NMI and the next IRET.
    pub nmi: bool,
}

/// Everything software can observe of one processor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CpuState {
    /// RAX to R15 in encoding order, then the two slots described in [`gpr`].
    pub gpr: [u64; gpr::SLOTS],
    /// The next instruction (or, while one is being interpreted, that instruction).
    pub rip: u64,
    /// RFLAGS.
    pub flags: Flags,
    /// ES, CS, SS, DS, FS, GS. In 64-bit mode the bases of all but FS and GS are ignored, not
    /// cleared.
    pub seg: [Segment; 6],
    /// The current privilege level. Equals SS.DPL outside real mode, but has a life of its own.
    pub cpl: u8,
    /// Interrupt shadows and NMI blocking.
    pub blocking: Blocking,
    /// Running, halted, waiting, shut down.
    pub activity: Activity,
    /// CR0, CR3, CR4, EFER, PKRU.
    pub paging: PagingState,
    /// CR2: the last page fault's address.
    pub cr2: u64,
    /// XCR0: the extended states enabled.
    pub xcr0: u64,
    /// YMM0 to YMM15.
    pub ymm: [Ymm; 16],
    /// x87 and MXCSR.
    pub x87: X87,
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Debug registers.
    pub dr: DebugRegisters,
    /// Model-specific registers.
    pub msr: Msrs,
    /// Guest TSC minus host TSC.
    pub tsc_offset: u64,
}

impl Default for CpuState {
    fn default() -> Self {
        Self::reset()
    }
}

impl CpuState {
    /// The state after power-up or RESET (SDM vol. 3, table 10-1), DX naming the processor family.
    pub fn reset() -> Self {
        let data = Segment { base: 0, limit: 0xffff, selector: 0, access: 0x93 };
        let code = Segment { base: 0xffff_0000, limit: 0xffff, selector: 0xf000, access: 0x9b };
        let mut gprs = [0; gpr::SLOTS];
        gprs[gpr::RDX] = 0x600;
        Self {
            gpr: gprs,
            rip: 0xfff0,
            flags: Flags::from_bits(2),
            seg: [data, code, data, data, data, data],
            cpl: 0,
            blocking: Blocking::default(),
            activity: Activity::Running,
            paging: PagingState {
                cr0: Cr0::from_bits_retain(0x6000_0010),
                cr3: 0,
                cr4: Cr4::empty(),
                efer: Efer::empty(),
                pkru: 0,
                pdpte: [0; 4],
            },
            cr2: 0,
            xcr0: 1,
            ymm: [Ymm::default(); 16],
            x87: X87 { fcw: 0x40, ftw: 0xff, ..X87::default() },
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            ldtr: Segment { base: 0, limit: 0xffff, selector: 0, access: 0x82 },
            tr: Segment { base: 0, limit: 0xffff, selector: 0, access: 0x8b },
            dr: DebugRegisters { address: [0; 4], dr6: 0xffff_0ff0, dr7: 0x400 },
            msr: Msrs::reset(),
            tsc_offset: 0,
        }
    }
}

impl Msrs {
    /// The values after RESET.
    pub const fn reset() -> Self {
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: 0x0007_0406_0007_0406,
            tsc_aux: 0,
            tsc_adjust: 0,
            misc_enable: 1,
            spec_ctrl: 0,
            xss: 0,
            mtrr_def_type: 0,
            mtrr_fixed: [0; 11],
            mtrr_variable: [0; 16],
            mcg_status: 0,
            feature_control: 1,
            debugctl: 0,
        }
    }
}

/// The execution mode that instructions are decoded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Real mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected or compatibility mode, 16-bit code segment.
    Protected16,
    /// Protected or compatibility mode, 32-bit code segment.
    Protected32,
    /// 64-bit mode.
    Long64,
}

impl CpuState {
    /// Whether IA-32e mode is active (64-bit or compatibility).
    pub const fn long_mode(&self) -> bool {
        self.paging.efer.contains(Efer::LMA)
    }

    /// The mode that the current code segment and control registers select (SDM vol. 3, 2.2).
    pub const fn mode(&self) -> Mode {
        let cs = self.seg[Seg::Cs as usize];
        if !self.paging.cr0.contains(Cr0::PE) {
            Mode::Real
        } else if self.long_mode() && cs.access & Segment::L != 0 {
            Mode::Long64
        } else if self.flags.system & Rflags::VM.bits() != 0 {
            Mode::Virtual8086
        } else if cs.access & Segment::DB != 0 {
            Mode::Protected32
        } else {
            Mode::Protected16
        }
    }
}

impl Segment {
    /// Present.
    pub const P: u16 = 1 << 7;
    /// Code or data rather than system.
    pub const S: u16 = 1 << 4;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// Default operation size, or big stack.
    pub const DB: u16 = 1 << 14;
    /// Granularity.
    pub const G: u16 = 1 << 15;

    /// Type field, bits 0–3.
    pub const fn kind(self) -> u8 {
        (self.access & 0xf) as u8
    }

    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        ((self.access >> 5) & 3) as u8
    }

    /// Present bit.
    pub const fn present(self) -> bool {
        self.access & Self::P != 0
    }
}
