//! Device files of drivers that are not loaded: who opens one has the kernel load its driver.
//! depmod lists them beside the modules, as modules.devname: `fuse fuse c10:229`.

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::system::uname;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Those that every user may open, as udev has it.
const OPEN: [&str; 3] = ["fuse", "net/tun", "vfio/vfio"];

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Node<'a> {
    name: &'a str,
    kind: FileType,
    major: u32,
    minor: u32,
}

/// Makes those of the kernel that runs, as far as the root has its modules.
pub(crate) fn make() {
    let release = uname().release().to_string_lossy().into_owned();
    let list = Path::new("/lib/modules").join(release).join("modules.devname");
    for node in fs::read_to_string(list).unwrap_or_default().lines().filter_map(parse) {
        let path = Path::new("/dev").join(node.name);
        let mode = if OPEN.contains(&node.name) { 0o666 } else { 0o600 };
        let _ = path.parent().map(fs::create_dir_all);
        let device = makedev(node.major, node.minor);
        if mknodat(CWD, &path, node.kind, Mode::from_raw_mode(mode), device).is_ok() {
            let _ = fs::set_permissions(&path, Permissions::from_mode(mode)); // whatever the umask
        }
    }
}

fn parse(line: &str) -> Option<Node<'_>> {
    let mut words = line.split_whitespace();
    let (module, name, numbers) = (words.next()?, words.next()?, words.next()?);
    if module.starts_with('#') || name.split('/').any(|part| part == "..") {
        return None;
    }
    let kind = match numbers.get(..1)? {
        "c" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        _ => return None,
    };
    let (major, minor) = numbers.get(1..)?.split_once(':')?;
    Some(Node { name, kind, major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_device() {
        let node = |name, kind, major, minor| Some(Node { name, kind, major, minor });
        let (character, block) = (FileType::CharacterDevice, FileType::BlockDevice);
        for (line, expected) in [
            ("fuse fuse c10:229", node("fuse", character, 10, 229)),
            ("tun net/tun c10:200", node("net/tun", character, 10, 200)),
            ("x x b7:0", node("x", block, 7, 0)),
            ("# Device nodes to trigger on-demand module loading.", None),
            ("x ../x c1:1", None),
            ("x x 1:1", None),
            ("x x", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
