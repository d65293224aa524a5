//! The expectations held against another implementation: QEMU's TCG, as far as it implements the
//! rule.
//!
//! Development aid: runs with `GEMELLO_QEMU=1` where `qemu-system-x86_64` is installed, prints what
//! differs and fails on nothing, since TCG leaves out segment limits, PCID and more.
//! `GEMELLO_QEMU=name-prefix` selects cases.

use conformance::{cases, run};
use iced_x86::code_asm::*;
use memory::GuestRam;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vcpu::{CpuIo, Elements, Exit, SignalSet, Signals, Slice, StateError, Statistics, Vcpu};
use x86::addr::{Gpa, Port, PortWidth};
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::state::{CpuState, Flags, Seg, gpr};

/// Where the stub's own stack lies.
const STACK: u32 = 0x9_f000;
const ROM: u64 = 0xf_0000;

struct Qemu {
    ram: GuestRam,
    state: CpuState,
    signals: Arc<Signals>,
}

impl Vcpu for Qemu {
    fn run(&mut self, io: &mut dyn CpuIo, _slice: Slice) -> Exit {
        if self.signals.bits() != 0 {
            return Exit::Fatal("skipped: needs external events".into());
        }
        self.emulate(io).unwrap_or_else(|e| Exit::Fatal(e.to_string()))
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
        self.signals.clone()
    }
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

impl Qemu {
    fn emulate(&mut self, io: &mut dyn CpuIo) -> std::io::Result<Exit> {
        let dir = std::env::temp_dir().join(format!("gemello-qemu-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let path = |name: &str| dir.join(name);
        let mut image = vec![0; 16 << 20];
        self.ram.read(Gpa(0), &mut image).expect("16 MiB of RAM");
        fs::write(path("ram"), &image[..0xa_0000])?;
        fs::write(path("high"), &image[0x10_0000..])?;
        fs::write(path("rom"), rom(&self.state))?;
        fs::write(path("log"), [])?;
        let mut qemu = start(&dir)?;
        let mut monitor = Monitor::new(&mut qemu);
        let deadline = Instant::now() + Duration::from_millis(1500);
        let exit = loop {
            let status = monitor.ask("info status")?;
            let registers = monitor.ask("info registers")?;
            if status.contains("shutdown") {
                break Exit::Shutdown;
            }
            if registers.contains("HLT=1") {
                self.parse(&registers);
                break Exit::Halted(SignalSet::EMPTY);
            }
            if Instant::now() > deadline {
                self.parse(&registers);
                break Exit::SliceOver;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        monitor.ask(&format!("pmemsave 0 0x1000000 \"{}\"", path("out").display()))?;
        let _ = monitor.ask("quit");
        qemu.wait()?;
        self.ram.write(Gpa(0), &fs::read(path("out"))?).expect("16 MiB of RAM");
        for byte in fs::read(path("log"))? {
            io.pio_write(Port(0xe9), PortWidth::B1, byte.into());
        }
        fs::remove_dir_all(&dir)?;
        match exit {
            Exit::SliceOver => Ok(Exit::Fatal("no end".into())),
            exit => Ok(exit),
        }
    }

    fn parse(&mut self, text: &str) {
        let hex = |key: &str| {
            let key = format!("{key:<3}=");
            let at = text.find(&key)? + key.len();
            let digits: String = text[at..].chars().take_while(char::is_ascii_hexdigit).collect();
            u64::from_str_radix(&digits, 16).ok()
        };
        let short = ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"];
        for (n, key) in gpr::NAMES.into_iter().enumerate() {
            let value = hex(key).or_else(|| short.get(n).and_then(|k| hex(k)));
            self.state.gpr[n] = value.unwrap_or(0);
        }
        let s = &mut self.state;
        s.rip = hex("RIP").or(hex("EIP")).unwrap_or(0);
        s.flags = Flags::from_bits(hex("RFL").or(hex("EFL")).unwrap_or(0));
        s.cpl = hex("CPL").unwrap_or(0) as u8;
        s.paging.cr0 = Cr0::from_bits_retain(hex("CR0").unwrap_or(0));
        s.cr2 = hex("CR2").unwrap_or(0);
        s.paging.cr3 = hex("CR3").unwrap_or(0);
        s.paging.cr4 = Cr4::from_bits_retain(hex("CR4").unwrap_or(0));
        s.paging.efer = Efer::from_bits_retain(hex("EFER").unwrap_or(0));
        s.dr.dr6 = hex("DR6").unwrap_or(0);
        s.dr.dr7 = hex("DR7").unwrap_or(0);
        s.x87.mxcsr = hex("MXCSR").unwrap_or(0) as u32;
        for (n, key) in ["ES ", "CS ", "SS ", "DS ", "FS ", "GS "].into_iter().enumerate() {
            if let Some(fields) = segment(text, key) {
                s.seg[n].selector = fields[0] as u16;
                s.seg[n].base = fields[1];
                s.seg[n].limit = fields[2] as u32;
                s.seg[n].access = (fields[3] >> 8) as u16 & 0xf0ff;
            }
        }
        if let Some(fields) = segment(text, "TR ") {
            s.tr.selector = fields[0] as u16;
        }
    }
}

fn segment(text: &str, key: &str) -> Option<[u64; 4]> {
    let at = text.find(&format!("{key}="))? + key.len() + 1;
    let mut fields = text[at..].split_whitespace().map(|f| u64::from_str_radix(f, 16).unwrap_or(0));
    Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?])
}

fn start(dir: &std::path::Path) -> std::io::Result<Child> {
    let path = |name: &str| dir.join(name).display().to_string();
    Command::new("qemu-system-x86_64")
        .args(["-machine", "pc", "-accel", "tcg", "-m", "16", "-nodefaults", "-nographic"])
        .args(["-cpu", "max,vendor=GenuineIntel", "-monitor", "stdio"])
        .args(["-action", "reboot=shutdown,shutdown=pause", "-bios", &path("rom")])
        .args(["-device", &format!("loader,file={},addr=0,force-raw=on", path("ram"))])
        .args(["-device", &format!("loader,file={},addr=0x100000,force-raw=on", path("high"))])
        .args(["-chardev", &format!("file,id=log,path={}", path("log"))])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=log"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
}

struct Monitor {
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Monitor {
    fn new(child: &mut Child) -> Self {
        let input = child.stdin.take().expect("piped");
        Self { input, output: BufReader::new(child.stdout.take().expect("piped")) }
    }

    /// The answer to `command`: all up to the next prompt.
    fn ask(&mut self, command: &str) -> std::io::Result<String> {
        writeln!(self.input, "{command}\nhelp quit")?;
        self.input.flush()?;
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                let _ = self.output.read_to_string(&mut line);
                return Ok(text);
            }
            if line.starts_with("quit|q") {
                return Ok(text.replace('\r', "\n"));
            }
            text.push_str(&line);
        }
    }
}

/// 64 KiB at F0000H whose reset vector leads to code that loads `s`.
fn rom(s: &CpuState) -> Vec<u8> {
    let mut rom = vec![0; 0x1_0000];
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    put(0xfff0, &[0xea, 0, 0, 0, 0xf0]);
    let pseudo = |limit: u16, base: u64| {
        let mut bytes = limit.to_le_bytes().to_vec();
        bytes.extend(base.to_le_bytes());
        bytes
    };
    put(0xe000, &pseudo(s.gdtr.limit, s.gdtr.base));
    put(0xe010, &pseudo(s.idtr.limit, s.idtr.base));
    put(0xe020, &pseudo(0x17, ROM + 0xe100));
    for (n, d) in [0u64, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        put(0xe100 + 8 * n, &d.to_le_bytes());
    }
    let real = !s.paging.cr0.contains(Cr0::PE);
    put(0, &if real { real_mode(s) } else { to_protected() });
    if !real {
        put(0x1000, &protected(s));
        put(0x2000, &if s.long_mode() { long(s) } else { legacy(s) });
    }
    rom
}

fn assemble(
    bits: u32,
    at: u64,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).unwrap();
    code(&mut a).unwrap();
    a.assemble(at).unwrap()
}

fn msrs(a: &mut CodeAssembler, s: &CpuState) -> Result<(), iced_x86::IcedError> {
    let m = &s.msr;
    for (n, value) in [
        (0x174u32, m.sysenter_cs),
        (0x175, m.sysenter_esp),
        (0x176, m.sysenter_eip),
        (0xc000_0081, m.star),
        (0xc000_0082, m.lstar),
        (0xc000_0084, m.fmask),
        (0xc000_0102, m.kernel_gs_base),
    ] {
        a.mov(ecx, n)?;
        a.mov(eax, value as u32)?;
        a.mov(edx, (value >> 32) as u32)?;
        a.wrmsr()?;
    }
    Ok(())
}

fn real_mode(s: &CpuState) -> Vec<u8> {
    assemble(16, 0, |a| {
        a.lgdt(fword_ptr(0xe000).cs())?;
        a.lidt(fword_ptr(0xe010).cs())?;
        msrs(a, s)?;
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(es, ax)?;
        a.mov(ss, ax)?;
        a.mov(esp, s.gpr[gpr::RSP] as u32)?;
        a.push(u32::from(s.flags.bits() as u16) as i32)?;
        a.push(0)?;
        a.push(s.rip as i32)?;
        a.xor(eax, eax)?;
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.iret()
    })
}

fn to_protected() -> Vec<u8> {
    let mut code = assemble(16, 0, |a| {
        a.lgdt(fword_ptr(0xe020).cs())?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)
    });
    code.extend([0x66, 0xea, 0, 0x10, 0x0f, 0, 8, 0]);
    code
}

