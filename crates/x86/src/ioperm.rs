//! Who may use which I/O port (SDM vol. 1, 19.5).
//!
//! Real mode and CPL ≤ IOPL: everybody. Otherwise, and always in virtual-8086 mode, the permission
//! bitmap of the current TSS decides, a set bit meaning no.

use crate::addr::{La, Port, PortWidth, Width};
use crate::bus::{Privilege, SystemBus};
use crate::exception::Exception;
use crate::flags::iopl;
use crate::regs::{Cr0, Rflags};
use crate::state::CpuState;

/// Offset in a 32-bit or 64-bit TSS of the 16-bit offset of the bitmap.
const IO_MAP_BASE: u64 = 102;
const GP: Exception = Exception::gp(0);

/// Checks an access of `size` bytes (1, 2, 4) to `port`: IN, OUT, INS, OUTS.
///
/// # Errors
/// #GP(0) if the bitmap forbids one of the ports or does not reach that far, and if TR names no
/// 32-bit or 64-bit TSS; whatever reading the TSS raises.
pub fn check<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    port: Port,
    width: PortWidth,
) -> Result<(), Exception> {
    let vm86 = state.flags.has(Rflags::VM);
    if !state.paging.cr0.contains(Cr0::PE) || (!vm86 && state.cpl <= iopl(state)) {
        return Ok(());
    }
    let map = read_u16(state, bus, IO_MAP_BASE)?;
    // The processor reads two bytes whatever the size; a byte of ones closes the map for that.
    let bits = read_u16(state, bus, map + u64::from(port.0 >> 3))?;
    let wanted = ((1 << width.bytes()) - 1) << (port.0 & 7);
    if bits & wanted == 0 { Ok(()) } else { Err(GP) }
}

/// Two bytes of the current TSS.
fn read_u16<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    offset: u64,
) -> Result<u64, Exception> {
    let tss = state.tr;
    let wide = matches!(tss.kind(), 9 | 11);
    if !wide || !tss.present() || offset + 1 > u64::from(tss.limit) {
        return Err(GP);
    }
    bus.read(La(tss.base.wrapping_add(offset)), Width::B2, Privilege::Implicit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Flags, Segment};
    use crate::test_bus::FlatBus;

    /// Level 3, IOPL 0, a TSS at 100H whose bitmap begins at its offset 104 and forbids port 41H
    /// and 60H.
    fn setup() -> (CpuState, FlatBus) {
        let mut s = CpuState::reset();
        s.paging.cr0 |= Cr0::PE;
        s.cpl = 3;
        s.tr = Segment { base: 0x100, limit: 104 + 16, selector: 8, access: 0x8b };
        let mut bus = FlatBus::new(0x400);
        bus.put(0x100 + 102, &[104, 0]);
        bus.memory[0x100 + 104 + 8] = 1 << 1;
        bus.memory[0x100 + 104 + 12] = 1;
        (s, bus)
    }

    #[test]
    fn the_bitmap_decides_for_each_byte_of_the_access() {
        let (s, mut bus) = setup();
        let mut ask = |port, size| check(&s, &mut bus, port, size).is_ok();
        assert!(
            ask(Port(0x40), PortWidth::B1)
                && !ask(Port(0x41), PortWidth::B1)
                && ask(Port(0x42), PortWidth::B1)
        );
        assert!(!ask(Port(0x40), PortWidth::B2) && ask(Port(0x42), PortWidth::B2));
        assert!(!ask(Port(0x3e), PortWidth::B4) && ask(Port(0x3d), PortWidth::B4));
        // Across a byte of the map.
        assert!(!ask(Port(0x5f), PortWidth::B2) && ask(Port(0x5f), PortWidth::B1));
        assert_eq!(bus.privilege, Some(Privilege::Implicit));
    }

    #[test]
    fn two_bytes_must_lie_within_the_limit() {
        let (mut s, mut bus) = setup();
        // Offsets 119 and 120 are read for ports 78H–7FH; the limit is 120.
        assert_eq!(check(&s, &mut bus, Port(0x78), PortWidth::B1), Ok(()));
        assert_eq!(check(&s, &mut bus, Port(0x80), PortWidth::B1), Err(GP));
        assert_eq!(check(&s, &mut bus, Port(0xffff), PortWidth::B1), Err(GP));
        // No room for the offset itself.
        s.tr.limit = 102;
        assert_eq!(check(&s, &mut bus, Port(0x42), PortWidth::B1), Err(GP));
    }

    #[test]
    fn iopl_real_mode_and_virtual_8086_mode() {
        let (mut s, mut bus) = setup();
        s.flags = Flags::from_bits(0x3002);
        assert_eq!(check(&s, &mut bus, Port(0x41), PortWidth::B1), Ok(()));
        s.flags = Flags::from_bits(0x2_3002);
        assert_eq!(check(&s, &mut bus, Port(0x41), PortWidth::B1), Err(GP));
        assert_eq!(check(&s, &mut bus, Port(0x40), PortWidth::B1), Ok(()));
        assert_eq!(check(&CpuState::reset(), &mut bus, Port(0x41), PortWidth::B1), Ok(()));
    }

    #[test]
    fn a_16_bit_tss_has_no_bitmap() {
        let (mut s, mut bus) = setup();
        s.tr.access = 0x83;
        assert_eq!(check(&s, &mut bus, Port(0x40), PortWidth::B1), Err(GP));
    }
}
