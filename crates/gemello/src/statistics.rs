//! `--stats`: the counters of a run as a table.

use machine::{
    Activity, Exits, Flows, Link, NetStats, PagerStats, PortStats, ProcessorStats, ShareStats,
    Stats, Traffic, Unclaimed,
};
use sched::Usage;
use std::fmt;
use vcpu::{Lockstep, Statistics, Translator};
use x86::addr::Vector;

/// The counters of a run as a table.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) stats: &'a Stats,
    /// Bytes of the guest's memory that are in the host's, if that is known.
    pub(crate) resident: Option<u64>,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { wall, processors, service, paging, ports, net, shares, unclaimed } = self.stats;
        writeln!(f, "wall time {:>12.3} s", wall.as_secs_f64())?;
        for (number, processor) in processors.iter().enumerate() {
            writeln!(f, "processor {number}")?;
            processor_rows(f, processor)?;
        }
        writeln!(f, "devices and I/O ran {:.3} s on host threads", service.as_secs_f64())?;
        if let Some(paging) = paging {
            paging_rows(f, paging, wall.as_secs_f64())?;
        } else if let Some(resident) = self.resident {
            writeln!(f, "guest memory, {:.1} MiB resident", mib(resident))?;
        }
        if !ports.is_empty() {
            writeln!(f, "bytes that went through ports")?;
        }
        for PortStats { name, received, sent } in ports {
            writeln!(f, "  {name:<24} {received:>12} to the guest {sent:>12} from it")?;
        }
        if let Some(net) = net {
            network_rows(f, net)?;
        }
        shares.iter().try_for_each(|share| share_rows(f, share))?;
        if !unclaimed.is_empty() {
            writeln!(f, "accesses to places where no device is")?;
            for Unclaimed { place, reads, writes } in unclaimed {
                writeln!(f, "  {:<24} {reads:>10} reads {writes:>10} writes", place.to_string())?;
            }
        }
        Ok(())
    }
}

fn paging_rows(f: &mut fmt::Formatter<'_>, stats: &PagerStats, seconds: f64) -> fmt::Result {
    let PagerStats { budget, resident, swapped, zero, page_ins, page_outs, rescued } = *stats;
    writeln!(f, "guest memory, at most {:.1} MiB resident", mib(budget))?;
    for (name, bytes) in [("resident", resident), ("swapped out", swapped), ("zero", zero)] {
        writeln!(f, "  {name:<24} {:>10.1} MiB", mib(bytes))?;
    }
    let moves = [("page-ins", page_ins), ("page-outs", page_outs), ("rescued", rescued)];
    for (name, count) in moves {
        writeln!(f, "  {name:<24} {count:>10} {:>10.1} a second", count as f64 / seconds)?;
    }
    Ok(())
}

fn network_rows(f: &mut fmt::Formatter<'_>, stats: &NetStats) -> fmt::Result {
    let NetStats { received, sent, link, activity: Activity { lost, flows } } = stats;
    let plugged = if *link == Link::Up { "" } else { ", which is unplugged" };
    writeln!(f, "network{plugged}")?;
    for (name, Traffic { frames, bytes }) in [("to the guest", received), ("from it", sent)] {
        writeln!(f, "  {name:<24} {frames:>10} frames {bytes:>16} bytes")?;
    }
    writeln!(f, "  {:<24} {lost:>10} frames, for which there was no room", "lost")?;
    match flows {
        Some(flows) => writeln!(f, "  open: {}", flows_line(flows)),
        None => Ok(()),
    }
}

/// What is open, as text.
pub(crate) fn flows_line(flows: &Flows) -> String {
    let Flows { tcp_opening, tcp_open, udp, echo, dns } = flows;
    format!(
        "TCP connections {tcp_open}, about to be {tcp_opening}; UDP flows {udp}, echo requests \
         {echo}, DNS queries {dns}"
    )
}

