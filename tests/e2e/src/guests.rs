//! Guests of a few bytes: flat Multiboot images (Multiboot 0.6.96, 3.1.3), entered in 32-bit
//! protected mode.

/// Where they are loaded.
const AT: u32 = 0x10_0000;
/// Where their code begins.
const CODE: usize = 32;

/// An image that runs `code`.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    const ADDRESSES: u32 = 1 << 16;
    let checksum = 0_u32.wrapping_sub(MAGIC).wrapping_sub(ADDRESSES);
    let end = AT + 4096;
    let words = [MAGIC, ADDRESSES, checksum, AT, AT, end, end, AT + CODE as u32];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(code);
    bytes.resize(4096, 0);
    bytes
}

/// Halts for ever.
pub fn idle() -> Vec<u8> {
    // cli; 1: hlt; jmp 1b
    kernel(&[0xFA, 0xF4, 0xEB, 0xFD])
}

/// Writes 10H to port F4H, then halts.
pub fn writes_debug_exit() -> Vec<u8> {
    // mov al, 10h; out 0f4h, al; cli; 1: hlt; jmp 1b
    kernel(&[0xB0, 0x10, 0xE6, 0xF4, 0xFA, 0xF4, 0xEB, 0xFD])
}

/// Raises an exception with an IDT of limit zero: a triple fault.
pub fn zero_idt() -> Vec<u8> {
    let zeros = (AT + 2048).to_le_bytes();
    // lidt [zeros]; int3
    kernel(&[0x0F, 0x01, 0x1D, zeros[0], zeros[1], zeros[2], zeros[3], 0xCC])
}

/// Writes `text` to COM1, then goes on with `code`.
pub fn prints(text: &[u8], code: &[u8]) -> Vec<u8> {
    // mov esi, text; mov ecx, length; mov dx, 3f8h; 1: lodsb; out dx, al; loop 1b; code
    const START: usize = 5 + 5 + 4 + 1 + 1 + 2;
    let at = AT + (CODE + START + code.len()) as u32;
    let mut bytes = vec![0xBE];
    bytes.extend(at.to_le_bytes());
    bytes.push(0xB9);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend([0x66, 0xBA, 0xF8, 0x03, 0xAC, 0xEE, 0xE2, 0xFC]);
    assert_eq!(bytes.len(), START);
    kernel(&[&bytes, code, text].concat())
}

/// Code that resets the machine: mov al, 6; mov dx, 0cf9h; out dx, al; 1: hlt; jmp 1b.
pub const RESET: &[u8] = &[0xB0, 6, 0x66, 0xBA, 0xF9, 0x0C, 0xEE, 0xF4, 0xEB, 0xFD];
/// Code that halts for ever: cli; 1: hlt; jmp 1b.
pub const HALT: &[u8] = &[0xFA, 0xF4, 0xEB, 0xFD];

/// Code that misses the power button's first press, as a guest that is still starting does, and
/// powers off by the next: PM1 status is at port 600h, PM1 control at 604h.
#[rustfmt::skip]
pub const SECOND_PRESS: &[u8] = &[
    0x66, 0xBA, 0x00, 0x06,             // mov dx, 600h
    0x66, 0xED, 0xF6, 0xC4, 1, 0x74, 0xF9, // 1: in ax, dx; test ah, PWRBTN; jz 1b
    0x66, 0xEF,                         // out dx, ax: clears it
    0x66, 0xED, 0xF6, 0xC4, 1, 0x74, 0xF9, // 2: in ax, dx; test ah, PWRBTN; jz 2b
    0x66, 0xBA, 0x04, 0x06,             // mov dx, 604h
    0x66, 0xB8, 0x00, 0x34,             // mov ax, SLP_TYP of S5 and SLP_EN
    0x66, 0xEF, 0xF4, 0xEB, 0xFD,       // out dx, ax; 3: hlt; jmp 3b
];
