//! Lines of code, comments and prose fit into 112 columns.

use std::path::{Path, PathBuf};

const COLUMNS: usize = 112;

/// Files that are read by people: not what a tool wrote, nor data.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !matches!(name, ".git" | "target" | "corpus" | "seeds" | "data" | "artifacts") {
                files(&path, found);
            }
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// Numbers of the lines that are too long. Exempt are rows of tables and fenced text in prose, and string
/// literals in code.
fn too_long(text: &str, prose: bool) -> Vec<usize> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        fenced ^= prose && line.trim_start().starts_with("```");
        let code = line.split("//").next().unwrap_or_default();
        let text = code.contains('"') || code.trim_end().ends_with('\\');
        let exempt = if prose { fenced || line.starts_with('|') } else { text };
        if !exempt && line.chars().count() > COLUMNS {
            found.push(number);
        }
    }
    found
}

#[test]
fn no_line_is_too_long() {
    let mut all = Vec::new();
    files(Path::new("."), &mut all);
    assert!(all.len() > 200, "only {} files were found", all.len());
    let mut long = Vec::new();
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        let prose = path.extension().is_some_and(|extension| extension == "md");
        long.extend(too_long(&text, prose).into_iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(long.is_empty(), "{} lines are longer than {COLUMNS} columns:\n{}", long.len(), long.join("\n"));
}

#[test]
fn a_line_that_is_too_long_is_seen() {
    let long = "x".repeat(COLUMNS + 1);
    assert_eq!(too_long(&format!("short\n{long}\n"), false), [2]);
    assert_eq!(too_long(&format!("| {long} |\n```\n{long}\n```\n{long}\n"), true), [5]);
    assert!(too_long(&"y".repeat(COLUMNS), false).is_empty());
    assert_eq!(too_long(&format!("let text = \"{long}\";\n/// says \"{long}\"\n"), false), [2]);
}
