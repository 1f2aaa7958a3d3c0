//! The gate: a stage is kept only if it pays.

use crate::codec::{Codec, FlowCodec, StoredCode, error_and_norm};
use crate::error::Result;
use crate::record::Records;
use std::collections::BTreeMap;

/// How many standard errors of the paired difference an improvement must have.
const STANDARD_ERRORS: f64 = 2.0;

/// Least share of the error that a stage must take away: its weights are bytes that every store carries.
const LEAST_SHARE: f64 = 0.005;

/// Result of a comparison on the validation split.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) error_before: f64,
    pub(crate) error_after: f64,
    pub(crate) standard_error: f64,
    pub(crate) accepted: bool,
}

/// Mean squared error per element of each record, decoded from what would be stored, with the predictor
/// wherever the codec has one: the per-record flag is a guarantee on top, not part of the comparison.
pub(crate) fn errors(codec: &FlowCodec, records: &Records) -> Result<Vec<f64>> {
    let encoded = codec.encode(records)?;
    let codes: Vec<StoredCode<'_>> =
        encoded.iter().map(|encoded| StoredCode { bytes: &encoded.code, without_predictor: false }).collect();
    let decoded = codec.decode(&codes)?;
    Ok(squared_errors(records, &decoded))
}

/// Mean squared error per element of each record.
pub(crate) fn squared_errors(records: &Records, decoded: &Records) -> Vec<f64> {
    let rows = records.rows().zip(decoded.rows());
    rows.map(|(record, decoded)| error_and_norm(record, decoded).0).collect()
}

/// Compares two candidates record by record; records of one group are one witness.
///
/// The standard error is that of a mean over clusters: with every record a group of its own, the usual one.
pub(crate) fn judge(before: &[f64], after: &[f64], groups: &[usize]) -> Verdict {
    let n = before.len() as f64;
    let mean = |errors: &[f64]| errors.iter().sum::<f64>() / n;
    let (error_before, error_after) = (mean(before), mean(after));
    let gain = error_before - error_after;
    let mut witnesses: BTreeMap<usize, f64> = BTreeMap::new();
    for ((before, after), group) in before.iter().zip(after).zip(groups) {
        *witnesses.entry(*group).or_default() += before - after - gain;
    }
    let count = witnesses.len() as f64;
    let squares: f64 = witnesses.values().map(|sum| sum.powi(2)).sum();
    let standard_error = (squares * count / (count - 1.0).max(1.0)).sqrt() / n;
    // A NaN compares false: what cannot be shown to pay is left out.
    let accepted =
        count >= 2.0 && gain > STANDARD_ERRORS * standard_error && gain > LEAST_SHARE * error_before;
    Verdict { error_before, error_after, standard_error, accepted }
}

/// Sum of squared differences between rows of `width` and rows of `given_width`, padded with zeros.
pub(crate) fn squared(exact: &[f32], given: &[f32], width: usize, given_width: usize) -> f64 {
    exact
        .chunks_exact(width)
        .zip(given.chunks_exact(given_width))
        .map(|(exact, given)| {
            let head: f64 = exact.iter().zip(given).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let tail: f64 = exact[given_width..].iter().map(|&x| f64::from(x).powi(2)).sum();
            head + tail
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_refused_and_a_steady_gain_is_not() {
        let before: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i % 7)).collect();
        let steady: Vec<f64> = before.iter().map(|error| error * 0.9).collect();
        let each: Vec<usize> = (0..100).collect();
        let judge = |before: &[f64], after: &[f64]| judge(before, after, &each);
        assert!(judge(&before, &steady).accepted);
        let noisy: Vec<f64> = before
            .iter()
            .enumerate()
            .map(|(i, error)| error + if i % 2 == 0 { 0.5 } else { -0.52 })
            .collect();
        assert!(!judge(&before, &noisy).accepted);
        assert!(!judge(&before, &before).accepted);
        assert!(!judge(&before, &vec![f64::NAN; 100]).accepted);
    }

    /// Ten of a group that say the same are one witness: what convinces as a hundred records is four out of
    /// ten.
    #[test]
    fn records_of_a_group_are_one_witness() {
        let before = vec![1.0; 100];
        let after: Vec<f64> =
            (0..100).map(|i| if [0, 3, 6, 9].contains(&(i / 10)) { 1.1 } else { 0.7 }).collect();
        let (each, tens): (Vec<usize>, Vec<usize>) = (0..100).map(|i| (i, i / 10)).unzip();
        let (alone, grouped) = (judge(&before, &after, &each), judge(&before, &after, &tens));
        assert!((alone.standard_error - 0.0197).abs() < 1e-4, "{alone:?}");
        assert!((grouped.standard_error - 0.0653).abs() < 1e-4, "{grouped:?}");
        assert!(alone.accepted && grouped.accepted);
        let after: Vec<f64> = after.iter().map(|after| after + 0.05).collect();
        assert!(judge(&before, &after, &each).accepted && !judge(&before, &after, &tens).accepted);
    }
}
