//! The configuration of a machine, checked before anything is built.

use crate::device::{Device, Disk, PORT_NAME_MAX, PORTS_MAX, SCRATCH_MAX, Scratch, Share, Vsock};
use crate::layout;
use devices::pci::PciBus;
use devices::virtio::fs::TAG;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use x86::cpuid::CpuModel;

/// The least RAM in bytes that a PC's layout needs.
pub const MEMORY_MIN: u64 = 2 << 20;
/// The most RAM in bytes: the page walk's physical address width, less the device hole.
pub const MEMORY_MAX: u64 = 1 << 40;
/// RAM comes in units of this many bytes.
pub const MEMORY_UNIT: u64 = 4096;

/// How many processors a machine may have.
pub(crate) const VCPUS: RangeInclusive<u32> = 1..=64;

/// Context IDs that a guest may have: those below and the last have meanings of their own.
const CIDS: RangeInclusive<u32> = 3..=u32::MAX - 1;

/// A machine to build.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of RAM, a multiple of [`MEMORY_UNIT`].
    pub memory: u64,
    /// How much of it the host keeps in its own memory. `None`: all that is touched.
    pub paging: Option<Paging>,
    /// The processor that the guest sees. Its frequencies and ids are filled in when the machine is
    /// built.
    pub cpu: CpuModel,
    /// How many of them there are, 1 to 64.
    pub vcpus: u32,
    /// What to boot.
    pub boot: BootConfig,
    /// Virtio devices, in the order of their slots; [`Transport::slots`] at the most.
    pub devices: Vec<Device>,
    /// How the guest reaches them.
    pub transport: Transport,
    /// Whether the debug-exit port is there.
    pub debug_exit: bool,
    /// Whether each run is the same: time is counted in instructions.
    pub deterministic: bool,
    /// End the run after this much host time; that of a deterministic machine, after this much of
    /// its own.
    pub timeout: Option<Duration>,
}

/// What a machine is made of, its processor aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Bytes of RAM.
    pub memory: u64,
    /// How much of it the host keeps in its own memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paging: Option<Paging>,
    /// Virtio devices.
    pub devices: Vec<Device>,
    /// How the guest reaches them.
    pub transport: Transport,
    /// Whether the debug-exit port is there.
    pub debug_exit: bool,
    /// Whether each run is the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
}

/// RAM larger than the host memory that it may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paging {
    /// Bytes that may be in the host's memory at a time.
    pub resident: u64,
    /// The folder for the file without a name that holds the rest.
    pub swap: PathBuf,
}

/// What to boot. Its files are of kind `F`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig<F = File> {
    /// The kernel.
    pub kernel: F,
    /// The initial RAM disk.
    pub initrd: Option<F>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Further files for the kernel, each with its arguments.
    pub modules: Vec<(F, String)>,
}

/// How the guest reaches virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Each is a function on PCI.
    Pci,
    /// Each has a page of registers, which ACPI tells of.
    Mmio,
}

impl Transport {
    /// Each transport.
    pub const ALL: [Self; 2] = [Self::Pci, Self::Mmio];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pci => "pci",
            Self::Mmio => "mmio",
        }
    }

    /// How many devices there can be.
    pub fn slots(self) -> usize {
        match self {
            Self::Pci => PciBus::FUNCTIONS_MAX,
            Self::Mmio => layout::VIRTIO_MAX,
        }
    }
}

/// A file to read when the machine is built, or bytes that are there already.
#[derive(Clone, Debug)]
pub enum File {
    /// This file of the host.
    Path(PathBuf),
    /// These bytes, called `name` in messages.
    Bytes {
        /// For messages.
        name: String,
        /// The content. A reset needs it again: what is part of the program is not copied.
        bytes: Cow<'static, [u8]>,
    },
}

