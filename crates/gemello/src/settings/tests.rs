//! Both spellings of settings mean the same, and the document describes all of them.

use super::console::ConsolePlace;
use super::disk::DiskSettings;
use super::module::{ModuleSettings, Word};
use super::names::{FIELDS, Names};
use super::net::NetChoice;
use super::sched::{CpuLimit, CpuWeight, Quantum};
use super::share::ShownOwner;
use super::values::{CodeCache, Size, Text as _, Time};
use super::*;
use crate::cli::{Cli, Command, Run};
use ::sched::{Limit, Weight};
use clap::{CommandFactory as _, Parser as _};
use disk_image::ImageFormat;
use machine::{Cache, Owner, ShareCache};
use std::collections::BTreeSet;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// A disk of which everything is said.
fn whole_disk() -> DiskSettings {
    DiskSettings {
        path: "/a".into(),
        read_only: true,
        format: Some(ImageFormat::Qcow2),
        serial: Some("a-1".into()),
        cache: Some(Cache::Unsafe),
        backing: Some("/c".into()),
        iops: NonZeroU64::new(500),
        bps: Some(Size(10 << 20)),
    }
}

/// Everything is said, what does not go together included.
fn all() -> Settings {
    Settings {
        machine: MachineSettings {
            name: Some(MachineName::parse("a-b.c").expect("a name")),
            memory: Some(Size(48 << 20)),
            resident: Some(Size(16 << 20)),
            swap: Some("/w".into()),
            cpu: Some(Box::new(CpuModel::parse("gemello-v2,+smap").expect("a model"))),
            vcpus: Some(4),
            transport: Some(Transport::Mmio),
            net: Some(NetChoice::parse("user,host-loopback=on").expect("a network")),
            rng: Some(false),
            balloon: Some(true),
            hvc: Some(true),
            debug_exit: Some(true),
            deterministic: Some(true),
        },
        boot: BootSettings {
            debian: Some(Release::Sid),
            busybox: Some(Flavour::Full),
            image: Some(ImageName::File("/o:1".into())),
            rootfs: Some("/r".into()),
            rw: vec!["/x".into()],
            system: Some(true),
            command: vec![Word("uname".into()), Word("-a b".into())],
            nucleus: Some("demo".into()),
            kernel: Some("/k".into()),
            initrd: Some("/i".into()),
            cmdline: Some("quiet \"x\"".into()),
            module: vec![ModuleSettings { path: "/m".into(), arguments: "a=b".into() }],
        },
        disk: vec![whole_disk(), DiskSettings { path: "/b".into(), ..DiskSettings::default() }],
        cloud_init: Some(CloudInitSettings {
            user_data: "/u".into(),
            meta_data: Some("/m".into()),
            network_config: Some("/n".into()),
        }),
        vsock: Some(VsockSettings { enabled: Some(true), cid: Some(5), path: Some("/v".into()) }),
        share: vec![ShareSettings {
            path: "/s".into(),
            tag: Some("src".into()),
            read_only: true,
            owner: Some(ShownOwner(Owner::User(1000))),
            cache: Some(ShareCache::Always),
        }],
        engine: EngineSettings {
            name: Some(Choice::Soft),
            tier: Some(Tier::Lockstep),
            code_cache: Some(CodeCache(8 << 20)),
        },
        sched: SchedSettings {
            pcpus: NonZeroUsize::new(2),
            quantum: Some(Quantum(Duration::from_millis(2))),
            cpu_weight: Weight::new(300).map(CpuWeight),
            cpu_limit: Limit::percent(150).map(CpuLimit),
        },
        run: RunSettings {
            timeout: Some(Time(Duration::from_millis(1500))),
            console: Some(ConsolePlace::Log("/c".into())),
            log: Some("/l".into()),
            pcap: Some("/p".into()),
            trace: vec![Topic::Irq, Topic::Ports],
            trace_file: Some("/t".into()),
            stats: Some(true),
            digest: Some(true),
            save: Some("/s".into()),
            rm: Some(true),
            cold: Some(true),
        },
    }
}

