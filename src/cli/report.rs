//! `apcm report`: how codecs do on the user's own data.

use super::arguments::Report;
use super::{Outcome, output};
use crate::Similarity;
use crate::codec::{
    Autoencoder, Codec, Encoded, FlowCodec, GaussianBound, PlainCodec, Progress, QuantizerSpec, StageReport,
    StoredCode, TrainReport, Trained,
};
use crate::error::{Error, Result};
use crate::ingest::Dataset;
use crate::record::Records;
use crate::report::page::{Figure, Page};
use crate::report::pictures::{self, Curve, Plot};
use crate::report::{
    Row, mean_absolute_error, mean_psnr_db, mean_squared_error, psnr_db, recall_at, relative_error,
    squared_errors, ssim, variance,
};
use crate::store::Store;
use crate::summary::ErrorSummary;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// Neighbours that count.
const NEIGHBOURS: usize = 10;
/// Most queries of the recall; a fifth of the held-out records where those are few.
const QUERIES_MAX: usize = 1_000;
/// Most held-out pictures that are compared by structural similarity.
const SSIM_MAX: usize = 1_000;
/// Pictures of the grid.
const SHOWN: usize = 20;

/// The records a report is about.
struct Data {
    training: Records,
    held_out: Records,
    /// The held-out records that a store is filled with, and those it is asked for.
    stored: Records,
    queries: Records,
    /// Of each query, the rows of `stored` that are nearest by the originals.
    truth: Vec<Vec<usize>>,
    similarity: Similarity,
    /// Bytes of a record as its file has it.
    record_bytes: usize,
}

/// One trained codec of ours.
struct Own {
    bytes: usize,
    report: TrainReport,
    errors: Vec<f64>,
    decoded: Records,
    model_bytes: u64,
    slot_bytes: f64,
}

pub(super) fn run(arguments: &Report, json: bool) -> Outcome {
    let out = &arguments.out;
    if arguments.bytes.is_empty() || arguments.bytes.contains(&0) {
        return Err(
            Error::argument("the bytes of a report", "one or more sizes of at least 1", "0 or none").into()
        );
    }
    let time = Duration::try_from_secs_f64(arguments.minutes * 60.0)
        .map_err(|_| Error::argument("the minutes", "a number of 0 or more", arguments.minutes))?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let data = Data::load(arguments)?;
    let bound = GaussianBound::new(&data.training, &data.held_out)?;
    let mut rows = vec![mean_row(&data)];
    let mut own = Vec::new();
    for &bytes in &arguments.bytes {
        let (row, found) = ours(arguments, &data, bytes, time)?;
        rows.push(row);
        own.push(found);
        for (method, spec) in [
            ("pca-f32", QuantizerSpec::F32(bytes / 4)),
            ("pca-f16", QuantizerSpec::F16(bytes / 2)),
            ("pca-i8", QuantizerSpec::I8(bytes)),
            ("pca-allocated", QuantizerSpec::Allocated(bytes)),
        ] {
            // Half a value cannot be kept, nor more values than there are.
            if spec.bytes() != bytes || spec.values().unwrap_or(bytes) > data.training.shape().values() {
                continue;
            }
            let codec = FlowCodec::pca(&data.training, spec)?;
            rows.push(measured(method, bytes, &data, codec)?.0);
        }
        if !arguments.no_autoencoder {
            let trained = Autoencoder::train(&data.training, bytes, arguments.seed, Some(time))?;
            let decoded = trained.reconstruct(&data.held_out)?;
            rows.push(judged("autoencoder-i8", bytes, bytes as f64, &data, &decoded));
        }
        let error = bound.error_at(bytes as f64);
        rows.push(Row {
            mse: error,
            psnr_db: psnr_db(error),
            relative_error: Some(error / variance(&data.held_out)),
            ..blank("gaussian-bound", bytes, bytes as f64)
        });
    }
    let figures = draw(out, &data, &rows, &own)?;
    let said = said(&data, &own);
    let page = Page {
        title: "Bytes against error",
        said: &said,
        rows: &rows,
        figures: &figures.iter().map(|(caption, png)| Figure { caption, png }).collect::<Vec<_>>(),
    };
    write(&out.join("report.html"), page.html().as_bytes())?;
    let document = json!({
        "records_trained": data.training.len(),
        "records_heldout": data.held_out.len(),
        "queries": data.queries.len(),
        "record_bytes": data.record_bytes,
        "rows": rows,
        "codecs": own.iter().map(|own| json!({
            "bytes": own.bytes,
            "model_bytes": own.model_bytes,
            "break_even_records": break_even(&data, own),
            "seconds": own.report.seconds,
            "quantizers": own.report.quantizers,
            "stages": own.report.stages,
            "errors": ErrorSummary::of(&as_f32(&own.errors)),
        })).collect::<Vec<_>>(),
        "out": out.display().to_string(),
    });
    write(&out.join("report.json"), serde_json::to_string_pretty(&document).unwrap_or_default().as_bytes())?;
    output::result(json, &document, || text(&rows, &said, out))
}

