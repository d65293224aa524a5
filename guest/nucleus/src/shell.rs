use crate::kernel::Kernel;
use crate::acpi::SoftOff;
use crate::{clock, power, apic, console};

pub fn banner(k: &Kernel, source: &str, disk: Option<u64>) {
    println!("nucleus ({} boot, {} frames), tsc {} Hz {source}, timer {} Hz, disk {disk:x?}, {:?}", k.info.protocol, k.frames.free(), clock::frequency(), apic::timer_frequency(), k.features);
    println!("cmdline {} ready {} us", k.info.cmdline, clock::microseconds());
}
impl Kernel {
    pub fn console_input(&mut self) {
        while let Some(byte) = console::received() { self.lines.feed(byte); }
        if self.lines.first().is_some() { self.wake(|w| w == crate::process::Wait::Line); }
    }
}
pub fn main(k: &mut Kernel, off: Option<SoftOff>) -> ! {
    if let Some(name) = k.info.word("test").map(alloc::string::String::from) { crate::tests::main(k, &name); }
    for name in ["hello", "hello"] { let r = k.spawn(name, b"x", 0); println!("{r:?}"); }
    loop {
        print!("nucleus> ");
        k.run_until(|k| k.lines.first().is_some());
        let line = k.lines.take();
        println!("{line:?}");
        if line.as_deref() == Some("poweroff") { println!("{off:?}"); power::off(off) }
    }
}
