//! The program on damaged files: verify, repair, salvage, backup, compact, and reading around the damage.

#[path = "../../tests/common/mod.rs"]
mod common;
mod shell;

use apcm::ingest::npy;
use common::noise;
use redb::ReadableTable;
use serde_json::Value;
use shell::Shell;

const SLOTS: redb::TableDefinition<'static, u32, &[u8]> = redb::TableDefinition::new("slots");

/// A byte of the record in slot 4 changed.
fn damage(shell: &Shell) {
    let database = redb::Database::open(shell.home.file("m.apcm")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(SLOTS).unwrap();
        let mut bytes = table.get(4).unwrap().unwrap().value().to_vec();
        bytes[20] ^= 1;
        table.insert(4, bytes.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

/// Runs a command that prints its findings and ends with a code of its own.
fn found(shell: &Shell, line: &[&str], code: i32) -> Value {
    let output = shell.run(&[line, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn damage_is_found_planned_mended_and_salvaged() {
    let shell = Shell::new();
    shell.filled();
    let whole = found(&shell, &["verify", "m.apcm"], 0);
    assert_eq!((&whole["ok"], &whole["damaged"]), (&true.into(), &0.into()));
    assert_eq!((&whole["slots_checked"], &whole["keys_checked"]), (&100.into(), &100.into()));
    assert_eq!(found(&shell, &["repair", "m.apcm"], 0)["steps"], serde_json::json!([]));

    damage(&shell);
    npy::write(&shell.home.file("four.npy"), &[12], &noise(2_400, 5)[48..60]).unwrap();
    npy::write(&shell.home.file("seven.npy"), &[12], &noise(2_400, 5)[84..96]).unwrap();
    let report = found(&shell, &["verify", "m.apcm"], 4);
    assert_eq!(
        (&report["ok"], &report["damaged"], &report["slots_checked"]),
        (&false.into(), &1.into(), &100.into())
    );
    assert_eq!((&report["findings"][0]["slot"], &report["pages_ok"]), (&4.into(), &true.into()));
    // The damaged memory is an error, all others are there.
    let (code, text) = shell.fails(&["get", "m.apcm", "4", "--out", "x.npy"]);
    assert!(code == 4 && text.contains("slot 4"), "{text}");
    shell.json(&["get", "m.apcm", "7", "--out", "x.npy"]);
    let hits = shell.json(&["search", "m.apcm", "--queries", "seven.npy", "--k", "1"]);
    assert_eq!(hits[0]["hits"][0]["key"], "7");
    assert_eq!(shell.json(&["stats", "m.apcm"])["damaged"], 1);

    // A plan changes nothing; applied, it frees the slot, and only that.
    for _ in 0..2 {
        let plan = found(&shell, &["repair", "m.apcm"], 4);
        assert_eq!((&plan["applied"], &plan["memories_lost"]), (&false.into(), &1.into()));
    }
    let saved = shell.json(&["salvage", "m.apcm", "--out", "saved.apcm"]);
    assert_eq!((&saved["memories"], &saved["slots_lost"]), (&99.into(), &1.into()));
    let mended = found(&shell, &["repair", "m.apcm", "--apply"], 0);
    assert_eq!(mended["applied"], true);
    for file in ["m.apcm", "saved.apcm"] {
        assert_eq!(found(&shell, &["verify", file], 0)["slots_checked"], 99, "{file}");
        assert_eq!(shell.fails(&["get", file, "4", "--out", "x.npy"]).0, 3);
        shell.json(&["get", file, "7", "--out", "x.npy"]);
        shell.json(&["put", file, "4", "four.npy"]);
        assert_eq!(shell.json(&["stats", file])["occupied"], 100);
    }

    let backup = shell.json(&["backup", "m.apcm", "--out", "b.apcm"]);
    assert_eq!(backup["memories"], 100);
    assert_eq!(shell.json(&["list", "b.apcm"]), shell.json(&["list", "m.apcm"]));
    let compacted = shell.json(&["compact", "m.apcm"]);
    assert!(compacted["bytes_after"].as_u64() <= compacted["bytes_before"].as_u64());
    assert!(found(&shell, &["verify", "m.apcm"], 0)["ok"] == true);

    // What a person sees.
    let text = String::from_utf8(shell.run(&["verify", "m.apcm"]).stdout).unwrap();
    assert!(text.contains("nothing is damaged") && text.contains("slots"), "{text}");
    for (line, code, part) in [
        (&["verify", "nowhere"][..], 1, "nowhere"),
        (&["verify", "data.npy"], 4, "not an apcm store"),
        (&["backup", "m.apcm", "--out", "b.apcm"], 1, "there already"),
        (&["salvage", "m.apcm", "--out", "b.apcm"], 1, "there already"),
        (&["salvage", "data.npy", "--out", "c.apcm"], 4, "not an apcm store"),
        (&["compact", "data.npy"], 4, "not an apcm store"),
    ] {
        let (found, text) = shell.fails(line);
        assert!(found == code && text.contains(part), "{line:?}: {text}");
    }
    let holder = apcm::Store::open(shell.home.file("m.apcm")).unwrap();
    for command in ["verify", "repair", "compact"] {
        assert_eq!(shell.fails(&[command, "m.apcm"]).0, 5, "{command}");
    }
    drop(holder);
}

#[test]
fn a_pack_is_made_searched_verified_and_unpacked() {
    let shell = Shell::new();
    shell.filled();
    npy::write(&shell.home.file("seven.npy"), &[12], &noise(2_400, 5)[84..96]).unwrap();
    let report = shell.json(&["pack", "m.apcm", "--out", "m.apack"]);
    let bytes = std::fs::metadata(shell.home.file("m.apack")).unwrap().len();
    assert_eq!((&report["memories"], &report["bytes"]), (&100.into(), &bytes.into()));
    let search = |file| shell.json(&["search", file, "--queries", "seven.npy", "--k", "5"]);
    assert_eq!(search("m.apack"), search("m.apcm"));
    let get = |file: &str, out: &str| {
        shell.json(&["get", file, "7", "--out", out]);
        std::fs::read(shell.home.file(out)).unwrap()
    };
    assert!(get("m.apack", "a.npy") == get("m.apcm", "b.npy"));
    assert_eq!(shell.json(&["verify", "m.apack"])["pack"]["keys"], 100);
    let (code, text) = shell.fails(&["get", "m.apack", "700", "--out", "x.npy"]);
    assert!(code == 3 && text.contains("700"), "{text}");

    assert_eq!(shell.json(&["unpack", "m.apack", "--out", "again.apcm"])["memories"], 100);
    assert_eq!(search("again.apcm"), search("m.apcm"));
    assert!(found(&shell, &["verify", "again.apcm"], 0)["ok"] == true);
    let report = shell.json(&["unpack", "m.apack", "--into", "m.apcm"]);
    let expected = serde_json::json!([100, 0, false]);
    assert_eq!(serde_json::json!([report["memories"], report["evicted"], report["encoded_again"]]), expected);
    assert_eq!(shell.json(&["stats", "m.apcm"])["occupied"], 100, "keys replace what has them");

    let (code, text) = shell.fails(&["unpack", "m.apack", "--out", "again.apcm"]);
    assert!(code == 1 && text.contains("there already"), "{text}");
    let (code, text) = shell.fails(&["unpack", "m.apcm", "--out", "x.apcm"]);
    assert!(code == 4 && text.contains("not an apcm pack") && text.contains("apcm pack"), "{text}");
    assert_eq!(shell.fails(&["unpack", "m.apack"]).0, 2);
    let mut flipped = std::fs::read(shell.home.file("m.apack")).unwrap();
    flipped[9_000] ^= 4;
    std::fs::write(shell.home.file("flipped.apack"), flipped).unwrap();
    let (code, text) = shell.fails(&["verify", "flipped.apack"]);
    assert!(code == 4 && text.contains("damaged"), "{text}");
    assert_eq!(found(&shell, &["verify", "flipped.apack"], 4)["ok"], false);

    // Any number of processes at once.
    let searches: Vec<_> = (0..4)
        .map(|_| {
            std::process::Command::new(env!("CARGO_BIN_EXE_apcm"))
                .args(["search", "m.apack", "--queries", "seven.npy", "--k", "5", "--json"])
                .current_dir(shell.home.folder.path())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for search in searches {
        let output = search.wait_with_output().unwrap();
        let hits: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(hits, shell.json(&["search", "m.apack", "--queries", "seven.npy", "--k", "5"]));
    }
}
