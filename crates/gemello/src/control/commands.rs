//! `gemello ps`, `stop`, `pause`, `resume`, `stats` and `balloon`.

use super::client::{self, Link};
use super::figures::{Figures, Watched};
use super::protocol::{Answer, Balloon, Info, Request};
use crate::exit;
use crate::settings::values::{Size, Time};
use anyhow::{Context as _, Result, bail};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// How long a guest may take to shut down unless the user says otherwise.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// How long a machine whose plug is pulled may take.
const PULLED: Duration = Duration::from_secs(10);
/// How long a process whose machines have ended may take to be gone.
const LEAVES: Duration = Duration::from_secs(5);
/// The longest single wait for a machine's end.
const WAIT: Duration = Duration::from_secs(2);
/// For how long `stats` watches.
const WATCH: Duration = Duration::from_secs(1);

/// Lists this user's machines.
///
/// # Errors
/// They cannot be found.
pub(crate) fn ps(json: bool) -> Result<u8> {
    let mut machines = Vec::new();
    for mut link in client::all()? {
        match link.ask(&Request::Info) {
            Ok(Some(Answer::Info(info))) => machines.push(info),
            Ok(_) => {} // it has just ended
            Err(error) => eprintln!("gemello: {error:#}"),
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&machines)?);
    } else {
        print!("{}", table(&machines));
    }
    Ok(exit::OK)
}

fn table(machines: &[Info]) -> String {
    let width = machines.iter().map(|info| info.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:<width$}  {:>8}  {:<8}{:>8}{:>7}{:>10}{:>10}  CONSOLE\n",
        "NAME", "PID", "STATE", "UP s", "VCPUS", "MEMORY", "RESIDENT"
    );
    for info in machines {
        let Info { name, pid, state, seconds, vcpus, memory, resident, console } = info;
        let mib = |bytes: u64| format!("{}M", bytes.div_ceil(1 << 20));
        let resident = resident.map_or_else(|| "-".into(), mib);
        let _ = writeln!(
            text,
            "{name:<width$}  {pid:>8}  {state:<8}{seconds:>8}{vcpus:>7}{:>10}{resident:>10}  \
             {console}",
            mib(*memory)
        );
    }
    text
}

/// Has machines end: asks their guests to shut down and waits for that, and ends those that do not,
/// or all at once.
///
/// A guest that has just begun does not listen to its power button yet, so it is pressed again
/// until the machine ends. Who shuts down already makes nothing of it.
///
/// # Errors
/// There is no such machine, or it does not answer.
pub(crate) fn stop(names: &[String], force: bool, timeout: Option<Time>) -> Result<u8> {
    let timeout = timeout.map_or(SHUTDOWN, |Time(time)| time);
    let request = if force { Request::Kill } else { Request::PowerButton };
    let mut links = links(names)?;
    for link in &mut links {
        link.ask(&request).with_context(|| help(&link.name))?;
    }
    let deadline = Instant::now() + timeout;
    let mut code = exit::OK;
    for link in &mut links {
        if ends(link, deadline, &request)? {
            continue;
        }
        let (name, seconds) = (link.name.clone(), timeout.as_secs_f64());
        eprintln!("gemello: {name} has not ended within {seconds} s; its plug is pulled");
        link.ask(&Request::Kill)?;
        if !ends(link, Instant::now() + PULLED, &Request::Kill)? {
            eprintln!("gemello: {name} has not ended even so; end its process: gemello ps");
            code = exit::TIMED_OUT;
        }
    }
    Ok(code)
}

fn help(name: &str) -> String {
    format!("gemello stop --force {name} ends it at once")
}

/// Waits until the machine has ended, and repeats the `request` as long as it has not; false if it
/// has not at `deadline`.
fn ends(link: &mut Link, deadline: Instant, request: &Request) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).min(WAIT);
        let milliseconds = left.as_millis() as u64;
        match link.ask(&Request::Wait { milliseconds })? {
            None => return Ok(true),
            Some(Answer::Ended { process, .. }) => {
                if process {
                    link.gone(LEAVES);
                }
                return Ok(true);
            }
            Some(_) if left.is_zero() => return Ok(false),
            Some(_) => {}
        }
        if link.ask(request)?.is_none() {
            return Ok(true);
        }
    }
}

