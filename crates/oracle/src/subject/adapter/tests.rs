//! The adapter with a processor that knows four instructions, held against the native runner.

use super::*;
use crate::native::NativeRunner;
use crate::report::{compare, describe};
use crate::undefined::Mask;
use std::sync::Arc;
use std::time::Instant;
use test_support::Rng;
use vcpu::{CpuIo, SignalSet, Signals, StateError, Statistics};
use x86::addr::Gpa;

/// NOP, INT3, UD2, MOV \[RDI\], RAX, with paging and delivery written as plainly as possible.
struct Toy {
    ram: GuestRam,
    state: CpuState,
    /// A defect: the last byte of a store is lost.
    broken: bool,
}

struct Fault {
    vector: u64,
    code: u64,
}

impl Toy {
    fn new(ram: &GuestRam, broken: bool) -> Self {
        Self { ram: ram.clone(), state: CpuState::reset(), broken }
    }

    fn word(&self, gpa: u64) -> u64 {
        let mut raw = [0; 8];
        self.ram.read(Gpa(gpa), &mut raw).expect("tables are in RAM");
        u64::from_le_bytes(raw)
    }

    /// `code`: 2 for a write, 16 for a fetch, 4 for a user's.
    fn walk(&mut self, linear: u64, code: u64) -> Result<u64, Fault> {
        if (linear as i64) << 16 >> 16 != linear as i64 {
            return Err(Fault { vector: 13, code: 0 });
        }
        let mut entry = self.state.paging.cr3;
        let mut rights = 6;
        let mut no_execute = false;
        for level in [39, 30, 21, 12] {
            entry = self.word((entry & 0xf_ffff_f000) + (linear >> level) % 512 * 8);
            rights &= entry;
            no_execute |= entry >> 63 == 1;
            if entry & 1 == 0 {
                self.state.cr2 = linear;
                return Err(Fault { vector: 14, code });
            }
        }
        if rights & code & 6 != code & 6 || (no_execute && code & 16 != 0) {
            self.state.cr2 = linear;
            return Err(Fault { vector: 14, code: code | 1 });
        }
        Ok((entry & 0xf_ffff_f000) | (linear & 0xfff))
    }

    fn fetch(&mut self, at: u64) -> Result<u8, Fault> {
        let gpa = self.walk(self.state.rip.wrapping_add(at), 20)?;
        Ok(self.word(gpa & !7).to_le_bytes()[gpa as usize % 8])
    }

    fn step(&mut self) -> Result<(), Fault> {
        match self.fetch(0)? {
            0x90 => self.state.rip += 1,
            0xcc => {
                self.state.rip += 1;
                return Err(Fault { vector: 3, code: 0 });
            }
            0x48 => {
                self.fetch(1)?;
                self.fetch(2)?;
                let (to, value) = (self.state.gpr[7], self.state.gpr[0].to_le_bytes());
                // The last byte must be canonical before the first page is looked at.
                let end = to.wrapping_add(7) as i64;
                if end << 16 >> 16 != end {
                    return Err(Fault { vector: 13, code: 0 });
                }
                let first = self.walk(to, 6)?;
                let last = self.walk(to.wrapping_add(7), 6).inspect_err(|_| {
                    self.state.cr2 = (to + 7) & !0xfff;
                })?;
                let split = if first + 7 == last { 8 } else { (4096 - first % 4096) as usize };
                let count = if self.broken { split.min(7) } else { split };
                self.ram.write(Gpa(first), &value[..count]).expect("RAM");
                self.ram.write(Gpa(last - last % 4096), &value[split..]).expect("RAM");
                self.state.rip += 3;
            }
            _ => {
                self.fetch(1)?;
                return Err(Fault { vector: 6, code: 0 });
            }
        }
        Ok(())
    }

    fn deliver(&mut self, fault: &Fault) {
        let system = |toy: &mut Self, at: u64| {
            let gpa = toy.walk(at, 0).unwrap_or_else(|_| panic!("{at:#x} is mapped"));
            toy.word(gpa)
        };
        let idt = self.state.idtr.base + fault.vector * 16;
        let (low, high) = (system(self, idt), system(self, idt + 8));
        assert_eq!(low >> 40 & 0x9f, 0x8e, "a present interrupt gate");
        let handler = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        let mut stack = system(self, self.state.tr.base + 4);
        let cs = &self.state.seg[Seg::Cs as usize];
        let ss = &self.state.seg[Seg::Ss as usize];
        let rf = if fault.vector == 3 { 0 } else { 0x1_0000 };
        let mut frame = vec![
            u64::from(ss.selector),
            self.state.gpr[4],
            self.state.flags.bits() | rf,
            u64::from(cs.selector),
            self.state.rip,
        ];
        if fault.vector > 8 {
            frame.push(fault.code);
        }
        for value in frame {
            stack -= 8;
            let gpa = self.walk(stack, 2).unwrap_or_else(|_| panic!("the stack is mapped"));
            self.ram.write(Gpa(gpa), &value.to_le_bytes()).expect("RAM");
        }
        self.state.gpr[4] = stack;
        assert_eq!(system(self, handler) & 0xff, 0xf4);
        self.state.rip = handler + 1;
    }
}

