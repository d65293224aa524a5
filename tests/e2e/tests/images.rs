//! `gemello run oci:…` and `docker://…`: images that the tests make, with busybox in them, become
//! machines.

use crate::builder::{Archive, Files, Packing, layout, saved};
use crate::registry::{Registry, Reply, Request, ordinary};
use e2e::{House, cache, code, command, debian, own_cache, scratch, text, until};
use rustix::fs::{SeekFrom, seek};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A cache of a test's own, in which Debian is the one that all share.
struct Place {
    cache: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self { cache: own_cache() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("XDG_CACHE_HOME", &self.cache);
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("gemello starts")
    }

    /// What it says of images and machines.
    fn listed(&self) -> Value {
        let output = self.output(&["images", "--json"]);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The files that images and machines take.
    fn files(&self) -> Vec<PathBuf> {
        let folders = ["images", "machines"].map(|name| self.cache.join("gemello").join(name));
        let entries = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| !path.ends_with("lock")).collect()
    }
}

/// busybox as an image's content, and something to find in each layer.
fn layers() -> Vec<(Vec<u8>, Packing)> {
    let busybox = fs::read(cache().join("cloud/busybox")).expect("Debian is in the cache");
    let lower = Archive::new()
        .folder("bin", 0o755, (0, 0))
        .file("bin/busybox", 0o755, (0, 0), &busybox)
        .symlink("bin/sh", "busybox")
        .folder("etc", 0o755, (0, 0))
        .file(
            "etc/passwd",
            0o644,
            (0, 0),
            b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n",
        )
        .file("etc/group", 0o644, (0, 0), b"root:x:0:\nweb:x:34:\nlogs:x:50:web\n")
        .file("etc/secret", 0o640, (0, 42), b"s")
        .file("gone", 0o644, (0, 0), b"")
        .folder("srv", 0o750, (33, 34));
    let upper = Archive::new().file(".wh.gone", 0o644, (0, 0), b"").file(
        "etc/hello",
        0o644,
        (0, 0),
        b"from the upper layer\n",
    );
    vec![(lower.end(), Packing::Gzip), (upper.end(), Packing::Zstd)]
}

fn config(user: &str, script: &str) -> Value {
    json!({
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": [script], "User": user, "WorkingDir": "/srv",
        "Env": ["PATH=/bin", "GREETING=a b 'c'"],
    })
}

const TELL: &str = "busybox id -u; busybox id -G; pwd; echo \"$GREETING $HOME\"; \
    busybox cat /etc/hello; test -e /gone || echo hidden; \
    busybox stat -c '%u:%g %a' /etc/secret /srv; echo wrong >&2; exit 7";

/// The image's stop signal reaches its command, which ends the machine with its own status.
#[test]
fn an_images_stop_signal_is_sent() {
    let _turn = debian("cloud");
    let (place, mut house) = (Place::new(), House::new("stop-signal"));
    let folder = scratch("beside", b"").with_file_name("image");
    let script = "trap 'echo heard; exit 5' USR1; echo ready; while :; do busybox sleep 0.1; done";
    let mut config = config("", script);
    config["StopSignal"] = json!("SIGUSR1");
    layout(&layers(), &config).write_folder(&folder);
    let image = format!("oci:{}", folder.display());
    for by_signal in [false, true] {
        let mut command = house.command(&["run", &image, "--name", "asked", "--rm"]);
        command.env("XDG_CACHE_HOME", &place.cache).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("gemello starts");
        let output = child.stdout.take().expect("piped");
        house.children.push(child);
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        if by_signal {
            let pid = Pid::from_child(house.children.last().expect("started"));
            rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        } else {
            house.told(&["stop", "asked"]);
        }
        assert_eq!((lines.next().as_deref(), house.end()), (Some("heard"), 5));
    }
}

#[test]
fn an_image_runs_as_it_says() {
    let _turn = debian("cloud");
    let place = Place::new();
    let folder = scratch("beside", b"").with_file_name("image");
    layout(&layers(), &config("web", TELL)).write_folder(&folder);
    let image = format!("oci:{}", folder.display());
    let output = place.output(&["run", &image, "--timeout", "4m"]);
    let said = text(&output.stdout);
    assert_eq!(code(&output), 7, "{said}{}", text(&output.stderr));
    let expected =
        "33\n34 50\n/srv\na b 'c' /srv\nfrom the upper layer\nhidden\n0:42 640\n33:34 750\n";
    assert_eq!(said, expected);
    assert!(text(&output.stderr).ends_with("wrong\n"), "{}", text(&output.stderr));
    assert_eq!(place.files().len(), 1, "the image alone is left: {:?}", place.files());
}

