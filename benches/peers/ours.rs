//! Our side of `benches/peers/run`: one measurement for each line it is told, an answer in JSON for each.
#![allow(missing_docs, reason = "a benchmark")]

use apcm::ingest::Dataset;
use apcm::{InMemoryBackend, PlainCodec, Record, Records, Scan, Store};
use redb::{Database, ReadableDatabase, TableDefinition};
use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Values of a record whose code has 64 bytes.
const DIMS: usize = 60;
const BARE: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("bare");
/// Bytes of a row of ours beside its code.
const BESIDE: usize = 20;

#[derive(Default)]
struct Bench {
    /// The store that is searched.
    searched: Option<Store>,
    queries: Option<Records>,
    next: usize,
    /// Stores and databases that are written to, by path.
    stores: HashMap<PathBuf, Store>,
    databases: HashMap<PathBuf, Database>,
    written: u32,
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
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = bench.answer(&words).map_err(|error| format!("{line}: {error}"))?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
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
    Ok(Record::vector((0..DIMS).map(|i| ((number as usize * DIMS + i) as f32 * 0.618).sin()).collect())?)
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

impl Bench {
    fn answer(&mut self, words: &[&str]) -> Outcome<serde_json::Value> {
        let text = |at: usize| words.get(at).copied().ok_or("a word is missing");
        let number = |at: usize| -> Outcome<usize> { Ok(text(at)?.parse()?) };
        let path = |at: usize| -> Outcome<PathBuf> { Ok(PathBuf::from(text(at)?)) };
        let value = match text(0)? {
            "rows" => self.rows(&path(1)?)?,
            "queries" => {
                self.queries = Some(Dataset::open(path(1)?)?.load()?);
                serde_json::json!({})
            }
            "search" => self.search(text(1)?, number(2)?, number(3)?)?,
            "bandwidth" => serde_json::json!({ "seconds": bandwidth(number(1)?) }),
            "readers" => serde_json::json!({ "per_second": self.readers(number(1)?)? }),
            "read" => serde_json::json!({ "seconds": self.read(text(1)? == "counted")? }),
            "insert" => serde_json::json!({ "seconds": self.insert(&path(1)?, number(2)?)? }),
            "bare-insert" => serde_json::json!({ "seconds": self.bare_insert(&path(1)?)? }),
            "bulk" => serde_json::json!({ "seconds": bulk(&path(1)?)? }),
            "bare-bulk" => serde_json::json!({ "seconds": bare_bulk(&path(1)?)? }),
            "evict" => serde_json::json!({ "seconds": self.evict(&path(1)?, number(2)? as u32)? }),
            "open" => serde_json::json!({ "seconds": self.open(&path(1)?, number(2)? as u32)? }),
            "churn" => churn(&path(1)?)?,
            other => return Err(format!("{other:?} is no question").into()),
        };
        Ok(value)
    }

    /// A store in memory with the rows of a file.
    fn rows(&mut self, path: &Path) -> Outcome<serde_json::Value> {
        let dataset = Dataset::open(path)?;
        let dims = dataset.shape().values();
        let store = Store::builder()
            .capacity(dataset.len() as u32)
            .create_on(InMemoryBackend::new(), PlainCodec::new(&[dims], dims)?)?;
        let mut reader = dataset.read_from(0)?;
        while let Some((_, records)) = reader.next_batch(20_000)? {
            let mut transaction = store.begin_write();
            transaction.insert_all(&records)?;
            transaction.commit()?;
        }
        self.searched = Some(store);
        Ok(serde_json::json!({ "slots": dataset.len() }))
    }

