//! Opening stores and packs, and what they take in memory.

use super::{DIMS, Outcome, Words, batch, bytes_codec, create, in_seconds, median, seconds, some};
use apcm::{FlowCodec, Pack, QuantizerSpec, Record, Store};
use serde_json::Value;
use std::hint::black_box;
use std::path::Path;

/// Distinct records of an entropy-coded store; encoding a million of them would take longer than all else.
const DISTINCT: u32 = 20_000;

#[derive(Default)]
pub(super) struct Opened {
    pack: Option<Pack>,
}

impl Opened {
    pub(super) fn answer(&mut self, words: &Words<'_>) -> Outcome<Option<Value>> {
        match words.text(0)? {
            // Creates it first, where it is not there.
            "open" => {
                let (path, slots) = (words.path(1)?, words.number(2)? as u32);
                if !path.exists() {
                    create(&path, slots, true)?.close()?;
                }
                open(&path).map(Some)
            }
            "open-entropy" => {
                let (path, slots) = (words.path(1)?, words.number(2)? as u32);
                if !path.exists() {
                    create_entropy(&path, slots)?;
                }
                open(&path).map(Some)
            }
            "scale" => scale(&words.path(1)?, words.number(2)? as u32, words.number(3)?).map(Some),
            "pack" => {
                let store = Store::open_read_only(words.path(1)?)?;
                Ok(Some(serde_json::json!({ "bytes": store.export_pack(words.path(2)?).run()?.bytes })))
            }
            "open-pack" => {
                let path = words.path(1)?;
                let (seconds, pack) = seconds(|| Ok(Pack::open(&path)?))?;
                self.pack = Some(pack);
                in_seconds(seconds)
            }
            // The first search of a pack looks at every block it reads.
            "search-pack" => {
                let pack = self.pack.as_ref().ok_or("no pack")?;
                let query = batch(7, 1)?.get(0);
                let (seconds, hits) = seconds(|| Ok(black_box(pack.search(&query).k(10).run()?)))?;
                if hits.is_empty() && !pack.is_empty() {
                    return Err("nothing was found".into());
                }
                in_seconds(seconds)
            }
            _ => Ok(None),
        }
    }
}

fn open(path: &Path) -> Outcome<Value> {
    let (seconds, store) = seconds(|| Ok(Store::open(path)?))?;
    let stats = store.stats()?;
    store.close()?;
    Ok(serde_json::json!({ "seconds": seconds, "memory": stats.memory_bytes, "code": stats.code_bytes }))
}

/// A store of so many slots, all taken, and its pack: every question that grows with it.
fn scale(path: &Path, slots: u32, dims: usize) -> Outcome<Value> {
    let store = Store::builder().capacity(slots).create(path, bytes_codec(dims)?)?;
    for first in (0..slots).step_by(50_000) {
        let mut transaction = store.begin_write();
        transaction.insert_all(&some(dims, first, (slots - first).min(50_000))?)?;
        transaction.commit()?;
    }
    store.close()?;
    let bytes = std::fs::metadata(path)?.len();
    // The first time the file is still on its way to the disk.
    Store::open(path)?.close()?;
    let (open, store) = seconds(|| Ok(Store::open(path)?))?;
    let memory = store.stats()?.memory_bytes;
    let queries = some(dims, slots, 32)?;
    let search = |ask: &dyn Fn(&Record) -> apcm::Result<Vec<apcm::Hit>>| -> Outcome<f64> {
        let all = (0..32).map(|query| {
            let query = queries.get(query);
            Ok(seconds(|| Ok(black_box(ask(&query)?)))?.0)
        });
        Ok(median(all.collect::<Outcome<Vec<f64>>>()?))
    };
    let of_store = search(&|query| store.search(query).k(10).run())?;
    let packed = path.with_extension("apack");
    store.export_pack(&packed).run()?;
    // The first puts the victims in order; that is not the price of the others.
    store.insert(&queries.get(0))?;
    let inserts = (0..32).map(|query| Ok(seconds(|| Ok(store.insert(&queries.get(query))?))?.0));
    let insert = median(inserts.collect::<Outcome<Vec<f64>>>()?);
    store.close()?;
    let (open_pack, pack) = seconds(|| Ok(Pack::open(&packed)?))?;
    let of_pack = search(&|query| pack.search(query).k(10).run())?;
    drop(pack);
    std::fs::remove_file(path)?;
    std::fs::remove_file(packed)?;
    Ok(serde_json::json!({
        "slots": slots, "dims": dims, "file": bytes, "memory": memory, "open": open, "search": of_store,
        "insert": insert, "open_pack": open_pack, "search_pack": of_pack,
    }))
}

/// As many slots as asked for, with few distinct memories: what opening does is the same for each.
fn create_entropy(path: &Path, slots: u32) -> Outcome<()> {
    let codec = FlowCodec::pca(&batch(0, 8_000)?, QuantizerSpec::entropy(64))?;
    let beside = |name: &str| path.with_extension(name);
    let few = Store::builder().capacity(DISTINCT).create(beside("few"), codec)?;
    for first in (0..DISTINCT).step_by(2_000) {
        let mut transaction = few.begin_write();
        transaction.insert_all(&batch(first, 2_000)?)?;
        transaction.commit()?;
    }
    few.export_pack(beside("few.apack")).run()?;
    let pack = Pack::open(beside("few.apack"))?;
    let codec = FlowCodec::from_image(&few.codec().image()?, apcm::Device::default())?;
    let store = Store::builder().capacity(slots).create(path, codec)?;
    while store.stats()?.occupied + DISTINCT <= slots {
        store.import(&pack).run()?;
    }
    debug_assert_eq!(store.description().shape.values(), DIMS);
    Ok(store.close()?)
}
