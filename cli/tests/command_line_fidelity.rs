//! The program where fidelity is concerned: tiers, budgets, recode, the report, and data that is hard to code.

#[path = "../../tests/common/mod.rs"]
mod common;
mod shell;

use apcm::ingest::{Dataset, npy};
use common::noise;
use serde_json::Value;
use shell::Shell;

fn number(document: &Value, field: &str) -> f64 {
    document[field].as_f64().unwrap_or_else(|| panic!("{field} in {document}"))
}

/// `filled`, with row 7 three times more: as a code alone, within 1e-5, and to the bit.
fn tiered() -> Shell {
    let shell = Shell::new();
    shell.filled();
    npy::write(&shell.home.file("seven.npy"), &[12], &noise(2_400, 5)[12 * 7..12 * 8]).unwrap();
    shell.json(&["put", "m.apcm", "compact", "seven.npy"]);
    let bounded = shell.json(&["put", "m.apcm", "bounded", "seven.npy", "--max-error", "1e-5"]);
    let error = number(&bounded, "error");
    assert!(error > 0.0 && error <= 1e-5, "{error}");
    let lossless = shell.json(&["put", "m.apcm", "lossless", "seven.npy", "--lossless"]);
    assert_eq!(number(&lossless, "error"), 0.0);
    shell
}

impl Shell {
    fn values(&self, key: &str) -> Vec<f32> {
        let file = format!("{key}.out.npy");
        self.json(&["get", "m.apcm", key, "--out", &file]);
        Dataset::open(self.home.file(&file)).unwrap().load().unwrap().row(0).to_vec()
    }
}

fn mse(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / a.len() as f64
}

