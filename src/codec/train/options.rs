//! The options of a training, and whether they fit the records.

use super::request::{QuantizerRequest, entropy_bytes_min};
use crate::codec::{Device, EntropySpec, QuantizerSpec, Rate};
use crate::error::{Error, Result};
use crate::record::Records;
use apcm_format::{Preset, WeightPrecision, limits};
use std::time::Duration;

/// Fewest records worth a validation split; below it a codec is fitted and not trained.
const TRAINABLE_MIN: usize = 128;
/// Fewest records of the validation split: two standard errors of fewer say little.
const VALIDATION_MIN: usize = 32;
/// Most records of the validation split.
pub(crate) const VALIDATION_MAX: usize = 4_096;
/// Fewest records that an error is measured on where nothing is trained; half of those there are, if they are
/// fewer.
const MEASURED_MIN: usize = 8;

/// Fewest groups of records that are held out, so that two can choose and two can judge.
pub(crate) const GROUPS_MIN: usize = 4;

/// Most charts that can be asked for.
const CHARTS_MAX: usize = 1_024;

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) preset: Preset,
    pub(crate) quantizer: QuantizerRequest,
    pub(crate) device: Device,
    pub(crate) seed: u64,
    pub(crate) validation: f64,
    pub(crate) steps_max: usize,
    pub(crate) time_max: Option<Duration>,
    pub(crate) batch: Option<usize>,
    pub(crate) learning_rate: Option<f64>,
    pub(crate) predictor: Option<(usize, usize)>,
    pub(crate) couplings: Option<usize>,
    pub(crate) coupling_hidden: usize,
    pub(crate) precision: Option<WeightPrecision>,
    pub(crate) trained: bool,
    /// The records are pairs of states, the first so many of them of subtrees without gaps.
    pub(crate) pairs: Option<usize>,
    /// The groups, such as sequences, that the last records belong to, one after the other: those records are
    /// the validation split, and no stage is fitted to them.
    pub(crate) held_out: Option<Vec<usize>>,
    /// The group of each record; a group is set aside whole or not at all.
    pub(crate) groups: Option<Vec<usize>>,
    /// Bound of the couplings' scales in the paper preset, which has none.
    pub(crate) scale_clamp: Option<f32>,
    /// Fewer values than were asked for will do where the records differ in fewer directions.
    pub(crate) cap_to_rank: bool,
}

impl Options {
    pub(crate) fn check(&self, records: &Records) -> Result<()> {
        let values = records.shape().values();
        self.check_quantizer(values)?;
        // One more than the values asked for: the mean takes one degree of freedom.
        let needed = match (self.pairs, self.cap_to_rank) {
            // Pairs of states are centred already.
            (Some(_), _) => 1,
            (None, true) => 2,
            (None, false) => self.quantizer.values().unwrap_or(1) + 1,
        };
        if records.len() < needed {
            return Err(Error::TooLittleData {
                records: records.len(),
                needed,
                purpose: format!("a code of {} bytes", self.quantizer.bytes()),
            });
        }
        if let Some(groups) = self.groups.as_ref().filter(|groups| groups.len() != records.len()) {
            return Err(Error::argument(
                "the groups of the records",
                records.len().to_string(),
                groups.len(),
            ));
        }
        if let Some(bound) = self.scale_clamp.filter(|bound| !(*bound > 0.0 && bound.is_finite())) {
            return Err(Error::argument("the bound of the scales", "a number above 0", bound));
        }
        if !(0.0..=0.5).contains(&self.validation) {
            return Err(Error::argument("the validation share", "between 0 and 0.5", self.validation));
        }
        let layers = limits::LAYERS_MAX as usize;
        if let Some(asked) = self.couplings.filter(|&asked| asked > layers) {
            return Err(Error::argument("the couplings", format!("at most {layers}"), asked));
        }
        let widest = limits::WIDTH_MAX as usize;
        if self.coupling_hidden == 0 || self.coupling_hidden > widest {
            return Err(Error::argument(
                "the width of a coupling",
                format!("1 to {widest}"),
                self.coupling_hidden,
            ));
        }
        if let Some((hidden, blocks)) = self.predictor.filter(|&(h, b)| h > widest || b > layers) {
            return Err(Error::argument(
                "the predictor",
                format!("at most {widest} wide and {layers} blocks deep"),
                format!("{hidden} and {blocks}"),
            ));
        }
        if self.batch == Some(0) || self.steps_max == 0 {
            return Err(Error::argument("the batch and the steps", "at least 1", 0));
        }
        Ok(())
    }
}

