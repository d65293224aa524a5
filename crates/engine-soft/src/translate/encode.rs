//! Stand-in.
use iced_x86::{Encoder, Instruction, OpKind, Register};
pub(super) struct Operands { pub(super) registers: [u8; 16], pub(super) memory: Option<Memory> }
#[derive(Clone, Copy)]
pub(super) struct Memory { pub(super) base: Option<u8>, pub(super) index: Option<u8>, pub(super) scale: u8, pub(super) displacement: i32, pub(super) gs: bool }
pub(super) fn rewrite(instruction: &Instruction, _bytes: &[u8], new: &Operands, out: &mut Vec<u8>) -> Option<()> {
    let mut i = *instruction;
    let reg = |n: u8| Register::RAX + u32::from(n);
    if let Some(m) = new.memory {
        i.set_memory_base(m.base.map_or(Register::None, reg));
        i.set_memory_index(m.index.map_or(Register::None, reg));
        i.set_memory_index_scale(1 << m.scale);
        i.set_memory_displacement64(m.displacement as i64 as u64);
        i.set_memory_displ_size(if m.displacement == 0 { 0 } else if i8::try_from(m.displacement).is_ok() { 1 } else { 8 });
        i.set_segment_prefix(Register::None);
    }
    for k in 0..i.op_count() {
        if i.op_kind(k) != OpKind::Register { continue; }
        let r = i.op_register(k);
        if !r.is_gpr() || matches!(r, Register::AH|Register::BH|Register::CH|Register::DH) { continue; }
        let n = r.full_register().number();
        let to = u32::from(new.registers[n]);
        if to as usize == n { continue; }
        i.set_op_register(k, match r.size() { 1 => if to < 4 { Register::AL + to } else { Register::SPL + (to - 4) }, 2 => Register::AX + to, 4 => Register::EAX + to, _ => Register::RAX + to });
    }
    let mut e = Encoder::new(64);
    e.encode(&i, 0).ok()?;
    out.extend_from_slice(&e.take_buffer());
    Some(())
}
