//! Commands, files and ports in guests that run, by the agent's service.

use e2e::{Ends, House, LONG, Session, code, debian, scratch, text, until};
use rustix::process::Signal;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::{Output, Stdio};

/// A machine called `box` that sleeps, whose command is a pipe's.
fn machine(name: &str) -> House {
    let mut house = House::new(name);
    house.start(&["run", "busybox", "--name", "box", "--timeout", "10m", "--", "sleep", "600"]);
    until("a machine", || house.socket("box").exists().then_some(()));
    house
}

/// `gemello exec box` with these words, and `input`.
fn exec(house: &House, words: &[&str], input: &[u8]) -> Output {
    let mut command = house.command(&[&["exec"], words].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("gemello starts");
    let (mut to, bytes) = (child.stdin.take().expect("piped"), input.to_vec());
    let writer = std::thread::spawn(move || drop(to.write_all(&bytes)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    output
}

#[test]
fn a_command_has_its_streams_status_and_surroundings() {
    let _turn = debian("cloud");
    let house = machine("exec");
    // Binary, both ways, apart, and more than any buffer.
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = exec(&house, &["box", "--", "sh", "-c", "tee /dev/stderr; exit 7"], &bytes);
    assert_eq!(code(&output), 7);
    assert!(output.stdout == bytes && output.stderr == bytes, "what came back is something else");
    for (script, status) in [("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        assert_eq!(code(&exec(&house, &["box", "sh", "-c", script], b"")), status, "{script}");
    }
    for (words, status, why) in [
        (&["box", "nothing-there"][..], 127, "cannot run 'nothing-there'"),
        (&["box", "/etc"], 126, "cannot run '/etc'"),
        (&["-w", "/none", "box", "true"], 126, "no folder /none"),
        (&["-u", "nobody-here", "box", "true"], 2, "no user nobody-here"),
        (&["none", "true"], 2, "no machine called none"),
    ] {
        let output = exec(&house, words, b"");
        assert_eq!(code(&output), status, "{words:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(why), "{words:?}: {}", text(&output.stderr));
    }
    let words = ["-e", "A=b=c", "-w", "/tmp", "-u", "1000:50", "box", "--", "sh", "-c"];
    let output = exec(&house, &[&words[..], &["echo $A $PWD $(id -u) $(id -g)"]].concat(), b"");
    assert_eq!(text(&output.stdout), "b=c /tmp 1000 50\n");
    // Any bytes as words; a megabyte of environment.
    let odd = std::ffi::OsStr::from_bytes(b"\x01\xff new\nline");
    let mut command = house.command(&["exec", "box", "printf", "%s"]);
    assert_eq!(command.arg(odd).output().expect("it runs").stdout, odd.as_bytes());
    let mut command = house.command(&["exec"]);
    for n in 0..16 {
        command.arg("-e").arg(format!("V{n}={}", "x".repeat(65_530)));
    }
    let output = command.args(["box", "sh", "-c", "echo ${#V15}"]).output().expect("it runs");
    assert_eq!(text(&output.stdout), "65530\n", "{}", text(&output.stderr));
    // What is left running holds nothing up, and several are at work at once.
    let output = exec(&house, &["box", "sh", "-c", "sleep 300 & echo left"], b"");
    assert_eq!(text(&output.stdout), "left\n");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let house = &house;
            scope.spawn(move || {
                let said = format!("number {n}\n");
                let output = exec(house, &["box", "cat"], said.as_bytes());
                assert_eq!(text(&output.stdout), said);
            });
        }
    });
}

#[test]
fn signals_reach_a_command() {
    let _turn = debian("cloud");
    let house = machine("exec-signals");
    let script = "trap 'echo heard; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut session = Session::start(house.command(&["exec", "box", "--", "sh", "-c", script]));
    session.expect("ready", LONG);
    session.signal(Signal::TERM);
    session.expect("heard", LONG);
    assert_eq!(session.finish(LONG).0, 9);
    let words = ["exec", "box", "--", "sh", "-c", "echo ready; exec sleep 4321"];
    let mut session = Session::start(house.command(&words));
    session.expect("ready", LONG);
    session.signal(Signal::KILL);
    drop(session);
    until("the command's end", || {
        let listed = exec(&house, &["box", "ps"], b"");
        (!text(&listed.stdout).contains("4321")).then_some(())
    });
}

#[test]
fn a_terminal_is_one_in_the_guest_too() {
    let _turn = debian("cloud");
    let house = machine("exec-terminal");
    let command = house.command(&["exec", "box", "sh"]);
    let (mut session, terminal) = Session::on_terminal(&command, &Ends::default());
    session.expect("# ", LONG);
    session.send("tty; stty size\n");
    session.expect("/dev/pts/", LONG);
    session.expect("24 80", LONG);
    terminal.resize(50, 132);
    session.send("sleep 0.2; stty size\n");
    session.expect("50 132", LONG);
    session.send("sleep 999\n");
    session.expect("999", LONG);
    std::thread::sleep(std::time::Duration::from_millis(300));
    session.send("\x03");
    session.send("echo inter\"rupted\"; exit 5\n");
    session.expect("interrupted", LONG);
    assert_eq!(session.finish(LONG).0, 5);
}

#[test]
fn files_go_in_and_out() {
    let _turn = debian("cloud");
    let house = machine("cp");
    let tree = scratch("tree", b"");
    fs::remove_file(&tree).expect("it was just made");
    fs::create_dir_all(tree.join("sub")).expect("folders");
    fs::write(tree.join("sub/file"), vec![7; 300_000]).expect("a file");
    fs::set_permissions(tree.join("sub/file"), fs::Permissions::from_mode(0o640)).expect("mine");
    symlink("/nowhere", tree.join("link")).expect("a link");
    let from = tree.to_str().expect("text");
    house.told(&["cp", from, "box:/root"]);
    house.told(&["cp", &format!("{from}/sub/file"), "box:/root/other"]);
    let told = house.told(&[
        "exec",
        "box",
        "sh",
        "-c",
        "cd /root; wc -c <other; ls -l tree/sub; readlink tree/link",
    ]);
    assert!(
        told.contains("300000") && told.contains("-rw-r-----") && told.contains("/nowhere"),
        "{told}"
    );
    let back = tree.with_file_name("back");
    house.told(&["cp", "box:/root/tree", back.to_str().expect("text")]);
    assert_eq!(fs::read(back.join("sub/file")).expect("there"), vec![7; 300_000]);
    let (there, here) = (fs::metadata(back.join("sub/file")), fs::metadata(tree.join("sub/file")));
    let (there, here) = (there.expect("there"), here.expect("there"));
    assert_eq!((there.mode(), there.mtime()), (here.mode(), here.mtime()));
    // As a tar stream, both ways.
    let tar = house.run(&["cp", "box:/root/tree", "-"]).stdout;
    let mut command = house.command(&["cp", "-", "box:/tmp"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("gemello starts");
    child.stdin.take().expect("piped").write_all(&tar).expect("taken");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(house.told(&["exec", "box", "cmp", "/tmp/tree/sub/file", "/root/other"]), "");
    for (words, why) in [
        (["box:/none", "/tmp/x"], "/none"),
        (["/none/here", "box:/tmp"], "/none/here"),
        (["/etc/passwd", "box:/none/x"], "/none"),
        (["/etc/passwd", "/tmp/x"], "NAME:PATH"),
    ] {
        let output = house.run(&["cp", words[0], words[1]]);
        assert_eq!(code(&output), 2, "{words:?}");
        assert!(text(&output.stderr).contains(why), "{words:?}: {}", text(&output.stderr));
    }
}

/// A program in place of ssh, which looks at its words and talks through its ProxyCommand.
const SSH: &str = r#"#!/bin/sh
for word; do echo "word $word" >&2; case $word in ProxyCommand=*) proxy=${word#*=};; esac; done
echo hello | sh -c "$proxy"
"#;

#[test]
fn ssh_and_nc_reach_a_port_of_the_guests_loopback() {
    let _turn = debian("cloud");
    let house = machine("ssh");
    let output = exec(&house, &["box", "sh", "-c", "id"], b"");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let nobody = house.run(&["nc", "box", "22"]);
    assert_eq!(code(&nobody), 2);
    assert!(
        text(&nobody.stderr).contains("nobody in the guest listens"),
        "{}",
        text(&nobody.stderr)
    );
    let server = "ifconfig lo up; nc -l -p 22 -e sh -c 'read a; echo got $a' >/dev/null 2>&1 &";
    assert_eq!(code(&exec(&house, &["box", "sh", "-c", server], b"")), 0);
    let (bin, data) = (house.runtime.join("bin"), house.runtime.join("data"));
    fs::create_dir(&bin).expect("a folder");
    let keygen = "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\n\
        echo secret > $1\necho ssh-ed25519 AAAA > $1.pub\n";
    for (name, script) in [("ssh", SSH), ("ssh-keygen", keygen)] {
        fs::write(bin.join(name), script).expect("a file");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("mine");
    }
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let ssh = || {
        let mut command = house.command(&["ssh", "me@box", "-v", "uname"]);
        command.env("PATH", &path).env("XDG_DATA_HOME", &data).output().expect("it runs")
    };
    let unknown = ssh();
    assert!(text(&unknown.stderr).contains("knows no user me"), "{}", text(&unknown.stderr));
    let adduser = "echo me:x:7:7::/home/me:/bin/sh >> /etc/passwd; mkdir -p /home/me";
    exec(&house, &["box", "sh", "-c", adduser], b"");
    let output = until("a server", || Some(ssh()).filter(|output| !output.stdout.is_empty()));
    let words = text(&output.stderr);
    assert_eq!(text(&output.stdout), "got hello\n", "{words}");
    for word in ["word me@box", "word -v", "word uname", "word HostKeyAlias=box", "id_ed25519"] {
        assert!(words.contains(word), "no {word} in {words}");
    }
    let keys = house.told(&["exec", "box", "cat", "/home/me/.ssh/authorized_keys"]);
    assert_eq!(keys, "ssh-ed25519 AAAA\n", "once");
}

#[test]
fn what_has_no_agent_says_so() {
    let mut house = House::new("no-agent");
    house.start(&["run", "--nucleus", "--name", "box", "--console", "pty"]);
    until("a machine", || house.socket("box").exists().then_some(()));
    let refused = house.run(&["exec", "box", "true"]);
    assert_eq!(code(&refused), 2);
    let told = text(&refused.stderr);
    assert!(told.contains("no sockets to its guest; start it with --vsock"), "{told}");
    let odd = house.ask("box", b"{\"version\":1,\"request\":{\"connect\":{\"port\":-1}}}\n");
    assert!(odd.contains("no request"), "{odd}");
    house.told(&["stop", "--force", "box"]);
}
