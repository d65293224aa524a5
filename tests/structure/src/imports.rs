//! Which files of a crate import which others of it.

use crate::files::File;
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Path, UseTree, Visibility};

/// A module by its path within the crate; empty for the root.
type Module = Vec<String>;

/// Each module of a crate that is a file, with those that it imports from, or names by a path that
/// begins with `crate`, `super`, `self` or a module that it declares. Modules of tests do not
/// count, nor does the root.
#[derive(Debug)]
pub struct Imports(BTreeMap<Module, BTreeSet<Module>>);

impl Imports {
    /// Of the crate whose sources are those of `files` below `folder`.
    ///
    /// # Panics
    /// A file is no Rust.
    pub fn of(files: &[File], folder: &str) -> Self {
        let inside = |file: &&File| file.path.starts_with(folder);
        let files: Vec<_> =
            files.iter().filter(inside).map(|f| (module(&f.path, folder), f)).collect();
        let modules: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
        let paths: Vec<_> =
            files.iter().map(|(module, file)| (module, Paths::of(file, module))).collect();
        let passed_on: BTreeMap<Module, Module> =
            paths.iter().flat_map(|(_, paths)| paths.passed_on.clone()).collect();
        let imports = |(module, paths): (&Module, Paths)| {
            let there = |path| longest(&modules, origin(&passed_on, path));
            let found = paths.found.into_iter().filter_map(there);
            (module.clone(), found.filter(|other| other != module && !other.is_empty()).collect())
        };
        Self(paths.into_iter().map(imports).collect())
    }

