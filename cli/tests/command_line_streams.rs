//! The program where streams are concerned: train a tree, append, recall, list, remove.

#[path = "../../tests/common/mod.rs"]
mod common;
mod shell;

use apcm::ingest::{Dataset, npy};
use shell::Shell;

/// Points of four numbers on their way round a circle.
fn walk(steps: usize) -> Vec<f32> {
    let step = |i: usize| {
        let (a, b) = (i as f32 / 5.0, i as f32 / 7.0);
        [a.sin(), a.cos(), b.sin(), b.cos()]
    };
    (0..steps).flat_map(step).collect()
}

fn shell() -> Shell {
    let shell = Shell::new();
    npy::write(&shell.home.file("walk.npy"), &[320, 4], &walk(320)).unwrap();
    npy::write(&shell.home.file("some.npy"), &[20, 4], &walk(20)).unwrap();
    npy::write(&shell.home.file("one.npy"), &[4], &walk(1)).unwrap();
    npy::write(&shell.home.file("wrong.npy"), &[2, 5], &[0.5; 10]).unwrap();
    shell.json(&[
        "train",
        "walk.npy",
        "--quantizer",
        "f32",
        "--bytes",
        "16",
        "--steps",
        "0",
        "--out",
        "a.codec",
    ]);
    shell.json(&["create", "m.apcm", "--codec", "a.codec", "--capacity", "9"]);
    shell
}

#[test]
fn a_stream_from_the_program() {
    let shell = shell();
    let trained = shell.json(&[
        "train",
        "walk.npy",
        "--sequence",
        "16",
        "--state",
        "12",
        "--steps",
        "20",
        "--out",
        "w.tree",
    ]);
    assert_eq!(
        (&trained["capacity"], &trained["state"], &trained["sequences"]),
        (&16.into(), &12.into(), &20.into())
    );
    assert_eq!(trained["levels"].as_array().unwrap().len(), 5);
    shell.json(&["stream", "tree", "m.apcm", "w.tree"]);
    let appended = shell.json(&["stream", "append", "m.apcm", "walk", "some.npy"]);
    assert_eq!((&appended["first"], &appended["len"]), (&0.into(), &20.into()));
    assert_eq!(shell.json(&["stream", "append", "m.apcm", "walk", "one.npy"])["first"], 20);
    let listed = shell.json(&["stream", "list", "m.apcm"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["records"], &listed[0]["parts"]),
        (&"walk".into(), &21.into(), &2.into())
    );
    let recalled =
        shell.json(&["stream", "recall", "m.apcm", "walk", "--from", "3", "--to", "18", "--out", "r.npy"]);
    assert_eq!((recalled["indices"].as_array().unwrap().len(), &recalled["indices"][0]), (15, &3.into()));
    let records = Dataset::open(shell.home.file("r.npy")).unwrap().load().unwrap();
    assert_eq!(records.len(), 15);
    for (found, exact) in records.values().iter().zip(&walk(18)[12..]) {
        assert!((found - exact).abs() < 0.3, "{found} and {exact}");
    }
    let all = shell.json(&["stream", "recall", "m.apcm", "walk", "--out", "all.npy"]);
    assert_eq!(all["errors"].as_array().unwrap().len(), 21);
    let found = shell.json(&["search", "m.apcm", "--queries", "one.npy", "--filter", "stream = 'walk'"]);
    assert_eq!(found[0]["hits"].as_array().unwrap().len(), 2);
    assert_eq!(shell.json(&["verify", "m.apcm"])["streams_checked"], 1);
    // In words.
    let words = shell.run(&["stream", "list", "m.apcm"]);
    assert_eq!(String::from_utf8(words.stdout).unwrap(), "walk  21 records in 2 parts, of 21 ever\n");
    assert_eq!(shell.json(&["stream", "remove", "m.apcm", "walk"])["parts"], 2);
    assert!(shell.json(&["stream", "list", "m.apcm"]).as_array().unwrap().is_empty());
}

#[test]
fn what_cannot_be_has_its_exit_code_and_one_line() {
    let shell = shell();
    shell.json(&["train", "walk.npy", "--sequence", "8", "--state", "8", "--steps", "0", "--out", "w.tree"]);
    let long = "x".repeat(256);
    let recall = ["stream", "recall", "m.apcm", "walk", "--out", "x.npy"];
    for (line, code, part) in [
        (&["stream", "append", "m.apcm", "walk", "some.npy"][..], 2, "sweeper tree"),
        (&["stream", "append", "m.apcm", "", "some.npy"], 2, "1 to 255 bytes"),
        (&["stream", "append", "m.apcm", &long, "some.npy"], 2, "256 bytes"),
        (&["stream", "tree", "m.apcm", "a.codec"], 6, "flow"),
        (&["stream", "tree", "m.apcm", "some.npy"], 4, "codec image"),
        (&recall, 3, "nothing of a stream \"walk\""),
        (&["stream", "remove", "m.apcm", "walk"], 3, "walk"),
        (&["train", "walk.npy", "--sequence", "1", "--out", "x"], 2, "2 to 320"),
        (&["train", "walk.npy", "--sequence", "8", "--bytes", "9", "--out", "x"], 2, "cannot be used with"),
        (&["train", "walk.npy", "--out", "x"], 2, "--bytes"),
    ] {
        let (found, said) = shell.fails(line);
        assert!(found == code && said.contains(part), "{line:?}: {found}, {said}");
    }
    shell.json(&["stream", "tree", "m.apcm", "w.tree"]);
    shell.json(&["stream", "append", "m.apcm", "walk", "some.npy"]);
    let beyond = shell.fails(&[&recall[..], &["--from", "5", "--to", "30"]].concat());
    assert!(beyond.0 == 2 && beyond.1.contains("below 20, found 29"), "{beyond:?}");
    let wrong = shell.fails(&["stream", "append", "m.apcm", "walk", "wrong.npy"]);
    assert!(wrong.0 == 1 && wrong.1.contains("[4]"), "{wrong:?}");
}
