//! The command.

use super::data::Data;
use super::options::Report;
use super::own::break_even;
use super::page::{Figure, Page};
use super::{draw, measure, summary};
use crate::outcome::{Failure, Outcome};
use crate::{interrupt, output};
use apcm::codec::{Autoencoder, FlowCodec, GaussianBound, QuantizerSpec};
use apcm::report::{Row, psnr_db, variance};
use apcm::whole_file::{self, Taken};
use apcm::{Error, ErrorSummary, Result};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

pub(crate) fn run(arguments: &Report, json: bool) -> Outcome {
    let out = &arguments.out;
    if arguments.bytes.is_empty() || arguments.bytes.contains(&0) {
        return Err(
            Error::argument("the bytes of a report", "one or more sizes of at least 1", "0 or none").into()
        );
    }
    let time = Duration::try_from_secs_f64(arguments.minutes * 60.0)
        .map_err(|_| Error::argument("the minutes", "a number of 0 or more", arguments.minutes))?;
    let page_path = out.join("report.html");
    if !arguments.force.force && page_path.exists() {
        // Asked before the work as well.
        return Err(Error::Exists { path: page_path }.into());
    }
    let data = Data::load(arguments)?;
    let bound = GaussianBound::new(&data.training, &data.held_out)?;
    let mut rows = vec![measure::mean_row(&data)?];
    let mut own = Vec::new();
    let stop = || match interrupt::is_stopped() {
        true => Err(Failure::Stopped("nothing was written; a report is begun again".to_owned())),
        false => Ok(()),
    };
    for &bytes in &arguments.bytes {
        let (row, found) = measure::ours(arguments, &data, bytes, time)?;
        stop()?;
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
            rows.push(measure::measured(method, bytes, &data, codec)?.0);
            stop()?;
        }
        if !arguments.no_autoencoder {
            let trained = Autoencoder::train(&data.training, bytes, arguments.seed, Some(time))?;
            let decoded = trained.reconstruct(&data.held_out)?;
            rows.push(measure::judged("autoencoder-i8", bytes, bytes as f64, &data, &decoded));
        }
        let error = bound.error_at(bytes as f64);
        rows.push(Row {
            mse: error,
            psnr_db: psnr_db(error),
            relative_error: Some(error / variance(&data.held_out)),
            ..measure::blank("gaussian-bound", bytes, bytes as f64)
        });
    }
    stop()?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let taken = arguments.force.into();
    let figures = draw::draw(out, &data, &rows, &own)?;
    let said = summary::summary(&data, &own);
    let page = Page {
        title: "Bytes against error",
        said: &said,
        rows: &rows,
        figures: &figures.iter().map(|(caption, png)| Figure { caption, png }).collect::<Vec<_>>(),
    };
    write(&page_path, page.html().as_bytes(), taken)?;
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
            "errors": ErrorSummary::of(&draw::as_f32(&own.errors)),
        })).collect::<Vec<_>>(),
        "out": out.display().to_string(),
    });
    write(
        &out.join("report.json"),
        serde_json::to_string_pretty(&document).unwrap_or_default().as_bytes(),
        taken,
    )?;
    output::result(json, &document, || summary::text(&rows, &said, out))
}

fn write(path: &Path, bytes: &[u8], taken: Taken) -> Result<()> {
    whole_file::write_as(path, bytes, taken, whole_file::usual_permissions())
}
