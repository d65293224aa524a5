//! The pool with real threads: tasks that spin, park, panic and are held. Times are judged by the
//! pool's own account, since the host may be busy.

mod support;

use sched::{Limit, Pool, Share, Turn, Weight};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{INTR, Tested, pool, spinner, until};
use vcpu::{Kick, Signal, SignalSet, Signals};

const QUANTUM: Duration = Duration::from_millis(4);

/// Whether each of `ran` is within `percent` of its part of the whole.
fn shares(ran: &[Duration], parts: &[u32], percent: f64) -> bool {
    let (whole, all): (Duration, u32) = (ran.iter().sum(), parts.iter().sum());
    ran.iter().zip(parts).all(|(ran, part)| {
        let expected = whole.as_secs_f64() * f64::from(*part) / f64::from(all);
        (ran.as_secs_f64() - expected).abs() <= expected * percent / 100.0
    })
}

/// Waits until the parts are right within two percent, after a second at the least. A busy host
/// lets a quantum last long now and then; over time that does not count, and a wrong share does.
fn even_out(ran: impl Fn() -> Vec<Duration>, parts: &[u32]) {
    until("a second has been run", || ran().iter().sum::<Duration>() > Duration::from_secs(1));
    until("it evens out", || shares(&ran(), parts, 2.0));
}

#[test]
fn tasks_on_one_worker_get_the_same() {
    let pool = pool(1, QUANTUM);
    let group = pool.enlist(Share::default());
    let tasks: Vec<_> = (0..5).map(|_| spinner(&group)).collect();
    let usage = || tasks.iter().map(|task| group.usage(*task)).collect::<Vec<_>>();
    even_out(|| usage().iter().map(|usage| usage.ran).collect(), &[1; 5]);
    for usage in usage() {
        assert!(usage.quanta > 5 && usage.switches >= usage.quanta, "{usage:?}");
        let all = usage.ran + usage.steal;
        assert!(usage.steal > all * 3 / 4 && usage.steal < all * 17 / 20, "{usage:?}");
    }
}

#[test]
fn machines_get_time_by_weight() {
    let pool = pool(1, QUANTUM);
    let weights = [100, 300];
    let groups = weights.map(|weight| {
        let weight = Weight::new(weight).expect("a weight");
        pool.enlist(Share { weight, limit: None })
    });
    let tasks = [(0, spinner(&groups[0])), (1, spinner(&groups[1])), (1, spinner(&groups[1]))];
    let ran = |task: &(usize, _)| groups[task.0].usage(task.1).ran;
    even_out(|| vec![ran(&tasks[0]), ran(&tasks[1]) + ran(&tasks[2])], &weights);
}

#[test]
fn what_other_threads_use_counts_by_weight() {
    let pool = pool(1, QUANTUM);
    let groups = [pool.enlist(Share::default()), pool.enlist(Share::default())];
    let tasks = [spinner(&groups[0]), spinner(&groups[1])];
    // A quarter of a host processor: each machine has five eighths, all counted.
    let began = Instant::now();
    groups[0].charge_for(move || began.elapsed() / 4);
    even_out(|| (0..2).map(|n| groups[n].usage(tasks[n]).ran).collect(), &[3, 5]);
}

#[test]
fn what_other_threads_use_is_taken_off_a_limit() {
    let pool = pool(2, QUANTUM);
    let group = pool.enlist(Share { limit: Limit::percent(40), ..Share::default() });
    // A fifth of a host processor.
    let began = Instant::now();
    group.charge_for(move || began.elapsed() / 5);
    let task = spinner(&group);
    std::thread::sleep(Duration::from_millis(1500));
    let share = || group.usage(task).ran.as_secs_f64() / began.elapsed().as_secs_f64();
    until("the limit holds", || share() < 0.2 * 1.05 + 0.02);
    until("it is used", || share() > 0.1);
}

#[test]
fn a_limited_machine_rests_though_nobody_else_wants_to_run() {
    let pool = pool(2, QUANTUM);
    let group = pool.enlist(Share { limit: Limit::percent(25), ..Share::default() });
    let began = Instant::now();
    let tasks = [spinner(&group), spinner(&group)];
    std::thread::sleep(Duration::from_millis(1500));
    let share = || {
        let ran: Duration = tasks.iter().map(|task| group.usage(*task).ran).sum();
        ran.as_secs_f64() / began.elapsed().as_secs_f64()
    };
    // One period's budget may have been used before the first has passed. What a busy host has
    // drawn out is paid by the next periods.
    until("the limit holds", || share() < 0.25 * 1.03 + 0.02);
    until("it is used", || share() > 0.15);
}

#[test]
fn a_task_alone_is_not_disturbed() {
    let pool = pool(1, Duration::from_millis(1));
    let group = pool.enlist(Share::default());
    let tested = Tested::on(&group, |signals| {
        std::thread::sleep(Duration::from_millis(50));
        assert!(!signals.is_raised(Signal::Kick), "it was kicked");
        Turn::Again
    });
    until("it has run", || tested.turns() >= 3);
    let usage = group.usage(tested.id);
    assert_eq!((usage.switches, usage.quanta, usage.yields), (1, 0, 0));
}