#[test]
fn what_a_machine_writes_is_kept_by_its_name_alone() {
    let _turn = debian("cloud");
    let place = Place::new();
    let archive = scratch("beside", b"").with_file_name("saved.tar");
    saved(&layers(), &config("", "true")).write_archive(&archive);
    let (image, name) =
        (format!("oci:{}", archive.display()), format!("kept-{}", std::process::id()));
    let run = |options: &[&str], script: &str| {
        let mut words = vec!["run", &image, "--timeout", "4m"];
        words.extend(options);
        words.extend(["--", script]);
        let output = place.output(&words);
        assert_eq!(code(&output), 0, "{script}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let named = ["--name", name.as_str()];
    run(&named, "echo kept >/srv/x; busybox touch /srv/.y");
    let root = place.listed()["images"][0]["digest"].as_str().expect("a digest").to_owned();
    let root = place.cache.join("gemello/images").join(root).join("root.ext4");
    let before = content(&root);
    assert_eq!(run(&["--rm"], "test -e /srv/x || echo no"), "no\n");
    assert_eq!(run(&named, "busybox cat /srv/x; busybox ls -A /srv"), "kept\n.y\nx\n");
    assert!(content(&root) == before, "the root was written");
    checked(&place, &name, &root);

    let listed = place.listed();
    assert_eq!(listed["machines"][0]["name"], name.as_str());
    assert_eq!(listed["machines"][0]["image"], listed["images"][0]["digest"]);
    let refused = place.output(&["rm", &image]);
    assert!(code(&refused) == 2 && text(&refused.stderr).contains(&name), "{refused:?}");
    assert_eq!(code(&place.output(&["prune"])), 0);
    assert_eq!(place.files().len(), 2, "what is needed stays");
    assert_eq!(code(&place.output(&["rm", &name])), 0);
    assert_eq!(code(&place.output(&["prune"])), 0);
    assert_eq!(place.files(), Vec::<PathBuf>::new());
}

/// What is in a file, its holes apart.
fn content(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = File::open(path).expect("it is there");
    let (mut pieces, mut at) = (Vec::new(), 0);
    while let Ok(begin) = seek(&file, SeekFrom::Data(at)) {
        let end = seek(&file, SeekFrom::Hole(begin)).expect("an end");
        let mut piece = vec![0; (end - begin) as usize];
        file.read_exact_at(&mut piece, begin).expect("it is there");
        pieces.push((begin, piece));
        at = end;
    }
    pieces
}

/// The file system that the machine `name` has left is in order, where the host's tools can tell.
fn checked(place: &Place, name: &str, root: &Path) {
    let overlay = place.cache.join(format!("gemello/machines/{name}.qcow2"));
    let raw = root.with_file_name("left.raw");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-U", "-O", "raw"]).arg(&overlay).arg(&raw);
    if !convert.output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI has qemu-img");
        return;
    }
    let output = Command::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(&raw).output();
    fs::remove_file(&raw).expect("it was made");
    let Ok(output) = output else { return };
    assert!(output.status.success(), "{}", text(&output.stdout));
}

#[test]
fn a_damaged_image_is_refused_and_nothing_is_left_of_it() {
    let _turn = debian("cloud");
    let place = Place::new();
    let sound = layout(&layers(), &config("", "true"));
    let largest = sound.largest_blob();
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 2] = [
        (|blob| blob.truncate(1000), "has 1000 bytes and should have"),
        (|blob| *blob.last_mut().expect("a byte") ^= 1, "damaged"),
    ];
    for (n, (change, why)) in changes.iter().enumerate() {
        let mut files = sound.clone();
        change(files.0.get_mut(&largest).expect("a blob"));
        let folder = scratch("beside", b"").with_file_name(format!("damaged-{n}"));
        files.write_folder(&folder);
        let output = place.output(&["run", &format!("oci:{}", folder.display())]);
        let said = text(&output.stderr);
        assert_eq!(code(&output), 2, "{said}");
        assert!(said.contains(why) && said.contains(&largest), "{said}");
        assert_eq!(place.files(), Vec::<PathBuf>::new());
    }
}