    /// The modules that import themselves by way of others, in groups that do so together.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let reach: BTreeMap<_, _> =
            self.0.keys().map(|module| (module, self.reach(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, reached) in &reach {
            let back = |other: &&&Module| reach.get(**other).is_some_and(|r| r.contains(module));
            let circle: Vec<_> = reached.iter().filter(back).map(|m| m.join("::")).collect();
            if !circle.is_empty() {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reach(&self, from: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut left: Vec<&Module> = self.0.get(from).into_iter().flatten().collect();
        while let Some(module) = left.pop() {
            if reached.insert(module) {
                left.extend(self.0.get(module).into_iter().flatten());
            }
        }
        reached
    }
}

/// The module whose file is at `path`, in a crate whose sources are below `folder`.
fn module(path: &str, folder: &str) -> Module {
    let path = path.trim_start_matches(folder).trim_start_matches('/').trim_end_matches(".rs");
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The module that an absolute `path` leads into.
fn longest(modules: &BTreeSet<Module>, mut path: Module) -> Option<Module> {
    while !modules.contains(&path) {
        path.pop()?;
    }
    Some(path)
}

/// Where what `path` names comes from, if a module only passes it on: `pub use child::Name`.
fn origin(passed_on: &BTreeMap<Module, Module>, mut path: Module) -> Module {
    // Names are passed on a few times at the most.
    for _ in 0..8 {
        let found =
            (1..=path.len()).find_map(|len| passed_on.get(&path[..len]).map(|to| (len, to)));
        let Some((len, to)) = found else { break };
        path = [to.as_slice(), &path[len..]].concat();
    }
    path
}

/// Absolute paths that a file names.
struct Paths {
    module: Module,
    found: Vec<Module>,
    /// Modules that it declares, each a file of its own.
    children: BTreeSet<String>,
    /// Names of this module that it has from another one and only passes on.
    passed_on: Vec<(Module, Module)>,
}

impl Paths {
    fn of(file: &File, module: &Module) -> Self {
        let parsed = syn::parse_file(&file.text)
            .unwrap_or_else(|error| panic!("{} is no Rust: {error}", file.path));
        let child = |item: &Item| match item {
            Item::Mod(item) if item.content.is_none() && !item.attrs.iter().any(is_for_tests) => {
                Some(item.ident.to_string())
            }
            _ => None,
        };
        let mut paths = Self {
            module: module.clone(),
            found: Vec::new(),
            children: parsed.items.iter().filter_map(child).collect(),
            passed_on: Vec::new(),
        };
        paths.visit_file(&parsed);
        paths
    }

    /// Notes the path `parts`, as it stands in the module.
    fn note(&mut self, parts: &[String]) {
        let mut at = self.module.clone();
        let mut parts = parts;
        match parts.first().map(String::as_str) {
            Some("crate") => (at, parts) = (Vec::new(), &parts[1..]),
            Some("self") => parts = &parts[1..],
            _ => {
                while let Some(("super", rest)) = parts.split_first().map(|(p, r)| (p.as_str(), r))
                {
                    at.pop();
                    parts = rest;
                }
            }
        }
        at.extend_from_slice(parts);
        self.found.push(at);
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) if name.ident == "self" => self.note(before),
            UseTree::Name(name) => self.note(&with(&name.ident)),
            UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            UseTree::Glob(_) => self.note(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let before = self.found.len();
        self.tree(&[], &item.tree);
        if !matches!(item.vis, Visibility::Inherited) && !has_glob(&item.tree) {
            for path in self.found.drain(before..) {
                let Some(name) = path.last().cloned() else { continue };
                self.passed_on.push(([self.module.as_slice(), &[name]].concat(), path));
            }
        }
    }

    /// `pub(in super)` imports nothing.
    fn visit_visibility(&mut self, _: &'a Visibility) {}

    fn visit_path(&mut self, path: &'a Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let (Some(first), true) = (parts.first(), parts.len() > 1) else {
            return visit::visit_path(self, path);
        };
        if matches!(first.as_str(), "crate" | "super" | "self") || self.children.contains(first) {
            self.note(&parts);
        }
        visit::visit_path(self, path);
    }

    /// What stands in a module within the file is relative to that one.
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if item.attrs.iter().any(is_for_tests) || item.content.is_none() {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }
}

fn has_glob(tree: &UseTree) -> bool {
    match tree {
        UseTree::Path(path) => has_glob(&path.tree),
        UseTree::Group(group) => group.items.iter().any(has_glob),
        UseTree::Glob(_) => true,
        UseTree::Name(_) | UseTree::Rename(_) => false,
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let list = attribute.meta.require_list();
    attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn circles_are_found_and_chains_are_none() {
        let files = [
            file("x/src/lib.rs", "mod a; mod b; mod c; mod d; use a::A;"),
            file("x/src/a.rs", "use crate::{b::B, d};"),
            file("x/src/b/mod.rs", "fn f() -> super::c::C { todo() }"),
            file("x/src/c.rs", "#[cfg(test)] mod tests { use crate::d::D; } use crate::a::{self};"),
            file("x/src/d.rs", "use std::fmt; use super::c as e;"),
            file("x/src/b/inner.rs", "use super::B;"),
            file("y/src/z.rs", "use crate::z::Z;"),
        ];
        let circles = Imports::of(&files, "x/src").circles();
        assert_eq!(circles, [["a", "b", "c", "d"].map(str::to_owned).to_vec()]);
        let chain = [
            file("x/src/lib.rs", "pub use a::A;"),
            file("x/src/a.rs", "use crate::b::B; mod inner { use super::A; }"),
            file("x/src/b.rs", "use self::B; use crate::X;"),
        ];
        assert!(Imports::of(&chain, "x/src").circles().is_empty());
    }

    #[test]
    fn what_is_passed_on_comes_from_where_it_is_made() {
        let files = [
            file("x/src/a/mod.rs", "pub(crate) use b::{B, c::C}; mod b; mod c; mod d;"),
            file("x/src/a/b.rs", "pub(in super::super) struct B; use super::C; pub use super::c;"),
            file("x/src/a/c.rs", "pub struct C;"),
            file("x/src/a/d.rs", "use crate::a::B;"),
        ];
        assert!(Imports::of(&files, "x/src").circles().is_empty());
        let through = file("x/src/a/c.rs", "use crate::a::B; pub struct C;");
        let [a, b, _, d] = files;
        assert_eq!(Imports::of(&[a, b, through, d], "x/src").circles().len(), 1);
    }
}
