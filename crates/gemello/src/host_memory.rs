//! How much memory this host can give a guest, and a word to who asks for more.
//!
//! Guest memory is given as it is touched, so a guest may be larger than its host, and run well as
//! long as it touches less. One that touches more than there is has the host's kernel kill
//! processes. A budget (`--resident`) rules that out; without one, the user is told before.

use std::fs;
use std::path::{Path, PathBuf};

/// Says on standard error that `memory` bytes are more than there are, if so.
pub(crate) fn warn(memory: u64) {
    if let Some(limit) = limit().filter(|&limit| memory > limit) {
        eprintln!(
            "gemello: {} MiB of guest memory are more than the {} MiB that this host can give; a \
             guest that touches more is killed; --resident SIZE bounds what it takes",
            memory >> 20,
            limit >> 20
        );
    }
}

/// Bytes that the host could give now. `None`: it does not tell.
pub(crate) fn available() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Bytes that this process may have at the most: memory and swap of the host, or what its control
/// groups allow, if that is less. `None`: the host does not tell.
fn limit() -> Option<u64> {
    let host = total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups(&own).into_iter();
    let allowed = groups.filter_map(|group| fs::read_to_string(group.join("memory.max")).ok());
    Some(allowed.filter_map(|text| text.trim().parse().ok()).fold(host, u64::min))
}

/// Memory and swap of /proc/meminfo (proc_meminfo(5)), in bytes.
fn total(meminfo: &str) -> Option<u64> {
    Some(field(meminfo, "MemTotal:")? + field(meminfo, "SwapTotal:").unwrap_or(0))
}

/// The field called `name`, in bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The folders of the control groups of /proc/self/cgroup (cgroups(7), version 2), outwards.
fn groups(own: &str) -> Vec<PathBuf> {
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return vec![] };
    let root = Path::new("/sys/fs/cgroup");
    let group = root.join(path);
    group.ancestors().take_while(|at| at.starts_with(root)).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_swap_are_added() {
        let text = "MemTotal:       24683924 kB\nMemFree: 1 kB\nSwapTotal:        1024 kB\n";
        assert_eq!(total(text), Some((24_683_924 + 1024) << 10));
        assert_eq!(total("MemFree: 1 kB"), None);
        assert!(limit().is_some_and(|limit| limit > 64 << 20), "of this host");
    }

    #[test]
    fn every_group_around_the_process_counts() {
        let groups =
            |text| groups(text).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            groups("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]
        );
        assert_eq!(groups("0::/\n").len(), 1);
        assert!(groups("4:memory:/x\n").is_empty(), "version 1");
    }
}