/// Killed at random moments while it makes the root: what is left is never used, and the next run
/// goes on.
#[test]
fn a_root_that_was_not_finished_is_not_used() {
    let _turn = debian("cloud");
    let place = Place::new();
    let mut all = layers();
    let noise: Vec<u8> =
        (0..8_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let large = Archive::new().file("srv/large", 0o644, (0, 0), &noise).end();
    all.push((large, Packing::Plain));
    let folder = scratch("beside", b"").with_file_name("image");
    layout(&all, &config("", "busybox wc -c /srv/large")).write_folder(&folder);
    let image = format!("oci:{}", folder.display());
    for moment in [5, 40, 80, 120, 200] {
        let mut command = place.command(&["run", &image, "--timeout", "4m"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it");
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(moment) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        let whole = |path: &PathBuf| path.extension().is_none() && path.is_dir();
        for image in place.files().iter().filter(|path| whole(path)) {
            assert!(image.join("image.json").exists(), "{}", image.display());
        }
    }
    let output = place.output(&["run", &image, "--timeout", "4m"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), format!("{} /srv/large\n", noise.len()));
    assert_eq!(code(&place.output(&["prune"])), 0);
    assert_eq!(place.files(), Vec::<PathBuf>::new());
}

/// Its own command is a command as any other: no terminal, no input.
#[test]
fn a_background_has_no_terminal() {
    let _turn = debian("cloud");
    let (place, house) = (Place::new(), House::new("images"));
    let archive = scratch("beside", b"").with_file_name("background.tar");
    saved(&layers(), &config("", "busybox tty; busybox cat")).write_archive(&archive);
    let image = format!("oci:{}", archive.display());
    let mut run = house.command(&["run", "--detach", "--name", "background", &image]);
    let output = run.env("XDG_CACHE_HOME", &place.cache).output().expect("gemello starts");
    assert_eq!(
        (code(&output), &*text(&output.stdout)),
        (0, "background\n"),
        "{}",
        text(&output.stderr)
    );
    until("its end", || house.names().is_empty().then_some(()));
    assert_eq!(house.told(&["logs", "background"]), "not a tty\n");
}

/// What needs room in a machine is not lost on the way: a MiB of environment, names of 128 bytes,
/// arguments of any bytes.
#[test]
fn large_environments_and_odd_arguments_arrive() {
    let _turn = debian("cloud");
    let place = Place::new();
    let folder = scratch("beside", b"").with_file_name("image");
    let name = "N".repeat(128);
    let mut said = config("", "true");
    let mut environment = vec![format!("{name}=long"), "PATH=/bin".to_owned()];
    environment.extend((0..11).map(|n| format!("V{n}={}", "x".repeat(100_000))));
    said["Env"] = json!(environment);
    layout(&layers(), &said).write_folder(&folder);
    let odd: Vec<u8> = (1..=255).collect();
    let script = format!("printf %s \"$0\"; printf %s ${{#V0}} ${{#V10}} ${name}");
    let mut command =
        place.command(&["run", &format!("oci:{}", folder.display()), "--timeout", "4m", "--"]);
    let output = command.arg(script).arg(OsStr::from_bytes(&odd)).output().expect("it starts");
    let expected = [&odd[..], b"100000100000long"].concat();
    assert!(output.stdout == expected, "{}", text(&output.stderr));
}

/// A registry whose image can be replaced, or that is away without one. It asks for `me:secret`.
fn registry(files: &Arc<Mutex<Option<Files>>>) -> Registry {
    let files = Arc::clone(files);
    Registry::serve(move |request: &Request| {
        let files = files.lock().expect("no test has panicked in it").clone();
        let Some(files) = files else { return Reply { raw: Some(vec![]), ..Reply::default() } };
        if request.fields.get("authorization").is_some_and(|it| it == "Basic bWU6c2VjcmV0") {
            ordinary(&files, request)
        } else {
            Reply::of(401).with("WWW-Authenticate", "Basic realm=\"x\"")
        }
    })
}

impl Place {
    /// gemello, of a user who has logged in at `host`.
    fn logged_in(&self, host: &str, arguments: &[&str]) -> Command {
        let entry = json!({ "auths": { host: { "auth": "bWU6c2VjcmV0" } } });
        fs::write(self.cache.join("config.json"), entry.to_string()).expect("a file");
        let mut command = self.command(arguments);
        command.env("DOCKER_CONFIG", &self.cache);
        command
    }

    /// What was brought of images and is not in a root.
    fn blobs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache.join("gemello/pulled/blobs/sha256"));
        entries.into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
    }
}

fn done(command: &mut Command) -> Output {
    let output = command.output().expect("gemello starts");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("secret"), "{}", text(&output.stderr));
    output
}

