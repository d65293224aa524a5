//! Everything that runs in the child after `fork`: setting up, the sandbox, the signal handler.
//!
//! **Rules of this file.** After the first case the thread pointer (FS base) is test state: no
//! thread-local storage, hence no libc wrapper that may set `errno`, no allocation, no lock, no
//! panic. The handler runs on its own stack with all signals blocked, so a fault inside it kills
//! the child, which the parent notices. System calls go through the two sites below; seccomp
//! refuses any other, whatever its number.
#![allow(unsafe_code)]

use super::Mailbox;
use super::ucontext::{Frame, XSAVE_SIZE};
use crate::case::{Case, layout};
use crate::derive::{Memory, Registers, template};
use crate::outcome::{Event, Outcome};
use std::arch::{asm, global_asm};
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

// oracle_signal_entry: arguments of a signal handler in RDI, RSI, RDX; the case's FS and GS bases
// become the fourth and fifth. AC must go before anything is accessed (the kernel clears only TF,
// DF and RF), NT and ID because POPF set them for the next case otherwise; selectors, because on
// some processors a later base load needs them null.
global_asm!(
    ".pushsection .text.oracle_child, \"ax\", @progbits",
    ".globl oracle_signal_entry",
    "oracle_signal_entry:",
    "push 0x202",
    "popfq",
    "rdfsbase rcx",
    "rdgsbase r8",
    "xor eax, eax",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "jmp {handler}",
    ".globl oracle_restorer",
    "oracle_restorer:",
    "mov eax, 15",
    "syscall",
    ".globl oracle_after_restorer",
    "oracle_after_restorer:",
    "ud2",
    ".globl oracle_syscall",
    "oracle_syscall:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "syscall",
    ".globl oracle_after_syscall",
    "oracle_after_syscall:",
    "ret",
    ".popsection",
    handler = sym on_signal,
);

unsafe extern "C" {
    fn oracle_signal_entry();
    fn oracle_restorer();
    fn oracle_after_restorer();
    fn oracle_syscall(number: i64, a: u64, b: u64, c: u64, d: u64) -> i64;
    fn oracle_after_syscall();
}

/// The descriptors that the child keeps.
const COMMANDS: i32 = 0;
const ANSWERS: i32 = 1;
/// User CPU time between two looks at whether a case makes no progress, in microseconds.
const TICK_MICROSECONDS: i64 = 10_000;

/// What the handler works on. Allocated before the fork, so that the child need not.
pub(super) struct ChildState {
    mailbox: *mut Mailbox,
    /// Memory as the running case found it.
    pristine: Memory,
    /// Seed whose template is in place, if any.
    template: *const crate::derive::Template,
    /// Where in the code page there is code.
    code_place: Range<usize>,
    /// Whether a case is running.
    running: bool,
    /// The width of its code.
    bits: u32,
    /// The base of its code segment.
    code_base: u64,
    /// The running case, counted since the start, and its number at the last tick.
    sequence: u64,
    sequence_at_tick: u64,
}

/// The handler's only way to its state.
pub(super) static STATE: AtomicPtr<ChildState> = AtomicPtr::new(null_mut());

impl ChildState {
    /// The state of a child that is about to be forked.
    pub(super) fn new(mailbox: *mut Mailbox) -> Box<Self> {
        // Built once here, in the parent: the child must not allocate.
        template(0);
        Box::new(Self {
            mailbox,
            pristine: Memory { bytes: [layout::FILL; Memory::SIZE] },
            template: null(),
            code_place: 0..0,
            running: false,
            bits: 64,
            code_base: 0,
            sequence: 0,
            sequence_at_tick: u64::MAX,
        })
    }
}

/// The child's whole life. `commands` and `answers` are its ends of the two pipes.
///
/// # Safety
/// Only in a freshly forked child with one thread; `state` is the child's own copy and its mailbox
/// is mapped shared.
pub(super) unsafe fn child_main(state: *mut ChildState, commands: i32, answers: i32) -> ! {
    STATE.store(state, Ordering::Relaxed);
    // SAFETY: plain system calls of a single-threaded process that owns its address space; the
    // fixed mappings replace nothing that this process uses later (its image, heap and stacks lie
    // far above 4 GiB).
    unsafe {
        let kept = keep_descriptors(commands, answers);
        let mapped = map_layout();
        describe_segments();
        if !(kept && mapped && install_handlers() && start_ticks() && install_filter()) {
            libc::_exit(2);
        }
        asm!("int3");
    }
    exit(3)
}

