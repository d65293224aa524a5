//! Images against a model: what is written, zeroed and discarded in any order reads as the model
//! says, also after the image was opened again; and QEMU's tools find it sound, if they are there.

use disk_image::tools::{self, New, Shrink, ToolError};
use disk_image::{DiskAccess, Image, ImageError, ImageFormat, SECTOR, Space, Storage};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Sectors of the disks: 25 clusters and a piece.
const SECTORS: u64 = 3300;

/// A folder that goes away again.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gemello-image-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn image(&self, name: &str) -> Image {
        Image::at(self.0.join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write { sector: u64, sectors: u64, byte: u8 },
    Zero { sector: u64, sectors: u64, space: Space },
    Discard { sector: u64, sectors: u64 },
    Flush,
    Settle,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || {
        let lengths = prop_oneof![1_u64..9, 100_u64..600];
        (0..SECTORS, lengths).prop_map(|(sector, sectors)| (sector, sectors.min(SECTORS - sector)))
    };
    let space = prop_oneof![Just(Space::Keep), Just(Space::GiveBack)];
    let step = prop_oneof![
        4 => (range(), 1_u8..).prop_map(|((sector, sectors), byte)| {
            Step::Write { sector, sectors, byte }
        }),
        2 => (range(), space).prop_map(|((sector, sectors), space)| {
            Step::Zero { sector, sectors, space }
        }),
        2 => range().prop_map(|(sector, sectors)| Step::Discard { sector, sectors }),
        1 => Just(Step::Flush),
        1 => Just(Step::Settle),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a disk holds; `None`: open, after a discard.
struct Model(Vec<Option<u8>>);

impl Model {
    fn set(&mut self, sector: u64, sectors: u64, to: Option<u8>) {
        self.0[sector as usize..(sector + sectors) as usize].fill(to);
    }

    /// That `disk` reads so. What was open stays as it is found.
    fn check(&mut self, disk: &dyn Storage) {
        let mut bytes = vec![0xAA; (SECTORS * SECTOR) as usize];
        disk.read(0, &mut bytes).expect("read");
        for (number, (sector, model)) in bytes.chunks(512).zip(&mut self.0).enumerate() {
            let byte = *model.get_or_insert(sector[0]);
            assert!(sector.iter().all(|&found| found == byte), "sector {number} is not {byte}");
        }
    }
}

/// Opens `image`. Another test's child may have all open files until it runs `qemu-img`.
fn open(image: &Image) -> Box<dyn Storage> {
    free(|| match image.open(DiskAccess::ReadWrite) {
        Err(ImageError::Busy { .. }) => None,
        opened => Some(opened.expect("opened")),
    })
}

/// What `attempt` gives once files are free.
fn free<T>(attempt: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "still in use");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn play(image: &Image, model: &mut Model, steps: &[Step]) {
    let mut disk = open(image);
    assert_eq!(disk.sectors(), SECTORS);
    for step in steps {
        match *step {
            Step::Write { sector, sectors, byte } => {
                let data = vec![byte; (sectors * SECTOR) as usize];
                disk.write(sector * SECTOR, &data).expect("written");
                model.set(sector, sectors, Some(byte));
            }
            Step::Zero { sector, sectors, space } => {
                let zeroed = disk.write_zeroes(sector * SECTOR, sectors * SECTOR, space);
                zeroed.expect("zeroed");
                model.set(sector, sectors, Some(0));
            }
            Step::Discard { sector, sectors } => {
                disk.discard(sector * SECTOR, sectors * SECTOR).expect("discarded");
                model.set(sector, sectors, None);
            }
            Step::Flush => disk.flush().expect("flushed"),
            Step::Settle => disk.settle().expect("settled"),
            Step::Reopen => {
                model.check(&*disk);
                disk.flush().expect("flushed");
                drop(disk);
                disk = open(image);
            }
        }
    }
    model.check(&*disk);
    disk.flush().expect("flushed");
}

/// `qemu-img` with `words`, if it is there: it must be content.
fn qemu_img(words: &[&str], files: &[&Path]) {
    let tool = std::env::var_os("QEMU_IMG").unwrap_or("qemu-img".into());
    let Ok(output) = Command::new(tool).args(words).args(files).output() else { return };
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said));
}

