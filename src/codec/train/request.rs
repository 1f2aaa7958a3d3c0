//! Which quantizer was asked for, and the candidates that follow.

use crate::codec::quantizer::{EntropySpec, QuantizerSpec, Rate};

/// Charts of the smaller entropy-coded candidate.
const FEWER_CHARTS: usize = 4;
/// Below this many training records a mixture may not be worth its charts, and one chart is tried beside it.
const FEW_RECORDS: usize = 20_000;

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum QuantizerRequest {
    Given(QuantizerSpec),
    /// The best quantizer of this many bytes.
    Auto(usize),
}

impl QuantizerRequest {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Given(spec) => spec.bytes(),
            Self::Auto(bytes) => bytes,
        }
    }

    pub(crate) fn values(self) -> Option<usize> {
        match self {
            Self::Given(spec) => spec.values(),
            Self::Auto(_) => None,
        }
    }

    /// What is tried, in turn.
    pub(crate) fn candidates(self, training: usize, validates: bool) -> Vec<QuantizerSpec> {
        match self {
            Self::Given(spec) => vec![spec],
            Self::Auto(bytes) if !validates || bytes < ENTROPY_BYTES_MIN => {
                vec![QuantizerSpec::Allocated(bytes)]
            }
            Self::Auto(bytes) => {
                let entropy = |charts| {
                    QuantizerSpec::Entropy(EntropySpec { rate: Rate::Mean(bytes), max_bytes: None, charts })
                };
                let mut all = vec![QuantizerSpec::Allocated(bytes), entropy(None)];
                if training < FEW_RECORDS {
                    all.push(entropy(Some(FEWER_CHARTS)));
                    all.push(entropy(Some(1)));
                }
                all
            }
        }
    }
}

/// The name of a quantizer.
pub(crate) fn name_of(spec: QuantizerSpec) -> &'static str {
    match spec {
        QuantizerSpec::F32(_) => "f32",
        QuantizerSpec::F16(_) => "f16",
        QuantizerSpec::I8(_) => "i8",
        QuantizerSpec::Allocated(_) => "allocated",
        QuantizerSpec::Residual(_) => "residual",
        QuantizerSpec::Entropy(_) => "entropy",
    }
}

/// Fewest bytes on average that entropy coding is worth.
const ENTROPY_BYTES_MIN: usize = 4;

/// Fewest bytes an entropy-coded quantizer can be asked for: the level and the chart must fit, come what may.
pub(crate) fn entropy_bytes_min(spec: EntropySpec) -> usize {
    match spec.rate {
        Rate::Mean(_) => ENTROPY_BYTES_MIN,
        Rate::Fixed(_) | Rate::Error(_) => 8,
    }
}
