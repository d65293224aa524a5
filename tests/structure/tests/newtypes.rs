//! Addresses, ports, vectors, interrupt lines, processors and widths are no bare integers in public
//! signatures (`crates/x86/src/addr.rs`).

use structure::rust_files;
use syn::visit::{self, Visit};
use syn::{
    FnArg, ImplItemFn, ItemFn, ItemStruct, Pat, ReturnType, Signature, TraitItemFn, Type,
    Visibility,
};

/// Names of parameters, fields and functions that return one, and the type that each has to have. A
/// name may have words before these: `pm_timer_port`.
const NAMES: [(&str, &str); 13] = [
    ("gpa", "Gpa"),
    ("la", "La"),
    ("linear", "La"),
    ("address", "Gpa or La"),
    ("ecam", "Gpa"),
    ("port", "Port"),
    ("vector", "Vector"),
    ("gsi", "Gsi"),
    ("vcpu", "VcpuId"),
    ("vcpu_id", "VcpuId"),
    ("cpu_id", "VcpuId"),
    ("apic_id", "VcpuId"),
    ("width", "Width"),
];

/// Names that are these alone: with others before them they are no access's.
const ALONE: [(&str, &str); 2] = [("access_size", "Width"), ("size", "Width")];

/// What keeps an integer, and why.
const EXCEPT: [(&str, &str, &str); 11] = [
    ("crates/devices/src/pci/bus.rs", "PciBusState", "CONFIG_ADDRESS, a register"),
    ("crates/devices/src/virtio/transport/pci/saved.rs", "PciState", "an entry of MSI-X's table"),
    ("crates/devices/src/virtio/transport/saved.rs", "QueueState", "entries of a queue"),
    ("crates/engine-soft/src/thunk/masked.rs", "load", "bytes of a vector's element, from its op"),
    ("crates/engine-soft/src/thunk/masked.rs", "store", "bytes of a vector's element, from its op"),
    ("crates/engine-soft/src/thunk/run.rs", "address", "the host's"),
    ("crates/engine-soft/src/thunk/types.rs", "MemOperand", "bytes of an operand, 512 at the most"),
    ("crates/host/src/ranges.rs", "find", "the host's"),
    ("crates/oracle/src/outcome.rs", "Event", "also ends that are no exception, above 255"),
    ("crates/oracle/src/outcome.rs", "ended", "also ends that are no exception, above 255"),
    ("crates/x86/src/xsave/layout.rs", "Component", "bytes of a state component"),
];

const INTEGERS: [&str; 10] =
    ["u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize"];

/// Whether `ty` is an integer, or an integer behind a reference or in an option.
fn is_integer(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => is_integer(&reference.elem),
        Type::Path(path) => {
            let last = path.path.segments.last().expect("a path has a name");
            let inner = match &last.arguments {
                syn::PathArguments::AngleBracketed(list) if last.ident == "Option" => list
                    .args
                    .iter()
                    .any(|a| matches!(a, syn::GenericArgument::Type(t) if is_integer(t))),
                _ => false,
            };
            inner || INTEGERS.iter().any(|integer| last.ident == integer)
        }
        _ => false,
    }
}

/// Complaints of one file.
struct Look {
    path: String,
    complaints: Vec<String>,
    /// Within a public trait.
    in_trait: bool,
}

impl Look {
    fn judge(&mut self, owner: &str, name: &str, ty: &Type) {
        let ends = |(of, _): &&(&str, &str)| {
            name.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
        };
        let alone = || ALONE.iter().find(|(of, _)| *of == name && owner != name);
        let wanted = NAMES.iter().find(ends).or_else(alone);
        let Some((_, wanted)) = wanted.filter(|_| is_integer(ty)) else { return };
        if !EXCEPT.iter().any(|(path, of, _)| *path == self.path && *of == owner) {
            self.complaints.push(format!("{}: {owner}: {name} is no {wanted}", self.path));
        }
    }

    fn signature(&mut self, signature: &Signature) {
        let owner = signature.ident.to_string();
        for input in &signature.inputs {
            let FnArg::Typed(input) = input else { continue };
            if let Pat::Ident(name) = &*input.pat {
                self.judge(&owner, &name.ident.to_string(), &input.ty);
            }
        }
        if let ReturnType::Type(_, ty) = &signature.output {
            self.judge(&owner, &owner, ty);
        }
    }
}

impl<'a> Visit<'a> for Look {
    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        if matches!(item.vis, Visibility::Public(_)) {
            self.signature(&item.sig);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        if matches!(item.vis, Visibility::Public(_)) {
            self.signature(&item.sig);
        }
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.in_trait = matches!(item.vis, Visibility::Public(_));
        visit::visit_item_trait(self, item);
        self.in_trait = false;
    }

    fn visit_trait_item_fn(&mut self, item: &'a TraitItemFn) {
        if self.in_trait {
            self.signature(&item.sig);
        }
    }

    fn visit_item_struct(&mut self, item: &'a ItemStruct) {
        for field in &item.fields {
            let Some(name) =
                field.ident.as_ref().filter(|_| matches!(field.vis, Visibility::Public(_)))
            else {
                continue;
            };
            self.judge(&item.ident.to_string(), &name.to_string(), &field.ty);
        }
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        if !matches!(item.vis, Visibility::Public(_)) {
            return;
        }
        for field in item.variants.iter().flat_map(|variant| &variant.fields) {
            let Some(name) = &field.ident else { continue };
            self.judge(&item.ident.to_string(), &name.to_string(), &field.ty);
        }
    }
}

fn complaints(path: &str, text: &str) -> Vec<String> {
    let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut look = Look { path: path.to_owned(), complaints: Vec::new(), in_trait: false };
    look.visit_file(&parsed);
    look.complaints
}

#[test]
fn no_public_signature_has_a_bare_integer_for_them() {
    let library = |path: &str| path.starts_with("crates/") && path.contains("/src/");
    let files = rust_files();
    let found: Vec<_> = files
        .iter()
        .filter(|file| library(&file.path))
        .flat_map(|file| complaints(&file.path, &file.text))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn bare_integers_are_found() {
    let bad = [
        "pub fn f(gpa: u64) {}",
        "pub struct S; impl S { pub fn f(&self, port: &u16) {} }",
        "pub trait T { fn f(&mut self, size: u8); }",
        "pub struct S { pub vector: Option<u8> }",
        "pub enum E { A { la: u64 } }",
        "pub struct S { pub reset_port: u16 }",
        "pub trait T { fn start_address(&self) -> Option<u64>; }",
    ];
    for text in bad {
        assert_eq!(complaints("x.rs", text).len(), 1, "{text}");
    }
    let good = [
        "pub fn f(gpa: Gpa, size: Width, len: u64, page_size: u64, import: u16) {}",
        "pub fn size() -> u64 { 0 }",
        "pub(crate) fn f(gpa: u64) {}",
        "trait T { fn f(&mut self, size: u8); }",
        "pub struct S { vector: u8 }",
    ];
    for text in good {
        assert!(complaints("x.rs", text).is_empty(), "{text}");
    }
}
