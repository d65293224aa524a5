//! Created, running, paused, ended: what other threads ask of a machine while it runs.

mod support;

use machine::{ControlError, End, Lines, MachineHandle, Phase};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;
use support::{config, counting, machine};

const MOMENT: Duration = Duration::from_millis(20);

/// Runs a counting guest while `work` asks things of its machine, then ends it.
fn meanwhile(work: impl FnOnce(&MachineHandle, &AtomicU64)) -> End {
    let counter = Arc::new(AtomicU64::new(0));
    let mut machine = machine(&config(), Lines::default(), counting(&counter));
    let handle = machine.handle();
    assert_eq!(handle.phase(), Phase::Created);
    let end = thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        while counter.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        work(&handle, &counter);
        handle.stop(End::Interrupted);
        run.join().expect("the run")
    });
    assert_eq!(handle.phase(), Phase::Ended);
    assert_eq!(handle.pause(), Err(ControlError::Ended { attempt: "pause" }));
    assert_eq!(handle.resume(), Err(ControlError::Ended { attempt: "resume" }));
    end
}

#[test]
fn a_paused_machine_stands_still_and_goes_on() {
    let end = meanwhile(|handle, counter| {
        handle.pause().expect("it runs");
        assert_eq!(handle.phase(), Phase::Paused);
        let (at, now) = (counter.load(Ordering::SeqCst), handle.save(|s| s.now).expect("a state"));
        sleep(MOMENT);
        assert_eq!(counter.load(Ordering::SeqCst), at, "the processor runs on");
        assert_eq!(handle.save(|s| s.now).expect("a state"), now, "time goes on");
        handle.pause().expect("again, which changes nothing");
        handle.resume().expect("it is paused");
        assert_eq!(handle.phase(), Phase::Running);
        sleep(MOMENT);
        assert!(counter.load(Ordering::SeqCst) > at, "it has not gone on");
        let later = handle.save(|s| s.now).expect("a state");
        assert!(later > now, "time stands still");
        assert_eq!(handle.phase(), Phase::Running, "saving pauses for a moment only");
        let (saving, saved) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                handle.save(|_| {
                    saving.send(()).expect("somebody waits");
                    sleep(MOMENT);
                })
            });
            saved.recv().expect("it is saved");
            assert_eq!(handle.phase(), Phase::Running, "nobody has paused it");
        });
    });
    assert_eq!(end, End::Interrupted);
}

#[test]
fn a_machine_that_is_paused_before_it_runs_begins_so() {
    let counter = Arc::new(AtomicU64::new(0));
    let mut machine = machine(&config(), Lines::default(), counting(&counter));
    let handle = machine.handle();
    handle.pause().expect("not run yet");
    thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        sleep(MOMENT);
        assert_eq!(counter.load(Ordering::SeqCst), 0);
        handle.resume().expect("it is paused");
        while counter.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        handle.stop(End::PowerOff);
        assert_eq!(run.join().expect("the run"), End::PowerOff);
    });
}

#[test]
fn a_paused_machine_can_be_ended() {
    let end = meanwhile(|handle, _| handle.pause().expect("it runs"));
    assert_eq!(end, End::Interrupted);
}

#[test]
fn many_threads_ask_at_once() {
    let end = meanwhile(|handle, counter| {
        thread::scope(|scope| {
            for n in 0..4 {
                scope.spawn(move || {
                    for _ in 0..50 {
                        match n {
                            0 => handle.pause().and_then(|()| handle.resume()).expect("it runs"),
                            1 => {
                                assert_eq!(handle.save(|s| s.processors.len()), Ok(1));
                            }
                            _ => assert!(handle.stats().processors[0].exits.kicked > 0),
                        }
                    }
                });
            }
        });
        handle.resume().expect("it runs or is paused");
        let at = counter.load(Ordering::SeqCst);
        sleep(MOMENT);
        assert!(counter.load(Ordering::SeqCst) > at, "it has not gone on");
    });
    assert_eq!(end, End::Interrupted);
}
