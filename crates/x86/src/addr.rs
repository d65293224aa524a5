//! Addresses and numbers that must not be mixed: guest-physical and linear addresses, I/O ports,
//! vectors, interrupt lines, processors, and the width of one access.
//!
//! Each is one integer, transparently: nothing is slower or larger for it. The integer is public.
//! To build one from an integer, or to take the integer out, says that the kind is known here.
//! Arithmetic on addresses says what happens at the end of the address space: it is checked, or it
//! wraps.

use crate::vectors;
use core::fmt;

/// Bytes of the smallest page.
const PAGE_SIZE: u64 = 0x1000;

macro_rules! address {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on; `None` beyond the last address.
            #[inline]
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The address `bytes` before; `None` below address 0.
            #[inline]
            #[must_use]
            pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(difference) => Some(Self(difference)),
                    None => None,
                }
            }

            /// The address `bytes` further on, modulo 2⁶⁴.
            #[inline]
            #[must_use]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// The address `bytes` before, modulo 2⁶⁴.
            #[inline]
            #[must_use]
            pub const fn wrapping_sub(self, bytes: u64) -> Self {
                Self(self.0.wrapping_sub(bytes))
            }

            /// The address `bytes` further on, the last address at the most.
            #[inline]
            #[must_use]
            pub const fn saturating_add(self, bytes: u64) -> Self {
                Self(self.0.saturating_add(bytes))
            }

            /// Bytes from `base` up to this address; `None` if it lies below `base`.
            #[inline]
            #[must_use]
            pub const fn checked_distance(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// Bytes from `base` up to this address, modulo 2⁶⁴.
            #[inline]
            #[must_use]
            pub const fn wrapping_distance(self, base: Self) -> u64 {
                self.0.wrapping_sub(base.0)
            }

            /// The first byte of this address's 4-KiB page.
            #[inline]
            #[must_use]
            pub const fn page(self) -> Self {
                self.align_down(PAGE_SIZE)
            }

            /// Bytes from the beginning of this address's 4-KiB page.
            #[inline]
            #[must_use]
            pub const fn offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// The next multiple of `alignment` (a power of two) at or below this address.
            #[inline]
            #[must_use]
            pub const fn align_down(self, alignment: u64) -> Self {
                Self(self.0 & !(alignment - 1))
            }

            /// Whether this is a multiple of `alignment` (a power of two).
            #[inline]
            #[must_use]
            pub const fn is_aligned(self, alignment: u64) -> bool {
                self.0 & (alignment - 1) == 0
            }
        }

        hexadecimal!($name);
    };
}

