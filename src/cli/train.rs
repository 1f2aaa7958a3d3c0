//! `apcm train`.

use super::arguments::{Quantizer, Train};
use super::{Outcome, output};
use crate::codec::{Codec, FlowCodec, Progress, QuantizerSpec, Trained, fingerprint};
use crate::error::Error;
use crate::ingest::Dataset;
use std::ops::ControlFlow;
use std::time::Duration;

pub(super) fn run(arguments: &Train, json: bool) -> Outcome {
    let dataset = Dataset::open(&arguments.data)?;
    let records = dataset.load_range(0..arguments.limit.unwrap_or(u64::MAX))?;
    let values = |width: usize| {
        if arguments.bytes.is_multiple_of(width) && arguments.bytes > 0 {
            Ok(arguments.bytes / width)
        } else {
            Err(Error::argument("the bytes of a code", format!("a multiple of {width}"), arguments.bytes))
        }
    };
    let quantizer = match arguments.quantizer {
        Quantizer::Allocated => QuantizerSpec::Allocated(arguments.bytes),
        Quantizer::I8 => QuantizerSpec::I8(values(1)?),
        Quantizer::F16 => QuantizerSpec::F16(values(2)?),
        Quantizer::F32 => QuantizerSpec::F32(values(4)?),
    };
    let time = Duration::try_from_secs_f64(arguments.minutes * 60.0)
        .map_err(|_| Error::argument("the minutes", "a number of 0 or more", arguments.minutes))?;
    let bar = output::bar(arguments.steps as u64, "training");
    let mut trainer = FlowCodec::trainer(&records)
        .quantizer(quantizer)
        .preset(arguments.preset.into())
        .device(arguments.device)
        .seed(arguments.seed)
        .time_budget(Some(time))
        .progress(|progress: &Progress<'_>| {
            bar.set_length(progress.steps_max as u64);
            bar.set_position(progress.step as u64);
            bar.set_message(progress.stage.to_owned());
            ControlFlow::Continue(())
        });
    trainer = if arguments.steps == 0 { trainer.untrained() } else { trainer.steps(arguments.steps) };
    if let Some(couplings) = arguments.couplings {
        trainer = trainer.couplings(couplings);
    }
    let Trained { codec, report } = trainer.train()?;
    bar.finish_and_clear();
    codec.save(&arguments.out)?;
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
        "stages": report.stages,
    });
    output::result(json, &document, || {
        let mut rows = vec![
            ("records", output::count(report.training_records as u64)),
            ("code", format!("{} bytes a record", codec.code_len_max())),
            ("codec", format!("{} in {}", output::bytes(image.len() as f64), arguments.out.display())),
            ("time", format!("{:.1} s", report.seconds)),
        ];
        for stage in &report.stages {
            let verdict = if stage.accepted { "kept" } else { "left out: it does not pay" };
            let error = |error: Option<f64>| error.map_or("-".to_owned(), |error| format!("{error:.3e}"));
            let (before, after) = (error(stage.error_before), error(stage.error_after));
            rows.push((stage.name, format!("{} steps, error {before} -> {after}, {verdict}", stage.steps)));
        }
        output::table(&rows)
    })
}
