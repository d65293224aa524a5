//! Several machines in one process, and running machines reached from other processes.

use e2e::{
    Ends, HALT, House, LONG, SECOND_PRESS, Session, code, debian_alone, prints, text, until,
};
use rustix::io::Errno;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

const NUCLEUS: &str = "[boot]\nnucleus = \"\"\n";

/// Types `line` at the nucleus's prompt, and waits for `answer`.
fn answers(console: &mut Session, line: &str, answer: &str) {
    console.send(&format!("{line}\n"));
    console.expect(answer, LONG);
}

#[test]
fn two_machines_of_one_process_answer_and_stop() {
    let mut house = House::new("two");
    let files = [house.file("a.toml", NUCLEUS), house.file("b.toml", NUCLEUS)];
    let said = house.start(&["run", &files[0], &files[1]]);
    let mut consoles = ["a", "b"].map(|name| house.console(name));
    for console in &mut consoles {
        console.expect("nucleus> ", LONG);
        answers(console, "run hello me", "hello from process 1: me");
    }
    assert_eq!(house.names(), ["a", "b"]);
    let json = house.told(&["ps", "--json"]);
    assert_eq!(json.matches("\"state\": \"running\"").count(), 2, "{json}");
    // A console is shared: another one sees what was said, and all that is.
    let mut third = house.console("a");
    third.expect("hello from process 1: me", LONG);
    answers(&mut third, "run hello you", "hello from process 2: you");
    consoles[0].expect("hello from process 2: you", LONG);
    // A paused machine hears nothing; the other goes on.
    house.told(&["pause", "a"]);
    house.told(&["pause", "a"]);
    assert!(house.told(&["ps"]).contains("paused"));
    let refused = house.run(&["stop", "a"]);
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("a: it is paused"), "{}", text(&refused.stderr));
    third.send("run hello later\n");
    answers(&mut consoles[1], "run hello now", "hello from process 2: now");
    house.told(&["resume", "a"]);
    third.expect("hello from process 3: later", LONG);
    let stats = house.told(&["stats", "b"]);
    for piece in ["b\n", "resident ", "page-ins 0.0 a second", "switches", "yields"] {
        assert!(stats.contains(piece), "no {piece:?} in\n{stats}");
    }
    assert_eq!(house.told(&["stats", "--json"]).matches("\"steal_share\"").count(), 2);
    house.told(&["stop", "a"]);
    third.expect("the power button was pressed", LONG);
    assert_eq!(house.names(), ["b"]);
    answers(&mut consoles[1], "run hello still", "hello from process 3: still");
    house.told(&["stop", "b"]);
    assert_eq!(house.end(), 0, "{:?}", fs::read_to_string(&said));
    assert!(fs::read_to_string(&said).expect("said").contains("a: console /dev/pts/"));
    assert!(house.names().is_empty());
}

/// The pseudo-terminal's other side is there for any program, and a log for who wants none.
#[test]
fn a_console_is_a_pseudo_terminal_or_a_log() {
    let mut house = House::new("places");
    let log = house.runtime.join("b.log");
    let b = format!("{NUCLEUS}[run]\nconsole = \"log:b.log\"\n");
    let files = [house.file("a.toml", NUCLEUS), house.file("b.toml", &b)];
    house.start(&["run", &files[0], &files[1], "--stats"]);
    let path = until("a console", || {
        let told = house.told(&["ps"]);
        let path = told.split_whitespace().find(|word| word.starts_with("/dev/pts/"));
        path.map(str::to_owned)
    });
    let terminal = e2e::open(&path);
    rustix::io::ioctl_fionbio(&terminal, true).expect("a terminal");
    let (mut seen, mut sent) = (Vec::new(), false);
    until("an answer", || {
        let mut piece = [0; 4096];
        match rustix::io::read(&terminal, &mut piece) {
            Ok(count) => seen.extend_from_slice(&piece[..count]),
            Err(error) => assert_eq!(error, Errno::AGAIN),
        }
        if text(&seen).contains("nucleus> ") && !sent {
            rustix::io::write(&terminal, b"run hello pty\r").expect("it takes keys");
            sent = true;
        }
        text(&seen).contains("hello from process 1: pty").then_some(())
    });
    until("a log", || fs::read_to_string(&log).ok().filter(|log| log.contains("nucleus> ")));
    // What has no input can be typed into all the same.
    let mut console = house.console("b");
    answers(&mut console, "run hello log", "hello from process 1: log");
    assert!(house.told(&["ps"]).contains(" log\n"));
    house.told(&["stop", "a", "b"]);
    assert_eq!(house.end(), 0);
    assert!(fs::read_to_string(&log).expect("a log").contains("hello from process 1: log"));
}

