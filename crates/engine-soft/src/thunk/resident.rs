//! Keeping the guest's x87 state in the host's x87 unit over many instructions.
//!
//! Loading and storing it costs some 80 ns, an x87 instruction one. Rust code on x86-64 never
//! touches that unit, so a virtual processor's thread may leave the guest's state there: [`load`],
//! then any number of [`super::Thunk::run_resident`], then [`store`]. In between the x87 part of
//! the guest's state (all of [`X87`] but MXCSR, the pointers and the selectors) is stale: whoever
//! reads or changes it stores first, and so does every other kind of x87 or MMX thunk.
#![allow(unsafe_code)] // Reason: FXRSTOR and FXSAVE.

use std::arch::asm;

use x86::state::X87;

const HOST_MXCSR: u32 = 0x1f80;
const HOST_FCW: u16 = 0x37f;
const ES: u16 = 1 << 7;

#[repr(C, align(16))]
struct Image([u8; 512]);

/// Moves the guest's x87 state into the host's unit.
///
/// # Safety
/// Until [`store`], nothing but thunks may use x87 or MMX instructions on this thread: no foreign
/// code that computes with `long double`. Leaving for another thread or a signal is harmless, since
/// the kernel switches the unit.
pub unsafe fn load(x87: &X87) {
    let mut image = Image([0; 512]);
    image.0[0..2].copy_from_slice(&x87.fcw.to_le_bytes());
    image.0[2..4].copy_from_slice(&x87.fsw.to_le_bytes());
    image.0[4] = x87.ftw;
    image.0[24..28].copy_from_slice(&HOST_MXCSR.to_le_bytes());
    for (to, from) in image.0[32..160].chunks_exact_mut(16).zip(&x87.st) {
        to.copy_from_slice(from);
    }
    // SAFETY: the image is aligned and its MXCSR valid; the XMM registers are declared clobbered.
    unsafe {
        asm!("fxrstor64 [{}]", in(reg) &raw const image, clobber_abi("sysv64"), options(readonly, nostack));
    }
}

/// Moves it back, and gives the host its own environment.
///
/// # Safety
/// The unit holds a guest's state, by [`load`].
pub unsafe fn store(x87: &mut X87) {
    let mut image = Image([0; 512]);
    // SAFETY: the image is aligned and of FXSAVE's size.
    unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut image, options(nostack, preserves_flags)) };
    x87.fcw = u16::from_le_bytes([image.0[0], image.0[1]]);
    x87.fsw = u16::from_le_bytes([image.0[2], image.0[3]]);
    x87.ftw = image.0[4];
    for (to, from) in x87.st.iter_mut().zip(image.0[32..160].chunks_exact(16)) {
        to.copy_from_slice(from);
    }
    if x87.fcw == HOST_FCW && x87.fsw & ES == 0 {
        // SAFETY: empties the stack, as the ABI wants it; no exception is pending.
        unsafe { asm!("emms", options(nomem, nostack, preserves_flags)) };
    } else {
        // SAFETY: the unit's initial state is the ABI's.
        unsafe { asm!("fninit", options(nomem, nostack, preserves_flags)) };
    }
}
