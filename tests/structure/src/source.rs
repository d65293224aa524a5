//! Rust source as the tests see it: functions, public names, and every name that a file mentions.

use crate::files::File;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::HashSet;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, FnArg, ImplItemFn, Item, ItemFn, Signature, TraitItemFn, Type, Visibility};

/// A function or method with a body or without.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`, from 1.
    pub line: usize,
    /// Lines from `fn` to the end of its body.
    pub lines: usize,
    /// Parameters that are a `bool` or a reference to one.
    pub bools: usize,
}

/// What a source file declares.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// All functions, those of traits, implementations and other functions included.
    pub functions: Vec<Function>,
    /// Names declared `pub` (no narrower), with their lines: functions, methods, types, constants.
    pub public: Vec<(String, usize)>,
    /// Names in what is `pub`: in signatures, fields, variants. A type among them has to be `pub`.
    pub exposed: HashSet<String>,
}

impl Source {
    /// The declarations of `file`.
    ///
    /// # Panics
    /// It is no Rust.
    pub fn of(file: &File) -> Self {
        let parsed = syn::parse_file(&file.text)
            .unwrap_or_else(|error| panic!("{} is no Rust: {error}", file.path));
        let mut source = Self::default();
        source.visit_file(&parsed);
        source
    }

    fn function(&mut self, signature: &Signature, end: proc_macro2::Span) {
        let line = signature.fn_token.span.start().line;
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: end.end().line + 1 - line,
            bools: signature.inputs.iter().filter(|input| is_bool(input)).count(),
        });
    }

    fn exposes(&mut self, visibility: &Visibility, what: &impl ToTokens) {
        if matches!(visibility, Visibility::Public(_)) {
            collect(what.to_token_stream(), &mut self.exposed);
        }
    }

    fn public(&mut self, visibility: &Visibility, name: &syn::Ident) {
        if matches!(visibility, Visibility::Public(_)) {
            self.public.push((name.to_string(), name.span().start().line));
        }
    }
}

impl<'a> Visit<'a> for Source {
    fn visit_item(&mut self, item: &'a Item) {
        match item {
            Item::Const(i) => self.public(&i.vis, &i.ident),
            Item::Enum(i) => {
                self.public(&i.vis, &i.ident);
                self.exposes(&i.vis, &i.variants);
            }
            Item::Fn(i) => {
                self.public(&i.vis, &i.sig.ident);
                self.exposes(&i.vis, &i.sig);
            }
            Item::Static(i) => self.public(&i.vis, &i.ident),
            Item::Struct(i) => self.public(&i.vis, &i.ident),
            Item::Trait(i) => {
                self.public(&i.vis, &i.ident);
                self.exposes(&i.vis, i);
            }
            Item::Type(i) => {
                self.public(&i.vis, &i.ident);
                self.exposes(&i.vis, &i.ty);
            }
            Item::Union(i) => self.public(&i.vis, &i.ident),
            // What a macro makes may be `pub`.
            Item::Macro(i) => collect(i.mac.tokens.clone(), &mut self.exposed),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_const(&mut self, item: &'a syn::ImplItemConst) {
        self.public(&item.vis, &item.ident);
        visit::visit_impl_item_const(self, item);
    }

    fn visit_field(&mut self, field: &'a syn::Field) {
        self.exposes(&field.vis, &field.ty);
    }

    fn visit_impl_item_type(&mut self, item: &'a syn::ImplItemType) {
        collect(item.ty.to_token_stream(), &mut self.exposed);
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        self.public(&item.vis, &item.sig.ident);
        self.exposes(&item.vis, &item.sig);
        self.function(&item.sig, item.block.brace_token.span.close());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        self.function(&item.sig, item.block.brace_token.span.close());
        visit::visit_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a TraitItemFn) {
        let end = item.default.as_ref().map_or(item.sig.span(), |b| b.brace_token.span.close());
        self.function(&item.sig, end);
        visit::visit_trait_item_fn(self, item);
    }

    /// Attributes hold no declarations.
    fn visit_attribute(&mut self, _: &'a Attribute) {}
}

fn is_bool(input: &FnArg) -> bool {
    fn bare(mut ty: &Type) -> &Type {
        while let Type::Reference(reference) = ty {
            ty = &reference.elem;
        }
        ty
    }
    let FnArg::Typed(typed) = input else { return false };
    matches!(bare(&typed.ty), Type::Path(path) if path.path.is_ident("bool"))
}

/// Every name that `file` mentions, macros and format strings included; documentation and `pub use`
/// mention nothing.
///
/// # Panics
/// It is no Rust.
pub fn mentions(file: &File) -> HashSet<String> {
    let tokens: TokenStream =
        file.text.parse().unwrap_or_else(|error| panic!("{} is no Rust: {error}", file.path));
    let mut names = HashSet::new();
    collect(tokens, &mut names);
    names
}

fn collect(tokens: TokenStream, names: &mut HashSet<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if tokens.peek().is_some_and(is_documentation) {
                    tokens.next();
                }
            }
            TokenTree::Ident(ident) if ident == "pub" => {
                if tokens.peek().is_some_and(is_use) {
                    tokens.by_ref().find(ends_item);
                }
            }
            TokenTree::Ident(ident) => {
                names.insert(ident.to_string());
            }
            TokenTree::Literal(literal) => words(&literal.to_string(), names),
            TokenTree::Group(group) => collect(group.stream(), names),
            TokenTree::Punct(_) => {}
        }
    }
}

/// Whether `token` is the bracket of `#[doc = …]`, to which `///` is short.
fn is_documentation(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(i)) if i == "doc")
}

fn is_use(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == "use")
}

fn ends_item(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';')
}

fn words(text: &str, names: &mut HashSet<String>) {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
    names.extend(words.map(str::to_owned));
}

/// The text of every string literal of `file`, macros and attributes included, documentation not.
///
/// # Panics
/// It is no Rust.
pub fn strings(file: &File) -> Vec<String> {
    let tokens: TokenStream =
        file.text.parse().unwrap_or_else(|error| panic!("{} is no Rust: {error}", file.path));
    let mut found = Vec::new();
    literals(tokens, &mut found);
    found
}

fn literals(tokens: TokenStream, found: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            // A line of documentation is `doc = "…"` to the parser.
            TokenTree::Ident(name) if name == "doc" => {
                tokens.next();
                tokens.next();
            }
            TokenTree::Group(group) => literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                let text = syn::parse_str::<syn::LitStr>(&literal.to_string());
                found.extend(text.map(|text| text.value()));
            }
            _ => {}
        }
    }
}