/// What is wrong with a [`Config`]. Messages name its fields in backquotes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Too little RAM for any guest.
    #[error("{} of memory is too little; set `memory` to {} or more",
        size(*found), size(MEMORY_MIN))]
    MemoryTooSmall {
        /// Bytes asked for.
        found: u64,
    },
    /// More RAM than can be addressed.
    #[error("{} of memory is too much; set `memory` to {} or less", size(*found), size(MEMORY_MAX))]
    MemoryTooLarge {
        /// Bytes asked for.
        found: u64,
    },
    /// Not whole pages.
    #[error("{} of memory is no multiple of {}; round `memory` up",
        size(*found), size(MEMORY_UNIT))]
    MemoryUnaligned {
        /// Bytes asked for.
        found: u64,
    },
    /// A budget that holds nothing.
    #[error("{} of resident memory is too little; set `resident` to {} or more",
        size(*found), size(memory::LEAST_RESIDENT))]
    ResidentTooSmall {
        /// Bytes asked for.
        found: u64,
    },
    /// When a page leaves for the swap file is the host's affair, and shows in the page tables.
    #[error(
        "a deterministic machine keeps all of its memory; leave out `resident`, or `deterministic`"
    )]
    DeterministicPaging,
    /// No two runs would get the same bytes.
    #[error(
        "a deterministic machine has no random bytes of the host's; leave out `rng`, or \
         `deterministic`"
    )]
    DeterministicEntropy,
    /// Another's context ID.
    #[error("no guest has cid {found}; set that of `vsock` to 3 or more, below 4294967295")]
    Cid {
        /// Asked for.
        found: u32,
    },
    /// What comes by sockets, and when, is the host's affair.
    #[error(
        "a deterministic machine has no sockets to the host; leave out `vsock`, or `deterministic`"
    )]
    DeterministicVsock,
    /// What is in a folder of the host's, and when, is the host's affair.
    #[error(
        "a deterministic machine has no shared folders; leave out `shares`, or `deterministic`"
    )]
    DeterministicShare,
    /// No name that a guest can mount.
    #[error(
        "a shared folder cannot be called {found:?}: letters, digits, - _ and ., {TAG} at the \
         most, and no . first; write DIR:TAG in `shares`"
    )]
    ShareTag {
        /// Asked for.
        found: String,
    },
    /// Two folders of one name.
    #[error("two shared folders are called {found:?}; write DIR:TAG in `shares`")]
    SameTag {
        /// Which.
        found: String,
    },
    /// A guest has one address.
    #[error("a machine has one `vsock`; leave out the others")]
    SecondVsock,
    /// When a packet comes is the host's affair.
    #[error("a deterministic machine has no network; leave out `net`, or `deterministic`")]
    DeterministicNet,
    /// No processor, or more than a machine may have.
    #[error("a machine has {} to {} processors; set `vcpus` to one of these", VCPUS.start(),
        VCPUS.end())]
    Vcpus,
    /// More virtio devices than slots.
    #[error("{found} devices are too many; with this `transport` there are slots for {slots}")]
    TooManyDevices {
        /// Devices asked for.
        found: usize,
        /// What there are.
        slots: usize,
    },
    /// No size of a disk.
    #[error(
        "{found} bytes are no size of a scratch disk; give a multiple of 512, up to {}",
        size(SCRATCH_MAX)
    )]
    ScratchSize {
        /// Bytes asked for.
        found: u64,
    },
    /// Disks of a deterministic machine answer before the guest goes on.
    #[error(
        "a deterministic machine's disks answer at once; leave out a disk's `iops` and `bps`, or \
         `deterministic`"
    )]
    DeterministicLimit,
    /// Ports that no console device can have.
    #[error(
        "a console device has 1 to {PORTS_MAX} ports, their names up to {PORT_NAME_MAX} bytes; set \
         `ports` so"
    )]
    Ports,
    /// A timeout that has passed at once.
    #[error("a timeout of zero ends the run before it begins; give `timeout` a positive time")]
    TimeoutZero,
}

