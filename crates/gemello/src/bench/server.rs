//! The other end of the rows `netout` and `netin`: a server on this host's loopback.
//!
//! What it understands: `benches/guest/src/network.rs`.

use anyhow::{Context as _, Result};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

/// Bytes that are moved at once.
const CHUNK: usize = 256 << 10;
/// Of so many bytes one is summed.
const STEP: usize = 64;

/// A server that lasts as long as this process.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
}

impl Server {
    /// Listens, on threads of its own.
    ///
    /// # Errors
    /// The host has no port or thread left.
    pub(super) fn start() -> Result<Self> {
        let refused = "cannot listen on 127.0.0.1 for the rows of the network";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(refused)?;
        let port = listener.local_addr().context(refused)?.port();
        let accept = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A stream that ends early is its client's failure, which that reports.
                let serve = move || drop(serve(stream));
                drop(thread::Builder::new().name("server".into()).spawn(serve));
            }
        };
        thread::Builder::new().name("server".into()).spawn(accept).context(refused)?;
        Ok(Self { port })
    }

    /// Where a guest of a user-mode network with the host's loopback finds it.
    pub(super) fn for_a_guest(&self) -> String {
        format!("10.0.2.2:{}", self.port)
    }

    /// Where a process of the host does.
    pub(super) fn for_this_host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; CHUNK];
    let mut request = [0; 9];
    loop {
        stream.read_exact(&mut request)?;
        let bytes = u64::from_le_bytes(std::array::from_fn(|i| request[1 + i])) as usize;
        match request[0] {
            b'o' => {
                let sum = take(&mut stream, &mut buffer, bytes)?;
                stream.write_all(&sum.to_le_bytes())?;
            }
            _ => give(&mut stream, bytes)?,
        }
    }
}

/// The sum of a byte of each [`STEP`].
fn take(stream: &mut TcpStream, buffer: &mut [u8], bytes: usize) -> io::Result<u64> {
    let (mut position, mut sum) = (0, 0);
    while position < bytes {
        let most = buffer.len().min(bytes - position);
        let count = stream.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let first = position.next_multiple_of(STEP) - position;
        let summed = buffer[..count].iter().skip(first).step_by(STEP);
        sum += summed.map(|&byte| u64::from(byte)).sum::<u64>();
        position += count;
    }
    Ok(sum)
}

/// Each [`STEP`] has a byte of its own.
fn give(stream: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let buffer: Vec<u8> = (0..CHUNK).map(|i| (i / STEP * 7) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let count = left.min(CHUNK);
        stream.write_all(&buffer[..count])?;
        left -= count;
    }
    Ok(())
}
