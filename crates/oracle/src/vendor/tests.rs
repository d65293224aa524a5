//! Each excuse, and what it does not excuse.

use super::*;
use x86::addr::La;

#[test]
fn amd_wants_the_word_of_a_bit_string_canonical_before_the_base() {
    // lock btr [gs:r11+rcx], r14d, which begins at the lowest canonical address of the upper half
    let mut case = Case::with_code(&[0x65, 0xf0, 0x45, 0x0f, 0xb3, 0x34, 0x0b]);
    (case.gpr[1], case.gpr[11]) = (0x1c, 0xffff_7fff_ffff_ffe4);
    let ended = |case: &Case, vector| {
        let mut outcome = Outcome::ended(vector, 0);
        (outcome.gpr, outcome.rip) = (case.gpr, case.rip());
        outcome
    };
    // Bit -1 is in the word before, bit 1 is not.
    case.gpr[14] = u64::MAX;
    let (native, subject) = (ended(&case, 13), ended(&case, 14));
    assert_eq!(known_difference(&native, &subject, &case).is_some(), is_amd());
    case.gpr[14] = 1;
    let (native, subject) = (ended(&case, 13), ended(&case, 14));
    assert_eq!(known_difference(&native, &subject, &case), None);
}

#[test]
fn an_opmask_instruction_may_be_undefined_and_nothing_else() {
    // kandnb k5, k1, k6 but for the top bit of VEX.vvvv, as Zen 4 runs it and as #UD.
    let opmask = Case::with_code(&[0xc5, 0xb5, 0x42, 0xee]);
    let mut subject = Outcome::ended(6, 0);
    subject.rip = opmask.rip();
    let mut native = Outcome::ended(3, 0);
    native.rip = opmask.rip() + 4;
    assert!(known_difference(&native, &subject, &opmask).is_some());
    // Not the other way round, not elsewhere, not with another ending, nor another instruction:
    // vmovaps xmm0, xmm0.
    assert_eq!(known_difference(&subject, &native, &opmask), None);
    subject.rip += 4;
    assert_eq!(known_difference(&native, &subject, &opmask), None);
    subject.rip -= 4;
    subject.event.vector = 13;
    assert_eq!(known_difference(&native, &subject, &opmask), None);
    subject.event.vector = 6;
    let move_ = Case::with_code(&[0xc5, 0xf8, 0x28, 0xc0]);
    assert_eq!(known_difference(&native, &subject, &move_), None);
}

#[test]
fn a_call_that_does_not_reach_its_target_may_have_pushed_and_nothing_else() {
    let indirect = Case::with_code(&[0xff, 0xd0]); // call rax
    let mut wide = Case::with_code(&[0x66, 0xe8, 0, 0, 1, 0]); // call beyond 64 KiB
    (wide.bitness, wide.gpr[4]) = (16, 0); // it pushes to the arena's alias
    let jump = Case::with_code(&[0xff, 0xe0]);
    let below = indirect.gpr[4] - 8;
    let arena = layout::ARENA + layout::PAGE - 8;
    for (case, pushed, so) in
        [(&indirect, below, true), (&wide, arena, true), (&jump, below, false)]
    {
        let mut native = Outcome::ended(13, 0);
        (native.gpr, native.rip) = (case.gpr, case.rip());
        let mut subject = native;
        let excused = |native: &Outcome, subject: &Outcome| {
            let both = [(native, subject), (subject, native)];
            both.map(|(native, subject)| known_difference(native, subject, case).is_some())
        };
        let note = |to: &mut Outcome, address| {
            to.changed = 1;
            to.changes[0] = Change { address: La(address), value: case.rip() + 2 };
        };
        note(&mut subject, pushed);
        assert_eq!(excused(&native, &subject), [so; 2], "{:x?}", case.code());
        note(&mut subject, pushed - 8);
        assert_eq!(excused(&native, &subject), [false; 2], "elsewhere");
        note(&mut subject, pushed);
        subject.gpr[4] = pushed;
        assert_eq!(excused(&native, &subject), [false; 2], "the stack's pointer");
    }
}

