//! Commands that look after a file.

use super::arguments::{Compact, Verify};
use super::{Failure, Outcome, output};
use crate::store::{Damage, Store, VerifyReport};
use serde_json::json;
use std::ops::ControlFlow;

/// Damages that are listed one by one in a terminal.
const LISTED: usize = 20;

pub(super) fn verify(arguments: &Verify, json: bool) -> Outcome {
    let bar = output::bar(0, "verifying");
    let report = Store::verify(&arguments.store)
        .progress(|done, total| {
            bar.set_length(total);
            bar.set_position(done);
            ControlFlow::Continue(())
        })
        .run()?;
    bar.finish_and_clear();
    let document = json!({
        "ok": report.ok,
        "damaged": report.damages.len(),
        "damages": report.damages,
        "needs_recovery": report.needs_recovery,
        "pages_ok": report.pages_ok,
        "slots_checked": report.slots_checked,
        "metadata_checked": report.metadata_checked,
        "residuals_checked": report.residuals_checked,
        "keys_checked": report.keys_checked,
        "counter_chunks_checked": report.counter_chunks_checked,
        "codec_chunks_checked": report.codec_chunks_checked,
    });
    output::result(json, &document, || text(&report))?;
    if report.ok { Ok(()) } else { Err(Failure::Damaged) }
}

pub(super) fn compact(arguments: &Compact, json: bool) -> Outcome {
    let report = Store::compact(&arguments.store)?;
    output::result(json, &report, || {
        format!(
            "{} -> {}",
            output::bytes(report.bytes_before as f64),
            output::bytes(report.bytes_after as f64)
        )
    })
}

fn text(report: &VerifyReport) -> String {
    let mut rows = vec![
        ("slots", output::count(report.slots_checked)),
        ("metadata", output::count(report.metadata_checked)),
        ("keys", output::count(report.keys_checked)),
        ("residuals", output::count(report.residuals_checked)),
        ("counts", format!("{} chunks", output::count(report.counter_chunks_checked))),
        ("codec", format!("{} chunks", output::count(report.codec_chunks_checked))),
        ("pages", if report.pages_ok { "as they must be" } else { "damaged" }.to_owned()),
    ];
    if report.needs_recovery {
        rows.push(("recovery", "needed after a crash; `apcm stats STORE --recover` does that".to_owned()));
    }
    let verdict = match report.damages.len() {
        0 => "nothing is damaged".to_owned(),
        1 => "1 damage; `apcm repair STORE` shows what can be done".to_owned(),
        many => format!("{many} damages; `apcm repair STORE` shows what can be done"),
    };
    rows.push(("verdict", verdict));
    let mut lines = vec![output::table(&rows)];
    lines.extend(report.damages.iter().take(LISTED).map(line));
    if report.damages.len() > LISTED {
        lines.push(format!("and {} more; --json lists them all", report.damages.len() - LISTED));
    }
    lines.join("\n")
}

fn line(damage: &Damage) -> String {
    format!("{}: {}", damage.what, damage.cause)
}
