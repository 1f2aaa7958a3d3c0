//! What a method does to the held-out records: one row of the table.

use super::data::{Data, NEIGHBOURS, filled, neighbours};
use super::draw::in_unit_range;
use super::options::Report;
use super::own::Own;
use crate::{interrupt, output};
use apcm::codec::{Codec, Encoded, FlowCodec, StoredCode, Trained};
use apcm::report::{
    Row, mean_absolute_error, mean_psnr_db, mean_squared_error, psnr_db, recall_at, relative_error,
    squared_errors, ssim,
};
use apcm::{Error, Records, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Most held-out pictures that are compared by structural similarity.
const SSIM_MAX: usize = 1_000;

pub(crate) fn blank(method: &str, nominal_bytes: usize, bytes: f64) -> Row {
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
pub(crate) fn judged(method: &str, nominal_bytes: usize, bytes: f64, data: &Data, decoded: &Records) -> Row {
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

pub(crate) fn mean_row(data: &Data) -> Result<Row> {
    let mean = data.training.mean();
    let decoded = Records::from_values(data.held_out.shape(), mean.repeat(data.held_out.len()))?;
    Ok(judged("mean", 0, 0.0, data, &decoded))
}

/// Encodes, decodes and stores the held-out records, and searches them.
pub(crate) fn measured(
    method: &str,
    nominal: usize,
    data: &Data,
    codec: FlowCodec,
) -> Result<(Row, Records, f64)> {
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
pub(crate) fn ours(arguments: &Report, data: &Data, bytes: usize, time: Duration) -> Result<(Row, Own)> {
    let bar = output::bar(arguments.steps as u64, &format!("{bytes} bytes"));
    let trainer = FlowCodec::trainer(&data.training)
        .bytes_per_record(bytes)
        .seed(arguments.seed)
        .time_budget(Some(time))
        .progress(|progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            interrupt::go_on()
        });
    // Without steps the quantizer is still chosen on the validation records.
    let trainer = if arguments.steps == 0 { trainer.predictor(0, 0) } else { trainer.steps(arguments.steps) };
    let trainer = match &data.groups {
        Some(groups) => trainer.groups(groups.clone()),
        None => trainer,
    };
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
