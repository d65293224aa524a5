//! Which files are opened: locks, formats, backing files.

use disk_image::tools::{self, New};
use disk_image::{Backing, DiskAccess, Image, ImageFormat, Storage};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A folder that goes away again.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gemello-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// A new image.
    fn make(&self, name: &str, format: ImageFormat, backing: Option<&Path>) -> Image {
        let path = self.0.join(name);
        let backing = backing.map(|path| (path.to_owned(), None));
        tools::create(&path, &New { format, bytes: Some(1 << 20), backing }).expect("made");
        Image::at(path)
    }

    /// A file of `bytes` zeros.
    fn file(&self, name: &str, bytes: u64) -> Image {
        let path = self.0.join(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("a file");
        Image::at(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(image: &Image) -> Result<Box<dyn Storage>, String> {
    image.open(DiskAccess::ReadWrite).map_err(|error| error.to_string())
}

fn refusal(image: &Image) -> String {
    open(image).err().expect("refused")
}

#[test]
fn sizes_that_no_disk_has_are_refused_with_a_remedy() {
    let folder = Folder::new("sizes");
    assert!(refusal(&folder.file("empty", 0)).contains("0 bytes, less than a sector"));
    let text = refusal(&folder.file("uneven", 1025));
    assert!(text.contains("1025 bytes") && text.contains("a copy of it"), "{text}");
    assert_eq!(open(&folder.file("good", 1024)).expect("good").sectors(), 2);
}

#[test]
fn another_format_is_refused_by_name_unless_its_bytes_are_insisted_on() {
    let folder = Folder::new("formats");
    let mut image = folder.file("foreign", 1024);
    std::fs::write(&image.path, [b"KDMV".as_slice(), &[0; 1020]].concat()).expect("written");
    let text = refusal(&image);
    assert!(text.contains("is a VMDK image") && text.contains("new file"), "{text}");
    image.format = Some(ImageFormat::Qcow2);
    assert!(refusal(&image).contains("cannot use the qcow2 image"));
    image.format = Some(ImageFormat::Raw);
    assert_eq!(open(&image).expect("raw").sectors(), 2);
}

#[test]
fn what_is_not_there_or_no_file_is_named() {
    let image = |path: &str| Image::at(path);
    let text = refusal(&image("/nonexistent/disk.img"));
    assert!(text.contains("/nonexistent/disk.img for reading and writing"), "{text}");
    assert!(text.contains("create an image"), "{text}");
    assert!(refusal(&image("/")).contains("give an image file"));
    assert!(refusal(&image("/dev/null")).contains("it is a character device"));
}

#[test]
fn a_disk_that_is_written_belongs_to_one_machine() {
    let folder = Folder::new("locks");
    let qcow2 = folder.make("a.qcow2", ImageFormat::Qcow2, None);
    for disk in [folder.file("a.img", 1024), qcow2] {
        let first = open(&disk).expect("free");
        assert!(refusal(&disk).contains("is in use; end the machine"));
        assert!(disk.open(DiskAccess::ReadOnly).is_err());
        drop(first);
        let _readers = [0; 2].map(|_| disk.open(DiskAccess::ReadOnly).expect("shared"));
        assert!(refusal(&disk).contains("is in use"));
    }
}

#[test]
fn a_backing_file_is_nobodys_to_write_while_it_is_used() {
    let folder = Folder::new("backing-locks");
    let base = folder.make("base.qcow2", ImageFormat::Qcow2, None);
    let over = folder.make("over.qcow2", ImageFormat::Qcow2, Some(&base.path));
    let second = folder.make("second.qcow2", ImageFormat::Qcow2, Some(&base.path));
    let _both = [&over, &second].map(|image| open(image).expect("both on one base"));
    assert!(refusal(&base).contains("is in use"));
    let text = tools::commit(&over).expect_err("it is in use").to_string();
    assert!(text.contains("is in use"), "{text}");
}

#[test]
fn an_image_opens_only_what_the_rule_lets_it() {
    let (folder, elsewhere) = (Folder::new("rule"), Folder::new("rule-elsewhere"));
    let far = elsewhere.make("far.img", ImageFormat::Raw, None).path;
    let near = folder.make("near.img", ImageFormat::Raw, None).path;
    let mut over = folder.make("over.qcow2", ImageFormat::Qcow2, Some(&far));
    let text = refusal(&over);
    assert!(text.contains("another folder") && text.contains("backing=FILE"), "{text}");
    over.backing = Backing::File(near.clone());
    assert!(refusal(&over).contains("another folder"));
    for rule in [Backing::File(far.clone()), Backing::Allow] {
        over.backing = rule;
        assert_eq!(open(&over).expect("permitted").sectors(), 2048);
    }
    // A link in the folder is no way out of it.
    let link = folder.0.join("link.img");
    std::os::unix::fs::symlink(&far, &link).expect("a link");
    let named = folder.make("named.qcow2", ImageFormat::Qcow2, Some(&near));
    let header = std::fs::OpenOptions::new().read(true).write(true).open(&named.path);
    let header = header.expect("there");
    let mut bytes = vec![0; 4096];
    header.read_exact_at(&mut bytes, 0).expect("read");
    let at = bytes.windows(8).position(|name| name == b"near.img").expect("the name");
    header.write_all_at(b"link.img", at as u64).expect("written");
    assert!(refusal(&named).contains("another folder"));
}

/// A guest can write a qcow2 header to its raw disk: it must not have files of the host's opened
/// by it.
#[test]
fn only_a_look_opens_no_backing_file() {
    let folder = Folder::new("look");
    let base = folder.make("base.img", ImageFormat::Raw, None);
    let over = folder.make("over.qcow2", ImageFormat::Qcow2, Some(&base.path));
    let mut disk = Image { path: folder.0.join("disk"), ..over.clone() };
    std::fs::rename(&over.path, &disk.path).expect("renamed");
    let text = refusal(&disk);
    assert!(text.contains("only the content") && text.contains("format=qcow2"), "{text}");
    disk.format = Some(ImageFormat::Qcow2);
    assert!(open(&disk).is_ok());
    assert_eq!(disk.files().expect("read").len(), 2);
}

#[test]
fn a_chain_that_goes_round_is_refused() {
    let folder = Folder::new("round");
    let first = folder.make("a.qcow2", ImageFormat::Qcow2, None);
    let second = folder.make("b.qcow2", ImageFormat::Qcow2, Some(&first.path));
    std::fs::remove_file(&first.path).expect("there");
    std::fs::copy(&second.path, &first.path).expect("copied");
    let header = std::fs::OpenOptions::new().read(true).write(true).open(&first.path);
    let header = header.expect("there");
    let mut bytes = vec![0; 4096];
    header.read_exact_at(&mut bytes, 0).expect("read");
    let at = bytes.windows(7).position(|name| name == b"a.qcow2").expect("the name");
    header.write_all_at(b"b.qcow2", at as u64).expect("written");
    let text = match first.open(DiskAccess::ReadOnly) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    };
    assert!(text.contains("of a chain"), "{text}");
    assert!(first.files().is_ok());
}

#[test]
fn a_file_that_was_cut_short_gives_errors() {
    let folder = Folder::new("short");
    let qcow2 = folder.make("a.qcow2", ImageFormat::Qcow2, None);
    for image in [folder.file("a.img", 1 << 20), qcow2] {
        let disk = open(&image).expect("opened");
        disk.write(0, &[1; 1 << 20]).expect("written");
        disk.flush().expect("flushed");
        let file = std::fs::OpenOptions::new().write(true).open(&image.path).expect("there");
        let whole = file.metadata().expect("there").len();
        file.set_len(whole / 2).expect("cut");
        assert!(disk.read((1 << 20) - 512, &mut [0; 512]).is_err());
        file.set_len(whole).expect("as long as before");
        assert!(disk.read((1 << 20) - 512, &mut [0; 512]).is_ok());
    }
}