#[test]
fn an_image_of_a_registry_runs_and_is_kept_up_to_date() {
    let _turn = debian("cloud");
    let place = Place::new();
    let first = layout(&layers(), &config("web", TELL));
    let files = Arc::new(Mutex::new(Some(first.clone())));
    let registry = registry(&files);
    let host = registry.place.to_string();
    let image = format!("docker://{host}/test/image");
    let run = ["run", &image, "--timeout", "4m", "--", "pwd; busybox id -u"];
    assert_eq!(text(&done(&mut place.logged_in(&host, &run)).stdout), "/srv\n33\n");
    assert_eq!((place.files().len(), place.blobs()), (1, vec![]));
    let asked = registry.asked().len();

    // By a name without a registry, and nothing is fetched twice.
    let mut again = place.logged_in(&host, &["fetch", "docker://test/image"]);
    done(again.env("GEMELLO_REGISTRY", &host));
    let methods: Vec<_> = registry.asked()[asked..].iter().map(|it| it.method.clone()).collect();
    assert_eq!(methods, ["HEAD", "HEAD"], "refused, and with a password");
    // An archive with the same configuration is the same image.
    let folder = scratch("beside", b"").with_file_name("same");
    first.write_folder(&folder);
    let same = format!("oci:{}", folder.display());
    assert_eq!(code(&place.output(&["run", &same, "--timeout", "4m"])), 7);
    assert_eq!(place.files().len(), 1);
    assert_eq!(place.listed()["images"][0]["name"], format!("{image}:latest"));

    // The tag means another image now; then the registry is away.
    let other = layout(&layers(), &config("", "busybox echo other"));
    *files.lock().expect("nobody has panicked") = Some(other);
    done(&mut place.logged_in(&host, &["fetch", &image]));
    assert_eq!(place.files().len(), 2);
    *files.lock().expect("nobody has panicked") = None;
    let output = done(&mut place.logged_in(&host, &["run", &image, "--timeout", "4m"]));
    assert_eq!(text(&output.stdout), "other\n");
    assert!(text(&output.stderr).contains("going on with the image that is here"));
    let refused = place.logged_in(&host, &["fetch", &image]).output().expect("it starts");
    assert!(code(&refused) == 2 && text(&refused.stderr).contains(&host), "{refused:?}");

    assert_eq!(code(&place.output(&["rm", &image])), 0);
    assert_eq!(code(&place.output(&["prune"])), 0);
    assert_eq!((place.files(), place.blobs()), (vec![], vec![]));
    let names = fs::read_dir(place.cache.join("gemello/pulled/names")).expect("a folder");
    assert_eq!(names.count(), 0);
}

/// An image of some MiB, whose largest layer comes in pieces.
fn in_pieces(place: &Place) -> (Registry, String) {
    let noise: Vec<u8> =
        (0..4_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let large = Archive::new().file("srv/large", 0o644, (0, 0), &noise).end();
    let mut all = layers();
    all.push((large, Packing::Plain));
    let files = layout(&all, &config("", "busybox wc -c /srv/large"));
    fs::create_dir_all(&place.cache).expect("a folder");
    let registry = Registry::serve(move |request| {
        let mut reply = ordinary(&files, request);
        if reply.body.len() > 1 << 20 {
            (reply.cut, reply.silence) = (Some(1 << 20), Duration::from_millis(30));
        }
        reply
    });
    let image = format!("docker://{}/test/image", registry.place);
    (registry, image)
}

/// Killed at ten moments, and started twice at once: what is left is never used half-made, and the
/// next run goes on.
#[test]
fn a_fetch_that_was_killed_goes_on() {
    let place = Place::new();
    let (registry, image) = in_pieces(&place);
    for moment in [3, 20, 40, 60, 80, 100, 130, 160, 200, 250] {
        let mut command = place.command(&["fetch", &image]);
        let mut child = command.stderr(Stdio::null()).spawn().expect("gemello starts");
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        for blob in place.blobs().iter().filter(|path| path.extension().is_none()) {
            let digits = oci::Digest::of(&fs::read(blob).expect("it is there")).hex();
            assert!(blob.ends_with(&digits), "{}", blob.display());
        }
        let whole = |path: &&PathBuf| path.extension().is_none() && path.is_dir();
        for image in place.files().iter().filter(whole) {
            assert!(image.join("image.json").exists(), "{}", image.display());
        }
    }
    let both = [0, 1].map(|_| place.command(&["fetch", &image]).spawn().expect("it starts"));
    for mut child in both {
        assert!(child.wait().expect("it is ours").success());
    }
    assert_eq!((place.files().len(), place.blobs()), (1, vec![]));
    assert!(registry.asked().iter().any(|it| it.fields.contains_key("range")));
    assert_eq!(code(&place.output(&["prune"])), 0);
    assert_eq!(place.files(), Vec::<PathBuf>::new());
}

/// No file may be larger than 2 MiB, as on a disk that is full.
#[test]
fn a_fetch_without_room_says_so_and_goes_on_later() {
    let place = Place::new();
    let (_registry, image) = in_pieces(&place);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 4096; exec \"$0\" \"$@\""]).arg(e2e::gemello());
    let command = command.args(["fetch", &image]).env("XDG_CACHE_HOME", &place.cache);
    let output = command.output().expect("it starts");
    let said = text(&output.stderr);
    assert!(code(&output) == 2 && said.contains("cannot write"), "{said}");
    assert_eq!(place.files(), Vec::<PathBuf>::new());
    assert!(!place.blobs().is_empty(), "what has come is kept");
    done(&mut place.command(&["fetch", &image]));
    assert_eq!((place.files().len(), place.blobs()), (1, vec![]));
}
