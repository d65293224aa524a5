//! Access rights of a page (SDM vol. 3, 4.6) and the part of the #PF error code that follows from
//! the access.

use super::error_code;
use crate::bus::{Access, AccessKind, Privilege, Smap};
use crate::regs::{Cr0, Cr4, Efer};
use crate::state::PagingState;

/// What the paging structures say about a page, all levels combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// R/W is set at every level.
    pub writable: bool,
    /// U/S is set at every level: a user-mode address.
    pub user: bool,
    /// XD is clear at every level.
    pub executable: bool,
    /// Protection key.
    pub key: u8,
}

impl Rights {
    /// With paging off everything is allowed; the checks are skipped, these are for show.
    pub const ALL: Self = Self { writable: true, user: true, executable: true, key: 0 };

    /// Judges `access`; the error holds the additional bits for the error code (PK or none).
    pub fn check(&self, state: &PagingState, smap: Smap, access: Access) -> Result<(), u32> {
        if !state.cr0.contains(Cr0::PG) {
            return Ok(());
        }
        let key = self.key_denies(state, access);
        let pages = match access.kind {
            AccessKind::Execute => self.may_fetch(state, access.privilege),
            AccessKind::Read => self.may_touch(state, smap, access.privilege),
            AccessKind::Write => {
                self.may_touch(state, smap, access.privilege)
                    && (self.writable || write_protect_off(state, access.privilege))
            }
        };
        match (pages, key) {
            (true, false) => Ok(()),
            (_, true) => Err(error_code::PK),
            (false, false) => Err(0),
        }
    }

    fn may_fetch(&self, state: &PagingState, privilege: Privilege) -> bool {
        let mode = match privilege {
            Privilege::User => self.user,
            _ => !(self.user && state.cr4.contains(Cr4::SMEP)),
        };
        mode && self.executable
    }

    fn may_touch(&self, state: &PagingState, smap: Smap, privilege: Privilege) -> bool {
        let guarded = self.user && state.cr4.contains(Cr4::SMAP);
        match privilege {
            Privilege::User => self.user,
            Privilege::Supervisor => !guarded || smap == Smap::Overridden,
            Privilege::Implicit => !guarded,
        }
    }

    /// SDM vol. 3, 4.6.2: keys guard data accesses to user-mode addresses.
    fn key_denies(&self, state: &PagingState, access: Access) -> bool {
        let keys = state.cr4.contains(Cr4::PKE) && state.efer.contains(Efer::LMA);
        if !keys || !self.user || access.kind == AccessKind::Execute {
            return false;
        }
        let bits = state.pkru >> (2 * u32::from(self.key & 15));
        let access_disable = bits & 1 != 0;
        let write_disable = bits & 2 != 0
            && access.kind == AccessKind::Write
            && !write_protect_off(state, access.privilege);
        access_disable || write_disable
    }
}

/// Supervisor writes ignore R/W and write-disable while CR0.WP is clear.
fn write_protect_off(state: &PagingState, privilege: Privilege) -> bool {
    privilege != Privilege::User && !state.cr0.contains(Cr0::WP)
}

/// W, U and I as the access itself gives them (SDM vol. 3, 4.7).
pub(super) fn access_code(state: &PagingState, access: Access) -> u32 {
    let kind = match access.kind {
        AccessKind::Read => 0,
        AccessKind::Write => error_code::W,
        AccessKind::Execute => {
            let nx = state.cr4.contains(Cr4::PAE) && state.efer.contains(Efer::NXE);
            if nx || state.cr4.contains(Cr4::SMEP) { error_code::I } else { 0 }
        }
    };
    let user = if access.privilege == Privilege::User { error_code::U } else { 0 };
    kind | user
}