/// `bytes` in the largest unit that gives them exactly.
fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        _ if bytes == 0 => "0M".into(),
        30.. => format!("{}G", bytes >> 30),
        20.. => format!("{}M", bytes >> 20),
        10.. => format!("{}K", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

impl Hardware {
    /// Its disks that are the host's files.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.devices.iter().filter_map(|device| match device {
            Device::Disk(disk) => Some(disk),
            _ => None,
        })
    }

    /// Checks everything that needs no file and no host.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let found = self.memory;
        if found < MEMORY_MIN {
            return Err(ConfigError::MemoryTooSmall { found });
        }
        if found > MEMORY_MAX {
            return Err(ConfigError::MemoryTooLarge { found });
        }
        if !found.is_multiple_of(MEMORY_UNIT) {
            return Err(ConfigError::MemoryUnaligned { found });
        }
        if let Some(Paging { resident: found, .. }) = self.paging
            && found < memory::LEAST_RESIDENT
        {
            return Err(ConfigError::ResidentTooSmall { found });
        }
        if self.deterministic && self.paging.is_some() {
            return Err(ConfigError::DeterministicPaging);
        }
        if self.deterministic && self.disks().any(|disk| !disk.limit.is_none()) {
            return Err(ConfigError::DeterministicLimit);
        }
        if self.deterministic && self.devices.contains(&Device::Entropy) {
            return Err(ConfigError::DeterministicEntropy);
        }
        if self.deterministic && self.devices.iter().any(|it| matches!(it, Device::Net(_))) {
            return Err(ConfigError::DeterministicNet);
        }
        self.validate_shares()?;
        let vsocks = self.devices.iter().filter(|device| matches!(device, Device::Vsock(_)));
        match vsocks.count() {
            0 => {}
            _ if self.deterministic => return Err(ConfigError::DeterministicVsock),
            1 => {}
            _ => return Err(ConfigError::SecondVsock),
        }
        let (found, slots) = (self.devices.len(), self.transport.slots());
        if found > slots {
            return Err(ConfigError::TooManyDevices { found, slots });
        }
        self.devices.iter().try_for_each(Device::validate)
    }
}

impl Hardware {
    /// Its shared folders.
    fn shares(&self) -> impl Iterator<Item = &Share> {
        self.devices.iter().filter_map(|device| match device {
            Device::Share(share) => Some(share),
            _ => None,
        })
    }

    fn validate_shares(&self) -> Result<(), ConfigError> {
        if self.deterministic && self.shares().next().is_some() {
            return Err(ConfigError::DeterministicShare);
        }
        for (at, Share { tag, .. }) in self.shares().enumerate() {
            if self.shares().skip(at + 1).any(|other| other.tag == *tag) {
                return Err(ConfigError::SameTag { found: tag.clone() });
            }
        }
        Ok(())
    }
}

impl Share {
    fn validate(&self) -> Result<(), ConfigError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = (1..=TAG).contains(&self.tag.len())
            && !self.tag.starts_with('.')
            && self.tag.bytes().all(fits);
        if good { Ok(()) } else { Err(ConfigError::ShareTag { found: self.tag.clone() }) }
    }
}

impl Device {
    fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Scratch(Scratch { bytes: found, content, read_only: _ }) => {
                let good = (1..=SCRATCH_MAX).contains(found)
                    && found.is_multiple_of(512)
                    && content.len() as u64 <= *found;
                if good { Ok(()) } else { Err(ConfigError::ScratchSize { found: *found }) }
            }
            Self::Console(ports) => {
                let good = (1..=PORTS_MAX).contains(&ports.len())
                    && ports.iter().all(|port| port.name.len() <= PORT_NAME_MAX);
                if good { Ok(()) } else { Err(ConfigError::Ports) }
            }
            Self::Vsock(Vsock { cid, .. }) => {
                if CIDS.contains(cid) {
                    Ok(())
                } else {
                    Err(ConfigError::Cid { found: *cid })
                }
            }
            Self::Share(share) => share.validate(),
            Self::Disk(_) | Self::Hvc | Self::Net(_) | Self::Entropy | Self::Balloon => Ok(()),
        }
    }
}

