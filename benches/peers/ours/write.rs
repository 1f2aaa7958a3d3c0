//! Durable writes: one by one, together, in bulk, over and over.

use super::{DIMS, Outcome, Words, batch, create, in_seconds, median, record, seconds};
use apcm::Store;
use redb::{Database, ReadableDatabase, TableDefinition};
use serde_json::Value;
use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

const BARE: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("bare");
/// Bytes of a row of ours beside its code.
const BESIDE: usize = 20;

#[derive(Default)]
pub(super) struct Written {
    /// Stores and databases that are written to, by path.
    stores: HashMap<PathBuf, Store>,
    databases: HashMap<PathBuf, Database>,
    written: u32,
}

impl Written {
    pub(super) fn answer(&mut self, words: &Words<'_>) -> Outcome<Option<Value>> {
        match words.text(0)? {
            "insert" => in_seconds(self.insert(&words.path(1)?, words.number(2)?)?),
            "bare-insert" => in_seconds(self.bare_insert(&words.path(1)?)?),
            "bulk" => in_seconds(bulk(&words.path(1)?)?),
            "bare-bulk" => in_seconds(bare_bulk(&words.path(1)?)?),
            "evict" => in_seconds(self.evict(&words.path(1)?, words.number(2)? as u32)?),
            "close" => {
                if let Some(store) = self.stores.remove(&words.path(1)?) {
                    store.close()?;
                }
                Ok(Some(serde_json::json!({})))
            }
            "churn" => churn(&words.path(1)?).map(Some),
            _ => Ok(None),
        }
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
        let value = [7_u8; DIMS + BESIDE];
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
    let value = [7_u8; DIMS + BESIDE];
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
