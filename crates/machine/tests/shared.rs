//! Several machines on one pool of host threads.

mod support;

use machine::{End, Lines, Machine};
use sched::{Pool, Share, Weight};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use support::{Step, config, counting, machine, step};
use vcpu::{Exit, SignalSet};
use x86::regs::Rflags;

const QUANTUM: Duration = Duration::from_millis(1);

fn one_worker() -> Pool {
    Pool::new(NonZeroUsize::MIN, QUANTUM).expect("threads")
}

/// A machine on `pool`, with the share of `weight`.
fn on(pool: &Pool, weight: u32, script: Vec<Step>) -> Machine {
    let mut machine = machine(&config(), Lines::default(), script);
    let weight = Weight::new(weight).expect("a weight");
    machine.set_pool(pool.clone(), Share { weight, limit: None });
    machine
}

fn until(what: &str, done: impl Fn() -> bool) {
    // Statistics hold the machines: asked for at each quantum, no quantum would be used up.
    looking_each(20 * QUANTUM, what, done);
}

fn looking_each(pause: Duration, what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come that {what}");
        sleep(pause);
    }
}

#[test]
fn two_machines_take_turns_on_one_thread_by_weight() {
    let pool = one_worker();
    let counters: [Arc<AtomicU64>; 2] = Default::default();
    let mut machines = [100, 300].into_iter().zip(&counters);
    let mut next = || machines.next().map(|(weight, c)| on(&pool, weight, counting(c)));
    let (mut a, mut b) = (next().expect("one"), next().expect("another"));
    let handles = [a.handle(), b.handle()];
    thread::scope(|scope| {
        let runs = [scope.spawn(|| a.run()), scope.spawn(|| b.run())];
        until("both run", || counters.iter().all(|c| c.load(Ordering::SeqCst) > 0));
        let ran = |n: usize| handles[n].stats().processors[0].usage.ran;
        let before = [ran(0), ran(1)];
        until("time has passed", || ran(0) > before[0] + Duration::from_millis(200));
        // A busy host lets a quantum last ten times as long. Over time that does not count, but a
        // machine that is held does not make up for it: so it is looked at seldom.
        looking_each(1000 * QUANTUM, "it is three to one", || {
            let got = [0, 1].map(|n| (ran(n) - before[n]).as_secs_f64());
            (2.9..3.1).contains(&(got[1] / got[0]))
        });
        let usage = handles[0].stats().processors[0].usage;
        assert!(usage.steal > usage.ran && usage.quanta > 3, "{usage:?}");

        // A paused machine leaves the thread to the other.
        handles[1].pause().expect("it runs");
        let (at, before) = (counters[1].load(Ordering::SeqCst), ran(0));
        until("the other has it", || ran(0) > before + Duration::from_millis(100));
        assert_eq!(counters[1].load(Ordering::SeqCst), at);
        handles[1].resume().expect("it is paused");
        until("it goes on", || counters[1].load(Ordering::SeqCst) > at);
        handles.iter().for_each(|handle| handle.stop(End::PowerOff));
        assert_eq!(runs.map(|run| run.join().expect("the run")), [End::PowerOff, End::PowerOff]);
    });
    assert!(b.stats().processors[0].usage.ran > Duration::from_millis(600), "it is kept");
}

#[test]
fn a_defect_of_one_machine_leaves_the_other_alone() {
    let pool = one_worker();
    let counter = Arc::new(AtomicU64::new(0));
    let mut good = on(&pool, 100, counting(&counter));
    let mut bad = on(&pool, 100, vec![step(|_| panic!("this is a test"))]);
    let handle = good.handle();
    thread::scope(|scope| {
        let run = scope.spawn(|| good.run());
        assert!(matches!(bad.run(), End::Defect(_)));
        let at = counter.load(Ordering::SeqCst);
        until("the other goes on", || counter.load(Ordering::SeqCst) > at);
        handle.stop(End::Interrupted);
        assert_eq!(run.join().expect("the run"), End::Interrupted);
    });
}

#[test]
fn a_halted_processor_leaves_the_thread_to_others() {
    let pool = one_worker();
    let counter = Arc::new(AtomicU64::new(0));
    let mut busy = on(&pool, 100, counting(&counter));
    // It halts with interrupts off: nothing but the end of the machine wakes it.
    let halt = step(|guest| {
        guest.state.flags.set(Rflags::IF, false);
        Exit::Halted(SignalSet::waking(guest.state))
    });
    let mut idle = on(&pool, 100, vec![halt]);
    let handles = [busy.handle(), idle.handle()];
    thread::scope(|scope| {
        let runs = [scope.spawn(|| idle.run()), scope.spawn(|| busy.run())];
        until("it runs", || counter.load(Ordering::SeqCst) > 0);
        until("it has run long", || {
            handles[0].stats().processors[0].usage.ran > Duration::from_millis(100)
        });
        let idle = handles[1].stats().processors[0].usage;
        assert!(idle.ran < Duration::from_millis(20) && idle.switches <= 2, "{idle:?}");
        handles.iter().for_each(|handle| handle.stop(End::PowerOff));
        assert_eq!(runs.map(|run| run.join().expect("the run")), [End::PowerOff, End::PowerOff]);
    });
}
