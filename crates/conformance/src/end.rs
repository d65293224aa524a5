//! How a case ended, and what its checks can ask about it.

use crate::guest::Guest;
use crate::io::TestIo;
use crate::layout::STUBS;
use memory::GuestRam;
use std::fmt;
use vcpu::Exit;
use x86::addr::Gpa;
use x86::state::{CpuState, Mode, Seg, gpr};

/// The final state.
pub(crate) struct End {
    pub(crate) state: CpuState,
    pub(crate) exit: Exit,
    pub(crate) reports: Vec<u8>,
    pub(crate) priority: u8,
    pub(crate) ram: GuestRam,
    /// The vector whose stub halted, and what was pushed for it.
    pub(crate) frame: Option<(u8, Frame)>,
}

/// What the delivery of an event pushed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) code: Option<u64>,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) flags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// Vectors that push an error code (SDM vol. 3, table 6-1).
const WITH_CODE: [u8; 7] = [8, 10, 11, 12, 13, 14, 17];

impl End {
    pub(crate) fn new(guest: &Guest, state: CpuState, exit: Exit, io: TestIo) -> Self {
        let mut end = Self {
            state,
            exit,
            reports: io.reports,
            priority: io.priority,
            ram: guest.ram.clone(),
            frame: None,
        };
        end.frame = end.vector().map(|v| (v, end.read_frame(v)));
        end
    }

    /// Linear address of the next instruction.
    pub(crate) fn ip(&self) -> u64 {
        match self.state.mode() {
            Mode::Long64 => self.state.rip,
            _ => self.state.seg[Seg::Cs as usize].base.wrapping_add(self.state.rip),
        }
    }

    fn vector(&self) -> Option<u8> {
        let offset = self.ip().checked_sub(STUBS)?.checked_sub(1)?;
        let halted = matches!(self.exit, Exit::Halted(_)) && offset % 16 == 0;
        u8::try_from(offset / 16).ok().filter(|_| halted)
    }

    fn read_frame(&self, vector: u8) -> Frame {
        let (size, codes) = match self.state.mode() {
            Mode::Long64 => (8, true),
            Mode::Protected32 => (4, true),
            Mode::Protected16 => (2, true),
            Mode::Real | Mode::Virtual8086 => (2, false),
        };
        let ss = self.state.seg[Seg::Ss as usize];
        let base = if size == 8 { 0 } else { ss.base };
        let top = if size == 2 { self.reg(gpr::RSP) & 0xffff } else { self.reg(gpr::RSP) };
        let word = |n: u64| self.mem(base + top + n * size, size as u8);
        let code = (codes && WITH_CODE.contains(&vector)).then(|| word(0));
        let first = u64::from(code.is_some());
        let [rip, cs, flags, rsp, ss] = [0, 1, 2, 3, 4].map(|n| word(first + n));
        Frame { code, rip, cs: cs & 0xffff, flags, rsp, ss: ss & 0xffff }
    }

    /// A general register.
    pub(crate) fn reg(&self, n: usize) -> u64 {
        self.state.gpr[n]
    }

    /// `size` bytes of guest-physical memory, zero-extended; zero outside RAM.
    pub(crate) fn mem(&self, gpa: u64, size: u8) -> u64 {
        let mut bytes = [0; 8];
        let len = usize::from(size.min(8));
        match self.ram.read(Gpa(gpa), &mut bytes[..len]) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        }
    }

    /// Eight bytes of memory.
    pub(crate) fn u64(&self, gpa: u64) -> u64 {
        self.mem(gpa, 8)
    }

    /// What was pushed; zeros if no stub halted.
    pub(crate) fn pushed(&self) -> Frame {
        self.frame.map_or_else(Frame::default, |f| f.1)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.state;
        writeln!(
            f,
            "  ended: {:?} in {:?} at {:#x}, CPL {}",
            self.exit,
            s.mode(),
            self.ip(),
            s.cpl
        )?;
        if let Some((vector, frame)) = self.frame {
            writeln!(f, "  delivered: vector {vector:#x} {frame:x?}")?;
        }
        writeln!(
            f,
            "  flags {:?}, CR0 {:#x}, CR2 {:#x}, CR3 {:#x}, CR4 {:#x}, EFER {:#x}, DR6 {:#x}",
            s.flags,
            s.paging.cr0.bits(),
            s.cr2,
            s.paging.cr3,
            s.paging.cr4.bits(),
            s.paging.efer.bits(),
            s.dr.dr6
        )?;
        writeln!(f, "  gpr {:x?}", &s.gpr[..gpr::COUNT])?;
        write!(f, "  reports {:x?}", self.reports)
    }
}
