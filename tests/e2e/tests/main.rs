//! The end-to-end tests: one program, so that no more than two boots run at once, whichever tests
//! they belong to, and one test's waiting is another's time.

// What the crate's own tests call, too.
#[allow(dead_code)]
#[path = "../../../crates/oci/tests/builder/mod.rs"]
mod builder;
#[allow(dead_code)]
#[path = "../../../crates/oci/tests/builder/registry.rs"]
mod registry;

mod bad_input;
mod balloon;
mod bench;
mod cables;
mod cloud_init;
mod config;
mod confinement;
mod container;
mod debian;
mod detached;
mod deterministic;
mod disk;
mod disk_boot;
mod disk_failures;
mod drivers;
mod endings;
mod examples;
mod fio;
mod generation;
mod guests;
mod guide;
mod habits;
mod handover;
mod hvc;
mod images;
mod kills;
mod limits;
mod machines;
mod net;
mod net_load;
mod nucleus;
mod outputs;
mod packages;
mod pager;
mod panics;
mod paravirt;
mod pipelines;
mod place;
mod ports;
mod remedies;
mod resources;
mod restored;
mod rng;
mod rootfs;
mod saved;
mod sched;
mod share;
mod smp;
mod stress;
mod system;
mod templates;
mod terminal;
mod vsock;
mod whole;
mod workloads;
