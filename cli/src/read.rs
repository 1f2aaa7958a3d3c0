//! Commands that read: `get`, `search`, `list`, `export`, `stats`. They open the store for reading and count
//! nothing.

use crate::outcome::{Failure, Outcome};
use crate::output;
use apcm::Value;
use apcm::ingest::{Dataset, npy};
use apcm::whole_file::{NewFile, Taken};
use apcm::{Entry, Error, Filter, Pack, Result, Store};
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The store
    pub(crate) store: PathBuf,
    /// The key
    pub(crate) key: String,
    /// File for the record, .npy; it gets the store's permissions
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The store
    pub(crate) store: PathBuf,
    /// One query, or many along the first axis
    #[arg(long)]
    pub(crate) queries: PathBuf,
    /// How many hits
    #[arg(long, default_value_t = 10)]
    pub(crate) k: usize,
    /// Least cosine of a hit
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) min_similarity: Option<f32>,
    /// Largest measured error of a hit, mean squared per element
    #[arg(long)]
    pub(crate) max_error: Option<f32>,
    /// Condition on metadata, such as: kind = 'note' and year >= 2025
    #[arg(long)]
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The store
    pub(crate) store: PathBuf,
    /// Condition on metadata
    #[arg(long)]
    pub(crate) filter: Option<String>,
    /// Most memories to list
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The store
    pub(crate) store: PathBuf,
    /// Folder for records.npy and records.jsonl; they get the store's permissions
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// The store
    pub(crate) store: PathBuf,
    /// Open the store for writing first: recovers a file that was not closed cleanly
    #[arg(long)]
    pub(crate) recover: bool,
}

/// Values that are decoded at a time: 64 MiB of them.
const EXPORT_VALUES: usize = 1 << 24;

/// Where memories are: a store, opened for reading, or a pack.
enum Source {
    Store(Box<Store>),
    Pack(Box<Pack>),
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        if Pack::is_pack_file(path) {
            Ok(Self::Pack(Box::new(Pack::open(path)?)))
        } else {
            Ok(Self::Store(Box::new(Store::open_read_only(path)?)))
        }
    }
}

pub(crate) fn get(arguments: &Get, json: bool) -> Outcome {
    let key = arguments.key.as_bytes();
    let memory = match Source::open(&arguments.store)? {
        Source::Store(store) => store.peek_key(key)?,
        Source::Pack(pack) => pack.get(key)?,
    }
    .ok_or_else(|| Failure::NoKey(arguments.key.clone()))?;
    let dims = memory.record.shape().dims();
    output::array(&arguments.out, &arguments.store, &dims, memory.record.values())?;
    let document = json!({
        "id": memory.id.to_string(),
        "key": arguments.key,
        "error": memory.error,
        "metadata": memory.metadata,
        "out": arguments.out.display().to_string(),
    });
    output::result(json, &document, || {
        let shape = memory.record.shape();
        format!("{}  {shape}, error {:.3e}, in {}", memory.id, memory.error, arguments.out.display())
    })
}

pub(crate) fn search(arguments: &Search, json: bool) -> Outcome {
    let source = Source::open(&arguments.store)?;
    let shape = match &source {
        Source::Store(store) => store.description().shape,
        Source::Pack(pack) => pack.shape(),
    };
    let queries = Dataset::open_as(&arguments.queries, shape)?.load()?;
    let search = match &source {
        Source::Store(store) => store.search_many(&queries),
        Source::Pack(pack) => pack.search_many(&queries),
    };
    let mut search = search.k(arguments.k);
    if let Some(floor) = arguments.min_similarity {
        search = search.min_similarity(floor);
    }
    if let Some(error) = arguments.max_error {
        search = search.max_error(error);
    }
    if let Some(filter) = &arguments.filter {
        search = search.filter(filter)?;
    }
    let answers = search.run_all()?;
    let document: Vec<_> = answers
        .iter()
        .map(|hits| {
            let hits: Vec<_> = hits
                .iter()
                .map(|hit| {
                    json!({
                        "slot": hit.id.slot,
                        "seq": hit.id.seq,
                        "key": hit.key.as_deref().map(output::key_text),
                        "similarity": hit.similarity,
                        "error": hit.error,
                        "metadata": hit.metadata,
                    })
                })
                .collect();
            json!({ "hits": hits })
        })
        .collect();
    output::result(json, &document, || {
        let mut lines = Vec::new();
        for (query, hits) in answers.iter().enumerate() {
            lines.push(format!("query {query}: {} hits", hits.len()));
            for hit in hits {
                let key = match (&hit.key, hit.metadata.get("stream"), hit.metadata.get("first")) {
                    (Some(key), _, _) => output::key_text(key),
                    // A part has no key; where it is in its stream is what recalls it.
                    (None, Some(Value::Text(stream)), Some(Value::Int(first))) => {
                        format!("{stream}[{first}..]")
                    }
                    _ => "-".to_owned(),
                };
                lines.push(format!("  {:.4}  {key}  {}  error {:.3e}", hit.similarity, hit.id, hit.error));
            }
        }
        lines.join("\n")
    })
}