impl Vcpu for Toy {
    fn run(&mut self, _io: &mut dyn CpuIo, slice: Slice) -> Exit {
        for _ in 0..slice.instructions {
            if let Err(fault) = self.step() {
                self.deliver(&fault);
                return Exit::Halted(SignalSet::EMPTY);
            }
        }
        Exit::SliceOver
    }
    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError> {
        state.assign(elements, &self.state);
        Ok(())
    }
    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError> {
        self.state.assign(elements, state);
        Ok(())
    }
    fn set_tsc_offset(&mut self, _: u64) {}
    fn signals(&self) -> Arc<Signals> {
        Arc::default()
    }
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

fn toy(broken: bool) -> VcpuSubject<Toy> {
    let ram = guest_ram().expect("guest RAM");
    VcpuSubject::new(Toy::new(&ram, broken), ram)
}

/// Cases made of the toy's four instructions, stores around every edge.
fn toy_case(rng: &mut Rng) -> Case {
    const EDGES: [u64; 6] = [
        layout::ARENA,
        layout::ARENA + layout::PAGE,
        layout::READ_ONLY,
        layout::STACK,
        layout::STACK + layout::STACK_SIZE,
        0x8000_0000_0000,
    ];
    let mut code = Vec::new();
    for _ in 0..rng.below(6) {
        code.extend_from_slice(match rng.below(5) {
            0 | 1 => &[0x90],
            2 => &[0x0f, 0x0b],
            _ => &[0x48, 0x89, 0x07],
        });
    }
    let mut case = Case::with_code(&code);
    case.gpr = std::array::from_fn(|_| rng.next());
    case.gpr[7] = rng.pick(&EDGES) + rng.below(40) * 8 - 160 + rng.below(2) * rng.below(8);
    case.seed = rng.next();
    case.rflags = 0x202 | rng.next() & 0x8d5;
    if rng.chance(10) {
        case.code_offset = 0xffd;
    }
    case
}

#[test]
fn a_processor_in_the_adapter_agrees_with_the_host() {
    let mut subject = toy(false);
    let mut native = NativeRunner::new().expect("native runner");
    let mut rng = Rng::new(11);
    for _ in 0..3000 {
        let case = toy_case(&mut rng);
        let differences = compare(&case, &native.run(&case), &subject.run(&case), &Mask::default());
        assert_eq!(differences, [], "{}", describe(&case, &differences));
    }
}

#[test]
fn a_defect_is_found_and_shrunk_to_its_instruction() {
    let mut subject = toy(true);
    let mut native = NativeRunner::new().expect("native runner");
    let mut rng = Rng::new(12);
    let mut wrong = |case: &Case| {
        !compare(case, &native.run(case), &subject.run(case), &Mask::default()).is_empty()
    };
    let found = (0..1000).map(|_| toy_case(&mut rng)).find(|case| wrong(case));
    let small = crate::shrink(&found.expect("the defect shows"), &mut wrong);
    assert_eq!(small.code(), [0x48, 0x89, 0x07]);
    assert!(small.gpr.iter().filter(|r| **r != 0).count() <= 2, "{:x?}", small.gpr);
    let replayed = Case::from_token(&small.to_token()).expect("token");
    assert!(wrong(&replayed));
}

/// Not a bound, a figure: `cargo test --release -p oracle adapter_rate -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn adapter_rate_by_hand() {
    let mut subject = toy(false);
    let mut rng = Rng::new(13);
    let cases: Vec<_> = (0..1000).map(|_| toy_case(&mut rng)).collect();
    let start = Instant::now();
    for case in cases.iter().cycle().take(200_000) {
        std::hint::black_box(subject.run(case));
    }
    println!("{:.0} cases a second", 200_000.0 / start.elapsed().as_secs_f64());
}
