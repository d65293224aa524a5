//! The unsafe ladder (docs/UNSAFE.md): which files may hold unsafe code, and that each block says
//! why it is sound.

use std::collections::BTreeSet;
use structure::{Document, File, code_spans, file, packages, rust_files};

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// Whether `line` opens an unsafe block, function or implementation.
fn opens_unsafe(line: &str) -> bool {
    // In pieces, or this file would hold what it looks for.
    let keyword = concat!("un", "safe");
    let after = code(line).match_indices(keyword).filter_map(|(at, _)| {
        let before = code(line)[..at].chars().next_back();
        let rest = &code(line)[at + keyword.len()..];
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '"').then_some(rest)
    });
    let opens = ["{", "(", "fn ", "impl", "extern ", "trait "];
    after
        .map(str::trim_start)
        .any(|rest| rest.is_empty() || opens.iter().any(|o| rest.starts_with(o)))
}

/// Whether it opens a block or an implementation, which owe a SAFETY line.
fn owes_reason(line: &str) -> bool {
    opens_unsafe(line) && (code(line).contains("safe {") || code(line).contains("safe impl"))
}

fn holders() -> Vec<File> {
    rust_files().into_iter().filter(|f| f.text.lines().any(opens_unsafe)).collect()
}

/// The list of docs/UNSAFE.md: each file with what is said of it.
fn entries(text: &str) -> Vec<(&str, String)> {
    let list = text.split("\n## The files").nth(1).expect("a section The files");
    assert!(!list.contains("\n|"), "docs/UNSAFE.md lists files as items, not in a table");
    let entry = |item: &'_ str| item.split_whitespace().collect::<Vec<_>>().join(" ");
    let item = |item| code_spans(item).first().map(|path| (*path, entry(item)));
    list.split("\n- ").skip(1).filter_map(item).collect()
}

#[test]
fn the_list_is_complete_and_true() {
    let found: BTreeSet<_> = holders().into_iter().map(|f| f.path).collect();
    let text = file("docs/UNSAFE.md").text;
    let entries = entries(&text);
    let listed: BTreeSet<_> = entries.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(listed.len(), entries.len(), "docs/UNSAFE.md lists a file twice");
    // An entry that ends in a slash stands for all files of a folder.
    let covers =
        |entry: &str, path: &str| entry == path || entry.ends_with('/') && path.starts_with(entry);
    let missing: Vec<_> = found.iter().filter(|f| !listed.iter().any(|l| covers(l, f))).collect();
    let idle: Vec<_> = listed.iter().filter(|l| !found.iter().any(|f| covers(l, f))).collect();
    assert!(
        missing.is_empty(),
        "unsafe code in files that docs/UNSAFE.md does not list: {missing:#?}"
    );
    assert!(idle.is_empty(), "docs/UNSAFE.md lists files without unsafe code: {idle:#?}");
    for (path, entry) in &entries {
        let complete = entry.contains("Invariant: ") && entry.contains("Upheld by ");
        assert!(complete, "docs/UNSAFE.md says not enough of {path}: {entry:?}");
    }
}

#[test]
fn every_block_says_why_it_is_sound() {
    const NEAR: usize = 8;
    let mut complaints = Vec::new();
    for File { path, text } in holders() {
        let lines: Vec<_> = text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, l)| owes_reason(l)) {
            let near = &lines[at.saturating_sub(NEAR)..=at];
            if !near.iter().any(|l| l.contains("SAFETY:")) {
                complaints.push(format!("{path}:{}", at + 1));
            }
        }
    }
    assert!(complaints.is_empty(), "no SAFETY line near:\n{}", complaints.join("\n"));
}

/// The text of the comment that `lines` begin with, which continues on the lines after it.
fn reason(lines: &[&str]) -> String {
    let comment = |line: &&str| line.trim_start().starts_with("//");
    let words = lines.iter().copied().take_while(comment).flat_map(str::split_whitespace);
    words.filter(|word| *word != "//").collect::<Vec<_>>().join(" ")
}

#[test]
fn every_reason_names_its_invariant() {
    const WORDS: usize = 7;
    /// Reasons that send the reader elsewhere.
    const ELSEWHERE: [&str; 7] = [
        "as above",
        "see above",
        "just found",
        "the caller's.",
        "as in `",
        "as for `",
        "as received",
    ];
    let mut complaints = Vec::new();
    for File { path, text } in holders() {
        let lines: Vec<_> = text.lines().collect();
        for at in 0..lines.len() {
            if !lines[at].trim_start().starts_with("// SAFETY") {
                continue;
            }
            let reason = reason(&lines[at..]);
            let short = reason.split_whitespace().count() <= WORDS;
            if short || ELSEWHERE.iter().any(|phrase| reason.contains(phrase)) {
                complaints.push(format!("{path}:{}: {reason}", at + 1));
            }
        }
    }
    assert!(complaints.is_empty(), "no invariant, or not who keeps it:\n{}", complaints.join("\n"));
}

#[test]
fn pure_crates_forbid_it() {
    let rows = Document::read("ARCHITECTURE.md").table("The house");
    let mut checked = 0;
    for row in rows.iter().filter(|row| row[3] == "forbid") {
        let folder = code_spans(&row[1])[0];
        let names = ["src/lib.rs", "src/main.rs"].map(|n| format!("{folder}/{n}"));
        let root = names.iter().find(|n| structure::root().join(n).exists()).expect("a root");
        assert!(file(root).text.contains("#![forbid(unsafe_code)]"), "{root} does not forbid it");
        checked += 1;
    }
    assert!(checked >= 5);
}

#[test]
fn every_crate_has_the_workspaces_lints() {
    for package in packages() {
        let manifest = file(&format!("{}/Cargo.toml", package.folder)).text;
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package.folder);
    }
}

#[test]
fn the_search_finds_what_it_should() {
    let keyword = concat!("un", "safe");
    for held in [" { x }", " fn f() {", " impl Send for X {}", "(naked)", ""] {
        assert!(opens_unsafe(&format!("    {keyword}{held}")), "{held}");
    }
    for held in [format!("#![allow({keyword}_code)]"), format!("// {keyword} {{"), "safe()".into()]
    {
        assert!(!opens_unsafe(&held), "{held}");
    }
}
