//! Sockets between guest and host, with Debian's own driver and a program of ours in the guest.

use e2e::{Session, code, command, debian, program_disk, run, scratch, text};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// A name for a socket, and the option that says so.
fn place(name: &str) -> (PathBuf, String) {
    let path = scratch(name, b"");
    std::fs::remove_file(&path).expect("it was just made");
    let option = format!("path={}", path.display());
    (path, option)
}

/// Runs the guest's program with `words`, and `before` in the shell.
fn guest(vsock: &str, transport: &str, words: &str) -> Session {
    let disk = program_disk("vsock");
    let script = format!("cat /dev/vda > /p; chmod +x /p; /p {words}");
    let arguments = ["run", "busybox", "--timeout", "10m", "--disk", &disk, "--vsock", vsock];
    let more = ["--transport", transport, "--", "sh", "-c", &script];
    Session::start(command(&[&arguments[..], &more].concat()))
}

/// Byte `at` of what is sent, as in the guest's program.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// A connection to the guest's port, which listens or soon will, and the host's port.
fn connect(path: &Path, port: u32) -> (UnixStream, String) {
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "nobody listens");
        if let Ok(mut stream) = UnixStream::connect(path) {
            writeln!(stream, "CONNECT {port}").expect("it listens");
            let mut line = String::new();
            // Not a byte more than the line.
            let mut one = BufReader::with_capacity(1, stream.try_clone().expect("a socket"));
            if one.read_line(&mut line).is_ok() && line.starts_with("OK ") {
                return (stream, line);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sends so many bytes through `stream`, whose other end sends them back, and compares.
fn sends_and_compares(mut stream: UnixStream, bytes: u64) {
    let mut sender = stream.try_clone().expect("a socket");
    let send = move || {
        let mut at = 0;
        while at < bytes {
            let piece: Vec<u8> = (at..bytes.min(at + 65536)).map(byte).collect();
            sender.write_all(&piece).expect("it is taken");
            at += piece.len() as u64;
        }
        sender.shutdown(Shutdown::Write).expect("half of it");
    };
    let sender = thread::spawn(send);
    let (mut at, mut piece) = (0, vec![0; 65536]);
    loop {
        let count = stream.read(&mut piece).expect("no reset");
        if count == 0 {
            break;
        }
        for found in &piece[..count] {
            assert_eq!(*found, byte(at), "byte {at}");
            at += 1;
        }
    }
    assert_eq!(at, bytes);
    sender.join().expect("no panic");
}

/// Sends back what comes by the first connection, to its end.
fn echo(listener: &UnixListener) {
    let (mut stream, _) = listener.accept().expect("the guest");
    let mut back = stream.try_clone().expect("a socket");
    std::io::copy(&mut stream, &mut back).expect("no reset");
    back.shutdown(Shutdown::Write).expect("half of it");
}

fn both_ways(transport: &str, bytes: u64) {
    let _turn = debian("cloud");
    let began = Instant::now();
    let (path, option) = place(&format!("vsock-{transport}"));
    let session = guest(&option, transport, "listen 52");
    let (stream, ok) = connect(&path, 52);
    let port = ok.trim_start_matches("OK ").trim_end().parse::<u32>();
    assert!(port.is_ok_and(|port| port >= 1 << 30), "{ok}");
    let booted = began.elapsed();
    sends_and_compares(stream, bytes);
    println!("{transport}, to the guest and back: {:?}", began.elapsed() - booted);
    let (status, said) = session.finish(LONG);
    assert_eq!((status, said.trim()), (0, "listens"));
    assert!(!path.exists(), "the socket goes with the machine");

    let mut there = path.clone().into_os_string();
    there.push("_77");
    let listener = UnixListener::bind(&there).expect("a socket");
    let echo = thread::spawn(move || echo(&listener));
    let began = Instant::now();
    let session = guest(&option, transport, &format!("connect 77 {bytes}"));
    let (status, said) = session.finish(Duration::from_secs(600));
    println!("{transport}, from the guest, with its boot: {:?}", began.elapsed());
    assert_eq!((status, said.trim()), (0, &*format!("{bytes} bytes came back")));
    echo.join().expect("no panic");
    std::fs::remove_file(there).expect("it is there");
}

#[test]
fn bytes_come_back_both_ways() {
    both_ways("pci", 64 * MIB);
}

#[test]
#[ignore = "second step: the other transport"]
fn bytes_come_back_over_mmio() {
    both_ways("mmio", 8 * MIB);
}

/// As many MiB as `VSOCK_MIB` says.
#[test]
#[ignore = "second step: 256 MiB each way"]
fn much_comes_back_both_ways() {
    let said = std::env::var("VSOCK_MIB").ok();
    let mib = said.map_or(256, |mib| mib.parse().expect("a number"));
    both_ways("pci", mib * MIB);
}

/// A restored guest's connections have ended, and it makes new ones.
#[test]
fn connections_end_with_a_restore() {
    let _turn = debian("cloud");
    let (path, option) = place("vsock-saved");
    let (file, disk) = (path.with_extension("gm"), program_disk("vsock"));
    let saved = file.to_str().expect("text");
    let arguments = ["run", "busybox", "--timeout", "5m", "--disk", &disk, "--vsock", &option];
    let mut session = Session::start(command(&[&arguments[..], &["--save", saved]].concat()));
    session.expect("# ", LONG);
    session.send("cat /dev/vda > /p; chmod +x /p; /p listen 52; echo \"s\"tatus $?\n");
    let (mut stream, _) = connect(&path, 52);
    stream.write_all(b"before").expect("taken");
    stream.read_exact(&mut [0; 6]).expect("it comes back");
    session.signal(Signal::USR1);
    let deadline = Instant::now() + LONG;
    while !file.exists() {
        assert!(Instant::now() < deadline, "it is not saved");
        thread::sleep(Duration::from_millis(20));
    }
    stream.write_all(b"after").expect("taken");
    stream.read_exact(&mut [0; 5]).expect("it goes on where it was saved");
    drop(session);

    let mut session = Session::start(command(&["restore", saved, "--timeout", "120"]));
    session.expect("Connection reset by peer", LONG);
    session.expect("status 1", LONG);
    session.send("/p listen 53; echo \"s\"tatus $?\n");
    sends_and_compares(connect(&path, 53).0, MIB);
    session.expect("status 0", LONG);
    session.send("poweroff\n");
    assert_eq!(session.finish(LONG).0, 0);
    std::fs::remove_file(&file).expect("it is there");
}

/// Nobody listens at the host's port; and at the guest's.
#[test]
fn a_refused_connection_is_told_at_once() {
    let _turn = debian("cloud");
    let (path, option) = place("vsock-refused");
    let session = guest(&option, "pci", "connect 78 1 2>&1; sleep 5; true");
    let deadline = Instant::now() + LONG;
    while !path.exists() {
        assert!(Instant::now() < deadline, "no socket");
        thread::sleep(Duration::from_millis(20));
    }
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"CONNECT 99\n").expect("it listens");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it is closed");
    assert_eq!(said, "");
    let (_, said) = session.finish(LONG);
    assert!(said.contains("Connection reset by peer"), "{said}");
}

#[test]
fn what_cannot_be_a_socket_is_refused() {
    let file = scratch("vsock-file", b"mine");
    let name = file.to_str().expect("text");
    for (vsock, expected) in [
        (format!("path={name}"), "is there already"),
        (format!("path=/{}", "x".repeat(100)), "more than 96 bytes"),
        ("path=/proc/nothing".into(), "cannot listen at the socket"),
        ("cid=2,path=/tmp/x".into(), "no guest has cid 2"),
    ] {
        let output = run(&["run", "busybox", "--vsock", &vsock]);
        assert_eq!(code(&output), 2, "{vsock}");
        assert!(text(&output.stderr).contains(expected), "{vsock}: {}", text(&output.stderr));
    }
    assert_eq!(std::fs::read(&file).expect("it is there"), b"mine");
}
