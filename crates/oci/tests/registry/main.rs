//! Images come whole from a registry, however it behaves, or are refused with what is wrong.

#[path = "../builder/mod.rs"]
#[allow(dead_code)] // what the other tests call
mod builder;
#[path = "../builder/registry.rs"]
mod server;

use builder::{Archive, Files, Packing, layout};
use oci::{Digest, Found, Image, Name, Patience, RegistryError, Remote};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use server::{Registry, Reply, Request, ordinary};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A folder of this test's.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gemello-registry-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// The files of blobs in it, whole or not.
    fn blobs(&self, whole: bool) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("blobs/sha256")).into_iter().flatten();
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_none() == whole).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes that do not compress: this many.
const NOISE: usize = 300_000;

fn image() -> Files {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let noise: Vec<_> = (0..NOISE).map(|_| noise()).collect();
    let lower = Archive::new().file("noise", 0o644, (0, 0), &noise).end();
    let upper = Archive::new().file("a", 0o644, (5, 6), b"a").end();
    layout(&[(lower, Packing::Gzip), (upper, Packing::Zstd)], &json!({ "User": "web" }))
}

fn brief() -> Patience {
    let pause = Duration::from_millis(1);
    Patience { idle: Duration::from_millis(300), tries: 4, pause, longest: Duration::from_secs(2) }
}

fn remote(registry: &Registry, rest: &str) -> Remote {
    let name = Name::parse(&format!("docker://{}/{rest}", registry.place)).expect("a name");
    let location = name.locate(None).expect("it says where");
    Remote::new(location, brief()).expect("loopback needs no certificates")
}

fn brought(registry: &Registry, store: &Path) -> Result<Found, RegistryError> {
    let mut remote = remote(registry, "test/image");
    let found = remote.find(store)?;
    remote.layers(&found, store, &mut |_| ())?;
    Ok(found)
}

/// That the image of `found` is in `store`, whole.
fn check(store: &Path, found: &Found) {
    let image = Image::pulled(store, found.manifest).expect("an image");
    let spool = File::from(memfd_create("spool", MemfdFlags::CLOEXEC).expect("memory"));
    for layer in image.layers() {
        image.unpack(layer, &spool).expect("sound");
    }
    assert_eq!(image.digest(), found.image);
    assert_eq!((image.config().user.as_str(), image.layers().len()), ("web", 2));
}