fn arguments(words: &[&str]) -> Run {
    let words = ["gemello", "run"].iter().chain(words);
    let cli = Cli::try_parse_from(words).expect("understood");
    let Some(Command::Run(run)) = cli.command else { panic!("another command") };
    *run
}

/// Each option of `run` with a value; `what` and `command` aside.
const OPTIONS: [(&str, &[&str]); 46] = [
    ("kernel", &["--kernel", "/k"]),
    ("rootfs", &["--rootfs", "/"]),
    ("rw", &["--rw", "/a", "--rw", "/b"]),
    ("system", &["--system"]),
    ("nucleus", &["--nucleus", "demo"]),
    ("initrd", &["--initrd", "/i"]),
    ("cmdline", &["--cmdline", "quiet a=\"b c\""]),
    ("module", &["--module", "/m=a b", "--module", "/n"]),
    ("disk", &["--disk", "/a,ro,serial=x,cache=unsafe,iops=5,bps=1M", "--disk", "/b,,,format=raw"]),
    ("cloud_init", &["--cloud-init", "/u,/m,/n"]),
    ("vsock", &["--vsock", "cid=5,path=/v"]),
    ("share", &["--share", "/s:src,ro,owner=1000,cache=always", "--share", "/t,owner=keep"]),
    ("name", &["--name", "web-1"]),
    ("memory", &["--memory", "1536M"]),
    ("resident", &["--resident", "64M"]),
    ("swap", &["--swap", "/w"]),
    ("cpu", &["--cpu", "gemello-v2,-pcid"]),
    ("vcpus", &["--vcpus", "4"]),
    ("transport", &["--transport", "mmio"]),
    ("net", &["--net", "user,forward=tcp:127.0.0.1:0:80,forward=udp:0.0.0.0:5:6,dns=1.2.3.4:5353"]),
    ("publish", &["--publish", "8080:80", "--publish", "[::1]:0:53/udp"]),
    ("rng", &["--rng", "off"]),
    ("balloon", &["--balloon"]),
    ("hvc", &["--hvc"]),
    ("engine", &["--engine", "soft"]),
    ("tier", &["--tier", "interp"]),
    ("code_cache", &["--code-cache", "1025K"]),
    ("pcpus", &["--pcpus", "2"]),
    ("quantum", &["--quantum", "2.5ms"]),
    ("cpu_weight", &["--cpu-weight", "300"]),
    ("cpu_limit", &["--cpu-limit", "150%"]),
    ("timeout", &["--timeout", "1.25s"]),
    ("console", &["--console", "pty"]),
    ("pcap", &["--pcap", "/p"]),
    ("log", &["--log", "/l"]),
    ("trace", &["--trace", "irq,unclaimed"]),
    ("trace_file", &["--trace-file", "/t"]),
    ("stats", &["--stats"]),
    ("save", &["--save", "/s"]),
    ("debug_exit", &["--debug-exit"]),
    ("deterministic", &["--deterministic"]),
    ("digest", &["--digest"]),
    ("rm", &["--rm"]),
    ("cold", &["--cold"]),
    ("release", &["debian", "--release", "sid"]),
    ("flavour", &["busybox", "--flavour", "full"]),
];

fn comes_back(settings: &Settings) {
    let text = options::print(settings).expect("printed");
    let back: Settings = toml::from_str(&text).expect(&text);
    assert_eq!(back, *settings, "{text}");
    assert_eq!(Settings::default().over(back), *settings, "{text}");
}

#[test]
fn a_printed_file_says_the_same() {
    comes_back(&all());
    comes_back(&Settings::default());
    for (name, words) in OPTIONS {
        let said = options::gather(&arguments(words)).expect(name).settings;
        assert_ne!(said, Settings::default(), "--{name} says nothing");
        comes_back(&said);
    }
    let said = options::gather(&arguments(&["debian", "--", "ls", "-l", ""])).expect("debian");
    assert_eq!(said.settings.boot.command.len(), 3);
    comes_back(&said.settings);
}

/// A new option has to appear above.
#[test]
fn every_option_is_tried() {
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("run");
    let options = run.get_arguments().map(|option| option.get_id().as_str());
    let apart = ["what", "more", "command", "detach", "print_config", "help"];
    for option in options.filter(|option| !apart.contains(option)) {
        assert!(OPTIONS.iter().any(|(name, _)| *name == option), "--{option} is not tried");
    }
}

