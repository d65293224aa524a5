//! Debug registers and breakpoints (SDM vol. 3, 18.2).
//!
//! MOV to and from the registers, and the matching of instruction, data and I/O breakpoints as pure
//! functions. RF, the order of a #DB among other events and the clearing of GD on delivery are the
//! callers'.

use crate::addr::{La, Port, PortWidth};
use crate::exception::Exception;
use crate::regs::Cr4;
use crate::state::CpuState;

/// DR6: debug-register access detected.
pub const BD: u64 = 1 << 13;
/// DR6: single step.
pub const BS: u64 = 1 << 14;
/// DR6: task switch.
pub const BT: u64 = 1 << 15;
/// DR7: general detect enable.
pub const GD: u64 = 1 << 13;

/// DR6's bits that software can set; B0 to B3, BD, BS, BT.
const DR6_WRITABLE: u64 = 0xe00f;
/// DR6's bits that read as one: there is neither RTM nor bus-lock detection, whose bits are
/// inverted.
const DR6_ONES: u64 = 0xffff_0ff0;
/// DR7's bits that software can set; bits 11 (RTM), 12, 14 and 15 read as zero.
const DR7_WRITABLE: u64 = 0xffff_23ff;
/// DR7's bit that reads as one.
const DR7_ONES: u64 = 0x400;

/// What a data access does, as DR7's R/W fields tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataAccess {
    /// A load.
    Read,
    /// A store.
    Write,
}

/// DR7's R/W field of breakpoint `n`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Execute,
    Write,
    Io,
    ReadWrite,
    /// I/O without CR4.DE.
    Undefined,
}

/// The register that `n` means: DR4 and DR5 are DR6 and DR7 unless CR4.DE is set.
fn resolve(state: &CpuState, n: u8) -> Result<u8, Exception> {
    match n {
        4 | 5 if state.paging.cr4.contains(Cr4::DE) => Err(Exception::ud()),
        4 | 5 => Ok(n + 2),
        0..=7 => Ok(n),
        _ => Err(Exception::ud()),
    }
}

/// What every MOV DR checks, in the processor's order: the register, CPL, general detect.
fn access(state: &CpuState, n: u8) -> Result<u8, Exception> {
    let n = resolve(state, n)?;
    if state.cpl != 0 {
        return Err(Exception::gp(0));
    }
    if state.dr.dr7 & GD != 0 {
        return Err(Exception::db(BD));
    }
    Ok(n)
}

/// MOV from DR`n`.
///
/// # Errors
/// #UD for DR4 and DR5 under CR4.DE and above DR7, #GP(0) above level 0, #DB with BD under DR7.GD.
pub fn read_dr(state: &CpuState, n: u8) -> Result<u64, Exception> {
    Ok(match access(state, n)? {
        6 => state.dr.dr6,
        7 => state.dr.dr7,
        n => state.dr.address[usize::from(n & 3)],
    })
}

/// MOV to DR`n`; outside 64-bit mode the caller zero-extends `value`.
///
/// # Errors
/// As [`read_dr`], and #GP(0) for an upper half other than zero in DR6 and DR7.
pub fn write_dr(state: &mut CpuState, n: u8, value: u64) -> Result<(), Exception> {
    let n = access(state, n)?;
    if n >= 6 && value >> 32 != 0 {
        return Err(Exception::gp(0));
    }
    match n {
        6 => state.dr.dr6 = value & DR6_WRITABLE | DR6_ONES,
        7 => state.dr.dr7 = value & DR7_WRITABLE | DR7_ONES,
        n => state.dr.address[usize::from(n & 3)] = value,
    }
    Ok(())
}

/// Whether any breakpoint is enabled: engines test this before asking further.
pub const fn armed(state: &CpuState) -> bool {
    state.dr.dr7 & 0xff != 0
}

/// Bit n: DRn is enabled, locally or globally.
pub const fn enabled_mask(state: &CpuState) -> u8 {
    let both = state.dr.dr7 | state.dr.dr7 >> 1;
    (both & 1 | both >> 1 & 2 | both >> 2 & 4 | both >> 3 & 8) as u8
}

const fn condition(state: &CpuState, n: u32) -> Condition {
    match state.dr.dr7 >> (16 + 4 * n) & 3 {
        0 => Condition::Execute,
        1 => Condition::Write,
        2 if state.paging.cr4.contains(Cr4::DE) => Condition::Io,
        2 => Condition::Undefined,
        _ => Condition::ReadWrite,
    }
}

/// Bit n: DRn is an enabled instruction breakpoint.
pub const fn code_mask(state: &CpuState) -> u8 {
    let (mut mask, mut n) = (0, 0);
    while n < 4 {
        if matches!(condition(state, n), Condition::Execute) {
            mask |= 1 << n;
        }
        n += 1;
    }
    mask & enabled_mask(state)
}

