//! A crate imports only from floors below its own (ARCHITECTURE.md, "The house").

use std::collections::HashMap;
use structure::{Document, code_spans, packages};

/// The floor of each crate that has one.
fn floors() -> HashMap<String, u32> {
    let rows = Document::read("ARCHITECTURE.md").table("The house");
    rows.iter()
        .filter_map(|row| {
            let floor = row[0].parse().ok()?;
            let name = code_spans(&row[1]).first()?.rsplit('/').next()?.to_owned();
            Some((name, floor))
        })
        .collect()
}

/// Crates that no crate of the house may be built on.
fn outside(packages: &[structure::Package], floors: &HashMap<String, u32>) -> Vec<String> {
    let names = packages.iter().map(|p| p.name.clone());
    names.filter(|name| !floors.contains_key(name)).collect()
}

#[test]
fn every_crate_has_a_floor() {
    let (packages, floors) = (packages(), floors());
    for package in &packages {
        if package.folder.starts_with("crates/") {
            let known = floors.contains_key(&package.name);
            let exempt = ["conformance", "oracle"].contains(&package.name.as_str());
            assert!(known || exempt, "{} has no floor in ARCHITECTURE.md", package.name);
        }
    }
    for name in floors.keys() {
        assert!(packages.iter().any(|p| p.name == *name), "{name} is no crate of the workspace");
    }
}

#[test]
fn imports_go_down() {
    let (packages, floors) = (packages(), floors());
    let outside = outside(&packages, &floors);
    let mut complaints = Vec::new();
    for package in &packages {
        let Some(floor) = floors.get(&package.name) else { continue };
        for dependency in package.dependencies.iter().filter(|d| !d.dev) {
            let below = floors.get(&dependency.name).is_none_or(|other| other < floor);
            if !below || outside.contains(&dependency.name) {
                complaints.push(format!("{} imports {}", package.name, dependency.name));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