#[test]
fn the_command_line_comes_first() {
    let mut file = all();
    file.boot = BootSettings { kernel: Some("/k".into()), ..BootSettings::default() };
    let options = options::gather(&arguments(&["--memory", "1G", "--disk", "/c"])).expect("said");
    let both = options.settings.over(file.clone());
    assert_eq!(both.machine.memory, Some(Size(1 << 30)));
    assert_eq!(both.machine.cpu, file.machine.cpu);
    assert_eq!(both.disk.len(), 1);
    assert_eq!((both.engine, both.run, both.boot), (file.engine, file.run, file.boot.clone()));
    let nucleus = options::gather(&arguments(&["--nucleus"])).expect("said").settings.over(all());
    assert_eq!((nucleus.boot.kernel, nucleus.boot.busybox), (None, None));
}

/// `system` has a Debian's init started; of any other guest it says what is booted.
#[test]
fn a_files_debian_is_a_system_as_well() {
    let said = || options::gather(&arguments(&["--system"])).expect("said").settings;
    let boot =
        |file: BootSettings| said().over(Settings { boot: file, ..Settings::default() }).boot;
    let command = vec![Word("true".into())];
    let debian = Some(Release::Sid);
    let file = BootSettings { debian, command: command.clone(), ..BootSettings::default() };
    assert!(!file.starts_init() && file.is_system());
    let both = boot(file);
    assert_eq!((both.debian, both.system), (debian, Some(true)));
    assert!(both.starts_init());
    let image =
        boot(BootSettings { rootfs: Some("/x".into()), command, ..BootSettings::default() });
    assert_eq!((image.rootfs, image.system), (None, Some(true)));
    assert!(BootSettings { debian, ..BootSettings::default() }.starts_init());
}

#[test]
fn what_is_no_text_cannot_be_printed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = OsStr::from_bytes(b"a\xff");
    let mut settings = Settings::default();
    settings.boot.command = vec![Word(bytes.into())];
    let refused = options::print(&settings).expect_err("no text");
    assert!(format!("{refused:#}").contains("UTF-8"), "{refused:#}");
    settings.boot.command.clear();
    settings.run.log = Some(bytes.into());
    assert!(options::print(&settings).is_err());
}

/// The keys of a table, those of tables in it included.
fn keys(table: &toml::Table, before: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in table {
        let key = format!("{before}{key}");
        let inner: Vec<_> = match value {
            toml::Value::Table(table) => vec![table],
            toml::Value::Array(list) => list.iter().filter_map(toml::Value::as_table).collect(),
            _ => vec![],
        };
        if inner.is_empty() {
            found.insert(key);
        } else {
            found.extend(inner.into_iter().flat_map(|table| keys(table, &format!("{key}."))));
        }
    }
    found
}

const DOCUMENT: &str = include_str!("../../../../docs/config.md");

#[test]
fn the_document_describes_every_key_and_no_other() {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let described: BTreeSet<String> = rows.map(str::to_owned).collect();
    let table = toml::Table::try_from(all()).expect("a table");
    assert_eq!(described, keys(&table, ""));
    for field in FIELDS {
        let inside = format!("{}.", field.key);
        let known = |key: &String| key == field.key || key.starts_with(&inside);
        assert!(described.iter().any(known), "{}", field.key);
    }
}

#[test]
fn the_documents_example_is_a_machine() {
    let (_, after) = DOCUMENT.split_once("```toml\n").expect("an example");
    let (example, _) = after.split_once("```").expect("its end");
    let settings: Settings = toml::from_str(example).expect("a machine");
    crate::pairs::check(&settings).expect("what goes together");
    assert_eq!(settings.disk.len(), 2);
}

/// Each field that a library's message names is one that the user can be told of.
#[test]
fn every_field_has_a_name_of_the_command_line() {
    let names = Names::default();
    for word in [
        "memory",
        "kernel",
        "initrd",
        "cmdline",
        "modules",
        "timeout",
        "disks",
        "cloud_init",
        "cpu",
        "vcpus",
        "transport",
        "rng",
        "balloon",
        "hvc",
        "vsock",
        "shares",
        "deterministic",
    ] {
        let text = names.render(&format!("change `{word}`"));
        assert!(text.starts_with("change --"), "{text}");
    }
}