impl<F> BootConfig<F> {
    /// Its files: the kernel, the initial RAM disk, the modules.
    pub(crate) fn files(&self) -> impl Iterator<Item = &F> {
        let modules = self.modules.iter().map(|(file, _)| file);
        std::iter::once(&self.kernel).chain(&self.initrd).chain(modules)
    }

    /// The same with what `file` makes of each file, in the order of [`Self::files`].
    pub(crate) fn try_map<'a, G, E>(
        &'a self,
        mut file: impl FnMut(&'a F) -> Result<G, E>,
    ) -> Result<BootConfig<G>, E> {
        let Self { kernel, initrd, cmdline, modules } = self;
        let kernel = file(kernel)?;
        let initrd = initrd.as_ref().map(&mut file).transpose()?;
        let module = |(it, arguments): &'a (F, String)| Ok((file(it)?, arguments.clone()));
        let modules = modules.iter().map(module).collect::<Result<_, E>>()?;
        Ok(BootConfig { kernel, initrd, cmdline: cmdline.clone(), modules })
    }

    /// The same where that cannot fail.
    pub(crate) fn map<'a, G>(&'a self, mut file: impl FnMut(&'a F) -> G) -> BootConfig<G> {
        let Ok(mapped) = self.try_map(|it| Ok::<_, Infallible>(file(it)));
        mapped
    }
}

impl Config {
    /// What the machine is made of.
    pub fn hardware(&self) -> Hardware {
        let Self { memory, paging, devices, transport, debug_exit, deterministic, .. } = self;
        Hardware {
            memory: *memory,
            paging: paging.clone(),
            devices: devices.clone(),
            transport: *transport,
            debug_exit: *debug_exit,
            deterministic: *deterministic,
        }
    }

    /// Checks everything that needs no file and no host.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.hardware().validate()?;
        if !VCPUS.contains(&self.vcpus) {
            return Err(ConfigError::Vcpus);
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(ConfigError::TimeoutZero);
        }
        Ok(())
    }
}