impl Data {
    fn load(arguments: &Report) -> Result<Self> {
        let dataset = Dataset::open(&arguments.train)?;
        let all = dataset.load_range(0..arguments.limit.unwrap_or(u64::MAX))?;
        let (training, held_out) = match &arguments.heldout {
            Some(path) => (all, Dataset::open_as(path, dataset.shape())?.load()?),
            None => {
                let pick = |wanted: bool| {
                    let mut records = Records::with_dims(&all.shape().dims())?;
                    let rows = all.rows().enumerate().filter(|(row, _)| (row % 10 == 9) == wanted);
                    rows.map(|(_, row)| row).try_for_each(|row| records.push_values(row))?;
                    Ok::<_, Error>(records)
                };
                (pick(false)?, pick(true)?)
            }
        };
        if training.len() < 2 || held_out.len() < 2 {
            let needed = if arguments.heldout.is_some() { 2 } else { 20 };
            let records = training.len().min(held_out.len());
            return Err(Error::TooLittleData { records, needed, purpose: "a report".to_owned() });
        }
        let asked = (held_out.len() / 5).clamp(1, QUERIES_MAX);
        let stored = held_out.slice(0..held_out.len() - asked);
        let queries = held_out.slice(held_out.len() - asked..held_out.len());
        let similarity = arguments.similarity.into();
        let truth = exact_neighbours(&training, &stored, &queries, similarity)?;
        let record_bytes = dataset.record_bytes();
        Ok(Self { training, held_out, stored, queries, truth, similarity, record_bytes })
    }
}

/// The nearest by the originals: a store that keeps every value answers that. Under centred cosine it is given the
/// differences from the training mean.
fn exact_neighbours(
    training: &Records,
    stored: &Records,
    queries: &Records,
    similarity: Similarity,
) -> Result<Vec<Vec<usize>>> {
    let values = training.shape().values();
    let mut mean = vec![0.0_f64; values];
    if similarity == Similarity::CentredCosine {
        for row in training.rows() {
            mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) / training.len() as f64);
        }
    }
    let centred = |records: &Records| {
        let mut centred = Records::with_dims(&[values])?;
        for row in records.rows() {
            let row: Vec<f32> =
                row.iter().zip(&mean).map(|(&x, mean)| (f64::from(x) - mean) as f32).collect();
            centred.push_values(&row)?;
        }
        Ok::<_, Error>(centred)
    };
    let folder = tempfile::tempdir().map_err(Error::io(Path::new("a temporary folder")))?;
    let codec = PlainCodec::new(&[values], values)?;
    let (store, slots) =
        filled(&folder.path().join("exact.apcm"), Box::new(codec), &centred(stored)?, Similarity::Cosine)?;
    neighbours(&store, &slots, &centred(queries)?)
}

