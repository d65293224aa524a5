//! `gemello doctor`: what this host offers, and what follows from it.

use crate::debian;
use crate::host_memory;
use crate::terminal;
use machine::frequency::{self, Source};
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::fs::OpenOptions;
use x86::cpuid::Feature;
use x86::cpuid::feature::Word;

/// CPU features whose absence a user would notice.
const FEATURES: [Feature; 14] = [
    Feature::Sse42,
    Feature::Avx,
    Feature::Avx2,
    Feature::Fma,
    Feature::Bmi2,
    Feature::Adx,
    Feature::Movbe,
    Feature::Aes,
    Feature::Pclmulqdq,
    Feature::Sha,
    Feature::Rdrand,
    Feature::Fsgsbase,
    Feature::Invpcid,
    Feature::Xsave,
];

/// Prints the findings.
pub(crate) fn doctor() {
    line("gemello", env!("CARGO_PKG_VERSION"));
    processor();
    time();
    memory();
    line("KVM", &kvm());
    line("engines", &crate::engine::available());
    line("apt", &apt());
    cache();
    line("terminal", if terminal::input_is_terminal() { "yes" } else { "standard input is none" });
}

fn line(name: &str, text: &str) {
    println!("{name:<12} {text}");
}

/// As the processor itself says: /proc may be missing.
fn processor() {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let vendor = __cpuid(0);
    let vendor = text(&[vendor.ebx, vendor.edx, vendor.ecx]);
    line("processor", &format!("{} ({vendor}), {count} usable", brand()));
    let (has, lacks): (Vec<Feature>, Vec<_>) = FEATURES.iter().partition(|f| shows(**f));
    line("has", &join(&has));
    if !lacks.is_empty() {
        line("lacks", &format!("{}: a guest cannot have these", join(&lacks)));
    }
    if __cpuid(1).ecx >> 31 != 0 {
        line("", "itself a virtual machine");
    }
}

/// The processor's name (SDM vol. 2A, CPUID, leaves 8000_0002H to 8000_0004H).
fn brand() -> String {
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return "a processor without a name".into();
    }
    let words = (0x8000_0002..=0x8000_0004).map(__cpuid);
    let words: Vec<_> = words.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]).collect();
    text(&words)
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ']).to_owned()
}

/// Whether CPUID shows `feature`.
fn shows(feature: Feature) -> bool {
    let (word, bit) = feature.place();
    let (one, seven, more) = (__cpuid(1), __cpuid_count(7, 0), __cpuid(0x8000_0001));
    let value = match word {
        Word::L1Ecx => one.ecx,
        Word::L1Edx => one.edx,
        Word::L7Ebx => seven.ebx,
        Word::L7Ecx => seven.ecx,
        Word::L7Edx => seven.edx,
        Word::X1Ecx => more.ecx,
        Word::X1Edx => more.edx,
        // None of those asked for.
        Word::L6Eax | Word::L72Edx | Word::Ld1Eax | Word::X7Edx => 0,
        Word::H0Eax | Word::H1Eax => 0,
    };
    value >> bit & 1 != 0
}

fn join(features: &[Feature]) -> String {
    features.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(" ")
}

fn time() {
    let found = frequency::host_tsc_frequency();
    let source = match found.source {
        Source::Leaf15 => "told by CPUID leaf 15H",
        Source::HypervisorLeaf => "told by the hypervisor",
        Source::Sysfs => "told by the kernel",
        Source::Measured => "measured",
    };
    line("TSC", &format!("{:.3} MHz, {source}", found.hz as f64 / 1e6));
}

fn memory() {
    let available = host_memory::available();
    let told = available.map_or("unknown".into(), |bytes| format!("{} MiB available", bytes >> 20));
    line("memory", &told);
}

/// Whether the hardware could help: being there and being usable are two things.
fn kvm() -> String {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => "/dev/kvm opens; gemello has no engine for it yet".into(),
        Err(error) => format!("/dev/kvm: {error}; not needed"),
    }
}

fn apt() -> String {
    if debian::apt::present() {
        "found: `gemello run debian` can fetch its guest".into()
    } else {
        "not found: give `gemello run` a --kernel and an --initrd".into()
    }
}

fn cache() {
    match debian::cache_directory() {
        Err(error) => line("cache", &format!("{error:#}")),
        Ok(path) => {
            let free = rustix::fs::statvfs(existing(&path)).ok();
            let free = free.map_or(String::new(), |s| {
                format!(", {} MiB free", s.f_bavail.saturating_mul(s.f_frsize) >> 20)
            });
            line("cache", &format!("{}{free}", path.display()));
        }
    }
    for release in debian::releases() {
        line("", &release);
    }
}

/// The nearest directory above `path` that is there.
fn existing(path: &std::path::Path) -> &std::path::Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(std::path::Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_processor_says_what_linux_says_of_it() {
        let known = fs::read_to_string("/proc/cpuinfo").expect("this test needs /proc");
        let flags = known.lines().find_map(|line| line.strip_prefix("flags")).expect("flags");
        let flags: Vec<_> = flags.split_whitespace().collect();
        for feature in FEATURES.into_iter().filter(|f| flags.contains(&f.name())) {
            assert!(shows(feature), "{} is there", feature.name());
        }
        assert!(known.contains(&brand()), "{}", brand());
    }
}
