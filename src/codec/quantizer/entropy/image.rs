//! An entropy-coded quantizer as a codec image stores it.

use super::charts::{Chart, Charts};
use super::context::{CLASSES, EXPECTED_MAX};
use super::cost::CostTable;
use super::quantizer::{Entropy, LEVELS, Limit, Symbols};
use super::tables::{BUCKETS, Model, Tables, escape_order};
use crate::codec::weights::{floats, tensor};
use crate::error::{Error, Result};
use apcm_format::{CodecImage, DecodeError, ElementType, NamedTensor, WeightPrecision};

/// Most charts a file may name.
const CHARTS_MAX: usize = 4_096;

impl Entropy {
    pub(in crate::codec::quantizer) fn store(&self, image: &mut CodecImage) {
        let charts = &self.charts.all;
        let width = self.charts.width;
        let means: Vec<f32> = charts.iter().flat_map(|chart| &chart.mean).copied().collect();
        let axes = || charts.iter().flat_map(|chart| chart.axes.chunks_exact(width));
        let scales: Vec<f32> = charts.iter().flat_map(|chart| &chart.scales).copied().collect();
        let levels = axes()
            .zip(&scales)
            .flat_map(|(axis, scale)| axis.iter().map(move |x| (x / scale).round() as i8 as u8));
        let counts: Vec<u32> = charts.iter().map(|chart| chart.buckets.len() as u32).collect();
        let buckets: Vec<u8> = charts.iter().flat_map(|chart| &chart.buckets).copied().collect();
        let name = |name: &str| format!("quantizer.{name}");
        image.tensors.push(tensor(name("step"), &[1], &[self.step], WeightPrecision::F32));
        let single = WeightPrecision::F32;
        image.tensors.push(tensor(name("means"), &[charts.len(), width], &means, single));
        image.tensors.push(NamedTensor {
            name: name("axes"),
            element: ElementType::U8,
            dims: vec![buckets.len() as u32, width as u32],
            bytes: levels.collect(),
        });
        image.tensors.push(tensor(name("axis_scales"), &[buckets.len()], &scales, WeightPrecision::F32));
        image.tensors.push(whole(name("axis_counts"), &counts));
        image.tensors.push(NamedTensor {
            name: name("buckets"),
            element: ElementType::U8,
            dims: vec![buckets.len() as u32],
            bytes: buckets,
        });
        image.tensors.push(short(name("chart_frequencies"), &self.chart_symbols.frequencies));
        image.tensors.push(short(name("level_frequencies"), &self.level_symbols.frequencies));
        let models = &self.tables.models;
        let symbols: Vec<u16> = models.iter().map(|model| model.frequencies().len() as u16).collect();
        let frequencies: Vec<u16> = models.iter().flat_map(Model::frequencies).copied().collect();
        image.tensors.push(short(name("alphabets"), &symbols));
        image.tensors.push(short(name("frequencies"), &frequencies));
        image.tensors.push(whole(name("expected"), &self.tables.expected));
        let cells: Vec<u32> = self.tables.centroids.iter().map(|cells| cells.len() as u32).collect();
        let centroids: Vec<f32> = self.tables.centroids.iter().flatten().copied().collect();
        image.tensors.push(whole(name("centroid_counts"), &cells));
        image.tensors.push(tensor(name("centroids"), &[centroids.len()], &centroids, WeightPrecision::F32));
        if let Limit::Exactly(_) = self.limit {
            image.tensors.push(whole(name("fixed_length"), &[1]));
        }
    }

