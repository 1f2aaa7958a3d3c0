//! Our side of `benches/peers/run`: one measurement for each line it is told, an answer in JSON for each.
#![allow(missing_docs, reason = "a benchmark")]

mod codec;
mod ingest;
mod open;
mod search;
mod write;

use apcm::{PlainCodec, Record, Records, Store};
use serde_json::Value;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Values of a record whose code has 64 bytes.
const DIMS: usize = 60;

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

fn record(number: u32) -> Outcome<Record> {
    Ok(Record::vector(
        (0..DIMS).map(|i| ((number as usize * DIMS + i) as f64 * 0.618).sin() as f32).collect(),
    )?)
}

fn batch(first: u32, count: u32) -> Outcome<Records> {
    let values =
        (first..first + count).map(|row| Ok(record(row)?.into_values())).collect::<Outcome<Vec<_>>>()?;
    Ok(Records::from_values(record(0)?.shape(), values.concat())?)
}

fn create(path: &Path, slots: u32, full: bool) -> Outcome<Store> {
    let store = Store::builder().capacity(slots).create(path, PlainCodec::new(&[DIMS], DIMS)?)?;
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
