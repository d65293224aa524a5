//! The agent: process 1 of the guests that gemello makes itself. It sets the system up, runs one
//! program with the streams that gemello has for it, tells its status, and powers off.
//!
//! ```text
//! init ── mounts, modules                     what each guest has
//!      ── briefing, entropy                   what it is told
//!      ── network, root                       set up, in this order
//!      ── bare                                a system that has no other process 1
//!      ── system, spared                      a system's own process 1 goes on
//!          ── beside                          with a shell beside it; or else:
//!      ── command                             a shell or a command, to its end
//!          ── lines: the serial lines         what gemello says, and what it is told
//!          ── streams: ports and pipes        a thread carries each
//!          ── session                         the same file again: becomes the program
//! serve ── service                            started when somebody asks
//!       ── exec, people                       commands, and as whom they run
//! ```
//! Called otherwise than as process 1: `serve` is the service, `job` and `failed` are others of a
//! system that has a process 1 of its own, `shell` is its shell; `lease INTERFACE` asks for
//! addresses by DHCP.

mod bare;
mod beside;
mod briefing;
mod command;
mod dhcp;
mod entropy;
mod exec;
mod follow;
mod init;
mod lines;
mod modules;
mod mounts;
mod netlink;
mod network;
mod nodes;
mod people;
mod role;
mod root;
mod serve;
mod service;
mod session;
mod spared;
mod streams;
mod system;

use anyhow::Result;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match words.split_first() {
        Some((word, rest)) if word == "session" => session::become_program(rest),
        Some((word, [])) if word == "job" => told(system::job()),
        Some((word, [])) if word == "shell" => beside::shell(),
        Some((word, [])) if word == "failed" => told(system::failed()),
        Some((word, rest)) if word == "serve" => told(serve(rest)),
        Some((word, [interface])) if word == "lease" => {
            told(network::ask(&interface.to_string_lossy()))
        }
        _ => {
            eprintln!("agent: process 1 of gemello's guests, or: agent lease INTERFACE");
            ExitCode::FAILURE
        }
    }
}

fn told(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A whole system's service has the drivers of its sockets aside; process 1 has loaded them.
fn serve(words: &[OsString]) -> Result<()> {
    let of_a_system = words.is_empty();
    if of_a_system {
        system::load_drivers();
    }
    serve::serve(session::usual(words)?, || match of_a_system {
        true => lines::Control::open()?.report(agent_job::SERVING),
        false => Ok(()),
    })
}
