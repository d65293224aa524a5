//! A processor as a task of the scheduler.

use crate::board::Board;
use crate::control::Control;
use crate::end::End;
use crate::processor::Turn;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use sync::lock;
use vcpu::Slice;

/// The processor of this number.
pub(crate) struct ProcessorTask {
    pub(crate) board: Arc<Board>,
    pub(crate) number: usize,
}

impl sched::Task for ProcessorTask {
    fn turn(&mut self) -> sched::Turn {
        let Self { board, number } = self;
        if board.control.is_over() {
            return sched::Turn::Ended;
        }
        let _guard = EndOnPanic(&board.control);
        let turn = lock(&board.processors[*number]).turn(Slice::UNTIL_KICKED, &board.ram);
        match turn {
            Turn::Again => sched::Turn::Again,
            Turn::Yield(to) => {
                let crew = board.control.crew();
                sched::Turn::Yield(crew.zip(to).and_then(|(crew, to)| crew.task(to)))
            }
            Turn::Park(set) => sched::Turn::Park(set),
            Turn::Ended(end) => {
                board.control.stop(end);
                sched::Turn::Ended
            }
        }
    }

    fn arrives(&mut self, steal: Duration) {
        let Self { board, number } = self;
        if let Err(why) = lock(&board.processors[*number]).arrives(steal) {
            board.control.stop(End::EngineFailed(why.to_string()));
        }
    }

    fn leaves(&mut self) {
        lock(&self.board.processors[self.number]).leaves();
    }
}

/// A panic in a turn is a defect of gemello's. The machine must not go on without this processor;
/// others of the process do.
struct EndOnPanic<'a>(&'a Control);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(End::EngineFailed("a processor's thread panicked".into()));
        }
    }
}