fn make(image: &Image, format: ImageFormat, backing: Option<&Image>) {
    let backing = backing.map(|backing| (backing.path.clone(), None));
    let bytes = Some(SECTORS * SECTOR);
    free(|| match tools::create(&image.path, &New { format, bytes, backing: backing.clone() }) {
        Err(ToolError::Image(ImageError::Busy { .. })) => None,
        done => Some(done),
    })
    .expect("made");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn raw_and_qcow2_hold_what_the_model_holds(steps in steps()) {
        let folder = Folder::new();
        let (raw, qcow2) = (folder.image("a.img"), folder.image("a.qcow2"));
        make(&raw, ImageFormat::Raw, None);
        make(&qcow2, ImageFormat::Qcow2, None);
        for image in [&raw, &qcow2] {
            play(image, &mut Model(vec![Some(0); SECTORS as usize]), &steps);
        }
        qemu_img(&["check"], &[&qcow2.path]);
        let told = steps.iter().all(|step| !matches!(step, Step::Discard { .. }));
        if told {
            qemu_img(&["compare"], &[&raw.path, &qcow2.path]);
        }
    }

    /// An overlay on an image that has something, then committed.
    #[test]
    fn an_overlay_hides_its_backing_file_until_it_is_committed(
        before in steps(),
        after in steps(),
    ) {
        let folder = Folder::new();
        let (base, over) = (folder.image("base.img"), folder.image("over.qcow2"));
        make(&base, ImageFormat::Raw, None);
        let mut model = Model(vec![Some(0); SECTORS as usize]);
        play(&base, &mut model, &before);
        make(&over, ImageFormat::Qcow2, Some(&base));
        let untouched = std::fs::read(&base.path).expect("read");
        play(&over, &mut model, &after);
        prop_assert!(std::fs::read(&base.path).expect("read") == untouched);
        qemu_img(&["check"], &[&over.path]);
        free(|| match tools::commit(&over) {
            Err(ToolError::Image(ImageError::Busy { .. })) => None,
            done => Some(done.expect("committed")),
        });
        qemu_img(&["check"], &[&over.path]);
        for image in [&over, &base] {
            model.check(&*open(image));
        }
    }
}

#[test]
fn what_is_discarded_is_given_back() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = Folder::new();
    for (name, format) in [("a.img", ImageFormat::Raw), ("a.qcow2", ImageFormat::Qcow2)] {
        let image = folder.image(name);
        make(&image, format, None);
        let taken = || std::fs::metadata(&image.path).expect("there").blocks() * 512;
        let disk = open(&image);
        disk.write(0, &[1; 1 << 20]).expect("written");
        disk.flush().expect("flushed");
        let full = taken();
        assert!(full >= 1 << 20, "{name}: {full}");
        disk.discard(0, 1 << 20).expect("discarded");
        disk.flush().expect("flushed");
        assert!(taken() <= full - (1 << 20) + (64 << 10), "{name}: {} of {full}", taken());
    }
}

fn resize(image: &Image, bytes: u64, shrink: Shrink) -> Result<(), ToolError> {
    free(|| match tools::resize(image, bytes, shrink) {
        Err(ToolError::Image(ImageError::Busy { .. })) => None,
        done => Some(done),
    })
}

#[test]
fn an_image_grows_and_shrinks_only_when_told() {
    let folder = Folder::new();
    for (name, format) in [("a.img", ImageFormat::Raw), ("a.qcow2", ImageFormat::Qcow2)] {
        let image = folder.image(name);
        make(&image, format, None);
        open(&image).write(0, &[7; 512]).expect("written");
        resize(&image, 8 << 20, Shrink::Refused).expect("grown");
        let smaller = resize(&image, 1 << 20, Shrink::Refused).expect_err("refused");
        assert!(smaller.to_string().contains("would be lost"), "{smaller}");
        assert_eq!(tools::info(&image).expect("info").bytes, 8 << 20);
        resize(&image, 1 << 20, Shrink::Allowed).expect("shrunk");
        let mut first = [0; 512];
        let disk = open(&image);
        disk.read(0, &mut first).expect("read");
        assert_eq!((disk.sectors(), first), (2048, [7; 512]));
        drop(disk);
        let again = New { format, bytes: Some(1 << 20), backing: None };
        let error = tools::create(&image.path, &again).expect_err("it is there");
        assert!(error.to_string().contains("exists already"), "{error}");
    }
}
