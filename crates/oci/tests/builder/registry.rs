//! A registry on loopback, as obliging or hostile as a test wants it.

use crate::builder::Files;
use oci::Digest;
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With what follows a question mark.
    pub(crate) path: String,
    /// By names in small letters.
    pub(crate) fields: BTreeMap<String, String>,
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body after which the connection is cut.
    pub(crate) cut: Option<usize>,
    /// Nothing more for so long, at the cut.
    pub(crate) silence: Duration,
    /// In place of all this.
    pub(crate) raw: Option<Vec<u8>>,
    /// What follows, for ever.
    pub(crate) endless: bool,
}

/// Serves as long as the process lives.
pub(crate) struct Registry {
    pub(crate) place: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Reply {
    pub(crate) fn of(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl Registry {
    pub(crate) fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let place = listener.local_addr().expect("it is bound");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, noted) = (Arc::new(answer), Arc::clone(&log));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&noted));
                thread::spawn(move || converse(&stream, &log, &*answer));
            }
        });
        Self { place, log }
    }

    /// What has been asked so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.log.lock().expect("no test has panicked in it").clone()
    }
}

fn converse(
    stream: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    while let Some(request) = request(&mut lines)? {
        log.lock().expect("no test has panicked in it").push(request.clone());
        let reply = answer(&request);
        let mut stream = stream;
        if let Some(raw) = &reply.raw {
            return stream.write_all(raw);
        }
        let mut head = format!("HTTP/1.1 {} Reason\r\n", reply.status);
        if !reply.endless {
            head += &format!("Content-Length: {}\r\n", reply.body.len());
        }
        for (name, value) in &reply.fields {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method == "HEAD" {
            continue;
        }
        let whole = reply.body.len();
        let sent = reply.cut.unwrap_or(whole).min(whole);
        stream.write_all(&reply.body[..sent])?;
        if reply.endless {
            loop {
                stream.write_all(&[0; 4096])?;
            }
        }
        if sent < whole {
            thread::sleep(reply.silence);
            return stream.shutdown(std::net::Shutdown::Both);
        }
    }
    Ok(())
}

fn request(lines: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    lines.by_ref().take(1 << 16).read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut fields = BTreeMap::new();
    loop {
        let mut line = String::new();
        lines.by_ref().take(1 << 16).read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        fields.insert(name.to_lowercase(), value.to_owned());
    }
    Ok(Some(Request { method, path, fields }))
}

/// What an ordinary registry answers that has `files`, an image layout, as `test/image:latest`.
pub(crate) fn ordinary(files: &Files, request: &Request) -> Reply {
    let missing =
        || Reply::of(404).body(r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#);
    let Some(rest) = request.path.strip_prefix("/v2/test/image/") else { return missing() };
    let index = files.0.get("index.json").map(|index| Digest::of(index).to_string());
    let name = match rest.split_once('/') {
        Some(("manifests", name)) if name == "latest" || Some(name) == index.as_deref() => {
            "index.json".to_owned()
        }
        Some((_, digest)) => format!("blobs/{}", digest.replace(':', "/")),
        None => return missing(),
    };
    let Some(content) = files.0.get(&name) else { return missing() };
    let digest = Digest::of(content).to_string();
    let from = request.fields.get("range").and_then(|range| range.strip_prefix("bytes="));
    let from = from.and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if from >= content.len() => Reply::of(416),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            Reply::of(206).with("Content-Range", &range).body(&content[from..])
        }
        None => Reply::of(200).with("Docker-Content-Digest", &digest).body(content.as_slice()),
    }
}
