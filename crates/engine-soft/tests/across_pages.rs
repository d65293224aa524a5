//! Accesses that share a check, the first on one page and the last on the next: each is checked by
//! itself, and translated code is not left for it.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::code_asm::*;
use memory::GuestRam;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu as _};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::state::gpr;

const CODE: u64 = 0x1_0000;
const TABLES: u64 = 0x1000;
const PAGE: u64 = 0x2_0000;
const TIMES: u32 = 100_000;

/// Which registers a region of the loop spills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spills {
    Usual,
    Others,
}

/// Adds up words to both sides of a page's end so many `TIMES`, to R9. `flags`: CF is needed behind
/// the accesses, and counted in R8.
fn program(spills: Spills, flags: bool) -> Vec<u8> {
    long_mode::assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(rsi, PAGE as i64 + 0xff8)?;
        a.set_label(&mut again)?;
        a.stc()?;
        let (left, right) = if spills == Spills::Usual { (rbx, rdi) } else { (r10, r11) };
        a.mov(left, qword_ptr(rsi))?;
        a.mov(right, qword_ptr(rsi + 8))?;
        if flags {
            a.adc(r8, 0)?;
        }
        a.add(r9, left)?;
        a.add(r9, right)?;
        if spills == Spills::Others {
            // Much used.
            (0..4).try_for_each(|_| a.xor(r10, r11))?;
            (0..4).try_for_each(|_| a.lea(r9, qword_ptr(r9)))?;
        }
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    })
}

#[test]
fn each_is_checked_by_itself_without_leaving() {
    let each = [Spills::Usual, Spills::Others].map(|spills| [(spills, false), (spills, true)]);
    for (spills, flags) in each.into_iter().flatten() {
        let ram = GuestRam::new(&[(Gpa(0), 4 << 20)]).expect("memory");
        let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
        (0..3).for_each(|level| put(TABLES + 0x1000 * level, (TABLES + 0x1000 * (level + 1)) | 3));
        (0..512).for_each(|page| put(TABLES + 0x3000 + 8 * page, page << 12 | 3));
        put(PAGE + 0xff8, 3);
        put(PAGE + 0x1000, 4);
        ram.write(Gpa(CODE), &program(spills, flags)).expect("in RAM");
        let model = CpuModel::gemello_v2();
        let mut vcpu = SoftVcpu::with_tier(ram, model, Tier::Translate, CODE_CACHE)
            .expect("the engine runs here");
        let mut state = long_mode::at(CODE, TABLES);
        state.gpr[gpr::RCX] = TIMES.into();
        vcpu.set(Elements::all(), &state).expect("a state");
        let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
        assert!(matches!(exit, Exit::Halted(_)), "{exit:?}");
        vcpu.get(Elements::all(), &mut state).expect("its state");
        let sums = [state.gpr[9], state.gpr[8]];
        assert_eq!(sums, [u64::from(TIMES) * 7, u64::from(TIMES) * u64::from(flags)]);
        let left = vcpu.statistics().translator.expect("it translates").tlb_misses;
        assert!(left < 100, "{spills:?}, flags {flags}: left {left} times");
    }
}
