//! `--net user` with Debian's own driver; servers and clients are on the host's loopback.

use e2e::{code, command, debian, run, text};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const BYTES: usize = 8 << 20;

fn bytes() -> Vec<u8> {
    (0..BYTES).map(|i| (i * 7 + i / 4093) as u8).collect()
}

/// What the guest's `script` prints, on a network with `options`.
fn guest(options: &str, script: &str) -> String {
    let net = format!("user,{options}");
    let output =
        run(&["run", "busybox", "--net", &net, "--timeout", "120", "--", "sh", "-c", script]);
    assert_eq!(code(&output), 0, "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn debian_has_a_lease_and_reaches_what_it_may() {
    let _turn = debian("cloud");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let dns = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let resolver = dns.local_addr().expect("bound");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest");
        stream.write_all(&bytes()).expect("taken");
        stream.shutdown(std::net::Shutdown::Write).expect("open");
        let (mut back, _) = listener.accept().expect("the guest again");
        let mut all = Vec::new();
        back.read_to_end(&mut all).expect("whole");
        all
    });
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((len, from)) = dns.recv_from(&mut query) {
            // NXDOMAIN for whatever it is.
            (query[2], query[3]) = (0x81, 0x83);
            dns.send_to(&query[..len], from).expect("sent");
        }
    });
    let script = format!(
        "/init lease eth0; \
         ip -4 addr show eth0; ip route; cat /etc/resolv.conf; \
         nc 10.0.2.2 {port} </dev/null >/tmp/all; nc 10.0.2.2 {port} </tmp/all; \
         nc 10.0.2.2 1 </dev/null; echo refused $?; \
         nslookup nobody.test; ping -c 1 10.0.2.2; nc -w 5 127.0.0.1 {port}; echo own $?"
    );
    let options = format!("host-loopback=on,restrict=off,dns={resolver}");
    let said = guest(&options, &format!("({script}) 2>&1"));
    assert!(server.join().expect("a server") == bytes(), "{said}");
    for expected in [
        "inet 10.0.2.15/24",
        "default via 10.0.2.2",
        "nameserver 10.0.2.3",
        "Connection refused\nrefused 1",
        "NXDOMAIN",
        "1 packets received",
        "own 1",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn a_restricted_guest_reaches_nothing_and_is_reached() {
    let _turn = debian("cloud");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let net = "user,restrict=on,forward=tcp:127.0.0.1:0:80";
    let script = format!(
        "nc 10.0.2.2 {port} </dev/null; nc 192.0.2.1 80 </dev/null; \
         mkdir /www; echo hello from the guest >/www/index.html; httpd -p 80 -h /www; \
         while ! [ -e /www/done ]; do sleep 0.1; nc -l -p 81 </dev/null >/www/done; done"
    );
    let net_81 = format!("{net},forward=tcp:127.0.0.1:0:81");
    let mut command = command(&[
        "run",
        "busybox",
        "--net",
        &net_81,
        "--timeout",
        "120",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let mut guest =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut errors = guest.stderr.take().expect("piped");
    let mut told = Vec::new();
    // The forwards are told before anything else is.
    while told.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let mut byte = [0];
        assert_eq!(errors.read(&mut byte).expect("open"), 1, "{}", text(&told));
        told.push(byte[0]);
    }
    let told = text(&told);
    let forward = |guest: &str| {
        let line = told.lines().find(|line| line.ends_with(guest)).expect("told");
        let host = line.trim_end_matches(guest).rsplit(':').next().expect("a port").to_owned();
        format!("127.0.0.1:{host}")
    };
    let (web, end) = (forward(":80"), forward(":81"));
    let began = Instant::now();
    let page = loop {
        assert!(began.elapsed() < PATIENCE, "no page");
        let mut stream = TcpStream::connect(&web).expect("gemello listens");
        let mut page = String::new();
        let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        if asked.is_ok() && stream.read_to_string(&mut page).is_ok() && page.contains("guest") {
            break page;
        }
        thread::sleep(Duration::from_millis(100));
    };
    assert!(page.contains("hello from the guest"), "{page}");
    while guest.try_wait().expect("ours").is_none() {
        assert!(began.elapsed() < PATIENCE, "it does not end");
        drop(TcpStream::connect(&end));
        thread::sleep(Duration::from_millis(100));
    }
    listener.set_nonblocking(true).expect("set");
    assert!(listener.accept().is_err(), "the guest has come out");
}