/// Whatever one guest does, and however it ends, the others go on.
#[test]
fn a_guests_fault_is_its_own() {
    let mut house = House::new("fault");
    fs::write(house.runtime.join("zero"), e2e::zero_idt()).expect("a file");
    fs::write(house.runtime.join("panics"), prints(PANIC, HALT)).expect("a file");
    let kernel = |name: &str| format!("[boot]\nkernel = \"{name}\"\n");
    let files = [
        house.file("good.toml", NUCLEUS),
        house.file("triple.toml", &kernel("zero")),
        house.file("panic.toml", &kernel("panics")),
    ];
    let said = house.start(&["run", &files[0], &files[1], &files[2]]);
    let mut console = house.console("good");
    until("the ends of two", || (house.names() == ["good"]).then_some(()));
    console.expect("nucleus> ", LONG);
    answers(&mut console, "run hello me", "hello from process 1: me");
    house.told(&["stop", "good"]);
    // The first that is not 0, in the order of the command line.
    assert_eq!(house.end(), 3);
    let said = fs::read_to_string(said).expect("said");
    assert!(said.contains("triple: triple fault"), "{said}");
    assert!(said.contains("panic: the guest's kernel panicked"), "{said}");
}

const PANIC: &[u8] = b"Kernel panic - not syncing: test\r\n\
    ---[ end Kernel panic - not syncing: test ]---\r\n";

#[test]
fn names_are_unique_and_free_again() {
    let mut house = House::new("names");
    let file = house.file("web.toml", NUCLEUS);
    let named = house.file("db.toml", "[machine]\nname = \"db\"\n[boot]\nnucleus = \"\"\n");
    house.start(&["run", &file, &named, &file]);
    until("three machines", || (house.names() == ["db", "web", "web-2"]).then_some(()));
    let refused = house.run(&["run", &named]);
    assert_eq!(code(&refused), 2);
    let message = text(&refused.stderr);
    assert!(message.contains("a machine called db runs already"), "{message}");
    assert!(message.contains("machine.name in"), "{message}");
    house.told(&["stop", "--force", "db"]);
    house.start(&["run", &named]);
    until("db again", || house.names().contains(&"db".to_owned()).then_some(()));
    house.told(&["stop", "db"]);
    assert_eq!(house.end(), 0);
    // Killed: its sockets stay, and are removed by who meets them.
    let mut child = house.children.pop().expect("started");
    child.kill().expect("it runs");
    child.wait().expect("a child");
    assert!(house.socket("web").exists());
    assert!(house.names().is_empty());
    assert!(!house.socket("web").exists());
    let refused = house.run(&["pause", "web"]);
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("no machine called web runs"));
}

#[test]
fn a_guest_that_misses_the_power_button_is_asked_again() {
    let mut house = House::new("again");
    let kernel = house.runtime.join("kernel");
    fs::write(&kernel, prints(b"starting", SECOND_PRESS)).expect("a file");
    let named = kernel.to_str().expect("text");
    let file = house.file("late.toml", &format!("[boot]\nkernel = \"{named}\"\n"));
    house.start(&["run", &file]);
    until("late", || (house.names() == ["late"]).then_some(()));
    house.told(&["stop", "late"]);
    assert_eq!(house.end(), 0);
}

