//! The paths and names in the documents lead somewhere.

use std::path::Path;
use structure::{Document, Package, code_spans, file, packages, root, tracked_files};

const TOP_FOLDERS: [&str; 9] =
    ["benches/", "crates/", "docs/", "guest/", "tests/", "xtask/", "fuzz/", ".ci/", ".cargo/"];

/// Whether a code span is meant as a path of this project: `folder/file`, or `folder/file::name`.
fn is_path(span: &str) -> bool {
    let plain = !span.contains([' ', '<', '*', '{', '…']);
    plain && TOP_FOLDERS.iter().any(|top| span.starts_with(top))
}

/// What is wrong with a reference, if anything is. `name` is a function, or the beginning of a
/// string (a conformance case's title).
fn broken(reference: &str) -> Option<String> {
    let (path, name) = match reference.split_once("::") {
        Some((path, name)) => (path, Some(name)),
        None => (reference, None),
    };
    if !root().join(path).exists() {
        return Some(format!("{path} does not exist"));
    }
    let name = name?;
    let text = file(path).text;
    let known = [format!("fn {name}("), format!("fn {name}<"), format!("\"{name}")];
    (!known.iter().any(|k| text.contains(k))).then(|| format!("{path} has no {name}"))
}

#[test]
fn every_path_in_our_documents_resolves() {
    let documents = tracked_files().into_iter().filter(|f| {
        Path::new(&f.path).extension().is_some_and(|e| e == "md") && !f.path.starts_with("guest/")
    });
    let mut complaints = Vec::new();
    let mut checked = 0;
    for document in documents {
        let document = Document::read(&document.path);
        for span in document.code_spans().into_iter().filter(|s| is_path(s)) {
            checked += 1;
            complaints.extend(broken(span).map(|why| format!("{}: {why}", document.path)));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(checked > 100, "only {checked} references found: are documents missing?");
}

/// What is wrong with a command that runs tests, if anything is: it names a package, and a program
/// of tests or the tests of the end-to-end program, that are there.
fn no_tests(command: &str, packages: &[Package]) -> Option<String> {
    let words: Vec<_> = command.split_whitespace().collect();
    let at = words.windows(2).position(|pair| pair == ["cargo", "test"])?;
    let after = |names: &[&str]| {
        let found = words[at..].windows(2).find(|pair| names.contains(&pair[0]));
        found.map(|pair| pair[1].trim_end_matches([',', '.', ';']))
    };
    let name = after(&["-p", "--package"])?;
    let Some(package) = packages.iter().find(|package| package.name == name) else {
        return Some(format!("no package is called {name}: {command}"));
    };
    if name == "e2e" {
        return no_end_to_end_tests(words[at..].split_at_checked(4)?.1).then(|| command.to_owned());
    }
    let test = after(&["--test"])?;
    let there = |path| root().join(&package.folder).join(path).exists();
    let known = there(format!("tests/{test}.rs")) || there(format!("tests/{test}/main.rs"));
    (!known).then(|| format!("{name} has no tests called {test}: {command}"))
}

/// Whether the command that goes on with `words` behind the package runs none of the end-to-end
/// tests: the first names a file of theirs (`smp::`), the begin of a test in it (`smp::memory`) or
/// a part of a test's name.
fn no_end_to_end_tests(words: &[&str]) -> bool {
    let Some(filter) = words.first().filter(|word| !word.starts_with('-')) else { return false };
    let (module, test) = filter.split_once("::").unwrap_or(("", filter));
    let test = if test == "[NAME]" { "" } else { test };
    let files = tracked_files().into_iter().filter(|file| {
        let name = file.path.strip_prefix("tests/e2e/tests/");
        name.is_some_and(|name| module.is_empty() || name == format!("{module}.rs"))
    });
    let named = |text: &str| {
        let mut names = text.lines().filter_map(|line| line.strip_prefix("fn "));
        names.any(
            |name| if module.is_empty() { name.contains(test) } else { name.starts_with(test) },
        )
    };
    !files.into_iter().any(|file| named(&file.text))
}

#[test]
fn every_test_command_in_our_documents_names_tests_that_are_there() {
    let (packages, mut complaints, mut checked) = (packages(), Vec::new(), 0);
    let prose = tracked_files().into_iter().filter(|f| f.path.ends_with(".md"));
    for document in prose.filter(|f| !f.path.starts_with("guest/")) {
        let spans = Document::read(&document.path);
        let block = document.text.lines().filter_map(|line| line.strip_prefix("    "));
        for command in spans.code_spans().into_iter().chain(block).filter(|c| c.contains("-p ")) {
            checked += 1;
            let why = no_tests(command, &packages);
            complaints.extend(why.map(|why| format!("{}: {why}", document.path)));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(checked > 20, "only {checked} commands found");
}

#[test]
fn a_command_for_no_tests_is_noticed() {
    let packages = packages();
    let wrong = |command: &str| no_tests(command, &packages).is_some();
    assert!(!wrong("A=1 cargo test -p engine-soft --test lockstep -- --ignored"));
    assert!(!wrong("cargo test -p x86, seconds") && !wrong("cargo build -p nothing"));
    assert!(wrong("cargo test -p nothing") && wrong("cargo test -p x86 --test nothing"));
    let found = ["", " smp::", " smp::memory", " memory_is_ordered -- --ignored", " -- --ignored"];
    found.iter().for_each(|words| assert!(!wrong(&format!("cargo test -p e2e{words}")), "{words}"));
    let lost = [" nothing::", " smp::ordered", " no_test_is_called_so -- --ignored"];
    lost.iter().for_each(|words| assert!(wrong(&format!("cargo test -p e2e{words}")), "{words}"));
}

#[test]
fn every_concept_has_its_section_with_files_and_tests() {
    let document = Document::read("ARCHITECTURE.md");
    let sections = document.sections("The concepts");
    let number = |title: &str| title.split(' ').next().and_then(|n| n.parse::<u32>().ok());
    let numbers: Vec<_> = sections.iter().filter_map(|(title, _)| number(title)).collect();
    assert_eq!(numbers, (1..=26).collect::<Vec<_>>());
    for (title, text) in &sections {
        for part in ["Files", "Tests"] {
            let item = text.split("\n- ").find(|item| item.starts_with(&format!("{part}: ")));
            let item = item.unwrap_or_else(|| panic!("concept {title} has no {part}"));
            let real = item.lines().flat_map(code_spans).any(is_path);
            assert!(
                real || item.contains("not yet"),
                "{title}: {part} name no path and do not say \"not yet\""
            );
        }
    }
}

#[test]
fn the_glossary_is_in_order() {
    let text = file("ARCHITECTURE.md").text;
    let glossary = text.split("\n## Glossary").nth(1).expect("a glossary");
    let glossary = glossary.split("\n## ").next().unwrap_or_default();
    let words: Vec<_> =
        glossary.lines().filter_map(|l| l.strip_prefix("- **")?.split("**").next()).collect();
    assert!(words.len() >= 30, "{words:?}");
    assert!(words.is_sorted(), "{words:?}");
}

#[test]
fn where_do_i_find_answers_with_paths() {
    let rows = Document::read("ARCHITECTURE.md").table("Where do I find");
    assert!(rows.len() > 20);
    for row in &rows {
        assert!(code_spans(&row[1]).into_iter().any(is_path), "{row:?}");
    }
}

/// The lines of a decision record that a reader looks for first: title, date, status.
fn head(text: &str) -> Option<(&str, &str, String)> {
    let mut lines = text.lines();
    let title = lines.next()?.strip_prefix("# ")?;
    let date = lines.find_map(|l| l.strip_prefix("- Date: "))?;
    let rest = text.split_once("\n- Status: ")?.1;
    let status = rest.lines().take_while(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
    Some((title, date, status))
}

/// Whether `date` is a day, as in 2026-11-22.
fn is_day(date: &str) -> bool {
    let parts: Vec<_> = date.split('-').map(|p| (p.len(), p.parse::<u16>().is_ok())).collect();
    parts == [(4, true), (2, true), (2, true)]
}

#[test]
fn every_decision_has_a_date_a_status_and_its_place_in_the_index() {
    let index = file("docs/adr/README.md").text;
    let records: Vec<_> = tracked_files()
        .into_iter()
        .filter(|f| f.path.starts_with("docs/adr/0") && root().join(&f.path).exists())
        .collect();
    assert!(records.len() >= 25);
    for record in &records {
        let name = record.path.strip_prefix("docs/adr/").expect("it begins so");
        let (title, date, status) =
            head(&record.text).unwrap_or_else(|| panic!("{name} lacks title, date or status"));
        assert!(is_day(date), "{name}: {date:?}");
        let known = ["accepted", "superseded by "].iter().any(|s| status.starts_with(s));
        assert!(known, "{name}: {status:?}");
        assert_eq!(title[..4], name[..4], "{name}: the title begins with its number");
        assert!(index.contains(&format!("- {title}\n")), "the index has no {title:?}");
        assert!(index.contains(&format!("]({name})")), "the index has no link to {name}");
        // Other records that the status names are there.
        for word in status.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            let number = word.len() == 4
                && word.starts_with('0')
                && word.bytes().all(|b| b.is_ascii_digit());
            let there = records.iter().any(|r| r.path.contains(&format!("/{word}-")));
            assert!(!number || there, "{name} names {word}");
        }
    }
}

#[test]
fn a_reference_to_nothing_is_noticed() {
    assert_eq!(broken("crates/x86/src/lib.rs"), None);
    assert_eq!(broken("xtask/src/main.rs::main"), None);
    assert!(broken("crates/x86/src/nothing.rs").is_some());
    assert!(broken("xtask/src/main.rs::nothing").is_some());
}
