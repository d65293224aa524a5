//! Rows of the network: what a stream carries to a server of the host's, and from it.
//!
//! The server is `gemello bench` itself (`crates/gemello/src/bench/server.rs`). A request is a
//! byte, `o` (out of here) or `i`, and the number of bytes that follow, to the server or from it;
//! after those of `o` it gives the sum that it has made of them.

use crate::programs::Tools;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Mebibytes of a pass.
pub(crate) const PASS_MIB: usize = 32;
/// Bytes of a pass.
const PASS: usize = PASS_MIB << 20;
/// Bytes that the program moves at once.
const CHUNK: usize = 128 << 10;
/// Of so many bytes one is summed: what is timed is the network.
const STEP: usize = 64;

/// Brings the guest's network up with the drivers of gemello's initial file system.
const SET_UP: &str = "for driver in /drivers/*.ko; do insmod $driver; done; \
     ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0";

/// A connection with the server, and what it is for.
pub(crate) struct Transfer {
    stream: TcpStream,
    request: u8,
    buffer: Vec<u8>,
}

/// The transfer of the row `name`, if there is one.
pub(crate) fn find(name: &str, tools: &Tools) -> io::Result<Option<Transfer>> {
    let request = match name {
        "netout" => b'o',
        "netin" => b'i',
        _ => return Ok(None),
    };
    if Path::new("/drivers").exists() && !Path::new("/sys/class/net/eth0").exists() {
        set_up(&tools.busybox)?;
    }
    let stream = TcpStream::connect(&tools.server)?;
    let buffer = (0..CHUNK).map(|i| (i / STEP * 7) as u8).collect();
    Ok(Some(Transfer { stream, request, buffer }))
}

fn set_up(busybox: &Path) -> io::Result<()> {
    let output = Command::new(busybox).args(["sh", "-c", SET_UP]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(io::Error::other(format!("the network is not set up: {words}")))
}

impl Transfer {
    /// Moves [`PASS`] bytes, and sums them.
    pub(crate) fn pass(&mut self) -> Result<u64, String> {
        self.moved().map_err(|error| format!("the stream with the server: {error}"))
    }

    fn moved(&mut self) -> io::Result<u64> {
        let mut request = vec![self.request];
        request.extend((PASS as u64).to_le_bytes());
        self.stream.write_all(&request)?;
        if self.request == b'o' {
            for _ in 0..PASS / CHUNK {
                self.stream.write_all(&self.buffer)?;
            }
            let mut sum = [0; 8];
            self.stream.read_exact(&mut sum)?;
            return Ok(u64::from_le_bytes(sum));
        }
        let (mut position, mut sum) = (0, 0);
        while position < PASS {
            let most = self.buffer.len().min(PASS - position);
            let count = self.stream.read(&mut self.buffer[..most])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let first = position.next_multiple_of(STEP) - position;
            let summed = self.buffer[..count].iter().skip(first).step_by(STEP);
            sum += summed.map(|&byte| u64::from(byte)).sum::<u64>();
            position += count;
        }
        Ok(sum)
    }
}
