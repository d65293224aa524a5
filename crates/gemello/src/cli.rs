//! The command line.

use crate::bench::arguments::Bench;
use crate::debian::{Flavour, Release};
use crate::disk_command::{self, DiskCommand};
use crate::engine::{self, Choice};
use crate::examples::{
    BENCH_EXAMPLES, CONTROL_EXAMPLES, DOCTOR_EXAMPLES, EXAMPLES, FETCH_EXAMPLES, GUEST_EXAMPLES,
    IMAGE_EXAMPLES, RESTORE_EXAMPLES,
};
use crate::exit;
use crate::fetch::arguments::Fetch;
use crate::guest::arguments::{Copy, Exec, Netcat, Ssh};
use crate::settings::cloud_init::CloudInitSettings;
use crate::settings::console::ConsolePlace;
use crate::settings::disk::DiskSettings;
use crate::settings::module::ModuleSettings;
use crate::settings::name::MachineName;
use crate::settings::net::{NetChoice, Published};
use crate::settings::sched::{CpuLimit, CpuWeight, Quantum};
use crate::settings::share::ShareSettings;
use crate::settings::values::{self, CodeCache, Size, Text, Time};
use crate::settings::vsock::VsockSettings;
use crate::trace::Topic;
use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use engine_soft::Tier;
use machine::Transport;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use x86::cpuid::CpuModel;