fn share_rows(f: &mut fmt::Formatter<'_>, stats: &ShareStats) -> fmt::Result {
    let ShareStats { tag, requests, kinds, errors, read, written, known, kept, watched } = stats;
    writeln!(f, "shared folder {tag}")?;
    writeln!(f, "  {:<24} {requests:>10}, {errors} answered with an error", "requests")?;
    let most = kinds.iter().take(5).map(|(name, count)| format!("{count} {name}"));
    if !kinds.is_empty() {
        writeln!(f, "  {:<24} {}", "the most of them", most.collect::<Vec<_>>().join(", "))?;
    }
    for (name, bytes) in [("read", *read), ("written", *written)] {
        writeln!(f, "  {name:<24} {:>10.1} MiB", mib(bytes))?;
    }
    writeln!(
        f,
        "  {:<24} {known:>10}, {kept} kept open, {watched} directories watched",
        "files that it knows"
    )
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn processor_rows(f: &mut fmt::Formatter<'_>, processor: &ProcessorStats) -> fmt::Result {
    let ProcessorStats { engine, exits, async_faults, busy, usage } = processor;
    let seconds = busy.as_secs_f64();
    let mips = if seconds > 0.0 { engine.instructions as f64 / seconds / 1e6 } else { 0.0 };
    writeln!(f, "  busy {seconds:>15.3} s, {mips:.1} million guest instructions a second")?;
    usage_rows(f, usage)?;
    let share = |part: u64| 100.0 * part as f64 / engine.instructions.max(1) as f64;
    let direct = engine.direct + engine.translated;
    let rows = [
        ("instructions", engine.instructions, String::new()),
        ("  direct", direct, format!("{:.1} % ran on the host processor", share(direct))),
        (
            "    translated",
            engine.translated,
            format!("{:.1} % ran as translated code", share(engine.translated)),
        ),
        (
            "  interpreted",
            engine.instructions.saturating_sub(direct),
            "or emulated: the rest".into(),
        ),
        ("blocks entered", engine.blocks, String::new()),
        ("  decoded", engine.blocks_decoded, String::new()),
        ("  invalidated", engine.blocks_invalidated, "their code was written to".into()),
        ("TLB refills", engine.tlb_refills, String::new()),
        ("TLB flushes", engine.tlb_flushes, String::new()),
        ("CR3 loads", engine.cr3_loads, "the guest's context switches".into()),
        ("interrupts", engine.interrupts, String::new()),
        ("INT n", engine.software_interrupts, String::new()),
        ("port accesses", engine.pio, String::new()),
        ("device memory accesses", engine.mmio, String::new()),
        ("RDMSR, WRMSR", engine.msr, String::new()),
        ("CPUID", engine.cpuid, String::new()),
        ("HLT", engine.halts, String::new()),
    ];
    for (name, count, remark) in rows {
        let line = format!("  {name:<22} {count:>14}  {remark}");
        writeln!(f, "{}", line.trim_end())?;
    }
    if let Some(translator) = &engine.translator {
        translator_rows(f, translator, engine)?;
    }
    if let Some(lockstep) = &engine.lockstep {
        writeln!(f, "  lockstep: {}", lockstep_line(lockstep))?;
    }
    writeln!(f, "  exits: {}", exits_line(exits))?;
    if *async_faults > 0 {
        writeln!(f, "  async page faults {async_faults:>19}  pages that the guest waited for")?;
    }
    for (vector, &count) in engine.exceptions.iter().enumerate().filter(|&(_, &c)| c > 0) {
        writeln!(f, "  {:<22} {count:>14}", format!("exception {}", exception(vector)))?;
    }
    Ok(())
}

/// What it has had of the host's processors.
fn usage_rows(f: &mut fmt::Formatter<'_>, usage: &Usage) -> fmt::Result {
    let Usage { ran, steal, switches, quanta, yields } = usage;
    let (ran, steal) = (ran.as_secs_f64(), steal.as_secs_f64());
    writeln!(f, "  ran {ran:>16.3} s on host threads, waited {steal:.3} s for one (steal time)")?;
    let rows =
        [("context switches", switches), ("  quantum used up", quanta), ("  yielded", yields)];
    rows.iter().try_for_each(|(name, count)| writeln!(f, "  {name:<22} {count:>14}"))
}

/// What the translator did, and why its code was left.
fn translator_rows(
    f: &mut fmt::Formatter<'_>,
    translator: &Translator,
    engine: &Statistics,
) -> fmt::Result {
    let share = |part: u64| 100.0 * part as f64 / engine.translated_exits.max(1) as f64;
    let per = engine.translated / engine.translated_exits.max(1);
    let head = [
        ("blocks translated", engine.translated_blocks, String::new()),
        ("  links", engine.translated_links, "made between them".to_owned()),
        ("translated code left", engine.translated_exits, format!("every {per} instructions")),
    ];
    for (name, count, remark) in head {
        writeln!(f, "{}", format!("  {name:<22} {count:>14}  {remark}").trim_end())?;
    }
    let mut exit =
        |name: &str, count: u64| writeln!(f, "    {name:<20} {count:>14}  {:.1} %", share(count));
    exit("TLB misses", translator.tlb_misses)?;
    exit("interpreter's", translator.left)?;
    exit("unlinked jumps", translator.unlinked)?;
    exit("unknown targets", translator.unknown_targets)?;
    exit("rewritten code", translator.dead)?;
    exit("stopped", translator.stopped)?;
    exit("host faults", translator.faults)?;
    transfer_rows(f, translator, engine)?;
    if !translator.left_to_interpreter.is_empty() {
        let named = translator.left_to_interpreter.iter().map(|(name, n)| format!("{name} {n}"));
        writeln!(f, "  left to the interpreter: {}", named.collect::<Vec<_>>().join(", "))?;
    }
    let Translator { code_used, code_capacity, flushes, instructions, time, median, .. } =
        translator;
    writeln!(
        f,
        "  code cache: {} KiB of {} KiB used, flushed {flushes} times",
        code_used >> 10,
        code_capacity >> 10,
    )?;
    writeln!(
        f,
        "  translation: {instructions} instructions in {:.1} ms, {} ns each (median {} ns)",
        time.as_secs_f64() * 1e3,
        time.as_nanos() as u64 / (*instructions).max(1),
        median.as_nanos(),
    )
}

/// How often control went from one translation straight to another: by links, and by the table of
/// targets.
fn transfer_rows(
    f: &mut fmt::Formatter<'_>,
    translator: &Translator,
    engine: &Statistics,
) -> fmt::Result {
    let Translator { looked_up, unknown_targets, unlinked, entered, .. } = *translator;
    if entered == 0 {
        // Nobody counted.
        return Ok(());
    }
    let found = looked_up.saturating_sub(unknown_targets);
    let linked = entered.saturating_sub(found).saturating_sub(engine.translated_exits);
    let rows = [
        ("direct jumps", linked, unlinked, "linked"),
        ("table of targets", found, unknown_targets, "known"),
    ];
    for (name, hits, misses, what) in rows {
        let rate = 100.0 * hits as f64 / (hits + misses).max(1) as f64;
        writeln!(
            f,
            "  {name:<22} {:>14}  between translations, {rate:.2} % {what}",
            hits + misses
        )?;
    }
    Ok(())
}

fn lockstep_line(lockstep: &Lockstep) -> String {
    let Lockstep { entries, ahead, judged, unjudged, unwatched } = lockstep;
    let share = 100.0 * *judged as f64 / (judged + unjudged + unwatched).max(1) as f64;
    format!(
        "{judged} translated instructions compared ({share:.2} %) in {entries} entries, \
         {ahead} run ahead; {unjudged} undecided, {unwatched} in long loops"
    )
}

fn exits_line(exits: &Exits) -> String {
    let Exits { slice_over, kicked, halted, absent, reset, shutdown, fatal } = exits;
    let all = [
        ("halted", halted),
        ("kicked", kicked),
        ("slice over", slice_over),
        ("page absent", absent),
        ("reset", reset),
        ("shutdown", shutdown),
        ("engine failure", fatal),
    ];
    let seen: Vec<_> =
        all.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
    if seen.is_empty() { "none".into() } else { seen.join(", ") }
}

/// The manual's name of exception `number`, or the number where it has none.
fn exception(number: usize) -> String {
    let name = u8::try_from(number).ok().and_then(|number| Vector(number).name());
    name.map_or_else(|| number.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Place;
    use std::time::Duration;
    use x86::addr::Port;

    #[test]
    fn statistics_read_well() {
        let mut engine =
            Statistics { instructions: 2_000_000, direct: 500_000, ..Default::default() };
        engine.exceptions[14] = 7;
        engine.exceptions[15] = 2;
        let exits = Exits { halted: 3, ..Default::default() };
        let usage = Usage { quanta: 7, steal: Duration::from_millis(250), ..Default::default() };
        let stats = Stats {
            wall: Duration::from_secs(2),
            service: Duration::from_millis(250),
            processors: vec![ProcessorStats {
                engine,
                exits,
                async_faults: 9,
                busy: Duration::from_secs(1),
                usage,
            }],
            paging: Some(PagerStats { budget: 3 << 20, page_ins: 5, ..Default::default() }),
            ports: vec![PortStats { name: "gemello.stdin".into(), received: 77, sent: 88 }],
            net: Some(NetStats {
                received: Traffic { frames: 3, bytes: 4242 },
                sent: Traffic::default(),
                link: Link::Up,
                activity: Activity { lost: 6, flows: Some(Flows { udp: 9, ..Flows::default() }) },
            }),
            shares: vec![ShareStats { tag: "src".into(), read: 4 << 20, ..Default::default() }],
            unclaimed: vec![Unclaimed { place: Place::Port(Port(0x2e)), reads: 1, writes: 2 }],
        };
        let text = Table { stats: &stats, resident: None }.to_string();
        for expected in [
            "2.0 million",
            "waited 0.250 s",
            "quantum used up                   7",
            "async page faults                   9",
            "25.0 %",
            "exception #PF",
            "exception 15",
            "halted 3",
            "port 0x002e",
            "at most 3.0 MiB resident",
            "shared folder src",
            "4.0 MiB",
            "2.5 a second",
            "3 frames             4242 bytes",
            "6 frames, for",
            "UDP flows 9",
            "77 to the guest           88 from it",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
    }

    #[test]
    fn transfers_are_told_apart() {
        let counted = Translator {
            looked_up: 100,
            unknown_targets: 1,
            unlinked: 5,
            entered: 300,
            ..Default::default()
        };
        let engine = Statistics { translated_exits: 6, ..Default::default() };
        let text = |t: &Translator| {
            let mut text = String::new();
            let rows = |f: &mut fmt::Formatter<'_>| transfer_rows(f, t, &engine);
            fmt::write(&mut text, format_args!("{}", fmt::from_fn(rows))).map(|()| text)
        };
        let rows = text(&counted).expect("a string takes anything");
        // 300 entries are 99 look-ups, 6 of the run loop, and 195 links; 5 were not linked yet.
        assert!(rows.contains("200  between translations, 97.50 % linked"), "{rows}");
        assert!(rows.contains("100  between translations, 99.00 % known"), "{rows}");
        assert_eq!(text(&Translator::default()).as_deref(), Ok(""), "nobody counted");
    }
}