/// Moves the pipe ends to 0 and 1 and closes all other descriptors except standard error.
unsafe fn keep_descriptors(commands: i32, answers: i32) -> bool {
    // SAFETY: descriptor calls only. Both are duplicated away from 0 and 1 first, so neither
    // overwrites the other.
    unsafe {
        let c = libc::fcntl(commands, libc::F_DUPFD, 10);
        let a = libc::fcntl(answers, libc::F_DUPFD, 10);
        let moved = libc::dup2(c, COMMANDS) == COMMANDS && libc::dup2(a, ANSWERS) == ANSWERS;
        moved && libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) == 0
    }
}

/// Maps code, arena, read-only page and stack at their fixed addresses and removes whatever is
/// around them.
unsafe fn map_layout() -> bool {
    const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let map = |address: u64, size: u64, protection: i32| {
        let shared = if address == layout::ARENA { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        // SAFETY: fixed mappings below 4 GiB replace nothing that this process uses: its image,
        // heap and stacks lie far above (`child_main`).
        let got = unsafe {
            libc::mmap(
                address as *mut _,
                size as usize,
                protection,
                flags | shared | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        got as u64 == address
    };
    let span = layout::STACK + layout::STACK_SIZE + layout::PAGE - (layout::CODE - layout::PAGE);
    // SAFETY: the range lies below 4 GiB, where nothing of this process is (`child_main`).
    unsafe { libc::munmap((layout::CODE - layout::PAGE) as *mut _, span as usize) };
    if !(map(layout::CODE, layout::CODE_SIZE, RW | libc::PROT_EXEC)
        && map(layout::ARENA, layout::ARENA_SIZE, RW)
        && map(layout::READ_ONLY, layout::READ_ONLY_SIZE, RW)
        && map(layout::STACK, layout::STACK_SIZE, RW)
        && map_alias())
    {
        return false;
    }
    // SAFETY: the pages have just been mapped, writable, and nothing else refers to them.
    unsafe {
        (layout::CODE as *mut u8).write_bytes(layout::FILL, layout::CODE_SIZE as usize);
        let read_only = &template(0).read_only;
        (layout::READ_ONLY as *mut u8)
            .copy_from_nonoverlapping(read_only.as_ptr(), read_only.len());
        let size = layout::READ_ONLY_SIZE as usize;
        libc::mprotect(layout::READ_ONLY as *mut _, size, libc::PROT_READ) == 0
    }
}

/// Maps the arena's pages a second time, with nothing around them.
fn map_alias() -> bool {
    let size = layout::ARENA_SIZE as usize;
    let around = (layout::ALIAS - layout::PAGE) as *mut libc::c_void;
    // SAFETY: see `child_main`. With an old size of 0 the pages, which are shared, stay where they
    // are, too (mremap(2)).
    unsafe {
        libc::munmap(around, size + 2 * layout::PAGE as usize);
        let to = layout::ALIAS as *mut libc::c_void;
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let got = libc::mremap(layout::ARENA as *mut _, 0, size, how, to);
        // Present from the start, as all else is.
        got == to && libc::madvise(to, size, libc::MADV_POPULATE_WRITE) == 0
    }
}

/// `struct user_desc` of modify_ldt(2): flags from bit 0 on are 32-bit, two of contents, ..., limit
/// in pages (bit 4).
#[repr(C)]
struct UserDescriptor {
    number: u32,
    base: u32,
    limit: u32,
    flags: u32,
}

/// Makes the local descriptors of 16-bit code. A kernel without them leaves such cases out
/// (`crate::Features`).
fn describe_segments() {
    const WRITE: i32 = 0x11;
    const CODE: u32 = 2 << 1;
    const BIG_IN_PAGES: u32 = 1 | 1 << 4;
    let (code, data) = (layout::CODE as u32, layout::DATA_16_BASE as u32);
    let descriptors = [
        UserDescriptor { number: 0, base: code, limit: 0xffff, flags: CODE },
        UserDescriptor { number: 1, base: data, limit: 0xf_ffff, flags: BIG_IN_PAGES },
    ];
    for descriptor in &descriptors {
        let size = size_of::<UserDescriptor>();
        // SAFETY: the structure outlives the call, which copies it.
        unsafe { libc::syscall(libc::SYS_modify_ldt, WRITE, std::ptr::from_ref(descriptor), size) };
    }
}

/// `struct kernel_sigaction`; libc's own would bring its own restorer, which the filter does not
/// know.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

const SIGNALS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGVTALRM,
];

unsafe fn install_handlers() -> bool {
    const SA_RESTORER: u64 = 0x0400_0000;
    const STACK_SIZE: usize = 256 * 1024;
    let action = KernelAction {
        handler: oracle_signal_entry as *const () as usize,
        flags: libc::SA_SIGINFO as u64 | libc::SA_ONSTACK as u64 | SA_RESTORER,
        restorer: oracle_restorer as *const () as usize,
        mask: u64::MAX,
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a fresh mapping becomes the signal stack; the action's handler follows the rules of
    // this file.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let stack = libc::mmap(null_mut(), STACK_SIZE, protection, flags, -1, 0);
        let alternate = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK_SIZE };
        if stack == libc::MAP_FAILED || libc::sigaltstack(&raw const alternate, null_mut()) != 0 {
            return false;
        }
        let none = 0u64;
        let unblocked = libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            null_mut::<u64>(),
            8usize,
        );
        let set = |signal: i32| {
            let to = &raw const action;
            libc::syscall(libc::SYS_rt_sigaction, signal, to, null_mut::<u8>(), 8usize) == 0
        };
        unblocked == 0 && SIGNALS.into_iter().all(set)
    }
}