/// A store with these records in it, and the row of each slot.
fn filled(
    path: &Path,
    codec: Box<dyn Codec>,
    records: &Records,
    similarity: Similarity,
) -> Result<(Store, Vec<usize>)> {
    let store =
        Store::builder().capacity(records.len() as u32).similarity(similarity).create_boxed(path, codec)?;
    let mut slots = vec![0; records.len()];
    let mut row = 0;
    while row < records.len() {
        let end = (row + 2_048).min(records.len());
        let mut transaction = store.begin_write();
        transaction.insert_all(&records.slice(row..end))?;
        for id in transaction.commit()?.ids {
            slots[id.slot as usize] = row;
            row += 1;
        }
    }
    Ok((store, slots))
}

fn neighbours(store: &Store, slots: &[usize], queries: &Records) -> Result<Vec<Vec<usize>>> {
    let answers = store.search_many(queries).k(NEIGHBOURS).run_all()?;
    Ok(answers.iter().map(|hits| hits.iter().map(|hit| slots[hit.id.slot as usize]).collect()).collect())
}

fn blank(method: &str, nominal_bytes: usize, bytes: f64) -> Row {
    Row {
        method: method.to_owned(),
        bytes,
        nominal_bytes,
        slot_bytes: None,
        file_bytes_per_slot: None,
        model_bytes: None,
        mse: 0.0,
        mae: None,
        psnr_db: 0.0,
        mean_psnr_db: None,
        relative_error: None,
        ssim: None,
        recall_at_10: None,
        encode_per_s: None,
        decode_per_s: None,
    }
}

/// A row of what the held-out records became.
fn judged(method: &str, nominal_bytes: usize, bytes: f64, data: &Data, decoded: &Records) -> Row {
    let mse = mean_squared_error(&data.held_out, decoded);
    let pictures: Vec<f64> = match *data.held_out.shape().dims() {
        [_, width] if in_unit_range(&data.held_out) => {
            let pairs = data.held_out.rows().zip(decoded.rows()).take(SSIM_MAX);
            pairs.filter_map(|(original, decoded)| ssim(original, decoded, width)).collect()
        }
        _ => Vec::new(),
    };
    Row {
        mse,
        mae: Some(mean_absolute_error(&data.held_out, decoded)),
        psnr_db: psnr_db(mse),
        mean_psnr_db: mean_psnr_db(&squared_errors(&data.held_out, decoded)).filter(|psnr| psnr.is_finite()),
        relative_error: relative_error(&data.held_out, decoded),
        ssim: (!pictures.is_empty()).then(|| pictures.iter().sum::<f64>() / pictures.len() as f64),
        ..blank(method, nominal_bytes, bytes)
    }
}

fn mean_row(data: &Data) -> Row {
    let values = data.training.shape().values();
    let mut mean = vec![0.0_f64; values];
    for row in data.training.rows() {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) / data.training.len() as f64);
    }
    let mean: Vec<f32> = mean.into_iter().map(|x| x as f32).collect();
    let decoded = Records::from_decoded(data.held_out.shape(), mean.repeat(data.held_out.len()));
    judged("mean", 0, 0.0, data, &decoded)
}

/// Encodes, decodes and stores the held-out records, and searches them.
fn measured(method: &str, nominal: usize, data: &Data, codec: FlowCodec) -> Result<(Row, Records, f64)> {
    let began = Instant::now();
    let encoded = codec.encode(&data.held_out)?;
    let encode_per_s = data.held_out.len() as f64 / began.elapsed().as_secs_f64();
    let codes: Vec<StoredCode<'_>> = encoded
        .iter()
        .map(|encoded| StoredCode { bytes: &encoded.code, without_predictor: encoded.without_predictor })
        .collect();
    let began = Instant::now();
    let decoded = codec.decode(&codes)?;
    let decode_per_s = data.held_out.len() as f64 / began.elapsed().as_secs_f64();
    let counted = |encoded: &Encoded| codec.quantizer().counted_bytes(encoded.code.len());
    let bytes = encoded.iter().map(counted).sum::<f64>() / encoded.len() as f64;
    let folder = tempfile::tempdir().map_err(Error::io(Path::new("a temporary folder")))?;
    let path = folder.path().join("report.apcm");
    let (store, slots) = filled(&path, Box::new(codec), &data.stored, data.similarity)?;
    let found = neighbours(&store, &slots, &data.queries)?;
    let stats = store.stats()?;
    let row = Row {
        slot_bytes: Some(stats.slot_bytes),
        file_bytes_per_slot: Some(stats.file_bytes as f64 / f64::from(stats.occupied)),
        model_bytes: Some(stats.codec.bytes),
        recall_at_10: recall_at(NEIGHBOURS, &found, &data.truth),
        encode_per_s: Some(encode_per_s),
        decode_per_s: Some(decode_per_s),
        ..judged(method, nominal, bytes, data, &decoded)
    };
    Ok((row, decoded, stats.slot_bytes))
}

