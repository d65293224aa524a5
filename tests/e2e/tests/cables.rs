//! What a network device can be joined to, and what is written down of it, with Debian's own
//! driver.

use e2e::{Session, cache, code, command, debian, debian_alone, run, scratch, text};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use rustix::process::Signal;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The frames of the capture at `path`, each with its time.
fn frames(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let bytes = fs::read(path).expect("a capture");
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4).expect("whole").try_into();
        u32::from_ne_bytes(bytes.expect("four"))
    };
    // Magic with nanoseconds, version 2.4, Ethernet.
    assert_eq!((word(0), word(4), word(20)), (0xa1b2_3c4d, 0x0004_0002, 1));
    let (mut frames, mut at) = (Vec::new(), 24);
    while at < bytes.len() {
        let (time, len) = (Duration::new(word(at).into(), word(at + 4)), word(at + 8) as usize);
        assert_eq!(word(at + 12) as usize, len, "nothing is cut");
        let frame = bytes.get(at + 16..at + 16 + len).expect("whole");
        frames.push((time, frame.to_vec()));
        at += 16 + len;
    }
    frames
}

#[test]
fn a_capture_has_every_frame() {
    let _turn = debian("cloud");
    let path = scratch("frames.pcap", b"old");
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let began = now();
    let net = ["--net", "user,mac=52:54:00:aa:bb:cc", "--pcap", path.to_str().expect("text")];
    let script = "cat /sys/class/net/eth0/address; ping -c 2 -i 0.1 10.0.2.2 >/dev/null";
    let arguments =
        [&["run", "busybox"][..], &net, &["--stats", "--", "sh", "-c", script]].concat();
    let output = run(&arguments);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "52:54:00:aa:bb:cc\n");
    let frames = frames(&path);
    assert!(frames.is_sorted_by_key(|(time, _)| *time));
    assert!(frames.iter().all(|(time, _)| (began..=now()).contains(time)));
    let mac = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];
    // IPv4 and ICMP: echo requests from the guest, the replies to it.
    let echo = |kind| {
        let icmp = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == kind;
        frames.iter().filter(|(_, frame)| icmp(frame)).count()
    };
    assert_eq!((echo(8), echo(0)), (2, 2));
    let sent = frames.iter().filter(|(_, frame)| frame[6..12] == mac).count();
    let stats = text(&output.stderr);
    let counted = |name: &str| {
        let line = stats.lines().find(|line| line.trim_start().starts_with(name));
        let words = line.unwrap_or_else(|| panic!("{stats}")).split_whitespace();
        words.flat_map(str::parse::<usize>).next()
    };
    assert_eq!(counted("from it "), Some(sent), "{stats}");
    assert_eq!(counted("to the guest "), Some(frames.len() - sent), "{stats}");
}

#[test]
fn a_capture_is_where_it_may_be_and_a_full_disk_is_told() {
    let _turn = debian("cloud");
    let capture = |path: &str, options: &[&str]| {
        let arguments = [&["run", "busybox", "--timeout", "60", "--pcap", path], options].concat();
        run(&[&arguments[..], &["--", "true"]].concat())
    };
    let output = capture("/dev/full", &["--net", "user"]);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 1, "{message}");
    assert!(message.contains("the capture ends here: No space left"), "{message}");
    let kernel = cache().join("cloud/vmlinuz");
    let kernel = kernel.to_str().expect("text");
    for (path, options, pieces) in [
        ("/x", &["--net", "none"][..], ["--pcap is for a network", "--net"]),
        (kernel, &["--net", "user"], ["it is the kernel of this run", kernel]),
        ("/nowhere/x", &["--net", "user"], ["cannot write the capture to /nowhere/x", "No such"]),
    ] {
        let output = capture(path, options);
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{message}");
        assert!(pieces.iter().all(|piece| message.contains(piece)), "{message}");
    }
    assert!(fs::metadata(kernel).expect("there").len() > 1 << 20);
}

const LONG: Duration = Duration::from_secs(120);

/// A machine that runs `script`, joined to `net`.
fn machine(name: &str, net: &str, script: &str) -> Session {
    let arguments = ["run", "busybox", "--name", name, "--net", net, "--timeout", "5m", "--"];
    Session::start(command(&[&arguments[..], &["sh", "-c", script]].concat()))
}

/// A name that no other run of these tests uses.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// Machine 1 has 10.9.0.1 and sends 1 MiB to who comes; machine `number` has that address, fetches
/// them, and tells the sum. Each pings the first.
fn scripts(number: u8) -> (String, String) {
    let up = |number| format!("ip addr add 10.9.0.{number}/24 broadcast + dev eth0; ");
    let send = "mkdir /www; head -c 1048576 /dev/urandom >/www/x; md5sum </www/x; \
                httpd -p 80 -h /www; read line";
    let fetch = "until ping -c 1 -W 1 10.9.0.1 >/dev/null; do sleep 0.2; done; \
                 until wget -q -O /tmp/x http://10.9.0.1/x; do sleep 0.2; done; md5sum </tmp/x";
    (up(1) + send, up(number) + fetch)
}

