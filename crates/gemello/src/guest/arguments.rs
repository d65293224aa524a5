//! The command line of `exec`, `cp`, `nc` and `ssh`.

use clap::Args;
use std::ffi::OsString;

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// A machine
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Give the command a terminal [default: where input and output are one]
    #[arg(short = 't', long, overrides_with = "no_tty")]
    pub(crate) tty: bool,

    /// Give it none
    #[arg(short = 'T', long)]
    pub(crate) no_tty: bool,

    /// For those used to docker: input is always there
    #[arg(short, long, hide = true)]
    pub(crate) interactive: bool,

    /// A variable of its environment; without VALUE, as it is here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,

    /// Its working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<std::path::PathBuf>,

    /// As whom it runs: names or numbers of the guest's [default: whom the machine's command runs
    /// as]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// What to run
    #[arg(value_name = "CMD", trailing_var_arg = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// From where: PATH here, NAME:PATH in a machine's guest, or - for a tar stream
    #[arg(value_name = "SRC")]
    pub(crate) from: OsString,

    /// To where; into a folder that is there, else by this name
    #[arg(value_name = "DST")]
    pub(crate) to: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct Netcat {
    /// A machine
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// A port of the guest's virtio sockets, or else of its loopback
    #[arg(value_name = "PORT")]
    pub(crate) port: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Ssh {
    /// A machine, and as whom [default: root]
    #[arg(value_name = "[USER@]NAME")]
    pub(crate) whom: String,

    /// For ssh: options, a command
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<OsString>,
}
