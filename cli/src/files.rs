//! Commands that look after files: `verify`, `repair`, `salvage`, `backup`, `pack`, `unpack`, `compact`.

use crate::options::CopyTo;
use crate::outcome::{Failure, Outcome};
use crate::{interrupt, output};
use apcm::Progress;
use apcm::{Error, Finding, Pack, Store, VerifyReport};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The store
    pub(crate) store: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// The store
    pub(crate) store: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The store
    pub(crate) store: PathBuf,
    /// Apply the planned repairs
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unpack {
    /// The pack
    pub(crate) pack: PathBuf,
    /// File for the new store; it must not exist
    #[arg(long, required_unless_present = "into", conflicts_with = "into")]
    pub(crate) out: Option<PathBuf>,
    /// Existing store to import the memories into
    #[arg(long)]
    pub(crate) into: Option<PathBuf>,
}

/// Damages that are listed one by one in a terminal.
const LISTED: usize = 20;

pub(crate) fn verify(arguments: &Verify, json: bool) -> Outcome {
    if Pack::is_pack_file(&arguments.store) {
        let report = match Pack::open(&arguments.store).and_then(|pack| pack.verify()) {
            Err(error) if json && matches!(error, Error::Corrupt { .. }) => {
                output::result(true, &json!({ "ok": false, "findings": [error.to_string()] }), String::new)?;
                return Err(Failure::Damaged);
            }
            other => other?,
        };
        return output::result(json, &json!({ "ok": true, "pack": report }), || {
            format!(
                "nothing is damaged: {} memories, {} keys, {} blocks",
                output::count(report.memories),
                output::count(report.keys),
                output::count(report.blocks)
            )
        });
    }
    let bar = output::bar(0, "verifying");
    let looked = Store::verify(&arguments.store).progress(moving(&bar)).run();
    let report = looked.map_err(Failure::stopped(nothing_written))?;
    bar.finish_and_clear();
    let document = json!({
        "ok": report.ok,
        "damaged": report.findings.len(),
        "findings": report.findings,
        "needs_recovery": report.needs_recovery,
        "pages_ok": report.pages_ok,
        "slots_checked": report.slots_checked,
        "metadata_checked": report.metadata_checked,
        "residuals_checked": report.residuals_checked,
        "keys_checked": report.keys_checked,
        "counter_chunks_checked": report.counter_chunks_checked,
        "use_chunks_checked": report.use_chunks_checked,
        "streams_checked": report.streams_checked,
        "codec_chunks_checked": report.codec_chunks_checked,
    });
    output::result(json, &document, || text(&report))?;
    if report.ok { Ok(()) } else { Err(Failure::Damaged) }
}

/// Plans a repair, and makes it only when told to.
pub(crate) fn repair(arguments: &Repair, json: bool) -> Outcome {
    let bar = output::bar(0, "looking");
    let planned = Store::repair(&arguments.store).progress(moving(&bar)).plan();
    let plan = planned.map_err(Failure::stopped(nothing_written))?;
    bar.finish_and_clear();
    let (steps, in_place, clean) = (plan.steps(), plan.in_place(), plan.is_empty());
    let lost = steps.iter().filter(|step| step.loses_a_memory).count();
    let applied = arguments.apply && in_place && !clean;
    if applied {
        plan.apply()?;
    }
    let document = json!({ "steps": steps, "in_place": in_place, "memories_lost": lost, "applied": applied });
    output::result(json, &document, || {
        let mut lines: Vec<String> =
            steps.iter().map(|step| format!("{}\n    {}", line(&step.finding), step.action)).collect();
        lines.push(match (clean, in_place, applied) {
            (true, ..) => "nothing is damaged".to_owned(),
            (_, false, _) => "`apcm salvage STORE --out NEW` copies what can be read".to_owned(),
            (_, _, true) => format!("done; {lost} memories were lost"),
            (_, _, false) => format!("nothing was done; with --apply this is, and {lost} memories are lost"),
        });
        lines.join("\n")
    })?;
    if clean || applied { Ok(()) } else { Err(Failure::Damaged) }
}

