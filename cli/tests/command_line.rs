//! The program, as a user types it: what it prints, what it writes, how it ends.

#[path = "../../tests/common/mod.rs"]
mod common;
mod shell;

use apcm::ingest::npy;
use common::noise;
use shell::Shell;
use std::process::Command;

#[test]
fn the_commands_compose() {
    let shell = Shell::new();
    shell.filled();
    let stats = shell.json(&["stats", "m.apcm"]);
    for (field, expected) in [("capacity", 150), ("occupied", 100), ("free", 50), ("pinned", 0), ("reads", 0)]
    {
        assert_eq!(stats[field], expected, "{field}");
    }
    assert_eq!(stats["record_shape"], serde_json::json!([12]));
    // Codes of any length: twelve bytes on average, with what they need beside them.
    let code_bytes = stats["code_bytes"].as_f64().unwrap();
    assert!((9.0..=12.0).contains(&code_bytes), "{code_bytes}");
    let errors = &stats["errors"];
    assert_eq!(
        errors["histogram"].as_array().unwrap().iter().map(|bar| bar.as_u64().unwrap()).sum::<u64>(),
        100
    );
    assert!(
        errors["p50"].as_f64() <= errors["p95"].as_f64() && errors["p95"].as_f64() <= errors["max"].as_f64()
    );
    for field in ["slot_bytes", "file_bytes", "mean_error", "evictions", "evictions_never_read"] {
        assert!(stats[field].is_number(), "{field}");
    }
    for field in ["preset", "quantizer", "fingerprint", "parameters", "bytes"] {
        assert!(!stats["codec"][field].is_null(), "{field}");
    }

    npy::write(&shell.home.file("q.npy"), &[3, 12], &noise(2_400, 5)[12 * 7..12 * 10]).unwrap();
    let answers = shell.json(&["search", "m.apcm", "--queries", "q.npy", "--k", "2"]);
    let keys: Vec<&str> =
        answers.as_array().unwrap().iter().map(|answer| answer["hits"][0]["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["7", "8", "9"]);
    let hit = &answers[0]["hits"][0];
    assert!(
        hit["slot"].is_u64() && hit["seq"].is_u64() && hit["similarity"].is_f64() && hit["error"].is_f64()
    );

    let got = shell.json(&["get", "m.apcm", "7", "--out", "seven.npy"]);
    assert_eq!(got["key"], "7");
    let put =
        shell.json(&["put", "m.apcm", "again", "seven.npy", "--metadata", r#"{"kind": "copy"}"#, "--pin"]);
    assert!(put["evicted"].as_array().unwrap().is_empty());
    let found =
        shell.json(&["search", "m.apcm", "--queries", "seven.npy", "--k", "5", "--filter", "kind = 'copy'"]);
    assert_eq!(found[0]["hits"].as_array().unwrap().len(), 1);
    assert_eq!(found[0]["hits"][0]["key"], "again");
    assert_eq!(shell.json(&["stats", "m.apcm"])["pinned"], 1);
    shell.json(&["pin", "m.apcm", "again", "--off"]);
    assert_eq!(shell.json(&["policy", "m.apcm"])["policy"], "lfu");
    let changed = shell.json(&["policy", "m.apcm", "lfu-aged:300"]);
    assert_eq!((&changed["before"], &changed["policy"]), (&"lfu".into(), &"lfu-aged:300".into()));
    assert_eq!(shell.json(&["stats", "m.apcm"])["policy"], "lfu-aged:300");
    shell.json(&["policy", "m.apcm", "lfu"]);
    shell.json(&["create", "ring.apcm", "--codec", "a.codec", "--capacity", "9", "--policy", "fifo"]);
    assert_eq!(shell.json(&["stats", "ring.apcm"])["policy"], "fifo");
    let listed = shell.json(&["list", "m.apcm", "--filter", "exists kind"]);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["pinned"]), (1, &false.into()));
    shell.json(&["remove", "m.apcm", "again"]);

    // Two records without keys, then so many that the oldest leave.
    let inserted = shell.json(&["insert", "m.apcm", "q.npy"]);
    assert_eq!(inserted["ids"].as_array().unwrap().len(), 3);
    let report = shell.json(&["ingest", "m.apcm", "data.npy"]);
    assert_eq!(report["ingested"], 200);
    let stats = shell.json(&["stats", "m.apcm"]);
    assert_eq!((&stats["occupied"], &stats["evictions"]), (&150.into(), &153.into()));

    let exported = shell.json(&["export", "m.apcm", "--out", "out"]);
    assert_eq!(exported["records"], 150);
    let records = apcm::ingest::Dataset::open(shell.home.file("out/records.npy")).unwrap();
    assert_eq!((records.len(), records.shape().dims()), (150, vec![12]));
    let lines = std::fs::read_to_string(shell.home.file("out/records.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 150);
    // What was exported goes into a new store.
    shell.json(&[
        "create",
        "n.apcm",
        "--codec",
        "a.codec",
        "--capacity",
        "150",
        "--similarity",
        "centred-cosine",
    ]);
    let line = ["ingest", "n.apcm", "out/records.npy", "--metadata", "out/records.jsonl", "--resume"];
    assert_eq!(shell.json(&line)["ingested"], 150);
    assert_eq!(shell.json(&line)["ingested"], 0);
}

/// The real thing: the process is killed in the middle, and the next one goes on.
#[test]
fn an_ingest_that_was_killed_resumes_without_a_gap_or_a_double() {
    let shell = Shell::new();
    let rows = 4_000;
    npy::write(&shell.home.file("data.npy"), &[rows, 12], &noise(rows * 12, 5)).unwrap();
    shell.json(&["train", "data.npy", "--bytes", "12", "--steps", "0", "--out", "a.codec"]);
    shell.json(&["create", "m.apcm", "--codec", "a.codec", "--capacity", "5000"]);
    let line = ["ingest", "m.apcm", "data.npy", "--batch", "4", "--resume"];
    let mut kills = 0;
    for wait in [40, 80, 120, 160] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_apcm"))
            .args(line)
            .current_dir(shell.home.folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        // However far it got, also not at all or to the end: what follows must hold.
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let report = shell.json(&line);
    eprintln!("{kills} of 4 runs were killed under way; the last began at row {}", report["first"]);
    assert_eq!(report["first"].as_u64().unwrap() + report["ingested"].as_u64().unwrap(), rows as u64);
    shell.json(&["export", "m.apcm", "--out", "out"]);
    let load = |name: &str| apcm::ingest::Dataset::open(shell.home.file(name)).unwrap().load().unwrap();
    let (given, kept) = (load("data.npy"), load("out/records.npy"));
    assert_eq!(kept.len(), rows);
    // Slots were filled in order, so row i is in slot i. Two rows of this noise differ by 0.67 on average, a
    // row and its reconstruction by a thousandth of that.
    for (given, kept) in given.rows().zip(kept.rows()) {
        let error = given.iter().zip(kept).map(|(x, y)| (x - y).powi(2)).sum::<f32>() / 12.0;
        assert!(error < 0.02, "{error}");
    }
}

#[test]
fn every_failure_has_its_exit_code_and_one_line() {
    let shell = Shell::new();
    shell.filled();
    std::fs::write(shell.home.file("text"), "not a store").unwrap();
    npy::write(&shell.home.file("wrong.npy"), &[2, 5], &noise(10, 1)).unwrap();
    npy::write(&shell.home.file("few.npy"), &[3, 12], &noise(36, 1)).unwrap();
    npy::write(&shell.home.file("one.npy"), &[12], &noise(12, 1)).unwrap();
    npy::write(&shell.home.file("nan.npy"), &[1, 12], &[f32::NAN; 12]).unwrap();
    let create = ["create", "x.apcm", "--codec", "a.codec", "--capacity"];
    for (line, code, part) in [
        (&["get", "m.apcm", "nobody", "--out", "x.npy"][..], 3, "\"nobody\""),
        (&["remove", "m.apcm", "nobody"], 3, "nobody"),
        (&["pin", "m.apcm", "nobody"], 3, "nobody"),
        (&["stats", "text"], 4, "not an apcm store"),
        (&["stats", "nowhere"], 1, "nowhere"),
        (&["create", "m.apcm", "--codec", "a.codec", "--capacity", "9"], 1, "there already"),
        (&["create", "x.apcm", "--codec", "text", "--capacity", "9"], 4, "codec image"),
        (&[&create[..], &["0"]].concat(), 2, "found 0"),
        (&["policy", "m.apcm", "lfu-aged:0"], 2, "lfu-aged:HALF_LIFE"),
        (&[&create[..], &["4000000000"]].concat(), 2, "found 4000000000"),
        (&["search", "m.apcm", "--queries", "data.npy", "--k", "0"], 2, "found 0"),
        (&["search", "m.apcm", "--queries", "data.npy", "--filter", "kind ="], 2, "column 7"),
        (&["search", "m.apcm", "--queries", "wrong.npy"], 1, "[12]"),
        (&["ingest", "m.apcm", "wrong.npy"], 1, "[5]"),
        (&["ingest", "m.apcm", "text"], 1, "neither npy"),
        (&["insert", "m.apcm", "nan.npy"], 1, "NaN"),
        (&["put", "m.apcm", "k", "few.npy"], 2, "found 3"),
        (&["put", "m.apcm", "", "one.npy"], 2, "found 0 bytes"),
        (&["put", "m.apcm", "k", "one.npy", "--metadata", "[1]"], 2, "JSON object"),
        (&["train", "data.npy", "--bytes", "13", "--out", "x"], 2, "1 to 12"),
        (&["train", "data.npy", "--bytes", "52", "--quantizer", "f32", "--out", "x"], 2, "at most 12"),
        (&["train", "few.npy", "--bytes", "20", "--quantizer", "f32", "--out", "x"], 1, "at least 6 records"),
        (&["train", "text", "--bytes", "4", "--out", "x"], 1, "neither npy"),
        (&["train", "data.npy", "--bytes", "4", "--out", "x", "--device", "abacus"], 2, "abacus"),
        (&["frobnicate"], 2, "frobnicate"),
    ] {
        let (found, text) = shell.fails(line);
        assert_eq!(found, code, "{line:?}: {text}");
        assert!(text.contains(part), "{line:?}: {text}");
        assert!(found == 2 && text.starts_with("error:") || text.lines().count() == 1, "{line:?}: {text}");
        assert!(!text.contains("panicked"), "{line:?}: {text}");
    }
    // In use by this process, then left behind as a crash leaves it.
    let store = apcm::Store::open(shell.home.file("m.apcm")).unwrap();
    assert_eq!(shell.fails(&["stats", "m.apcm"]).0, 5);
    std::fs::copy(shell.home.file("m.apcm"), shell.home.file("crashed.apcm")).unwrap();
    drop(store);
    let (code, text) = shell.fails(&["get", "crashed.apcm", "7", "--out", "x.npy"]);
    assert!(code == 7 && text.contains("--recover"), "{text}");
    shell.json(&["stats", "crashed.apcm", "--recover"]);
    shell.json(&["get", "crashed.apcm", "7", "--out", "x.npy"]);
}

#[test]
fn help_has_examples_and_exit_codes_and_completions_are_printed() {
    let shell = Shell::new();
    let help = |line: &[&str]| String::from_utf8(shell.run(line).stdout).unwrap();
    let front = help(&["--help"]);
    assert!(front.contains("Exit codes: 0 done") && front.contains("7 needs recovery"));
    for command in [
        "demo",
        "train",
        "create",
        "policy",
        "ingest",
        "insert",
        "put",
        "get",
        "remove",
        "pin",
        "search",
        "list",
        "export",
        "recode",
        "report",
        "verify",
        "repair",
        "salvage",
        "backup",
        "compact",
        "stats",
        "completions",
    ] {
        assert!(front.contains(command), "{command}");
        let text = help(&[command, "--help"]);
        assert!(text.contains("Example") && text.contains(&format!("apcm {command}")), "{command}: {text}");
    }
    assert!(help(&["completions", "bash"]).contains("_apcm"));
}

/// The main job, as a stranger runs it, and every number that others rely on.
#[test]
fn the_demo_does_what_it_says() {
    let shell = Shell::new();
    let found = shell.json(&["demo", "--out", "demo"]);
    for field in [
        "source_bytes",
        "code_bytes",
        "slot_bytes",
        "model_bytes",
        "file_bytes",
        "break_even_records",
        "train_seconds",
        "total_seconds",
    ] {
        assert!(found[field].as_f64().unwrap() > 0.0, "{field}");
    }
    let number = |field: &str| found[field].as_f64().unwrap();
    assert_eq!((number("records_trained"), number("records_heldout")), (8_000.0, 2_000.0));
    assert_eq!((number("capacity"), number("inserted"), number("evicted")), (1_500.0, 2_000.0, 500.0));
    assert_eq!(number("lfu_survivors"), 200.0);
    assert_eq!(number("noisy_queries"), 1_500.0);
    // Sixty-four bytes a record on average: the code, its length, and a flag.
    let code_bytes = number("code_bytes") + 1.125;
    assert!((61.0..=65.3).contains(&code_bytes), "{code_bytes}");
    assert!(number("noisy_hit_rate") >= 0.95, "{}", number("noisy_hit_rate"));
    assert_eq!(found["reopened_ok"], true);
    let gain = number("psnr_db") - number("pca_psnr_db");
    assert!(gain >= 3.0, "{gain:.2} dB above PCA in the same bytes");
    assert_eq!(shell.json(&["stats", "demo/memory.apcm"])["occupied"], 1_500);
    for picture in ["reconstructions.png", "loss.png"] {
        let bytes = std::fs::read(shell.home.file("demo").join(picture)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 2_000, "{picture}");
    }
    // And again over itself.
    assert_eq!(shell.run(&["list", "demo/memory.apcm", "--limit", "2"]).status.code(), Some(0));
}

/// Blocks of latent tokens, `[tokens, features]`: the shape is kept from the file to the file.
#[test]
fn blocks_of_tokens_keep_their_shape_throughout() {
    let shell = Shell::new();
    let (events, tokens, features) = (160, 4, 6);
    npy::write(&shell.home.file("events.npy"), &[events, tokens, features], &noise(events * 24, 3)).unwrap();
    shell.json(&["train", "events.npy", "--bytes", "24", "--steps", "20", "--out", "e.codec"]);
    shell.json(&["create", "e.apcm", "--codec", "e.codec", "--capacity", "200"]);
    shell.json(&["ingest", "e.apcm", "events.npy", "--keys", "row"]);
    let shape = serde_json::json!([tokens, features]);
    assert_eq!(shell.json(&["stats", "e.apcm"])["record_shape"], shape);
    shell.json(&["get", "e.apcm", "7", "--out", "seven.npy"]);
    let seven = apcm::ingest::Dataset::open_as(
        shell.home.file("seven.npy"),
        apcm::RecordShape::new(&[tokens, features]).unwrap(),
    );
    assert_eq!((seven.as_ref().unwrap().len(), seven.unwrap().shape().dims()), (1, vec![tokens, features]));
    // One block is a query; so are many in one array.
    let hits = shell.json(&["search", "e.apcm", "--queries", "seven.npy", "--k", "1"]);
    assert_eq!(hits[0]["hits"][0]["key"], "7");
    let hits = shell.json(&["search", "e.apcm", "--queries", "events.npy", "--k", "1"]);
    assert_eq!((hits.as_array().unwrap().len(), &hits[9]["hits"][0]["key"]), (events, &"9".into()));
    shell.json(&["pack", "e.apcm", "--out", "e.apack"]);
    shell.json(&["get", "e.apack", "7", "--out", "again.npy"]);
    let read = |name| std::fs::read(shell.home.file(name)).unwrap();
    assert!(read("again.npy") == read("seven.npy"));
    shell.json(&["export", "e.apcm", "--out", "all"]);
    let all = apcm::ingest::Dataset::open(shell.home.file("all/records.npy")).unwrap();
    assert_eq!((all.len() as usize, all.shape().dims()), (events, vec![tokens, features]));
    // Another arrangement of as many values is another record.
    npy::write(&shell.home.file("flat.npy"), &[2, tokens * features], &noise(48, 3)).unwrap();
    let (code, text) = shell.fails(&["insert", "e.apcm", "flat.npy"]);
    assert!(code == 1 && text.contains("[4, 6]") && text.contains("[24]"), "{text}");
}
