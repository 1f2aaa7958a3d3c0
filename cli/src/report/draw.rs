//! The pictures of a report.

use super::data::Data;
use super::own::Own;
use crate::pictures::{self, Curve, Plot};
use apcm::report::Row;
use apcm::{Error, ErrorSummary, Records, Result};
use std::path::Path;

/// Pictures of the grid.
const SHOWN: usize = 20;

/// Draws every picture into the folder; gives their captions and bytes.
pub(crate) fn draw(out: &Path, data: &Data, rows: &[Row], own: &[Own]) -> Result<Vec<(String, Vec<u8>)>> {
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

pub(crate) fn in_unit_range(records: &Records) -> bool {
    records.values().iter().all(|value| (0.0..=1.0).contains(value))
}

pub(crate) fn as_f32(errors: &[f64]) -> Vec<f32> {
    errors.iter().map(|&error| error as f32).collect()
}
