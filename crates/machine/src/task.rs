//! A processor as a task of the scheduler.

use crate::board::Board;
use crate::end::End;
use crate::processor::{Processor, Turn};
use host::Owner;
use std::sync::Arc;
use std::time::Duration;
use sync::lock;
use vcpu::Slice;

/// The processor of this number.
pub(crate) struct ProcessorTask {
    pub(crate) board: Arc<Board>,
    pub(crate) number: usize,
    /// Ends the machine where a turn panics: others of the process go on.
    pub(crate) owner: Owner,
}

impl ProcessorTask {
    /// `None`: the machine has ended, by a defect.
    fn in_the_machines_name<T>(&self, work: impl FnOnce(&mut Processor) -> T) -> Option<T> {
        let Self { board, number, owner } = self;
        owner.run(|| work(&mut lock(&board.processors[*number])))
    }
}

impl sched::Task for ProcessorTask {
    fn turn(&mut self) -> sched::Turn {
        let board = &self.board;
        if board.control.is_over() {
            return sched::Turn::Ended;
        }
        match self.in_the_machines_name(|it| it.turn(Slice::UNTIL_KICKED, &board.ram)) {
            Some(Turn::Again) => sched::Turn::Again,
            Some(Turn::Yield(to)) => {
                let crew = board.control.crew();
                sched::Turn::Yield(crew.zip(to).and_then(|(crew, to)| crew.task(to)))
            }
            Some(Turn::Park(set)) => sched::Turn::Park(set),
            Some(Turn::Ended(end)) => {
                board.control.stop(end);
                sched::Turn::Ended
            }
            None => sched::Turn::Ended,
        }
    }

    fn arrives(&mut self, steal: Duration) {
        if let Some(Err(why)) = self.in_the_machines_name(|it| it.arrives(steal)) {
            self.board.control.stop(End::EngineFailed(why.to_string()));
        }
    }

    fn leaves(&mut self) {
        self.in_the_machines_name(Processor::leaves);
    }
}
