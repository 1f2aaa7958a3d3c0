//! Residual vector quantization: each byte names the entry of a codebook that brings the sum nearest to the
//! record.
//!
//! Codebooks are trained one after the other, each on what those before it left of all training rows. Encoding
//! keeps the best few sums at every stage (beam search): the nearest entry now is not always on the nearest sum
//! in the end. Every code has the same length. (Chen, Guan and Wang 2010; beam search: Babenko and Lempitsky
//! 2014.)

use super::entropy::Data;
use super::k_means::{Centres, cluster};
use crate::codec::weights::{floats, tensor};
use crate::error::{Error, Result};
use apcm_format::{CodecImage, ElementType, WeightPrecision, limits};
use half::f16;
use rayon::prelude::*;

/// Entries of a codebook: what a byte can name.
const ENTRIES: usize = 256;
/// Sums kept at every stage.
const BEAM: usize = 5;
/// Most values that training keeps at once; with more rows it keeps one sum a row.
const BEAM_VALUES_MAX: usize = 1 << 28;
const ROUNDS: usize = 10;
/// Rows that each entry is shrunk toward zero by: an entry of one training row would be that row's noise.
const SHRINKAGE: f64 = 1.0;
/// Most bytes of all codebooks.
const MODEL_BYTES_MAX: usize = 1 << 28;
/// Rows encoded at a time.
const BLOCK: usize = 64;

/// A fitted residual quantizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Residual {
    kept: usize,
    /// The largest value of the training rows, which entries are stored as shares of.
    scale: f32,
    stages: Vec<Centres>,
}

/// Sums of one row, best first.
#[derive(Debug, Clone)]
struct Beam {
    /// What remains of the row after each sum, `[sum, width]`.
    left: Vec<f32>,
    /// Entries chosen so far, `[sum][stage]`.
    codes: Vec<Vec<u8>>,
}

impl Residual {
    pub(super) fn fit(bytes: usize, data: &mut Data<'_>) -> Result<Self> {
        if bytes == 0 || bytes > limits::CODE_LEN_MAX {
            let range = format!("1 to {}", limits::CODE_LEN_MAX);
            return Err(Error::argument("the bytes of a code", range, bytes));
        }
        let width = data.width;
        let model = bytes * ENTRIES * width * 2;
        if model > MODEL_BYTES_MAX {
            let most = MODEL_BYTES_MAX / (ENTRIES * width * 2);
            let range = format!(
                "at most {most}, whose codebooks of {width} coordinates take {MODEL_BYTES_MAX} bytes"
            );
            return Err(Error::argument("the bytes of a residual code", range, bytes));
        }
        let beam = if data.training.len() * BEAM <= BEAM_VALUES_MAX { BEAM } else { 1 };
        // Half precision reaches from 6e-8 to 65,504; data may not.
        let scale = data.training.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let mut stages: Vec<Centres> = Vec::with_capacity(bytes);
        let mut beams: Vec<Beam> = data.training.par_chunks_exact(width).map(Beam::new).collect();
        for stage in 0..bytes {
            let left: Vec<f32> = beams.iter().flat_map(|beam| &beam.left[..width]).copied().collect();
            let centres = cluster(&left, width, ENTRIES, ROUNDS, SHRINKAGE, data.rng);
            // Stored in half precision, and trained on as it will be stored.
            let mut values: Vec<f32> =
                centres.values.iter().map(|&x| f16::from_f32(x / scale).to_f32() * scale).collect();
            values.resize(ENTRIES * width, 0.0);
            let centres = Centres::new(width, values);
            beams.par_chunks_mut(BLOCK).for_each(|beams| advance(beams, &centres, beam));
            stages.push(centres);
            if (data.watch)(stage + 1, bytes).is_break() {
                break;
            }
        }
        // Ended early: the bytes that have no codebook yet add nothing.
        stages.resize(bytes, Centres::new(width, vec![0.0; ENTRIES * width]));
        Ok(Self { kept: width, scale, stages })
    }

    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    pub(super) fn code_len(&self) -> usize {
        self.stages.len()
    }

    pub(super) fn encode_all(&self, rows: &[f32]) -> Vec<Vec<u8>> {
        rows.par_chunks(BLOCK * self.kept)
            .flat_map_iter(|block| {
                let mut beams: Vec<Beam> = block.chunks_exact(self.kept).map(Beam::new).collect();
                for stage in &self.stages {
                    advance(&mut beams, stage, BEAM);
                }
                beams.into_iter().map(|mut beam| beam.codes.swap_remove(0)).collect::<Vec<_>>()
            })
            .collect()
    }

    pub(super) fn decode(&self, code: &[u8], kept: &mut [f32]) {
        kept.fill(0.0);
        for (stage, &entry) in self.stages.iter().zip(code) {
            kept.iter_mut().zip(stage.row(usize::from(entry))).for_each(|(kept, x)| *kept += x);
        }
    }

