//! Whether an instruction can be a thunk, and what the interpreter must know to run it.

use iced_x86::{
    CpuidFeature, EncodingKind, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpCodeTableKind, OpKind, RflagsBits,
};

use super::host::{Feature, HostFeatures};
use super::types::{Classification, FpuClass, MemAccess, MemOperand, Unthunkable};

/// The six status flags in iced's numbering.
pub(super) const STATUS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;
const SYSTEM: u32 = RflagsBits::DF | RflagsBits::IF | RflagsBits::AC;

/// Judges `instruction`, decoded in any mode, for the features `host` (the host's, or fewer if the
/// guest may use fewer).
///
/// # Errors
/// Why it cannot be a thunk: the interpreter has a hand-written way for each reason.
pub fn classify(
    instruction: &Instruction,
    host: &HostFeatures,
) -> Result<Classification, Unthunkable> {
    if instruction.is_invalid() {
        return Err(Unthunkable::Invalid);
    }
    by_mnemonic(instruction)?;
    for feature in instruction.cpuid_features() {
        by_feature(*feature, host)?;
    }
    by_kind(instruction)?;
    let info = instruction.op_code();
    if !matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return Err(Unthunkable::Unsupported);
    }
    if !info.mode64() {
        return Err(Unthunkable::NotIn64);
    }
    let fpu = unit(instruction);
    let mem = memory(instruction)?;
    let names_mmx = fpu == FpuClass::Mmx || any_register(instruction, iced_x86::Register::is_mm);
    // From memory these enter MMX state on some processors only: the thunk lets the host decide.
    let mmx =
        names_mmx || matches!(instruction.mnemonic(), Mnemonic::Cvtpi2ps | Mnemonic::Cvtpi2pd);
    let x87 = matches!(fpu, FpuClass::X87 | FpuClass::Wait) && !info.is_fpu_no_wait();
    Ok(Classification {
        fpu,
        mem,
        mxcsr: matches!(fpu, FpuClass::Sse | FpuClass::Avx) && uses_mxcsr(instruction.mnemonic()),
        mmx,
        waits: names_mmx || x87,
    })
}

/// Shifts and rotates may leave every flag alone when their count is zero.
pub(super) fn is_shift(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shld, Shr, Shrd};
    matches!(mnemonic, Rcl | Rcr | Rol | Ror | Sal | Sar | Shl | Shld | Shr | Shrd)
}

fn by_mnemonic(instruction: &Instruction) -> Result<(), Unthunkable> {
    use Mnemonic::*;
    Err(match instruction.mnemonic() {
        Maskmovq | Maskmovdqu | Vmaskmovdqu | Vmaskmovps | Vmaskmovpd | Vpmaskmovd | Vpmaskmovq => {
            Unthunkable::MaskedMove
        }
        Vgatherdps | Vgatherdpd | Vgatherqps | Vgatherqpd | Vpgatherdd | Vpgatherdq
        | Vpgatherqd | Vpgatherqq
            if !instruction.op_mask().is_k() =>
        {
            Unthunkable::Gather
        }
        Vzeroupper | Vzeroall => Unthunkable::VectorZero,
        Ldmxcsr | Stmxcsr | Vldmxcsr | Vstmxcsr | Fnstenv | Fstenv | Fldenv | Fnsave | Fsave
        | Frstor | Fxsave | Fxsave64 | Fxrstor | Fxrstor64 => Unthunkable::StateImage,
        Xlatb => Unthunkable::ImplicitMemory,
        Bt | Bts | Btr | Btc
            if has_memory(instruction) && instruction.op1_kind() == OpKind::Register =>
        {
            Unthunkable::BitString
        }
        Bound => Unthunkable::ControlFlow,
        Lar | Lsl | Verr | Verw | Arpl | Sgdt | Sidt | Sldt | Str | Smsw | Lmsw | Lgdt | Lidt
        | Lldt | Ltr | Lds | Les | Lfs | Lgs | Lss | In | Out | Hlt | Clts | Invlpg | Wbinvd
        | Invd | Loadall | Popf | Pushf | Xgetbv | Xsetbv => Unthunkable::System,
        // NOPs as long as shadow stacks are off, which CR4 has no bit for here.
        Rdsspd | Rdsspq => Unthunkable::NoAccess,
        Lea | Nop | Pause | Reservednop | Clflush => Unthunkable::NoAccess,
        Push | Pop | Pusha | Pushad | Popa | Popad | Enter | Leave => Unthunkable::Stack,
        _ => return Ok(()),
    })
}

