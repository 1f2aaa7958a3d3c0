//! One way for the data to flow: what each part names is checked against the tables of `docs/design.md`,
//! section 3.
//!
//! The tables are the one truth: they are read, not repeated here. Paths are resolved through re-exports, globs
//! and `super`, so that what counts is where a thing is defined.

#[path = "layering/crate_graph.rs"]
mod crate_graph;

use crate_graph::{CrateGraph, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A row of a table: what a part may name.
type Rows = Vec<(String, BTreeSet<String>)>;

/// The tables of the design: the parts of the crate, and the floors of those parts that have some.
struct Design {
    parts: Rows,
    /// Part to its floors, from the lowest.
    floors: BTreeMap<String, Rows>,
}

impl Design {
    fn read(text: &str) -> Self {
        let section = text.split("\n## ").find(|section| section.starts_with("3.")).expect("section 3");
        let mut design = Self { parts: Rows::new(), floors: BTreeMap::new() };
        let mut part = None;
        for line in section.lines() {
            if let Some(heading) = line.strip_prefix("### ") {
                part = heading.strip_prefix("Floors of ").and_then(|name| in_backticks(name).pop());
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, name, may_name, ..] = cells.as_slice() else { continue };
            let [name] = in_backticks(name).try_into().unwrap_or_else(|_| [String::new()]);
            if name.is_empty() {
                continue;
            }
            let row = (name, in_backticks(may_name).into_iter().collect());
            match &part {
                None => design.parts.push(row),
                Some(part) => design.floors.entry(part.clone()).or_default().push(row),
            }
        }
        design
    }

    /// The floor of a module of a part, by number.
    fn floor(&self, module: &[String]) -> Option<usize> {
        let floors = self.floors.get(module.first()?)?;
        floors.iter().position(|(name, _)| Some(name) == module.get(1))
    }

    /// What is wrong with a crate.
    fn violations(&self, graph: &CrateGraph) -> Vec<String> {
        let mut wrong = Vec::new();
        let names: BTreeMap<&str, &BTreeSet<String>> =
            self.parts.iter().map(|(name, may_name)| (name.as_str(), may_name)).collect();
        let arrows = graph.arrows();
        for (module, targets) in &arrows {
            // The root names what the crate shows.
            let Some(part) = module.first() else { continue };
            let place = module.join("::");
            let Some(may_name) = names.get(part.as_str()) else {
                wrong.push(format!("{part} has no row among the parts"));
                continue;
            };
            let floors = self.floors.get(part);
            if floors.is_some() && module.len() == 1 {
                if graph.has_code(module) {
                    wrong.push(format!("{place} is a contents page and has code of its own"));
                }
                continue;
            }
            let floor = self.floor(module);
            if floors.is_some() && floor.is_none() {
                wrong.push(format!("{place} has no row among the floors of {part}"));
                continue;
            }
            let outside = match (floors, floor) {
                (Some(floors), Some(floor)) => &floors[floor].1,
                _ => may_name,
            };
            for target in targets {
                let allowed = match target {
                    Target::Module(other) if other.is_empty() => false,
                    Target::Module(other) if other[0] == *part => match (floor, self.floor(other)) {
                        (Some(own), Some(other)) => other <= own,
                        // The contents page itself, where a path could not be followed through it.
                        (Some(_), None) => false,
                        (None, _) => true,
                    },
                    Target::Module(other) => may_name.contains(&other[0]),
                    Target::Outside(path) if matches!(path[0].as_str(), "std" | "core" | "alloc") => true,
                    Target::Outside(path) => outside.contains(&path[0]),
                };
                if !allowed {
                    wrong.push(format!("{place} names {}", name_of(target)));
                }
            }
        }
        for (part, _) in &self.parts {
            if !arrows.contains_key(std::slice::from_ref(part)) {
                wrong.push(format!("{part} has a row and is no part"));
            }
        }
        for (part, floors) in &self.floors {
            for (floor, _) in floors {
                if !arrows.contains_key([part.clone(), floor.clone()].as_slice()) {
                    wrong.push(format!("{part}::{floor} has a row and is no floor"));
                }
            }
        }
        wrong
    }
}

fn name_of(target: &Target) -> String {
    match target {
        Target::Module(path) => format!("crate::{}", path.join("::")),
        Target::Outside(path) => path.join("::"),
    }
}

fn in_backticks(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Names of the crates that a manifest depends on, as code names them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in std::fs::read_to_string(manifest).unwrap().lines() {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.ends_with("dependencies]") && !table.contains("workspace");
        } else if inside
            && let Some((name, _)) = line.split_once(['.', ' ', '='])
            && !name.is_empty()
            && !name.starts_with('#')
        {
            names.push(name.replace('-', "_"));
        }
    }
    names
}