    /// Ten nearest of the next queries: `exact`, `two-stage` or `auto`, all at once, on so many threads (0: as it likes).
    fn search(&mut self, scan: &str, count: usize, threads: usize) -> Outcome<serde_json::Value> {
        let (Some(store), Some(queries)) = (&self.searched, &self.queries) else {
            return Err("no rows".into());
        };
        let scan = match scan {
            "exact" => Scan::Exact,
            "two-stage" => Scan::TwoStage,
            _ => Scan::Auto,
        };
        let rows: Vec<usize> = (0..count).map(|offset| (self.next + offset) % queries.len()).collect();
        self.next += count;
        let values = rows.iter().flat_map(|&row| queries.row(row).to_vec()).collect();
        let asked = Records::from_values(queries.shape(), values)?;
        let (seconds, hits) = seconds(|| {
            let search = store.search_many(&asked).k(10).scan(scan);
            Ok(if threads == 0 { search } else { search.threads(threads) }.run_all()?)
        })?;
        let slots: Vec<Vec<u32>> =
            hits.iter().map(|hits| hits.iter().map(|hit| hit.id.slot).collect()).collect();
        Ok(serde_json::json!({ "seconds": seconds, "slots": slots, "queries": rows }))
    }

    /// Searches a second of so many threads, each scan on one.
    fn readers(&self, threads: usize) -> Outcome<f64> {
        let (Some(store), Some(queries)) = (&self.searched, &self.queries) else {
            return Err("no rows".into());
        };
        let until = Instant::now() + Duration::from_millis(700);
        let began = Instant::now();
        let done: usize = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..threads)
                .map(|reader| {
                    scope.spawn(move || {
                        let mut done = 0;
                        while Instant::now() < until {
                            let query = queries.get((reader * 31 + done) % queries.len());
                            done += usize::from(store.search(&query).threads(1).run().is_ok());
                        }
                        done
                    })
                })
                .collect();
            readers.into_iter().map(|reader| reader.join().unwrap_or(0)).sum()
        });
        Ok(done as f64 / began.elapsed().as_secs_f64())
    }

    /// One read of the nearest, counted or not.
    fn read(&self, counted: bool) -> Outcome<f64> {
        let (Some(store), Some(queries)) = (&self.searched, &self.queries) else {
            return Err("no rows".into());
        };
        let all = (0..400)
            .map(|row| {
                let query = queries.get(row % queries.len());
                let (seconds, _) = seconds(|| {
                    Ok(black_box(if counted { store.read(&query) } else { store.peek(&query) })?)
                })?;
                Ok(seconds)
            })
            .collect::<Outcome<Vec<f64>>>()?;
        Ok(median(all))
    }

    /// Seconds of one durable insert; with several threads, of all of theirs divided by their number.
    fn insert(&mut self, path: &Path, threads: usize) -> Outcome<f64> {
        if !self.stores.contains_key(path) {
            self.stores.insert(path.to_owned(), create(path, 1_000_000, false)?);
        }
        let Some(store) = self.stores.get(path) else { return Err("no store".into()) };
        let one = record(self.written)?;
        self.written += 1;
        if threads == 1 {
            let all = (0..100)
                .map(|_| Ok(seconds(|| Ok(store.insert(&one)?))?.0))
                .collect::<Outcome<Vec<f64>>>()?;
            return Ok(median(all));
        }
        let (all, _) = seconds(|| {
            std::thread::scope(|scope| {
                let writers: Vec<_> = (0..threads)
                    .map(|_| scope.spawn(|| (0..50).try_for_each(|_| store.insert(&one).map(drop))))
                    .collect();
                writers.into_iter().try_for_each(|writer| {
                    writer.join().map_err(|_| "a thread panicked")?.map_err(Box::<dyn Error>::from)
                })
            })
        })?;
        Ok(all / (threads * 50) as f64)
    }

    /// The same bytes into the database alone.
    fn bare_insert(&mut self, path: &Path) -> Outcome<f64> {
        if !self.databases.contains_key(path) {
            self.databases.insert(path.to_owned(), Database::create(path)?);
        }
        let Some(database) = self.databases.get(path) else { return Err("no database".into()) };
        let value = [7_u8; DIMS + 4 + BESIDE];
        let all = (0..100)
            .map(|_| {
                self.written += 1;
                let key = self.written;
                Ok(seconds(|| {
                    let transaction = database.begin_write()?;
                    transaction.open_table(BARE)?.insert(key, value.as_slice())?;
                    Ok(transaction.commit()?)
                })?
                .0)
            })
            .collect::<Outcome<Vec<f64>>>()?;
        Ok(median(all))
    }

    /// One durable insert into a store whose slots are all taken.
    fn evict(&mut self, path: &Path, slots: u32) -> Outcome<f64> {
        if !self.stores.contains_key(path) {
            self.stores.insert(path.to_owned(), create(path, slots, true)?);
        }
        let Some(store) = self.stores.get(path) else { return Err("no store".into()) };
        let one = record(slots)?;
        // The first puts the victims in order; that is not the price of the others.
        store.insert(&one)?;
        let all =
            (0..100).map(|_| Ok(seconds(|| Ok(store.insert(&one)?))?.0)).collect::<Outcome<Vec<f64>>>()?;
        Ok(median(all))
    }

    /// Opening a store whose slots are all taken, by codes of one length.
    fn open(&mut self, path: &Path, slots: u32) -> Outcome<f64> {
        if let Some(store) = self.stores.remove(path) {
            store.close()?;
        }
        if !path.exists() {
            create(path, slots, true)?.close()?;
        }
        let (seconds, store) = seconds(|| Ok(Store::open(path)?))?;
        store.close()?;
        Ok(seconds)
    }
}

