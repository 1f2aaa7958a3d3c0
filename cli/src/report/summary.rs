//! A report in sentences, and its table for a terminal.

use super::data::{Data, NEIGHBOURS};
use super::own::{Own, break_even};
use super::table::{COLUMNS, cells};
use crate::output;
use apcm::Similarity;
use apcm::codec::StageReport;
use apcm::report::Row;
use std::path::Path;

pub(crate) fn summary(data: &Data, own: &[Own]) -> Vec<String> {
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

pub(crate) fn text(rows: &[Row], said: &[String], out: &Path) -> String {
    let mut lines = said.to_vec();
    let line = |cells: [&str; COLUMNS]| {
        let [method, bytes, slot, psnr, relative, ssim, recall, encode, decode] = cells;
        format!(
            "{method:16} {bytes:>7} {slot:>9} {psnr:>8} {relative:>9} {ssim:>6} {recall:>7} {encode:>9} {decode:>9}"
        )
    };
    lines.push(format!(
        "\n{}",
        line(["method", "bytes", "slot", "PSNR dB", "relative", "SSIM", "recall", "encode/s", "decode/s"])
    ));
    let mut last = None;
    for row in rows {
        if last.replace(row.nominal_bytes).is_some_and(|nominal| nominal != row.nominal_bytes) {
            lines.push(String::new());
        }
        lines.push(line(cells(row).each_ref().map(String::as_str)));
    }
    lines.push(format!("\n{} shows it with pictures", out.join("report.html").display()));
    lines.join("\n")
}
