//! TAP devices: network interfaces of the host's whose other end is a file (Linux,
//! Documentation/networking/tuntap.rst).
#![allow(unsafe_code)] // ioctl

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Setter, ioctl, opcode};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use std::fmt;
use std::fs::File;
use std::io;

/// Where such files come from.
const CLONE_DEVICE: &str = "/dev/net/tun";
const SET_INTERFACE: u32 = opcode::write::<libc::c_int>(b'T', 202); // TUNSETIFF
const SET_OFFLOAD: u32 = opcode::write::<libc::c_uint>(b'T', 208); // TUNSETOFFLOAD
const SET_HEADER_SIZE: u32 = opcode::write::<libc::c_int>(b'T', 216); // TUNSETVNETHDRSZ
/// Checksums may be left to us, and the segmentation of TCP over IPv4 and IPv6.
const OFFLOADS: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// Bytes of `struct virtio_net_hdr_v1`, which each frame has before it.
const HEADER: libc::c_int = 12;

/// A TAP device. Each read and each write of the file is a frame after its header.
#[derive(Debug)]
pub struct Tap(File);

/// `struct ifreq`, as TUNSETIFF takes it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

impl Tap {
    /// Opens the device `name`, which is there already; the file does not block.
    ///
    /// # Errors
    /// There is none, it is not this user's, or another program has it.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let error = |what, error: Errno| TapError { name: name.into(), what, error };
        let mut padded = [0; libc::IFNAMSIZ];
        let good = (1..libc::IFNAMSIZ).contains(&name.len()) && !name.contains(['/', '%', '\0']);
        if !good {
            return Err(error(What::Name, Errno::INVAL));
        }
        padded[..name.len()].copy_from_slice(name.as_bytes());
        // A privileged user would get a new one.
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None);
        let found = any.and_then(|any| name_to_index(any, name));
        found.map_err(|why| error(What::Find, why))?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(CLONE_DEVICE, flags, Mode::empty());
        let file = file.map_err(|why| error(What::CloneDevice, why))?;
        let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        let request = InterfaceRequest { name: padded, flags, rest: [0; 22] };
        // SAFETY: TUNSETIFF reads a struct ifreq; `InterfaceRequest` has its layout and size.
        let joined = unsafe { ioctl(&file, Setter::<SET_INTERFACE, _>::new(request)) };
        joined.map_err(|why| error(What::Join, why))?;
        // SAFETY: TUNSETVNETHDRSZ reads an int, which the setter holds until the call is over.
        let sized = unsafe { ioctl(&file, Setter::<SET_HEADER_SIZE, _>::new(HEADER)) };
        sized.map_err(|why| error(What::Join, why))?;
        // SAFETY: TUNSETOFFLOAD takes its flags as the argument itself, and no memory.
        let offload =
            unsafe { ioctl(&file, IntegerSetter::<SET_OFFLOAD>::new_usize(OFFLOADS as usize)) };
        offload.map_err(|why| error(What::Join, why))?;
        Ok(Self(file.into()))
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// What was attempted.
#[derive(Clone, Copy, Debug)]
enum What {
    Name,
    Find,
    CloneDevice,
    Join,
}

/// Why a TAP device cannot be had.
#[derive(Debug)]
pub struct TapError {
    name: String,
    what: What,
    error: Errno,
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what, error } = self;
        let (user, why) = (rustix::process::geteuid().as_raw(), io::Error::from(*error));
        let make = format!("`ip tuntap add dev {name} mode tap user {user}`");
        match (what, *error) {
            (What::Name, _) => {
                write!(
                    f,
                    "{name:?} is no name of a TAP device; give `net` 1 to 15 plain characters"
                )
            }
            (What::Find, _) => write!(
                f,
                "this host has no TAP device {name}: {why}; have an administrator run {make}"
            ),
            (What::CloneDevice, Errno::NOENT | Errno::NODEV) => write!(
                f,
                "this host has no TAP devices: cannot open {CLONE_DEVICE}: {why}; have an \
                 administrator run `modprobe tun`, or take another `net`"
            ),
            (What::CloneDevice, _) => write!(
                f,
                "cannot open {CLONE_DEVICE} for the TAP device {name}: {why}; have an \
                 administrator permit it, or take another `net`"
            ),
            (What::Join, Errno::PERM) => write!(
                f,
                "user {user} has no TAP device {name}: {why}; have an administrator run {make}"
            ),
            (What::Join, Errno::BUSY) => write!(
                f,
                "another program uses the TAP device {name}; end it, or name another in `net`"
            ),
            (What::Join, Errno::INVAL) => write!(
                f,
                "{name} is no TAP device: {why}; name another in `net`, or have an administrator \
                 run {make}"
            ),
            (What::Join, _) => write!(f, "cannot use the TAP device {name}: {why}"),
        }
    }
}

impl std::error::Error for TapError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_told_with_the_remedy() {
        for name in ["", "a/b", "tap%d", "a-name-of-16-byte"] {
            let refused = Tap::open(name).expect_err(name).to_string();
            assert!(refused.contains("no name of a TAP device"), "{refused}");
        }
        assert_eq!(size_of::<InterfaceRequest>(), size_of::<libc::ifreq>());
        let refused = Tap::open("gemello-none").expect_err("none").to_string();
        assert!(refused.contains("ip tuntap add dev gemello-none mode tap user"), "{refused}");
        let told = |what, error| TapError { name: "tap0".into(), what, error }.to_string();
        let remedy = "ip tuntap add dev tap0 mode tap user";
        assert!(told(What::Join, Errno::PERM).contains(remedy));
        assert!(told(What::Join, Errno::INVAL).contains(remedy));
        assert!(told(What::Join, Errno::BUSY).contains("another program"));
        assert!(told(What::CloneDevice, Errno::NOENT).contains("modprobe tun"));
        assert!(told(What::CloneDevice, Errno::ACCESS).contains("/dev/net/tun"));
    }
}