/// `Debug` and `{:x}` of a number that people write in hexadecimal.
macro_rules! hexadecimal {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

/// `Debug` and `Display` of a number that people write in decimal.
macro_rules! decimal {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A guest-physical address: what the page walk gives, and what RAM and devices are found by.
    Gpa
}

address! {
    /// A linear address: what segmentation gives, and what the page walk takes (SDM vol. 3, 3.3).
    La
}

impl La {
    /// Whether this is canonical: bits 63 to 47 are equal (SDM vol. 1, 3.3.7.1).
    #[inline]
    #[must_use]
    pub const fn is_canonical(self) -> bool {
        ((self.0 << 16) as i64 >> 16) as u64 == self.0
    }
}

/// An I/O port (SDM vol. 1, 19.3).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Port(pub u16);

hexadecimal!(Port);

impl Port {
    /// The port `by` further on; `None` beyond port FFFFH.
    #[inline]
    #[must_use]
    pub const fn checked_add(self, by: u16) -> Option<Self> {
        match self.0.checked_add(by) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The port `by` further on, modulo 2¹⁶.
    #[inline]
    #[must_use]
    pub const fn wrapping_add(self, by: u16) -> Self {
        Self(self.0.wrapping_add(by))
    }
}

/// A global system interrupt: an input of the interrupt controllers, counted through all of them
/// (ACPI 6.5, 5.2.13).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Gsi(pub u32);

decimal!(Gsi);

/// A virtual processor of a machine: its number, which is its APIC ID.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct VcpuId(pub u32);

decimal!(VcpuId);

impl VcpuId {
    /// The processor that starts a machine.
    pub const BOOT: Self = Self(0);
}

/// An entry of the interrupt descriptor table: an exception's or an interrupt's number (SDM vol. 3,
/// 6.2). The exceptions' names are the manual's (SDM vol. 3, table 6-1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Vector(pub u8);

hexadecimal!(Vector);

macro_rules! exceptions {
    ($($(#[$about:meta])* $name:ident = $number:literal;)*) => {
        impl Vector {
            $($(#[$about])* pub const $name: Self = Self($number);)*
        }
    };
}

exceptions! {
    /// Divide error.
    DE = 0;
    /// Debug.
    DB = 1;
    /// NMI (not an exception, but delivered through the same table).
    NMI = 2;
    /// INT3.
    BP = 3;
    /// INTO.
    OF = 4;
    /// BOUND.
    BR = 5;
    /// Invalid opcode.
    UD = 6;
    /// Device not available.
    NM = 7;
    /// Double fault.
    DF = 8;
    /// Invalid TSS.
    TS = 10;
    /// Segment not present.
    NP = 11;
    /// Stack fault.
    SS = 12;
    /// General protection.
    GP = 13;
    /// Page fault.
    PF = 14;
    /// x87 floating-point error.
    MF = 16;
    /// Alignment check.
    AC = 17;
    /// Machine check.
    MC = 18;
    /// SIMD floating-point exception.
    XM = 19;
    /// Virtualization exception.
    VE = 20;
    /// Control protection.
    CP = 21;
}

impl Vector {
    /// The manual's name with its hash sign, as in `#GP`; `None` if the architecture assigns none.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let (mnemonic, _) = (*vectors::NAMES.get(usize::from(self.0))?)?;
        Some(mnemonic)
    }
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "vector {:#x}", self.0),
        }
    }
}

/// Bytes of one access or operand: 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Width {
    /// A byte.
    B1 = 1,
    /// A word.
    B2 = 2,
    /// A doubleword.
    B4 = 4,
    /// A quadword.
    B8 = 8,
}

impl Width {
    /// How many bytes.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// How many bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u32 {
        8 * self as u32
    }

    /// A value of this width with all bits set.
    #[inline]
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Half as many bytes; `None` of a byte.
    #[inline]
    #[must_use]
    pub const fn half(self) -> Option<Self> {
        match self {
            Self::B8 => Some(Self::B4),
            Self::B4 => Some(Self::B2),
            Self::B2 => Some(Self::B1),
            Self::B1 => None,
        }
    }
}

/// Bytes of one access to an I/O port: 1, 2 or 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PortWidth {
    /// A byte.
    B1 = 1,
    /// A word.
    B2 = 2,
    /// A doubleword.
    B4 = 4,
}

impl PortWidth {
    /// How many bytes.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// How many bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u32 {
        8 * self as u32
    }

    /// A value of this width with all bits set.
    #[inline]
    #[must_use]
    pub const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.bits())
    }

    /// Half as many bytes; `None` of a byte.
    #[inline]
    #[must_use]
    pub const fn half(self) -> Option<Self> {
        match self {
            Self::B4 => Some(Self::B2),
            Self::B2 => Some(Self::B1),
            Self::B1 => None,
        }
    }
}

impl From<PortWidth> for Width {
    #[inline]
    fn from(width: PortWidth) -> Self {
        match width {
            PortWidth::B1 => Self::B1,
            PortWidth::B2 => Self::B2,
            PortWidth::B4 => Self::B4,
        }
    }
}

/// No access has this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoWidth;

impl fmt::Display for NoWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no access has this many bytes")
    }
}

impl core::error::Error for NoWidth {}

