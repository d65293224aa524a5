//! The network: addresses that gemello knows, or a DHCP server does.

use crate::{dhcp, netlink};
use agent_job::{Net, REPORT};
use anyhow::{Context as _, Result};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

/// What the guest's one device is called.
const DEVICE: &str = "eth0";

/// Sets the loopback and the guest's device up. A guest without its network is still one.
pub(crate) fn set_up(net: Net) {
    let done = try_to(net);
    if let Err(error) = done {
        eprintln!("{REPORT}no network: {error:#}");
    }
}

fn try_to(net: Net) -> Result<()> {
    let mut socket = netlink::Socket::open()?;
    socket.up(index("lo")?)?;
    if !Path::new("/sys/class/net").join(DEVICE).exists() {
        return Ok(());
    }
    match net {
        Net::None => socket.up(index(DEVICE)?),
        Net::Asked => ask(DEVICE),
        Net::Known { address, prefix, gateway, resolver } => {
            let device = index(DEVICE)?;
            socket.up(device)?;
            socket.add_address(device, address, prefix)?;
            socket.set_default_route(device, Some(gateway))?;
            resolve_by(&[resolver])
        }
    }
}

/// Asks for `device`'s addresses by DHCP, and sets them.
pub(crate) fn ask(device: &str) -> Result<()> {
    let mut socket = netlink::Socket::open()?;
    let index = index(device)?;
    socket.up(index)?;
    socket.flush_addresses(index)?;
    // The question's way out, while there is no address.
    socket.set_default_route(index, None)?;
    let folder = Path::new("/sys/class/net").join(device);
    let hardware = fs::read_to_string(folder.join("address")).unwrap_or_default();
    let lease = dhcp::ask(&hardware).with_context(|| format!("no lease for {device}"))?;
    socket.remove_default_route(index)?;
    socket.add_address(index, lease.address, lease.prefix)?;
    if let Some(gateway) = lease.gateway {
        socket.set_default_route(index, Some(gateway))?;
    }
    if lease.resolvers.is_empty() { Ok(()) } else { resolve_by(&lease.resolvers) }
}

fn index(device: &str) -> Result<u32> {
    let path = format!("/sys/class/net/{device}/ifindex");
    let text = fs::read_to_string(&path).with_context(|| format!("no {device}"))?;
    text.trim().parse().with_context(|| format!("{path} is no number"))
}

/// The file that says who resolves names. Where it is a link into `/run`, what is there is a
/// service's to say: it is said until that begins, and to resolved.
fn resolve_by(resolvers: &[Ipv4Addr]) -> Result<()> {
    let text: String = resolvers.iter().map(|it| format!("nameserver {it}\n")).collect();
    let path = Path::new("/etc/resolv.conf");
    let _ = fs::create_dir("/etc"); // a root may be anything
    let target = fs::read_link(path).unwrap_or_default();
    let service = Path::new("/etc").join(target.strip_prefix("..").unwrap_or(&target));
    let written = match service.strip_prefix("/etc/run").or(service.strip_prefix("/run")) {
        Ok(rest) => {
            let all: Vec<_> = resolvers.iter().map(Ipv4Addr::to_string).collect();
            let resolved = format!("[Resolve]\nDNS={}\n", all.join(" "));
            put(Path::new("/run/systemd/resolved.conf.d/gemello.conf"), &resolved)
                .and_then(|()| put(&Path::new("/run").join(rest), &text))
        }
        Err(_) => {
            let _ = fs::remove_file(path); // it may be a link to what is not here
            fs::write(path, text)
        }
    };
    written.context("cannot write who resolves names")
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}
