//! Everything the nucleus knows, in one place, and the life and death of processes.

use crate::acpi::{PowerButton, SoftOff};
use crate::boot_info::BootInfo;
use crate::cpu::Features;
use crate::elf;
use crate::frames::Frames;
use crate::line::Lines;
use crate::physical::Frame;
use crate::process::{Context, End, Pid, Process, Region, Source, State, Usage, Wait};
use crate::programs::PROGRAMS;
use crate::sched::{QUANTUM, Turn};
use crate::semaphore::Semaphores;
use crate::swap::Swap;
use crate::{cpu, paging};
use abi::Error;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

/// Top of a program's stack, and how far down it may grow; the page below is never given to anyone.
pub const STACK_TOP: u64 = 0x7FFF_FFFF_0000;
pub const STACK_SIZE: u64 = 256 << 10;
/// Memory that programs ask for begins here.
pub const MAP_START: u64 = 0x10_0000_0000;
/// Processes at one time.
const PROCESSES: usize = 128;

pub struct Kernel {
    pub info: BootInfo,
    pub features: Features,
    pub frames: Frames,
    /// The table that is in use while no process's is.
    pub root: Frame,
    pub processes: BTreeMap<Pid, Process>,
    pub ready: VecDeque<Pid>,
    pub next_pid: Pid,
    /// Microseconds.
    pub quantum: u64,
    /// Pages copied because a sharer wrote.
    pub copies: u64,
    pub last_pid: Pid,
    pub switches: u64,
    pub idle_tsc: u64,
    pub timeline: VecDeque<Turn>,
    /// By vector.
    pub interrupts: [u64; 256],
    pub semaphores: Semaphores,
    pub swap: Swap,
    /// Frames with pages of programs that no one may write, shared by all who run the program.
    pub text: BTreeMap<(usize, u64), Frame>,
    pub lines: Lines,
    /// The process that the console's input goes to; 0: the shell.
    pub foreground: Pid,
    /// Microseconds from the first instruction in Rust until the nucleus was ready.
    pub boot_time: u64,
    /// Tests end processes on purpose: no reports then.
    pub quiet: bool,
    pub soft_off: Option<SoftOff>,
    pub power_button: Option<PowerButton>,
}

impl Kernel {
    pub fn new(info: BootInfo, features: Features, frames: Frames, root: Frame) -> Self {
        Self {
            info,
            features,
            frames,
            root,
            processes: BTreeMap::new(),
            ready: VecDeque::new(),
            next_pid: 1,
            quantum: QUANTUM,
            copies: 0,
            last_pid: 0,
            switches: 0,
            idle_tsc: 0,
            timeline: VecDeque::new(),
            interrupts: [0; 256],
            semaphores: Semaphores::default(),
            swap: Swap::default(),
            text: BTreeMap::new(),
            lines: Lines::default(),
            foreground: 0,
            boot_time: 0,
            quiet: false,
            soft_off: None,
            power_button: None,
        }
    }

    /// Starts a program. Nothing of it is loaded: its first instruction is a page fault.
    pub fn spawn(&mut self, name: &str, argument: &[u8], parent: Pid) -> Result<Pid, Error> {
        let program = PROGRAMS.iter().position(|p| p.name == name).ok_or(Error::NoProgram)?;
        let (entry, mut regions) = elf::regions(program).ok_or(Error::NoProgram)?;
        regions.push(Region {
            start: STACK_TOP - STACK_SIZE,
            end: STACK_TOP,
            write: true,
            execute: false,
            source: Source::Zero,
            name: "stack",
        });
        let argument_at = (STACK_TOP - argument.len() as u64) & !15;
        let mut context = Box::new(Context::new(entry, argument_at - 16));
        context.frame.rdi = argument_at;
        context.frame.rsi = argument.len() as u64;
        let pid = self.add(context, regions, name.into(), parent)?;
        if self.copy_out(pid, argument_at, argument).is_err() {
            self.end(pid, End::OutOfMemory);
            self.processes.remove(&pid);
            return Err(Error::NoMemory);
        }
        Ok(pid)
    }

