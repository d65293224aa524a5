//! The two ends of unwinding, which the ready-made `core` and `alloc` name but nothing ever reaches
//! (panic = abort). The memory functions that they name, too, are crate `string`'s.

use string as _;

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crate::power::fail()
}