#[test]
fn an_images_last_byte_may_be_found_by_itself() {
    let (fldenv, fld) = ([0x67, 0xd9, 0x20], [0x67, 0xdb, 0x28]); // [eax]
    for (code, so) in [(fldenv, true), (fld, false)] {
        let mut case = Case::with_code(&code);
        case.gpr[0] = 0xffff_ffe5;
        let mut native = Outcome::ended(14, 4);
        (native.gpr, native.rip) = (case.gpr, case.rip());
        let mut subject = native;
        (subject.rip, subject.event.vector) = (case.rip() + 3, 3);
        assert_eq!(known_difference(&native, &subject, &case).is_some(), so);
        native.event.cr2 = 1;
        assert_eq!(known_difference(&native, &subject, &case), None);
    }
}

#[test]
fn amd_stops_at_vectors_out_of_alignment() {
    // movups xmm0, [rsi]; mov rax, [rsi]
    let (vector, word) = ([0x0f, 0x10, 0x06], [0x48, 0x8b, 0x06]);
    for (code, so) in [(vector, is_amd()), (word, false)] {
        let case = Case::with_code(&code);
        let mut native = Outcome::ended(17, 0);
        native.rip = case.rip();
        assert_eq!(stopped_early(&case, &native), so);
    }
}

#[test]
fn a_hypercall_in_disguise_may_be_refused_otherwise() {
    for (code, so) in [([0x66, 0x0f, 0x01, 0xc1], true), ([0x66, 0x0f, 0x01, 0xc2], false)] {
        let case = Case::with_code(&code);
        let ended = |vector| Outcome { rip: case.rip(), ..Outcome::ended(vector, 0) };
        assert_eq!(known_difference(&ended(13), &ended(6), &case).is_some(), so);
        assert_eq!(known_difference(&ended(3), &ended(6), &case), None);
    }
}

#[test]
fn xsave_may_begin_with_its_header_or_a_component() {
    let (save, fxsave) =
        (Case::with_code(&[0x0f, 0xae, 0x23]), Case::with_code(&[0x0f, 0xae, 0x03]));
    for (case, so) in [(save, true), (fxsave, false)] {
        let at = |error_code, cr2| {
            let mut outcome = Outcome { rip: case.rip(), ..Outcome::ended(14, error_code) };
            outcome.event.cr2 = cr2;
            outcome
        };
        let (native, subject) = (at(6, 0x3000_0000), at(4, 0x3000_0200));
        assert_eq!(known_difference(&native, &subject, &case).is_some(), so);
        assert_eq!(known_difference(&native, &at(4, 0x3000_0400), &case), None);
    }
}

#[test]
fn upper_halves_of_what_ecx_counts_may_be_left_and_no_other() {
    let mut case = Case::with_code(&[0x67, 0xf3, 0xa4]); // rep movsb, 32-bit addresses
    (case.gpr[1], case.gpr[3]) = (1 << 40 | 5, 1 << 40);
    let native = Outcome { gpr: case.gpr, rip: case.rip(), ..Outcome::ended(14, 4) };
    let mut subject = native;
    let excused = |n: &Outcome, s: &Outcome| known_difference(n, s, &case).is_some();
    subject.gpr[1] = 5;
    assert_eq!(excused(&native, &subject), is_amd());
    assert!(!excused(&subject, &native), "the other way round");
    subject.gpr[3] = 0;
    assert!(!excused(&native, &subject), "RBX");
    subject.gpr = case.gpr;
    subject.gpr[1] = 4;
    assert!(!excused(&native, &subject), "a lower half");
}

