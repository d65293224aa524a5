//! Any bytes as any of the files.

use boot::{AcpiConfig, BootPlan, Module, Request, Run, Source, plan};
use x86::addr::Gpa;

/// RAM of the machine that [`fuzz`] boots.
const RAM: &[Run] = &[(Gpa(0), 64 << 20), (Gpa(1 << 32), 16 << 20)];

/// Plans a boot of `data` as the kernel, and of `data` split into kernel, initrd and module.
///
/// # Panics
/// Only if a plan breaks a promise of [`BootPlan`]: a piece outside RAM, or over another.
pub(crate) fn fuzz(data: &[u8]) {
    attempt(data, None, &[]);
    let (&[at], rest) = data.split_at_checked(1).unwrap_or((&[0], &[])) else { return };
    let (kernel, other) = rest.split_at(rest.len() * usize::from(at) / 256);
    let other = Source::Bytes { name: "other", bytes: other };
    attempt(kernel, Some(other), &[]);
    attempt(kernel, None, &[Module { source: other, args: "args" }]);
}

fn attempt(image: &[u8], initrd: Option<Source<'_>>, modules: &[Module<'_>]) {
    let image = Source::Bytes { name: "image", bytes: image };
    let acpi = AcpiConfig::example();
    let request =
        Request { image, initrd, cmdline: "console=ttyS0", modules, ram: RAM, acpi: &acpi };
    match plan(&request) {
        Ok(plan) => check(&plan),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The promises.
fn check(plan: &BootPlan) {
    let mut end = Gpa(0);
    for piece in &plan.pieces {
        let len = piece.bytes.len() as u64;
        assert!(piece.gpa >= end, "{} overlaps its neighbour", piece.what);
        end = piece.gpa.checked_add(len).expect("no piece wraps around");
        assert!(
            RAM.iter().any(|r| piece.gpa >= r.0 && end <= r.0.wrapping_add(r.1)),
            "{} outside RAM",
            piece.what
        );
    }
}
