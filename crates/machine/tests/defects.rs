//! A panic in work for one machine ends that machine, whichever thread it is in; another one on the
//! same workers goes on.

mod support;

use machine::console::{Input, Line};
use machine::{End, Lines, Machine};
use rustix::fd::BorrowedFd;
use sched::{Pool, Share};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{Step, config, counting, halt, machine, step};
use x86::addr::{Port, PortWidth};

/// Panics at whatever it is asked.
struct Unsound;

impl Input for Unsound {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        panic!("an input's defect")
    }

    fn read(&mut self) -> Result<(), End> {
        Ok(())
    }

    fn take(&mut self, _room: usize) -> Vec<u8> {
        Vec::new()
    }
}

impl Write for Unsound {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        panic!("an output's defect")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn with_com1(com1: Line) -> Lines {
    Lines { com1, ..Lines::default() }
}

/// Writes a byte to COM1, then halts for ever.
fn says() -> Vec<Step> {
    vec![step(|guest| {
        guest.io.pio_write(Port(0x3F8), PortWidth::B1, 0x61);
        halt(guest)
    })]
}

/// How `faulty` ends beside a machine that works, which works on then.
fn ends_alone(mut faulty: Machine) -> End {
    let pool = Pool::new(NonZeroUsize::MIN, Duration::from_millis(1)).expect("threads");
    let counter: Arc<AtomicU64> = Arc::default();
    let mut sound = machine(&config(), Lines::default(), counting(&counter));
    for it in [&mut faulty, &mut sound] {
        it.set_pool(pool.clone(), Share::default());
    }
    let handle = sound.handle();
    thread::scope(|scope| {
        let sound = scope.spawn(move || sound.run());
        let end = faulty.run();
        let (seen, began) = (counter.load(Ordering::SeqCst), Instant::now());
        while counter.load(Ordering::SeqCst) <= seen {
            assert!(began.elapsed() < Duration::from_secs(60), "the other machine stands still");
            thread::sleep(Duration::from_millis(1));
        }
        handle.stop(End::PowerOff);
        assert_eq!(sound.join().expect("the run"), End::PowerOff);
        end
    })
}

fn defect(words: &str) -> End {
    End::Defect(words.into())
}

#[test]
fn a_panic_in_a_processors_turn() {
    let script = vec![step(|_| panic!("a processor's defect"))];
    let faulty = machine(&config(), Lines::default(), script);
    assert_eq!(ends_alone(faulty), defect("a processor's defect"));
}

#[test]
fn a_panic_in_the_io_thread() {
    let line = Line { input: Some(Box::new(Unsound)), output: None };
    let faulty = machine(&config(), with_com1(line), vec![]);
    assert_eq!(ends_alone(faulty), defect("an input's defect"));
}

#[test]
fn a_panic_in_an_outputs_thread() {
    let line = Line { input: None, output: Some(Box::new(Unsound)) };
    let faulty = machine(&config(), with_com1(line), says());
    assert_eq!(ends_alone(faulty), defect("an output's defect"));
}
