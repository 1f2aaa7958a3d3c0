//! The IMFN paper's table beside ours: sequences of MNIST digits in one memory of 1,024 numbers.
//!
//! `cargo run --release --example imfn_table -- --data DIR [--json] [--steps 2000] [--depth]`
//!
//! `DIR` holds `mnist/train-images-idx3-ubyte.gz` and `t10k-images-idx3-ubyte.gz`, as their authors give them;
//! nothing of the second is seen before it is measured. Half an hour on two cores. With `--depth` instead,
//! error by level on sequences whose records go with each other: windows that slide over a larger picture, made
//! of `fashion-mnist/`, and paragraphs of `text-embeddings/`, document by document.
//!
//! `bytes` are those of a whole sequence; PSNR is that of the mean error, SSIM the mean over all images.

use apcm::codec::StageReport;
use apcm::ingest::Dataset;
use apcm::report::{mean_squared_error, psnr_db, ssim};
use apcm::sequence::Student;
use apcm::{Codec, FlowCodec, QuantizerSpec, Records, Result, StoredCode, SweeperTree};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Images of a sequence, and numbers of its memory.
const T: usize = 128;
const D: usize = 1_024;
/// Records of a sequence in the table by depth, and bytes a record.
const DEEPEST: usize = 16;
const BYTES: usize = 32;
/// Most numbers of a state that will be quantized.
const WIDE: usize = 1_568;

struct Row {
    method: String,
    mse: f64,
    ssim: Option<f64>,
    parameters: Option<u64>,
    bytes: f64,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "method": self.method,
            "mse": self.mse,
            "psnr_db": psnr_db(self.mse),
            "ssim": self.ssim,
            "parameters": self.parameters,
            "bytes": self.bytes,
        })
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let Some(data) = option("--data").map(PathBuf::from) else {
        return Err("--data DIR: where mnist/ is".into());
    };
    let steps = option("--steps").map_or(Ok(2_000), |steps| steps.parse())?;
    if flag("--depth") {
        let mut depth = Vec::new();
        for (name, records, sources) in [windows(&data)?, paragraphs(&data)?] {
            depth.extend(by_depth(name, &records, &sources, steps)?);
        }
        match flag("--json") {
            true => println!("{}", json!({ "depth": depth })),
            false => depth.iter().for_each(|row| println!("{row}")),
        }
        return Ok(());
    }
    let rows = digits(&data, steps)?;
    match flag("--json") {
        true => println!("{}", json!({ "rows": rows.iter().map(Row::json).collect::<Vec<_>>() })),
        false => rows.iter().for_each(print),
    }
    Ok(())
}

fn print(row: &Row) {
    let ssim = row.ssim.map_or("-".to_owned(), |ssim| format!("{ssim:.4}"));
    let parameters = row.parameters.map_or("-".to_owned(), |count| format!("{:.2} M", count as f64 / 1e6));
    println!(
        "{:<44} {:.5}  {:>5.2} dB  {ssim:>6}  {parameters:>9}  {:>6.0} B",
        row.method,
        row.mse,
        psnr_db(row.mse),
        row.bytes
    );
}

/// Mean squared error and SSIM of what comes back.
fn judged(method: &str, exact: &Records, back: &Records, parameters: u64, bytes: f64) -> Row {
    let similarities =
        exact.rows().zip(back.rows()).map(|(image, back)| ssim(image, back, 28).unwrap_or(0.0));
    Row {
        method: method.to_owned(),
        mse: mean_squared_error(exact, back),
        ssim: Some(similarities.sum::<f64>() / exact.len() as f64),
        parameters: Some(parameters),
        bytes,
    }
}