/// Seconds for reading so many numbers once, on all cores: what the memory gives.
fn bandwidth(numbers: usize) -> f64 {
    let all = vec![1.0_f32; numbers];
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for part in all.chunks(numbers.div_ceil(cores)) {
            scope.spawn(move || {
                let mut lanes = [0.0_f32; 64];
                for chunk in part.chunks_exact(64) {
                    lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
                }
                black_box(lanes);
            });
        }
    });
    began.elapsed().as_secs_f64()
}

/// A hundred commits of a thousand records.
fn bulk(path: &Path) -> Outcome<f64> {
    let store = create(path, 100_000, false)?;
    let batch = batch(0, 1_000)?;
    let mut all = 0.0;
    for _ in 0..100 {
        // Staging encodes; the codes are what is given.
        let mut transaction = store.begin_write();
        transaction.insert_all(&batch)?;
        all += seconds(|| Ok(transaction.commit()?))?.0;
    }
    store.close()?;
    std::fs::remove_file(path)?;
    Ok(all)
}

fn bare_bulk(path: &Path) -> Outcome<f64> {
    let database = Database::create(path)?;
    let value = [7_u8; DIMS + 4 + BESIDE];
    let (all, ()) = seconds(|| {
        for commit in 0..100_u32 {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(BARE)?;
                for row in 0..1_000 {
                    table.insert(commit * 1_000 + row, value.as_slice())?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    })?;
    drop(database.begin_read()?);
    drop(database);
    std::fs::remove_file(path)?;
    Ok(all)
}

/// A file after ten times its capacity of overwrites, and compacted, against its live bytes.
fn churn(path: &Path) -> Outcome<serde_json::Value> {
    let slots = 20_000;
    let store = create(path, slots, true)?;
    for round in 0..10 {
        for part in 0..slots / 1_000 {
            let mut transaction = store.begin_write();
            transaction.insert_all(&batch(round * slots + part * 1_000, 1_000)?)?;
            transaction.commit()?;
        }
    }
    let live = store.stats()?.stored_bytes;
    store.close()?;
    let after = std::fs::metadata(path)?.len();
    let compacted = Store::compact(path)?.bytes_after;
    std::fs::remove_file(path)?;
    Ok(serde_json::json!({ "live": live, "after": after, "compacted": compacted }))
}
