//! The user-mode network under load, with Debian's own driver and a program of ours in the guest.
//! Servers and clients are on the host's loopback addresses.
//!
//! By hand, on a host that has little else to do, one or all:
//! `cargo test -p e2e net_load::[NAME] -- --ignored --nocapture --test-threads 1`.
//! `docs/measurements.md` has what was seen.

use e2e::{Session, debian_alone, program_disk};
use std::io::{Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A guest that runs `script`, in which `/p` is the program, on a network with `options`. The shell
/// that starts gemello does what is `before`.
fn guest(before: &str, options: &str, script: &str) -> Session {
    guest_with("1", before, options, script)
}

/// The same, with so many processors.
fn guest_with(vcpus: &str, before: &str, options: &str, script: &str) -> Session {
    let disk = program_disk("net");
    let net = ["user,host-loopback=on", options].join(if options.is_empty() { "" } else { "," });
    let script = format!("cat /dev/vda >/p; chmod +x /p; {script}");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before} exec \"$0\" \"$@\" 2>&1")]).arg(e2e::gemello());
    command.args(["run", "busybox", "--net", &net, "--disk", &disk, "--stats", "--timeout", "1h"]);
    command.args(["--vcpus", vcpus]);
    Session::start({
        command.args(["--", "sh", "-c", &script]);
        command
    })
}

/// What the guest has said, and that nothing of its flows is left.
fn finish(session: Session) -> String {
    let (status, said) = session.finish(HOUR);
    assert_eq!(status, 0, "{said}");
    let empty =
        "open: TCP connections 0, about to be 0; UDP flows 0, echo requests 0, DNS queries 0";
    assert!(said.contains(empty), "{said}");
    said
}

fn listener(ip: IpAddr) -> (TcpListener, u16) {
    let listener = TcpListener::bind((ip, 0)).expect("a port");
    rustix::net::listen(&listener, 4096).expect("a longer queue");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// A port that is free now.
fn free_port() -> u16 {
    listener(V4).1
}

/// The stream that the guest's program sends and compares: this, again and again.
fn pattern() -> Vec<u8> {
    let byte = |at: u64| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    (0..1_000_003).map(byte).collect()
}

fn sends(mut stream: TcpStream, bytes: u64) {
    let (pattern, mut left) = (pattern(), bytes);
    while left > 0 {
        let count = left.min(pattern.len() as u64);
        stream.write_all(&pattern[..count as usize]).expect("it is taken");
        left -= count;
    }
    stream.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(stream.read(&mut [0]).expect("no reset"), 0, "the guest's end");
}

fn compares(mut stream: TcpStream, bytes: u64) {
    let (pattern, mut buffer, mut at) = (pattern(), vec![0; 1 << 20], 0);
    loop {
        let count = stream.read(&mut buffer).expect("no reset");
        if count == 0 {
            break;
        }
        let mut came = &buffer[..count];
        while !came.is_empty() {
            let place = (at % pattern.len() as u64) as usize;
            let most = came.len().min(pattern.len() - place);
            assert!(came[..most] == pattern[place..place + most], "wrong about byte {at}");
            came = &came[most..];
            at += most as u64;
        }
    }
    assert_eq!(at, bytes);
}

/// Has the guest send so many bytes and then take them, to and from `gateway`. How long each took.
fn both_ways(gateway: &str, ip: IpAddr, options: &str, bytes: u64, before: &str) -> [Duration; 2] {
    let (listener, port) = listener(ip);
    let server = thread::spawn(move || {
        [compares as fn(TcpStream, u64), sends].map(|serve| {
            let (stream, _) = listener.accept().expect("the guest");
            let began = Instant::now();
            serve(stream, bytes);
            began.elapsed()
        })
    });
    let script =
        format!("{before} /p send {gateway} {port} {bytes} && /p take {gateway} {port}; sleep 2");
    let said = finish(guest("", options, &script));
    assert!(said.contains(&format!("{bytes} bytes are right")), "{said}");
    server.join().expect("every byte is right")
}

/// As many GiB as `NET_GIB` says, or 10.
#[test]
#[ignore = "by hand: see the module"]
fn ten_gibibytes_come_whole_each_way_by_hand() {
    let _turn = debian_alone("cloud");
    let said = std::env::var("NET_GIB").ok();
    let bytes = said.map_or(10, |gib| gib.parse().expect("a number")) << 30;
    for (direction, took) in
        ["from the guest", "to it"].into_iter().zip(both_ways("10.0.2.2", V4, "", bytes, ""))
    {
        let speed = bytes as f64 * 8.0 / took.as_secs_f64() / 1e9;
        println!("{bytes} bytes {direction} in {took:?}: {speed:.1} Gbit/s");
    }
}

/// Asks for the page at `stream`.
fn ask(mut stream: &TcpStream) {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
}

/// The page, to the end.
fn take_page(mut stream: &TcpStream) -> Result<(), std::io::Error> {
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    assert!(page.ends_with("\r\n\r\nhello\n"), "{page}");
    Ok(())
}

fn fetch(address: SocketAddr) -> Result<(), std::io::Error> {
    let stream = TcpStream::connect(address)?;
    (&stream).write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    take_page(&stream)
}

fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Clients of [`a_thousand_requests_at_once_are_answered_by_hand`], and connections of each. More
/// clients would measure how long they wait for each other.
const CLIENTS: usize = 8;
const EACH: usize = 125;

/// Connects, and when `all` have, asks at each connection. How long it took to connect, and from
/// the question to the page.
fn client(address: SocketAddr, all: &Barrier) -> Vec<(Duration, Duration)> {
    let connect = |_| {
        let began = Instant::now();
        (TcpStream::connect(address).expect("it is let in"), began.elapsed())
    };
    let streams: Vec<_> = (0..EACH).map(connect).collect();
    all.wait();
    let asked = Instant::now();
    streams.iter().for_each(|(stream, _)| ask(stream));
    let page = |(stream, connected): (TcpStream, Duration)| {
        take_page(&stream).expect("it is answered");
        (connected, asked.elapsed())
    };
    streams.into_iter().map(page).collect()
}

#[test]
#[ignore = "by hand: see the module"]
fn a_thousand_requests_at_once_are_answered_by_hand() {
    let _turn = debian_alone("cloud");
    let port = free_port();
    let address = SocketAddr::new(V4, port);
    let options = format!("forward=tcp:127.0.0.1:{port}:80");
    let mut session = guest("", &options, "/p serve 80 & read line; sleep 2; kill $!");
    session.expect("listens", LONG);
    fetch(address).expect("a page");
    for _ in 0..3 {
        let all = Arc::new(Barrier::new(CLIENTS));
        let clients = [(); CLIENTS].map(|()| {
            let all = Arc::clone(&all);
            thread::spawn(move || client(address, &all))
        });
        let times = clients.into_iter().flat_map(|client| client.join().expect("it is answered"));
        let (mut connects, mut pages): (Vec<_>, Vec<_>) = times.unzip();
        let p50 = (median(&mut connects), median(&mut pages));
        println!(
            "connect: median {:?}, longest {:?}; page: median {:?}, longest {:?}",
            p50.0, connects[999], p50.1, pages[999]
        );
        assert!(p50.0 < Duration::from_millis(1));
    }
    session.send("\n");
    finish(session);
}

/// Sends back the first byte of each connection, and ends it.
fn echo_one(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut byte) = (stream.expect("a connection"), [0]);
            if stream.read_exact(&mut byte).is_ok() {
                let _ = stream.write_all(&byte);
            }
        }
    });
}

