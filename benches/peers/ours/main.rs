//! Our side of `benches/peers/run`: one measurement for each line it is told, an answer in JSON for each.
#![allow(missing_docs, reason = "a benchmark")]

mod codec;
mod ingest;
mod open;
mod search;
mod write;

use apcm::{FlowCodec, QuantizerSpec, Record, Records, Store};
use serde_json::Value;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Values of a record whose code has 64 bytes, one a value.
const DIMS: usize = 64;

/// A question, word by word.
struct Words<'a>(Vec<&'a str>);

impl Words<'_> {
    fn text(&self, at: usize) -> Outcome<&str> {
        self.0.get(at).copied().ok_or_else(|| "a word is missing".into())
    }

    fn number(&self, at: usize) -> Outcome<usize> {
        Ok(self.text(at)?.parse()?)
    }

    fn path(&self, at: usize) -> Outcome<PathBuf> {
        Ok(PathBuf::from(self.text(at)?))
    }
}

#[derive(Default)]
struct Bench {
    search: search::Searched,
    write: write::Written,
    open: open::Opened,
    codec: codec::Coded,
    ingest: ingest::Ingested,
}

impl Bench {
    /// Whoever knows the question answers it.
    fn answer(&mut self, words: &Words<'_>) -> Outcome<Value> {
        let answers = [
            self.search.answer(words)?,
            self.write.answer(words)?,
            self.open.answer(words)?,
            self.codec.answer(words)?,
            self.ingest.answer(words)?,
        ];
        answers.into_iter().flatten().next().ok_or_else(|| "nobody knows this question".into())
    }
}

fn main() -> Outcome<()> {
    // `cargo bench` starts every benchmark and says nothing to it.
    if std::env::args().any(|argument| argument == "--bench") {
        eprintln!("this one is driven by benches/peers/run");
        return Ok(());
    }
    let mut bench = Bench::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words = Words(line.split_whitespace().collect());
        let answer = bench.answer(&words).map_err(|error| format!("{line}: {error}"))?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn in_seconds(seconds: f64) -> Outcome<Option<Value>> {
    Ok(Some(serde_json::json!({ "seconds": seconds })))
}

fn seconds<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<(f64, T)> {
    let began = Instant::now();
    let value = run()?;
    Ok((began.elapsed().as_secs_f64(), value))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Numbers that look random, the same in every run (SplitMix64).
fn noise(number: u64) -> f32 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
}

/// Records of so many values.
fn some(dims: usize, first: u32, count: u32) -> Outcome<Records> {
    let mut records = Records::with_dims(&[dims])?;
    for row in u64::from(first)..u64::from(first) + u64::from(count) {
        let values: Vec<f32> = (0..dims as u64).map(|value| noise(row * dims as u64 + value)).collect();
        records.push_values(&values)?;
    }
    Ok(records)
}

fn batch(first: u32, count: u32) -> Outcome<Records> {
    some(DIMS, first, count)
}

fn record(number: u32) -> Outcome<Record> {
    Ok(batch(number, 1)?.get(0))
}

/// A codec whose codes have a byte for each value.
fn bytes_codec(dims: usize) -> Outcome<FlowCodec> {
    Ok(FlowCodec::pca(&some(dims, 0, 1_000)?, QuantizerSpec::I8(dims))?)
}

fn create(path: &Path, slots: u32, full: bool) -> Outcome<Store> {
    let store = Store::builder().capacity(slots).create(path, bytes_codec(DIMS)?)?;
    let mut first = 0;
    while full && first < slots {
        let count = (slots - first).min(50_000);
        let mut transaction = store.begin_write();
        transaction.insert_all(&batch(first, count)?)?;
        transaction.commit()?;
        first += count;
    }
    Ok(store)
}