#[test]
fn a_guest_that_does_not_end_has_its_plug_pulled() {
    let mut house = House::new("plug");
    let kernel = house.runtime.join("kernel");
    fs::write(&kernel, prints(b"deaf", HALT)).expect("a file");
    let named = kernel.to_str().expect("text");
    let file = house.file("deaf.toml", &format!("[boot]\nkernel = \"{named}\"\n"));
    house.start(&["run", &file]);
    until("deaf", || (house.names() == ["deaf"]).then_some(()));
    let stopped = house.run(&["stop", "--timeout", "200ms", "deaf"]);
    let told = text(&stopped.stderr);
    assert_eq!(code(&stopped), 0, "{told}");
    assert!(told.contains("deaf has not ended within 0.2 s; its plug is pulled"), "{told}");
    assert_eq!(house.end(), 130);
}

#[test]
fn a_log_never_empties_what_another_machine_reads() {
    let house = House::new("emptied");
    let kernel = prints(b"intact", HALT);
    let path = house.runtime.join("kernel");
    fs::write(&path, &kernel).expect("a file");
    let named = path.to_str().expect("text");
    let reads = house.file("reads.toml", &format!("[boot]\nkernel = \"{named}\"\n"));
    for key in ["log = \"", "console = \"log:"] {
        let writes = house.file("writes.toml", &format!("{NUCLEUS}[run]\n{key}{named}\"\n"));
        let refused = house.run(&["run", &writes, &reads]);
        let message = text(&refused.stderr);
        assert_eq!(code(&refused), 2, "{message}");
        assert!(message.contains("it is the kernel of this run"), "{message}");
        assert_eq!(fs::read(&path).expect("a file"), kernel);
    }
}

#[test]
fn a_process_has_one_trace() {
    let mut house = House::new("trace");
    let files = [house.file("a.toml", NUCLEUS), house.file("b.toml", NUCLEUS)];
    let trace = house.runtime.join("trace.txt");
    let to = trace.to_str().expect("text");
    house.start(&["run", &files[0], &files[1], "--trace", "irq", "--trace-file", to]);
    for name in ["a", "b"] {
        house.console(name).expect("nucleus> ", LONG);
    }
    house.told(&["stop", "a", "b"]);
    assert_eq!(house.end(), 0);
    assert!(fs::metadata(&trace).expect("a file").len() > 0);
}

/// Its name is free as soon as its end is told, and so, soon, is its memory.
#[test]
fn a_machine_that_has_ended_gives_all_back() {
    let mut house = House::new("back");
    let large = "[machine]\nmemory = \"1G\"\n[boot]\nnucleus = \"\"\n";
    let files = [house.file("stays.toml", NUCLEUS), house.file("goes.toml", large)];
    house.start(&["run", &files[0], &files[1]]);
    until("both", || (house.names() == ["goes", "stays"]).then_some(()));
    let id = house.children[0].id();
    let mapped = || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let value = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("Linux");
        value.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    let before = mapped();
    house.told(&["stop", "--force", "goes"]);
    assert_eq!(house.names(), ["stays"]);
    assert!(!house.socket("goes").exists());
    until("its memory", || (mapped() + (1 << 20) <= before).then_some(()));
    house.told(&["stop", "stays"]);
    assert!(!house.socket("stays").exists());
}

/// A single machine on its terminal can be reached, too, and left.
#[test]
fn a_console_is_left_and_the_terminal_given_back() {
    let house = House::new("attach");
    let mut owner = Session::start(house.command(&["run", "--nucleus", "--name", "one"]));
    owner.expect("nucleus> ", LONG);
    let (mut user, terminal) =
        Session::on_terminal(&house.command(&["console", "one"]), &Ends::default());
    let (_master, path) = e2e::pty();
    let usual = modes(&e2e::open(&path));
    user.expect("nucleus> ", LONG);
    user.send("run hello me\r");
    user.expect("hello from process 1: me", LONG);
    owner.expect("hello from process 1: me", LONG);
    user.send("\x01h");
    user.expect("leave the console", LONG);
    user.send("\x01d");
    user.expect("one goes on", LONG);
    assert_eq!(user.finish(LONG).0, 0);
    assert_eq!(modes(&terminal.other()), usual, "the terminal is as it was");
    owner.send("poweroff\n");
    assert_eq!(owner.finish(LONG).0, 0);
}

