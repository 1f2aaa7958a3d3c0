//! `apcm train`.

use crate::options::{Force, Groups, PresetName, Quantizer};
use crate::outcome::{Failure, Outcome};
use crate::{interrupt, output};
use apcm::codec::{Codec, EndedBy, FlowCodec, QuantizerSpec, StageReport, TrainReport, Trained, fingerprint};
use apcm::ingest::{Dataset, Sidecar};
use apcm::sequence::SweeperTree;
use apcm::{Device, Error, Records};
use clap::Args;
use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Train {
    /// The dataset; its first axis counts the records
    pub(crate) data: PathBuf,
    /// Target bytes per code (the mean, if lengths vary)
    #[arg(long, required_unless_present_any = ["error", "sequence"])]
    pub(crate) bytes: Option<usize>,
    /// Mean squared error per element instead of bytes: entropy coded, bytes as they come
    #[arg(long, conflicts_with_all = ["bytes", "quantizer"])]
    pub(crate) error: Option<f64>,
    /// Train a sweeper tree for streams instead: every LENGTH records, one after the other, are a sequence
    #[arg(long, value_name = "LENGTH", conflicts_with_all = ["bytes", "error", "quantizer", "max_bytes", "preset", "couplings"])]
    pub(crate) sequence: Option<usize>,
    /// Most values of a state of a sequence
    #[arg(long, default_value_t = 1_024, requires = "sequence")]
    pub(crate) state: usize,
    /// Longest code of any single record, where codes are entropy coded
    #[arg(long)]
    pub(crate) max_bytes: Option<usize>,
    /// File for the codec
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) force: Force,
    /// How coordinates become bytes
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) quantizer: Quantizer,
    /// Which network
    #[arg(long, value_enum, default_value = "ordered")]
    pub(crate) preset: PresetName,
    /// Use the first N records only
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Most steps of each stage; 0 fits rotation and quantizer and trains nothing
    #[arg(long, default_value_t = 2_000)]
    pub(crate) steps: usize,
    /// Time limit in minutes
    #[arg(long, default_value_t = 5.0)]
    pub(crate) minutes: f64,
    /// Seed of the split, the weights and the batches
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Couplings to try after the predictor
    #[arg(long)]
    pub(crate) couplings: Option<usize>,
    /// Bound of the paper preset's scales, which has none as published and can diverge on little data
    #[arg(long, value_name = "BOUND")]
    pub(crate) scale_clamp: Option<f32>,
    #[command(flatten)]
    pub(crate) groups: Groups,
    /// Where to compute: cpu, ndarray or wgpu
    #[arg(long, default_value = "cpu")]
    pub(crate) device: Device,
}

