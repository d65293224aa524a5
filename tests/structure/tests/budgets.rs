//! The budgets that CONTRIBUTING.md states: columns, lengths, flags in signatures, public names.

use std::collections::HashMap;
use structure::{File, Function, Source, documents, mentions, rust_files};

/// Columns of a line of Rust.
const RUST_COLUMNS: usize = 100;
/// Columns of a line of a document.
const DOCUMENT_COLUMNS: usize = 120;
/// Lines of a file of Rust.
const FILE_LINES: usize = 600;
/// Lines of a file that holds tests only.
const TEST_LINES: usize = 700;
/// Lines of a function.
const FUNCTION_LINES: usize = 80;
/// Parameters of type `bool`.
const BOOLS: usize = 1;

fn wide(files: &[File], columns: usize) -> Vec<String> {
    let mut found = Vec::new();
    for File { path, text } in files {
        for (at, line) in text.lines().enumerate() {
            let width = line.chars().count();
            if width > columns {
                found.push(format!("{path}:{}: {width} columns", at + 1));
            }
        }
    }
    found
}

fn only_tests(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[test]
fn lines_of_rust_fit() {
    let wide = wide(&rust_files(), RUST_COLUMNS);
    assert!(wide.is_empty(), "more than {RUST_COLUMNS} columns:\n{}", wide.join("\n"));
}

#[test]
fn lines_of_documents_fit() {
    let wide = wide(&documents(), DOCUMENT_COLUMNS);
    assert!(wide.is_empty(), "more than {DOCUMENT_COLUMNS} columns:\n{}", wide.join("\n"));
}

#[test]
fn files_are_short() {
    let mut complaints = Vec::new();
    for File { path, text } in rust_files() {
        let usual = if only_tests(&path) { TEST_LINES } else { FILE_LINES };
        let lines = text.lines().count();
        if lines > usual {
            complaints.push(format!("{path}: {lines} lines, {usual} at the most"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut complaints = Vec::new();
    for file in rust_files() {
        for f in Source::of(&file).functions {
            if f.lines > FUNCTION_LINES {
                let Function { name, line, lines, .. } = f;
                complaints.push(format!("{}:{line}: {name} has {lines} lines", file.path));
            }
        }
    }
    assert!(complaints.is_empty(), "more than {FUNCTION_LINES}:\n{}", complaints.join("\n"));
}

#[test]
fn a_signature_has_one_bool_at_the_most() {
    let mut complaints = Vec::new();
    for file in rust_files() {
        for f in Source::of(&file).functions.iter().filter(|f| f.bools > BOOLS) {
            complaints.push(format!("{}:{}: {} takes {}", file.path, f.line, f.name, f.bools));
        }
    }
    assert!(complaints.is_empty(), "more than one bool:\n{}", complaints.join("\n"));
}

#[test]
fn every_public_name_has_a_user_outside_its_module() {
    let files = rust_files();
    let mut users: HashMap<String, usize> = HashMap::new();
    for file in &files {
        mentions(file).into_iter().for_each(|name| *users.entry(name).or_default() += 1);
    }
    let mut complaints = Vec::new();
    for file in &files {
        // The file that declares a name mentions it, too.
        let unused = |name: &str| users.get(name).is_none_or(|n| *n < 2);
        let Source { public, exposed, .. } = Source::of(file);
        let idle = |name: &str| unused(name) && !exposed.contains(name);
        for (name, line) in public.iter().filter(|(name, _)| idle(name)) {
            complaints.push(format!("{}:{line}: {name}", file.path));
        }
    }
    assert!(complaints.is_empty(), "no user outside its file:\n{}", complaints.join("\n"));
}

#[test]
fn what_is_measured_is_measured_right() {
    let text = "/// Hidden.
pub fn f(a: bool, b: &mut bool,
) {
    g(\"{named}\");
}
\
                pub use x::away;";
    let file = File { path: "f.rs".into(), text: text.into() };
    let source = Source::of(&file);
    let f = &source.functions[0];
    assert_eq!((f.name.as_str(), f.line, f.lines, f.bools), ("f", 2, 4, 2));
    assert_eq!(source.public, [("f".to_owned(), 2)]);
    let names = mentions(&file);
    assert!(names.contains("g") && names.contains("named"));
    assert!(!names.contains("Hidden") && !names.contains("away"));
    assert_eq!(wide(&[file], 20), ["f.rs:2: 31 columns"]);
}

#[test]
fn contributing_states_these_budgets() {
    let text = structure::file("CONTRIBUTING.md").text;
    let budgets = text.split("## Budgets").nth(1).expect("a section Budgets");
    for number in [RUST_COLUMNS, DOCUMENT_COLUMNS, FILE_LINES, TEST_LINES, FUNCTION_LINES] {
        assert!(budgets.contains(&format!(" {number}")), "CONTRIBUTING.md does not state {number}");
    }
}
