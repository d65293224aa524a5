//! System-level operations against expectations worked out by hand from the manual, one test a
//! rule.
#![allow(missing_docs, unreachable_pub)]

mod chaos;
mod escalation;
mod far;
mod interrupt;
mod iret;
mod machine;
mod protect;
mod segment;
mod task;
