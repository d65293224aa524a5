//! What users of docker and QEMU type by habit, and what it is called here.
//!
//! Asked only after the command line was refused: nothing here changes what is accepted. What is
//! proposed as a command works when pasted.

use crate::cli::Cli;
use crate::settings::image::ImageName;
use crate::shell;
use clap::{CommandFactory as _, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a word of habit leads to.
enum Here {
    /// The same by another name.
    Option(&'static str),
    /// Another name, and what the value becomes.
    With(&'static str, fn(&str) -> String),
    /// Something else; said as it is.
    Say(&'static str),
}

const NETWORK: Here =
    Here::Say("a network is --net user, and a port forward=tcp:127.0.0.1:8080:80 after a comma");
const SHARING: Here = Here::Say("a folder is shared with --share DIR[:TAG][,ro]");
const NO_DISPLAY: Here =
    Here::Say("a machine has no display, its serial console is on this terminal; leave it out");
const NO_NEED: Here = Here::Say("it is so by itself; leave it out");
const NO_KVM: Here = Here::Say("guests run on gemello's own engine, without KVM; leave it out");
const NO_DEVICES: Here =
    Here::Say("a machine has its serial lines, and a disk for each --disk FILE; leave it out");

/// Words of habit, whether each has a value, and what they are here.
const REFLEXES: &[(&[&str], bool, Here)] = &[
    (&["-m", "--mem", "--ram", "-memory"], true, Here::With("--memory", with_unit)),
    (&["-smp", "--smp", "--cpus", "-c", "--cpu-count"], true, Here::With("--vcpus", processors)),
    (&["-net", "-netdev", "-nic", "--network"], true, NETWORK),
    (&["--expose", "--dns", "--link"], true, NETWORK),
    (&["-P", "--publish-all"], false, NETWORK),
    (&["-v", "--volume", "--mount", "-virtfs", "-fsdev"], true, SHARING),
    (&["-hda", "-hdb", "-hdc", "-hdd", "-sd", "-disk"], true, Here::Option("--disk")),
    (&["-drive", "--drive", "-blockdev"], true, Here::With("--disk", drive)),
    (&["-cdrom"], true, Here::With("--disk", |file| format!("{file},ro"))),
    (&["-kernel"], true, Here::Option("--kernel")),
    (&["-initrd"], true, Here::Option("--initrd")),
    (&["-append", "--append", "-cmdline"], true, Here::Option("--cmdline")),
    (&["-nographic", "-curses", "-sdl"], false, NO_DISPLAY),
    (&["-display", "-vga", "-vnc", "-spice"], true, NO_DISPLAY),
    (&["-device", "-usbdevice", "-soundhw", "-chardev", "-object", "-global"], true, NO_DEVICES),
    (&["-cpu"], true, Here::Say("--cpu MODEL, of gemello-v2 and gemello-v3; by itself the best")),
    (&["-machine", "-M", "-serial", "-monitor", "-boot"], true, NO_NEED),
    (&["-no-reboot", "-no-shutdown", "-nodefaults"], false, NO_NEED),
    (&["-accel"], true, NO_KVM),
    (&["-enable-kvm"], false, NO_KVM),
    (&["-it", "-ti", "-i", "-t", "--interactive", "--tty"], false, NO_NEED),
    (&["-rm"], false, Here::Say("it is --rm here, for what a machine of an image writes")),
    (&["-daemonize"], false, Here::Say("a machine in the background is --detach")),
    (&["-name"], true, Here::Option("--name")),
    (&["--hostname"], true, Here::Say("a guest names itself: -- hostname NAME; leave it out")),
    (&["-e", "--env"], true, Here::Say("set it in the command: -- env NAME=VALUE COMMAND")),
    (&["-w", "--workdir"], true, Here::Say("go there in the command: -- sh -c 'cd DIR && …'")),
    (&["-u", "--user"], true, Here::Say("a command runs as root; -- su USER -c COMMAND")),
    (&["--entrypoint"], true, Here::Say("the command follows two dashes: -- COMMAND")),
    (&["--privileged"], false, NO_NEED),
    (&["-bios", "-pflash"], true, Here::Say("there is no firmware; boot a kernel: --kernel FILE")),
    (&["-snapshot"], false, Here::Say("a disk is written to; --disk FILE,ro keeps it as it is")),
    (&["-s", "-S", "-gdb"], false, Here::Say("there is no debugger's port; see --trace")),
];

/// QEMU counts memory without a unit in mebibytes.
fn with_unit(size: &str) -> String {
    let plain = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
    if plain { format!("{size}M") } else { size.to_uppercase() }
}

/// The number of QEMU's `4,sockets=1` and `cpus=4`; docker also takes parts of a processor.
fn processors(options: &str) -> String {
    let words = || options.split(',');
    let named = words().find_map(|word| word.strip_prefix("cpus="));
    let number = named.or_else(|| words().find(|word| !word.contains('='))).unwrap_or("N");
    number.parse::<f64>().map_or("N".into(), |n| format!("{}", n.ceil().max(1.0)))
}

/// The file of QEMU's `file=a.img,if=virtio`, and whether it is only read.
fn drive(options: &str) -> String {
    let file = options.split(',').find_map(|option| option.strip_prefix("file="));
    let read_only = options.contains("readonly=on") || options.contains("media=cdrom");
    format!("{}{}", file.unwrap_or("FILE"), if read_only { ",ro" } else { "" })
}

/// What the refused `arguments`, of which the first is the program, want to say.
pub(crate) fn hint(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    // -hda is taken for -h, which is asking for help.
    let mut words = arguments.iter().take_while(|word| *word != "--");
    let like_help = words.any(|word| word.as_bytes().starts_with(b"-h") && word.len() > 2);
    if error.use_stderr() || like_help { reflex(arguments) } else { None }
}

fn reflex(arguments: &[OsString]) -> Option<String> {
    let words = arguments.get(1..)?;
    let verb = words.first()?.to_str()?;
    if let Some(hint) = instead_of_a_verb(verb, words) {
        return Some(hint);
    }
    if verb != "run" && !verb.starts_with('-') {
        return None;
    }
    let mut given = None;
    let mut at = usize::from(verb == "run");
    while let Some(word) = words.get(at).filter(|word| *word != "--") {
        let text = word.to_string_lossy();
        if !text.starts_with('-') {
            match given {
                None => given = Some(word),
                Some(guest) => return Some(after_the_guest(guest, words, at)),
            }
            at += 1;
            continue;
        }
        if let Some(hint) = by_habit(&text, words.get(at + 1)) {
            return Some(hint);
        }
        at += 1 + usize::from(takes_the_next(&text)?);
    }
    // Nothing else is wrong than that `run` is missing.
    (verb != "run").then(|| {
        let words = ["gemello", "run"].map(OsString::from).into_iter().chain(words.to_vec());
        format!("the options of a machine follow run: {}", shell::command(words))
    })
}

/// `gemello debian`, `gemello vmlinuz`, `gemello pull debian`.
fn instead_of_a_verb(verb: &str, words: &[OsString]) -> Option<String> {
    let command = |start: &[&str], rest: &[OsString]| {
        let start = start.iter().map(OsString::from);
        shell::command(["gemello".into()].into_iter().chain(start).chain(rest.to_vec()))
    };
    let rest = words.get(1..).unwrap_or_default();
    match verb {
        "debian" | "busybox" => Some(format!("to boot it: {}", command(&["run"], words))),
        "nucleus" => Some(format!("to boot it: {}", command(&["run", "--nucleus"], rest))),
        "pull" => Some(format!("to fetch a guest: {}", command(&["fetch"], &as_image(rest)))),
        "start" | "boot" | "create" if !rest.is_empty() => {
            Some(format!("to boot a guest: {}", command(&["run"], rest)))
        }
        "ls" => Some("for what runs: gemello ps".into()),
        "kill" => {
            Some(format!("to end a machine at once: {}", command(&["stop", "--force"], rest)))
        }
        "attach" => Some(format!("for a machine's console: {}", command(&["console"], rest))),
        "unpause" => Some(format!("to have it go on: {}", command(&["resume"], rest))),
        "version" | "-v" | "-version" => Some("for the version: gemello --version".into()),
        _ if Path::new(verb).is_file() => {
            Some(format!("to boot this file: {}", command(&["run"], words)))
        }
        _ => None,
    }
}

/// `rest` of docker's command line, of which the first word is an image.
fn as_image(rest: &[OsString]) -> Vec<OsString> {
    let mut words = rest.to_vec();
    if let Some(first) = words.first_mut() {
        let image = format!("docker://{}", first.to_string_lossy());
        if *first != "debian" && oci::Name::parse(&image).is_ok() {
            *first = image.into();
        }
    }
    words
}

/// A second word without a dash: docker's command, or a kernel's parameter.
fn after_the_guest(guest: &OsStr, words: &[OsString], at: usize) -> String {
    let (before, after) = words.split_at(at);
    let is_image = ImageName::of_word(guest).is_some();
    if guest == "debian" || guest == "busybox" || is_image {
        let after: Vec<_> = after.iter().filter(|word| *word != "--").cloned().collect();
        let all = [&["gemello".into()], before, &["--".into()], &after].concat();
        return format!("a command follows two dashes: {}", shell::command(all));
    }
    let line: Vec<_> = after.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = OsString::from(line.join(" "));
    format!("the kernel's parameters are one argument: --cmdline {}", shell::shown(&line))
}

/// What `word`, with its value in it or after it, is here.
fn by_habit(word: &str, next: Option<&OsString>) -> Option<String> {
    let (name, inside) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        // -m1G, -p80:80
        None if is_short_with_value(word) => (&word[..2], Some(word[2..].to_owned())),
        None => (word, None),
    };
    let (_, has_value, here) = REFLEXES.iter().find(|(names, ..)| names.contains(&name))?;
    let after = next.map(|next| next.to_string_lossy().into_owned());
    let after = after.filter(|next| !next.starts_with('-'));
    let typed = match (&inside, &after) {
        (None, Some(value)) if *has_value => format!("{word} {value}"),
        _ => word.to_owned(),
    };
    let value = inside.or(after).filter(|_| *has_value);
    let renamed = |option: &str, value: Option<String>| {
        let value = value.map_or("…".into(), |value| shell::shown(value.as_ref()));
        format!("it is {option} {value} here")
    };
    let say = match here {
        Here::Option(option) => renamed(option, value),
        Here::With(option, change) => renamed(option, value.map(|value| change(&value))),
        Here::Say(words) => (*words).to_owned(),
    };
    Some(format!("no option is called {typed}: {say}"))
}

fn is_short_with_value(word: &str) -> bool {
    let mut bytes = word.bytes().skip(1);
    let letter = bytes.next().is_some_and(|byte| b"mpcv".contains(&byte));
    letter && bytes.next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'/')
}

/// Whether the option `word` of `run` has its value in the next word; `None` if there is no such
/// option.
fn takes_the_next(word: &str) -> Option<bool> {
    let command = Cli::command();
    let run = command.find_subcommand("run")?;
    let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
    let long = name.strip_prefix("--")?;
    let option = run.get_arguments().find(|option| option.get_long() == Some(long))?;
    Some(value.is_none() && option.get_action().takes_values())
}

/// What is wrong with `what`, which is to be booted and is no file.
pub(crate) fn no_such_guest(what: &OsStr) -> Option<String> {
    let text = what.to_str().filter(|text| !text.contains('/'))?;
    if Path::new(what).exists() {
        return None;
    }
    let shown = shell::shown(what);
    let word = text.split([':', '-', '@']).next().unwrap_or(text).to_lowercase();
    if text == "nucleus" {
        return Some("the nucleus is an option: gemello run --nucleus".into());
    }
    if word == "debian" && text.len() > word.len() {
        return Some(format!(
            "no guest is called {shown}; --release chooses bookworm, trixie or sid of: gemello run \
             debian"
        ));
    }
    let guests = crate::fetch::arguments::Guest::value_variants()
        .iter()
        .filter_map(ValueEnum::to_possible_value);
    let near = guests.map(|guest| guest.get_name().to_owned()).find(|g| distance(g, &word) <= 2);
    Some(match near {
        Some(guest) => {
            format!("no guest or file is called {shown}; did you mean: gemello run {guest}")
        }
        None => {
            let image = oci::Name::parse(&format!("docker://{text}"))
                .map_or(String::new(), |image| {
                    format!("; a registry's image is: gemello run {image}")
                });
            format!(
                "no file is called {shown}, and what can be fetched is busybox and a whole \
                 Debian: gemello run debian{image}"
            )
        }
    })
}

/// How many letters to insert, remove, change or swap with their neighbour (Damerau and
/// Levenshtein's distance, each place edited once).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn hint(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = Cli::try_parse_from(&words).expect_err("refused");
        super::hint(&error, &words).unwrap_or_default()
    }

    #[test]
    fn habits_are_answered_with_what_they_are_here() {
        let cases = [
            ("gemello debian", "gemello run debian"),
            ("gemello nucleus", "gemello run --nucleus"),
            ("gemello pull debian", "gemello fetch debian"),
            ("gemello ls", "gemello ps"),
            ("gemello kill web", "gemello stop --force web"),
            ("gemello attach web", "gemello console web"),
            ("gemello -v", "gemello --version"),
            ("gemello --kernel a --memory 1G", "gemello run --kernel a --memory 1G"),
            ("gemello run debian uname -a", "gemello run debian -- uname -a"),
            ("gemello run --memory 1G debian ls /", "gemello run --memory 1G debian -- ls /"),
            ("gemello run vmlinuz root=/dev/vda rw", "--cmdline 'root=/dev/vda rw'"),
            ("gemello run -m 1G debian", "-m 1G: it is --memory 1G"),
            ("gemello run debian -m 1024", "it is --memory 1024M"),
            ("gemello run debian -m1g", "it is --memory 1G"),
            ("gemello run debian -smp 2", "-smp 2: it is --vcpus 2"),
            ("gemello run debian -smp cores=2,cpus=4", "it is --vcpus 4"),
            ("gemello run debian --cpus=1.5", "it is --vcpus 2"),
            ("gemello run debian -c 8", "it is --vcpus 8"),
            ("gemello run debian -net user", "--net user"),
            ("gemello run debian --expose 80", "--expose 80: a network is --net user"),
            ("gemello run debian -v /a:/b", "--share DIR"),
            ("gemello run debian -hda a.img", "it is --disk a.img"),
            ("gemello -drive if=virtio,file=a.img,readonly=on", "it is --disk a.img,ro"),
            ("gemello run debian -nographic", "on this terminal"),
            ("gemello -kernel bzImage -append quiet", "it is --kernel bzImage"),
            ("gemello run debian -it", "leave it out"),
            ("gemello run debian -enable-kvm", "without KVM"),
            ("gemello run debian -rm -- ls", "it is --rm"),
            ("gemello run oci:a.tar --rm ls", "gemello run oci:a.tar --rm -- ls"),
            ("gemello run docker://a.b/c ls", "gemello run docker://a.b/c -- ls"),
            ("gemello pull alpine:3", "gemello fetch docker://alpine:3"),
            ("gemello run debian --cmdline -v -e A=1", "-e A=1: set it in the command"),
        ];
        for (line, piece) in cases {
            let hint = hint(line);
            assert!(hint.contains(piece), "{line}: {hint}");
        }
    }

    /// Others' mistakes are left to the parser's own words.
    #[test]
    fn what_is_no_habit_has_no_hint() {
        let help = "gemello run debian --help";
        for line in ["gemello frob", "gemello run debian --frob", "gemello bench -x", help] {
            assert_eq!(hint(line), "", "{line}");
        }
    }

    /// An option that there is would never be answered.
    #[test]
    fn no_habit_is_an_option_of_ours() {
        for name in REFLEXES.iter().flat_map(|(names, ..)| *names) {
            assert_eq!(takes_the_next(name), None, "{name}");
        }
    }

    #[test]
    fn a_guest_with_a_slip_is_recognized() {
        for slip in ["debain", "debia", "Debian", "debiann", "dbeian"] {
            let hint = no_such_guest(slip.as_ref()).expect("a hint");
            assert!(hint.ends_with("did you mean: gemello run debian"), "{hint}");
        }
        for other in ["ubuntu", "alpine", "debian:12", "vmlinuz"] {
            let hint = no_such_guest(other.as_ref()).expect("a hint");
            assert!(hint.contains(": gemello run debian") && !hint.contains("mean"), "{hint}");
        }
        assert_eq!(no_such_guest("./debain".as_ref()), None);
        assert_eq!(distance("debian", "debain"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