fn protected(s: &CpuState) -> Vec<u8> {
    let mut code = assemble(32, ROM + 0x1000, |a| {
        a.mov(eax, 0x10)?;
        for seg in [ds, es, ss] {
            a.mov(seg, eax)?;
        }
        a.mov(esp, STACK)?;
        msrs(a, s)?;
        a.and(byte_ptr(0x1000 + 0x88 + 5), 0xfdu32 as i32)?;
        a.mov(eax, (s.paging.cr4 - Cr4::PCIDE).bits() as u32)?;
        a.mov(cr4, eax)?;
        a.mov(eax, s.paging.cr3 as u32 & !0xfff)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, 0xc000_0080u32)?;
        a.mov(eax, (s.paging.efer - Efer::LMA).bits() as u32)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        let cr0_bits =
            if s.long_mode() { Cr0::PE | Cr0::PG | Cr0::ET | Cr0::NE } else { s.paging.cr0 };
        a.mov(eax, cr0_bits.bits() as u32)?;
        a.mov(cr0, eax)?;
        a.lgdt(fword_ptr(ROM + 0xe000))?;
        a.lidt(fword_ptr(ROM + 0xe010))
    });
    let cs_sel = if s.long_mode() { 8 } else { 0x30 };
    code.extend([0xea, 0, 0x20, 0x0f, 0, cs_sel, 0]);
    code
}