/// Boots unmodified operating systems anywhere.
#[derive(Debug, Parser)]
#[command(name = "gemello", version, max_term_width = 100, after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a guest
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
    Run(Box<Run>),
    /// Go on with a machine that was saved
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(Restore),
    /// Fetch a guest into the cache, or bring it up to date
    #[command(after_help = FETCH_EXAMPLES)]
    Fetch(Fetch),
    /// List the images that are unpacked, and the machines that are kept
    #[command(after_help = IMAGE_EXAMPLES)]
    Images {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove machines that are kept, or images
    #[command(after_help = IMAGE_EXAMPLES)]
    Rm {
        /// Machines, or images by name or digest
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Remove images that no machine needs, and what was left behind
    #[command(after_help = IMAGE_EXAMPLES)]
    Prune,
    /// Make, look at, resize and commit disk images
    #[command(after_help = disk_command::EXAMPLES, subcommand)]
    Disk(DiskCommand),
    /// Tell what this host offers
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor,
    /// List the machines that run
    #[command(after_help = CONTROL_EXAMPLES)]
    Ps {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Ask guests to shut down, wait until they have, and end those that do not
    #[command(after_help = CONTROL_EXAMPLES)]
    Stop {
        /// Machines
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// End them at once, whatever their guests do
        #[arg(long)]
        force: bool,
        /// How long they may take [default: 30s]
        #[arg(long, value_name = "TIME", value_parser = Time::parse)]
        timeout: Option<Time>,
    },
    /// Have machines stand still
    #[command(after_help = CONTROL_EXAMPLES)]
    Pause {
        /// Machines
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Have paused machines go on
    #[command(after_help = CONTROL_EXAMPLES)]
    Resume {
        /// Machines
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Watch machines for a second: their memory and processors
    #[command(after_help = CONTROL_EXAMPLES)]
    Stats {
        /// Machines [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Take memory from a guest, or give it back; without SIZE, tell how it is
    #[command(after_help = CONTROL_EXAMPLES)]
    Balloon {
        /// A machine that runs with --balloon
        #[arg(value_name = "NAME")]
        name: String,
        /// How much of its memory the guest keeps
        #[arg(value_name = "SIZE", value_parser = Size::parse)]
        memory: Option<Size>,
    },
    /// A machine's console on this terminal
    #[command(after_help = CONTROL_EXAMPLES)]
    Console {
        /// A machine
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Run a command in a guest
    #[command(after_help = GUEST_EXAMPLES)]
    Exec(Exec),
    /// Copy files and folders into a guest or out of it
    #[command(after_help = GUEST_EXAMPLES)]
    Cp(Copy),
    /// Log in to a guest by this host's ssh, without a port
    #[command(after_help = GUEST_EXAMPLES)]
    Ssh(Ssh),
    /// Connect standard input and output to a guest's port
    #[command(after_help = GUEST_EXAMPLES)]
    Nc(Netcat),
    /// Measure this machine, natively, on gemello and on QEMU
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// The last of what a machine has put out
    #[command(after_help = CONTROL_EXAMPLES)]
    Logs {
        /// A machine
        #[arg(value_name = "NAME")]
        name: String,
        /// And all that follows, until it ends
        #[arg(short, long)]
        follow: bool,
    },
    /// For `run --detach`: run this in a session of its own
    #[command(hide = true)]
    Detached {
        /// A command line of gemello's
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// For `fetch` and `run`: configure the packages of a system in a guest
    #[command(hide = true)]
    Configure {
        /// Where its root is
        folder: PathBuf,
        /// What is run there
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// For `bench` and `fetch`: become a program that ends with its parent
    #[command(hide = true)]
    Tethered {
        /// The parent
        parent: i32,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What `gemello` without a command does.
pub(crate) fn nucleus() -> Command {
    Cli::parse_from(["gemello", "run", "--nucleus"]).command.unwrap_or(Command::Doctor)
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// `debian`, `oci:` and the path of an OCI image (a folder, an archive, what docker save
    /// writes; of several the one called so after a colon), `docker://` and the name of a
    /// registry's image, a kernel image, or a machine's file as --print-config prints it, which the
    /// options override (a file called debian: ./debian)
    #[arg(value_name = "debian|oci:PATH|docker://NAME|FILE")]
    pub(crate) what: Option<OsString>,

    /// Further machines of the same process, each a file whose name ends in .toml
    #[arg(value_name = "FILE.toml",
        value_parser = OsStringValueParser::new().try_map(machine_file))]
    pub(crate) more: Vec<PathBuf>,

    /// With `debian`, --rootfs or --system: run this in the guest in place of a shell; with an
    /// image: in place of its command
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,

    /// Kernel to boot: bzImage, vmlinux, PVH ELF or Multiboot image
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Boot this folder of the host's as the guest's root, `/` for all of it, by --kernel or one of
    /// Debian's kernels. The guest only reads it; what it writes is thrown away. CMD, or this
    /// user's shell, runs as this user, here
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<PathBuf>,

    /// With --rootfs: a folder of the host's that the guest may write; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) rw: Vec<PathBuf>,

    /// Boot the system on the first --disk, its systemd, by one of Debian's kernels: for a root
    /// file system without one. CMD, or a shell, is run as root as soon as the system is up. With
    /// `debian`: start its systemd for CMD, too
    #[arg(long)]
    pub(crate) system: bool,

    /// Boot the nucleus, which ships with gemello: its shell, or with a word `demo` or `test`
    #[arg(long, value_name = "WORD", num_args = 0..=1, default_missing_value = "",
        conflicts_with_all = ["kernel", "initrd", "module", "rootfs", "system"])]
    pub(crate) nucleus: Option<String>,

    /// Initial file system for the kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,

    /// Kernel command line; with `debian`, --rootfs or --system: appended to gemello's own [default
    /// for a kernel: console=ttyS0]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,

    /// Further file for a Multiboot or PVH kernel, with its arguments; may be repeated
    #[arg(long, value_name = "FILE[=ARGS]",
        value_parser = OsStringValueParser::new().try_map(|text| ModuleSettings::parse(&text)))]
    pub(crate) module: Vec<ModuleSettings>,

    /// Disk: a raw or qcow2 image file; options are ro, format=raw|qcow2, serial=TEXT,
    /// cache=writeback|writethrough|none|unsafe, backing=FILE|allow, iops=NUMBER, bps=SIZE; a comma
    /// in a name is written twice; may be repeated
    #[arg(long, value_name = "FILE[,ro][,OPTION]...",
        value_parser = OsStringValueParser::new().try_map(|text| DiskSettings::parse(&text)))]
    pub(crate) disk: Vec<DiskSettings>,

    /// Give the guest a disk on which cloud-init finds these files (NoCloud); without META-DATA it
    /// is called as the machine, and each change of USER-DATA makes it a new instance
    #[arg(long, value_name = "USER-DATA[,META-DATA[,NETWORK-CONFIG]]",
        value_parser = OsStringValueParser::new().try_map(|text| CloudInitSettings::parse(&text)))]
    pub(crate) cloud_init: Option<CloudInitSettings>,

    /// Sockets between the guest and the host: a program connects to PATH and says `CONNECT port`,
    /// or listens at PATH_port for the guest. Without a path, for `gemello exec` and nc alone
    /// [default: cid=3 where gemello makes the guest; else none]
    #[arg(long, value_name = "none|[cid=N][,path=PATH]",
        value_parser = OsStringValueParser::new().try_map(|text| VsockSettings::parse(&text)))]
    pub(crate) vsock: Option<VsockSettings>,

    /// Folder of this host's that the guest can mount by TAG [default: the folder's name]; with
    /// `debian` it is at /mnt/TAG. Options are ro, owner=me|keep|UID (who owns this user's files in
    /// the guest: root, the host's number, UID), cache=auto|always|none; a comma in a name is
    /// written twice; may be repeated
    #[arg(long, value_name = "DIR[:TAG][,ro][,OPTION]...",
        value_parser = OsStringValueParser::new().try_map(|text| ShareSettings::parse(&text)))]
    pub(crate) share: Vec<ShareSettings>,

    /// What the machine is called: letters, digits, - _ and . [default: debian, nucleus, or the
    /// name of the machine's file or image]
    #[arg(long, value_name = "NAME", value_parser = MachineName::parse)]
    pub(crate) name: Option<MachineName>,

    /// Guest memory, with unit K, M or G [default: 512M; for the nucleus 64M]
    #[arg(long, value_name = "SIZE", value_parser = Size::parse)]
    pub(crate) memory: Option<Size>,

    /// Keep at most so much of the guest's memory in the host's; the rest is in a file without a
    /// name, and comes back when the guest needs it
    #[arg(long, value_name = "SIZE", value_parser = Size::parse)]
    pub(crate) resident: Option<Size>,

    /// Folder, on a disk, for what --resident keeps out of memory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub(crate) swap: Option<PathBuf>,

    /// Processor that the guest sees, with features added or removed: gemello-v2,+smap,-pcid
    /// [default: gemello-v3 where this host can carry it, else gemello-v2]
    #[arg(long, value_name = "MODEL", value_parser = <Box<CpuModel>>::parse)]
    pub(crate) cpu: Option<Box<CpuModel>>,

    /// How many processors the guest has, 1 to 64 [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) vcpus: Option<u32>,

    /// How the guest reaches its disks: virtio over PCI or over MMIO [default: pci; for the nucleus
    /// mmio]
    #[arg(long, value_name = "pci|mmio", value_parser = Transport::parse)]
    pub(crate) transport: Option<Transport>,

    /// The guest's network: none; user, one behind this host's sockets, without privileges;
    /// switch=NAME, an Ethernet that machines of this user share; unix=PATH, a program such as
    /// passt or QEMU that listens there; tap=NAME, a TAP device that is there. mac=ADDRESS is the
    /// address of the guest's device. With user, a
    /// forward=tcp:127.0.0.1:8080:80 leads from a port of this host's (0: any) to one of the
    /// guest's; host-loopback=on lets the guest reach this host's loopback at 10.0.2.2; restrict=on
    /// lets it reach nothing else; dns=ADDR[:PORT] names the resolver [default: for debian and
    /// --rootfs user, unless it is deterministic; else none]
    #[arg(long, value_name = "NETWORK[,OPTIONS]", value_parser = NetChoice::parse)]
    pub(crate) net: Option<NetChoice>,

    /// Have a port of this host's lead to one of the guest's: short for --net user,forward=…; may
    /// be repeated
    #[arg(short, long, value_name = "[ADDRESS:]PORT:GUEST-PORT[/udp]",
        value_parser = Published::parse)]
    pub(crate) publish: Vec<Published>,

    /// Give the guest random bytes of the host's [default: on; off for the nucleus and with
    /// --deterministic]
    #[arg(long, value_name = "on|off", value_parser = values::switch)]
    pub(crate) rng: Option<bool>,

    /// Let `gemello balloon` take memory from the guest, and the guest give back what it has freed
    #[arg(long)]
    pub(crate) balloon: bool,

    /// Give the guest a virtio console, Linux's hvc0, as its console: faster than a serial line,
    /// and as large as your window; what it says on the first serial line is shown, too
    #[arg(long)]
    pub(crate) hvc: bool,

    #[command(flatten)]
    pub(crate) engine: EngineOptions,

    #[command(flatten)]
    pub(crate) sched: SchedOptions,

    /// End the run after this time: 30 (seconds), 500ms, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    pub(crate) timeout: Option<Time>,

    /// Where the first serial line ends: terminal, pty, or log:FILE [default: terminal; pty where
    /// several machines run]
    #[arg(long, value_name = "PLACE", value_parser = ConsolePlace::parse)]
    pub(crate) console: Option<ConsolePlace>,

    /// Write the guest's second serial line (with `debian -- CMD`: the kernel's messages) to this
    /// file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Write every frame of the guest's network to this file, for tcpdump or Wireshark
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,

    /// Follow these in detail, on standard error or in --trace-file
    #[arg(long, value_name = "TOPICS", value_enum, value_delimiter = ',')]
    pub(crate) trace: Vec<Topic>,

    /// Write the trace to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) trace_file: Option<PathBuf>,

    /// Print counters at the end, on standard error
    #[arg(long)]
    pub(crate) stats: bool,

    /// Where Ctrl-A s, or SIGUSR1, saves the machine; `gemello restore FILE` goes on from there
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,

    /// Let the guest end the program by writing a byte to port F4h
    #[arg(long)]
    pub(crate) debug_exit: bool,

    /// Make each run the same: the guest's time is counted in instructions, 1 ns each, and its
    /// processors run in turn on one host thread
    #[arg(long)]
    pub(crate) deterministic: bool,

    /// Print at the end, on standard error, how many instructions have run, and hashes of the
    /// machine's state and memory
    #[arg(long)]
    pub(crate) digest: bool,

    /// Throw away what a machine of an image or of a whole Debian writes, also where it has a
    /// --name
    #[arg(long)]
    pub(crate) rm: bool,

    /// With `debian`, an image or --rootfs: boot the kernel, rather than go on from where an
    /// earlier boot of the same machine was kept
    #[arg(long)]
    pub(crate) cold: bool,

    /// Which of Debian's releases `run debian` boots [default: trixie]
    #[arg(long, value_enum)]
    pub(crate) release: Option<Release>,

    /// Which of Debian's kernels [default: cloud]
    #[arg(long, value_enum)]
    pub(crate) flavour: Option<Flavour>,

    /// Run the machines in a process of their own, and print their names: gemello ps, logs, console
    /// and stop reach them
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Boot nothing: print a machine's file that says the same as this command line
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// Which engine, and how it runs guests.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct EngineOptions {
    /// What runs guest instructions [default: auto]
    #[arg(long, value_parser = one_of::<Choice>(Choice::ALL.map(|it| (it.name(), it.summary()))))]
    pub(crate) engine: Option<Choice>,

    #[arg(long, value_parser = one_of::<Tier>(Tier::ALL.map(|it| (it.name(), it.summary()))),
        help = format!("How the software engine runs guest code [default: {}]", default_tier()))]
    pub(crate) tier: Option<Tier>,

    #[arg(long, value_name = "SIZE", value_parser = CodeCache::parse,
        help = format!("Memory for translated code, 1M to 1G [default: {}]", default_code_cache()))]
    pub(crate) code_cache: Option<CodeCache>,
}