#[test]
fn tiers_hold_what_they_promise_and_cost_what_stats_say() {
    let shell = tiered();
    let given = &noise(2_400, 5)[12 * 7..12 * 8];
    let compact = mse(&shell.values("compact"), given);
    let bounded = mse(&shell.values("bounded"), given);
    assert!(compact > 1e-5 && bounded <= 1e-5, "{compact} {bounded}");
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&shell.values("lossless")), bits(given));
    let stats = shell.json(&["stats", "m.apcm"]);
    assert_eq!((&stats["residuals"], &stats["residuals_dropped"]), (&2.into(), &0.into()));
    assert_eq!(stats["byte_budget"], Value::Null);

    // Only what was measured to be close enough is a hit.
    let hits = |most: &str| {
        let line = ["search", "m.apcm", "--queries", "seven.npy", "--k", "9", "--max-error", most];
        let mut keys: Vec<String> = shell.json(&line)[0]["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["key"].as_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    };
    assert_eq!(hits("0"), ["lossless"]);
    let close = hits("1e-5");
    let among = |key: &str| close.iter().any(|found| found == key);
    assert!(among("bounded") && among("lossless") && !among("compact"), "{close:?}");
    assert_eq!(hits("1").len(), 9);

    // A whole dataset within a bound.
    shell.json(&["create", "n.apcm", "--codec", "a.codec", "--capacity", "200"]);
    shell.json(&["ingest", "n.apcm", "data.npy", "--max-error", "1e-4"]);
    let errors = &shell.json(&["stats", "n.apcm"])["errors"];
    assert!(number(errors, "max") <= 1e-4, "{errors}");
}

#[test]
fn under_pressure_a_budget_drops_residuals_first_and_memories_last() {
    let shell = Shell::new();
    shell.filled();
    let create = ["create", "b.apcm", "--codec", "a.codec", "--capacity", "100"];
    shell.json(&[&create[..], &["--byte-budget", "5000"]].concat());
    shell.json(&["ingest", "b.apcm", "first.npy", "--lossless"]);
    let stats = shell.json(&["stats", "b.apcm"]);
    assert!(number(&stats, "stored_bytes") <= 5_000.0, "{stats}");
    let (kept, dropped) = (number(&stats, "residuals"), number(&stats, "residuals_dropped"));
    assert!(kept > 0.0 && dropped > 0.0, "{stats}");
    assert_eq!(number(&stats, "occupied") + number(&stats, "evictions"), 100.0, "{stats}");
    assert!(kept + dropped <= 100.0, "a residual leaves once");

    // Smaller than any record: an error with both numbers, and the store as it was.
    shell.json(&["create", "tiny.apcm", "--codec", "a.codec", "--capacity", "10", "--byte-budget", "20"]);
    npy::write(&shell.home.file("one.npy"), &[12], &noise(12, 1)).unwrap();
    let (code, text) = shell.fails(&["put", "tiny.apcm", "k", "one.npy"]);
    assert!(code == 1 && text.contains("20 bytes") && text.contains("nothing was written"), "{text}");
    assert_eq!(shell.json(&["stats", "tiny.apcm"])["occupied"], 0);
}

#[test]
fn a_store_moves_to_another_codec_in_place_and_beside_itself() {
    let shell = tiered();
    shell.json(&["train", "data.npy", "--bytes", "7", "--steps", "0", "--out", "b.codec"]);
    let before = shell.json(&["stats", "m.apcm"]);
    let listed = shell.json(&["list", "m.apcm"]);
    let beside = shell.json(&["recode", "m.apcm", "--codec", "b.codec", "--out", "n.apcm"]);
    assert_eq!((&beside["records"], &beside["resumed"]), (&103.into(), &0.into()));
    assert!(shell.json(&["list", "m.apcm"]) == listed, "the source is as it was");
    assert!(number(&beside, "error_added") > 0.0);
    assert!(number(&beside, "stored_after") < number(&beside, "stored_before"));

    let in_place = shell.json(&["recode", "m.apcm", "--codec", "b.codec"]);
    assert_eq!(in_place, beside, "the same move");
    let after = shell.json(&["stats", "m.apcm"]);
    assert_ne!(after["codec"]["fingerprint"], before["codec"]["fingerprint"]);
    assert_eq!((&after["occupied"], &after["residuals"]), (&103.into(), &2.into()));
    // What was promised to a record holds in the new codec too.
    let given = &noise(2_400, 5)[12 * 7..12 * 8];
    assert_eq!(shell.values("lossless"), given);
    assert!(mse(&shell.values("bounded"), given) <= 1e-5);
    let left: Vec<_> = std::fs::read_dir(shell.home.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("m.apcm") && name != "m.apcm")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_report_compares_methods_in_one_page_and_one_document() {
    let shell = Shell::new();
    npy::write(&shell.home.file("data.npy"), &[600, 12], &noise(7_200, 5)).unwrap();
    npy::write(&shell.home.file("heldout.npy"), &[100, 12], &noise(1_200, 6)).unwrap();
    let line =
        ["report", "--train", "data.npy", "--heldout", "heldout.npy", "--bytes", "4,6", "--steps", "20"];
    let document = shell.json(&line);
    let rows = document["rows"].as_array().unwrap();
    for size in [4, 6] {
        let methods: Vec<&str> = rows
            .iter()
            .filter(|row| row["nominal_bytes"] == size)
            .map(|row| row["method"].as_str().unwrap())
            .collect();
        for method in ["apcm", "pca-i8", "pca-allocated", "autoencoder-i8", "gaussian-bound"] {
            assert!(methods.contains(&method), "{method} in {methods:?}");
        }
    }
    let of = |method: &str, size: u64| {
        rows.iter().find(|row| row["method"] == method && row["nominal_bytes"] == size).unwrap()
    };
    for field in [
        "bytes",
        "slot_bytes",
        "mse",
        "psnr_db",
        "relative_error",
        "recall_at_10",
        "encode_per_s",
        "decode_per_s",
    ] {
        assert!(number(of("apcm", 6), field) > 0.0, "{field}");
    }
    assert!(number(of("apcm", 6), "mse") < number(of("apcm", 4), "mse"), "more bytes, less error");
    let page = std::fs::read_to_string(shell.home.file("apcm-report/report.html")).unwrap();
    assert!(page.contains("<svg") || page.contains("data:image/png;base64,"));
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "self-contained");
    let kept: Value =
        serde_json::from_slice(&std::fs::read(shell.home.file("apcm-report/report.json")).unwrap()).unwrap();
    assert_eq!(kept["rows"], document["rows"]);
    for entry in std::fs::read_dir(shell.home.file("apcm-report")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "png") {
            assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"), "{}", path.display());
        }
    }
}