#[test]
fn a_string_over_its_own_instruction_may_go_on_and_no_other() {
    let mut case = Case::with_code(&[0xf3, 0xaa]); // rep stosb
    case.gpr[7] = case.rip() - 4;
    let ended = |rcx, at| {
        let mut o = Outcome { gpr: case.gpr, rip: case.rip() + 8, ..Outcome::ended(3, 0) };
        (o.gpr[1], o.changed, o.changes[0]) = (rcx, 1, Change { address: La(at), value: 0 });
        o
    };
    let excused = |n: &Outcome, s: &Outcome| known_difference(n, s, &case).is_some();
    let own = case.rip() & !7;
    assert!(excused(&ended(0, own), &ended(3, own)));
    assert!(!excused(&ended(300, own), &ended(0, own)), "the subject goes on");
    assert!(!excused(&ended(0, layout::STACK), &ended(3, layout::STACK)), "elsewhere");
}

/// Whether the host's ending in `native` and the guest's in `subject`, both at `case`'s beginning,
/// is excused.
fn ends(case: &Case, native: (u32, u64), subject: (u32, u64)) -> bool {
    let [n, s] = [native, subject].map(|(vector, cr2)| {
        let mut o = Outcome { gpr: case.gpr, rip: case.rip(), ..Outcome::ended(vector, 0) };
        o.event.cr2 = cr2;
        o
    });
    known_difference(&n, &s, case).is_some()
}

#[test]
fn amds_ways_with_operands_need_an_operand_for_them() {
    // sha1msg1 xmm0, [rsi]: misaligned on AMD's only, and not a fault of another kind.
    let mut case = Case::with_code(&[0x0f, 0x38, 0xc9, 0x06]);
    case.gpr[6] = layout::ARENA + 8;
    assert_eq!(ends(&case, (3, 0), (13, 0)), is_amd());
    case.gpr[6] = layout::ARENA;
    assert!(!ends(&case, (3, 0), (13, 0)), "aligned");
    // movsxd ax, [rsi]: the two bytes behind the word.
    let mut case = Case::with_code(&[0x66, 0x63, 0x06]);
    case.gpr[6] = 0x3000_0ffe;
    assert_eq!(ends(&case, (14, 0x3000_1000), (3, 0)), is_amd());
    assert!(!ends(&case, (14, 0x3000_0ffe), (3, 0)), "the word itself");
    // vpgatherdd xmm1, [gs:rax+xmm14], xmm2: an offset that is not canonical.
    let mut case = Case::with_code(&[0x65, 0xc4, 0xa2, 0x69, 0x90, 0x0c, 0x30]);
    assert!(!ends(&case, (13, 0), (14, 0)), "no element left to do");
    case.gpr[0] = 1 << 50;
    let mut native = Outcome { gpr: case.gpr, rip: case.rip(), ..Outcome::ended(13, 0) };
    native.ymm[2] = [0xff; 32];
    let mut subject = native;
    subject.event.vector = 14;
    assert_eq!(known_difference(&native, &subject, &case).is_some(), is_amd());
}

#[test]
fn a_pause_that_exchanges_and_mxcsr_mm_excuse_nothing_else() {
    let mut case = Case::with_code(&[0xf3, 0x43, 0x90]); // pause with REX.B
    (case.gpr[0], case.gpr[8]) = (1 << 40 | 1, 2);
    let subject = Outcome { gpr: case.gpr, ..Outcome::ended(3, 0) };
    let mut native = subject;
    (native.gpr[0], native.gpr[8]) = (2, 1);
    assert_eq!(known_difference(&native, &subject, &case).is_some(), is_amd());
    native.gpr[3] ^= 1;
    assert_eq!(known_difference(&native, &subject, &case), None, "RBX");
    let case = Case::with_code(&[0x0f, 0xae, 0x16]); // ldmxcsr [rsi]
    let mut native = Outcome { mxcsr: 1 << 17, ..Outcome::ended(3, 0) };
    let subject = |vector| Outcome { rip: case.rip(), ..Outcome::ended(vector, 0) };
    assert_eq!(known_difference(&native, &subject(13), &case).is_some(), is_amd());
    assert_eq!(known_difference(&native, &subject(17), &case), None);
    native.mxcsr = 0;
    assert_eq!(known_difference(&native, &subject(13), &case), None);
}