#[test]
fn a_machine_has_random_bytes_where_it_may() {
    let rng = |words: &[&str]| options::gather(&arguments(words)).expect("it").settings.rng();
    assert!(rng(&["debian"]) && rng(&["--kernel", "/k"]));
    assert!(!rng(&["--nucleus"]) && !rng(&["debian", "--deterministic"]));
    assert!(!rng(&["debian", "--rng", "off"]) && rng(&["--nucleus", "--rng", "on"]));
    let disks = ["--disk", "/d"].repeat(8);
    assert!(rng(&[&["debian"], &disks[..]].concat()));
    assert!(!rng(&[&["debian", "--transport", "mmio"], &disks[..]].concat()), "no slot is left");
}

#[test]
fn a_machine_with_the_agent_has_sockets_where_it_may() {
    let has = |words: &[&str]| {
        let given = options::gather(&arguments(words)).expect("understood");
        given.settings.vsock().is_some()
    };
    assert!(has(&["busybox"]) && has(&["oci:x"]) && has(&["--rootfs", "/"]));
    assert!(has(&["--kernel", "/k", "--vsock", "cid=4"]) && !has(&["--kernel", "/k"]));
    assert!(!has(&["busybox", "--vsock", "none"]) && !has(&["busybox", "--deterministic"]));
    let disks = ["--disk", "/d"].repeat(6);
    assert!(!has(&[&["busybox", "--transport", "mmio"], &disks[..]].concat()), "no slot is left");
    assert!(has(&[&["busybox", "--transport", "mmio"], &disks[2..]].concat()));
}

#[test]
fn a_machine_is_called_after_what_it_boots() {
    let boots = |boot| Settings { boot, ..Settings::default() };
    let system = |release| boots(BootSettings { debian: Some(release), ..Default::default() });
    let (debian, sid) = (system(Release::Trixie), system(Release::Sid));
    let small = boots(BootSettings { busybox: Some(Flavour::Cloud), ..BootSettings::default() });
    let nucleus = boots(BootSettings { nucleus: Some("".into()), ..BootSettings::default() });
    let kernel = boots(BootSettings { kernel: Some("/a/b.elf".into()), ..BootSettings::default() });
    let file = Some(Path::new("/vm/web.toml"));
    for (settings, name) in [
        (&debian, "debian"),
        (&sid, "debian-sid"),
        (&small, "busybox"),
        (&nucleus, "nucleus"),
        (&kernel, "b"),
    ] {
        assert_eq!(settings.name(None).to_string(), name);
        assert_eq!(settings.name(file).to_string(), "web");
    }
    let name = Some(MachineName::parse("said").expect("a name"));
    let said = Settings { machine: MachineSettings { name, ..debian.machine }, ..debian };
    assert_eq!(said.name(file).to_string(), "said");
    let kept = |settings: &Settings| settings.kept_as().map(|name| name.to_string());
    assert_eq!(kept(&sid).as_deref(), Some("debian-sid"));
    assert_eq!(kept(&said).as_deref(), Some("said"));
    assert_eq!((kept(&small), kept(&kernel)), (None, None));
    let thrown = Settings { run: RunSettings { rm: Some(true), ..Default::default() }, ..said };
    assert_eq!(kept(&thrown), None);
}

#[test]
fn debian_has_a_network_unless_something_speaks_against_it() {
    let net = |words: &[&str]| options::gather(&arguments(words)).expect("it").settings.net();
    assert!(net(&["debian"]).is_some());
    let disks = ["--disk", "/a"].repeat(8);
    let full = [&["debian", "--transport", "mmio"][..], &disks].concat();
    for without in [
        &["debian", "--net", "none"][..],
        &["debian", "--deterministic"],
        &["--nucleus"],
        &["--kernel", "/k"],
        &full,
    ] {
        assert_eq!(net(without), None, "{without:?}");
    }
    assert!(net(&["debian", "--deterministic", "--net", "user"]).is_some(), "and is refused");
}