fn long(s: &CpuState) -> Vec<u8> {
    assemble(64, ROM + 0x2000, |a| {
        a.mov(eax, u32::from(s.ldtr.selector))?;
        a.lldt(ax)?;
        a.mov(eax, u32::from(s.tr.selector))?;
        a.ltr(ax)?;
        a.mov(rax, s.paging.cr4.bits())?;
        a.mov(cr4, rax)?;
        a.mov(rax, s.paging.cr3)?;
        a.mov(cr3, rax)?;
        for (seg, n) in [(ds, Seg::Ds), (es, Seg::Es), (fs, Seg::Fs), (gs, Seg::Gs)] {
            a.mov(eax, u32::from(s.seg[n as usize].selector))?;
            a.mov(seg, eax)?;
        }
        for (msr, n) in [(0xc000_0100u32, Seg::Fs), (0xc000_0101, Seg::Gs)] {
            let base = s.seg[n as usize].base;
            a.mov(ecx, msr)?;
            a.mov(eax, base as u32)?;
            a.mov(edx, (base >> 32) as u32)?;
            a.wrmsr()?;
        }
        if s.paging.cr4.contains(Cr4::PKE) {
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            a.mov(eax, s.paging.pkru)?;
            a.wrpkru()?;
        }
        a.mov(esp, STACK)?;
        a.push(i32::from(s.seg[Seg::Ss as usize].selector))?;
        a.mov(rax, s.gpr[gpr::RSP])?;
        a.push(rax)?;
        a.push(s.flags.bits() as i32)?;
        a.push(i32::from(s.seg[Seg::Cs as usize].selector))?;
        a.push(s.rip as i32)?;
        for (n, reg) in [(0, dr0), (1, dr1), (2, dr2), (3, dr3)] {
            a.mov(rax, s.dr.address[n])?;
            a.mov(reg, rax)?;
        }
        a.mov(eax, s.dr.dr7 as u32)?;
        a.mov(dr7, rax)?;
        a.mov(eax, s.paging.cr0.bits() as u32)?;
        a.mov(cr0, rax)?;
        a.xor(eax, eax)?;
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.iretq()
    })
}

fn legacy(s: &CpuState) -> Vec<u8> {
    let vm = s.flags.has(Rflags::VM);
    let selector = |n: Seg| i32::from(s.seg[n as usize].selector);
    assemble(32, ROM + 0x2000, |a| {
        a.mov(eax, u32::from(s.ldtr.selector))?;
        a.lldt(ax)?;
        a.mov(eax, u32::from(s.tr.selector))?;
        a.ltr(ax)?;
        if vm {
            for n in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                a.push(selector(n))?;
            }
        } else {
            for (seg, n) in [(ds, Seg::Ds), (es, Seg::Es), (fs, Seg::Fs), (gs, Seg::Gs)] {
                a.mov(eax, selector(n))?;
                a.mov(seg, eax)?;
            }
        }
        if s.cpl == 3 {
            a.push(selector(Seg::Ss))?;
            a.push(s.gpr[gpr::RSP] as i32)?;
        } else {
            a.mov(eax, selector(Seg::Ss))?;
            a.mov(ss, eax)?;
            a.mov(esp, s.gpr[gpr::RSP] as u32)?;
        }
        a.push(s.flags.bits() as i32)?;
        a.push(selector(Seg::Cs))?;
        a.push(s.rip as i32)?;
        a.xor(eax, eax)?;
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.iretd()
    })
}

#[test]
fn expectations_against_tcg() {
    let Ok(filter) = std::env::var("GEMELLO_QEMU") else { return };
    let filter = if filter == "1" { String::new() } else { filter };
    let (mut passed, mut failed) = (0, 0);
    for case in cases().iter().filter(|c| c.name.starts_with(&filter)) {
        let mut make = |ram: GuestRam, state| -> Box<dyn Vcpu> {
            Box::new(Qemu { ram, state, signals: Arc::default() })
        };
        match run(case, &mut make) {
            Ok(()) => passed += 1,
            Err(why) if why.contains("skipped") => {}
            Err(why) => {
                failed += 1;
                println!("{why}");
            }
        }
    }
    println!("{passed} as expected, {failed} otherwise");
}