pub(crate) fn run(arguments: &Train, json: bool) -> Outcome {
    let dataset = Dataset::open(&arguments.data)?;
    if !arguments.force.force && arguments.out.exists() {
        // Asked before the work as well.
        return Err(Error::Exists { path: arguments.out.clone() }.into());
    }
    let records = dataset.load_range(0..arguments.limit.unwrap_or(u64::MAX))?;
    if let Some(length) = arguments.sequence {
        return tree(arguments, &records, length, json);
    }
    let bytes = arguments.bytes.unwrap_or(0);
    let values = |width: usize| {
        if bytes.is_multiple_of(width) && bytes > 0 {
            Ok(bytes / width)
        } else {
            Err(Error::argument("the bytes of a code", format!("a multiple of {width}"), bytes))
        }
    };
    let spec = match (arguments.error, arguments.quantizer) {
        (Some(error), _) => Some(QuantizerSpec::entropy_error(error)),
        // The published network has no order for bits to follow: its coordinates are kept as they are.
        (None, Quantizer::Auto) if matches!(arguments.preset, PresetName::Paper) => {
            Some(QuantizerSpec::F32(values(4)?))
        }
        (None, Quantizer::Auto) if arguments.max_bytes.is_none() => None,
        (None, Quantizer::Auto | Quantizer::Entropy) => Some(QuantizerSpec::entropy(bytes)),
        (None, Quantizer::EntropyFixed) => Some(QuantizerSpec::entropy_fixed(bytes)),
        (None, Quantizer::Residual) => Some(QuantizerSpec::Residual(bytes)),
        (None, Quantizer::Allocated) => Some(QuantizerSpec::Allocated(bytes)),
        (None, Quantizer::I8) => Some(QuantizerSpec::I8(values(1)?)),
        (None, Quantizer::F16) => Some(QuantizerSpec::F16(values(2)?)),
        (None, Quantizer::F32) => Some(QuantizerSpec::F32(values(4)?)),
    };
    let spec = match arguments.max_bytes {
        Some(most) => spec.map(|spec| spec.max_bytes(most)),
        None => spec,
    };
    let time = minutes(arguments)?;
    let bar = output::bar(arguments.steps as u64, "training");
    let trainer = FlowCodec::trainer(&records);
    let trainer = match spec {
        Some(spec) => trainer.quantizer(spec),
        None => trainer.bytes_per_record(bytes),
    };
    let mut trainer = trainer
        .preset(arguments.preset.into())
        .device(arguments.device)
        .seed(arguments.seed)
        .time_budget(Some(time))
        .progress(|progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(progress.stage.to_owned());
            interrupt::go_on()
        });
    trainer = if arguments.steps == 0 { trainer.untrained() } else { trainer.steps(arguments.steps) };
    if let Some(couplings) = arguments.couplings {
        trainer = trainer.couplings(couplings);
    }
    if let Some(bound) = arguments.scale_clamp {
        trainer = trainer.scale_clamp(bound);
    }
    if let Some(groups) = groups(&arguments.groups, &arguments.data, records.len())? {
        trainer = trainer.groups(groups);
    }
    let Trained { codec, report } = trainer.train()?;
    bar.finish_and_clear();
    warn(&report);
    save(arguments, || codec.save(&arguments.out), || codec.save_over(&arguments.out))?;
    let image = codec.image()?.encode().map_err(Error::Format)?;
    let info = codec.info();
    let document = serde_json::json!({
        "records_trained": report.training_records,
        "records_validated": report.validation_records,
        "record_shape": codec.shape().dims(),
        "bytes": codec.code_len_max(),
        "preset": info.preset,
        "quantizer": info.quantizer,
        "parameters": info.parameters,
        "codec_bytes": image.len(),
        "fingerprint": fingerprint(&image).to_string(),
        "seconds": report.seconds,
        "quantizers": report.quantizers,
        "stages": report.stages,
    });
    output::result(json, &document, || {
        let chosen = report.quantizers.iter().find(|choice| choice.chosen);
        let code = match chosen.and_then(|choice| choice.bytes) {
            Some(mean) => format!("{mean:.1} bytes a record, at most {}", codec.code_len_max()),
            None => format!("at most {} bytes a record", codec.code_len_max()),
        };
        let mut rows = vec![
            ("records", output::count(report.training_records as u64)),
            ("code", code),
            ("codec", format!("{} in {}", output::bytes(image.len() as f64), arguments.out.display())),
            ("time", format!("{:.1} s", report.seconds)),
        ];
        for choice in &report.quantizers {
            let verdict = if choice.chosen { "taken" } else { "left out: another loses less" };
            let charts = choice.charts.map_or(String::new(), |charts| match charts {
                1 => ", 1 chart".to_owned(),
                charts => format!(", {charts} charts"),
            });
            if let (Some(bytes), Some(error)) = (choice.bytes, choice.error) {
                let said = format!("{bytes:.1} bytes{charts}, error {error:.3e}, {verdict}");
                rows.push((choice.quantizer, said));
            }
        }
        rows.extend(report.stages.iter().map(|stage| (stage.name, said(stage))));
        output::table(&rows)
    })?;
    unless_stopped(arguments)
}

/// Warnings about a run, besides its result.
fn warn(report: &TrainReport) {
    if report.stages.iter().any(|stage| stage.ended_by == EndedBy::Diverged && stage.accepted) {
        eprintln!(
            "apcm: the training diverged; --scale-clamp 0.3 bounds what the couplings multiply by, and records of a size \
             of about 1 help more"
        );
    }
}

/// What each record belongs to.
pub(crate) fn groups(groups: &Groups, data: &Path, records: usize) -> Result<Option<Vec<usize>>, Error> {
    if let Some(every) = groups.every {
        if every == 0 {
            return Err(Error::argument("the records of a group", "at least 1", 0));
        }
        return Ok(Some((0..records).map(|row| row / every).collect()));
    }
    let Some(field) = &groups.group_field else { return Ok(None) };
    let path = Sidecar::beside(data).ok_or_else(|| Error::Dataset {
        path: data.to_owned(),
        cause: format!("groups from the field {field:?} need a JSONL file of the same name beside it"),
    })?;
    let mut sidecar = Sidecar::open(&path)?;
    let mut names = HashMap::new();
    let group = |row: usize| {
        let values = sidecar.next_object()?;
        let value = values.get(field).ok_or_else(|| Error::Dataset {
            path: path.clone(),
            cause: format!("record {row} has no field {field:?}"),
        })?;
        let number = names.len();
        Ok(*names.entry(format!("{value:?}")).or_insert(number))
    };
    (0..records).map(group).collect::<Result<Vec<usize>, Error>>().map(Some)
}

