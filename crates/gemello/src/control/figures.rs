//! A machine's counters as they are told: plain numbers, summed over its life.

use crate::hosted::Hosted;
use crate::statistics::{flows_line, mib};
use machine::{Activity, Flows, Link, NetStats, PagerStats, ProcessorStats, Stats};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A machine's counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Nanoseconds that it has been run.
    pub(super) age: u64,
    pub(super) memory: MemoryFigures,
    pub(super) vcpus: Vec<VcpuFigures>,
    /// What has passed through its network device, if it has one.
    pub(super) net: Option<NetFigures>,
}

/// What has passed through a network device, and what is open behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NetFigures {
    pub(super) plugged: bool,
    pub(super) frames_to_guest: u64,
    pub(super) bytes_to_guest: u64,
    pub(super) frames_from_guest: u64,
    pub(super) bytes_from_guest: u64,
    pub(super) lost: u64,
    /// Where it is behind the host's sockets.
    pub(super) flows: Option<FlowFigures>,
}

/// What is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FlowFigures {
    pub(super) tcp_opening: usize,
    pub(super) tcp_open: usize,
    pub(super) udp: usize,
    pub(super) echo: usize,
    pub(super) dns: usize,
}

impl From<NetStats> for NetFigures {
    fn from(stats: NetStats) -> Self {
        let NetStats { received, sent, link, activity: Activity { lost, flows } } = stats;
        let flows = flows.map(|Flows { tcp_opening, tcp_open, udp, echo, dns }| FlowFigures {
            tcp_opening,
            tcp_open,
            udp,
            echo,
            dns,
        });
        Self {
            plugged: link == Link::Up,
            frames_to_guest: received.frames,
            bytes_to_guest: received.bytes,
            frames_from_guest: sent.frames,
            bytes_from_guest: sent.bytes,
            lost,
            flows,
        }
    }
}

/// Where a machine's memory is: bytes, and pages moved. What only a budget (`resident`) lets
/// gemello know is 0 without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MemoryFigures {
    pub(super) size: u64,
    /// In the host's memory.
    pub(super) resident: Option<u64>,
    /// In the swap file.
    pub(super) swapped: u64,
    /// Zero, and nowhere.
    pub(super) zero: u64,
    pub(super) page_ins: u64,
    pub(super) page_outs: u64,
}

/// What a virtual processor has had of the host's: times in nanoseconds, events in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct VcpuFigures {
    /// On a host thread.
    pub(super) ran: u64,
    /// Waiting for one.
    pub(super) steal: u64,
    pub(super) switches: u64,
    pub(super) quanta: u64,
    pub(super) yields: u64,
}

impl Figures {
    /// Those of `machine`, as they are now.
    pub(super) fn of(machine: &Hosted) -> Self {
        let Stats { processors, paging, net, .. } = machine.handle.stats();
        let size = machine.memory;
        let memory = match paging {
            Some(PagerStats { resident, swapped, zero, page_ins, page_outs, .. }) => {
                MemoryFigures { size, resident: Some(resident), swapped, zero, page_ins, page_outs }
            }
            None => MemoryFigures {
                size,
                resident: machine.handle.resident(),
                swapped: 0,
                zero: 0,
                page_ins: 0,
                page_outs: 0,
            },
        };
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let vcpu = |ProcessorStats { usage, .. }: &ProcessorStats| VcpuFigures {
            ran: nanoseconds(usage.ran),
            steal: nanoseconds(usage.steal),
            switches: usage.switches,
            quanta: usage.quanta,
            yields: usage.yields,
        };
        let vcpus = processors.iter().map(vcpu).collect();
        Self { age: nanoseconds(machine.age()), memory, vcpus, net: net.map(NetFigures::from) }
    }
}

/// What a machine did between two moments, and how it stands at the second.
#[derive(Debug, Serialize)]
pub(super) struct Watched {
    pub(super) name: String,
    /// Seconds between the two.
    pub(super) seconds: f64,
    pub(super) page_ins_a_second: f64,
    pub(super) page_outs_a_second: f64,
    pub(super) memory: MemoryFigures,
    pub(super) vcpus: Vec<VcpuWatched>,
    pub(super) net: Option<NetWatched>,
}

/// The same of a network device.
#[derive(Debug, Serialize)]
pub(super) struct NetWatched {
    pub(super) bytes_to_guest_a_second: f64,
    pub(super) bytes_from_guest_a_second: f64,
    #[serde(flatten)]
    pub(super) figures: NetFigures,
}

/// The same of a processor. The shares are of one host processor.
#[derive(Debug, Serialize)]
pub(super) struct VcpuWatched {
    pub(super) ran_share: f64,
    pub(super) steal_share: f64,
    #[serde(flatten)]
    pub(super) figures: VcpuFigures,
}

