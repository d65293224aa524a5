//! System calls: one table, whichever way they come (INT 80H through a gate of level 3, or
//! SYSCALL).
//!
//! Nothing that a process passes is believed: addresses go through memory.rs, numbers are checked.
//! A call that has to wait leaves its process blocked; when the wait is over, either the result has
//! been put into its RAX, or its return address points to the trap instruction again (both are two
//! bytes long) and the call is made once more.

use crate::kernel::{Kernel, MAP_START};
use crate::memory::Refusal;
use crate::paging::USER_END;
use crate::physical::PAGE;
use crate::process::{End, Message, Pid, Region, Source, State, Wait};
use crate::sched::Reason;
use crate::{clock, console};
use abi::{Error, MESSAGE_MAX, call, end, info, rights};
use alloc::vec::Vec;

/// Length of INT 80H and of SYSCALL.
const TRAP_LENGTH: u64 = 2;
/// What a process may write or name at once; longer requests are cut.
const CHUNK: u64 = 4096;
/// Messages that a mailbox holds.
const MAILBOX: usize = 16;
/// Regions of a process, and bytes that it may map at once.
const REGIONS: usize = 64;
const MAP_MAX: u64 = 1 << 30;

/// How a call goes on.
enum Outcome {
    Done(u64),
    /// Try again when this is over.
    Retry(Wait),
    /// Whoever ends the wait leaves the result.
    Wait(Wait),
    Yield,
    Ended,
}

type Handler = fn(&mut Kernel, Pid, [u64; 4]) -> Result<Outcome, Error>;

/// The table.
const HANDLERS: [Handler; call::COUNT] = {
    let mut table: [Handler; call::COUNT] = [|_, _, _| Err(Error::NoCall); call::COUNT];
    table[call::EXIT as usize] = exit;
    table[call::WRITE as usize] = write;
    table[call::READ as usize] = read;
    table[call::SPAWN as usize] = spawn;
    table[call::FORK as usize] = |k, pid, _| Ok(Outcome::Done(k.fork(pid)?.into()));
    table[call::WAIT as usize] = wait;
    table[call::SLEEP as usize] = sleep;
    table[call::YIELD as usize] = |_, _, _| Ok(Outcome::Yield);
    table[call::MAP as usize] = map;
    table[call::UNMAP as usize] = unmap;
    table[call::GETPID as usize] = |_, pid, _| Ok(Outcome::Done(pid.into()));
    table[call::TIME as usize] = |_, _, _| Ok(Outcome::Done(clock::microseconds()));
    table[call::SEM_CREATE as usize] = sem_create;
    table[call::SEM_WAIT as usize] = sem_wait;
    table[call::SEM_SIGNAL as usize] = sem_signal;
    table[call::SEND as usize] = send;
    table[call::RECEIVE as usize] = receive;
    table[call::INFO as usize] = figure;
    table
};

impl Kernel {
    /// Serves the call that the process's registers describe. Tells whether its turn is over.
    pub fn system_call(&mut self, pid: Pid) -> Option<Reason> {
        let process = self.processes.get_mut(&pid)?;
        process.usage.calls += 1;
        let frame = &process.context.frame;
        let arguments = [frame.rdi, frame.rsi, frame.rdx, frame.r10];
        let outcome = match HANDLERS.get(usize::try_from(frame.rax).unwrap_or(usize::MAX)) {
            Some(handler) => handler(self, pid, arguments),
            None => Err(Error::NoCall),
        };
        let outcome = outcome.unwrap_or_else(|error| Outcome::Done(error as i64 as u64));
        let Some(process) = self.processes.get_mut(&pid) else { return Some(Reason::Ended) };
        let frame = &mut process.context.frame;
        match outcome {
            Outcome::Done(result) => {
                frame.rax = result;
                return None;
            }
            Outcome::Yield => {
                frame.rax = 0;
                return Some(Reason::Yield);
            }
            Outcome::Retry(wait) => {
                frame.rip -= TRAP_LENGTH;
                process.state = State::Blocked(wait);
            }
            Outcome::Wait(wait) => {
                frame.rax = 0;
                process.state = State::Blocked(wait);
            }
            Outcome::Ended => return Some(Reason::Ended),
        }
        Some(Reason::Blocked)
    }