#[test]
fn a_parked_task_occupies_no_worker_and_no_wake_up_is_lost() {
    let pool = pool(1, QUANTUM);
    let group = pool.enlist(Share::default());
    // Sixteen tasks, each waits for an interrupt and passes it on to the next.
    let all: Arc<Vec<Arc<Signals>>> = Arc::new((0..16).map(|_| Arc::default()).collect());
    let rounds = Arc::new(AtomicU64::new(0));
    for at in 0..16 {
        let (others, rounds) = (Arc::clone(&all), Arc::clone(&rounds));
        Tested::with(&group, &all[at], move |signals| {
            if !signals.is_raised(Signal::Intr) {
                return Turn::Park(INTR);
            }
            signals.clear(Signal::Intr);
            rounds.fetch_add(1, Ordering::SeqCst);
            others[(at + 1) % 16].raise(Signal::Intr);
            Turn::Again
        });
    }
    all[0].raise(Signal::Intr);
    until("100,000 are passed on", || rounds.load(Ordering::SeqCst) > 100_000);
}

#[test]
fn raises_from_outside_wake_always() {
    let pool = pool(2, QUANTUM);
    let group = pool.enlist(Share::default());
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            Tested::on(&group, |signals| {
                let up = signals.is_raised(Signal::Intr);
                signals.clear(Signal::Intr);
                if up { Turn::Again } else { Turn::Park(INTR) }
            })
        })
        .collect();
    for round in 0..20_000 {
        let task = &tasks[round % 3];
        task.signals.raise(Signal::Intr);
        until("it is taken", || !task.signals.is_raised(Signal::Intr));
    }
}

#[test]
fn a_held_group_runs_nothing() {
    let pool = pool(2, QUANTUM);
    let group = pool.enlist(Share::default());
    let inside = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..4)
        .map(|at| {
            let inside = Arc::clone(&inside);
            Tested::on(&group, move |signals| {
                inside.fetch_add(1, Ordering::SeqCst);
                while at % 2 == 0 && !signals.is_raised(Signal::Kick) {
                    std::hint::spin_loop();
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                signals.take_kicks();
                if at == 3 { Turn::Park(INTR.with(Signal::Kick)) } else { Turn::Again }
            })
        })
        .collect();
    for _ in 0..500 {
        group.hold();
        assert_eq!(inside.load(Ordering::SeqCst), 0);
        tasks[3].signals.kick(Kick::Command);
        let before: Vec<_> = tasks.iter().map(Tested::turns).collect();
        std::thread::yield_now();
        assert_eq!(inside.load(Ordering::SeqCst), 0);
        assert_eq!(before, tasks.iter().map(Tested::turns).collect::<Vec<_>>());
        group.release();
        until("it goes on", || tasks[0].turns() > before[0]);
    }
    drop(group);
    assert_eq!(inside.load(Ordering::SeqCst), 0);
}

#[test]
fn a_panic_ends_the_task_and_not_the_worker() {
    let pool = pool(1, QUANTUM);
    let group = pool.enlist(Share::default());
    let kept = Arc::new(());
    let held = Arc::clone(&kept);
    let bad = Tested::on(&group, move |_| panic!("this is a test {held:?}"));
    until("it is gone", || Arc::strong_count(&kept) == 1);
    let good = Tested::on(&group, |_| Turn::Park(SignalSet::EMPTY.with(Signal::Kick)));
    until("another runs", || good.turns() == 1);
    assert_eq!((bad.turns(), group.usage(bad.id).switches), (1, 1), "its account stays");
}

#[test]
fn a_spinning_task_gives_way_to_the_one_it_waits_for() {
    // Without yields each would spin a second long.
    let pool = pool(1, Duration::from_secs(1));
    let group = pool.enlist(Share::default());
    let turn = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let tasks: Vec<_> = (0..2)
        .map(|at| {
            let turn = Arc::clone(&turn);
            Tested::on(&group, move |_| {
                if turn.load(Ordering::SeqCst) % 2 != at {
                    return Turn::Yield(None);
                }
                turn.fetch_add(1, Ordering::SeqCst);
                Turn::Again
            })
        })
        .collect();
    until("they have taken turns", || turn.load(Ordering::SeqCst) > 1000);
    assert!(began.elapsed() < Duration::from_secs(10));
    let yields = |task: &Tested| group.usage(task.id).yields;
    assert!(tasks.iter().all(|task| yields(task) > 400));
}

#[test]
fn the_pool_ends_with_its_last_user() {
    let pool: Pool = pool(2, QUANTUM);
    assert_eq!(pool.workers(), 2);
    let group = pool.enlist(Share::default());
    let dropped = Arc::new(());
    let held = Arc::clone(&dropped);
    Tested::on(&group, move |_| {
        let _ = &held;
        Turn::Again
    });
    drop(pool);
    drop(group);
    assert_eq!(Arc::strong_count(&dropped), 1, "its tasks are gone");
}

/// What a switch costs, the tasks' own work aside. In release builds: under 2 µs (ADR 0028).
#[test]
fn a_switch_is_cheap() {
    let pool = pool(1, QUANTUM);
    let group = pool.enlist(Share::default());
    let tasks: Vec<_> = (0..2).map(|_| Tested::on(&group, |_| Turn::Yield(None))).collect();
    until("they have switched", || tasks[0].turns() > 1000);
    let (began, before) = (Instant::now(), tasks[0].turns() + tasks[1].turns());
    std::thread::sleep(Duration::from_millis(300));
    let switches = tasks[0].turns() + tasks[1].turns() - before;
    let each = began.elapsed() / u32::try_from(switches).expect("a few");
    println!("a switch takes {each:?}");
    assert!(each < Duration::from_micros(if cfg!(debug_assertions) { 40 } else { 8 }));
}