fn links(names: &[String]) -> Result<Vec<Link>> {
    names.iter().map(|name| Link::to(name)).collect()
}

/// Has machines stand still.
///
/// # Errors
/// There is no such machine, or it does not answer.
pub(crate) fn pause(names: &[String]) -> Result<u8> {
    each(names, &Request::Pause)
}

/// Has machines go on.
///
/// # Errors
/// There is no such machine, or it does not answer.
pub(crate) fn resume(names: &[String]) -> Result<u8> {
    each(names, &Request::Resume)
}

fn each(names: &[String], request: &Request) -> Result<u8> {
    for mut link in links(names)? {
        if link.ask(request)?.is_none() {
            bail!("{} has just ended", link.name);
        }
    }
    Ok(exit::OK)
}

/// Has the guest of a machine keep `memory`, if that is said, and tells how it is.
///
/// # Errors
/// There is no such machine, it has no balloon, or does not answer.
pub(crate) fn balloon(name: &str, memory: Option<Size>) -> Result<u8> {
    let mut link = Link::to(name)?;
    let memory = memory.map(|Size(bytes)| bytes);
    match link.ask(&Request::Balloon { memory })? {
        Some(Answer::Balloon(balloon)) => print!("{}", told(&balloon)),
        Some(other) => bail!("{name} answered {other:?}"),
        None => bail!("{name} has just ended"),
    }
    Ok(exit::OK)
}

fn told(balloon: &Balloon) -> String {
    let Balloon { memory, target, keeps, reported, free, available, caches } = balloon;
    let mut text = String::new();
    let mut line = |what: &str, bytes: Option<u64>| {
        let shown =
            bytes.map_or_else(|| "-".into(), |bytes| format!("{}M", (bytes + (1 << 19)) >> 20));
        let _ = writeln!(text, "{what:<28}{shown:>10}");
    };
    line("memory", Some(*memory));
    line("the guest is to keep", Some(*target));
    line("the guest keeps", Some(*keeps));
    line("  of that free", *free);
    line("  available to programs", *available);
    line("  copies of files", *caches);
    line("reported free so far", Some(*reported));
    text
}

/// Watches machines for a moment, all without a name, and tells their counters.
///
/// # Errors
/// There is no such machine, or it does not answer.
pub(crate) fn stats(names: &[String], json: bool) -> Result<u8> {
    let links = if names.is_empty() { client::all()? } else { links(names)? };
    let mut watched = Vec::new();
    for mut link in links {
        if let Some(figures) = figures(&mut link)? {
            watched.push((link, figures));
        }
    }
    std::thread::sleep(if watched.is_empty() { Duration::ZERO } else { WATCH });
    let mut told = Vec::new();
    for (mut link, before) in watched {
        if let Some(after) = figures(&mut link)? {
            told.push(Watched::between(&link.name, &before, after));
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        told.iter().for_each(|machine| print!("{machine}"));
    }
    Ok(exit::OK)
}

/// `None`: it has just ended.
fn figures(link: &mut Link) -> Result<Option<Figures>> {
    match link.ask(&Request::Figures)? {
        Some(Answer::Figures(figures)) => Ok(Some(figures)),
        Some(other) => bail!("{} answered {other:?}", link.name),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_stand_in_columns() {
        let info = |name: &str, resident| Info {
            name: name.into(),
            pid: 4_194_304,
            state: "running".into(),
            seconds: 86_400,
            vcpus: 2,
            memory: 1 << 30,
            resident,
            console: "/dev/pts/5".into(),
        };
        let text = table(&[info("a", None), info("a-longer-name", Some(5 << 20))]);
        let lines: Vec<_> = text.lines().collect();
        let column = lines[0].find("CONSOLE").expect("a head");
        assert!(lines[1..].iter().all(|line| line.find("/dev/pts/5") == Some(column)), "{text}");
        assert!(lines[1].contains("1024M         -") && lines[2].contains("        5M"), "{text}");
    }
}