unsafe fn start_ticks() -> bool {
    let tick = libc::timeval { tv_sec: 0, tv_usec: TICK_MICROSECONDS };
    let timer = libc::itimerval { it_interval: tick, it_value: tick };
    // SAFETY: the kernel reads the structure, which outlives the call.
    unsafe {
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_VIRTUAL, &raw const timer, null_mut::<u8>())
            == 0
    }
}

/// From here on only `read`, `write` and `exit_group` at our one site and `rt_sigreturn` at the
/// other; anything else is SIGSYS, an outcome like others.
unsafe fn install_filter() -> bool {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ARCH_X86_64: u32 = 0xc000_003e;
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const IP_LOW: u32 = 8;
    const IP_HIGH: u32 = 12;
    let call = oracle_after_syscall as *const () as u64;
    let restore = oracle_after_restorer as *const () as u64;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Jump distances count from the next instruction; 14 is ALLOW, 13 is TRAP.
    let mut program = [
        op(LOAD, 0, 0, ARCH),
        op(JUMP_EQUAL, 0, 11, ARCH_X86_64),
        op(LOAD, 0, 0, IP_LOW),
        op(JUMP_EQUAL, 5, 0, restore as u32),
        op(JUMP_EQUAL, 0, 8, call as u32),
        op(LOAD, 0, 0, NUMBER),
        op(JUMP_EQUAL, 4, 0, libc::SYS_read as u32),
        op(JUMP_EQUAL, 3, 0, libc::SYS_write as u32),
        op(JUMP_EQUAL, 2, 4, libc::SYS_exit_group as u32),
        op(LOAD, 0, 0, NUMBER),
        op(JUMP_EQUAL, 0, 2, libc::SYS_rt_sigreturn as u32),
        op(LOAD, 0, 0, IP_HIGH),
        op(JUMP_EQUAL, 1, 0, (call >> 32) as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_TRAP),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program outlives the call, which copies it.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
    }
}

fn exit(status: u64) -> ! {
    loop {
        // SAFETY: exit_group has no preconditions and ends this process.
        unsafe { oracle_syscall(libc::SYS_exit_group, status, 0, 0, 0) };
    }
}

/// Tells the parent that the batch is done and waits for the next one; ends with the parent.
fn exchange_batch() {
    let mut byte = 0u8;
    let address = &raw mut byte as u64;
    // SAFETY: one byte from and to a local.
    let ok = unsafe {
        oracle_syscall(libc::SYS_write, ANSWERS as u64, address, 1, 0) == 1
            && oracle_syscall(libc::SYS_read, COMMANDS as u64, address, 1, 0) == 1
    };
    if !ok {
        exit(0);
    }
}