/// How the machine's processors get the host's.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SchedOptions {
    /// Host threads that run the guest's processors, in turn if these are more [default: as many as
    /// the host has; never more than the guest has]
    #[arg(long, value_name = "M")]
    pub(crate) pcpus: Option<NonZeroUsize>,

    /// How long a processor runs while others wait for its host thread, 0.1ms to 1s [default: 4ms]
    #[arg(long, value_name = "TIME", value_parser = Quantum::parse)]
    pub(crate) quantum: Option<Quantum>,

    /// The machine's part of the host threads against other machines of this process, 1 to 10000
    /// [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) cpu_weight: Option<CpuWeight>,

    /// The most processor time that the machine gets, in percent of one host processor: 50%, 200%
    /// [default: all]
    #[arg(long, value_name = "P%", value_parser = CpuLimit::parse)]
    pub(crate) cpu_limit: Option<CpuLimit>,
}

/// The file of a further machine.
fn machine_file(word: OsString) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(word);
    let is_one = path.extension().is_some_and(|extension| extension == "toml");
    if is_one { Ok(path) } else { Err("the name of a machine's file ends in .toml") }
}

/// One of these words; each is a value of `T`.
fn one_of<T>(
    words: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> impl TypedValueParser<Value = T>
where
    T: Text + Clone + Send + Sync + 'static,
{
    let word = |(name, summary)| PossibleValue::new(name).help(summary);
    let words: Vec<_> = words.into_iter().map(word).collect();
    PossibleValuesParser::new(words).try_map(|word| T::parse(&word))
}

fn default_tier() -> &'static str {
    engine::TIER.name()
}

