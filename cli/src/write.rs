//! Commands that write: `create`, `ingest`, `insert`, `put`, `remove`, `pin`, `policy`, `recode`.

use crate::options::{Attributes, SimilarityName, Tier};
use crate::outcome::{Failure, Outcome};
use crate::{interrupt, output};
use apcm::codec::{Device, load};
use apcm::ingest::{Dataset, Ingest as LibraryIngest, Keys, metadata_from_json};
use apcm::{Error, Policy, Store};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// File for the store
    pub(crate) store: PathBuf,
    /// The codec that `apcm train` wrote
    #[arg(long)]
    pub(crate) codec: PathBuf,
    /// How many slots
    #[arg(long)]
    pub(crate) capacity: u32,
    /// Which similarity a search uses
    #[arg(long, value_enum, default_value = "cosine")]
    pub(crate) similarity: SimilarityName,
    /// Byte budget of all slots together; residuals are dropped first, memories last
    #[arg(long, value_name = "BYTES")]
    pub(crate) byte_budget: Option<u64>,
    /// Eviction policy: lfu, lfu-aged:HALF_LIFE, lru or fifo
    #[arg(long, default_value = "lfu")]
    pub(crate) policy: Policy,
}

#[derive(Debug, Args)]
pub(crate) struct ChangePolicy {
    /// The store
    pub(crate) store: PathBuf,
    /// lfu (least frequently used), lfu-aged:HALF_LIFE (a use weighs half after so many reads and writes), lru
    /// (least recently used) or fifo (the oldest); omit to print the current policy
    pub(crate) policy: Option<Policy>,
}

#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// The store
    pub(crate) store: PathBuf,
    /// The dataset: .npy (f16, f32, f64, u8), idx or idx.gz
    pub(crate) data: PathBuf,
    /// Keys: `row` for row numbers, or a field of the JSONL file
    #[arg(long)]
    pub(crate) keys: Option<String>,
    /// JSONL file with one object a record (.gz too); its fields become metadata
    #[arg(long)]
    pub(crate) metadata: Option<PathBuf>,
    /// Most records of a transaction
    #[arg(long, default_value_t = 1_024)]
    pub(crate) batch: usize,
    /// Resume an earlier run
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) tier: Tier,
}

