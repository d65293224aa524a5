//! Signal handlers of the process, each of which passes on what is not its own.
#![allow(unsafe_code)] // Reason: sigaction, and calls of other handlers.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A handler with SA_SIGINFO.
pub type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs `handler` for `signal`, on the alternate stack, and stores the action before it in
/// `previous`.
///
/// # Errors
/// The host refuses.
pub fn install_handler(
    signal: i32,
    previous: &AtomicPtr<libc::sigaction>,
    handler: Handler,
) -> io::Result<()> {
    // SAFETY: sigaction is plain data for which zero is valid; both calls get pointers to live
    // values. The old action is published before the new one is active and never freed.
    unsafe {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        if libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        previous.store(Box::into_raw(Box::new(old.assume_init())), Ordering::Release);
        let mut new: libc::sigaction = MaybeUninit::zeroed().assume_init();
        new.sa_sigaction = handler as *const () as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut new.sa_mask);
        if libc::sigaction(signal, &raw const new, ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Passes the signal to the handler that was there before.
///
/// # Safety
/// The arguments are those of a signal handler.
pub unsafe fn chain(
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    previous: &AtomicPtr<libc::sigaction>,
) {
    let previous = previous.load(Ordering::Acquire);
    // SAFETY: `previous` was filled before this handler became active. A handler address other than
    // the two special values is a function of the type its SA_SIGINFO flag tells.
    unsafe {
        let (address, flags) = match previous.as_ref() {
            Some(action) => (action.sa_sigaction, action.sa_flags),
            None => (libc::SIG_DFL, 0),
        };
        if address == libc::SIG_DFL || (address == libc::SIG_IGN && (*info).si_code > 0) {
            // The default action: restore it and let the fault (or the sent signal) happen again.
            libc::signal(signal, libc::SIG_DFL);
            if (*info).si_code <= 0 {
                libc::raise(signal);
            }
        } else if address == libc::SIG_IGN {
        } else if flags & libc::SA_SIGINFO != 0 {
            let function: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(address);
            function(signal, info, context);
        } else {
            let function: extern "C" fn(i32) = std::mem::transmute(address);
            function(signal);
        }
    }
}