impl File {
    /// As the boot crate takes it.
    pub(crate) fn source(&self) -> boot::Source<'_> {
        match self {
            Self::Path(path) => boot::Source::Path(path),
            Self::Bytes { name, bytes } => boot::Source::Bytes { name, bytes },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Network;
    use devices::virtio::net::{Cable, Mac, UserConfig};

    fn config(memory: u64) -> Config {
        let kernel = File::Bytes { name: "kernel".into(), bytes: Cow::Borrowed(&[]) };
        let boot = BootConfig { kernel, initrd: None, cmdline: String::new(), modules: vec![] };
        let cpu = CpuModel::gemello_v2();
        Config {
            memory,
            paging: None,
            cpu,
            vcpus: 1,
            boot,
            devices: vec![],
            transport: Transport::Pci,
            debug_exit: false,
            deterministic: false,
            timeout: None,
        }
    }

    #[test]
    fn memory_is_bounded_and_whole_pages() {
        assert_eq!(config(512 << 20).validate(), Ok(()));
        assert_eq!(config(MEMORY_MIN).validate(), Ok(()));
        let (small, large) = (MEMORY_MIN - 4096, MEMORY_MAX + 4096);
        assert_eq!(config(small).validate(), Err(ConfigError::MemoryTooSmall { found: small }));
        assert_eq!(config(large).validate(), Err(ConfigError::MemoryTooLarge { found: large }));
        let odd = (512 << 20) + 1;
        assert_eq!(config(odd).validate(), Err(ConfigError::MemoryUnaligned { found: odd }));
    }

    #[test]
    fn messages_count_memory_in_units() {
        let message = |memory| config(memory).validate().expect_err("refused").to_string();
        assert!(message(512 << 10).starts_with("512K of memory is too little; set `memory` to 2M"));
        assert!(message(2 << 40).starts_with("2048G of memory is too much; set `memory` to 1024G"));
        assert!(message(0x80_0400).starts_with("8193K of memory is no multiple of 4K"));
        assert!(message(0).starts_with("0M of"));
    }

    #[test]
    fn a_deterministic_machine_has_no_swap_file() {
        let paging = Some(Paging { resident: memory::LEAST_RESIDENT, swap: "/tmp".into() });
        let with = |deterministic| {
            Config { paging: paging.clone(), deterministic, ..config(512 << 20) }.validate()
        };
        assert_eq!(with(false), Ok(()));
        assert_eq!(with(true), Err(ConfigError::DeterministicPaging));
    }

    #[test]
    fn a_deterministic_machine_has_no_random_bytes() {
        let with = |deterministic| {
            let devices = vec![Device::Entropy];
            Config { devices, deterministic, ..config(512 << 20) }.validate()
        };
        assert_eq!(with(false), Ok(()));
        assert_eq!(with(true), Err(ConfigError::DeterministicEntropy));
    }

    #[test]
    fn a_guest_has_one_address_of_its_own() {
        let with = |cids: &[u32], deterministic| {
            let vsock = |&cid: &u32| Device::Vsock(Vsock { cid, path: None });
            let devices = cids.iter().map(vsock).collect();
            Config { devices, deterministic, ..config(512 << 20) }.validate()
        };
        assert_eq!((with(&[3], false), with(&[u32::MAX - 1], false)), (Ok(()), Ok(())));
        for found in [0, 1, 2, u32::MAX] {
            assert_eq!(with(&[found], false), Err(ConfigError::Cid { found }));
        }
        assert_eq!(with(&[3, 4], false), Err(ConfigError::SecondVsock));
        assert_eq!(with(&[3], true), Err(ConfigError::DeterministicVsock));
    }

    #[test]
    fn a_deterministic_machine_has_no_network() {
        let with = |deterministic| {
            let cable = Cable::User(UserConfig::default());
            let devices = vec![Device::Net(Network { mac: Mac::of_machine("a"), cable })];
            Config { devices, deterministic, ..config(512 << 20) }.validate()
        };
        assert_eq!(with(false), Ok(()));
        assert_eq!(with(true), Err(ConfigError::DeterministicNet));
    }

    #[test]
    fn every_device_needs_a_slot() {
        let disk = Disk::new("disk.img".into());
        let disk = Device::Disk(disk);
        for (transport, slots) in [(Transport::Mmio, 8), (Transport::Pci, 31)] {
            let with = |found| {
                let devices = vec![disk.clone(); found];
                Config { devices, transport, ..config(512 << 20) }.validate()
            };
            assert_eq!(with(slots), Ok(()));
            let found = slots + 1;
            assert_eq!(with(found), Err(ConfigError::TooManyDevices { found, slots }));
        }
    }

    #[test]
    fn a_scratch_disk_has_whole_sectors() {
        let with = |bytes| {
            let devices = vec![Device::Scratch(Scratch::zeros(bytes))];
            Config { devices, ..config(512 << 20) }.validate()
        };
        assert_eq!(with(512), Ok(()));
        assert_eq!(with(SCRATCH_MAX), Ok(()));
        for found in [0, 511, 513, SCRATCH_MAX + 512] {
            assert_eq!(with(found), Err(ConfigError::ScratchSize { found }));
        }
        let small = Scratch { bytes: 512, ..Scratch::read_only(vec![0; 513].into()) };
        let devices = vec![Device::Scratch(small)];
        let refused = Config { devices, ..config(512 << 20) }.validate();
        assert_eq!(refused, Err(ConfigError::ScratchSize { found: 512 }));
    }

    #[test]
    fn a_machine_has_one_to_64_processors() {
        let with = |vcpus| Config { vcpus, ..config(512 << 20) }.validate();
        assert_eq!((with(1), with(64)), (Ok(()), Ok(())));
        for wrong in [0, 65, u32::MAX] {
            assert_eq!(with(wrong), Err(ConfigError::Vcpus));
        }
    }

    #[test]
    fn a_zero_timeout_is_refused() {
        let config = Config { timeout: Some(Duration::ZERO), ..config(512 << 20) };
        assert_eq!(config.validate(), Err(ConfigError::TimeoutZero));
    }
}