fn default_code_cache() -> String {
    Size(engine_soft::CODE_CACHE as u64).text()
}

/// A saved machine, and how to run it.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// What `gemello run … --save FILE` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// What the machine is called from now on [default: as when it was saved]
    #[arg(long, value_name = "NAME", value_parser = MachineName::parse)]
    pub(crate) name: Option<MachineName>,

    #[command(flatten)]
    pub(crate) engine: EngineOptions,

    #[command(flatten)]
    pub(crate) sched: SchedOptions,

    /// End the run after this time: 30 (seconds), 500ms, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    pub(crate) timeout: Option<Time>,

    /// Where Ctrl-A s, or SIGUSR1, saves the machine again
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,

    /// Write the guest's second serial line to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Write every frame of the guest's network to this file, for tcpdump or Wireshark
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,

    /// Take the disks as they are, also where their files were written since the machine was saved
    #[arg(long)]
    pub(crate) accept_disks: bool,

    /// Print counters at the end, on standard error
    #[arg(long)]
    pub(crate) stats: bool,

    /// Print at the end, on standard error, how many instructions have run, and hashes of the
    /// machine's state and memory
    #[arg(long)]
    pub(crate) digest: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command in the help texts and in README.md, up to its explanation.
    fn shown_commands() -> Vec<String> {
        let readme = include_str!("../../../README.md");
        let help = [
            EXAMPLES,
            RESTORE_EXAMPLES,
            CONTROL_EXAMPLES,
            GUEST_EXAMPLES,
            IMAGE_EXAMPLES,
            FETCH_EXAMPLES,
            DOCTOR_EXAMPLES,
            BENCH_EXAMPLES,
            disk_command::EXAMPLES,
        ];
        let lines = help.into_iter().chain([readme]).flat_map(str::lines);
        let indented = lines.filter_map(|line| line.strip_prefix("  ")).map(str::trim);
        let commands = indented.filter_map(|line| {
            let line = line.split("  ").next()?.split(" #").next()?;
            let from = line.find("gemello").filter(|&at| at == 0 || line[..at].ends_with("| "))?;
            Some(line[from..].split(" > ").next()?.to_owned())
        });
        commands.collect()
    }

    #[test]
    fn every_command_that_is_shown_is_one() {
        let commands = shown_commands();
        assert!(commands.len() > 35, "{commands:?}");
        for line in commands {
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("refused"));
        }
    }

    #[test]
    fn a_command_follows_two_dashes() {
        let cli = Cli::try_parse_from(["gemello", "run", "debian", "--", "ls", "--help"]);
        let Some(Command::Run(run)) = cli.expect("valid").command else { panic!("not run") };
        assert_eq!(run.command, ["ls", "--help"]);
    }
}
