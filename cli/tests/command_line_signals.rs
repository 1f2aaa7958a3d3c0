//! Ctrl-C: what is done stays, files are closed, and the program says how to go on.
#![cfg(unix)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod shell;

use apcm::Store;
use apcm::ingest::npy;
use common::noise;
use shell::Shell;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a command and sends it a signal after a while; its exit code and what it said.
fn stopped(shell: &Shell, line: &[&str], signal: &str, after: u64) -> (i32, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_apcm"))
        .args(line)
        .current_dir(shell.home.folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until_it_listens(child.id());
    std::thread::sleep(Duration::from_millis(after));
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), None, "{line:?} died of the signal");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Before that a signal ends any process; Linux tells which signals one catches.
fn wait_until_it_listens(process: u32) {
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
        u64::from_str_radix(&mask, 16).ok()
    };
    for _ in 0..1_000 {
        // SIGINT is 2, SIGTERM 15.
        if caught().is_none_or(|mask| mask & (1 << 1) != 0 && mask & (1 << 14) != 0) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never listens to signals");
}

fn names(shell: &Shell) -> Vec<String> {
    let entries = std::fs::read_dir(shell.home.folder.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_ingest_that_is_stopped_goes_on_and_readers_are_not_kept_out() {
    let shell = Shell::new();
    shell.filled();
    let rows = 60_000;
    npy::write(&shell.home.file("many.npy"), &[rows, 12], &noise(rows * 12, 7)).unwrap();
    shell.json(&["create", "big.apcm", "--codec", "a.codec", "--capacity", "60000"]);
    let ingest = ["ingest", "big.apcm", "many.npy", "--keys", "row", "--batch", "10"];
    let mut stops = 0;
    for signal in ["-INT", "-TERM"] {
        let (code, text) = stopped(&shell, &[&ingest[..], &["--resume"]].concat(), signal, 400);
        assert_eq!(code, 130, "{text}");
        assert!(text.contains("stopped; ") && text.contains("--resume goes on"), "{text}");
        stops += 1;
        // Closed cleanly: a reader opens it at once.
        let found = Store::open_read_only(shell.home.file("big.apcm")).unwrap().len();
        assert!(found < rows, "{found} after {stops} stops");
        assert!(text.contains(&format!("{found} records are in")), "{text}, {found}");
    }
    let rest = shell.json(&["ingest", "big.apcm", "many.npy", "--keys", "row", "--resume"]);
    assert_eq!(rest["first"].as_u64().unwrap() + rest["ingested"].as_u64().unwrap(), rows as u64);
    assert_eq!(shell.json(&["stats", "big.apcm"])["occupied"], rows);

    // A recode keeps what it moved; a backup leaves nothing.
    let before = names(&shell);
    let recode = ["recode", "big.apcm", "--codec", "a.codec", "--out", "moved.apcm"];
    shell.json(&["train", "data.npy", "--bytes", "6", "--steps", "20", "--out", "b.codec"]);
    let recode = recode.map(|word| if word == "a.codec" { "b.codec" } else { word });
    let (code, text) = stopped(&shell, &recode, "-INT", 500);
    assert!(code == 130 && text.contains("the same command goes on"), "{code}: {text}");
    assert!(names(&shell).iter().any(|name| name.ends_with(".recoding")), "{:?}", names(&shell));
    let report = shell.json(&recode);
    assert!(report["records"] == rows && report["resumed"].as_u64().unwrap() > 0, "{report}");
    let (code, text) = stopped(&shell, &["backup", "big.apcm", "--out", "copy.apcm"], "-INT", 0);
    assert!(code == 130 && text.contains("nothing was written"), "{code}: {text}");
    let left: Vec<String> = names(&shell).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(left, ["b.codec", "moved.apcm"]);
}

#[test]
fn a_training_that_is_stopped_keeps_what_it_has() {
    let shell = Shell::new();
    npy::write(&shell.home.file("data.npy"), &[2_000, 64], &noise(2_000 * 64, 5)).unwrap();
    let line =
        ["train", "data.npy", "--bytes", "16", "--steps", "1000000", "--minutes", "5", "--out", "a.codec"];
    let (code, text) = stopped(&shell, &line, "-INT", 4_000);
    assert!(code == 130 && text.contains("a.codec holds"), "{code}: {text}");
    shell.json(&["create", "m.apcm", "--codec", "a.codec", "--capacity", "10"]);
    // What is there is not overwritten by accident.
    let (code, text) =
        shell.fails(&["train", "data.npy", "--bytes", "16", "--steps", "5", "--out", "a.codec"]);
    assert!(code == 1 && text.contains("there already"), "{text}");
    shell.json(&["train", "data.npy", "--bytes", "16", "--steps", "5", "--out", "a.codec", "--force"]);
    let line = [
        "report",
        "--train",
        "data.npy",
        "--bytes",
        "16",
        "--out",
        "r",
        "--minutes",
        "5",
        "--steps",
        "1000000",
    ];
    let (code, text) = stopped(&shell, &line, "-TERM", 4_000);
    assert!(code == 130 && text.contains("nothing was written"), "{code}: {text}");
    assert!(!shell.home.file("r").exists());
}

/// What is decoded from a store that is its owner's alone is its owner's alone.
#[test]
fn decoded_files_have_the_permissions_of_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let shell = Shell::new();
    shell.filled();
    let mode = |name: &str| std::fs::metadata(shell.home.file(name)).unwrap().permissions().mode() & 0o777;
    for (wanted, mask) in [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644)] {
        let store = shell.home.file("m.apcm");
        std::fs::set_permissions(&store, std::fs::Permissions::from_mode(mask)).unwrap();
        shell.json(&["get", "m.apcm", "7", "--out", "seven.npy"]);
        shell.json(&["export", "m.apcm", "--out", "all"]);
        for name in ["seven.npy", "all/records.npy", "all/records.jsonl"] {
            assert_eq!(mode(name), wanted, "{name}");
        }
    }
}
