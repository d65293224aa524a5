//! The machines that are compared, as commands.

use super::image::Files;
use super::server::Server;
use clap::ValueEnum;
use engine_soft::Tier;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// Where a row is run. The order is that of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Machine {
    /// This host, without a guest.
    Native,
    /// gemello's interpreter.
    T0,
    /// gemello's translator.
    T1,
    /// QEMU's translator.
    Tcg,
}

impl Machine {
    pub(super) const ALL: [Self; 4] = [Self::Native, Self::T0, Self::T1, Self::Tcg];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::T0 => "t0",
            Self::T1 => "t1",
            Self::Tcg => "tcg",
        }
    }
}

/// Every guest's memory.
const MEMORY_MIB: u32 = 512;
/// The nucleus's.
const NUCLEUS_MIB: u32 = 64;

/// What the commands need.
#[derive(Debug)]
pub(super) struct Programs {
    /// This program.
    pub(super) gemello: PathBuf,
    /// The static guest program.
    pub(super) guest: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) busybox: PathBuf,
    /// Where the compiler was unpacked, if it was wanted.
    pub(super) compiler: Option<PathBuf>,
    /// What rows of the network talk with, if there are any.
    pub(super) server: Option<Server>,
    pub(super) files: Files,
    /// gemello's processor model.
    pub(super) model: &'static str,
    /// A guest's processors.
    pub(super) vcpus: u32,
}

impl Programs {
    /// Answers rows by name on its serial line; natively on its standard input and output.
    pub(super) fn server(&self, machine: Machine) -> Command {
        let initrd = self.files.initrd();
        match machine {
            Machine::Native => {
                // Not tethered: it ends with its input, and then tidies up.
                let mut command = Command::new(&self.guest);
                command.arg("serve").arg(&self.busybox);
                command.arg(self.compiler.as_deref().unwrap_or(OsStr::new("").as_ref()));
                command.arg(self.server.as_ref().map(Server::for_this_host).unwrap_or_default());
                command
            }
            _ => match &self.server {
                None => self.linux(machine, &initrd, ""),
                Some(server) => {
                    let words = format!(" server={}", server.for_a_guest());
                    let mut command = self.linux(machine, &initrd, &words);
                    command.args(network(machine));
                    command
                }
            },
        }
    }

    /// Tells its uptime when process 1 starts, and powers off.
    pub(super) fn boot(&self, machine: Machine) -> Command {
        self.linux(machine, &self.files.small_initrd(), " bench=boot")
    }

    fn linux(&self, machine: Machine, initrd: &PathBuf, words: &str) -> Command {
        let mut command = self.computer(machine, MEMORY_MIB);
        command.arg(option(machine, "kernel")).arg(&self.kernel);
        command.arg(option(machine, "initrd")).arg(initrd);
        let cmdline = format!("console=ttyS0 quiet panic=-1{words}");
        command.arg(option(machine, "append")).arg(cmdline);
        command
    }

    /// The nucleus, which shows its prompt.
    pub(super) fn nucleus(&self, machine: Machine) -> Command {
        let mut command = self.computer(machine, NUCLEUS_MIB);
        command.arg(option(machine, "kernel")).arg(self.files.nucleus());
        command.arg(option(machine, "append")).arg("");
        command
    }

    /// The machine alone: a processor, memory, a serial line.
    fn computer(&self, machine: Machine, mib: u32) -> Command {
        let mut command = tethered(&self.gemello);
        let vcpus = self.vcpus.to_string();
        match machine {
            Machine::Native => unreachable!("a guest on no machine"),
            Machine::Tcg => {
                command.args(["qemu-system-x86_64", "-M", QEMU_MACHINE, "-accel", "tcg"]);
                command.args(["-cpu", "max", "-smp", &vcpus, "-m", &mib.to_string()]);
                command.args(["-no-user-config", "-nodefaults", "-display", "none"]);
                command.args(["-serial", "stdio", "-no-reboot"]);
            }
            Machine::T0 | Machine::T1 => {
                let tier = if machine == Machine::T0 { Tier::Interpret } else { Tier::Translate };
                command.arg(&self.gemello).args(["run", "--tier", tier.name()]);
                command.args(["--cpu", self.model, "--memory", &format!("{mib}M")]);
                command.args(["--vcpus", &vcpus]);
            }
        }
        command
    }
}

/// Both of QEMU's sorts of machine that suit were tried: see docs/adr/0018-the-benchmark.md.
const QEMU_MACHINE: &str = "q35";

/// A user-mode network from which the host's loopback is reached.
fn network(machine: Machine) -> &'static [&'static str] {
    match machine {
        Machine::Tcg => &["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"],
        _ => &["--net", "user,host-loopback=on"],
    }
}

/// How this machine's program calls an option.
fn option(machine: Machine, name: &'static str) -> String {
    match (machine, name) {
        (Machine::Tcg, name) => format!("-{name}"),
        (_, "append") => "--cmdline".into(),
        (_, name) => format!("--{name}"),
    }
}

/// A command that ends with this process however this process ends: by way of our own hidden
/// `tethered`.
pub(super) fn tethered(gemello: &PathBuf) -> Command {
    let mut command = Command::new(gemello);
    command.arg("tethered").arg(std::process::id().to_string());
    command
}
