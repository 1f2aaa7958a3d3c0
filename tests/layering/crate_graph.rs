//! Which module names what another module defines: paths resolved through `use`, `super`, globs and re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::buffer::{Cursor, TokenBuffer};
use syn::ext::IdentExt;
use syn::visit::{self, Visit};

/// One module of a crate.
#[derive(Debug, Default)]
struct Module {
    /// Names from the crate's root, without `crate`.
    path: Vec<String>,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names that are defined here.
    items: BTreeSet<String>,
    /// Names that a `use` brings in, and the paths that they stand for.
    uses: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Every path that the code names; not those that are only exported again.
    named: BTreeSet<Vec<String>>,
    /// Whether anything is implemented here, besides names for what is elsewhere.
    has_code: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The module in which it is defined, by its names from the root.
    Module(Vec<String>),
    /// What another crate has, by its whole path.
    Outside(Vec<String>),
}

/// The modules of a crate, without those that only tests compile.
#[derive(Debug, Default)]
pub(crate) struct CrateGraph {
    modules: Vec<Module>,
    outside: BTreeSet<String>,
}

impl CrateGraph {
    /// Reads the crate whose root is this file; `outside` are the crates that it may depend on.
    pub(crate) fn read(root: &Path, outside: &[&str]) -> Self {
        Self::parse(root, outside, &|path| std::fs::read_to_string(path).ok())
    }

    /// Reads a crate whose files `read` gives; `None` where there is no such file.
    pub(crate) fn parse(root: &Path, outside: &[&str], read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let own = ["std", "core", "alloc"].iter().chain(outside).map(|name| (*name).to_owned());
        let mut graph = Self { modules: Vec::new(), outside: own.collect() };
        graph.modules.push(Module::default());
        let text = read(root).unwrap_or_else(|| panic!("there is no {}", root.display()));
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        let folder = root.parent().unwrap().to_owned();
        graph.fill(0, &file.items, &folder, read);
        graph
    }

    fn fill(
        &mut self,
        at: usize,
        items: &[syn::Item],
        folder: &Path,
        read: &dyn Fn(&Path) -> Option<String>,
    ) {
        for item in items {
            if attributes(item).iter().any(only_for_tests) {
                continue;
            }
            if let syn::Item::Mod(module) = item {
                let name = module.ident.unraw().to_string();
                let child = self.modules.len();
                let mut path = self.modules[at].path.clone();
                path.push(name.clone());
                self.modules.push(Module { path, parent: Some(at), ..Module::default() });
                self.modules[at].children.insert(name.clone(), child);
                let inner = folder.join(&name);
                if let Some((_, items)) = &module.content {
                    self.fill(child, items, &inner, read);
                    continue;
                }
                let files: [PathBuf; 2] = match path_attribute(&module.attrs) {
                    Some(path) => [folder.join(&path), folder.join(path)],
                    None => [folder.join(format!("{name}.rs")), inner.join("mod.rs")],
                };
                let (file, text) = files
                    .iter()
                    .find_map(|file| Some((file, read(file)?)))
                    .unwrap_or_else(|| panic!("no file for mod {name} in {}", folder.display()));
                let parsed =
                    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                self.fill(child, &parsed.items, &inner, read);
                continue;
            }
            let mut visitor = Visitor { module: &mut self.modules[at], nested: false };
            visitor.define(item);
            visitor.visit_item(item);
        }
    }

    /// All modules with the targets of the paths in their code.
    pub(crate) fn arrows(&self) -> BTreeMap<Vec<String>, BTreeSet<Target>> {
        let mut arrows = BTreeMap::new();
        for (at, module) in self.modules.iter().enumerate() {
            let targets = module.named.iter().filter_map(|path| self.resolve(at, path, 0));
            let own = Target::Module(module.path.clone());
            let targets: BTreeSet<Target> = targets.filter(|target| *target != own).collect();
            arrows.insert(module.path.clone(), targets);
        }
        arrows
    }

