//! `gemello doctor`: what this host offers, and what follows from it.

use crate::debian;
use crate::terminal;
use machine::frequency::{self, Source};
use std::fs;
use std::fs::OpenOptions;

/// CPU features whose absence a user would notice.
const FEATURES: [&str; 14] = [
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "bmi2",
    "adx",
    "movbe",
    "aes",
    "pclmulqdq",
    "sha_ni",
    "rdrand",
    "fsgsbase",
    "invpcid",
    "xsave",
];

/// Prints the findings.
pub(crate) fn doctor() {
    line("gemello", env!("CARGO_PKG_VERSION"));
    processor();
    time();
    memory();
    line("KVM", &kvm());
    line("engines", "soft (used by --engine auto)");
    line("apt", &apt());
    cache();
    line("terminal", if terminal::input_is_terminal() { "yes" } else { "standard input is none" });
}

fn line(name: &str, text: &str) {
    println!("{name:<12} {text}");
}

fn processor() {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let found = text.lines().find(|line| line.split(':').next().unwrap_or("").trim() == name);
        found.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    line("processor", &format!("{} ({}), {count} usable", field("model name"), field("vendor_id")));
    let flags: Vec<_> = field("flags").split(' ').collect();
    let (has, lacks): (Vec<_>, Vec<_>) = FEATURES.iter().partition(|name| flags.contains(name));
    line("has", &join(&has));
    if !lacks.is_empty() {
        line("lacks", &format!("{}: a guest cannot have these", join(&lacks)));
    }
    if flags.contains(&"hypervisor") {
        line("", "itself a virtual machine");
    }
}

fn join(names: &[&str]) -> String {
    names.join(" ")
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
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|v| v.trim().trim_end_matches(" kB").parse::<u64>().ok());
    line("memory", &kib.map_or("unknown".into(), |kib| format!("{} MiB available", kib >> 10)));
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