/// The sum in what a machine said.
fn sum(said: &str) -> &str {
    said.lines().find_map(|line| line.strip_suffix("  -")).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn machines_of_several_processes_share_a_switch() {
    let _turn = debian_alone("cloud");
    let (net, (first, second)) = (format!("switch={}", unique("lab")), scripts(2));
    let mut one = machine(&unique("one"), &net, &first);
    let (told, _) = one.expect("  -\n", LONG);
    let two = machine(&unique("two"), &net, &second);
    let (status, fetched) = two.finish(LONG);
    assert_eq!(status, 0, "{fetched}");
    assert_eq!(sum(&told), sum(&fetched));
    // A broadcast reaches all, and each has an address of its own.
    let ask = "ip addr add 10.9.0.3/24 broadcast + dev eth0; ping -c 1 10.9.0.1 >/dev/null; \
               cat /sys/class/net/eth0/address; \
               arping -c 1 -f -I eth0 10.9.0.1";
    let (status, asked) = machine(&unique("three"), &net, ask).finish(LONG);
    assert_eq!(status, 0, "{asked}");
    assert!(asked.contains("Received 1 response"), "{asked}");
    one.send("\n");
    assert_eq!(one.finish(LONG).0, 0);
}

#[test]
fn a_program_at_a_socket_is_a_network() {
    let _turn = debian("cloud");
    let path = scratch("passt.sock", b"");
    fs::remove_file(&path).expect("just made");
    let script = "cat /sys/class/net/eth0/carrier; \
                  until [ \"$(cat /sys/class/net/eth0/carrier)\" = 1 ]; do sleep 0.1; done; \
                  echo plugged; ip addr add 10.9.0.1/24 dev eth0; \
                  until arping -c 1 -w 1 -I eth0 10.9.0.9; do :; done; \
                  until [ \"$(cat /sys/class/net/eth0/carrier)\" = 0 ]; do sleep 0.1; done; \
                  echo unplugged";
    let net = format!("unix={}", path.display());
    let mut guest = machine(&unique("unix"), &net, script);
    guest.expect("0\n", LONG);
    let listener = UnixListener::bind(&path).expect("a socket");
    let (mut peer, _) = listener.accept().expect("the guest's");
    guest.expect("plugged", LONG);
    // Who has 10.9.0.9? We do.
    loop {
        let mut length = [0; 4];
        peer.read_exact(&mut length).expect("a length");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        peer.read_exact(&mut frame).expect("a frame");
        if frame[12..14] == [8, 6] && frame[38..42] == [10, 9, 0, 9] {
            let (asker, us) = (frame[6..12].to_vec(), [0x52, 0, 0, 0, 0, 9]);
            let mut reply =
                [&asker[..], &us, &frame[12..20], &[0, 2], &us, &[10, 9, 0, 9]].concat();
            reply.extend([&asker[..], &frame[28..32]].concat());
            peer.write_all(&(reply.len() as u32).to_be_bytes()).expect("taken");
            peer.write_all(&reply).expect("taken");
            break;
        }
    }
    guest.expect("Received 1 response", LONG);
    drop((peer, listener));
    fs::remove_file(&path).expect("there");
    guest.expect("unplugged", LONG);
    assert_eq!(guest.finish(LONG).0, 0);
}

/// A device that works needs an administrator: `docs/config.md` says how it was tried.
#[test]
fn a_tap_device_that_is_not_there_is_told_with_the_remedy() {
    let _turn = debian("cloud");
    let output = run(&["run", "busybox", "--net", "tap=gemello-none", "--", "true"]);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{message}");
    let remedies = ["ip tuntap add dev gemello-none", "modprobe tun", "/dev/net/tun"];
    assert!(remedies.iter().any(|remedy| message.contains(remedy)), "{message}");
}

/// Has the machine of `session` saved to `file`, where there is nothing, and kills it.
fn save_and_kill(session: Session, file: &Path) {
    session.signal(Signal::USR1);
    let deadline = Instant::now() + LONG;
    while !file.exists() {
        assert!(Instant::now() < deadline, "it is not saved");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(session);
}

/// A machine to be saved to a file, which runs `script` joined to `net`.
fn to_be_saved(name: &str, net: &str, script: &str) -> (Session, PathBuf) {
    let file = scratch(&format!("{name}.gm"), b"");
    fs::remove_file(&file).expect("just made");
    let path = file.to_str().expect("text");
    let arguments = ["run", "busybox", "--name", name, "--net", net, "--save", path, "--"];
    (Session::start(command(&[&arguments[..], &["sh", "-c", script]].concat())), file)
}

fn restored(file: &Path) -> Session {
    Session::start(command(&["restore", file.to_str().expect("text"), "--timeout", "5m"]))
}

/// It only waits: it sends nothing that could be answered.
#[test]
fn a_restored_guest_hears_that_its_connections_are_gone_and_makes_new_ones() {
    let _turn = debian("cloud");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let script = format!(
        "mkfifo /f; exec 3<>/f; echo one >&3; nc 10.0.2.2 {port} <&3; \
         echo ended; nc 10.0.2.2 {port} </dev/null"
    );
    let (session, file) = to_be_saved(&unique("flows"), "user,host-loopback=on", &script);
    let (mut old, _) = listener.accept().expect("the guest");
    let mut one = [0; 4];
    old.read_exact(&mut one).expect("open");
    assert_eq!(&one, b"one\n");
    save_and_kill(session, &file);
    let mut session = restored(&file);
    session.expect("ended", LONG);
    let (mut new, _) = listener.accept().expect("the guest again");
    new.write_all(b"a new one works").expect("open");
    drop(new);
    session.expect("a new one works", LONG);
    assert_eq!(session.finish(LONG).0, 0);
    fs::remove_file(&file).expect("it is there");
}

/// The first serves the switch, until it is killed.
#[test]
#[ignore = "second step: three machines, one of them twice"]
fn a_restored_guest_is_on_its_switch_again() {
    let _turn = debian_alone("cloud");
    let net = format!("switch={}", unique("again"));
    let script = "ip addr add 10.9.0.2/24 dev eth0; \
                  until ping -c 1 -W 1 10.9.0.1 >/dev/null; do sleep 0.2; done; echo met; \
                  read line; ping -c 3 10.9.0.1 >/dev/null; echo again $?";
    let (mut session, file) = to_be_saved(&unique("saved"), &net, script);
    let other = machine(&unique("other"), &net, "ip addr add 10.9.0.1/24 dev eth0; read line");
    session.expect("met", LONG);
    save_and_kill(session, &file);
    let mut session = restored(&file);
    session.send("go on\n");
    session.expect("again 0", LONG);
    assert_eq!(session.finish(LONG).0, 0);
    drop(other);
    fs::remove_file(&file).expect("it is there");
}

/// A port of the switch whose socket is `path`, as `crates/net/src/switch/mod.rs` has it.
fn port(path: &Path) -> OwnedFd {
    let end = Instant::now() + LONG;
    loop {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket = socket.expect("a socket");
        if connect(&socket, &SocketAddrUnix::new(path).expect("short")).is_ok() {
            send(&socket, b"gemello switch 1", SendFlags::empty()).expect("sent");
            return socket;
        }
        assert!(Instant::now() < end, "nobody serves {}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Passes what comes at `from` on to `to`: of 200 messages one is lost, one late by one.
fn bad_cable(from: &OwnedFd, to: &OwnedFd) {
    let (mut buffer, mut count, mut late) = (vec![0; 70_000], 0_u32, None::<Vec<u8>>);
    while let Ok((len @ 1.., _)) = recv(from, &mut buffer[..], RecvFlags::empty()) {
        let message = &buffer[..len];
        count += 1;
        match count % 200 {
            _ if message == b"gemello switch 1" => continue,
            17 => continue,
            33 => late = Some(message.to_vec()),
            _ => {
                for message in [Some(message), late.take().as_deref()].into_iter().flatten() {
                    if send(to, message, SendFlags::NOSIGNAL).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Two machines on two switches, and a bad cable between these.
#[test]
#[ignore = "second step: two machines that send again what was lost"]
fn what_is_lost_on_the_way_comes() {
    let _turn = debian_alone("cloud");
    let runtime = scratch("r", b"").with_extension("d");
    fs::create_dir_all(&runtime).expect("a folder");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("mine");
    let on = |net: &str, script: &str| {
        let arguments = ["run", "busybox", "--net", net, "--timeout", "5m", "--", "sh", "-c"];
        let mut command = command(&[&arguments[..], &[script]].concat());
        command.env("XDG_RUNTIME_DIR", &runtime);
        Session::start(command)
    };
    let (first, second) = scripts(2);
    let mut one = on("switch=a", &first);
    let two = on("switch=b", &second);
    let (a, b) = (runtime.join("gemello/a.switch"), runtime.join("gemello/b.switch"));
    let (a, b) = (Arc::new(port(&a)), Arc::new(port(&b)));
    let (other_a, other_b) = (Arc::clone(&a), Arc::clone(&b));
    std::thread::spawn(move || bad_cable(&a, &b));
    std::thread::spawn(move || bad_cable(&other_b, &other_a));
    let (told, _) = one.expect("  -\n", LONG);
    let (status, fetched) = two.finish(LONG);
    assert_eq!(status, 0, "{fetched}");
    assert_eq!(sum(&told), sum(&fetched));
}
