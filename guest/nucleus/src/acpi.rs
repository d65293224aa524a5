//! The little that is taken from the firmware's tables (ACPI 6.4): how to power off, and where
//! virtio devices are.
//!
//! AML is not interpreted: the two things sought in it are found by their fixed shapes.

use crate::physical::{self, u32_at, u64_at};
use alloc::vec::Vec;

/// How to reach S5.
#[derive(Clone, Copy, Debug)]
pub enum SoftOff {
    /// PM1a_CNT (4.8.3.2.1) and its value.
    Pm1a(u16, u16),
    /// SLEEP_CONTROL_REG (4.8.3.7) in memory, and its value.
    SleepControl(u64, u8),
}

/// Where the fixed power button is heard (4.8.2.2.1).
#[derive(Clone, Copy, Debug)]
pub struct PowerButton {
    /// PM1a_EVT: status.
    pub status: u16,
    /// PM1a_EVT: enable.
    pub enable: u16,
    /// The IOAPIC's input for the SCI.
    pub sci: u16,
}

#[derive(Debug, Default)]
pub struct Acpi {
    pub soft_off: Option<SoftOff>,
    pub power_button: Option<PowerButton>,
    /// Register blocks of virtio-mmio devices (_HID LNRO0005).
    pub virtio: Vec<u64>,
}

impl Acpi {
    /// Reads the tables, from the RSDP at `hint` or wherever a PC's firmware puts it.
    pub fn read(hint: Option<u64>) -> Self {
        Self::find(hint).unwrap_or_default()
    }

    fn find(hint: Option<u64>) -> Option<Self> {
        let rsdp = hint.filter(|&at| is_rsdp(at)).or_else(|| {
            let ebda = u64::from(physical::get16(0x40E)) << 4;
            let places = (ebda..ebda + 1024).chain(0xE_0000..0x10_0000);
            places.step_by(16).find(|&at| is_rsdp(at))
        })?;
        let fadt = tables(rsdp).into_iter().find(|table| table.starts_with(b"FACP"))?;
        let long = u64_at(&fadt, 140).filter(|&at| at != 0);
        let dsdt = table(long.or_else(|| u32_at(&fadt, 40).map(u64::from))?)?;
        let soft_off = s5(&dsdt).and_then(|kind| {
            let sleep_control = u64_at(&fadt, 248).filter(|&at| at != 0);
            match (sleep_control, u32_at(&fadt, 64).filter(|&port| port != 0)) {
                (Some(register), None) => Some(SoftOff::SleepControl(register, kind << 2 | 1 << 5)),
                (_, Some(port)) => {
                    Some(SoftOff::Pm1a(port as u16, u16::from(kind) << 10 | 1 << 13))
                }
                _ => None,
            }
        });
        Some(Self { soft_off, power_button: power_button(&fadt), virtio: virtio(&dsdt) })
    }
}

/// What the FADT says of a power button (5.2.9: SCI_INT, PM1a_EVT_BLK, PM1_EVT_LEN, PWR_BUTTON).
fn power_button(fadt: &[u8]) -> Option<PowerButton> {
    const NO_FIXED_BUTTON: u32 = 1 << 4;
    let block = u32_at(fadt, 56).filter(|&port| port != 0)? as u16;
    let half = u16::from(*fadt.get(88)?) / 2;
    let sci = u16::from(*fadt.get(46)?);
    let there = u32_at(fadt, 112)? & NO_FIXED_BUTTON == 0 && half != 0;
    there.then_some(PowerButton { status: block, enable: block + half, sci })
}

fn is_rsdp(at: u64) -> bool {
    let bytes = physical::bytes(at, 20);
    bytes.starts_with(b"RSD PTR ") && bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) == 0
}

/// The tables that the RSDT or XSDT lists.
fn tables(rsdp: u64) -> Vec<Vec<u8>> {
    let root = physical::bytes(rsdp, 36);
    let extended = root[15] >= 2 && u64_at(&root, 24).is_some_and(|at| at != 0);
    let (at, size) = if extended {
        (u64_at(&root, 24).unwrap_or(0), 8)
    } else {
        (u32_at(&root, 16).unwrap_or(0).into(), 4)
    };
    let list = table(at).unwrap_or_default();
    let pointers = list.get(36..).unwrap_or(&[]).chunks_exact(size);
    pointers.filter_map(|p| table(u64_at(p, 0).or(u32_at(p, 0).map(u64::from))?)).collect()
}

fn table(at: u64) -> Option<Vec<u8>> {
    if at == 0 || at >= 1 << 32 {
        return None;
    }
    let length = u32_at(&physical::bytes(at, 8), 4)?;
    (36..1 << 20).contains(&length).then(|| physical::bytes(at, length as usize))
}

/// Name (\_S5) = Package { SLP_TYPa, … }: SLP_TYPa.
fn s5(aml: &[u8]) -> Option<u8> {
    let at = aml.windows(4).position(|w| w == b"_S5_")? + 4;
    let mut rest = aml.get(at..)?.iter();
    (*rest.next()? == 0x12).then_some(())?; // PackageOp
    let length_bytes = rest.next()? >> 6;
    let mut rest = rest.skip(usize::from(length_bytes) + 1); // and the number of elements
    match *rest.next()? {
        0x0A => rest.next().copied(), // BytePrefix
        small => Some(small),         // ZeroOp, OneOp
    }
}

/// For every LNRO0005: the address in the Memory32Fixed descriptor that follows (6.4.3.4).
fn virtio(aml: &[u8]) -> Vec<u64> {
    let name = b"LNRO0005";
    let found = aml.windows(name.len()).enumerate().filter(|(_, w)| w == name);
    found
        .filter_map(|(at, _)| {
            let near = aml.get(at..(at + 160).min(aml.len()))?;
            let descriptor = near.windows(3).position(|w| w == [0x86, 9, 0])?;
            u32_at(near, descriptor + 4).map(u64::from)
        })
        .collect()
}
