//! What processors that never rest get of one host thread, over ten seconds of a real engine.
//!
//! The pool's own account judges: time on the thread, which the host may take away meanwhile.

mod support;

use engine_soft::{SoftEngine, Tier};
use iced_x86::code_asm::*;
use machine::{Config, End, Lines, Machine};
use sched::{Limit, Pool, QUANTUM, Share, Weight};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use support::config;
use support::guest::*;
use x86::addr::Gpa;

const WHILE: Duration = Duration::from_secs(10);
/// `1: jmp 1b`
const FOR_EVER: [u8; 2] = [0xEB, 0xFE];

/// A kernel that starts the other processors, and never rests.
fn kernel_that_never_rests() -> Vec<u8> {
    kernel(&assemble(32, CODE, |a| {
        let mut busy = a.create_label();
        a.mov(dword_ptr(SVR), 0x1FF)?;
        a.mov(dword_ptr(ICR_LOW), INIT)?;
        a.mov(dword_ptr(ICR_LOW), START_UP)?;
        a.set_label(&mut busy)?;
        a.jmp(busy)
    }))
}

fn pool() -> Pool {
    Pool::new(NonZeroUsize::MIN, QUANTUM).expect("threads")
}

/// A machine of `vcpus` processors that never rest, with `share` of `pool`.
fn busy(pool: &Pool, vcpus: u32, share: Share) -> Machine {
    let config =
        Config { vcpus, boot: boot(kernel_that_never_rests()), timeout: Some(WHILE), ..config() };
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