    /// A new descriptor with an empty address space, at the end of the ready queue.
    pub fn add(
        &mut self,
        context: Box<Context>,
        regions: Vec<Region>,
        name: String,
        parent: Pid,
    ) -> Result<Pid, Error> {
        if self.processes.len() >= PROCESSES {
            return Err(Error::Limit);
        }
        let root = self.take_frame().ok_or(Error::NoMemory)?;
        paging::user_root(self.root, root);
        let pid = self.next_pid;
        self.next_pid += 1;
        let process = Process {
            context,
            pid,
            parent,
            name,
            state: State::Ready,
            root,
            regions,
            usage: Usage::default(),
            debt: 0,
            mailbox: VecDeque::new(),
        };
        self.processes.insert(pid, process);
        self.ready.push_back(pid);
        Ok(pid)
    }

    /// Ends a process: all that it had goes back; the descriptor stays until the parent has asked
    /// how it ended.
    pub fn end(&mut self, pid: Pid, end: End) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if matches!(process.state, State::Ended(_)) {
            return;
        }
        process.state = State::Ended(end);
        process.mailbox.clear();
        let (root, parent) = (process.root, process.parent);
        self.ready.retain(|&other| other != pid);
        self.release_pages(pid, 0..paging::USER_END);
        if cpu::cr3() == root.0 {
            cpu::set_cr3(self.root.0);
        }
        paging::free_tables(root, &mut self.frames);
        self.semaphores.forget(pid);
        for orphan in self.semaphores.take_released() {
            self.finish_wait(orphan, Error::Invalid as i64);
        }
        self.disown_children(pid);
        self.wake(|wait| wait == Wait::Room(pid));
        self.wake_parent(parent);
    }

    fn wake_parent(&mut self, parent: Pid) {
        if let Some(process) = self.processes.get_mut(&parent)
            && process.state == State::Blocked(Wait::Child)
        {
            process.state = State::Ready;
            self.ready.push_back(parent);
        }
    }

    /// The children of an ended process: nobody will ask about them any more.
    fn disown_children(&mut self, parent: Pid) {
        self.processes.retain(|_, p| p.parent != parent || !matches!(p.state, State::Ended(_)));
        for child in self.processes.values_mut().filter(|p| p.parent == parent) {
            child.parent = Pid::MAX;
        }
        self.forget_disowned();
    }

    fn forget_disowned(&mut self) {
        self.processes.retain(|_, p| p.parent != Pid::MAX || !matches!(p.state, State::Ended(_)));
    }

    /// The wait of a blocked process is over, with this result of its system call.
    pub fn finish_wait(&mut self, pid: Pid, result: i64) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.context.frame.rax = result as u64;
            process.state = State::Ready;
            self.ready.push_back(pid);
        }
    }

    /// How a child ended, if one has; then nothing is left of it.
    pub fn reap(&mut self, parent: Pid, child: Option<Pid>) -> Option<(Pid, End)> {
        let ended = |p: &Process| match p.state {
            State::Ended(end) if p.parent == parent && child.is_none_or(|c| c == p.pid) => {
                Some((p.pid, end))
            }
            _ => None,
        };
        let found = self.processes.values().find_map(ended)?;
        self.processes.remove(&found.0);
        Some(found)
    }

    /// Lets everything run until a process of the nucleus's own has ended; gives its usage too.
    pub fn wait_for(&mut self, pid: Pid) -> (End, Usage) {
        let has_ended =
            |k: &Kernel| k.processes.get(&pid).is_none_or(|p| matches!(p.state, State::Ended(_)));
        self.run_until(has_ended);
        let usage = self.processes.get(&pid).map(|p| p.usage).unwrap_or_default();
        self.forget_disowned();
        let end = self.reap(0, Some(pid)).map_or(End::Killed, |(_, end)| end);
        (end, usage)
    }
}