fn library() -> CrateGraph {
    let outside = dependencies("Cargo.toml");
    let outside: Vec<&str> = outside.iter().map(String::as_str).collect();
    assert!(["redb", "burn", "faer"].iter().all(|name| outside.contains(name)), "{outside:?}");
    CrateGraph::read(Path::new("src/lib.rs"), &outside)
}

fn design() -> Design {
    Design::read(&std::fs::read_to_string("docs/design.md").unwrap())
}

#[test]
fn every_part_names_only_what_the_design_allows() {
    let graph = library();
    let wrong = design().violations(&graph);
    assert!(wrong.is_empty(), "{} arrows run the wrong way:\n{}", wrong.len(), wrong.join("\n"));
    let arrows: usize = graph.arrows().values().map(BTreeSet::len).sum();
    assert!(arrows > 1_000, "only {arrows} arrows were found: the check has stopped checking");
}

/// Files that name each other, directly or through others.
fn circles(graph: &CrateGraph) -> Vec<String> {
    let arrows = graph.arrows();
    let reached = |from: &Vec<String>| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = left.pop() {
            for target in &arrows[&at] {
                if let Target::Module(to) = target
                    && arrows.contains_key(to)
                    && seen.insert(to.clone())
                {
                    left.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> =
        arrows.keys().map(|module| (module, reached(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, others) in &reached {
        if others.contains(*module) {
            let back = |other: &&Vec<String>| reached[*other].contains(*module);
            let circle: Vec<String> = others.iter().filter(back).map(|path| path.join("::")).collect();
            circles.insert(circle.join(", "));
        }
    }
    circles.into_iter().collect()
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let program = CrateGraph::read(Path::new("cli/src/lib.rs"), &[]);
    let format = CrateGraph::read(Path::new("format/src/lib.rs"), &[]);
    for graph in [library(), program, format] {
        let found = circles(&graph);
        assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n"));
    }
}

#[test]
fn only_the_mapping_of_files_is_unsafe() {
    fn look(folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path);
            } else if std::fs::read_to_string(&path).unwrap().lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
            }) {
                assert_eq!(path, Path::new("src/mapping.rs"));
            }
        }
    }
    look(Path::new("src"));
    look(Path::new("format/src"));
}

#[test]
fn the_format_crate_touches_no_file_clock_or_database() {
    let outside = dependencies("format/Cargo.toml");
    let outside: Vec<&str> = outside.iter().map(String::as_str).collect();
    let arrows = CrateGraph::read(Path::new("format/src/lib.rs"), &outside).arrows();
    let mut seen = 0;
    for (module, targets) in &arrows {
        for target in targets {
            let Target::Outside(path) = target else { continue };
            seen += 1;
            let second = path.get(1).map_or("", String::as_str);
            let allowed = match path[0].as_str() {
                "std" | "core" | "alloc" => {
                    !matches!(second, "fs" | "io" | "time" | "net" | "thread" | "process" | "env")
                }
                name => matches!(name, "bincode" | "crc32fast" | "serde" | "half"),
            };
            assert!(allowed, "{} names {}", module.join("::"), path.join("::"));
        }
    }
    assert!(seen > 20, "only {seen} names were found: the check has stopped checking");
}

/// The check over a crate of these files, each a name and a text.
fn checked(design: &str, files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let design = Design::read(&format!("\n## 3. x\n{design}"));
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned())
    };
    let graph = CrateGraph::parse(Path::new("lib.rs"), &["redb", "serde"], &read);
    (design.violations(&graph), circles(&graph))
}

const TABLES: &str = "| `policy` | | x |\n| `index` | `policy` | x |\n| `store` | `index`, `policy` | x |\n\
    ### Floors of `store`\n| `file` | `redb` | x |\n| `read` | `serde` | x |\n";

