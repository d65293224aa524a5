//! A library does not know who calls it: its messages name the fields of what it is given, in
//! backquotes, and no options of the program's command line.

use structure::{packages, rust_files, strings};

/// What names an option, and is one of another program's.
const OTHERS: [&str; 2] = ["xz --format=lzma -dc", "--id"];

fn names_an_option(text: &str) -> bool {
    let mut words = text.split(|c: char| c.is_whitespace() || "`'\"(".contains(c));
    words.any(|word| {
        let name = word.strip_prefix("--").unwrap_or_default();
        name.starts_with(|c: char| c.is_ascii_lowercase())
    })
}

#[test]
fn libraries_name_fields() {
    let programs = ["agent", "gemello", "xtask", "oracle", "conformance", "nucleus-image"];
    let packages = packages();
    let libraries = packages.iter().filter(|package| package.folder.starts_with("crates/"));
    let libraries = libraries.filter(|package| !programs.contains(&package.name.as_str()));
    let folders: Vec<_> = libraries.map(|package| format!("{}/src/", package.folder)).collect();
    let inside = |path: &str| folders.iter().any(|folder| path.starts_with(folder));
    let files = rust_files();
    assert!(files.iter().filter(|file| inside(&file.path)).count() > 100, "where are they?");
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| inside(&file.path)) {
        let own = |text: &String| !OTHERS.contains(&text.as_str()) && names_an_option(text);
        let found = strings(file).into_iter().filter(own);
        complaints.extend(found.map(|text| format!("{}: {text:?}", file.path)));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn options_are_told_from_dashes() {
    for text in ["give --memory 2M", "`--save` writes", "--disk"] {
        assert!(names_an_option(text), "{text}");
    }
    for text in ["a -- b", "x--y", "---", "-v", "--{n}"] {
        assert!(!names_an_option(text), "{text}");
    }
}
