//! `gemello bench`: one fixed set of rows on the native processor, on gemello's tiers and on QEMU,
//! interleaved in one run.
//!
//! Every machine is a child process: gemello itself, with the same kernel, initramfs and static
//! guest program as the others, spoken to over its serial line.

pub(crate) mod arguments;
mod crowd;
mod figures;
mod guards;
mod guest;
mod host;
mod image;
mod machine;
mod measure;
mod numbers;
mod progress;
mod scaling;
mod server;
mod set;
mod starts;
mod talk;
mod tether;

pub(crate) use tether::tethered;

use crate::debian::{DeviceKind, Driver};
use crate::{debian, exit};
use anyhow::{Context as _, Result, bail};
use arguments::Bench;
use figures::{Report, Samples};
use host::Host;
use image::Files;
use machine::{Machine, Programs};
use measure::Run;
use progress::Progress;
use scaling::Scaling;
use server::Server;
use set::Row;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use x86::cpuid::CpuModel;

/// Runs what `arguments` ask for, and gives the exit code.
///
/// # Errors
/// Wrong arguments, or something this host lacks: nothing was measured.
pub(crate) fn bench(arguments: &Bench) -> Result<u8> {
    if arguments.list {
        println!("{}", set::listing());
        return Ok(exit::OK);
    }
    let mut rows = set::select(&arguments.only).map_err(anyhow::Error::msg)?;
    if arguments.vcpus.is_some() {
        rows = scaling::rows(rows, arguments.only.is_empty());
    }
    let qemu = qemu_version();
    let machines = machines(&arguments.on, qemu.is_some())?;
    let fetched = debian::fetch(debian::Flavour::Cloud, debian::Refresh::IfMissing)?;
    let description = Host {
        cpu: host::cpu(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: host::kernel(),
        load: host::load(),
        date: host::date(),
        gemello: env!("CARGO_PKG_VERSION"),
        model: model()?.to_owned(),
        qemu: qemu.filter(|_| machines.contains(&Machine::Tcg)),
        guest: fetched.release.trim().replace('\n', ", "),
        rounds: arguments.rounds,
    };
    let report = match arguments.vcpus {
        None => {
            let each = |run: &mut Run<'_>, rows: &[Row]| run.samples(rows);
            let samples = measure(arguments, &rows, &machines, &fetched, each)?;
            let tools = starts::Tools {
                gemello: this_program()?,
                debian: &fetched,
                machines: &machines,
                rounds: arguments.rounds,
            };
            samples.and_then(|samples| from_outside(arguments, &tools, description, &samples))
        }
        Some(count) => {
            let side_by_side = |run: &mut Run<'_>, rows: &[Row]| run.side_by_side(rows, count);
            let samples = measure(arguments, &rows, &machines, &fetched, side_by_side)?;
            samples.map(|samples| {
                let report = Scaling::new(description, count, &samples);
                if arguments.json { report.json() } else { report.table() }
            })
        }
    };
    match report {
        Ok(report) => {
            println!("{report}");
            Ok(exit::OK)
        }
        Err(error) => {
            eprintln!("gemello: {error:#}");
            Ok(exit::FAILED)
        }
    }
}

/// What `how` has the machines say of `rows`. The inner error: one fails, or gives a wrong result.
///
/// # Errors
/// Something that this host lacks: nothing was measured.
fn measure<T>(
    arguments: &Bench,
    rows: &[Row],
    machines: &[Machine],
    fetched: &debian::Fetched,
    how: impl FnOnce(&mut Run<'_>, &[Row]) -> Result<Vec<T>>,
) -> Result<Result<Vec<T>>> {
    if rows.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let guest = guest::program(arguments.guest.as_deref())?;
    let programs = programs(guest, rows, fetched, arguments.vcpus.unwrap_or(1))?;
    let (rounds, progress) = (arguments.rounds, Progress::new());
    Ok(how(&mut Run { programs: &programs, machines, rounds, progress }, rows))
}

/// The report of `samples`, and of the starts and crowds asked for, which are measured now.
fn from_outside(
    arguments: &Bench,
    tools: &starts::Tools<'_>,
    description: Host,
    samples: &[Samples],
) -> Result<String> {
    let starts = starts::select(&arguments.only).into_iter();
    let starts = starts.map(|start| start.measure(tools));
    let starts = starts.collect::<Result<_>>()?;
    let crowds = crowd::select(&arguments.only);
    let crowds = crowds.iter().map(|crowd| crowd.measure(&tools.gemello)).collect::<Result<_>>()?;
    let report = Report::new(description, samples, starts, crowds);
    Ok(if arguments.json { report.json() } else { report.table() })
}

/// The machines asked for, in the table's order; without a word, all that are here.
fn machines(asked: &[Machine], qemu: bool) -> Result<Vec<Machine>> {
    if asked.contains(&Machine::Tcg) && !qemu {
        bail!("there is no qemu-system-x86_64 on this host; leave tcg out of --on");
    }
    let wanted = |machine: &Machine| match asked {
        [] => *machine != Machine::Tcg || qemu,
        _ => asked.contains(machine),
    };
    Ok(Machine::ALL.into_iter().filter(wanted).collect())
}

/// QEMU's own words, if it is installed.
fn qemu_version() -> Option<String> {
    let mut command = Command::new("qemu-system-x86_64");
    let output = command.arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.replace("emulator version ", ""))
}

fn programs(
    guest: PathBuf,
    rows: &[Row],
    fetched: &debian::Fetched,
    vcpus: u32,
) -> Result<Programs> {
    let compiler = if rows.iter().any(|row| row.name == "gcc") {
        Some(debian::compiler().context("the row gcc needs Debian's compiler")?)
    } else {
        None
    };
    let network = rows.iter().any(Row::is_of_the_network);
    let server = network.then(Server::start).transpose()?;
    let wanted =
        |driver: &&Driver| network && driver.serves(::machine::Transport::Pci, &[DeviceKind::Net]);
    let drivers: Vec<_> = fetched.drivers.iter().filter(wanted).collect();
    let files = Files::new(&guest, &fetched.busybox, compiler.as_deref(), &drivers)?;
    Ok(Programs {
        gemello: this_program()?,
        guest,
        kernel: fetched.kernel.clone(),
        busybox: fetched.busybox.clone(),
        compiler,
        server,
        files,
        model: model()?,
        vcpus,
    })
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program is")
}

/// The model with AVX2, where this host's processor can carry it.
fn model() -> Result<&'static str> {
    let best = CpuModel::parse("gemello-v3").context("no model gemello-v3")?;
    Ok(if engine_soft::missing_on_host(&best).is_empty() { "gemello-v3" } else { "gemello-v2" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_chosen() {
        use Machine::{Native, T0, T1, Tcg};
        assert_eq!(machines(&[], true).expect("all"), [Native, T0, T1, Tcg]);
        assert_eq!(machines(&[], false).expect("without QEMU"), [Native, T0, T1]);
        assert_eq!(machines(&[T1, Native], false).expect("two"), [Native, T1]);
        assert!(machines(&[Tcg], false).is_err());
    }
}
