//! Training and judging samples for the levels of a tree.

use super::tree::{Level, SweeperTree, depth};
use crate::codec::flow::pairs::Pairs;
use crate::error::Result;
use crate::record::Records;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// One in so many sequences of each depth judges, and as many as this at least: half of them choose weights,
/// because fewer than four give no usable spread.
const HELD_OUT: usize = 10;
pub(super) const JUDGES_MIN: usize = 8;
/// Of fewer sequences of a depth none is set aside.
const SEQUENCES_MIN: usize = 4 * JUDGES_MIN;

/// A training sequence, or the beginning of one.
pub(super) struct Sequence {
    pub(super) first: usize,
    pub(super) len: usize,
    /// Nothing is fitted to it: it judges, under this number.
    judge: Option<usize>,
    /// Its states at the level under way, one after the other.
    pub(super) states: Vec<f32>,
}

impl Sequence {
    pub(super) fn prefix(&self, len: usize) -> Self {
        Self { len, states: Vec::new(), ..*self }
    }

    /// How many states it has at a level.
    fn nodes(&self, level: usize) -> usize {
        self.len.div_ceil(1 << level)
    }

    /// The pairs of full subtrees that make its states of a level, of states so long; then what is left:
    /// nothing, a pair whose right half has gaps, or a left half alone.
    fn pairs(&self, level: usize, state: usize) -> (impl Iterator<Item = &[f32]>, &[f32]) {
        let (full, rest) = self.states.split_at((self.len >> level) * 2 * state);
        (full.chunks_exact(2 * state), rest)
    }
}

/// Sequences of these lengths, one after the other, without states; those that judge, if any shall, come last.
pub(super) fn sequences(lengths: &[usize], judged: bool, rng: &mut ChaCha8Rng) -> Vec<Sequence> {
    let firsts = lengths.iter().scan(0, |next, &len| Some(std::mem::replace(next, *next + len)));
    let mut by_depth: BTreeMap<usize, Vec<Sequence>> = BTreeMap::new();
    for (first, &len) in firsts.zip(lengths) {
        let sequence = Sequence { first, len, judge: None, states: Vec::new() };
        by_depth.entry(depth(len as u64)).or_default().push(sequence);
    }
    let (mut seen, mut judges) = (Vec::new(), Vec::new());
    for (_, mut sequences) in by_depth {
        if judged && sequences.len() >= SEQUENCES_MIN {
            sequences.shuffle(rng);
            judges.extend(sequences.drain(..(sequences.len() / HELD_OUT).max(JUDGES_MIN)));
        }
        seen.extend(sequences);
    }
    judges.iter_mut().enumerate().for_each(|(number, sequence)| sequence.judge = Some(number));
    seen.extend(judges);
    seen
}

/// Those to fit to, and those that judge.
pub(super) fn split(sequences: &[Sequence]) -> (&[Sequence], &[Sequence]) {
    sequences.split_at(sequences.partition_point(|sequence| sequence.judge.is_none()))
}

/// Which sequence judges each record.
pub(super) fn witnesses(judges: &[Sequence]) -> Vec<usize> {
    judges
        .iter()
        .flat_map(|sequence| std::iter::repeat_n(sequence.judge.unwrap_or(0), sequence.len))
        .collect()
}

/// What a sweeper learns from.
pub(super) struct Samples {
    /// Pairs of states, of level 0 records: those that axes are fitted to, others, those that judge.
    pub(super) pairs: Records,
    /// How many axes are fitted to.
    pub(super) fitted: usize,
    /// The sequence that judges each of the last records.
    pub(super) witnesses: Vec<usize>,
}

impl Samples {
    /// Of the level above `below`, which learns what to expect of its states.
    ///
    /// Axes are fitted to pairs of full subtrees: pairs with gaps are unlike them, and rare. Not where most
    /// sequences end in a gap, as at the top of those whose length is no power of two, which have no other.
    pub(super) fn of(
        below: &mut Level,
        level: usize,
        whole: &[Sequence],
        prefixes: &[Sequence],
        rng: &mut ChaCha8Rng,
    ) -> Result<Self> {
        let state = below.empty.len();
        let mut pairs = Records::with_dims(&[2, state])?;
        let ((seen, judges), (beginnings, judging)) = (split(whole), split(prefixes));
        for sequence in seen {
            sequence.pairs(level, state).0.try_for_each(|pair| pairs.push_values(pair))?;
        }
        let full = pairs.len();
        for sequence in seen {
            let (_, rest) = sequence.pairs(level, state);
            if rest.len() == 2 * state {
                pairs.push_values(rest)?;
            }
        }
        let fitted = if 2 * full >= pairs.len() { full } else { pairs.len() };
        let mut rows: Vec<usize> = (0..fitted).collect();
        rows.shuffle(rng);
        below.next = Pairs::fit(&pairs, &rows)?.expectation();
        // A sequence's last pair, where it is not a full one; of a beginning it is the only one that the whole
        // has not.
        let last = |sequence: &Sequence| match sequence.pairs(level, state).1 {
            [] => None,
            left if left.len() == state => Some([left, &below.next.beside(left)].concat()),
            pair => Some(pair.to_vec()),
        };
        // Those with both halves are in already.
        let alone = seen.iter().filter(|sequence| sequence.pairs(level, state).1.len() == state);
        alone.chain(beginnings).filter_map(last).try_for_each(|pair| pairs.push_values(&pair))?;
        let mut witnesses = Vec::new();
        for (sequence, whole) in
            judges.iter().map(|one| (one, true)).chain(judging.iter().map(|one| (one, false)))
        {
            let before = pairs.len();
            if whole {
                sequence.pairs(level, state).0.try_for_each(|pair| pairs.push_values(pair))?;
            }
            last(sequence).map_or(Ok(()), |pair| pairs.push_values(&pair))?;
            witnesses.extend(std::iter::repeat_n(sequence.judge.unwrap_or(0), pairs.len() - before));
        }
        Ok(Self { pairs, fitted, witnesses })
    }
}

/// Records decoded from the states of this level, without restorers.
pub(super) fn unfolded(tree: &SweeperTree, level: usize, sequences: &[Sequence]) -> Records {
    let mut states: Vec<f32> = sequences.iter().flat_map(|sequence| &sequence.states).copied().collect();
    for level in (1..=level).rev() {
        let pairs = tree.levels[level].sweeper.restored(&states);
        let width = tree.levels[level - 1].empty.len();
        let mut rest = pairs.values();
        states.clear();
        for sequence in sequences {
            let (theirs, others) = rest.split_at(sequence.nodes(level) * 2 * width);
            // Drop the padded right half of an unpaired node.
            states.extend_from_slice(&theirs[..sequence.nodes(level - 1) * width]);
            rest = others;
        }
    }
    tree.levels[0].sweeper.restored(&states)
}