/// Bit n: DRn is an enabled data or I/O breakpoint.
pub const fn data_mask(state: &CpuState) -> u8 {
    let (mut mask, mut n) = (0, 0);
    while n < 4 {
        if !matches!(condition(state, n), Condition::Execute | Condition::Undefined) {
            mask |= 1 << n;
        }
        n += 1;
    }
    mask & enabled_mask(state)
}

/// The DR6 bits of the #DB fault before the instruction at linear address `la`, or `None`.
///
/// The caller asks only while RFLAGS.RF is clear.
pub fn code_breakpoint(state: &CpuState, la: La) -> Option<u64> {
    let mask = code_mask(state);
    hits((0..4).filter(|&n| mask >> n & 1 != 0 && state.dr.address[n] == la.0))
}

/// The DR6 bits of the #DB trap after an access of `len` bytes at `la`, or `None`.
pub fn data_breakpoint(state: &CpuState, la: La, len: u64, access: DataAccess) -> Option<u64> {
    trap(state, la.0, len, |condition| watches(condition, access))
}

/// The DR6 bits of the #DB trap after IN, OUT, INS or OUTS of `port`, or `None`.
pub fn port_breakpoint(state: &CpuState, port: Port, width: PortWidth) -> Option<u64> {
    trap(state, port.0.into(), width.into(), |condition| condition == Condition::Io)
}

/// The DR6 bits for an access of `len` bytes, or ports, from `first` on.
fn trap(
    state: &CpuState,
    first: u64,
    len: u64,
    watches: impl Fn(Condition) -> bool,
) -> Option<u64> {
    let mask = data_mask(state);
    if mask == 0 || len == 0 {
        return None;
    }
    hits((0..4).filter(|&n| {
        mask >> n & 1 != 0 && watches(condition(state, n as u32)) && {
            let (start, size) = watched(state, n);
            // Either begins inside the other; wrapping differences need no care at the ends of
            // memory.
            first.wrapping_sub(start) < size || start.wrapping_sub(first) < len
        }
    }))
}

fn watches(condition: Condition, access: DataAccess) -> bool {
    match access {
        DataAccess::Read => condition == Condition::ReadWrite,
        DataAccess::Write => matches!(condition, Condition::Write | Condition::ReadWrite),
    }
}

/// First byte and length of what DRn watches: the address is aligned down to the length (18.2.5).
fn watched(state: &CpuState, n: usize) -> (u64, u64) {
    let size = match state.dr.dr7 >> (18 + 4 * n) & 3 {
        0 => 1,
        1 => 2,
        2 => 8,
        _ => 4,
    };
    (state.dr.address[n] & !(size - 1), size)
}