pub(crate) fn list(arguments: &List, json: bool) -> Outcome {
    let store = Store::open_read_only(&arguments.store)?;
    let filter = arguments.filter.as_deref().map(Filter::parse).transpose()?;
    let mut rows = Vec::new();
    for entry in store.iter()? {
        let entry = entry?;
        if arguments.limit.is_some_and(|limit| rows.len() == limit) {
            break;
        }
        if filter.as_ref().is_none_or(|filter| filter.matches(entry.metadata())) {
            rows.push(entry);
        }
    }
    let document: Vec<_> = rows.iter().map(describe).collect();
    output::result(json, &document, || {
        let mut lines = vec![format!("{:>12}  {:>6}  {:>9}  {:>3}  key", "id", "reads", "error", "pin")];
        lines.extend(rows.iter().map(|entry| {
            let key = entry.key().map_or("-".to_owned(), output::key_text);
            let pin = if entry.is_pinned() { "yes" } else { "" };
            format!(
                "{:>12}  {:>6}  {:>9.3e}  {pin:>3}  {key}",
                entry.id().to_string(),
                entry.count(),
                entry.error()
            )
        }));
        lines.join("\n")
    })
}

pub(crate) fn export(arguments: &Export, json: bool) -> Outcome {
    let store = Store::open_read_only(&arguments.store)?;
    let out = &arguments.out;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let entries = store.iter()?.collect::<Result<Vec<_>>>()?;
    let permissions = output::permissions_of(&arguments.store);
    let lines_path = out.join("records.jsonl");
    let new = NewFile::create(&lines_path, Taken::Replace)?;
    let mut lines = std::io::BufWriter::new(new.file());
    let mut dims = vec![entries.len()];
    dims.extend(store.description().shape.dims());
    let mut array = npy::Writer::create_as(&out.join("records.npy"), &dims, permissions.clone())?;
    let bar = output::bar(entries.len() as u64, "exporting");
    let batch = (EXPORT_VALUES / store.description().shape.values()).clamp(1, 512);
    for batch in entries.chunks(batch) {
        if let Some(records) = Entry::records(batch)? {
            array.push(records.values())?;
        }
        for entry in batch {
            writeln!(lines, "{}", describe(entry)).map_err(Error::io(&lines_path))?;
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    array.finish()?;
    lines.flush().map_err(Error::io(&lines_path))?;
    drop(lines);
    new.finish(permissions)?;
    let document = json!({ "records": entries.len(), "out": out.display().to_string() });
    output::result(json, &document, || {
        format!("{} records in {}: records.npy, records.jsonl", entries.len(), out.display())
    })
}

pub(crate) fn stats(arguments: &Stats, json: bool) -> Outcome {
    if arguments.recover {
        Store::open(&arguments.store)?.close()?;
    }
    let stats = Store::open_read_only(&arguments.store)?.stats()?;
    output::result(json, &stats, || {
        let slots = format!(
            "{} of {} occupied, {} pinned",
            output::count(stats.occupied.into()),
            output::count(stats.capacity.into()),
            output::count(stats.pinned.into())
        );
        let evictions = format!(
            "{}, {} of them never read",
            output::count(stats.evictions),
            output::count(stats.evictions_never_read)
        );
        let error = stats.errors.as_ref().map_or("-".to_owned(), |errors| {
            format!(
                "{:.3e} mean, {:.3e} half, {:.3e} 95 %, {:.3e} largest, mean squared, an element",
                errors.mean, errors.p50, errors.p95, errors.max
            )
        });
        let budget = stats.byte_budget.map_or("no budget".to_owned(), |budget| {
            format!("of {} in the budget", output::bytes(budget as f64))
        });
        let residuals = format!(
            "{} kept, {} dropped; {} stored in all, {budget}",
            output::count(stats.residuals.into()),
            output::count(stats.residuals_dropped),
            output::bytes(stats.stored_bytes as f64)
        );
        output::table(&[
            ("slots", slots),
            ("record", format!("{:?}", stats.record_shape)),
            ("code", format!("{:.1} bytes a record", stats.code_bytes)),
            ("residuals", residuals),
            ("slot", format!("{:.1} bytes a record, with all that is stored for it", stats.slot_bytes)),
            ("file", output::bytes(stats.file_bytes as f64)),
            ("memory", format!("{} for the slots", output::bytes(stats.memory_bytes as f64))),
            ("error", error),
            ("reads", output::count(stats.reads)),
            ("evictions", evictions),
            ("policy", stats.policy.to_string()),
            (
                "codec",
                format!(
                    "{} {}, {} parameters, {}",
                    stats.codec.preset,
                    stats.codec.quantizer,
                    output::count(stats.codec.parameters),
                    output::bytes(stats.codec.bytes as f64)
                ),
            ),
        ])
    })
}

fn describe(entry: &Entry<'_>) -> serde_json::Value {
    json!({
        "slot": entry.id().slot,
        "seq": entry.id().seq,
        "key": entry.key().map(output::key_text),
        "metadata": entry.metadata(),
        "error": entry.error(),
        "count": entry.count(),
        "pinned": entry.is_pinned(),
        "written_at": entry.written_at(),
        "expires_at": entry.expires_at(),
        "code_bytes": entry.code_len(),
        "residual_bytes": entry.residual_len(),
    })
}