fn modes(terminal: &File) -> String {
    let output =
        Command::new("stty").arg("-g").stdin(terminal.try_clone().expect("a file")).output();
    text(&output.expect("stty").stdout)
}

/// A guest's Ctrl-C is its own; the program's ends every machine.
#[test]
fn a_signal_ends_all() {
    let mut house = House::new("signal");
    let files = [house.file("a.toml", NUCLEUS), house.file("b.toml", NUCLEUS)];
    house.start(&["run", &files[0], &files[1]]);
    until("two machines", || (house.names().len() == 2).then_some(()));
    let pid = rustix::process::Pid::from_child(&house.children[0]);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(house.end(), 128 + 15);
}

#[test]
fn nonsense_at_the_socket_hurts_nobody() {
    let mut house = House::new("nonsense");
    house.start(&["run", "--nucleus", "--name", "one", "--console", "pty"]);
    let mut console = house.console("one");
    console.expect("nucleus> ", LONG);
    let mode = fs::metadata(house.socket("one")).expect("a socket").mode();
    assert_eq!(mode & 0o777, 0o600);
    for words in [&b"help\n"[..], b"{}\n", b"\xff\xff\n", b"{\"version\":1,\"request\":\"x\"}\n"] {
        let told = house.ask("one", words);
        assert!(told.contains("no request") && told.ends_with("}\n"), "{told}");
    }
    assert!(house.ask("one", b"{\"version\":9}\n").contains("version 9"));
    assert!(house.ask("one", &[b'x'; 1 << 20]).contains("longer"));
    assert_eq!(house.ask("one", b"{\"version\":1"), "", "half a line");
    let two = b"{\"version\":1,\"request\":\"info\"}\n".repeat(2);
    assert_eq!(house.ask("one", &two).matches("\"name\":\"one\"").count(), 2);
    // Many that say nothing: the machine answers at its console, and others once these are gone.
    let many: Vec<_> =
        (0..100).filter_map(|_| UnixStream::connect(house.socket("one")).ok()).collect();
    answers(&mut console, "run hello me", "hello from process 1: me");
    drop(many);
    until("an answer", || house.run(&["ps"]).stdout.windows(3).any(|w| w == b"one").then_some(()));
    // One that never reads what it asked for.
    let mut slow = UnixStream::connect(house.socket("one")).expect("it listens");
    slow.write_all(b"{\"version\":1,\"request\":{\"console\":{\"rows\":24,\"cols\":80}}}\n")
        .expect("sent");
    slow.write_all(b"demo\n").expect("sent");
    console.expect("That was the tour.", LONG);
    house.told(&["stop", "--force", "one"]);
    assert_eq!(house.end(), 130);
}

/// A perl program that asks the machine at the socket that it is given to end.
const ASK: &str = r#"
    $SIG{PIPE} = 'IGNORE';
    socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die;
    connect($s, sockaddr_un($ARGV[0])) or die "cannot connect: $!";
    syswrite($s, qq({"version":1,"request":"kill"}\n));
    printf "connected, answered %d bytes\n", sysread($s, my $answer, 99) // 0;
"#;

