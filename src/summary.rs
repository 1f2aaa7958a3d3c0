//! Errors of many records in a few numbers.

/// Mean, quantiles and histogram of errors.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ErrorSummary {
    /// Their mean.
    pub mean: f64,
    /// Half of them are at most this.
    pub p50: f64,
    /// Ninety-five in a hundred are at most this.
    pub p95: f64,
    /// The largest.
    pub max: f64,
    /// How many fall between one edge and the next; the last bar holds its upper edge too.
    pub histogram: Vec<u64>,
    /// Edges of the bars, evenly spaced from the least to the largest.
    pub edges: Vec<f64>,
}

/// Bars of a histogram.
const BARS: usize = 20;

impl ErrorSummary {
    /// Sums errors up; none for no errors. Infinite ones count as the largest finite one in the histogram.
    pub fn of(errors: &[f32]) -> Option<Self> {
        let mut sorted: Vec<f64> = errors.iter().map(|&error| f64::from(error)).collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &max) = (sorted.first()?, sorted.last()?);
        // The nearest-rank quantile: a value that occurs.
        let quantile =
            |share: f64| sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
        let top = sorted.iter().rev().copied().find(|error| error.is_finite()).unwrap_or(0.0);
        let width = (top - least).max(0.0) / BARS as f64;
        let mut histogram = vec![0; BARS];
        for &error in &sorted {
            let bar = if width > 0.0 { ((error - least) / width) as usize } else { 0 };
            histogram[bar.min(BARS - 1)] += 1;
        }
        Some(Self {
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            p50: quantile(0.5),
            p95: quantile(0.95),
            max,
            histogram,
            edges: (0..=BARS).map(|edge| least + width * edge as f64).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_a_hundred_numbers() {
        let errors: Vec<f32> = (1..=100).rev().map(|i| i as f32).collect();
        let summary = ErrorSummary::of(&errors).unwrap();
        assert_eq!((summary.mean, summary.p50, summary.p95, summary.max), (50.5, 50.0, 95.0, 100.0));
        assert_eq!(summary.histogram.iter().sum::<u64>(), 100);
        assert_eq!((summary.edges[0], summary.edges[BARS]), (1.0, 100.0));
        assert_eq!(ErrorSummary::of(&[0.5; 3]).unwrap().histogram[0], 3);
        assert!(ErrorSummary::of(&[]).is_none());
        assert_eq!(ErrorSummary::of(&[1.0, f32::INFINITY]).unwrap().max, f64::INFINITY);
    }
}