/// Why nothing comes of a registry that answers so; and that nothing half-made is in use.
fn refusal(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> String {
    let (scratch, registry) = (Scratch::new(), Registry::serve(answer));
    let began = Instant::now();
    let why = brought(&registry, &scratch.0).map(drop).expect_err("refused").to_string();
    assert!(began.elapsed() < Duration::from_secs(20), "{why}: {:?}", began.elapsed());
    for blob in scratch.blobs(true) {
        let digits = Digest::of(&fs::read(&blob).expect("it is there")).hex();
        assert_eq!(blob.file_name().and_then(|name| name.to_str()), Some(&*digits), "{why}");
    }
    why
}

fn is_blob(request: &Request) -> bool {
    request.path.contains("/blobs/")
}

/// Whether `request` is for the largest of `files`.
fn is_largest(files: &Files, request: &Request) -> bool {
    let name = files.largest_blob();
    request.path.contains(name.rsplit('/').next().expect("a name"))
}

#[test]
fn an_image_comes_whole() {
    let (scratch, files) = (Scratch::new(), image());
    let index = Digest::of(&files.0["index.json"]);
    let folder = scratch.0.join("layout");
    files.write_folder(&folder);
    let registry = Registry::serve(move |request| ordinary(&files, request));
    let store = scratch.0.join("store");
    let found = brought(&registry, &store).expect("it comes");
    check(&store, &found);
    assert_eq!(found.named, index);
    assert_eq!(found.image, Image::open(&folder, None).expect("an image").digest());
    let current = remote(&registry, "test/image").current();
    assert_eq!(current.expect("it answers"), Some(index));
    // By the digest of the index, and by that of the manifest.
    for digest in [index, found.manifest] {
        let mut remote = remote(&registry, &format!("test/image:none@{digest}"));
        assert_eq!(remote.find(&store).expect("it is there").image, found.image);
    }
    found.discard(&store);
    assert!(Image::pulled(&store, found.manifest).is_err());
    assert_eq!(fs::read_dir(store.join("blobs/sha256")).expect("a folder").count(), 0);
}

#[test]
fn a_token_is_asked_for_and_goes_nowhere_else() {
    let (scratch, files) = (Scratch::new(), image());
    let elsewhere = {
        let files = files.clone();
        Registry::serve(move |request| ordinary(&files, request))
    };
    let other = elsewhere.place;
    let registry = Registry::serve(move |request| {
        let place = &request.fields["host"];
        if let Some(query) = request.path.strip_prefix("/token?") {
            let asked = query.contains("service=me%2Fus") || query.contains("service=me/us");
            let scope = query.contains("repository:test/image:pull")
                || query.contains("repository%3Atest%2Fimage%3Apull");
            assert!(asked && scope, "{query}");
            return Reply::of(200).body(r#"{"access_token":"t0k.en","expires_in":60}"#);
        }
        if request.fields.get("authorization").is_none_or(|it| it != "Bearer t0k.en") {
            let challenge = format!("Bearer realm=\"http://{place}/token\",service=\"me/us\"");
            return Reply::of(401).with("WWW-Authenticate", &challenge);
        }
        if is_blob(request) {
            let there = format!("http://{other}{}", request.path);
            return Reply::of(307).with("Location", &there);
        }
        ordinary(&files, request)
    });
    let found = brought(&registry, &scratch.0).expect("it comes");
    check(&scratch.0, &found);
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 3, "a configuration and two layers");
    assert!(asked.iter().all(|request| !request.fields.contains_key("authorization")));
    let tokens = registry.asked().iter().filter(|it| it.path.starts_with("/token")).count();
    assert_eq!(tokens, 1);
}

/// A blob comes in pieces, each from where the last one ended.
#[test]
fn what_is_cut_goes_on() {
    let (scratch, files) = (Scratch::new(), image());
    let registry = Registry::serve(move |request| {
        let cut = is_largest(&files, request).then_some(NOISE / 3);
        Reply { cut, ..ordinary(&files, request) }
    });
    let found = brought(&registry, &scratch.0).expect("it comes");
    check(&scratch.0, &found);
    let ranges = registry.asked().iter().filter_map(|it| it.fields.get("range").cloned()).count();
    assert!(ranges >= 2, "{ranges}");
    assert_eq!(scratch.blobs(false), Vec::<PathBuf>::new());
}

/// Another run goes on with what one has left; what was damaged meanwhile is fetched anew, and so
/// is all of it where the registry knows no ranges.
#[test]
fn what_an_earlier_run_has_left_is_used_if_it_is_sound() {
    let files = image();
    let largest = files.largest_blob();
    let content = files.0[&largest].clone();
    for (n, left) in
        [&content[..100_000], &[7; 100_000], &content[..], &[7; 900_000]].into_iter().enumerate()
    {
        for ranges in [true, false] {
            let scratch = Scratch::new();
            let path = scratch.0.join(&largest).with_extension("partial");
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, left).expect("a file");
            let files = files.clone();
            let registry = Registry::serve(move |request| {
                let mut request = request.clone();
                if !ranges {
                    request.fields.remove("range");
                }
                ordinary(&files, &request)
            });
            let found = brought(&registry, &scratch.0).expect("it comes");
            check(&scratch.0, &found);
            let asked = registry.asked();
            let whole = asked.iter().filter(|it| it.path.contains(&largest[13..]));
            let whole = whole.filter(|it| !it.fields.contains_key("range")).count();
            assert_eq!(whole, usize::from(n == 3 || n == 1 && ranges), "{n} {ranges}");
        }
    }
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    for (status, after) in [(429, Some("0")), (429, Some("1")), (503, None), (500, None)] {
        let (scratch, files, count) = (Scratch::new(), image(), AtomicUsize::new(0));
        let registry = Registry::serve(move |request| {
            if is_blob(request) && count.fetch_add(1, Ordering::SeqCst) < 2 {
                let reply = Reply::of(status);
                return after.into_iter().fold(reply, |it, after| it.with("Retry-After", after));
            }
            ordinary(&files, request)
        });
        let found = brought(&registry, &scratch.0).expect("it comes");
        check(&scratch.0, &found);
    }
}