fn hits(numbers: impl Iterator<Item = usize>) -> Option<u64> {
    let bits = numbers.fold(0, |bits, n| bits | 1 << n);
    (bits != 0).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dr7: u64, addresses: [u64; 4]) -> CpuState {
        let mut state = CpuState::reset();
        state.dr.dr7 = dr7;
        state.dr.address = addresses;
        state
    }

    #[test]
    fn fixed_bits() {
        let mut s = CpuState::reset();
        write_dr(&mut s, 6, 0).unwrap();
        write_dr(&mut s, 7, 0).unwrap();
        assert_eq!((read_dr(&s, 6), read_dr(&s, 7)), (Ok(0xffff_0ff0), Ok(0x400)));
        write_dr(&mut s, 6, 0xffff_ffff).unwrap();
        assert_eq!(read_dr(&s, 6), Ok(0xffff_efff));
        // All but GD, which would close the registers.
        write_dr(&mut s, 7, 0xffff_dfff).unwrap();
        assert_eq!(read_dr(&s, 7), Ok(0xffff_07ff));
        for n in [6, 7] {
            assert_eq!(write_dr(&mut s, n, 1 << 32), Err(Exception::gp(0)));
        }
        // Addresses are not checked.
        write_dr(&mut s, 3, 0x8000_0000_0000_0000).unwrap();
        assert_eq!(read_dr(&s, 3), Ok(0x8000_0000_0000_0000));
    }

    #[test]
    fn aliases() {
        let mut s = CpuState::reset();
        write_dr(&mut s, 5, 0x401).unwrap();
        assert_eq!(read_dr(&s, 7), Ok(0x401));
        assert_eq!(read_dr(&s, 4), read_dr(&s, 6));
        s.paging.cr4 |= Cr4::DE;
        assert_eq!(read_dr(&s, 4), Err(Exception::ud()));
        assert_eq!(write_dr(&mut s, 5, 0), Err(Exception::ud()));
        assert_eq!(read_dr(&s, 8), Err(Exception::ud()));
    }

    #[test]
    fn privilege_before_general_detect() {
        let mut s = state(0x400 | GD, [0; 4]);
        assert_eq!(read_dr(&s, 0), Err(Exception::db(BD)));
        assert_eq!(write_dr(&mut s, 7, 0x400), Err(Exception::db(BD)));
        s.cpl = 3;
        assert_eq!(read_dr(&s, 0), Err(Exception::gp(0)));
        s.paging.cr4 |= Cr4::DE;
        assert_eq!(read_dr(&s, 4), Err(Exception::ud()));
    }

    #[test]
    fn masks() {
        // L0, G2, L3; R/W0 = execute, R/W2 = write, R/W3 = I/O.
        let mut s = state(1 | 1 << 5 | 1 << 6 | 1 << 24 | 2 << 28, [0; 4]);
        assert_eq!(enabled_mask(&s), 0b1101);
        assert_eq!(code_mask(&s), 0b0001);
        assert_eq!(data_mask(&s), 0b0100);
        s.paging.cr4 |= Cr4::DE;
        assert_eq!(data_mask(&s), 0b1100);
        assert!(armed(&s) && !armed(&CpuState::reset()));
    }

    #[test]
    fn instruction_breakpoints() {
        // Both 0 and 1 at the same address, 2 disabled.
        let s = state(1 | 1 << 3, [0x1000, 0x1000, 0x2000, 0]);
        assert_eq!(code_breakpoint(&s, La(0x1000)), Some(0b11));
        assert_eq!(code_breakpoint(&s, La(0x1001)), None);
        assert_eq!(code_breakpoint(&s, La(0x2000)), None);
        assert_eq!(data_breakpoint(&s, La(0x1000), 1, DataAccess::Read), None);
    }

    #[test]
    fn data_breakpoints_by_length_and_kind() {
        // SDM vol. 3, 18.2.5, table of examples: DR0 A0001H read/write 1 byte, DR1 A0002H write 1
        // byte, DR2 B0002H read/write 2 bytes, DR3 C0000H write 4 bytes.
        let rw = 3 << 16 | 1 << 20 | 3 << 24 | 1 << 28;
        let len = 1 << 26 | 3 << 30;
        let s = state(0x55 | rw | len, [0xa0001, 0xa0002, 0xb0002, 0xc0000]);
        let read = |la, len| data_breakpoint(&s, la, len, DataAccess::Read);
        let write = |la, len| data_breakpoint(&s, la, len, DataAccess::Write);
        assert_eq!(read(La(0xa0001), 1), Some(1));
        assert_eq!(write(La(0xa0001), 1), Some(1));
        assert_eq!(write(La(0xa0001), 2), Some(3));
        assert_eq!(write(La(0xa0002), 1), Some(2));
        assert_eq!(read(La(0xa0002), 1), None);
        assert_eq!(write(La(0xa0002), 2), Some(2));
        assert_eq!(read(La(0xb0001), 4), Some(4));
        assert_eq!(read(La(0xb0002), 1), Some(4));
        assert_eq!(read(La(0xb0002), 2), Some(4));
        assert_eq!(write(La(0xb0002), 2), Some(4));
        assert_eq!(write(La(0xc0000), 4), Some(8));
        assert_eq!(write(La(0xc0001), 2), Some(8));
        assert_eq!(write(La(0xc0003), 1), Some(8));
        assert_eq!(read(La(0xc0000), 4), None);
        assert_eq!(write(La(0xc0004), 4), None);
        assert_eq!(read(La(0xa0000), 1), None);
        assert_eq!(read(La(0xb0000), 2), None);
        assert_eq!(read(La(0xb0004), 4), None);
    }

    #[test]
    fn eight_bytes_are_aligned_down() {
        let s = state(2 | 3 << 16 | 2 << 18, [0x1005, 0, 0, 0]);
        assert_eq!(data_breakpoint(&s, La(0x1000), 1, DataAccess::Read), Some(1));
        assert_eq!(data_breakpoint(&s, La(0x1008), 8, DataAccess::Read), None);
        assert_eq!(data_breakpoint(&s, La(0xffc), 4, DataAccess::Read), None);
        assert_eq!(data_breakpoint(&s, La(0xffc), 16, DataAccess::Read), Some(1));
    }

    #[test]
    fn ports() {
        let mut s = state(1 | 2 << 16 | 1 << 18, [0x60, 0, 0, 0]);
        assert_eq!(port_breakpoint(&s, Port(0x60), PortWidth::B1), None);
        s.paging.cr4 |= Cr4::DE;
        assert_eq!(port_breakpoint(&s, Port(0x61), PortWidth::B1), Some(1));
        assert_eq!(port_breakpoint(&s, Port(0x5f), PortWidth::B1), None);
        assert_eq!(port_breakpoint(&s, Port(0x5f), PortWidth::B2), Some(1));
        assert_eq!(data_breakpoint(&s, La(0x60), 1, DataAccess::Write), None);
    }
}
