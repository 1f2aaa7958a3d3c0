//! A million overwrites, then a million appends to one stream: the file and the memory stay bounded.
//!
//! `cargo run --release --example churn [-- COUNT]`: prints the file's bytes and the process's memory as they
//! go. In storage on the disk, in commits of a hundred, as one that ingests would make them.

use apcm::{Attributes, PlainCodec, Record, Records, Store, SweeperTree};
use std::time::Instant;

const KEYS: u64 = 10_000;
const VALUES: usize = 64;
const TOGETHER: u64 = 100;

fn record(number: u64) -> apcm::Result<Record> {
    Record::vector((0..VALUES).map(|at| ((number + 7 * at as u64) as f32 / 9.0).sin()).collect())
}

/// Bytes of this process in memory, where the system tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

fn tell(what: &str, done: u64, store: &Store, began: Instant) -> apcm::Result<()> {
    let (file, memory) = (store.stats()?.file_bytes, resident());
    println!(
        "{done:>9} {what}: file {:.1} MB, memory {:.1} MB, {:.0} s",
        file as f64 / 1e6,
        memory as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn main() -> apcm::Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000_u64);
    let folder = tempfile::tempdir().map_err(|source| apcm::Error::Io { path: "a folder".into(), source })?;
    let path = folder.path().join("churn.apcm");
    let codec = PlainCodec::new(&[VALUES], VALUES)?;
    let store = Store::builder().capacity(KEYS as u32).create(&path, codec)?;
    let began = Instant::now();
    for first in (0..count).step_by(TOGETHER as usize) {
        let mut transaction = store.begin_write();
        for number in first..(first + TOGETHER).min(count) {
            transaction.put(&(number % KEYS).to_le_bytes(), &record(number)?, Attributes::default())?;
        }
        transaction.commit()?;
        if (first + TOGETHER).is_multiple_of(count / 10) {
            tell("overwrites", first + TOGETHER, &store, began)?;
        }
    }
    store.close()?;
    std::fs::remove_file(&path).map_err(|source| apcm::Error::Io { path: path.clone(), source })?;

    let mut seen = Records::with_dims(&[VALUES])?;
    (0..640).try_for_each(|number| seen.push(&record(number)?))?;
    let tree = SweeperTree::trainer(&seen, &[32; 20]).state(64).untrained().train()?.tree;
    let store = Store::builder().capacity(1_000).create(&path, PlainCodec::new(&[VALUES], VALUES)?)?;
    store.set_sweeper_tree(tree)?;
    let stream = store.stream("all")?;
    let began = Instant::now();
    for first in (0..count).step_by(TOGETHER as usize) {
        let mut records = Records::with_dims(&[VALUES])?;
        (first..(first + TOGETHER).min(count)).try_for_each(|number| records.push(&record(number)?))?;
        stream.append_all(&records)?;
        if (first + TOGETHER).is_multiple_of(count / 10) {
            tell("appends", first + TOGETHER, &store, began)?;
        }
    }
    assert_eq!(stream.len()?, count);
    store.close()
}
