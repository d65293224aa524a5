//! Which instructions the translator performs, in the mode at hand.

use super::flow::{self, Class, Units};
use crate::block::{AVX_ON, SSE_ON, USER};
use crate::core::Core;
use iced_x86::Instruction;
use x86::state::Mode;

/// Whether the translator leaves `instruction` to the interpreter: such a one stands alone in its
/// block where there is a translator.
pub(crate) fn leaves_alone(core: &Core, instruction: &Instruction) -> bool {
    core.mode == Mode::Long64 && matches!(class_in(core, instruction, false), Class::Other)
}

/// As [`leaves_alone`], where the interpreter runs the same code for comparison.
pub(crate) fn leaves_alone_compared(core: &Core, instruction: &Instruction) -> bool {
    core.mode == Mode::Long64 && matches!(class_in(core, instruction, true), Class::Other)
}

/// What `i` is to the translator; `compared`: the interpreter runs the same code.
pub(super) fn class_in(core: &Core, i: &Instruction, compared: bool) -> Class {
    let on = |bit: u8| core.mode_key & bit != 0;
    if i.is_invalid() || !core.features.allows(i) {
        return Class::Other;
    }
    let class = flow::class_of(i, Units { sse: on(SSE_ON), avx: on(AVX_ON) });
    match class {
        Class::Swapgs | Class::Cli | Class::Sti if on(USER) => Class::Other,
        Class::Sysret if on(USER) => Class::Other,
        // They pass to other code unnoticed, and time is told to the interpreter alone.
        Class::Syscall | Class::Sysret if compared || core.time.is_some() => Class::Other,
        // Any level may read selectors; control registers need level 0.
        Class::ReadState(_) if on(USER) && i.op1_register().is_cr() => Class::Other,
        // Lockstep's log has no room for what they write.
        Class::Repeat(_) if compared => Class::Other,
        // PUSHF shows flags that have no defined value.
        Class::PushFlags if compared => Class::Other,
        // Time passes, or is told to the interpreter alone.
        Class::Rdtsc | Class::Rdtscp if compared || core.time.is_some() => Class::Other,
        _ => class,
    }
}
