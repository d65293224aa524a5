//! The software engine: a complete x86-64 processor without hardware virtualization.
//!
//! T0, the interpreter, is the reference: [`decode`] turns guest code into blocks of ops,
//! [`interp`] runs them. Integer arithmetic runs on the host's ALU ([`alu`]), everything vectorial
//! or exotic on the host's own units ([`thunk`]). T1, the translator ([`translate`]), runs hot
//! 64-bit code on the host's registers; [`tier`] dispatches. Addresses go through the software TLB
//! ([`tlb`], [`mmu`]).
//! The rules of the system level are `x86`'s. See ARCHITECTURE.md and `docs/adr`.

mod alu;
mod block;
mod bus;
mod core;
mod cpu;
mod decode;
mod engine;
mod fault;
mod interp;
mod locked;
mod machine;
mod mmu;
mod observer;
mod op;
mod page_tables;
mod ram;
mod soft_vcpu;
pub mod thunk;
mod tier;
mod tlb;
mod trace;
mod translate;
mod word;
mod zeroed;

pub use engine::{SoftEngine, missing_on_host};
pub use soft_vcpu::{CODE_CACHE, SoftVcpu};
pub use tier::Tier;
#[doc(hidden)]
pub use translate::lockstep::{Sabotage, differences};
