//! Why a guest cannot be booted, and what to do next.
use x86::addr::Gpa;

/// Every message names the file, what was found in it, and the remedy. Fields of what is wanted are
/// in backquotes: `memory`, `kernel`, `initrd`, `cmdline`, `modules`.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file cannot be opened or read.
    #[error("cannot read {role} {name} (check the path and its permissions)")]
    Read {
        /// "kernel image", "initrd", "module".
        role: &'static str,
        /// The file.
        name: String,
        /// The host's reason.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("{role} {name} is empty; was its download or build interrupted?")]
    Empty {
        /// "kernel image", "initrd", "module".
        role: &'static str,
        /// The file.
        name: String,
    },
    /// No boot protocol known here.
    #[error("{name} is {found}, not a kernel that can be booted here; {remedy}")]
    NotAKernel {
        /// The file.
        name: String,
        /// What its first bytes say it is.
        found: String,
        /// What to give instead.
        remedy: &'static str,
    },
    /// A kernel for another processor.
    #[error(
        "{name} is built for {found}, and this machine is x86-64; use an x86-64 (amd64) build of it"
    )]
    WrongArchitecture {
        /// The file.
        name: String,
        /// The architecture found.
        found: String,
    },
    /// A compressed file where the kernel itself is wanted.
    #[error(
        "{name} is compressed with {format}; use the distribution's bzImage, or decompress it \
         into a new file"
    )]
    Compressed {
        /// The file.
        name: String,
        /// gzip, xz, …
        format: &'static str,
        /// The program that decompresses standard input to standard output.
        tool: &'static str,
    },
    /// The file ends too early.
    #[error(
        "{name} is truncated: its {what} needs {needed} bytes and the file has {found}; fetch or \
         build it again"
    )]
    Truncated {
        /// The file.
        name: String,
        /// Which part.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A header contradicts itself.
    #[error("{name} has a corrupt header: {what}; fetch or build it again")]
    Corrupt {
        /// The file.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Well-formed, but beyond what is implemented.
    #[error("{name} {what}; {remedy}")]
    Unsupported {
        /// The file.
        name: String,
        /// What it asks for.
        what: String,
        /// What would work.
        remedy: &'static str,
    },
    /// Memory is too small, or has a hole where the image must lie.
    #[error(
        "{name} does not fit into the machine's memory: it needs {} at {gpa:#x}, and there are {} \
         of RAM; set `memory` to at least {}",
        size(*.bytes), size(*.ram), size(*.needed)
    )]
    TooLittleMemory {
        /// The file or table.
        name: String,
        /// Where it must go.
        gpa: Gpa,
        /// Its size in memory.
        bytes: u64,
        /// RAM there is.
        ram: u64,
        /// RAM that would do.
        needed: u64,
    },
    /// The initial RAM disk is larger than what is free for it.
    #[error(
        "initrd {name} has {} and the machine's memory has room for {} beside the kernel; \
         set `memory` to at least {}, or give a smaller initrd",
        size(*.bytes), size(*.free), size(*.needed)
    )]
    InitrdTooLarge {
        /// The file.
        name: String,
        /// Its size.
        bytes: u64,
        /// The largest free run of memory that the kernel can address.
        free: u64,
        /// RAM that would do.
        needed: u64,
    },
    /// The command line does not fit.
    #[error(
        "the command line has {found} bytes, and {name} takes {max} at the most; shorten `cmdline`"
    )]
    CmdlineTooLong {
        /// The kernel.
        name: String,
        /// Bytes given.
        found: u64,
        /// Bytes possible.
        max: u64,
    },
    /// The command line holds a zero byte.
    #[error(
        "the command line of {name} holds a zero byte, where the guest would stop reading; remove \
         it"
    )]
    CmdlineZero {
        /// The kernel or module.
        name: String,
    },
}

/// `bytes` in the largest unit that keeps it readable, for a reader.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes}"),
        0x400..0x10_0000 => format!("{}K", bytes.div_ceil(1 << 10)),
        _ => format!("{}M", bytes.div_ceil(1 << 20)),
    }
}
