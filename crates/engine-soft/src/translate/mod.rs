//! T1, the same-ISA translator: guest code of 64-bit mode as host code, run on the host's own
//! registers.
//!
//! When a block is hot ([`HOT`] runs in the interpreter) it is translated together with what it
//! leads to on its page ([`region`]): unprivileged instructions are copied, memory operands go
//! through an inline TLB check ([`address`]), everything else leaves to the interpreter, which is
//! complete and the reference. The processors of a machine share what was translated ([`cache`]).
//! Direct branches are linked, to another page only as long as it is known to be the same
//! ([`cross_page`]), returns and indirect ones go through a table from guest to host addresses. On
//! a TLB miss, translated code calls [`fill`] and retries. A host fault in translated code (a
//! misaligned SSE operand, #DE, #XM) leaves at the guest instruction where it happened, and the
//! interpreter decides what it means. Signals to the processor stop translated code by a signal of
//! the host's ([`interrupt`]).

mod address;
mod append;
mod asm;
mod bit;
mod branch;
mod cache;
mod check;
mod classify;
mod compile;
pub(crate) mod context;
mod count;
mod cross_page;
mod discover;
mod emit;
mod encode;
mod epochs;
mod figures;
mod fill;
mod flow;
mod forms;
pub(crate) mod gate;
mod generation;
mod index;
mod insn;
pub(crate) mod interrupt;
mod links;
mod listing;
pub(crate) mod lockstep;
mod offsets;
mod recipe;
mod recover;
mod region;
mod run;
mod scratch;
mod site;
mod spill;
mod stack;
mod stack_page;
mod string;
mod stubs;
mod system;
pub(crate) mod targets;
mod thread;
mod tick;
mod translator;

pub(crate) use cache::TranslationCache;
pub(crate) use classify::{leaves_alone, leaves_alone_compared};
pub(crate) use compile::{known, per_access, translate};
pub(crate) use run::{
    Entry, ExitReason, attach, bound, cache_exit, count, detach, entry_at_rip, entry_beside,
    entry_of, keep_time, link, poll, translation_of,
};
pub(crate) use stubs::code_cache;
pub(crate) use translator::{CachedExit, HOT, Translator};
