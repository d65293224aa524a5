//! Random layers against a model that knows nothing of trees: a list of paths.

use crate::support::{Layer, OnDisk, read};
use ext4_view::Ext4;
use std::collections::BTreeMap;
use test_support::Rng;

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
enum Thing {
    Folder,
    File(Vec<u8>),
}

type Model = BTreeMap<String, Thing>;

fn below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Some path of few names, so that layers meet.
fn path(random: &mut Rng) -> String {
    let depth = 1 + random.below(3);
    let parts: Vec<_> = (0..depth).map(|_| random.pick(&["a", "b", "c"])).collect();
    parts.join("/")
}

/// Whether a file is in the way to `path`.
fn blocked(model: &Model, path: &str) -> bool {
    model.iter().any(|(other, thing)| *thing != Thing::Folder && below(path, other))
}

fn make_parents(model: &mut Model, path: &str) {
    for (at, _) in path.match_indices('/') {
        model.insert(path[..at].to_owned(), Thing::Folder);
    }
}

/// A layer, and what it leaves of `model`: first what it hides, then what it has.
fn layer(random: &mut Rng, model: &mut Model) -> Layer {
    let (mut hidden, mut had) = (Vec::new(), Vec::new());
    for _ in 0..random.below(12) {
        let path = path(random);
        match random.below(6) {
            0 => hidden.push((path, false)),
            1 => hidden.push((path, true)),
            2 | 3 => had.push((path, Thing::Folder)),
            _ => had.push((path, Thing::File(random.next().to_le_bytes().to_vec()))),
        }
    }
    for (path, opaque) in &hidden {
        model.retain(|other, _| !(below(other, path) || !opaque && other == path));
    }
    let mut layer = Layer::default();
    for (path, thing) in had {
        if blocked(model, &path) {
            continue;
        }
        make_parents(model, &path);
        if matches!(thing, Thing::File(_)) {
            model.retain(|other, _| !below(other, &path));
        }
        layer = match &thing {
            Thing::Folder => layer.folder(&path),
            Thing::File(content) => layer.file(&path, content),
        };
        model.insert(path, thing);
    }
    // What a layer hides may stand anywhere in it; here at the beginning.
    let mut first = Layer::default();
    for (path, opaque) in hidden {
        let (parent, name) = path.rsplit_once('/').map_or(("", &*path), |(p, n)| (p, n));
        first = match opaque {
            true => first.file(&format!("{path}/.wh..wh..opq"), b""),
            false => first.file(format!("{parent}/.wh.{name}").trim_start_matches('/'), b""),
        };
    }
    first.followed_by(layer)
}

fn walk(image: &Ext4, folder: &str, found: &mut Model) {
    for name in crate::support::names(image, &format!("/{folder}")) {
        let path = format!("{folder}/{name}").trim_start_matches('/').to_owned();
        let full = format!("/{path}");
        if image.metadata(full.as_str()).expect("it is there").is_dir() {
            walk(image, &path, found);
            found.insert(path, Thing::Folder);
        } else {
            found.insert(path, Thing::File(image.read(full.as_str()).expect("a file")));
        }
    }
}

fn round(seed: u64, check: bool) {
    let mut random = Rng::new(seed);
    let mut model = Model::new();
    let layers: Vec<_> = (0..4).map(|_| layer(&mut random, &mut model)).collect();
    let mut found = Model::new();
    walk(&read(&layers), "", &mut found);
    assert_eq!(found, model, "seed {seed}");
    if check {
        assert_eq!(OnDisk::of(&layers).complaints().unwrap_or_default(), "", "seed {seed}");
    }
}

#[test]
fn layers_leave_what_the_model_does() {
    for seed in 0..60 {
        round(seed, seed % 30 == 0);
    }
}