/// Root may become another user: that one has other machines, and cannot reach these.
#[test]
fn another_user_is_refused() {
    const NOBODY: &str = "65534";
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can become another user");
        return;
    }
    let mut house = House::new("user");
    house.start(&["run", "--nucleus", "--name", "one", "--console", "pty"]);
    house.console("one").expect("nucleus> ", LONG);
    // Even where all doors are open.
    for open in [house.runtime.clone(), house.runtime.join("gemello"), house.socket("one")] {
        fs::set_permissions(open, Permissions::from_mode(0o777)).expect("mine");
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid", NOBODY, "--clear-groups", "--", "/usr/bin/perl", "-MSocket", "-e", ASK]);
    let output = other.arg(house.socket("one")).stdin(Stdio::null()).output().expect("setpriv");
    assert_eq!(text(&output.stdout), "connected, answered 0 bytes\n", "{}", text(&output.stderr));
    // And a folder that others can write to is not used: who owns it asks nobody there.
    let refused = house.run(&["pause", "one"]);
    assert_eq!(code(&refused), 2, "another folder is used");
    for shut in [house.runtime.clone(), house.runtime.join("gemello")] {
        fs::set_permissions(shut, Permissions::from_mode(0o700)).expect("mine");
    }
    assert_eq!(house.names(), ["one"]);
    house.told(&["stop", "one"]);
    assert_eq!(house.end(), 0);
}

#[test]
fn what_only_one_machine_can_have_is_refused() {
    let house = House::new("refused");
    let files = [house.file("a.toml", NUCLEUS), house.file("b.toml", NUCLEUS)];
    let terminal = house.file("t.toml", &format!("{NUCLEUS}[run]\nconsole = \"terminal\"\n"));
    for (more, piece) in [
        (&["--name", "x"][..], "--name is for one machine"),
        (&["--log", "x"], "--log is for one machine"),
        (&["--save", "x"], "--save is for one machine"),
        (&["--console", "log:x"], "--console log:FILE is for one machine"),
        (&["--console", "terminal"], "several machines cannot have this terminal"),
        (&[&terminal], "several machines cannot have this terminal"),
        (&["--print-config"], "--print-config prints one machine's file"),
        (&["--tier", "interp", "--code-cache", "8M"], "--code-cache"),
    ] {
        let arguments = [&["run", &files[0], &files[1]], more].concat();
        let output = house.run(&arguments);
        assert_eq!(code(&output), 2, "{more:?}");
        let message = text(&output.stderr);
        assert!(message.contains(piece), "{more:?}: {message}");
        assert!(house.names().is_empty(), "{more:?}");
    }
}

/// Two busy machines on one host processor: each sees, by the clock alone, that it is away.
#[test]
fn two_machines_take_turns_on_one_processor() {
    let mut house = House::new("turns");
    let demo =
        house.file("demo.toml", "[boot]\nnucleus = \"demo\"\n[run]\nconsole = \"log:log\"\n");
    let files = [house.file("busy.toml", NUCLEUS), demo];
    house.start(&["run", &files[0], &files[1], "--pcpus", "1"]);
    let mut busy = house.console("busy");
    busy.expect("nucleus> ", LONG);
    busy.send("run count &\n");
    let log = house.runtime.join("log");
    let tour = until("the tour's end", || {
        fs::read_to_string(&log).ok().filter(|log| log.contains("That was the tour."))
    });
    let (_, after) = tour.split_once("Machines in turn").expect("the chapter");
    let line = after.lines().find(|line| line.contains("away ~")).expect("figures");
    let times = line.split("away ~").nth(1).and_then(|rest| rest.split(' ').next());
    let times: u32 = times.and_then(|times| times.parse().ok()).expect("a number");
    assert!(times >= 3, "{after}");
    let stats = house.told(&["stats", "busy", "--json"]);
    assert!(stats.contains("\"quanta\""), "{stats}");
    house.told(&["stop", "--force", "busy"]);
    assert_eq!(house.end(), 130);
}

