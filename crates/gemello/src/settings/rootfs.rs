//! `--rootfs` and `--rw`: folders of the host's that become the guest's root.

use machine::{Owner, Share, ShareCache, ShareOptions};
use std::fs;
use std::path::{Path, PathBuf};

/// What the root is called.
pub(crate) const ROOT: &str = "gemello.root";

/// What the writable folder number `n` is called.
pub(crate) fn tag(n: usize) -> String {
    format!("gemello.rw{n}")
}

/// What the machine shares for them. The root is taken to stay as it is: what is built upon it must
/// not see it change. What is written goes to the host at once, and is seen as the host changes it.
pub(super) fn shares(root: Option<&Path>, writable: &[PathBuf]) -> Vec<Share> {
    let Some(root) = root else { return Vec::new() };
    let share = |path: &Path, tag: String, read_only, cache| Share {
        path: path.to_owned(),
        tag,
        options: ShareOptions { read_only, owner: Owner::Keep, cache },
    };
    let root = share(root, ROOT.into(), true, ShareCache::Always);
    let writable =
        writable.iter().enumerate().map(|(n, path)| share(path, tag(n), false, ShareCache::Auto));
    std::iter::once(root).chain(writable).collect()
}

/// Where `path` of the host's is in a guest whose root is `root`; `None`: not in it.
pub(crate) fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let whole = |path: &Path| fs::canonicalize(path).ok();
    let rest = whole(path)?.strip_prefix(whole(root)?).ok()?.to_owned();
    Some(Path::new("/").join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_where_it_is_below_the_root() {
        let folder = std::env::temp_dir().join(format!("gemello-rootfs-{}", std::process::id()));
        let below = folder.join("a/b");
        fs::create_dir_all(&below).expect("a folder");
        let folder = fs::canonicalize(folder).expect("it is there");
        assert_eq!(inside(Path::new("/"), &below), Some(folder.join("a/b")));
        assert_eq!(inside(&folder, &below), Some("/a/b".into()));
        assert_eq!(inside(&folder, &folder), Some("/".into()));
        assert_eq!(inside(&below, &folder), None);
        assert_eq!(inside(&folder, &folder.join("none")), None);
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