/// Our own codec at a size, by whichever quantizer validation chose.
fn ours(arguments: &Report, data: &Data, bytes: usize, time: Duration) -> Result<(Row, Own)> {
    let bar = output::bar(arguments.steps as u64, &format!("{bytes} bytes"));
    let trainer = FlowCodec::trainer(&data.training)
        .bytes_per_record(bytes)
        .seed(arguments.seed)
        .time_budget(Some(time))
        .progress(|progress: &Progress<'_>| {
            bar.set_length(progress.steps_max as u64);
            bar.set_position(progress.step as u64);
            ControlFlow::Continue(())
        });
    // Without steps the quantizer is still chosen on the validation records.
    let trainer = if arguments.steps == 0 { trainer.predictor(0, 0) } else { trainer.steps(arguments.steps) };
    let Trained { codec, report } = trainer.train()?;
    bar.finish_and_clear();
    let (row, decoded, slot_bytes) = measured("apcm", bytes, data, codec)?;
    let own = Own {
        bytes,
        report,
        errors: squared_errors(&data.held_out, &decoded),
        decoded,
        model_bytes: row.model_bytes.unwrap_or(0),
        slot_bytes,
    };
    Ok((row, own))
}

/// How many records it takes until the codec's own bytes are saved.
fn break_even(data: &Data, own: &Own) -> Option<u64> {
    let saved = data.record_bytes as f64 - own.slot_bytes;
    (saved > 0.0).then(|| (own.model_bytes as f64 / saved).ceil() as u64)
}

fn said(data: &Data, own: &[Own]) -> Vec<String> {
    let mut said = vec![format!(
        "Trained on {} records, judged on {} others; recall@{NEIGHBOURS} of {} queries among {} stored records, {} \
         against the originals. Bytes are the mean code with the length and the flag that a code of varying length needs.",
        output::count(data.training.len() as u64),
        output::count(data.held_out.len() as u64),
        output::count(data.queries.len() as u64),
        output::count(data.stored.len() as u64),
        match data.similarity {
            Similarity::Cosine => "by cosine",
            Similarity::CentredCosine => "by cosine about the mean",
        }
    )];
    for own in own {
        let picked = own.report.quantizers.iter().find(|choice| choice.chosen);
        let stages: Vec<String> = own.report.stages.iter().map(verdict).collect();
        let even = break_even(data, own).map_or("never pays for itself".to_owned(), |records| {
            format!("pays for itself from {} records on", output::count(records))
        });
        said.push(format!(
            "{} bytes: {}{}; the codec takes {} and {even} (a record is {} bytes in its file); {:.0} s of training.",
            own.bytes,
            picked.map_or("", |choice| choice.quantizer),
            if stages.is_empty() { String::new() } else { format!(", {}", stages.join(", ")) },
            output::bytes(own.model_bytes as f64),
            data.record_bytes,
            own.report.seconds
        ));
    }
    said
}

fn verdict(stage: &StageReport) -> String {
    let gain = match (stage.error_before, stage.error_after) {
        (Some(before), Some(after)) => format!(" {:+.2} dB", 10.0 * (before / after).log10()),
        _ => String::new(),
    };
    let kept = if stage.accepted { "kept" } else { "left out" };
    format!("{}{gain} on validation records, {kept}", stage.name)
}