    /// Bytes from the caller's memory.
    fn argument(&mut self, pid: Pid, address: u64, length: u64) -> Result<Vec<u8>, Error> {
        if length > CHUNK {
            return Err(Error::Invalid);
        }
        let mut bytes = alloc::vec![0; length as usize];
        self.copy_in(pid, address, &mut bytes)?;
        Ok(bytes)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAllowed => Error::BadPointer,
            Refusal::NoMemory => Error::NoMemory,
        }
    }
}

fn exit(k: &mut Kernel, pid: Pid, [code, ..]: [u64; 4]) -> Result<Outcome, Error> {
    k.end(pid, End::Exit(code as i32));
    Ok(Outcome::Ended)
}

fn write(k: &mut Kernel, pid: Pid, [at, length, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let bytes = k.argument(pid, at, length.min(CHUNK))?;
    if !k.quiet {
        k.lines.hide();
        console::text_out(&bytes);
        if k.lines.prompting && bytes.last() != Some(&b'\n') {
            console::text_out(b"\n");
        }
        k.lines.unhide();
    }
    Ok(Outcome::Done(bytes.len() as u64))
}

fn read(k: &mut Kernel, pid: Pid, [at, length, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let mine = k.foreground == pid;
    let Some(line) = k.lines.first().filter(|_| mine) else {
        return Ok(Outcome::Retry(Wait::Line));
    };
    let bytes: Vec<u8> = line.bytes().take(length as usize).collect();
    k.copy_out(pid, at, &bytes)?;
    k.lines.take();
    Ok(Outcome::Done(bytes.len() as u64))
}

fn spawn(k: &mut Kernel, pid: Pid, [name, n, arg, m]: [u64; 4]) -> Result<Outcome, Error> {
    let (name, argument) = (k.argument(pid, name, n)?, k.argument(pid, arg, m)?);
    let name = core::str::from_utf8(&name).map_err(|_| Error::NoProgram)?;
    Ok(Outcome::Done(k.spawn(name, &argument, pid)?.into()))
}

fn wait(k: &mut Kernel, pid: Pid, [child, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let child = (child != 0).then_some(child as Pid);
    if let Some((child, how)) = k.reap(pid, child) {
        return Ok(Outcome::Done(u64::from(child) << 32 | encode(how)));
    }
    let mine = |p: &crate::process::Process| p.parent == pid && child.is_none_or(|c| c == p.pid);
    if !k.processes.values().any(mine) {
        return Err(Error::NoProcess);
    }
    Ok(Outcome::Retry(Wait::Child))
}

fn encode(how: End) -> u64 {
    match how {
        End::Exit(code) => u64::from(code as u8),
        End::Exception { vector, .. } => end::EXCEPTION + u64::from(vector),
        End::Killed => end::KILLED,
        End::OutOfMemory => end::OUT_OF_MEMORY,
    }
}

fn sleep(_: &mut Kernel, _: Pid, [microseconds, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let until = clock::microseconds().saturating_add(microseconds.min(1 << 40));
    Ok(Outcome::Wait(Wait::Until(until)))
}

fn map(k: &mut Kernel, pid: Pid, [length, wanted, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let process = k.processes.get_mut(&pid).ok_or(Error::NoProcess)?;
    if length == 0 || length > MAP_MAX || wanted & !(rights::WRITE | rights::EXECUTE) != 0 {
        return Err(Error::Invalid);
    }
    if process.regions.len() >= REGIONS {
        return Err(Error::Limit);
    }
    // After the last region of this kind, one page left out: an overrun meets nothing.
    let last = process.regions.iter().filter(|r| r.name == "map").map(|r| r.end + PAGE).max();
    let start = last.unwrap_or(MAP_START);
    let end = start + length.next_multiple_of(PAGE);
    if end >= crate::kernel::STACK_TOP - crate::kernel::STACK_SIZE - PAGE {
        return Err(Error::NoMemory);
    }
    process.regions.push(Region {
        start,
        end,
        write: wanted & rights::WRITE != 0,
        execute: wanted & rights::EXECUTE != 0,
        source: Source::Zero,
        name: "map",
    });
    Ok(Outcome::Done(start))
}

fn unmap(k: &mut Kernel, pid: Pid, [start, length, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let end = start.checked_add(length).ok_or(Error::Invalid)?.next_multiple_of(PAGE);
    if start % PAGE != 0 || length == 0 || end > USER_END {
        return Err(Error::Invalid);
    }
    let process = k.processes.get_mut(&pid).ok_or(Error::NoProcess)?;
    let exact = |r: &Region| r.name == "map" && r.start == start && r.end == end;
    let index = process.regions.iter().position(exact).ok_or(Error::Invalid)?;
    process.regions.remove(index);
    k.release_pages(pid, start..end);
    Ok(Outcome::Done(0))
}

fn sem_create(k: &mut Kernel, pid: Pid, [count, ..]: [u64; 4]) -> Result<Outcome, Error> {
    Ok(Outcome::Done(k.semaphores.create(pid, count).ok_or(Error::Limit)?))
}

fn sem_wait(k: &mut Kernel, pid: Pid, [id, ..]: [u64; 4]) -> Result<Outcome, Error> {
    match k.semaphores.wait(id, pid).ok_or(Error::Invalid)? {
        true => Ok(Outcome::Done(0)),
        false => Ok(Outcome::Wait(Wait::Semaphore(id))),
    }
}

fn sem_signal(k: &mut Kernel, _: Pid, [id, ..]: [u64; 4]) -> Result<Outcome, Error> {
    if let Some(next) = k.semaphores.signal(id).ok_or(Error::Invalid)? {
        k.finish_wait(next, 0);
    }
    Ok(Outcome::Done(0))
}

fn send(k: &mut Kernel, pid: Pid, [to, at, length, ..]: [u64; 4]) -> Result<Outcome, Error> {
    if length > MESSAGE_MAX as u64 {
        return Err(Error::Invalid);
    }
    let bytes = k.argument(pid, at, length)?;
    let to = Pid::try_from(to).map_err(|_| Error::NoProcess)?;
    let receiver = k.processes.get_mut(&to).ok_or(Error::NoProcess)?;
    if matches!(receiver.state, State::Ended(_)) {
        return Err(Error::NoProcess);
    }
    if receiver.mailbox.len() >= MAILBOX {
        return Ok(Outcome::Retry(Wait::Room(to)));
    }
    receiver.mailbox.push_back(Message { sender: pid, bytes });
    if receiver.state == State::Blocked(Wait::Message) {
        receiver.state = State::Ready;
        k.ready.push_back(to);
    }
    Ok(Outcome::Done(0))
}

fn receive(k: &mut Kernel, pid: Pid, [at, length, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let process = k.processes.get_mut(&pid).ok_or(Error::NoProcess)?;
    let Some(message) = process.mailbox.front() else { return Ok(Outcome::Retry(Wait::Message)) };
    let sender = message.sender;
    let bytes: Vec<u8> = message.bytes.iter().copied().take(length as usize).collect();
    k.copy_out(pid, at, &bytes)?;
    if let Some(process) = k.processes.get_mut(&pid) {
        process.mailbox.pop_front();
    }
    k.wake(|wait| wait == Wait::Room(pid));
    Ok(Outcome::Done(u64::from(sender) << 32 | bytes.len() as u64))
}

fn figure(k: &mut Kernel, pid: Pid, [what, ..]: [u64; 4]) -> Result<Outcome, Error> {
    let process = k.processes.get(&pid).ok_or(Error::NoProcess)?;
    Ok(Outcome::Done(match what {
        info::SWITCHES => k.switches,
        info::FAULTS => process.usage.faults,
        info::FREE_FRAMES => k.frames.free(),
        info::FRAMES => k.frames.limit(),
        info::AVX => k.features.avx.into(),
        _ => return Err(Error::Invalid),
    }))
}
