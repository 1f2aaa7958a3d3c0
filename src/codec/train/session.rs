//! One training under way: which records train, and which decide.

use super::options::{GROUPS_MIN, Options, VALIDATION_MAX};
use super::progress::TimeBudget;
use super::report::{QuantizerChoice, StageReport, TrainReport};
use crate::progress::Callback;
use crate::record::Records;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// One training under way.
pub(crate) struct Session<'a> {
    pub(crate) records: &'a Records,
    pub(crate) options: Options,
    pub(crate) progress: Option<Callback<'a>>,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) time: TimeBudget,
}

/// Which records train and which decide.
pub(crate) struct Split {
    pub(crate) training: Vec<usize>,
    /// Rows that choose the best weights and end the training.
    pub(crate) choosing: Vec<usize>,
    /// Rows that decide whether a stage is kept.
    pub(crate) judging: Vec<usize>,
    /// The group of each judging row.
    pub(crate) groups: Vec<usize>,
}

impl Split {
    /// Whether there are rows to compare on.
    pub(crate) fn validates(&self) -> bool {
        self.choosing.len() + self.judging.len() >= 2 && !self.judging.is_empty()
    }
}

impl Session<'_> {
    pub(crate) fn split(&mut self) -> Split {
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        if let Some(groups) = self.options.groups.clone() {
            return self.split_by(&groups);
        }
        let Some(groups) = &self.options.held_out else {
            order.shuffle(&mut self.rng);
            let training = order.split_off(self.options.validation_records(order.len()));
            let judges = if self.options.trains(self.records.len()) { order.len() / 2 } else { order.len() };
            let judging = order.split_off(judges);
            let groups = judging.clone();
            return Split { training, choosing: order, judging, groups };
        };
        let held_out = order.split_off(order.len().saturating_sub(groups.len()));
        order.shuffle(&mut self.rng);
        let mut halves = [Vec::new(), Vec::new()];
        if self.options.trained {
            held_out.into_iter().zip(groups).for_each(|(row, group)| halves[group % 2].push((row, *group)));
            for half in &mut halves {
                half.shuffle(&mut self.rng);
                half.truncate(VALIDATION_MAX / 2);
            }
        }
        let [choosing, judging] = halves;
        let (judging, groups) = judging.into_iter().unzip();
        Split {
            training: order,
            choosing: choosing.into_iter().map(|(row, _)| row).collect(),
            judging,
            groups,
        }
    }

    /// Whole groups are set aside, one after the other to choose and to judge, until they have as many records
    /// as would be set aside without groups.
    pub(crate) fn split_by(&mut self, groups: &[usize]) -> Split {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        groups.iter().enumerate().for_each(|(row, &group)| members.entry(group).or_default().push(row));
        let mut order: Vec<usize> = members.keys().copied().collect();
        order.shuffle(&mut self.rng);
        let wanted = self.options.validation_records(groups.len());
        let mut split =
            Split { training: Vec::new(), choosing: Vec::new(), judging: Vec::new(), groups: Vec::new() };
        let enough = order.len() >= 2 * GROUPS_MIN && wanted > 0;
        let trains = self.options.trains(groups.len());
        for (number, group) in order.into_iter().enumerate() {
            let rows = members.remove(&group).unwrap_or_default();
            let set_aside = split.choosing.len() + split.judging.len();
            // Half of all groups at most, or there would be little left to learn from.
            let more =
                (set_aside < wanted || number < GROUPS_MIN) && number < (number + 1 + members.len()) / 2;
            // Nor half of all records, where one group has most of them.
            let fits = set_aside + rows.len() <= groups.len() / 2;
            if !(enough && more && fits) {
                split.training.extend(rows);
            } else if trains && number % 2 == 1 {
                split.groups.extend(std::iter::repeat_n(group, rows.len()));
                split.judging.extend(rows);
            } else {
                split.choosing.extend(rows);
            }
        }
        split.training.shuffle(&mut self.rng);
        split
    }

    pub(crate) fn gather(&self, rows: &[usize]) -> Records {
        let values = rows.iter().flat_map(|&row| self.records.row(row)).copied().collect();
        Records::from_decoded(self.records.shape(), values)
    }

    pub(crate) fn values(&self) -> usize {
        self.records.shape().values()
    }

    pub(crate) fn report(
        &self,
        split: &Split,
        quantizers: Vec<QuantizerChoice>,
        stages: Vec<StageReport>,
    ) -> TrainReport {
        TrainReport {
            training_records: split.training.len(),
            validation_records: split.choosing.len() + split.judging.len(),
            quantizers,
            stages,
            seconds: self.time.began.elapsed().as_secs_f64(),
        }
    }
}