/// Listeners at as many ports in a row.
fn row(count: u16) -> (Vec<TcpListener>, u16) {
    loop {
        let (first, port) = listener(V4);
        let rest = (1..count).map(|more| {
            let listener = TcpListener::bind((V4, port.checked_add(more)?)).ok()?;
            rustix::net::listen(&listener, 4096).ok()?;
            Some(listener)
        });
        if let Some(rest) = rest.collect::<Option<Vec<_>>>() {
            return ([first].into_iter().chain(rest).collect(), port);
        }
    }
}

/// 100,000 from the guest, and 20,000 to it.
#[test]
#[ignore = "by hand: see the module"]
fn a_hundred_thousand_connections_leave_nothing_by_hand() {
    let _turn = debian_alone("cloud");
    let (listeners, first) = row(8);
    listeners.into_iter().for_each(echo_one);
    let port = free_port();
    let options = format!("forward=tcp:127.0.0.1:{port}:80");
    let script = format!(
        "/p churn 10.0.2.2 {first} 8 100000; /p serve 80 & read line; sleep 2; kill $!; \
         grep ^Tcp: /proc/net/snmp"
    );
    let mut session = guest("", &options, &script);
    let (said, _) = session.expect("listens", HOUR);
    print!("{said}");
    assert!(said.contains("100000 whole of 100000"), "{said}");
    let began = Instant::now();
    for _ in 0..20_000 {
        fetch(SocketAddr::new(V4, port)).expect("a page");
    }
    println!("\n20000 pages in {:?}", began.elapsed());
    session.send("\n");
    finish(session);
}