/// Draws every picture into the folder; gives their captions and bytes.
fn draw(out: &Path, data: &Data, rows: &[Row], own: &[Own]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut drawn = Vec::new();
    let mut keep = |name: String, caption: String| -> Result<()> {
        let path = out.join(name);
        drawn.push((caption, std::fs::read(&path).map_err(Error::io(&path))?));
        Ok(())
    };
    let mut methods: Vec<&str> = rows.iter().map(|row| row.method.as_str()).collect();
    methods.dedup();
    let mut seen = std::collections::HashSet::new();
    methods.retain(|method| *method != "mean" && seen.insert(*method));
    for (name, title, of) in [
        (
            "rate-distortion.png",
            "PSNR in dB against bytes a record",
            (|row: &Row| Some(row.psnr_db)) as fn(&Row) -> _,
        ),
        ("recall.png", "recall@10 against bytes a record", |row: &Row| row.recall_at_10),
    ] {
        let curve = |method: &&'_ str| {
            let own = rows.iter().filter(|row| row.method == *method);
            own.filter_map(|row| Some((row.bytes, of(row)?))).collect::<Vec<_>>()
        };
        let curves: Vec<Curve<'_>> = methods
            .iter()
            .map(|method| Curve { name: method, points: curve(method) })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        Plot { title, across: "bytes", logarithmic: true, curves: &curves }.save(&out.join(name))?;
        keep(name.to_owned(), title.to_owned())?;
    }
    let pictures = data.held_out.shape().dims().len() == 2 && in_unit_range(&data.held_out);
    for own in own {
        let bytes = own.bytes;
        if pictures {
            let shown = 0..SHOWN.min(data.held_out.len());
            let name = format!("reconstructions-{bytes}.png");
            let (originals, decoded) = (data.held_out.slice(shown.clone()), own.decoded.slice(shown));
            pictures::reconstructions(&out.join(&name), &originals, &decoded, 10, 2)?;
            keep(name, format!("Held-out records over what {bytes} bytes give back"))?;
        }
        if let Some(errors) = ErrorSummary::of(&as_f32(&own.errors)) {
            let name = format!("errors-{bytes}.png");
            let title = format!("Records by their error at {bytes} bytes");
            pictures::histogram(&out.join(&name), &title, &errors)?;
            keep(name, title)?;
        }
        for stage in &own.report.stages {
            let name = format!("{}-{bytes}.png", stage.name);
            pictures::loss_curve(&out.join(&name), stage)?;
            keep(name, format!("Training of the {} at {bytes} bytes", stage.name))?;
        }
    }
    Ok(drawn)
}

fn in_unit_range(records: &Records) -> bool {
    records.values().iter().all(|value| (0.0..=1.0).contains(value))
}

fn as_f32(errors: &[f64]) -> Vec<f32> {
    errors.iter().map(|&error| error as f32).collect()
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(Error::io(path))
}

fn text(rows: &[Row], said: &[String], out: &Path) -> String {
    let mut lines = said.to_vec();
    lines.push(format!(
        "\n{:16} {:>7} {:>9} {:>8} {:>9} {:>6} {:>7} {:>9} {:>9}",
        "method", "bytes", "slot", "PSNR dB", "relative", "SSIM", "recall", "encode/s", "decode/s"
    ));
    let mut last = None;
    for row in rows {
        if last.replace(row.nominal_bytes).is_some_and(|nominal| nominal != row.nominal_bytes) {
            lines.push(String::new());
        }
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
        lines.push(format!(
            "{:16} {:>7.2} {:>9} {:>8.2} {:>9} {:>6} {:>7} {:>9} {:>9}",
            row.method,
            row.bytes,
            number(row.slot_bytes, 1),
            row.psnr_db,
            number(row.relative_error, 4),
            number(row.ssim, 3),
            number(row.recall_at_10, 3),
            number(row.encode_per_s, 0),
            number(row.decode_per_s, 0),
        ));
    }
    lines.push(format!("\n{} shows it with pictures", out.join("report.html").display()));
    lines.join("\n")
}