fn save(
    arguments: &Train,
    new: impl FnOnce() -> Result<(), Error>,
    over: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    if arguments.force.force { over() } else { new() }
}

/// After a signal: the codec trained so far was saved; exits with 130 and says how to train further.
fn unless_stopped(arguments: &Train) -> Outcome {
    if !interrupt::is_stopped() {
        return Ok(());
    }
    let out = arguments.out.display();
    Err(Failure::Stopped(format!(
        "{out} holds what was trained until then; run it again with --force for all steps"
    )))
}

fn said(stage: &StageReport) -> String {
    let verdict = match (stage.ended_by, stage.accepted) {
        (EndedBy::Diverged, true) => "then the loss was infinite: the best weights before that are kept",
        (_, true) => "kept",
        (_, false) => "left out: it does not pay",
    };
    let error = |error: Option<f64>| error.map_or("-".to_owned(), |error| format!("{error:.3e}"));
    let (before, after) = (error(stage.error_before), error(stage.error_after));
    format!("{} steps, error {before} -> {after}, {verdict}", stage.steps)
}

fn minutes(arguments: &Train) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(arguments.minutes * 60.0)
        .map_err(|_| Error::argument("the minutes", "a number of 0 or more", arguments.minutes))
}

/// `apcm train --sequence`: a sweeper tree.
fn tree(arguments: &Train, records: &Records, length: usize, json: bool) -> Outcome {
    if length < 2 || length > records.len() {
        let expected = format!("2 to {}, the records there are", records.len());
        return Err(Error::argument("the length of a sequence", expected, length).into());
    }
    let lengths: Vec<usize> =
        (0..records.len()).step_by(length).map(|first| length.min(records.len() - first)).collect();
    let bar = output::bar(arguments.steps as u64, "training");
    let trained = SweeperTree::trainer(records, &lengths)
        .state(arguments.state)
        .steps(arguments.steps)
        .device(arguments.device)
        .seed(arguments.seed)
        .time_budget(Some(minutes(arguments)?))
        .progress(|progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(progress.stage.to_owned());
            interrupt::go_on()
        })
        .train()?;
    bar.finish_and_clear();
    let tree = &trained.tree;
    save(arguments, || tree.save(&arguments.out), || tree.save_over(&arguments.out))?;
    let bytes = std::fs::metadata(&arguments.out).map_err(Error::io(&arguments.out))?.len();
    let document = serde_json::json!({
        "records": records.len(),
        "sequences": lengths.len(),
        "record_shape": trained.tree.shape().dims(),
        "capacity": trained.tree.capacity(),
        "state": trained.tree.state_len(trained.tree.capacity()),
        "parameters": trained.tree.parameters(),
        "tree_bytes": bytes,
        "seconds": trained.seconds,
        "levels": trained.levels,
    });
    output::result(json, &document, || {
        let mut rows = vec![
            ("sequences", format!("{} of {length}", output::count(lengths.len() as u64))),
            (
                "tree",
                format!(
                    "{} records into {} values, {} parameters, {} in {}",
                    trained.tree.capacity(),
                    trained.tree.state_len(trained.tree.capacity()),
                    output::count(trained.tree.parameters()),
                    output::bytes(bytes as f64),
                    arguments.out.display()
                ),
            ),
            ("time", format!("{:.1} s", trained.seconds)),
        ];
        if arguments.steps > 0 && trained.levels.iter().all(|level| level.stages.is_empty()) {
            rows.push((
                "networks",
                "none: there is little to restore, or too few sequences to judge by".to_owned(),
            ));
        }
        for level in &trained.levels {
            let said_of =
                format!("{} records into {} values, error {:.3e}", level.records, level.state, level.error);
            rows.push(("level", said_of));
            rows.extend(level.stages.iter().map(|stage| (stage.name, said(stage))));
        }
        output::table(&rows)
    })?;
    unless_stopped(arguments)
}