/// With 60 descriptors for all of gemello: what is too much is refused at once, both ways, and what
/// comes later is served.
#[test]
#[ignore = "by hand: see the module"]
fn a_host_without_descriptors_refuses_and_recovers_by_hand() {
    let _turn = debian_alone("cloud");
    let (listener, port) = listener(V4);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            thread::spawn(move || stream.read(&mut [0])); // and closes when the guest does
        }
    });
    let forwarded = free_port();
    let address = SocketAddr::new(V4, forwarded);
    let options = format!("forward=tcp:127.0.0.1:{forwarded}:80");
    let script = format!("/p serve 80 & sleep 1; /p hold 10.0.2.2 {port} 100; sleep 2; kill $!");
    let mut session = guest("ulimit -n 60;", &options, &script);
    session.expect("listens", LONG);
    let counts = |session: &mut Session| {
        let (said, _) = session.expect(" ms", LONG);
        let numbers = said.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        let counts: Vec<_> = numbers.collect();
        println!("{}", said.trim());
        let &[open, refused, other, milliseconds] = &counts[..] else { panic!("{said}") };
        assert!(open > 10 && refused > 10 && other == 0 && open + refused == 100, "{said}");
        assert!(milliseconds < 10_000, "{said}");
    };
    counts(&mut session);
    // There is no descriptor left for who comes from the host, either: each is told.
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).expect("the host lets it in");
        stream.set_read_timeout(Some(LONG)).expect("set");
        let refused = stream.read(&mut [0]).expect_err("there is no room");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    }
    session.send("close\n");
    let end = Instant::now() + LONG;
    while fetch(address).is_err() {
        assert!(Instant::now() < end, "it does not recover");
        thread::sleep(Duration::from_millis(100));
    }
    session.send("again\n");
    counts(&mut session);
    session.send("close\nend\n");
    session.close_input();
    finish(session);
}

/// Sends back what comes, changed like this.
fn sends_back(change: impl Fn(&mut [u8]) + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind((V4, 0)).expect("a port");
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20).expect("more room");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            change(&mut buffer[..len]);
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    address
}

/// Answers each query with no records.
fn resolver() -> SocketAddr {
    sends_back(|query| query[2] |= 0x80)
}

/// As many seconds as `NET_SECONDS` says, or 60. One processor of the guest asks, one interrupts.
#[test]
#[ignore = "by hand: see the module"]
fn five_thousand_queries_a_second_are_answered_by_hand() {
    let _turn = debian_alone("cloud");
    let seconds = std::env::var("NET_SECONDS").unwrap_or_else(|_| "60".into());
    let script = format!("/p ask 10.0.2.3 5000 {seconds}; sleep 1");
    let said = finish(guest_with("2", "", &format!("dns={}", resolver()), &script));
    let line = said.lines().find(|line| line.contains(" back of ")).expect("a count");
    println!("{line}");
    let numbers: Vec<u64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers[0], numbers[1], "all are answered: {said}");
}

/// 20,000 datagrams of 4000 bytes to the host and back, and of 60,000, each in fragments.
#[test]
#[ignore = "by hand: see the module"]
fn long_datagrams_come_back_by_hand() {
    let _turn = debian_alone("cloud");
    let port = sends_back(|_| {}).port();
    let script =
        format!("/p blast 10.0.2.2 {port} 4000 1000 20000; /p blast 10.0.2.2 {port} 60000 50 1000");
    let (status, said) = guest("", "", &script).finish(HOUR);
    assert_eq!(status, 0, "{said}");
    for (expected, line) in
        ["20000 back of 20000, ", "1000 back of 1000, "].into_iter().zip(said.lines())
    {
        println!("{line}");
        assert!(line.contains(expected), "{said}");
    }
}

/// A guest that has no address of IPv4, and one that has both.
#[test]
#[ignore = "by hand: see the module"]
fn ipv6_alone_and_both_work_by_hand() {
    let _turn = debian_alone("cloud");
    let wait = "until ip -6 addr show dev eth0 | grep fec0 | grep -v -q tentative; \
                do sleep 0.1; done;";
    let alone = format!("ip -4 addr flush dev eth0; {wait} /p ask fec0::3 500 2;");
    let options = format!("ipv6=on,dns={}", resolver());
    for before in [&alone, wait] {
        both_ways("fec0::2", V6, &options, 64 << 20, before);
    }
    both_ways("10.0.2.2", V4, &options, 64 << 20, wait);
}

/// Takes the driver from the device and gives it back, again and again, while a stream runs.
#[test]
#[ignore = "by hand: see the module"]
fn the_driver_begins_anew_under_load_by_hand() {
    let _turn = debian_alone("cloud");
    let (listener, port) = listener(V4);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            // A reset ends it.
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let script = format!(
        "cd /sys/bus/virtio/drivers/virtio_net; device=$(echo virtio*); \
         for i in $(seq 30); do \
           nc 10.0.2.2 {port} </dev/zero >/dev/null 2>&1 & sleep 0.2; \
           echo $device >unbind; kill $!; echo $device >bind; \
           ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; \
           echo still | nc 10.0.2.2 {port} | grep -q still || echo round $i fails; \
         done; echo all done; sleep 1"
    );
    let said = finish(guest("", "", &script));
    assert!(said.contains("all done") && !said.contains("fails"), "{said}");
}