#[test]
fn a_registry_that_stays_busy_is_left() {
    let why = refusal(|_| Reply::of(429).with("Retry-After", "3600"));
    assert!(why.contains("too many requests") && why.contains("3600 s"), "{why}");
    let why = refusal(|_| Reply::of(502));
    assert!(why.contains("502"), "{why}");
}

#[test]
fn what_is_not_there_or_not_allowed_is_said() {
    let files = image();
    let why = refusal(move |request| {
        let mut request = request.clone();
        request.path = request.path.replace("latest", "other");
        ordinary(&files, &request)
    });
    assert!(why.contains("no such image: not here") && why.contains("test/image:latest"), "{why}");
    let hostile = r#"{"errors":[{"message":"\u001b[2J\u0007gone"}]}"#;
    let why = refusal(move |_| Reply::of(403).body(hostile));
    assert!(why.contains("docker login") && why.contains("gone"), "{why}");
    assert!(!why.contains(char::is_control), "{why:?}");
    let why = refusal(|_| Reply::of(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    assert!(why.contains("docker login 127.0.0.1:"), "{why}");
}

/// The largest blob is something else.
#[test]
fn a_blob_that_is_not_what_it_should_be_is_refused() {
    type Change = fn(&mut Reply);
    let changes: [(Change, &str); 5] = [
        (|it| it.body[1000] ^= 1, "damaged"),
        (|it| it.body.push(0), "longer than"),
        (|it| it.body.truncate(1000), "the connection was cut"),
        (|it| it.endless = true, "longer than"),
        (|it| (it.cut, it.silence) = (Some(10), Duration::from_secs(3)), "the connection was cut"),
    ];
    for (change, expected) in changes {
        let files = image();
        let why = refusal(move |request| {
            let mut request = request.clone();
            if expected != "damaged" {
                request.fields.remove("range");
            }
            let mut reply = ordinary(&files, &request);
            if is_largest(&files, &request) {
                change(&mut reply);
            }
            reply
        });
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

/// Sizes, digests and platforms that a manifest may not have; documents that are none.
#[test]
fn a_manifest_that_leads_nowhere_is_refused() {
    let zero = Digest::of(b"");
    let huge = json!({ "digest": zero, "size": 1_u64 << 40 });
    let small = json!({ "digest": zero, "size": 0 });
    let platform = json!({ "architecture": "arm64", "os": "linux" });
    let arm = json!({ "digest": zero, "size": 5, "platform": platform });
    let cases = [
        (json!({ "config": small, "layers": [huge] }).to_string(), "too large"),
        (json!({ "config": huge, "layers": [] }).to_string(), "too large"),
        (json!({ "manifests": [arm] }).to_string(), "it is for linux/arm64"),
        (json!({ "manifests": [small] }).to_string(), "not what its digest says"),
        (json!({ "config": { "digest": "sha256:../../x", "size": 1 } }).to_string(), "digest"),
        ("{}".to_owned(), "no index of images"),
        ("<html>".to_owned(), "no manifest"),
        ("[".repeat(100_000), "no manifest"),
        (" ".repeat(5 << 20), "larger than 4 MiB"),
    ];
    for (text, expected) in cases {
        let why = refusal(move |_| Reply::of(200).body(text.as_str()));
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

/// Answers that are hardly any: whatever comes, there is an end and no panic.
#[test]
fn answers_that_are_none_are_refused() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let raws: [&[u8]; 9] = [
        b"",
        b"\0\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"HTTP/1.1 307 X\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 X\r\nLocation: /v2/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm=\"\r\nContent-Length: 0\r\n\r\n",
        long.as_bytes(),
    ];
    for raw in raws {
        let raw = raw.to_vec();
        let why = refusal(move |_| Reply { raw: Some(raw.clone()), ..Reply::default() });
        assert!(why.starts_with("cannot fetch docker://127.0.0.1:"), "{why}");
    }
}

/// From loopback to where TLS is spoken: somebody that this host does not know is not trusted.
#[test]
fn a_redirect_to_a_stranger_is_refused() {
    let stranger = Registry::serve(|_| Reply::of(200));
    let there = format!("https://{}/", stranger.place);
    let why = refusal(move |_| Reply::of(307).with("Location", &there));
    assert!(why.starts_with("cannot fetch") && stranger.asked().is_empty(), "{why}");
}