#[test]
fn sixteen_bit_addresses_end_in_their_own_way_only_at_their_end() {
    // fldenv [bx], 14 bytes, whose last one lies at 64 KiB; vmaskmovps ymm6, ymm1, [cs:di]
    let mut image = Case::with_code(&[0xd9, 0x27]);
    image.make_compatible(16);
    image.gpr[3] = 0xfff3;
    let base = layout::DATA_16_BASE;
    assert!(ends(&image, (14, base), (3, 0)));
    assert!(!ends(&image, (14, base + 1), (3, 0)), "another byte");
    image.gpr[3] = 0xfff2;
    assert!(!ends(&image, (14, base), (3, 0)), "none beyond");
    let mut masked = Case::with_code(&[0x2e, 0xc4, 0xe2, 0x75, 0x2c, 0x35]);
    masked.make_compatible(16);
    masked.gpr[7] = 0xfff9;
    assert_eq!(ends(&masked, (14, 0), (13, 0)), is_amd());
    masked.gpr[7] = 0xff00;
    assert!(!ends(&masked, (14, 0), (13, 0)), "none beyond");
}

#[test]
fn xsave_may_want_all_of_its_image_and_no_more() {
    let mut case = Case::with_code(&[0x0f, 0xae, 0x23]); // xsave [rbx]
    case.gpr[3] = 0x3000_0000;
    assert!(ends(&case, (14, 0x3000_0000), (3, 0)));
    let size = host_image();
    assert!(size >= XSAVE_SIZE, "{size} bytes");
    assert!(ends(&case, (14, 0x3000_0000 + size - 1), (3, 0)));
    assert!(!ends(&case, (14, 0x3000_0000 + size), (3, 0)));
    // What the guest has not may be saved by the host, and is not by other instructions.
    let (mut more, other) = (case, Case::with_code(&[0x48, 0x89, 0x03]));
    more.gpr[0] = 0xe0;
    assert!(ends(&more, (14, 0x3000_0000 + size), (3, 0)));
    assert!(!ends(&Case { gpr: more.gpr, ..other }, (14, 0x3000_0000), (3, 0)));
}

#[test]
fn a_call_may_use_the_stack_before_the_limit_and_nothing_else() {
    let mut case = Case::with_code(&[0x66, 0xff, 0xd0]); // call eax, in 16-bit code
    case.make_compatible(16);
    (case.gpr[0], case.gpr[4]) = (0x10_0000, 0x3000_0040);
    assert!(ends(&case, (14, 0x3000_003c), (13, 0)));
    assert!(!ends(&case, (14, 0x3000_0000), (13, 0)), "elsewhere");
    case.bitness = 32;
    assert!(!ends(&case, (14, 0x3000_003c), (13, 0)), "32-bit code has no such limit");
}

#[test]
fn a_faulting_gather_may_be_anywhere_in_its_order_and_nothing_else() {
    // vpgatherdd xmm1, [rax+xmm14], xmm2
    let case = Case::with_code(&[0xc4, 0xa2, 0x69, 0x90, 0x0c, 0x30]);
    let mut native = Outcome { rip: case.rip(), ..Outcome::ended(14, 4) };
    native.ymm[2] = [0xff; 32];
    let mut subject = native;
    let excused = |n: &Outcome, s: &Outcome| known_difference(n, s, &case).is_some();
    // One element more is done: value and mask.
    subject.ymm[1][0] = 7;
    subject.ymm[2][..4].fill(0);
    assert!(excused(&native, &subject) && excused(&subject, &native));
    // A value without its mask, one that differs though both have it, and two that are done in no
    // order.
    let mut other = subject;
    other.ymm[1][4] = 1;
    assert!(!excused(&native, &other), "the second element is not done");
    other = subject;
    other.ymm[1][0] = 8;
    assert!(!excused(&other, &subject), "done, and another value");
    other = native;
    other.ymm[2][4..8].fill(0);
    assert!(!excused(&other, &subject), "the first here, the second there");
    other = subject;
    other.gpr[0] = 1;
    assert!(!excused(&native, &other), "RAX");
}

