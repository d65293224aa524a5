//! What processors that never rest get of one host thread, over ten seconds of a real engine.
//!
//! The pool's own account judges: time on the thread, which the host may take away meanwhile.

mod support;

use engine_soft::{SoftEngine, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{BootConfig, Config, End, File, Lines, Machine, layout};
use sched::{Limit, Pool, QUANTUM, Share, Weight};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use support::config;
use x86::addr::Gpa;

const WHILE: Duration = Duration::from_secs(10);
/// Where the start-up IPI begins: its page, and the page's number.
const START: u64 = 0x8000;
const START_PAGE: u32 = 0x08;
const KERNEL: u64 = 0x10_0000;
/// The local APIC (SDM vol. 3, table 12-1), and its ICR: to all but the sender; INIT; start-up.
const SVR: u64 = layout::LAPIC.0 + 0xF0;
const ICR_LOW: u64 = layout::LAPIC.0 + 0x300;
const INIT: u32 = 3 << 18 | 5 << 8 | 1 << 14;
const START_UP: u32 = 3 << 18 | 6 << 8 | 1 << 14 | START_PAGE;
/// `1: jmp 1b`
const FOR_EVER: [u8; 2] = [0xEB, 0xFE];

/// Starts the other processors, and never rests.
fn code() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let mut busy = a.create_label();
    a.mov(dword_ptr(SVR as u32), 0x1FF)?;
    a.mov(dword_ptr(ICR_LOW as u32), INIT)?;
    a.mov(dword_ptr(ICR_LOW as u32), START_UP)?;
    a.set_label(&mut busy)?;
    a.jmp(busy)?;
    a.assemble(KERNEL + 32)
}

/// As a Multiboot kernel (Multiboot 0.6.96, 3.1.3).
fn kernel() -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    const FLAGS: u32 = 1 << 16;
    let code = code().expect("it assembles");
    let checksum = 0_u32.wrapping_sub(MAGIC).wrapping_sub(FLAGS);
    let (at, end) = (KERNEL as u32, KERNEL as u32 + 32 + code.len() as u32);
    let words = [MAGIC, FLAGS, checksum, at, at, end, end, at + 32];
    words.iter().flat_map(|word| word.to_le_bytes()).chain(code).collect()
}

fn pool() -> Pool {
    Pool::new(NonZeroUsize::MIN, QUANTUM).expect("threads")
}

/// A machine of `vcpus` processors that never rest, with `share` of `pool`.
fn busy(pool: &Pool, vcpus: u32, share: Share) -> Machine {
    let kernel = File::Bytes { name: "test kernel".into(), bytes: kernel().into() };
    let boot = BootConfig { kernel, initrd: None, cmdline: String::new(), modules: vec![] };
    let config = Config { vcpus, boot, timeout: Some(WHILE), ..config() };
    let engine = SoftEngine { tier: Tier::Translate, code_cache: 1 << 20, count: false };
    let mut machine = Machine::build(&config, Lines::default(), &engine).expect("a machine");
    machine.ram().write(Gpa(START), &FOR_EVER).expect("RAM");
    machine.set_pool(pool.clone(), share);
    machine
}

/// What each processor has had, in seconds.
fn ran(machine: &Machine) -> Vec<f64> {
    machine.stats().processors.iter().map(|p| p.usage.ran.as_secs_f64()).collect()
}

/// One test at a time: they would take the host's processors from each other.
static TURN: Mutex<()> = Mutex::new(());

/// What a busy host draws a last quantum out by, in seconds: there is no next one to make up for
/// it.
const DRAWN_OUT: f64 = 0.05;

/// `got` is as long as `expected`, to so many percent.
fn near(got: f64, expected: f64, percent: f64) -> bool {
    (got - expected).abs() <= expected * percent / 100.0 + DRAWN_OUT
}

#[test]
#[ignore = "ten seconds: processors that never rest, on one thread"]
fn processors_of_a_machine_get_the_same() {
    let _turn = sync::lock(&TURN);
    let mut machine = busy(&pool(), 4, Share::default());
    assert_eq!(machine.run(), End::TimedOut);
    let ran = ran(&machine);
    let each = ran.iter().sum::<f64>() / 4.0;
    assert!(each > 2.0 && ran.iter().all(|ran| near(*ran, each, 2.0)), "{ran:?}");
}

#[test]
#[ignore = "ten seconds: machines that never rest, on one thread"]
fn machines_get_time_by_weight() {
    let _turn = sync::lock(&TURN);
    let pool = pool();
    let mut machines = [100, 300].map(|weight| {
        let weight = Weight::new(weight).expect("a weight");
        busy(&pool, 2, Share { weight, limit: None })
    });
    thread::scope(|scope| {
        for machine in &mut machines {
            scope.spawn(|| assert_eq!(machine.run(), End::TimedOut));
        }
    });
    let [one, three] = machines.map(|machine| ran(&machine).iter().sum::<f64>());
    assert!(near(three, (one + three) * 0.75, 2.0), "{one} s and {three} s");
}

#[test]
#[ignore = "ten seconds: a machine that never rests, with a limit"]
fn a_limit_is_kept_and_used() {
    let _turn = sync::lock(&TURN);
    let mut machine = busy(&pool(), 2, Share { limit: Limit::percent(25), ..Share::default() });
    assert_eq!(machine.run(), End::TimedOut);
    let (ran, wall) = (ran(&machine).iter().sum::<f64>(), machine.stats().wall.as_secs_f64());
    assert!(near(ran, wall * 0.25, 3.0), "{ran} s of {wall} s");
}
