//! Real images, if `GEMELLO_TEST_IMAGES` names a directory that holds some: every file in it must
//! yield a plan.

use boot::{AcpiConfig, Request, Source, plan};
use x86::addr::Gpa;

#[test]
fn real_images_yield_plans() {
    let Some(directory) = std::env::var_os("GEMELLO_TEST_IMAGES") else { return };
    let acpi = AcpiConfig::example();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let image = Source::Path(&path);
        let ram = &[(Gpa(0), 512 << 20)];
        let request = Request {
            image,
            initrd: None,
            cmdline: "console=ttyS0",
            modules: &[],
            ram,
            acpi: &acpi,
        };
        let plan = plan(&request).unwrap_or_else(|e| panic!("{e}"));
        println!("{}: {:?} at {:#x}", path.display(), plan.protocol, plan.cpu.rip);
        for piece in &plan.pieces {
            println!("  {:#010x} {:#9x} {}", piece.gpa, piece.bytes.len(), piece.what);
        }
    }
}