    /// Whether anything is implemented in a module, besides names for what is elsewhere.
    pub(crate) fn has_code(&self, path: &[String]) -> bool {
        self.modules.iter().any(|module| module.path == path && module.has_code)
    }

    /// What a path leads to, seen from a module.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<Target> {
        // A circle of re-exports leads nowhere.
        if depth > 32 {
            return None;
        }
        let (mut at, mut rest) = (from, path);
        let mut rooted = false;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" => at = 0,
                "self" => {}
                "super" => at = self.modules[at].parent?,
                _ => break,
            }
            (rest, rooted) = (&rest[1..], true);
        }
        let Some(first) = rest.first() else { return Some(Target::Module(self.modules[at].path.clone())) };
        match self.look_up(at, first, depth) {
            Some(Found::Module(child)) => self.descend(child, &rest[1..], depth),
            Some(Found::Target(target)) => Some(self.further(target, &rest[1..], depth)),
            // One name alone may be a variable.
            None if !rooted && rest.len() > 1 && self.outside.contains(first) => {
                Some(Target::Outside(rest.to_vec()))
            }
            // Made by a macro, or one: it is this module's.
            None if rooted => Some(Target::Module(self.modules[at].path.clone())),
            None => None,
        }
    }

    fn descend(&self, at: usize, rest: &[String], depth: usize) -> Option<Target> {
        let Some(first) = rest.first() else { return Some(Target::Module(self.modules[at].path.clone())) };
        match self.look_up(at, first, depth) {
            Some(Found::Module(child)) => self.descend(child, &rest[1..], depth),
            Some(Found::Target(target)) => Some(self.further(target, &rest[1..], depth)),
            // Made by a macro, or one: it is this module's.
            None => Some(Target::Module(self.modules[at].path.clone())),
        }
    }

    /// What comes after a name that a `use` brought in: what is in that module, or belongs to that item.
    fn further(&self, target: Target, rest: &[String], depth: usize) -> Target {
        match &target {
            Target::Module(path) if !rest.is_empty() => {
                let at = self.modules.iter().position(|module| module.path == *path);
                at.and_then(|at| self.descend(at, rest, depth + 1)).unwrap_or(target)
            }
            Target::Outside(path) => Target::Outside([path.as_slice(), rest].concat()),
            Target::Module(_) => target,
        }
    }

    fn look_up(&self, at: usize, name: &str, depth: usize) -> Option<Found> {
        let module = &self.modules[at];
        if let Some(&child) = module.children.get(name) {
            return Some(Found::Module(child));
        }
        if module.items.contains(name) {
            return Some(Found::Target(Target::Module(module.path.clone())));
        }
        if let Some(path) = module.uses.get(name) {
            // A crate, under its own name or another.
            if path.len() == 1 && self.outside.contains(&path[0]) {
                return Some(Found::Target(Target::Outside(path.clone())));
            }
            if path.len() == 1 && path[0] == name {
                return None;
            }
            return self.resolve(at, path, depth + 1).map(Found::Target);
        }
        module.globs.iter().find_map(|glob| match self.resolve(at, glob, depth + 1)? {
            Target::Module(path) => {
                let inner = self.modules.iter().position(|module| module.path == path)?;
                self.look_up(inner, name, depth + 1)
            }
            Target::Outside(_) => None,
        })
    }
}

enum Found {
    Module(usize),
    Target(Target),
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The file that a `#[path = "..."]` names.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find(|attribute| attribute.path().is_ident("path")).and_then(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(value) = &pair.value else { return None };
        let syn::Lit::Str(path) = &value.lit else { return None };
        Some(path.value())
    })
}

fn only_for_tests(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
}

struct Visitor<'a> {
    module: &'a mut Module,
    /// Inside a module in a function's body, whose names cannot be used outside.
    nested: bool,
}

