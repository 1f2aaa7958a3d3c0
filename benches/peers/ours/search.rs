//! Searches and reads in memory.

use super::{Outcome, Words, in_seconds, median, seconds};
use apcm::ingest::Dataset;
use apcm::{InMemoryBackend, PlainCodec, Records, Scan, Store};
use serde_json::Value;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct Searched {
    store: Option<Store>,
    queries: Option<Records>,
    next: usize,
}

impl Searched {
    pub(super) fn answer(&mut self, words: &Words<'_>) -> Outcome<Option<Value>> {
        match words.text(0)? {
            "rows" => self.rows(&words.path(1)?).map(Some),
            "queries" => {
                self.queries = Some(Dataset::open(words.path(1)?)?.load()?);
                Ok(Some(serde_json::json!({})))
            }
            "search" => self.search(words.text(1)?, words.number(2)?, words.number(3)?).map(Some),
            "bandwidth" => in_seconds(bandwidth(words.number(1)?)),
            "readers" => Ok(Some(serde_json::json!({ "per_second": self.readers(words.number(1)?)? }))),
            "read" => in_seconds(self.read(words.text(1)? == "counted")?),
            _ => Ok(None),
        }
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
        self.store = Some(store);
        Ok(serde_json::json!({ "slots": dataset.len() }))
    }

    /// Ten nearest of the next queries: `exact`, `two-stage` or `auto`, all at once, on so many threads (0: as
    /// it likes).
    fn search(&mut self, scan: &str, count: usize, threads: usize) -> Outcome<serde_json::Value> {
        let (Some(store), Some(queries)) = (&self.store, &self.queries) else {
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
        let (Some(store), Some(queries)) = (&self.store, &self.queries) else {
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
        let (Some(store), Some(queries)) = (&self.store, &self.queries) else {
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
