//! `apcm stream`: append to streams, recall, list, remove, and the tree that folds them.

use super::arguments::{StreamAppend, StreamCommand, StreamList, StreamRecall, StreamRemove, StreamTree};
use super::{Failure, Outcome, output};
use crate::codec::Device;
use crate::ingest::Dataset;
use crate::sequence::SweeperTree;
use crate::store::Store;
use serde_json::json;

pub(super) fn run(command: &StreamCommand, json: bool) -> Outcome {
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
            "{}: {} appended, {len} in all, error {mean:.3e}, {} made room",
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
        let line = |info: &crate::store::StreamInfo| {
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