pub(crate) fn salvage(arguments: &CopyTo, json: bool) -> Outcome {
    let bar = output::bar(0, "copying");
    let saved = Store::salvage(&arguments.store, &arguments.out).progress(moving(&bar)).run();
    let report = saved.map_err(Failure::stopped(nothing_written))?;
    bar.finish_and_clear();
    output::result(json, &report, || {
        output::table(&[
            ("memories", output::count(report.memories)),
            ("lost", format!("{} slots", output::count(report.slots_lost))),
            ("metadata", format!("{} lost", output::count(report.metadata_lost))),
            ("residuals", format!("{} lost", output::count(report.residuals_lost))),
            ("counts", format!("{} chunks lost", output::count(report.counter_chunks_lost))),
            ("file", arguments.out.display().to_string()),
        ])
    })
}

fn nothing_written() -> String {
    "nothing was written; run it again".to_owned()
}

/// Opens a store beside other readers; a file that was not closed cleanly cannot be read only, and is recovered
/// first.
fn open(store: &Path) -> Result<Store, Error> {
    match Store::open_read_only(store) {
        Err(Error::NeedsRecovery { .. }) => Store::open(store),
        other => other,
    }
}

pub(crate) fn pack(arguments: &CopyTo, json: bool) -> Outcome {
    let store = open(&arguments.store)?;
    let bar = output::bar(0, "packing");
    let packed = store.export_pack(&arguments.out).progress(moving(&bar)).run();
    let report = packed.map_err(Failure::stopped(nothing_written))?;
    bar.finish_and_clear();
    output::result(json, &report, || copied(report.memories, &arguments.out, report.bytes))
}

pub(crate) fn unpack(arguments: &Unpack, json: bool) -> Outcome {
    let pack = Pack::open(&arguments.pack)?;
    let bar = output::bar(0, "unpacking");
    match (&arguments.into, &arguments.out) {
        (Some(into), _) => {
            let store = Store::open(into)?;
            let imported = store.import(&pack).progress(moving(&bar)).run();
            let report = imported.map_err(Failure::stopped(|| {
                "what was imported stays; importing again adds memories without keys twice".to_owned()
            }))?;
            store.close()?;
            bar.finish_and_clear();
            output::result(json, &report, || {
                let added = if report.encoded_again {
                    format!("; encoded again, which added {:.3e} to their error", report.error_added)
                } else {
                    String::new()
                };
                let (memories, evicted) = (output::count(report.memories), output::count(report.evicted));
                format!("{memories} memories put into {}, {evicted} evicted{added}", into.display())
            })
        }
        (None, Some(out)) => {
            let unpacked = Store::builder().unpack(&pack, out).progress(moving(&bar)).run();
            let store = unpacked.map_err(Failure::stopped(nothing_written))?;
            let (memories, bytes) = (store.len() as u64, store.stats()?.file_bytes);
            store.close()?;
            bar.finish_and_clear();
            let document = json!({ "memories": memories, "bytes": bytes });
            output::result(json, &document, || copied(memories, out, bytes))
        }
        (None, None) => Err(Error::argument("where to unpack", "--out or --into", "neither").into()),
    }
}

fn copied(memories: u64, to: &Path, bytes: u64) -> String {
    format!("{} memories in {}, {}", output::count(memories), to.display(), output::bytes(bytes as f64))
}

pub(crate) fn backup(arguments: &CopyTo, json: bool) -> Outcome {
    let store = open(&arguments.store)?;
    let bar = output::bar(0, "copying");
    let copied_to = store.backup(&arguments.out).progress(moving(&bar)).run();
    let report = copied_to.map_err(Failure::stopped(nothing_written))?;
    bar.finish_and_clear();
    output::result(json, &report, || copied(report.memories, &arguments.out, report.bytes))
}

/// Moves a bar; a signal stops what moves it.
fn moving(bar: &ProgressBar) -> impl FnMut(&Progress<'_>) -> ControlFlow<()> + '_ {
    |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        interrupt::go_on()
    }
}

pub(crate) fn compact(arguments: &Compact, json: bool) -> Outcome {
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
    let verdict = match report.findings.len() {
        0 => "nothing is damaged".to_owned(),
        1 => "1 damage; `apcm repair STORE` shows what can be done".to_owned(),
        count => {
            format!("{} findings; `apcm repair STORE` shows what can be done", output::count(count as u64))
        }
    };
    rows.push(("verdict", verdict));
    let mut lines = vec![output::table(&rows)];
    lines.extend(report.findings.iter().take(LISTED).map(line));
    if report.findings.len() > LISTED {
        lines.push(format!("and {} more; --json lists them all", report.findings.len() - LISTED));
    }
    lines.join("\n")
}

fn line(finding: &Finding) -> String {
    format!("{}: {}", finding.what, finding.cause)
}