fn digits(data: &Path, steps: usize) -> Result<Vec<Row>> {
    let load = |name: &str| -> Result<Records> {
        let records = Dataset::open(data.join("mnist").join(name))?.load()?;
        Ok(records.slice(0..records.len() / T * T))
    };
    let (train, test) = (load("train-images-idx3-ubyte.gz")?, load("t10k-images-idx3-ubyte.gz")?);
    let quoted = |method: &str, mse, ssim, millions: f64| Row {
        method: format!("{method} (arXiv 2602.00535)"),
        mse,
        ssim: Some(ssim),
        parameters: Some((millions * 1e6) as u64),
        bytes: (4 * D) as f64,
    };
    let mut rows = vec![
        quoted("IMFN", 0.052132, 0.6300, 61.43),
        quoted("Mamba", 0.055753, 0.4341, 186.86),
        quoted("Transformer", 0.066598, 0.3396, 182.56),
    ];
    let mut mean = vec![0.0_f32; train.shape().values()];
    for row in train.rows() {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / train.len() as f32);
    }
    let mut means = Records::new(test.shape());
    (0..test.len()).try_for_each(|_| means.push_values(&mean))?;
    rows.push(judged("the mean image", &test, &means, mean.len() as u64, 0.0));

    let coded = |method: &str, codec: &FlowCodec| -> Result<Row> {
        let (back, bytes) = through(codec, &test)?;
        Ok(judged(method, &test, &back, codec.info().parameters, bytes * T as f64))
    };
    let numbers = D / T;
    let pca = FlowCodec::pca(&train, QuantizerSpec::F32(numbers))?;
    rows.push(coded("PCA, 8 numbers an image", &pca)?);
    let trained = FlowCodec::trainer(&train).quantizer(QuantizerSpec::F32(numbers)).steps(steps).train()?;
    rows.push(coded("apcm codec, 8 numbers an image", &trained.codec)?);
    let quantized = FlowCodec::trainer(&train).bytes_per_record(4 * numbers).steps(steps).train()?;
    rows.push(coded("apcm codec, 32 bytes an image", &quantized.codec)?);

    let lengths = vec![T; train.len() / T];
    for (method, steps) in [("sweeper tree, untrained", 0), ("sweeper tree, trained", steps)] {
        // Of images in no order a sweeper's predictor has nothing to predict; the restorers have.
        let trainer = SweeperTree::trainer(&train, &lengths).state(D).predictors(false);
        let trained = trainer.steps(steps).train()?;
        for level in &trained.levels {
            level.stages.iter().for_each(|stage| told(&format!("{} records", level.records), stage));
        }
        let tree = trained.tree;
        let back = folded(&tree, &test, T, &|state| Ok(state.to_vec()))?;
        rows.push(judged(method, &test, &back, tree.parameters(), (4 * D) as f64));
        if steps > 0 {
            rows.push(student(&tree, &train, &test, steps)?);
        }
    }
    Ok(rows)
}

fn told(of: &str, stage: &StageReport) {
    let error = |error: Option<f64>| error.map_or("-".to_owned(), |error| format!("{error:.5}"));
    let (before, after) = (error(stage.error_before), error(stage.error_after));
    eprintln!("{of}, {}: {} steps, {before} -> {after}, kept: {}", stage.name, stage.steps, stage.accepted);
}

/// A student of the tree, left alone from the beginning; the tree decodes its memory.
fn student(tree: &SweeperTree, train: &Records, test: &Records, steps: usize) -> Result<Row> {
    let (student, stages) = Student::trainer(tree, train, T).steps(steps).train()?;
    // Its errors are gaps to the tree, as a share of the square of the tree's states.
    stages.iter().for_each(|stage| told("student", stage));
    let mut back = Records::new(test.shape());
    for first in (0..test.len()).step_by(T) {
        let mut memory = student.begin(tree)?;
        for row in first..first + T {
            memory = student.append(tree, &memory, &test.get(row))?;
        }
        tree.decode(&memory)?.rows().try_for_each(|row| back.push_values(row))?;
    }
    let parameters = tree.parameters() + student.parameters();
    Ok(judged("student of the trained tree", test, &back, parameters, (4 * D) as f64))
}

/// Records through a codec, and the bytes that a record takes.
fn through(codec: &FlowCodec, records: &Records) -> Result<(Records, f64)> {
    let encoded = codec.encode(records)?;
    let codes: Vec<StoredCode<'_>> = encoded
        .iter()
        .map(|one| StoredCode { bytes: &one.code, without_predictor: one.without_predictor })
        .collect();
    let bytes: f64 = encoded.iter().map(|one| codec.quantizer().counted_bytes(one.code.len())).sum();
    Ok((codec.decode(&codes)?, bytes / records.len() as f64))
}

/// Every `length` records through one state of a tree, and the state through `kept`.
fn folded(
    tree: &SweeperTree,
    records: &Records,
    length: usize,
    kept: &dyn Fn(&[f32]) -> Result<Vec<f32>>,
) -> Result<Records> {
    let mut back = Records::new(records.shape());
    for first in (0..records.len()).step_by(length) {
        let state = tree.encode(&records.slice(first..first + length))?;
        let state = apcm::sequence::SequenceState::new(length as u64, kept(state.values())?);
        tree.decode(&state)?.rows().try_for_each(|row| back.push_values(row))?;
    }
    Ok(back)
}