macro_rules! widths {
    ($name:ident: $($variant:ident = $bytes:literal),*) => {
        widths!(@from $name: [$($variant = $bytes),*] u8 usize);
        widths!(@into $name: u8 u16 u32 u64 usize);
    };
    (@from $name:ident: $variants:tt $($int:ident)*) => {
        $(widths!(@one $name: $variants $int);)*
    };
    (@one $name:ident: [$($variant:ident = $bytes:literal),*] $int:ident) => {
        impl TryFrom<$int> for $name {
            type Error = NoWidth;

            #[inline]
            fn try_from(bytes: $int) -> Result<Self, NoWidth> {
                match bytes {
                    $($bytes => Ok(Self::$variant),)*
                    _ => Err(NoWidth),
                }
            }
        }
    };
    (@into $name:ident: $($int:ident)*) => {
        $(impl From<$name> for $int {
            #[inline]
            fn from(width: $name) -> Self {
                width as $int
            }
        })*
    };
}

widths!(Width: B1 = 1, B2 = 2, B4 = 4, B8 = 8);
widths!(PortWidth: B1 = 1, B2 = 2, B4 = 4);

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn arithmetic_says_what_happens_at_the_end() {
        let last = La(u64::MAX);
        assert_eq!((last.checked_add(1), last.wrapping_add(1)), (None, La(0)));
        assert_eq!((La(0).checked_sub(1), La(0).wrapping_sub(1)), (None, last));
        assert_eq!(last.saturating_add(8), last);
        assert_eq!(Gpa(0x10).checked_distance(Gpa(0x20)), None);
        assert_eq!(Gpa(0x20).checked_distance(Gpa(0x10)), Some(0x10));
        assert_eq!(Gpa(0x10).wrapping_distance(Gpa(0x20)), 0x10_u64.wrapping_neg());
        assert_eq!((Port(0xffff).checked_add(1), Port(0xffff).wrapping_add(1)), (None, Port(0)));
    }

    #[test]
    fn an_address_is_its_page_and_an_offset() {
        let gpa = Gpa(0x12_3456);
        assert_eq!((gpa.page(), gpa.offset()), (Gpa(0x12_3000), 0x456));
        assert_eq!(gpa.align_down(0x10_0000), Gpa(0x10_0000));
        assert!(gpa.is_aligned(2) && !gpa.is_aligned(4));
    }

    #[test]
    fn canonical_addresses_repeat_bit_47() {
        for (la, canonical) in [
            (0x0000_7fff_ffff_ffff, true),
            (0x0000_8000_0000_0000, false),
            (0xffff_7fff_ffff_ffff, false),
            (0xffff_8000_0000_0000, true),
        ] {
            assert_eq!(La(la).is_canonical(), canonical, "{la:#x}");
        }
    }

    #[test]
    fn widths_are_powers_of_two_up_to_eight() {
        for bytes in 0..=u8::MAX {
            let width = Width::try_from(bytes);
            assert_eq!(width.is_ok(), matches!(bytes, 1 | 2 | 4 | 8), "{bytes}");
            assert_eq!(PortWidth::try_from(bytes).is_ok(), matches!(bytes, 1 | 2 | 4), "{bytes}");
            if let Ok(width) = width {
                assert_eq!((width.bytes(), width.bits()), (bytes.into(), u32::from(bytes) * 8));
                assert_eq!(width.mask().count_ones(), width.bits());
            }
        }
        assert_eq!(PortWidth::B2.mask(), 0xffff);
        assert_eq!((Width::B8.half(), PortWidth::B1.half()), (Some(Width::B4), None));
    }

    #[test]
    fn numbers_show_as_people_write_them() {
        assert_eq!(format!("{:?} {:#x}", Gpa(0xfee0_0000), La(0x10)), "Gpa(0xfee00000) 0x10");
        assert_eq!(
            format!("{:?} {} {:?}", Port(0x3f8), Gsi(16), VcpuId(3)),
            "Port(0x3f8) 16 VcpuId(3)"
        );
        assert_eq!(format!("{} {}", Vector::GP, Vector(0x40)), "#GP vector 0x40");
    }
}