impl Watched {
    /// The machine `name` from `before` to `after`.
    pub(super) fn between(name: &str, before: &Figures, after: Figures) -> Self {
        let seconds = (after.age.saturating_sub(before.age) as f64 / 1e9).max(1e-9);
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let vcpu = |(old, new): (&VcpuFigures, VcpuFigures)| VcpuWatched {
            ran_share: rate(new.ran, old.ran) / 1e9,
            steal_share: rate(new.steal, old.steal) / 1e9,
            figures: new,
        };
        let net = before.net.as_ref().zip(after.net).map(|(old, new)| NetWatched {
            bytes_to_guest_a_second: rate(new.bytes_to_guest, old.bytes_to_guest),
            bytes_from_guest_a_second: rate(new.bytes_from_guest, old.bytes_from_guest),
            figures: new,
        });
        Self {
            name: name.into(),
            net,
            seconds,
            page_ins_a_second: rate(after.memory.page_ins, before.memory.page_ins),
            page_outs_a_second: rate(after.memory.page_outs, before.memory.page_outs),
            memory: after.memory,
            vcpus: before.vcpus.iter().zip(after.vcpus).map(vcpu).collect(),
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, seconds: _, page_ins_a_second, page_outs_a_second, memory, vcpus, net } =
            self;
        let MemoryFigures { size, resident, swapped, zero, .. } = memory;
        let resident = resident.map_or_else(|| "-".into(), |bytes| format!("{:.1}", mib(bytes)));
        writeln!(f, "{name}")?;
        writeln!(
            f,
            "  memory {:.1} MiB: resident {resident}, swapped out {:.1}, zero {:.1}; page-ins \
             {page_ins_a_second:.1} a second, page-outs {page_outs_a_second:.1}",
            mib(*size),
            mib(*swapped),
            mib(*zero)
        )?;
        writeln!(
            f,
            "  {:<6}{:>10}{:>8}{:>10}{:>9}{:>10}{:>10}{:>10}",
            "vcpu", "time s", "now %", "steal s", "now %", "switches", "quanta", "yields"
        )?;
        for (number, vcpu) in vcpus.iter().enumerate() {
            let VcpuWatched { ran_share, steal_share, figures } = vcpu;
            let VcpuFigures { ran, steal, switches, quanta, yields } = figures;
            writeln!(
                f,
                "  {number:<6}{:>10.3}{:>8.1}{:>10.3}{:>9.1}{switches:>10}{quanta:>10}{yields:>10}",
                *ran as f64 / 1e9,
                100.0 * ran_share,
                *steal as f64 / 1e9,
                100.0 * steal_share
            )?;
        }
        net.as_ref().map_or(Ok(()), |net| write!(f, "{net}"))
    }
}

impl fmt::Display for NetWatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes_to_guest_a_second, bytes_from_guest_a_second, figures } = self;
        let NetFigures { plugged, lost, flows, .. } = figures;
        let mbit = |bytes: f64| 8.0 * bytes / 1e6;
        let unplugged = if *plugged { "" } else { ", unplugged" };
        writeln!(
            f,
            "  network{unplugged}: to the guest {} frames, {:.1} MiB, now {:.1} Mbit/s; from it {} \
             frames, {:.1} MiB, now {:.1} Mbit/s; lost {lost}",
            figures.frames_to_guest,
            mib(figures.bytes_to_guest),
            mbit(*bytes_to_guest_a_second),
            figures.frames_from_guest,
            mib(figures.bytes_from_guest),
            mbit(*bytes_from_guest_a_second),
        )?;
        let Some(FlowFigures { tcp_opening, tcp_open, udp, echo, dns }) = *flows else {
            return Ok(());
        };
        let flows = Flows { tcp_opening, tcp_open, udp, echo, dns };
        writeln!(f, "  open: {}", flows_line(&flows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(age: u64, page_ins: u64, ran: u64) -> Figures {
        let memory = MemoryFigures {
            size: 64 << 20,
            resident: Some(5 << 20),
            swapped: 0,
            zero: 0,
            page_ins,
            page_outs: 0,
        };
        let vcpu = VcpuFigures { ran, steal: 0, switches: 12, quanta: 3, yields: 4 };
        let flows = FlowFigures { tcp_opening: 0, tcp_open: 4, udp: 0, echo: 0, dns: 0 };
        let net = NetFigures {
            plugged: true,
            frames_to_guest: 3,
            bytes_to_guest: ran,
            frames_from_guest: 0,
            bytes_from_guest: 0,
            lost: 0,
            flows: Some(flows),
        };
        Figures { age, memory, vcpus: vec![vcpu], net: Some(net) }
    }

    #[test]
    fn rates_are_between_the_two_moments() {
        let (before, after) = (figures(10, 100, 7), figures(2_000_000_010, 150, 500_000_007));
        let watched = Watched::between("web", &before, after);
        assert_eq!(watched.page_ins_a_second, 25.0);
        assert_eq!(watched.vcpus[0].ran_share, 0.25);
        let text = watched.to_string();
        for piece in [
            "web\n",
            "resident 5.0",
            "page-ins 25.0 a second",
            "0.500    25.0",
            "now 2000.0 Mbit/s",
            "connections 4",
        ] {
            assert!(text.contains(piece), "no {piece:?} in\n{text}");
        }
    }
}
