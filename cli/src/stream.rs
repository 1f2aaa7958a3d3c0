//! `apcm stream`: append to streams, recall, list, remove, and the tree that folds them.

use crate::outcome::{Failure, Outcome};
use crate::output;
use apcm::ingest::Dataset;
use apcm::sequence::SweeperTree;
use apcm::{Device, Store};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Give a store the tree that folds its streams; `apcm train --sequence` makes one
    #[command(after_help = "Example:\n  apcm stream tree memory.apcm walks.tree")]
    Tree(StreamTree),
    /// Append the records of a file to a stream, in one durable transaction
    #[command(after_help = "Example:\n  apcm stream append memory.apcm session-7 states.npy")]
    Append(StreamAppend),
    /// Write records of a stream to a file; not counted as an access
    #[command(after_help = "Examples:\n  apcm stream recall memory.apcm session-7 --out all.npy\n  \
                            apcm stream recall memory.apcm session-7 --from 100 --to 132 --out some.npy")]
    Recall(StreamRecall),
    /// List all streams
    List(StreamList),
    /// Remove a stream
    Remove(StreamRemove),
}

#[derive(Debug, Args)]
pub(crate) struct StreamTree {
    /// The store
    pub(crate) store: PathBuf,
    /// The tree
    pub(crate) tree: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StreamAppend {
    /// The store
    pub(crate) store: PathBuf,
    /// The stream's name
    pub(crate) name: String,
    /// One record, or many along the first axis
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StreamRecall {
    /// The store
    pub(crate) store: PathBuf,
    /// The stream's name
    pub(crate) name: String,
    /// The first record; with --to, every one in between must be there. Without both, all that is left
    #[arg(long, requires = "to")]
    pub(crate) from: Option<u64>,
    /// One past the last record
    #[arg(long, requires = "from")]
    pub(crate) to: Option<u64>,
    /// File for the records; it gets the store's permissions
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StreamList {
    /// The store
    pub(crate) store: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StreamRemove {
    /// The store
    pub(crate) store: PathBuf,
    /// The stream's name
    pub(crate) name: String,
}

pub(crate) fn run(command: &StreamCommand, json: bool) -> Outcome {
    match command {
        StreamCommand::Tree(arguments) => tree(arguments, json),
        StreamCommand::Append(arguments) => append(arguments, json),
        StreamCommand::Recall(arguments) => recall(arguments, json),
        StreamCommand::List(arguments) => list(arguments, json),
        StreamCommand::Remove(arguments) => remove(arguments, json),
    }
}

fn tree(arguments: &StreamTree, json: bool) -> Outcome {
    let tree = SweeperTree::load(&arguments.tree, Device::Cpu)?;
    let store = Store::open(&arguments.store)?;
    let (capacity, parameters) = (tree.capacity(), tree.parameters());
    store.set_sweeper_tree(tree)?;
    store.close()?;
    let document = json!({ "capacity": capacity, "parameters": parameters });
    output::result(json, &document, || {
        format!("{}: streams of parts of {capacity} records", arguments.store.display())
    })
}

fn append(arguments: &StreamAppend, json: bool) -> Outcome {
    let store = Store::open(&arguments.store)?;
    let records = Dataset::open_as(&arguments.data, store.description().shape)?.load()?;
    let appended = store.stream(&arguments.name)?.append_all(&records)?;
    let len = store.stream(&arguments.name)?.len()?;
    store.close()?;
    let errors: Vec<f32> = appended.iter().map(|appended| appended.error).collect();
    let evicted: Vec<String> = appended
        .iter()
        .flat_map(|appended| &appended.evicted)
        .map(|evicted| evicted.id.to_string())
        .collect();
    let document = json!({
        "stream": arguments.name,
        "first": appended.first().map(|appended| appended.index),
        "appended": appended.len(),
        "len": len,
        "errors": errors,
        "evicted": evicted,
    });
    output::result(json, &document, || {
        let mean = errors.iter().sum::<f32>() / errors.len().max(1) as f32;
        format!(
            "{}: {} appended, {len} in all, error {mean:.3e}, {} evicted",
            arguments.name,
            appended.len(),
            evicted.len()
        )
    })
}

fn recall(arguments: &StreamRecall, json: bool) -> Outcome {
    let store = Store::open_read_only(&arguments.store)?;
    let stream = store.stream(&arguments.name)?;
    if stream.is_empty()? {
        return Err(Failure::NoStream(arguments.name.clone()));
    }
    let recalled = match (arguments.from, arguments.to) {
        (Some(from), Some(to)) => stream.recall_range(from..to)?,
        _ => stream.recall_all()?,
    };
    let mut dims = vec![recalled.len()];
    dims.extend(store.description().shape.dims());
    let values: Vec<f32> = recalled.iter().flat_map(|recalled| recalled.record.values()).copied().collect();
    output::array(&arguments.out, &arguments.store, &dims, &values)?;
    let errors: Vec<f32> = recalled.iter().map(|recalled| recalled.error).collect();
    let document = json!({
        "stream": arguments.name,
        "indices": recalled.iter().map(|recalled| recalled.index).collect::<Vec<u64>>(),
        "errors": errors,
        "len": stream.len()?,
        "out": arguments.out.display().to_string(),
    });
    output::result(json, &document, || {
        let mean = errors.iter().sum::<f32>() / errors.len().max(1) as f32;
        format!(
            "{}: {} records, error {mean:.3e} when they were appended, in {}",
            arguments.name,
            recalled.len(),
            arguments.out.display()
        )
    })
}

fn list(arguments: &StreamList, json: bool) -> Outcome {
    let store = Store::open_read_only(&arguments.store)?;
    let streams = store.streams()?;
    output::result(json, &streams, || {
        let line = |info: &apcm::StreamInfo| {
            format!("{}  {} records in {} parts, of {} ever", info.name, info.records, info.parts, info.len)
        };
        match streams.is_empty() {
            true => "no streams".to_owned(),
            false => streams.iter().map(line).collect::<Vec<String>>().join("\n"),
        }
    })
}

fn remove(arguments: &StreamRemove, json: bool) -> Outcome {
    let store = Store::open(&arguments.store)?;
    let parts = store.stream(&arguments.name)?.remove()?;
    store.close()?;
    if parts == 0 {
        return Err(Failure::NoStream(arguments.name.clone()));
    }
    let document = json!({ "stream": arguments.name, "parts": parts });
    output::result(json, &document, || format!("{}: {parts} parts removed", arguments.name))
}