fn by_kind(instruction: &Instruction) -> Result<(), Unthunkable> {
    let info = instruction.op_code();
    let touched = instruction.rflags_read() | instruction.rflags_modified();
    if instruction.is_string_instruction() {
        Err(Unthunkable::ImplicitMemory)
    } else if instruction.flow_control() != FlowControl::Next {
        Err(Unthunkable::ControlFlow)
    } else if instruction.is_save_restore_instruction() {
        Err(Unthunkable::StateImage)
    } else if instruction.is_stack_instruction() {
        Err(Unthunkable::Stack)
    } else if info.is_nop() || info.is_reserved_nop() {
        Err(Unthunkable::NoAccess)
    } else if instruction.is_privileged()
        || info.must_be_cpl0()
        || touched & SYSTEM != 0
        || any_register(instruction, |r| {
            r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr()
        })
    {
        Err(Unthunkable::System)
    } else {
        Ok(())
    }
}

fn by_feature(feature: CpuidFeature, host: &HostFeatures) -> Result<(), Unthunkable> {
    use CpuidFeature as C;
    let needed = match feature {
        C::INTEL8086
        | C::INTEL186
        | C::INTEL286
        | C::INTEL386
        | C::INTEL486
        | C::X64
        | C::CX8
        | C::CMOV => return Ok(()),
        C::FPU | C::FPU287 | C::FPU287XL_ONLY | C::FPU387 | C::MMX | C::SSE | C::SSE2 => {
            return Ok(());
        }
        C::INTEL8086_ONLY | C::INTEL286_ONLY | C::INTEL386_ONLY => {
            return Err(Unthunkable::NotIn64);
        }
        C::SSE3 => Feature::Sse3,
        C::SSSE3 => Feature::Ssse3,
        C::SSE4_1 => Feature::Sse41,
        C::SSE4_2 => Feature::Sse42,
        C::POPCNT => Feature::Popcnt,
        C::LZCNT => Feature::Lzcnt,
        C::BMI1 => Feature::Bmi1,
        C::BMI2 => Feature::Bmi2,
        C::ADX => Feature::Adx,
        C::MOVBE => Feature::Movbe,
        C::CMPXCHG16B => Feature::Cx16,
        C::AES => Feature::Aes,
        C::PCLMULQDQ => Feature::Pclmulqdq,
        C::SHA => Feature::Sha,
        C::GFNI => Feature::Gfni,
        C::AVX => Feature::Avx,
        C::AVX2 => Feature::Avx2,
        C::F16C => Feature::F16c,
        C::FMA => Feature::Fma,
        C::VAES => Feature::Vaes,
        C::VPCLMULQDQ => Feature::Vpclmulqdq,
        C::AVX_VNNI => Feature::AvxVnni,
        C::RDRAND => Feature::Rdrand,
        C::RDSEED => Feature::Rdseed,
        C::FXSR | C::XSAVE | C::XSAVEC | C::XSAVEOPT | C::XSAVES => {
            return Err(Unthunkable::StateImage);
        }
        C::CLFSH
        | C::CLFLUSHOPT
        | C::CLWB
        | C::CLDEMOTE
        | C::PREFETCHW
        | C::PREFETCHWT1
        | C::MULTIBYTENOP
        | C::PAUSE
        | C::CET_IBT => return Err(Unthunkable::NoAccess),
        C::CPUID
        | C::MSR
        | C::TSC
        | C::RDTSCP
        | C::RDPID
        | C::RDPMC
        | C::FSGSBASE
        | C::PKU
        | C::SMAP
        | C::SEP
        | C::SYSCALL
        | C::MONITOR
        | C::INVPCID => {
            return Err(Unthunkable::System);
        }
        _ => return Err(Unthunkable::Unsupported),
    };
    if host.has(needed) { Ok(()) } else { Err(Unthunkable::HostLacks(needed)) }
}

fn has_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|op| instruction.op_kind(op) == OpKind::Memory)
}

fn any_register(instruction: &Instruction, is: impl Fn(iced_x86::Register) -> bool) -> bool {
    (0..instruction.op_count())
        .any(|op| instruction.op_kind(op) == OpKind::Register && is(instruction.op_register(op)))
}