impl Visitor<'_> {
    fn define(&mut self, item: &syn::Item) {
        let name = match item {
            syn::Item::Struct(item) => &item.ident,
            syn::Item::Enum(item) => &item.ident,
            syn::Item::Trait(item) => &item.ident,
            syn::Item::Type(item) => &item.ident,
            syn::Item::Const(item) => &item.ident,
            syn::Item::Static(item) => &item.ident,
            syn::Item::Fn(item) => &item.sig.ident,
            syn::Item::Union(item) => &item.ident,
            syn::Item::Macro(syn::ItemMacro { ident: Some(ident), .. }) => ident,
            syn::Item::ExternCrate(item) => {
                let alias = item.rename.as_ref().map_or(&item.ident, |(_, alias)| alias);
                let path = if item.ident == "self" { "crate".to_owned() } else { item.ident.to_string() };
                self.module.uses.insert(alias.to_string(), vec![path]);
                return;
            }
            syn::Item::Impl(_) => {
                self.module.has_code = true;
                return;
            }
            _ => return,
        };
        self.module.has_code = true;
        self.module.items.insert(name.unraw().to_string());
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &[String], exported: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                let before = [before, &[path.ident.unraw().to_string()]].concat();
                self.use_tree(&path.tree, &before, exported);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(tree, before, exported));
            }
            syn::UseTree::Glob(_) => {
                if !exported {
                    self.module.named.insert(before.to_vec());
                }
                self.module.globs.push(before.to_vec());
            }
            syn::UseTree::Name(name) => self.bring_in(name.ident.to_string(), &name.ident, before, exported),
            syn::UseTree::Rename(name) => {
                self.bring_in(name.rename.to_string(), &name.ident, before, exported);
            }
        }
    }

    fn bring_in(&mut self, alias: String, name: &syn::Ident, before: &[String], exported: bool) {
        let name = name.unraw().to_string();
        // `use a::{self}` brings in the last name of the path.
        let (alias, path) = match (name.as_str(), before.last()) {
            ("self", Some(last)) if alias == "self" => (last.clone(), before.to_vec()),
            ("self", _) => (alias, before.to_vec()),
            _ => (alias, [before, &[name]].concat()),
        };
        // Under `_` nothing is exported but a trait's methods.
        if !exported || alias == "_" {
            self.module.named.insert(path.clone());
        }
        self.module.uses.insert(alias, path);
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let exported = match &item.vis {
            syn::Visibility::Inherited => false,
            syn::Visibility::Restricted(restricted) => !restricted.path.is_ident("self"),
            syn::Visibility::Public(_) => true,
        };
        self.use_tree(&item.tree, &[], exported && !self.nested);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let outside = std::mem::replace(&mut self.nested, true);
        visit::visit_item_mod(self, module);
        self.nested = outside;
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(TokenBuffer::new2(list.tokens.clone()).begin());
        }
        visit::visit_attribute(self, attribute);
    }

    // `pub(crate)` names no part.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect();
        self.module.named.insert(names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        self.tokens(TokenBuffer::new2(invocation.tokens.clone()).begin());
        visit::visit_macro(self, invocation);
    }
}

impl Visitor<'_> {
    /// The tokens of a macro are no syntax tree: names that `::` joins are paths all the same.
    fn tokens(&mut self, mut at: Cursor<'_>) {
        let mut path: Vec<String> = Vec::new();
        let mut joined = false;
        while !at.eof() {
            if let Some((name, next)) = at.ident() {
                if !joined {
                    self.end(&mut path);
                }
                path.push(name.unraw().to_string());
                (at, joined) = (next, false);
            } else if let Some((first, next)) = at.punct()
                && first.as_char() == ':'
                && let Some((second, next)) = next.punct()
                && second.as_char() == ':'
            {
                (at, joined) = (next, true);
            } else {
                self.end(&mut path);
                joined = false;
                if let Some((inside, _, _, next)) = at.any_group() {
                    self.tokens(inside);
                    at = next;
                } else if let Some((_, next)) = at.token_tree() {
                    at = next;
                } else {
                    break;
                }
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.module.named.insert(std::mem::take(path));
        }
    }
}
