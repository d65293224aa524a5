//! Reads and writes of the local APIC's registers, for both its faces (SDM vol. 3, 12.4.1,
//! 12.12.1).

use super::core::{Action, Core};
use super::registers::*;
use crate::irqchip::message::Trigger;
use crate::time::Instant;
use x86::addr::Vector;

/// The access is wrong: xAPIC mode notes it in ESR, x2APIC mode raises #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Illegal;

impl Core {
    /// xAPIC: the register at offset `register`. What is not there reads 0 and is noted in ESR.
    pub(super) fn read_xapic(&mut self, register: u32, at: Instant) -> u32 {
        match register {
            ID => self.id << 24,
            APR | RRD => 0,
            EOI => 0,
            DFR => self.dfr,
            ICR_HIGH => (self.icr >> 32) as u32,
            _ => self.read_common(register, at).unwrap_or_else(|Illegal| {
                self.error(esr::ILLEGAL_REGISTER);
                0
            }),
        }
    }

    /// xAPIC: a store to the register at offset `register`.
    pub(super) fn write_xapic(&mut self, register: u32, value: u32, at: Instant) -> Action {
        match register {
            // Read-only here, as on processors since the P6 family.
            ID | VERSION | APR | PPR | RRD | TIMER_CURRENT_COUNT | ISR..ESR => return Action::None,
            LDR => self.ldr = value & 0xFF00_0000,
            DFR => self.dfr = value | 0x0FFF_FFFF,
            ESR => self.write_esr(),
            ICR_HIGH => self.icr = self.icr & 0xFFFF_FFFF | u64::from(value & 0xFF00_0000) << 32,
            ICR_LOW => {
                self.icr = self.icr & !0xFFFF_FFFF | u64::from(value & ICR_LOW_BITS);
                return self.send_ipi();
            }
            EOI => return self.eoi(),
            _ => {
                if self.write_common(register, value, at).is_err() {
                    self.error(esr::ILLEGAL_REGISTER);
                }
            }
        }
        Action::None
    }

    /// x2APIC: RDMSR of the register at offset `register`.
    pub(super) fn read_x2apic(&mut self, register: u32, at: Instant) -> Result<u64, Illegal> {
        match register {
            ID => Ok(u64::from(self.id)),
            ICR_LOW => Ok(self.icr),
            _ => self.read_common(register, at).map(u64::from),
        }
    }

    /// x2APIC: WRMSR of the register at offset `register`. Reserved bits and read-only registers
    /// fault.
    pub(super) fn write_x2apic(
        &mut self,
        register: u32,
        value: u64,
        at: Instant,
    ) -> Result<Action, Illegal> {
        if register == ICR_LOW {
            if value as u32 & !ICR_LOW_BITS != 0 {
                return Err(Illegal);
            }
            self.icr = value;
            return Ok(self.send_ipi());
        }
        let value = u32::try_from(value).map_err(|_| Illegal)?;
        if value & !x2apic_writable(register).ok_or(Illegal)? != 0 {
            return Err(Illegal);
        }
        match register {
            EOI => return Ok(self.eoi()),
            ESR => self.write_esr(),
            SELF_IPI => self.self_ipi(Vector(value as u8)),
            _ => self.write_common(register, value, at)?,
        }
        Ok(Action::None)
    }

    /// An IPI to itself: edge-triggered, fixed.
    pub(super) fn self_ipi(&mut self, vector: Vector) {
        if vector < Vector(16) {
            self.error(esr::SEND_ILLEGAL_VECTOR);
        } else {
            self.accept(vector, Trigger::Edge);
        }
    }

    fn write_esr(&mut self) {
        self.esr = std::mem::take(&mut self.esr_pending);
    }

    fn read_common(&mut self, register: u32, at: Instant) -> Result<u32, Illegal> {
        Ok(match register {
            VERSION => VERSION_VALUE,
            TPR => u32::from(self.tpr),
            PPR => u32::from(self.ppr()),
            LDR => self.ldr,
            SVR => self.svr,
            ISR..TMR => self.isr.word(number(register, ISR)),
            TMR..IRR => self.tmr.word(number(register, TMR)),
            IRR..ESR => self.irr.word(number(register, IRR)),
            ESR => self.esr,
            ICR_LOW => self.icr as u32,
            LVT_TIMER..=LVT_ERROR => self.lvt[number(register, LVT_TIMER)],
            TIMER_INITIAL_COUNT => self.timer.initial,
            TIMER_CURRENT_COUNT => {
                self.advance(at);
                self.timer.current_count(at)
            }
            TIMER_DIVIDE => self.timer.divide,
            _ => return Err(Illegal),
        })
    }

    fn write_common(&mut self, register: u32, value: u32, at: Instant) -> Result<(), Illegal> {
        // What the timer did until now, it did by the old rules.
        self.advance(at);
        match register {
            TPR => self.tpr = value as u8,
            SVR => self.write_svr(value),
            LVT_TIMER..=LVT_ERROR => self.write_lvt(number(register, LVT_TIMER), value),
            TIMER_INITIAL_COUNT => self.timer.load(value, at),
            TIMER_DIVIDE => self.timer.set_divide(value & TIMER_DIVIDE_BITS, at),
            _ => return Err(Illegal),
        }
        Ok(())
    }
}

/// How many registers `register` comes after `first`.
fn number(register: u32, first: u32) -> usize {
    ((register - first) >> STEP_SHIFT) as usize
}

/// The bits of an x2APIC register that may be written as one; `None`: it cannot be written.
fn x2apic_writable(register: u32) -> Option<u32> {
    Some(match register {
        TPR | SELF_IPI => 0xFF,
        EOI | ESR => 0,
        SVR => SVR_BITS,
        LVT_TIMER..=LVT_ERROR => lvt_bits(number(register, LVT_TIMER)),
        TIMER_INITIAL_COUNT => u32::MAX,
        TIMER_DIVIDE => TIMER_DIVIDE_BITS,
        _ => return None,
    })
}
