//! The agent: process 1 of the guests that gemello makes itself. It sets the system up, runs one
//! program with the streams that gemello has for it, tells its status, and powers off.
//!
//! ```text
//! init ── mounts, modules, network, root      set up, in this order
//!      ── lines: the serial lines             what gemello says, and what it is told
//!      ── streams: ports and pipes            a thread carries each
//!      ── session                             the same file again: becomes the program
//! serve ── service                            as process 1 starts it, when somebody asks
//!       ── exec, people                       commands, and as whom they run
//! ```
//! Called otherwise than as process 1: `serve` is the service, and `lease INTERFACE` asks for
//! addresses by DHCP.
#![forbid(unsafe_code)]

mod dhcp;
mod exec;
mod init;
mod lines;
mod modules;
mod mounts;
mod netlink;
mod network;
mod people;
mod root;
mod serve;
mod service;
mod session;
mod streams;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match words.split_first() {
        Some((word, rest)) if word == "session" => session::become_program(rest),
        Some((word, rest)) if word == "serve" => told(session::usual(rest).and_then(serve::serve)),
        Some((word, [interface])) if word == "lease" => {
            told(network::ask(&interface.to_string_lossy()))
        }
        _ => {
            eprintln!(
                "agent: process 1 of gemello's guests, or: agent serve, agent lease INTERFACE"
            );
            ExitCode::FAILURE
        }
    }
}

fn told(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