#[test]
fn only_the_named_differences_are_excused() {
    // vpgatherdd xmm1, [rax+xmm14], xmm2 faulting in the same way, with another mask left.
    let gather = Case::with_code(&[0xc4, 0xa2, 0x69, 0x90, 0x0c, 0x30]);
    let mut native = Outcome::ended(14, 4);
    native.rip = gather.rip();
    let mut subject = native;
    subject.ymm[2][0] = 1;
    assert!(known_difference(&native, &subject, &gather).is_some());
    // An ordinary load has no such freedom, nor has the gather another fault.
    let load = Case::with_code(&[0x48, 0x8b, 0x00]);
    assert_eq!(known_difference(&native, &subject, &load), None);
    subject.event = Event { vector: 13, ..Event::default() };
    assert_eq!(known_difference(&native, &subject, &gather), None);
}

#[test]
fn rcx_may_be_counted_down_after_a_repetition_by_ecx_and_nothing_else() {
    // rep stosw with 32-bit addresses; loop to the next instruction
    let case = Case::with_code(&[0x66, 0x67, 0xf3, 0xab, 0xe2, 0x00]);
    let mut native = Outcome::ended(3, 0);
    native.gpr[1] = 0x7fff_ffff_ffff_ffff;
    let mut subject = native;
    subject.gpr[1] = u64::MAX;
    assert_eq!(known_difference(&native, &subject, &case).is_some(), is_amd());
    let alone = Case::with_code(&[0x66, 0x67, 0xf3, 0xab]);
    assert_eq!(known_difference(&native, &subject, &alone), None, "without LOOP");
    subject.gpr[1] = u64::MAX - 1;
    assert_eq!(known_difference(&native, &subject, &case), None, "counted twice");
}

#[test]
fn xstate_bv_of_a_later_xsave_is_the_processors_affair_and_nothing_else() {
    let case = Case::with_code(&[0x51, 0x0f, 0xae, 0x23]); // push rcx; xsave [rbx]
    let ended = |changes: &[(u64, u64)]| {
        let mut outcome = Outcome::ended(3, 0);
        for (address, value) in changes {
            outcome.note_change(La(*address), *value);
        }
        outcome
    };
    let excused = |n: &[(u64, u64)], s: &[(u64, u64)]| {
        known_difference(&ended(n), &ended(s), &case).is_some()
    };
    assert!(excused(&[(8, 7), (16, 1)], &[(8, 0), (16, 1)]));
    assert!(excused(&[(8, 7), (16, 1)], &[(16, 1)]));
    assert!(!excused(&[(8, 15)], &[(8, 0)]), "another bit");
    assert!(!excused(&[(8, 7), (16, 1)], &[(8, 0), (16, 0)]), "two words");
}

#[test]
fn where_an_operand_ends_is_the_processors_choice_at_its_address_spaces_end_alone() {
    // bound ecx, [si] in 16-bit code, whose second bound lies at 64 KiB
    let mut bound = Case::with_code(&[0x66, 0x62, 0x0c]);
    bound.make_compatible(16);
    bound.gpr[6] = 0xffff;
    assert!(ends(&bound, (5, 0), (14, layout::DATA_16_BASE + 3)));
    bound.gpr[6] = 0xfff0;
    assert!(!ends(&bound, (5, 0), (14, layout::DATA_16_BASE + 3)));
    // pop ebp, of bytes on either side of 4 GiB
    let mut pop = Case::with_code(&[0x5d]);
    pop.make_compatible(32);
    assert!(ends(&pop, (14, 0), (12, 0)) && ends(&pop, (14, 0xffff_ffff), (12, 0)));
    assert!(!ends(&pop, (14, 0x1000), (12, 0)));
    let mut save = Case::with_code(&[0x0f, 0xae, 0x23]); // xsave [rbx]
    save.gpr[3] = 0x3000_0001;
    assert!(ends(&save, (17, 0), (13, 0)) && ends(&save, (12, 0), (13, 0)));
    assert!(!ends(&save, (6, 0), (13, 0)));
}