impl Options {
    pub(crate) fn check_quantizer(&self, values: usize) -> Result<()> {
        let bytes = self.quantizer.bytes();
        let spec = match self.quantizer {
            QuantizerRequest::Given(spec) => spec,
            QuantizerRequest::Auto(bytes) => QuantizerSpec::Allocated(bytes),
        };
        if let QuantizerSpec::Entropy(EntropySpec { rate: Rate::Error(error), .. }) = spec {
            if !(error > 0.0 && error.is_finite()) {
                return Err(Error::argument("the mean squared error of a code", "a number above 0", error));
            }
        } else if bytes == 0 {
            return Err(Error::argument("the bytes of a code", "at least 1", 0));
        }
        if let Some(asked) = spec.values().filter(|&asked| asked > values) {
            return Err(Error::argument(
                "the number of code values",
                format!("at most {values}, the values of a record"),
                asked,
            ));
        }
        let most = match spec {
            QuantizerSpec::Allocated(_) => values.min(limits::CODE_LEN_MAX),
            _ => limits::CODE_LEN_MAX,
        };
        if bytes > most && spec.values().is_none() {
            let range = format!(
                "1 to {most}, {}",
                match spec {
                    QuantizerSpec::Allocated(_) => "a byte for each value of a record",
                    _ => "the longest code",
                }
            );
            return Err(Error::argument("the bytes of a code", range, bytes));
        }
        if let QuantizerSpec::Entropy(spec) = spec {
            let least = match spec.rate {
                // A cap below the mean leaves no mean to be met.
                Rate::Mean(bytes) => bytes.max(entropy_bytes_min(spec)),
                _ => entropy_bytes_min(spec),
            };
            if let Some(asked) = spec.max_bytes.filter(|&asked| asked < least || asked > limits::CODE_LEN_MAX)
            {
                let range = format!("{least} to {}", limits::CODE_LEN_MAX);
                return Err(Error::argument("the longest code", range, asked));
            }
            let least = entropy_bytes_min(spec);
            if matches!(spec.rate, Rate::Mean(_) | Rate::Fixed(_)) && bytes < least {
                let range = format!("at least {least} where codes are entropy coded");
                return Err(Error::argument("the bytes of a code", range, bytes));
            }
            if let Some(charts) = spec.charts.filter(|&charts| charts == 0 || charts > CHARTS_MAX) {
                return Err(Error::argument("the charts", format!("1 to {CHARTS_MAX}"), charts));
            }
        }
        Ok(())
    }

    /// Rows of the validation split among this many records.
    pub(crate) fn validation_records(&self, records: usize) -> usize {
        if !self.trains(records) {
            // Nothing is compared. But an error that was asked for has to be seen on records that were not
            // fitted to.
            return if self.measures_error() {
                (records / 10).clamp(MEASURED_MIN.min(records / 2), VALIDATION_MAX)
            } else {
                0
            };
        }
        ((records as f64 * self.validation) as usize).clamp(VALIDATION_MIN, VALIDATION_MAX)
    }

    /// Whether networks are tried.
    pub(crate) fn trains(&self, records: usize) -> bool {
        self.trained && records >= TRAINABLE_MIN && self.validation > 0.0
    }

    pub(crate) fn measures_error(&self) -> bool {
        matches!(
            self.quantizer,
            QuantizerRequest::Given(QuantizerSpec::Entropy(EntropySpec { rate: Rate::Error(_), .. }))
        )
    }

    /// Fewest records that leave more than `asked` of them to train on.
    pub(crate) fn records_needed(&self, asked: usize) -> usize {
        let enough = |&records: &usize| records - self.validation_records(records) > asked;
        (asked + 1..).find(enough).unwrap_or(usize::MAX)
    }
}
