//! `gemello restore`: a saved machine goes on.

use crate::cli::Restore;
use crate::control::{self, Name};
use crate::outfile::InUse;
use crate::output::LogFile;
use crate::place::Place;
use crate::save::Saver;
use crate::session::SavedSession;
use crate::settings::EngineSettings;
use crate::settings::net::find_switch;
use crate::settings::sched::SchedSettings;
use crate::settings::values::Time;
use crate::side::Side;
use crate::to_its_end::{Ready, Report, to_its_end};
use crate::trace::{self, To};
use crate::{engine, outfile, pairs};
use anyhow::Result;
use machine::{Machine, SavedMachine};

/// Restores the machine that `arguments` name, and gives the exit code.
///
/// # Errors
/// The file, or something this host lacks: nothing was run.
pub(crate) fn restore(arguments: &Restore) -> Result<u8> {
    trace::start(&[], To::StandardError);
    let engine = EngineSettings::from(&arguments.engine);
    pairs::code_cache(&engine)?;
    let mut saved = SavedMachine::open(&arguments.file)?;
    let session = SavedSession::read(&saved.header.session, &arguments.file)?;
    find_switch(&mut saved.header.hardware)?;
    let hardware = saved.header.hardware.clone();
    let sched = SchedSettings::from(&arguments.sched);
    pairs::turns(hardware.deterministic, &sched)?;
    if !arguments.accept_disks {
        let mut disks = hardware.disks().enumerate();
        disks.try_for_each(|(n, disk)| session.unwritten(n, disk))?;
    }
    let SavedSession { name, kind, side, .. } = session;
    let side = Side::restored(kind, Place::Standard, side);
    if !hardware.deterministic {
        side.tell_of_restore();
    }
    let name = arguments.name.clone().map_or(Name::ByDefault(name), Name::Said);
    let (name, claim) = control::claim(&name)?;
    let log = LogFile::default();
    let count = arguments.stats || arguments.digest;
    let options = engine::Options { count, ..engine.options() };
    let mut machine = Machine::from_saved(&mut saved, side.lines(&log), &*engine::make(options))?;
    machine.set_timeout(arguments.timeout.map(|Time(time)| time));
    let (mut in_use, capture) = (InUse::of_saved(&saved), LogFile::of("capture"));
    if let Some(path) = &arguments.log {
        outfile::open_log(path, &log, &mut in_use)?;
    }
    if let Some(path) = &arguments.pcap {
        outfile::open_capture(path, &capture, &machine.handle(), &mut in_use)?;
    }
    if let Some(path) = &arguments.save {
        let session = SavedSession::teller(&name, &side);
        side.wishes().arm_save(Saver::new(path, machine.handle(), hardware, session)?);
    }
    let report = Report { stats: arguments.stats, digest: arguments.digest };
    to_its_end(
        vec![Ready { name, claim: claim.ok(), machine, side, report, log, capture, sched }],
        &sched,
    )
}