/// The signal handler proper; see the module's rules.
unsafe extern "C" fn on_signal(
    signal: i32,
    _info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
    fs_base: u64,
    gs_base: u64,
) {
    // SAFETY: STATE was set before any handler was installed and nothing else uses it while the
    // handler runs.
    let state = unsafe { &mut *STATE.load(Ordering::Relaxed) };
    if signal == libc::SIGVTALRM && state.sequence != state.sequence_at_tick {
        state.sequence_at_tick = state.sequence;
        set_segments(state.bits, fs_base, gs_base);
        return;
    }
    // SAFETY: the kernel built this frame on our stack: `gregs` is its register array, `fpregs`
    // points to an XSAVE area in standard form of at least XSAVE_SIZE bytes (the parent checked
    // that the host has AVX).
    let mut frame = unsafe {
        let machine = &mut (*context).uc_mcontext;
        Frame { gregs: &mut machine.gregs, xsave: &mut *machine.fpregs.cast::<[u8; XSAVE_SIZE]>() }
    };
    // SAFETY: the parent keeps its hands off the mailbox until we answer.
    let mailbox = unsafe { &mut *state.mailbox };
    if state.running {
        if let Some(outcome) = mailbox.outcomes.get_mut(mailbox.current as usize) {
            record(state, &frame, signal, outcome);
            (outcome.fs_base, outcome.gs_base) = (fs_base, gs_base);
        }
        mailbox.current += 1;
    }
    if !state.running || mailbox.current >= mailbox.count {
        state.running = true;
        exchange_batch();
        mailbox.current = mailbox.first;
    }
    if let Some(case) = mailbox.cases.get(mailbox.current as usize) {
        load(state, &mut frame, case);
        (state.bits, state.code_base) = (case.bits(), case.code_base());
        set_segments(state.bits, case.fs_base, case.gs_base);
    }
}

/// Records how the running case ended and restores memory.
fn record(state: &mut ChildState, frame: &Frame<'_>, signal: i32, outcome: &mut Outcome) {
    *outcome = Outcome::ZERO;
    outcome.event = match signal {
        libc::SIGVTALRM => Event { vector: Event::TIMEOUT, ..Event::default() },
        libc::SIGSYS => Event { vector: Event::SYSCALL, ..Event::default() },
        _ => frame.event(),
    };
    frame.record(outcome);
    outcome.rip = outcome.rip.wrapping_add(state.code_base);
    for (address, start, len) in Memory::PARTS {
        // SAFETY: mapped by `map_layout`; the case that wrote to it has ended.
        let actual = unsafe { std::slice::from_raw_parts(address as *const u8, len) };
        state.pristine.find_changes(start, actual, outcome, |offset, old| {
            // SAFETY: `offset` lies in the part; the slice above is not read at this word any more.
            unsafe { ((address + offset as u64) as *mut u64).write_volatile(old) };
        });
    }
}

/// Sets up `case` in memory and frame.
fn load(state: &mut ChildState, frame: &mut Frame<'_>, case: &Case) {
    const PAGE: usize = layout::PAGE as usize;
    state.sequence = state.sequence.wrapping_add(1);
    let wanted: *const _ = template(case.seed);
    // SAFETY: templates are static; the regions are mapped, and disjoint from them.
    unsafe {
        if wanted != state.template {
            let data = (*wanted).data.as_ptr();
            state.template = wanted;
            state.pristine.bytes.as_mut_ptr().add(PAGE).copy_from_nonoverlapping(data, 3 * PAGE);
            (layout::ARENA as *mut u8).copy_from_nonoverlapping(data, 2 * PAGE);
            (layout::STACK as *mut u8).copy_from_nonoverlapping(data.add(2 * PAGE), PAGE);
        }
        let code = state.pristine.bytes.as_ptr();
        for touched in state.pristine.replace_code(&mut state.code_place, case) {
            let to = (layout::CODE + touched.start as u64) as *mut u8;
            to.copy_from_nonoverlapping(code.add(touched.start), touched.len());
        }
    }
    frame.load(case, &Registers::of(case));
}

/// Loads the data segments of code of that many `bits`.
fn set_segments(bits: u32, fs_base: u64, gs_base: u64) {
    let selector = match bits {
        16 => layout::USER_DATA_16,
        32 => layout::USER_SS,
        _ => return set_bases(fs_base, gs_base),
    };
    // SAFETY: Linux's own user selector, or the local descriptor without which no 16-bit case runs;
    // nothing here uses FS or GS, and 64-bit code ignores DS and ES.
    unsafe {
        asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}",
            in(reg) u32::from(selector));
    }
}

/// Loads FS and GS bases, made canonical.
fn set_bases(fs_base: u64, gs_base: u64) {
    let canonical = |base: u64| (base as i64) << 16 >> 16;
    // SAFETY: the parent checked that these instructions are enabled; nothing here uses FS or GS.
    unsafe {
        asm!("wrfsbase {0}", "wrgsbase {1}", in(reg) canonical(fs_base),
            in(reg) canonical(gs_base));
    }
}
