//! What people run in a whole Debian: servers, compilers, Docker, and what needs a kernel of its
//! own. All by hand: each takes minutes, and the network. docs/measurements.md has the results.

use e2e::{code, scratch, text, whole};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use test_support::Rng;
use whole::{Whole, digest};

/// A port of this host's loopback that nobody has.
fn port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("bound").port()
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut told = Vec::new();
    stream.read_to_end(&mut told)?;
    Ok(text(&told))
}

#[test]
#[ignore = "minutes, and the network"]
fn each_release_comes_up_and_goes_down_whole_by_hand() {
    for release in ["bookworm", "trixie", "sid"] {
        let debian = Whole::of(release);
        debian.fetch();
        whole::whole(&debian.root());
        let machine = debian.start(&format!("up-{release}"), &["--memory", "1G"]);
        machine.is_up();
        machine.says("dpkg --audit; dpkg --verify >&2; modprobe loop; echo kept > /root/file");
        machine.goes_down();
        drop(machine);
    }
}

#[test]
#[ignore = "minutes, and the network"]
fn a_server_a_compiler_and_an_interpreter_work_by_hand() {
    let debian = Whole::new();
    debian.fetch();
    let port = port();
    let publish = format!("127.0.0.1:{port}:80");
    let machine = debian.start("tools", &["--memory", "1G", "--publish", &publish]);
    machine.says(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q >&2 && \
         apt-get install -q -y nginx python3 gcc openssh-server >&2",
    );
    assert_eq!(machine.says("python3 -c 'print(6 * 7)'"), "42");
    let hello = "cd /root && printf '#include <stdio.h>\\nint main(void) { puts(\"hello\"); }\\n' \
        > hello.c && gcc -O2 -o hello hello.c && ./hello";
    assert_eq!(machine.says(hello), "hello");
    assert_eq!(machine.says("systemctl is-active nginx"), "active");
    let page = get(port).expect("nginx answers");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("Welcome to nginx"), "{page}");
    machine.says("useradd -m -s /bin/bash grace");
    let data = scratch("data", b"").with_file_name("share");
    let ssh = |words: &[&str]| {
        let mut command = debian.command(&[&["ssh"], words].concat());
        let output = command.env("XDG_DATA_HOME", &data).output().expect("gemello starts");
        (code(&output), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(ssh(&["tools", "id -un; exit 7"]), (7, "root\n".into(), String::new()));
    let (status, said, complaint) = ssh(&["grace@tools", "-t", "-t", "tty; echo $SSH_CONNECTION"]);
    assert!(status == 0 && said.starts_with("/dev/pts/"), "{said} {complaint}");
    machine.goes_down();
}

#[test]
#[ignore = "minutes, and the network"]
fn docker_runs_an_image_by_hand() {
    let debian = Whole::new();
    debian.fetch();
    let machine = debian.start("docker", &["--memory", "1G"]);
    let said = machine.says(include_str!("../guest/docker.sh"));
    assert_eq!(said, "active\noverlay2\nprinted\n1\nserved");
    machine.goes_down();
}

#[test]
#[ignore = "minutes, and the network"]
fn what_needs_a_kernel_works_by_hand() {
    let debian = Whole::new();
    debian.fetch();
    let machine = debian.start("kernel", &["--memory", "1G"]);
    let said = machine.says(include_str!("../guest/needs_a_kernel.sh"));
    let (works, fails): (Vec<_>, Vec<_>) = said.lines().partition(|it| it.ends_with(": works"));
    assert!(fails.is_empty() && works.len() == 16, "{said}");
    machine.goes_down();
}

/// What cloud-init is told to do.
const USER_DATA: &[u8] = b"#cloud-config
users:
  - name: grace
    shell: /bin/bash
write_files:
  - path: /etc/told
    content: written
runcmd:
  - [sh, -c, 'echo run > /root/run']
";

#[test]
#[ignore = "minutes, and the network"]
fn cloud_init_does_what_it_is_told_by_hand() {
    let debian = Whole::new();
    debian.fetch();
    let machine = debian.start("cloud", &["--memory", "1G"]);
    machine.says("apt-get update -q >&2; apt-get install -q -y cloud-init >&2");
    machine.goes_down();
    let told = scratch("user-data", USER_DATA).display().to_string();
    machine.boots(&["--memory", "1G", "--cloud-init", &told]);
    assert_eq!(machine.says("cloud-init status --wait | tail -n 1"), "status: done");
    let there = "id -un grace; cat /etc/told /root/run";
    assert_eq!(machine.says(there), "grace\nwrittenrun");
    machine.goes_down();
}

#[test]
#[ignore = "minutes, and memory for twenty machines"]
fn twenty_machines_of_one_base_leave_it_as_it_is_by_hand() {
    let debian = Whole::new();
    debian.fetch();
    let before = digest(&debian.root());
    let names: Vec<_> = (1..=20).map(|n| format!("m{n}")).collect();
    let machines: Vec<_> =
        names.iter().map(|name| debian.start(name, &["--memory", "256M"])).collect();
    for (machine, name) in machines.iter().zip(&names) {
        machine.says(&format!("echo {name} > /root/mine; sync"));
    }
    for (machine, name) in machines.iter().zip(&names) {
        assert_eq!(machine.says("cat /root/mine; ls /root"), format!("{name}\nmine"));
    }
    assert_eq!(digest(&debian.root()), before, "a machine has written to its base");
    drop(machines);
    assert!(!debian.said(&["images"]).contains("MACHINE"));
}

/// A run of `fetch debian`, to be killed.
fn fetching(debian: &Whole) -> Child {
    let mut command = debian.command(&["fetch", "debian"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("gemello starts")
}

/// Killed at ten moments, and with a disk that is full, a base is whole or not there; the next run
/// goes on with what was downloaded, and `prune` leaves nothing.
#[test]
#[ignore = "ten minutes, and the network"]
fn a_base_is_whole_or_not_there_by_hand() {
    let cache = std::env::temp_dir().join("gemello-whole-killed");
    let debian = Whole::at(cache.clone(), "trixie");
    let mut random = Rng::new(test_support::setting("KILLS_SEED").unwrap_or(1));
    let mut longest = test_support::setting("KILLS_SECONDS").unwrap_or(60);
    let mut kills = 0;
    while kills < 10 {
        let mut child = fetching(&debian);
        std::thread::sleep(Duration::from_secs(1 + random.below(longest)));
        let ended = child.try_wait().expect("a child").is_some();
        let _ = child.kill();
        child.wait().expect("it is ours");
        if ended {
            // This host is faster.
            longest = (longest / 2).max(1);
            debian.said(&["prune"]);
            continue;
        }
        kills += 1;
        assert!(!debian.said(&["images"]).contains("debian:"));
    }
    // No file may be larger than 64 MiB, as on a disk that is full.
    let mut small = Command::new("sh");
    small.args(["-c", "ulimit -f 131072; exec \"$0\" fetch debian"]).arg(e2e::gemello());
    let full = small.env("XDG_CACHE_HOME", &cache).output().expect("it starts");
    let said = text(&full.stderr);
    assert!(code(&full) == 2 && said.contains("cannot"), "{said}");
    assert!(!debian.said(&["images"]).contains("debian:"));
    debian.fetch();
    whole::whole(&debian.root());
    debian.said(&["run", "debian", "--rm", "--", "true"]);
    debian.said(&["prune"]);
    let mut left = Command::new("find");
    left.arg(cache.join("gemello")).args(["-name", "*.ext4", "-o", "-name", "*.partial"]);
    assert_eq!(text(&left.output().expect("find").stdout), "");
}