    pub(in crate::codec::quantizer) fn load(
        width: usize,
        code_len: usize,
        image: &CodecImage,
    ) -> Result<Self> {
        let named = |name: &str, element| any(image, &format!("quantizer.{name}"), element);
        let axis_counts = wholes(named("axis_counts", ElementType::U32)?);
        within("the number of charts", axis_counts.len(), 1, CHARTS_MAX)?;
        for &axes in &axis_counts {
            within("the axes of a chart", axes as usize, 1, width)?;
        }
        let axes_in_all: usize = axis_counts.iter().map(|&axes| axes as usize).sum();
        let exactly =
            |name: &str, element, dims: &[usize]| image.tensor(&format!("quantizer.{name}"), element, dims);
        let step = floats(exactly("step", ElementType::F32, &[1])?)?[0];
        if step <= 0.0 {
            return Err(invalid("the step of a quantizer", u64::from(step.to_bits())));
        }
        let means = floats(exactly("means", ElementType::F32, &[axis_counts.len(), width])?)?;
        let levels = &exactly("axes", ElementType::U8, &[axes_in_all, width])?.bytes;
        let scales = floats(exactly("axis_scales", ElementType::F32, &[axes_in_all])?)?;
        let axes: Vec<f32> = levels
            .chunks_exact(width)
            .zip(&scales)
            .flat_map(|(levels, scale)| levels.iter().map(move |&level| f32::from(level as i8) * scale))
            .collect();
        let buckets = &exactly("buckets", ElementType::U8, &[axes_in_all])?.bytes;
        if let Some(&bucket) = buckets.iter().find(|&&bucket| usize::from(bucket) >= BUCKETS) {
            return Err(invalid("the bucket of an axis", bucket.into()));
        }
        let mut at = 0;
        let charts = axis_counts
            .iter()
            .zip(means.chunks_exact(width))
            .map(|(&count, mean)| {
                let rows = at..at + count as usize;
                at = rows.end;
                Chart {
                    mean: mean.to_vec(),
                    axes: axes[rows.start * width..rows.end * width].to_vec(),
                    scales: scales[rows.clone()].to_vec(),
                    buckets: buckets[rows].to_vec(),
                }
            })
            .collect();
        let symbols = |name: &str, count: usize| {
            Symbols::new(shorts(exactly(name, ElementType::U16, &[count])?))
                .ok_or_else(|| invalid("a table of frequencies", count as u64))
        };
        let fixed = image.tensors.iter().any(|tensor| tensor.name == "quantizer.fixed_length");
        let limit = if fixed { Limit::Exactly(code_len) } else { Limit::AtMost(code_len) };
        Ok(Self {
            charts: Charts::new(width, charts),
            tables: tables(image)?,
            step,
            chart_symbols: symbols("chart_frequencies", axis_counts.len())?,
            level_symbols: symbols("level_frequencies", LEVELS)?,
            cost: CostTable::new(),
            limit,
        })
    }
}

fn tables(image: &CodecImage) -> Result<Tables> {
    let count = BUCKETS * CLASSES * 2;
    let alphabets = shorts(image.tensor("quantizer.alphabets", ElementType::U16, &[count])?);
    let symbols: usize = alphabets.iter().map(|&symbols| usize::from(symbols)).sum();
    let frequencies = shorts(image.tensor("quantizer.frequencies", ElementType::U16, &[symbols])?);
    let mut rest = &frequencies[..];
    let mut models = Vec::with_capacity(count);
    for (at, &symbols) in alphabets.iter().enumerate() {
        let (own, after) = rest.split_at(usize::from(symbols));
        rest = after;
        let model = Model::new(own.to_vec(), escape_order(at / (CLASSES * 2)));
        models.push(model.ok_or_else(|| invalid("a table of frequencies", at as u64))?);
    }
    let expected = wholes(image.tensor("quantizer.expected", ElementType::U32, &[BUCKETS])?);
    if let Some(&wrong) = expected.iter().find(|&&magnitude| magnitude == 0 || magnitude > EXPECTED_MAX) {
        return Err(invalid("the expected magnitude of a bucket", wrong.into()));
    }
    let cells = wholes(image.tensor("quantizer.centroid_counts", ElementType::U32, &[BUCKETS * 2])?);
    for &cells in &cells {
        within("the centroids of a bucket", cells as usize, 0, usize::from(u16::MAX))?;
    }
    let total: usize = cells.iter().map(|&cells| cells as usize).sum();
    let offsets = floats(image.tensor("quantizer.centroids", ElementType::F32, &[total])?)?;
    let mut rest = &offsets[..];
    let centroids = cells
        .iter()
        .map(|&cells| {
            let (own, after) = rest.split_at(cells as usize);
            rest = after;
            own.to_vec()
        })
        .collect();
    Ok(Tables { models, expected, centroids })
}

fn whole(name: String, values: &[u32]) -> NamedTensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    NamedTensor { name, element: ElementType::U32, dims: vec![values.len() as u32], bytes }
}

fn short(name: String, values: &[u16]) -> NamedTensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    NamedTensor { name, element: ElementType::U16, dims: vec![values.len() as u32], bytes }
}

fn wholes(tensor: &NamedTensor) -> Vec<u32> {
    tensor.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn shorts(tensor: &NamedTensor) -> Vec<u16> {
    tensor.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

/// The tensor of this name and type, of one axis of any length.
fn any<'a>(image: &'a CodecImage, name: &str, element: ElementType) -> Result<&'a NamedTensor> {
    let length =
        image.tensors.iter().find(|tensor| tensor.name == name).and_then(|tensor| tensor.dims.first());
    Ok(image.tensor(name, element, &[length.map_or(0, |&length| length as usize)])?)
}

fn within(what: &'static str, found: usize, least: usize, most: usize) -> Result<()> {
    if found < least || found > most {
        return Err(Error::Format(DecodeError::Limit { what, found: found as u64, max: most as u64 }));
    }
    Ok(())
}

fn invalid(what: &'static str, found: u64) -> Error {
    Error::Format(DecodeError::Invalid { what, found })
}