#[derive(Debug, Args)]
pub(crate) struct Insert {
    /// The store
    pub(crate) store: PathBuf,
    /// One record, or many along the first axis
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) attributes: Attributes,
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The store
    pub(crate) store: PathBuf,
    /// The key
    pub(crate) key: String,
    /// The record
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) attributes: Attributes,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The store
    pub(crate) store: PathBuf,
    /// The key
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// The store
    pub(crate) store: PathBuf,
    /// The key
    pub(crate) key: String,
    /// Unpin
    #[arg(long)]
    pub(crate) off: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Recode {
    /// The store
    pub(crate) store: PathBuf,
    /// The codec that `apcm train` wrote
    #[arg(long)]
    pub(crate) codec: PathBuf,
    /// File for the new store; without it the new store replaces the old one once it is complete
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

pub(crate) fn create(arguments: &Create, json: bool) -> Outcome {
    let image = std::fs::read(&arguments.codec).map_err(Error::io(&arguments.codec))?;
    let codec = load(&image, Device::Cpu)?;
    let mut builder = Store::builder()
        .capacity(arguments.capacity)
        .similarity(arguments.similarity.into())
        .policy(arguments.policy);
    if let Some(bytes) = arguments.byte_budget {
        builder = builder.byte_budget(bytes);
    }
    let store = builder.create(&arguments.store, codec)?;
    let description = store.description();
    let document = json!({
        "store": arguments.store.display().to_string(),
        "capacity": description.capacity,
        "record_shape": description.shape.dims(),
        "fingerprint": store.fingerprint().to_string(),
    });
    store.close()?;
    output::result(json, &document, || {
        format!(
            "{}: {} slots for records {}",
            arguments.store.display(),
            description.capacity,
            description.shape
        )
    })
}

pub(crate) fn ingest(arguments: &Ingest, json: bool) -> Outcome {
    let store = Store::open(&arguments.store)?;
    let dataset = Dataset::open_as(&arguments.data, store.description().shape)?;
    let keys = match arguments.keys.as_deref() {
        None => Keys::None,
        Some("row") => Keys::Row,
        Some(field) => Keys::Field(field.to_owned()),
    };
    let bar = output::bar(dataset.len(), "ingesting");
    let mut ingest = LibraryIngest::new(&store, &dataset)
        .keys(keys)
        .batch(arguments.batch)
        .resume(arguments.resume)
        .fidelity(arguments.tier.into())
        .progress(|progress| {
            bar.set_position(progress.done);
            interrupt::go_on()
        });
    if let Some(path) = &arguments.metadata {
        ingest = ingest.metadata_from(path);
    }
    let report = ingest.run().map_err(Failure::stopped(|| {
        format!("{} records are in; the same command with --resume goes on", bar.position())
    }))?;
    bar.finish_and_clear();
    store.close()?;
    output::result(json, &report, || {
        let rate = report.ingested as f64 / report.seconds.max(1e-9);
        format!(
            "{} records from row {}, {} evicted, mean error {:.3e}, {:.0} records/s",
            output::count(report.ingested),
            report.first,
            output::count(report.evicted),
            report.mean_error,
            rate
        )
    })
}

pub(crate) fn insert(arguments: &Insert, json: bool) -> Outcome {
    let store = Store::open(&arguments.store)?;
    let records = Dataset::open_as(&arguments.data, store.description().shape)?.load()?;
    if records.is_empty() {
        return Err(Error::argument("the records to insert", "at least one", "none").into());
    }
    let attributes = attributes(&arguments.attributes)?;
    let mut transaction = store.begin_write();
    transaction.write_all(&records, std::iter::repeat_n((None, attributes), records.len()))?;
    let done = transaction.commit()?;
    store.close()?;
    let evicted: Vec<_> = done.evicted.iter().map(evicted_json).collect();
    let ids: Vec<String> = done.ids.iter().map(ToString::to_string).collect();
    let dropped: Vec<String> = done.residuals_dropped.iter().map(ToString::to_string).collect();
    let document =
        json!({ "ids": ids, "errors": done.errors, "evicted": evicted, "residuals_dropped": dropped });
    output::result(json, &document, || {
        let lines = ids.iter().zip(&done.errors).map(|(id, error)| format!("{id}  error {error:.3e}"));
        let given = dropped.iter().map(|id| format!("residual of {id} dropped"));
        lines.chain(done.evicted.iter().map(evicted_text)).chain(given).collect::<Vec<_>>().join("\n")
    })
}

pub(crate) fn put(arguments: &Put, json: bool) -> Outcome {
    let store = Store::open(&arguments.store)?;
    let records = Dataset::open_as(&arguments.data, store.description().shape)?.load()?;
    if records.len() != 1 {
        return Err(Error::argument("the records to put under one key", "1", records.len()).into());
    }
    let put = store.put(arguments.key.as_bytes(), &records.get(0), attributes(&arguments.attributes)?)?;
    store.close()?;
    let evicted: Vec<_> = put.evicted.iter().map(evicted_json).collect();
    let dropped: Vec<String> = put.residuals_dropped.iter().map(ToString::to_string).collect();
    let document = json!({
        "id": put.id.to_string(),
        "error": put.error,
        "evicted": evicted,
        "residuals_dropped": dropped,
    });
    output::result(json, &document, || {
        let first = format!("{}  error {:.3e}", put.id, put.error);
        let given = dropped.iter().map(|id| format!("residual of {id} dropped"));
        let evicted = put.evicted.iter().map(evicted_text);
        [first].into_iter().chain(evicted).chain(given).collect::<Vec<_>>().join("\n")
    })
}

pub(crate) fn remove(arguments: &Remove, json: bool) -> Outcome {
    let store = Store::open(&arguments.store)?;
    let removed = store.remove(arguments.key.as_bytes())?;
    store.close()?;
    if !removed {
        return Err(Failure::NoKey(arguments.key.clone()));
    }
    output::result(json, &json!({ "removed": true }), || "removed".to_owned())
}

pub(crate) fn pin(arguments: &Pin, json: bool) -> Outcome {
    let store = Store::open(&arguments.store)?;
    let key = arguments.key.as_bytes();
    let id = store.id_of(key)?.ok_or_else(|| Failure::NoKey(arguments.key.clone()))?;
    store.pin(id, !arguments.off)?;
    store.close()?;
    let word = if arguments.off { "unpinned" } else { "pinned" };
    output::result(json, &json!({ "id": id.to_string(), "pinned": !arguments.off }), || word.to_owned())
}

pub(crate) fn policy(arguments: &ChangePolicy, json: bool) -> Outcome {
    let Some(policy) = arguments.policy else {
        let policy = Store::open_read_only(&arguments.store)?.policy();
        return output::result(json, &json!({ "policy": policy.to_string() }), || policy.to_string());
    };
    let store = Store::open(&arguments.store)?;
    let before = store.policy();
    store.set_policy(policy)?;
    store.close()?;
    let document = json!({ "before": before.to_string(), "policy": policy.to_string() });
    output::result(json, &document, || format!("policy {policy} from now on, instead of {before}"))
}

pub(crate) fn recode(arguments: &Recode, json: bool) -> Outcome {
    let image = std::fs::read(&arguments.codec).map_err(Error::io(&arguments.codec))?;
    let codec = load(&image, Device::Cpu)?;
    // Opened for writing, so that no other process writes to it.
    let store = Store::open(&arguments.store)?;
    let out = arguments.out.as_ref().unwrap_or(&arguments.store);
    let bar = output::bar(store.len() as u64, "moving");
    let report = store
        .recode(out, codec)
        .progress(|progress| {
            bar.set_position(progress.done);
            interrupt::go_on()
        })
        .run()
        .map_err(Failure::stopped(|| {
            format!("{} records are moved, in a partial file; the same command goes on", bar.position())
        }))?;
    bar.finish_and_clear();
    // Not closed: where the new store took its place, the old one is a file without a name.
    drop(store);
    output::result(json, &report, || {
        format!(
            "{} records moved to {}, {} of them by an earlier run; error {:.3e} -> at most {:.3e} (the move added \
             {:.3e}); {} -> {} stored",
            output::count(report.records),
            out.display(),
            output::count(report.resumed),
            report.error_before,
            report.error_after,
            report.error_added,
            output::bytes(report.stored_before as f64),
            output::bytes(report.stored_after as f64)
        )
    })
}

fn attributes(arguments: &Attributes) -> Result<apcm::Attributes, Error> {
    let mut attributes = apcm::Attributes::default().with_fidelity(arguments.tier.into());
    if let Some(text) = &arguments.metadata {
        let metadata = metadata_from_json(text.as_bytes()).map_err(|error| match error {
            Error::Argument { what, expected, found } => {
                Error::argument(what, expected, format!("{text:?} ({found})"))
            }
            other => other,
        })?;
        attributes = attributes.with_metadata(metadata);
    }
    if arguments.pin {
        attributes = attributes.pinned();
    }
    if let Some(seconds) = arguments.ttl {
        attributes = attributes.expiring_in(Duration::from_secs(seconds));
    }
    Ok(attributes)
}

fn evicted_json(evicted: &apcm::Evicted) -> serde_json::Value {
    json!({
        "id": evicted.id.to_string(),
        "key": evicted.key.as_deref().map(output::key_text),
        "metadata": evicted.metadata,
        "count": evicted.count,
    })
}

fn evicted_text(evicted: &apcm::Evicted) -> String {
    let key = evicted.key.as_deref().map_or("no key".to_owned(), output::key_text);
    format!("evicted {} ({key}), read {} times", evicted.id, evicted.count)
}