/// A name, records, and of each sequence what it is cut from: a picture, a document.
type Sequences = (&'static str, Records, Vec<usize>);

/// Windows of 28 x 28 that slide, four pixels a step, over pictures of eight garments side by side.
fn windows(data: &Path) -> Result<Sequences> {
    let images =
        Dataset::open(data.join("fashion-mnist/train-images-idx3-ubyte.gz"))?.load_range(0..4_000)?;
    let mut records = Records::new(images.shape());
    for strip in 0..images.len() / 8 {
        for step in 0..DEEPEST * 3 {
            let left = 4 * step;
            let pixel = |at: usize| {
                let (y, x) = (at / 28, left + at % 28);
                images.row(8 * strip + x / 28)[28 * y + x % 28]
            };
            records.push_values(&(0..784).map(pixel).collect::<Vec<f32>>())?;
        }
    }
    let sources = (0..records.len() / DEEPEST).map(|sequence| sequence / 3).collect();
    Ok(("windows over a picture", records, sources))
}

/// Embeddings of paragraphs, sixteen of one document at a time.
fn paragraphs(data: &Path) -> std::result::Result<Sequences, Box<dyn std::error::Error>> {
    let folder = data.join("text-embeddings");
    let all = Dataset::open(folder.join("train.npy"))?.load()?;
    let lines = flate2::read::GzDecoder::new(std::fs::File::open(folder.join("train.jsonl.gz"))?);
    let mut documents: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (row, line) in std::io::BufRead::lines(std::io::BufReader::new(lines)).enumerate() {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        documents.entry((text("source"), text("doc"))).or_default().push(row);
    }
    let mut records = Records::new(all.shape());
    let mut sources = Vec::new();
    for (document, rows) in documents.values().enumerate() {
        let whole = rows.len() / DEEPEST * DEEPEST;
        rows[..whole].iter().try_for_each(|&row| records.push_values(all.row(row)))?;
        sources.extend(std::iter::repeat_n(document, whole / DEEPEST));
    }
    Ok(("paragraphs of a document", records, sources))
}

/// Error by level: so many records in as many numbers as one has, and at 32 bytes a record, against as much
/// spent on each record alone. Every tenth picture or document is set aside, whole.
fn by_depth(name: &str, all: &Records, sources: &[usize], steps: usize) -> Result<Vec<serde_json::Value>> {
    let (mut train, mut test) = (Records::new(all.shape()), Records::new(all.shape()));
    for (sequence, source) in sources.iter().enumerate() {
        let into = if source % 10 == 9 { &mut test } else { &mut train };
        (sequence * DEEPEST..(sequence + 1) * DEEPEST).try_for_each(|row| into.push_values(all.row(row)))?;
    }
    let values = all.shape().values();
    let alone = |spec: Option<QuantizerSpec>| -> Result<f64> {
        let trainer = FlowCodec::trainer(&train).steps(steps);
        let trainer = match spec {
            Some(spec) => trainer.quantizer(spec),
            None => trainer.bytes_per_record(BYTES),
        };
        Ok(mean_squared_error(&test, &through(&trainer.train()?.codec, &test)?.0))
    };
    eprintln!("{name}: {} records, {} to test with", train.len(), test.len());
    let coded_alone = alone(None)?;
    // Levels are trained from below, so a tree of sixteen has those of all shorter sequences.
    let lengths = vec![DEEPEST; train.len() / DEEPEST];
    let trainer = || SweeperTree::trainer(&train, &lengths).state(values);
    let (plain, trained) = (trainer().untrained().train()?.tree, trainer().steps(steps).train()?.tree);
    // Where states are quantized, it is the quantizer that says how many of their numbers are worth a bit.
    let wide = trainer().state(WIDE).untrained().train()?.tree;
    let mut rows = Vec::new();
    let mut length = 2;
    while length <= DEEPEST {
        let exact = |tree: &SweeperTree| -> Result<f64> {
            Ok(mean_squared_error(&test, &folded(tree, &test, length, &|state| Ok(state.to_vec()))?))
        };
        // The states as records of a codec of their own.
        let mut states = Records::with_dims(&[wide.state_len(length as u64)])?;
        for first in (0..train.len()).step_by(length) {
            states.push_values(wide.encode(&train.slice(first..first + length))?.values())?;
        }
        let codec = FlowCodec::trainer(&states).bytes_per_record(BYTES * length).steps(steps).train()?.codec;
        let coded = |state: &[f32]| -> Result<Vec<f32>> {
            let mut one = Records::with_dims(&[state.len()])?;
            one.push_values(state)?;
            Ok(through(&codec, &one)?.0.values().to_vec())
        };
        let numbers = QuantizerSpec::F32(values / length);
        let pca = mean_squared_error(&test, &through(&FlowCodec::pca(&train, numbers)?, &test)?.0);
        rows.push(json!({
            "sequences": name,
            "ratio": length,
            "tree_untrained": exact(&plain)?,
            "tree_trained": exact(&trained)?,
            "alone_pca": pca,
            "alone_trained": alone(Some(numbers))?,
            "tree_32_bytes_a_record": mean_squared_error(&test, &folded(&wide, &test, length, &coded)?),
            "alone_32_bytes": coded_alone,
        }));
        eprintln!("{}", rows[rows.len() - 1]);
        length *= 2;
    }
    Ok(rows)
}