/// A crate in which every arrow is right, but for what stands in these two files.
fn with(policy: &str, read: &str) -> (Vec<String>, Vec<String>) {
    checked(
        TABLES,
        &[
            ("lib.rs", "mod index; mod policy; mod store; pub use store::Store;"),
            ("policy.rs", policy),
            ("index.rs", "use crate::policy::Rank; pub struct Near(Rank);"),
            ("store/mod.rs", "mod file; mod read; pub use read::Store; pub(crate) use file::*;"),
            ("store/file.rs", "use redb::Database; pub struct Handle(Database);"),
            ("store/read.rs", read),
        ],
    )
}

#[test]
fn an_arrow_that_runs_the_wrong_way_is_seen_however_it_is_written() {
    let rank = "pub struct Rank;";
    let read = "use crate::index::Near; use super::file::Handle; pub struct Store(Near, Handle);";
    assert_eq!(with(rank, read), (vec![], vec![]));
    // Through the front, through `super`, in an expression, in a macro, under another name, and only in a type.
    for upward in [
        "use crate::Store; pub struct Rank;",
        "use super::store::Store; pub struct Rank;",
        "use super::{index, store::{Store}}; pub struct Rank;",
        "pub struct Rank; fn f() { crate::store::Store::open() }",
        "pub struct Rank; fn f() { println!(\"{}\", crate::Store::name()) }",
        "use crate as whole; pub struct Rank; fn f() { whole::Store::open() }",
        "use crate::*; pub struct Rank; fn f(_: &Store) {}",
        "pub struct Rank; fn f(_: Option<&crate::store::Store>) {}",
        "pub struct Rank; mod inner { use super::super::store::Store; }",
        "#[derive(crate::Store)] pub struct Rank;",
        "extern crate self as me; pub struct Rank; fn f() { me::store::Store::open() }",
        "pub struct Rank; pub fn f() { mod m { pub use crate::Store; } m::Store::open(); }",
        "pub(self) use crate::Store as _; pub struct Rank;",
        "pub struct Rank; fn f() { println!(\"a \\\" {}\", crate::Store::name()) }",
        "pub struct Rank; fn f() { some!(b, [a, crate::store::Store]) }",
    ] {
        let (wrong, _) = with(upward, read);
        assert!(wrong.iter().any(|line| line.contains("crate::store::read")), "{upward}: {wrong:?}");
    }
    // What only tests name is no arrow.
    let tested = "pub struct Rank; #[cfg(test)] mod tests { use crate::Store; }";
    assert_eq!(with(tested, read), (vec![], vec![]));
    for redb in ["use redb as db; pub struct Rank(db::Database);", "#[derive(redb::Key)] pub struct Rank;"] {
        let (wrong, _) = with(redb, read);
        assert!(wrong.iter().any(|line| line.contains("policy names redb")), "{redb}: {wrong:?}");
    }
    // A database where it does not belong; a floor that names what stands above it.
    let (wrong, _) = with(rank, "use redb::Database; pub struct Store(Database);");
    assert_eq!(wrong, ["store::read names redb::Database"]);
    let (wrong, circle) = checked(
        TABLES,
        &[
            ("lib.rs", "mod index; mod policy; mod store;"),
            ("policy.rs", "pub struct Rank;"),
            ("index.rs", ""),
            ("store/mod.rs", "mod file; mod read; pub use read::Store; pub(crate) use file::*;"),
            ("store/file.rs", "use super::Store; pub struct Handle(Store);"),
            ("store/read.rs", "use super::Handle; pub struct Store(Handle);"),
        ],
    );
    assert_eq!(wrong, ["store::file names crate::store::read"]);
    assert_eq!(circle, ["store::file, store::read"]);
}

#[test]
fn a_part_without_a_row_and_a_row_without_a_part_are_seen() {
    let files = [("lib.rs", "mod index; mod policy;"), ("index.rs", ""), ("policy.rs", "")];
    let (wrong, _) = checked("| `index` | | x |\n| `gone` | | x |\n", &files);
    assert_eq!(wrong, ["policy has no row among the parts", "gone has a row and is no part"]);
}
