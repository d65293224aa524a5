//! `gemello disk`: images are made, looked at, resized and committed.

use crate::exit;
use crate::settings::disk::ANY;
use crate::settings::values::{Size, Text as _};
use anyhow::{Result, anyhow};
use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser as _};
use disk_image::tools::{self, Info, New, Qcow2Info, Shrink, ToolError};
use disk_image::{Backing, Image, ImageFormat};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub(crate) const EXAMPLES: &str = "\
Examples:
  gemello disk create work.qcow2 20G         grows as it is written
  gemello disk create work.img 1G            a raw image; its holes take no room
  gemello disk create --backing debian.qcow2 mine.qcow2
  gemello disk info mine.qcow2               sizes, and what it is built on; --json for programs
  gemello disk resize work.qcow2 40G         the guest's file system is the guest's to grow
  gemello disk commit mine.qcow2             writes what it has into its backing file

Nothing that exists is overwritten, and no image that a machine uses is touched.
After a commit, other images that are built on the same backing file are worthless.";

/// What is done.
#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Make an image
    Create(Create),
    /// Tell what an image is
    Info {
        #[command(flatten)]
        image: ImageArguments,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Give the disk in an image another size
    Resize {
        #[command(flatten)]
        image: ImageArguments,
        /// With unit K, M or G
        #[arg(value_parser = Size::parse)]
        size: Size,
        /// Let it become smaller, and lose what is beyond
        #[arg(long)]
        shrink: bool,
    },
    /// Write what an image has of its own into its backing file, and empty it
    Commit {
        #[command(flatten)]
        image: ImageArguments,
    },
}

/// What is made.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Where; nothing may be there
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// Of the disk, with unit K, M or G [default: the backing file's]
    #[arg(value_parser = Size::parse)]
    size: Option<Size>,
    /// raw or qcow2 [default: qcow2 for a name that ends so, or with --backing; else raw]
    #[arg(long, value_parser = format_parser())]
    format: Option<ImageFormat>,
    /// Image that it is built on; that one must not change any more
    #[arg(long, value_name = "FILE")]
    backing: Option<PathBuf>,
    /// The backing file's format [default: its content tells]
    #[arg(long, value_parser = format_parser(), requires = "backing")]
    backing_format: Option<ImageFormat>,
}

/// An image that is there.
#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    /// The image
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// raw or qcow2 [default: its content tells]
    #[arg(long, value_parser = format_parser())]
    format: Option<ImageFormat>,
    /// File that it may be built on besides those in its folder; allow: any
    #[arg(long, value_name = "FILE|allow")]
    backing: Option<PathBuf>,
}

fn format_parser() -> impl clap::builder::TypedValueParser<Value = ImageFormat> {
    PossibleValuesParser::new(["raw", "qcow2"])
        .map(|name| ImageFormat::named(name.as_bytes()).unwrap_or(ImageFormat::Raw))
}

impl ImageArguments {
    fn image(&self) -> Image {
        let backing = match &self.backing {
            None => Backing::SameFolder,
            Some(any) if any == Path::new(ANY) => Backing::Allow,
            Some(file) => Backing::File(file.clone()),
        };
        Image { format: self.format, backing, ..Image::at(&self.path) }
    }
}

/// Does it.
///
/// # Errors
/// It cannot be done, or would do harm.
pub(crate) fn run(command: &DiskCommand) -> Result<u8> {
    match command {
        DiskCommand::Create(create) => tools::create(&create.path, &create.recipe())?,
        DiskCommand::Info { image, json } => {
            let info = tools::info(&image.image())?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&document(&info))?),
                false => print!("{}", table(&info)),
            }
        }
        DiskCommand::Resize { image, size: Size(bytes), shrink } => {
            let shrink = if *shrink { Shrink::Allowed } else { Shrink::Refused };
            let resized = tools::resize(&image.image(), *bytes, shrink);
            resized.map_err(|error| match error {
                ToolError::Shrinks { .. } => {
                    anyhow!("{error}; give --shrink if the guest has been told to use less")
                }
                error => error.into(),
            })?;
        }
        DiskCommand::Commit { image } => {
            let base = tools::commit(&image.image())?;
            println!("committed to {}", base.display());
        }
    }
    Ok(exit::OK)
}

impl Create {
    fn recipe(&self) -> New {
        let Self { path, size, format, backing, backing_format } = self;
        let by_name = path.extension().is_some_and(|extension| extension == "qcow2");
        let usual = match by_name || backing.is_some() {
            true => ImageFormat::Qcow2,
            false => ImageFormat::Raw,
        };
        New {
            format: format.unwrap_or(usual),
            bytes: size.map(|Size(bytes)| bytes),
            backing: backing.clone().map(|file| (file, *backing_format)),
        }
    }
}

fn document(info: &Info) -> Value {
    let Info { path, format, bytes, allocated, qcow2 } = info;
    let mut document = json!({
        "path": path.to_string_lossy(),
        "format": format.name(),
        "bytes": bytes,
        "allocated": allocated,
    });
    if let Some(Qcow2Info { version, cluster, snapshots, backing }) = qcow2 {
        document["version"] = json!(version);
        document["cluster"] = json!(cluster);
        document["snapshots"] = json!(snapshots);
        document["backing"] = json!(backing.as_ref().map(|path| path.to_string_lossy()));
    }
    document
}

fn table(info: &Info) -> String {
    let Info { path, format, bytes, allocated, qcow2 } = info;
    let mut text = format!(
        "file       {}\nformat     {}\ndisk       {} ({bytes} bytes)\non host    {}\n",
        path.display(),
        format.name(),
        rounded(*bytes),
        rounded(*allocated),
    );
    if let Some(Qcow2Info { version, cluster, snapshots, backing }) = qcow2 {
        text += &format!("version    {version}\ncluster    {}\n", rounded((*cluster).into()));
        if *snapshots > 0 {
            text += &format!("snapshots  {snapshots}\n");
        }
        if let Some(backing) = backing {
            text += &format!("built on   {}\n", backing.display());
        }
    }
    text
}

/// `bytes` in the largest unit that leaves a number of at least 1.
fn rounded(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0x4000_0000.. => (1_u64 << 30, "GiB"),
        0x10_0000.. => (1 << 20, "MiB"),
        _ => (1 << 10, "KiB"),
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(unit);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        rest => format!("{}.{rest} {name}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        let all = [0, 512, 1536, 196_616, 1 << 20, 20 << 30, (20 << 30) + (512 << 20)].map(rounded);
        assert_eq!(all, ["0 KiB", "0.5 KiB", "1.5 KiB", "192 KiB", "1 MiB", "20 GiB", "20.5 GiB"]);
    }

    #[test]
    fn a_document_says_what_the_table_does() {
        let backing = Some(PathBuf::from("/base.img"));
        let qcow2 = Some(Qcow2Info { version: 3, cluster: 65536, snapshots: 2, backing });
        let (path, format) = (PathBuf::from("/a.qcow2"), ImageFormat::Qcow2);
        let info = Info { path, format, bytes: 1 << 30, allocated: 200 << 10, qcow2 };
        let text = table(&info);
        for part in ["/a.qcow2", "qcow2", "1 GiB (1073741824", "200 KiB", "64 KiB", "/base.img"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let document = document(&info);
        assert_eq!(document["bytes"], 1 << 30);
        assert_eq!(document["backing"], "/base.img");
    }
}