    pub(super) fn store(&self, image: &mut CodecImage) {
        let shares = |stage: &Centres| stage.values.iter().map(|x| x / self.scale).collect::<Vec<f32>>();
        let values: Vec<f32> = self.stages.iter().flat_map(shares).collect();
        let scale = [self.scale];
        image.tensors.push(tensor("quantizer.scale".to_owned(), &[1], &scale, WeightPrecision::F32));
        let dims = [self.stages.len(), ENTRIES, self.kept];
        image.tensors.push(tensor("quantizer.codebooks".to_owned(), &dims, &values, WeightPrecision::F16));
    }

    pub(super) fn load(kept: usize, code_len: usize, image: &CodecImage) -> Result<Self> {
        let dims = [code_len, ENTRIES, kept];
        let values = floats(image.tensor("quantizer.codebooks", ElementType::F16, &dims)?)?;
        let scale = floats(image.tensor("quantizer.scale", ElementType::F32, &[1])?)?[0];
        let stage = |stage: &[f32]| Centres::new(kept, stage.iter().map(|share| share * scale).collect());
        Ok(Self { kept, scale, stages: values.chunks_exact(ENTRIES * kept).map(stage).collect() })
    }
}

impl Beam {
    fn new(row: &[f32]) -> Self {
        Self { left: row.to_vec(), codes: vec![Vec::new()] }
    }
}

/// Adds a stage: of all sums one entry longer the nearest few go on.
fn advance(beams: &mut [Beam], stage: &Centres, keep: usize) {
    let width = stage.width;
    let left: Vec<f32> = beams.iter().flat_map(|beam| &beam.left).copied().collect();
    let distances = stage.distances(&left);
    let mut at = 0;
    for beam in beams {
        let sums = beam.codes.len();
        let mut candidates: Vec<(f32, usize, usize)> = Vec::with_capacity(sums * ENTRIES);
        for sum in 0..sums {
            let own = &beam.left[sum * width..(sum + 1) * width];
            let half_length = 0.5 * own.iter().map(|x| x * x).sum::<f32>();
            let row = &distances[(at + sum) * ENTRIES..(at + sum + 1) * ENTRIES];
            candidates.extend(row.iter().enumerate().map(|(entry, d)| (half_length + d, sum, entry)));
        }
        at += sums;
        let order = |a: &(f32, usize, usize), b: &(f32, usize, usize)| {
            a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)))
        };
        let keep = keep.min(candidates.len());
        if keep < candidates.len() {
            candidates.select_nth_unstable_by(keep - 1, order);
            candidates.truncate(keep);
        }
        candidates.sort_unstable_by(order);
        let mut next = Beam { left: Vec::with_capacity(keep * width), codes: Vec::with_capacity(keep) };
        for (_, sum, entry) in candidates {
            let own = &beam.left[sum * width..(sum + 1) * width];
            next.left.extend(own.iter().zip(stage.row(entry)).map(|(x, c)| x - c));
            let mut code = beam.codes[sum].clone();
            code.push(entry as u8);
            next.codes.push(code);
        }
        *beam = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::ops::ControlFlow;

    fn fitted(bytes: usize, rows: &[f32], width: usize) -> Residual {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut data = Data {
            training: rows,
            validation: &[],
            width,
            values: width,
            outside: 0.0,
            rng: &mut rng,
            watch: &mut |_, _| ControlFlow::Continue(()),
        };
        Residual::fit(bytes, &mut data).unwrap()
    }

    #[test]
    fn every_stage_lowers_the_error_and_the_beam_is_no_worse_than_greed() {
        let rows: Vec<f32> = (0..4_000_u32).map(|i| ((i * 7_919) % 1_009) as f32 / 504.5 - 1.0).collect();
        let residual = fitted(3, &rows, 4);
        let mut last = f32::INFINITY;
        for stages in 1..=3 {
            let part = Residual { kept: 4, scale: 1.0, stages: residual.stages[..stages].to_vec() };
            let error = |codes: &[Vec<u8>]| {
                let mut out = [0.0; 4];
                let rows = rows.chunks_exact(4).zip(codes);
                rows.map(|(row, code)| {
                    part.decode(code, &mut out);
                    row.iter().zip(&out).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()
                })
                .sum::<f32>()
            };
            let beam = error(&part.encode_all(&rows));
            let mut greedy: Vec<Beam> = rows.chunks_exact(4).map(Beam::new).collect();
            part.stages.iter().for_each(|stage| advance(&mut greedy, stage, 1));
            let greedy: Vec<Vec<u8>> = greedy.into_iter().map(|beam| beam.codes[0].clone()).collect();
            assert!(beam <= error(&greedy) && beam < 0.7 * last, "{stages}: {beam}, {last}");
            last = beam;
        }
    }

    #[test]
    fn fewer_rows_than_entries_and_rows_that_are_all_the_same_are_fitted_all_the_same() {
        let few = [1.0, 2.0, -1.0, 0.5];
        let residual = fitted(4, &few, 2);
        let codes = residual.encode_all(&few);
        let mut out = [0.0; 2];
        residual.decode(&codes[0], &mut out);
        assert!((out[0] - 1.0).abs() < 0.1 && (out[1] - 2.0).abs() < 0.2, "{out:?}");
        let same = fitted(2, &[3.0; 40], 2);
        same.decode(&same.encode_all(&[3.0, 3.0])[0], &mut out);
        assert!((out[0] - 3.0).abs() < 0.1, "{out:?}");
    }
}