fn unit(instruction: &Instruction) -> FpuClass {
    let info = instruction.op_code();
    if info.encoding() == EncodingKind::VEX {
        let vector = any_register(instruction, iced_x86::Register::is_vector_register)
            || is_scalar_conversion(instruction.mnemonic());
        return if vector { FpuClass::Avx } else { FpuClass::None };
    }
    if instruction.mnemonic() == Mnemonic::Wait {
        return FpuClass::Wait;
    }
    let first = info.op_code() >> (8 * (info.op_code_len().saturating_sub(1)));
    if info.table() == OpCodeTableKind::Normal && (0xd8..=0xdf).contains(&first) {
        FpuClass::X87
    } else if any_register(instruction, iced_x86::Register::is_xmm)
        || is_scalar_conversion(instruction.mnemonic())
    {
        FpuClass::Sse
    } else if instruction.mnemonic() == Mnemonic::Emms
        || any_register(instruction, iced_x86::Register::is_mm)
    {
        FpuClass::Mmx
    } else {
        FpuClass::None
    }
}

/// Those that may go from memory to a general or MMX register, and so name no vector register.
fn is_scalar_conversion(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Cvtss2si
            | Cvtsd2si
            | Cvttss2si
            | Cvttsd2si
            | Vcvtss2si
            | Vcvtsd2si
            | Vcvttss2si
            | Vcvttsd2si
            | Cvtps2pi
            | Cvttps2pi
            | Cvtpd2pi
            | Cvttpd2pi
    )
}

fn memory(instruction: &Instruction) -> Result<Option<MemOperand>, Unthunkable> {
    let Some(op) =
        (0..instruction.op_count()).find(|op| instruction.op_kind(*op) == OpKind::Memory)
    else {
        return Ok(None);
    };
    let mut factory = InstructionInfoFactory::new();
    let access = match factory.info(instruction).op_access(op) {
        OpAccess::Read | OpAccess::CondRead => MemAccess::Read,
        OpAccess::Write => MemAccess::Write,
        OpAccess::ReadWrite | OpAccess::ReadCondWrite | OpAccess::CondWrite => MemAccess::ReadWrite,
        _ => return Err(Unthunkable::NoAccess),
    };
    let size = instruction.memory_size().size();
    if !(1..=32).contains(&size) {
        return Err(Unthunkable::Unsupported);
    }
    let locked = instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg;
    Ok(Some(MemOperand {
        size: size as u16,
        access,
        alignment: alignment(instruction, size as u16),
        locked,
    }))
}

/// SDM vol. 1, 4.1.1 and vol. 2, 2.4: legacy 16-byte operands are aligned but for the unaligned
/// moves and the string comparisons; VEX ones are not but for the aligned and non-temporal moves.
fn alignment(instruction: &Instruction, size: u16) -> u16 {
    use Mnemonic::*;
    let mnemonic = instruction.mnemonic();
    let demands = if instruction.op_code().encoding() == EncodingKind::VEX {
        matches!(mnemonic, Vmovaps | Vmovapd | Vmovdqa | Vmovntps | Vmovntpd | Vmovntdq | Vmovntdqa)
    } else {
        size == 16
            && !matches!(
                mnemonic,
                Movups
                    | Movupd
                    | Movdqu
                    | Lddqu
                    | Pcmpestri
                    | Pcmpestrm
                    | Pcmpistri
                    | Pcmpistrm
                    | Pcmpestri64
                    | Pcmpestrm64
            )
    };
    if demands { size } else { 1 }
}

/// Everything but what is known to be integer, logic or a move: to load MXCSR needlessly only costs
/// time.
fn uses_mxcsr(mnemonic: Mnemonic) -> bool {
    const QUIET: [&str; 17] = [
        "P",
        "Mov",
        "And",
        "Or",
        "Xor",
        "Shuf",
        "Unpck",
        "Blend",
        "Insert",
        "Extract",
        "Aes",
        "Sha",
        "Lddqu",
        "Broadcast",
        "Perm",
        "Test",
        "Gf2p8",
    ];
    let name = format!("{mnemonic:?}");
    let legacy = name.strip_prefix('V').map(capitalized);
    let stem = legacy.as_deref().unwrap_or(&name);
    !QUIET.iter().any(|prefix| stem.starts_with(prefix))
}

fn capitalized(stem: &str) -> String {
    let mut chars = stem.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
