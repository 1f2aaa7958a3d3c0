//! One way for the data to flow: every `use` in `src/` and `format/` is checked against the table of the design.
//!
//! The table is here and in `docs/design.md`, section 3; a change of one is a change of both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Part of the crate, and what it may name: other parts, then outside crates that not everybody may use.
const TABLE: [(&str, &[&str], &[&str]); 23] = [
    ("claim", &[], &[]),
    ("paged", &["claim"], &[]),
    ("error", &["claim"], &[]),
    ("record", &["error"], &[]),
    ("mapping", &["error"], &["memmap2"]),
    ("filter", &["error"], &[]),
    ("policy", &["claim", "paged"], &[]),
    ("summary", &[], &[]),
    ("clock", &[], &[]),
    ("whole_file", &["error"], &["tempfile", "rustix"]),
    ("memory", &["record"], &[]),
    ("search", &["error", "record", "filter", "index", "memory"], &[]),
    ("stored", &["error", "record", "codec", "memory"], &[]),
    ("index", &["claim", "paged"], &["faer", "pulp"]),
    ("sequence", &["codec", "error", "record", "whole_file"], &[]),
    (
        "codec",
        &["error", "record", "whole_file"],
        &[
            "burn",
            "constriction",
            "faer",
            "flate2",
            "rayon",
            "blake3",
            "half",
            "pulp",
            "tempfile",
            "serde_json",
        ],
    ),
    (
        "pack",
        &["claim", "clock", "codec", "error", "index", "mapping", "memory", "record", "search", "stored"],
        &["bytemuck", "rustix"],
    ),
    (
        "store",
        &[
            "claim",
            "clock",
            "codec",
            "error",
            "filter",
            "index",
            "memory",
            "pack",
            "paged",
            "policy",
            "record",
            "search",
            "sequence",
            "stored",
            "summary",
            "whole_file",
        ],
        &["redb", "parking_lot", "fs4", "rustix", "tempfile"],
    ),
    (
        "ingest",
        &["error", "record", "codec", "store", "mapping", "whole_file"],
        &["blake3", "flate2", "half", "serde_json"],
    ),
    ("report", &["error", "record", "codec", "summary", "whole_file"], &["png", "embedded_graphics"]),
    (
        "cli",
        &[
            "error",
            "record",
            "codec",
            "sequence",
            "store",
            "pack",
            "ingest",
            "report",
            "filter",
            "summary",
            "whole_file",
        ],
        &["clap", "clap_complete", "indicatif", "serde_json", "signal_hook", "tempfile"],
    ),
    (
        "lib",
        &[
            "cli", "codec", "error", "filter", "index", "ingest", "memory", "pack", "record", "report",
            "search", "sequence", "store", "summary",
        ],
        &[],
    ),
    ("main", &["cli"], &[]),
];

/// Outside crates that are somebody's business and nobody else's.
const RESTRICTED: [&str; 22] = [
    "rustix",
    "bytemuck",
    "pulp",
    "burn",
    "constriction",
    "faer",
    "redb",
    "memmap2",
    "parking_lot",
    "fs4",
    "flate2",
    "clap",
    "clap_complete",
    "indicatif",
    "png",
    "embedded_graphics",
    "blake3",
    "bincode",
    "crc32fast",
    "half",
    "rayon",
    "tempfile",
];

/// Names of parts that `use crate::Name` reaches through the crate's front.
const FRONT: [(&str, &str); 4] =
    [("Device", "codec"), ("Preset", "format"), ("Similarity", "format"), ("Error", "error")];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Code without comments and without its test module, which may use what it likes.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every identifier that follows `prefix`, as in `crate::codec`; groups (`crate::{a, b}`) are taken apart.
fn named_after(code: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' || before == ':' {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            found.push(name);
        } else {
            found.push(rest.to_owned());
        }
    }
    found
        .into_iter()
        .map(|name| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| !name.is_empty() && name != "self")
        .collect()
}

#[test]
fn every_part_names_only_what_the_design_allows() {
    let src = PathBuf::from("src");
    let table: BTreeMap<&str, (&[&str], &[&str])> =
        TABLE.into_iter().map(|(part, a, b)| (part, (a, b))).collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in files(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let part =
            relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let (parts, crates) =
            *table.get(part).unwrap_or_else(|| panic!("{part} is not in the table of layers"));
        let code = code(&path);
        for name in named_after(&code, "crate::").into_iter().chain(named_after(&code, "apcm::")) {
            let named =
                FRONT.iter().find(|(front, _)| *front == name).map_or(name.as_str(), |(_, part)| part);
            checked += 1;
            let allowed = named == part || named == "format" || parts.contains(&named);
            if !allowed && table.contains_key(named) {
                wrong.push(format!("{} uses crate::{name}", relative.display()));
            }
        }
        for restricted in RESTRICTED {
            let uses = code.contains(&format!("use {restricted}::"))
                || !named_after(&code, &format!("{restricted}::")).is_empty();
            checked += usize::from(uses);
            if uses && !crates.contains(&restricted) {
                wrong.push(format!("{} uses {restricted}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these arrows run the wrong way:\n{}", wrong.join("\n"));
    assert!(checked > 100, "only {checked} names were found: the check has stopped checking");
}

#[test]
fn only_the_codec_and_its_flow_know_burn_and_only_tables_know_redb() {
    let src = PathBuf::from("src");
    for path in files(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let code = code(&path);
        if !named_after(&code, "burn::").is_empty() {
            assert!(relative.starts_with("codec"), "{}", relative.display());
        }
        if !named_after(&code, "redb::").is_empty() {
            assert!(relative.starts_with("store"), "{}", relative.display());
        }
        if code.contains("unsafe {") || code.contains("unsafe fn") {
            assert_eq!(relative, Path::new("mapping.rs"));
        }
    }
}

#[test]
fn the_format_crate_touches_no_file_clock_or_database() {
    let src = PathBuf::from("format/src");
    for path in files(&src) {
        let code = code(&path);
        for forbidden in
            ["std::fs", "std::io", "std::time", "std::net", "std::thread", "redb::", "burn::", "rand::"]
        {
            assert!(!code.contains(forbidden), "{} uses {forbidden}", path.display());
        }
    }
}

#[test]
fn an_arrow_that_runs_the_wrong_way_is_seen() {
    assert_eq!(named_after("use crate::store::Store;", "crate::"), ["store"]);
    assert_eq!(
        named_after("use crate::{store::Store, codec::{self, Codec}};", "crate::"),
        ["store", "codec"]
    );
    assert_eq!(named_after("let x = redb::Database::open(p);", "redb::"), ["Database"]);
    assert!(named_after("use mycrate::store;", "crate::").is_empty());
}