#[test]
fn data_that_is_hard_to_code_has_a_defined_answer() {
    let shell = Shell::new();
    let data = noise(2_400, 5);
    npy::write(&shell.home.file("constant.npy"), &[200, 12], &vec![0.5; 2_400]).unwrap();
    npy::write(&shell.home.file("few.npy"), &[30, 12], &data[..360]).unwrap();
    npy::write(&shell.home.file("twice.npy"), &[200, 12], &data[..48].repeat(50)).unwrap();
    npy::write(&shell.home.file("thin.npy"), &[200, 1], &data[..200]).unwrap();

    let (code, text) = shell.fails(&["train", "constant.npy", "--bytes", "4", "--out", "x.codec"]);
    assert!(code == 2 && text.contains("all the same"), "{text}");

    // Fewer rows than a codebook has entries, the same rows over and over, one dimension: each codec measures
    // what it does, and what it gives back is as good as it says.
    for (file, quantizer, bytes, most) in [
        ("few.npy", "residual", "4", 0.02),
        ("twice.npy", "residual", "4", 1e-6),
        ("twice.npy", "auto", "4", 1e-6),
        ("thin.npy", "residual", "2", 0.02),
        ("thin.npy", "auto", "1", 0.02),
        ("thin.npy", "entropy", "4", 0.02),
    ] {
        let name = format!("{file}.{quantizer}");
        let (codec, store) = (format!("{name}.codec"), format!("{name}.apcm"));
        shell.json(&[
            "train",
            file,
            "--bytes",
            bytes,
            "--quantizer",
            quantizer,
            "--steps",
            "5",
            "--out",
            &codec,
        ]);
        shell.json(&["create", &store, "--codec", &codec, "--capacity", "200"]);
        shell.json(&["ingest", &store, file]);
        let error = number(&shell.json(&["stats", &store]), "mean_error");
        assert!(error <= most, "{name}: {error}");
        let out = format!("{name}.out");
        shell.json(&["export", &store, "--out", &out]);
        let given = Dataset::open(shell.home.file(file)).unwrap().load().unwrap();
        let kept = Dataset::open(shell.home.file(&format!("{out}/records.npy"))).unwrap().load().unwrap();
        let found = given.rows().zip(kept.rows()).map(|(x, y)| mse(x, y)).sum::<f64>() / given.len() as f64;
        assert_eq!(given.len(), kept.len());
        assert!((found - error).abs() <= 0.01 * error + 1e-12, "{name}: {found} is not {error}");
    }

    // A bound tighter than a difference to the reconstruction can reach is kept to the bit.
    shell.filled();
    npy::write(&shell.home.file("seven.npy"), &[12], &data[12 * 7..12 * 8]).unwrap();
    let tight = shell.json(&["put", "m.apcm", "tight", "seven.npy", "--max-error", "1e-30"]);
    assert_eq!(number(&tight, "error"), 0.0);
    assert_eq!(shell.values("tight"), &data[12 * 7..12 * 8]);
}

#[test]
fn wrong_fidelity_is_an_error_that_names_the_numbers_and_writes_nothing() {
    let shell = tiered();
    shell.json(&["train", "data.npy", "--bytes", "7", "--steps", "0", "--out", "b.codec"]);
    npy::write(&shell.home.file("thin.npy"), &[200, 1], &noise(200, 5)).unwrap();
    shell.json(&["train", "thin.npy", "--bytes", "1", "--steps", "0", "--out", "thin.codec"]);
    shell.json(&["create", "n.apcm", "--codec", "b.codec", "--capacity", "9"]);
    let listed = shell.json(&["list", "m.apcm"]);
    for (line, code, part) in [
        (&["put", "m.apcm", "z", "seven.npy", "--max-error", "0"][..], 2, "found 0"),
        (&["put", "m.apcm", "z", "seven.npy", "--max-error=-1"], 2, "found -1"),
        (&["put", "m.apcm", "z", "seven.npy", "--max-error", "nan"], 2, "found NaN"),
        (&["put", "m.apcm", "z", "seven.npy", "--max-error", "1", "--lossless"], 2, "--lossless"),
        (&["search", "m.apcm", "--queries", "seven.npy", "--max-error=-1"], 2, "found -1"),
        (&["create", "x.apcm", "--codec", "a.codec", "--capacity", "9", "--byte-budget", "0"], 2, "found 0"),
        (&["recode", "m.apcm", "--codec", "thin.codec"], 1, "[12]"),
        (&["recode", "m.apcm", "--codec", "seven.npy"], 4, "codec image"),
        (&["recode", "nowhere.apcm", "--codec", "b.codec"], 1, "nowhere.apcm"),
        (&["recode", "m.apcm", "--codec", "b.codec", "--out", "n.apcm"], 1, "there already"),
        (&["report", "--train", "data.npy", "--bytes", "0"], 2, "found 0"),
        (&["report", "--train", "data.npy", "--bytes", "400"], 2, "found 400"),
        (&["report", "--train", "data.npy", "--heldout", "thin.npy", "--bytes", "4"], 1, "[1]"),
        (&["train", "data.npy", "--bytes", "4", "--error", "0.1", "--out", "x"], 2, "--error"),
        (&["train", "data.npy", "--error", "0", "--out", "x"], 2, "found 0"),
        (&["train", "data.npy", "--bytes", "4", "--max-bytes", "2", "--out", "x"], 2, "found 2"),
        (&["train", "thin.npy", "--bytes", "2", "--out", "x"], 2, "found 2"),
    ] {
        let (found, text) = shell.fails(line);
        assert_eq!(found, code, "{line:?}: {text}");
        assert!(text.contains(part), "{line:?}: {text}");
    }
    assert!(shell.json(&["list", "m.apcm"]) == listed, "the store is as it was");
}