/// Debian's shell and a command of its: both end when they are asked to.
#[test]
fn debian_ends_when_it_is_asked_to() {
    let _turn = debian_alone("cloud");
    let mut house = House::new("busybox");
    let shell = house.file("shell.toml", "[boot]\nbusybox = \"cloud\"\n");
    house.start(&["run", &shell]);
    let mut console = house.console("shell");
    console.expect("/root # ", LONG);
    answers(&mut console, "echo $((6 * 7))", "42");
    let stats = house.told(&["stats", "shell", "--json"]);
    assert!(stats.contains("\"resident\""), "{stats}");
    house.told(&["stop", "shell"]);
    assert_eq!(house.end(), 0);
    house.start(&["run", "busybox", "--name", "job", "--", "sh", "-c", "echo begun; sleep 1000"]);
    let said = house.runtime.join("said-0");
    until("its output", || fs::read_to_string(&said).ok().filter(|said| said.contains("begun")));
    let refused = house.run(&["console", "job"]);
    assert!(text(&refused.stderr).contains("a command's input and output"));
    house.told(&["stop", "job"]);
    assert_eq!(house.end(), 125, "it ended before its command");
}

/// Of 300 MiB of the letter x.
const MD5: &str = "808885c153ff7925cd1542d84bbd6fd8";

/// What a process takes of the host: KiB in memory, and threads.
fn taken(child: &Child) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux");
        value.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    (field("VmRSS:"), field("Threads:"))
}

/// `count` machines of the file `content` in one process, all of which answer `line`.
fn crowd(house: &mut House, (count, content): (usize, &str), prompt: &str, ask: (&str, &str)) {
    let files: Vec<_> = (0..count).map(|n| house.file(&format!("m{n}.toml"), content)).collect();
    let arguments: Vec<_> = ["run"].into_iter().chain(files.iter().map(|file| &**file)).collect();
    house.start(&arguments);
    let mut consoles: Vec<_> = (0..count).map(|n| house.console(&format!("m{n}"))).collect();
    for console in &mut consoles {
        console.expect(prompt, 5 * LONG);
    }
    consoles.iter_mut().for_each(|console| console.send(&format!("{}\n", ask.0)));
    for console in &mut consoles {
        console.expect(ask.1, 5 * LONG);
    }
    assert_eq!(house.names().len(), count);
}

#[test]
#[ignore = "second step: fifty machines"]
fn fifty_nuclei_in_one_process_answer() {
    const COUNT: usize = 50;
    let mut house = House::new("fifty");
    crowd(&mut house, (COUNT, NUCLEUS), "nucleus> ", ("run hello me", "hello from process 1: me"));
    let (kib, threads) = taken(&house.children[0]);
    eprintln!("{COUNT} nuclei: {} MiB, {threads} threads", kib >> 10);
    assert!(kib >> 10 < 12 * COUNT as u64, "{kib} KiB");
    assert!(threads < 6 * COUNT as u64, "{threads} threads");
    let names: Vec<_> = (0..COUNT).map(|n| format!("m{n}")).collect();
    let stop: Vec<_> = ["stop"].into_iter().chain(names.iter().map(|name| &**name)).collect();
    house.told(&stop);
    assert_eq!(house.end(), 0);
}

#[test]
#[ignore = "by hand: eight Debians, 256 MiB in memory of 1 GiB each"]
fn eight_debians_within_their_budgets_answer_by_hand() {
    const COUNT: usize = 8;
    let _turn = debian_alone("cloud");
    let mut house = House::new("eight");
    let content = "[machine]\nmemory = \"1G\"\nresident = \"256M\"\n[boot]\nbusybox = \"cloud\"\n";
    // More than the budget, and read again.
    let ask = ("dd if=/dev/zero bs=1M count=300 | tr '\\0' x >/tmp/x; md5sum /tmp/x", MD5);
    crowd(&mut house, (COUNT, content), "/root # ", ask);
    let (kib, threads) = taken(&house.children[0]);
    eprintln!("{COUNT} Debians: {} MiB, {threads} threads", kib >> 10);
    // Beside the guest's memory, the monitor's own: translations, decoded code, pages' attributes.
    assert!(kib >> 10 < (256 + 128) * COUNT as u64, "{kib} KiB");
    let names: Vec<_> = (0..COUNT).map(|n| format!("m{n}")).collect();
    let stop: Vec<_> = ["stop"].into_iter().chain(names.iter().map(|name| &**name)).collect();
    house.told(&stop);
    assert_eq!(house.end(), 0);
}
