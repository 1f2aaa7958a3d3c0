//! Any bytes under the name of an idx file are a dataset or an error, and what is read has the shape that was
//! said.
#![no_main]

use apcm::ingest::Dataset;
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("data.idx");
    // Kept for the life of the process.
    std::mem::forget(folder);
    path
});

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).expect("a temporary file");
    let Ok(dataset) = Dataset::open(&*FILE) else { return };
    let values = dataset.shape().values();
    // What was opened may say that it is long: only its beginning is read.
    if let Ok(records) = dataset.load_range(0..64) {
        assert_eq!(records.values().len(), records.len() * values);
        assert!(records.values().iter().all(|value| value.is_finite()));
    }
});
