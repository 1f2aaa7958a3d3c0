//! The tree: records to one state, level by level, and back.

use crate::codec::FlowCodec;
use crate::codec::flow::pairs::Expectation;
use crate::error::{Error, Result};
use crate::record::{Record, Records, check_overflow, check_shape};
use apcm_format::RecordShape;
use std::ops::Range;

/// Most levels of a tree: 2^32 records.
pub(super) const LEVELS_MAX: usize = 32;

/// One level of a tree.
#[derive(Debug)]
pub(super) struct Level {
    /// Level 0: a record to its state. Above: two states of the level below to one.
    pub(super) sweeper: FlowCodec,
    /// Makes records that come out of a state of this level better; none where that did not pay.
    pub(super) restorer: Option<FlowCodec>,
    /// State of a subtree of this level without records, `Z_k`.
    pub(super) empty: Vec<f32>,
    /// The conditional mean of the right state given a state of this level, for gaps.
    pub(super) next: Expectation,
}

/// A tree of sweepers: folds a sequence of records into one state of bounded length, and unfolds it.
///
/// State `u` of a leaf is a record in the coordinates of its principal axes; `u = M_k([left; right])` one level
/// up, with at most so many values as the state was given. What is missing on the right of a sequence whose
/// length is no power of two is what the left makes one expect, which of independent records is the mean of
/// all. Decoding runs the inverses from the root down. Untrained, its error is the sum of what each level lost,
/// because those inverses turn and do not stretch.
///
/// ```
/// use apcm::{Record, Records, SweeperTree};
/// # fn main() -> apcm::Result<()> {
/// // A point going round a circle, eight steps a turn.
/// let mut records = Records::with_dims(&[2])?;
/// for i in 0..512 {
///     let angle = i as f32 * std::f32::consts::TAU / 8.0;
///     records.push_values(&[angle.cos(), angle.sin()])?;
/// }
/// let tree = SweeperTree::trainer(&records, &[64; 8]).state(2).untrained().train()?.tree;
/// let state = tree.encode(&records.slice(0..50))?;
/// assert_eq!((state.len(), state.values().len()), (50, 2));
/// let back = tree.decode_at(&state, 17)?;
/// assert!((back.values()[0] - records.row(17)[0]).abs() < 0.01);
/// # Ok(()) }
/// ```
///
/// # Source
/// Zerihun and Plashchinsky, "IMFN", arXiv 2602.00535. Different here: each level starts at its linear optimum,
/// and [restoring](super::TreeTrainer) is one network a depth, behind a gate.
#[derive(Debug)]
pub struct SweeperTree {
    pub(super) levels: Vec<Level>,
}

/// A sequence as one state.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceState {
    /// The level of the node whose state it is.
    level: usize,
    pub(super) len: u64,
    pub(super) values: Vec<f32>,
}

impl SequenceState {
    /// A state that was kept elsewhere, of a sequence of this length.
    pub fn new(len: u64, values: Vec<f32>) -> Self {
        Self { level: depth(len.max(1)), len, values }
    }

    /// The state of a node higher up than it need be.
    pub(super) fn at_level(level: usize, len: u64, values: Vec<f32>) -> Self {
        Self { level, len, values }
    }

    /// The level of its node.
    pub(super) fn level(&self) -> usize {
        self.level
    }

    /// How many records it stands for.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it stands for none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Levels above the leaves of a tree over so many records.
pub(super) fn depth(len: u64) -> usize {
    (u64::BITS - len.saturating_sub(1).leading_zeros()) as usize
}

impl SweeperTree {
    /// Shape of the records it takes and gives.
    pub fn shape(&self) -> RecordShape {
        use crate::codec::Codec;
        self.levels[0].sweeper.shape()
    }

    /// Most records in one state.
    pub fn capacity(&self) -> u64 {
        1 << (self.levels.len() - 1)
    }

    /// Length of the state of a sequence of so many records.
    pub fn state_len(&self, records: u64) -> usize {
        let level = depth(records.max(1)).min(self.levels.len() - 1);
        self.levels[level].empty.len()
    }

    /// Weights, rotations and all else that was learned counted.
    pub fn parameters(&self) -> u64 {
        use crate::codec::Codec;
        let codecs = self.levels.iter().flat_map(|level| [Some(&level.sweeper), level.restorer.as_ref()]);
        let expected = self.levels.iter().map(|level| (level.next.take.len() + level.next.give.len()) as u64);
        codecs.flatten().map(|codec| codec.info().parameters).chain(expected).sum()
    }

    /// Folds a sequence into one state. Cost: one merge a record, batched by levels.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape); [`Argument`](Error::Argument) for no records or more than
    /// [`capacity`](Self::capacity), and for records so large that their state overflows.
    pub fn encode(&self, records: &Records) -> Result<SequenceState> {
        let len = records.len() as u64;
        self.check_len(len)?;
        let mut states = self.leaves(records)?;
        for level in 1..=depth(len) {
            states = self.merged(level, states)?;
        }
        Ok(SequenceState::new(len, states))
    }

    /// Unfolds all records. Cost: one inverse a record, batched by levels.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for a state that is not this tree's.
    pub fn decode(&self, state: &SequenceState) -> Result<Records> {
        self.decode_range(state, 0..state.len)
    }

    /// Unfolds one record. Cost: one inverse a level.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) past the end, and for a state that is not this tree's.
    pub fn decode_at(&self, state: &SequenceState, index: u64) -> Result<Record> {
        if index >= state.len {
            return Err(past_the_end(index, state.len));
        }
        Ok(self.decode_range(state, index..index + 1)?.get(0))
    }

    /// Unfolds a range of the records. Cost: one inverse for each node above one of them.
    ///
    /// # Errors
    /// As [`decode_at`](Self::decode_at).
    pub fn decode_range(&self, state: &SequenceState, range: Range<u64>) -> Result<Records> {
        let root = self.check(state)?;
        if range.end > state.len {
            return Err(past_the_end(range.end - 1, state.len));
        }
        if range.is_empty() {
            return Ok(Records::new(self.shape()));
        }
        let mut nodes = vec![0_u64];
        let mut states = state.values.clone();
        for level in (1..=root).rev() {
            let width = self.levels[level - 1].empty.len();
            let pairs = self.levels[level].sweeper.restored(&states);
            states.clear();
            let mut children = Vec::with_capacity(2 * nodes.len());
            for (&node, pair) in nodes.iter().zip(pairs.rows()) {
                for (child, state) in [2 * node, 2 * node + 1].into_iter().zip(pair.chunks_exact(width)) {
                    let first = child << (level - 1);
                    if first < range.end && first + (1 << (level - 1)) > range.start {
                        children.push(child);
                        states.extend_from_slice(state);
                    }
                }
            }
            nodes = children;
        }
        let mut records = self.levels[0].sweeper.restored(&states);
        if let Some(restorer) = &self.levels[root].restorer {
            restorer.correct(&mut records)?;
        }
        Ok(records)
    }

    /// The level of its root, where that is full.
    pub(super) fn top(&self) -> usize {
        self.levels.len() - 1
    }

    /// States of a level as those of the top one, beside what they make one expect.
    pub(super) fn lifted(&self, from: usize, mut states: Vec<f32>) -> Result<Vec<f32>> {
        for level in from + 1..=self.top() {
            states = self.merged_beside(level, &states, None)?;
        }
        Ok(states)
    }

    /// States of a level from left and right ones of the level below, row by row; beside what is to be expected
    /// where there is no right one.
    pub(super) fn merged_beside(
        &self,
        level: usize,
        left: &[f32],
        right: Option<&[f32]>,
    ) -> Result<Vec<f32>> {
        let Level { empty, next, .. } = &self.levels[level - 1];
        let width = empty.len();
        let mut pairs = Vec::with_capacity(2 * left.len());
        for (row, left) in left.chunks_exact(width).enumerate() {
            pairs.extend_from_slice(left);
            match right {
                Some(right) => pairs.extend_from_slice(&right[row * width..(row + 1) * width]),
                None => pairs.extend(next.beside(left)),
            }
        }
        self.merged(level, pairs)
    }

    /// States of leaves, `[record, state]`.
    pub(super) fn leaves(&self, records: &Records) -> Result<Vec<f32>> {
        check_shape(self.shape(), records.shape())?;
        finite(self.levels[0].sweeper.coordinates(records)?)
    }

    /// States of one level from all of the level below, the last one beside what it makes one expect where it
    /// is alone.
    pub(super) fn merged(&self, level: usize, mut states: Vec<f32>) -> Result<Vec<f32>> {
        use crate::codec::Codec;
        let Level { empty, next, .. } = &self.levels[level - 1];
        if !(states.len() / empty.len()).is_multiple_of(2) {
            let last = next.beside(&states[states.len() - empty.len()..]);
            states.extend(last);
        }
        let sweeper = &self.levels[level].sweeper;
        finite(sweeper.coordinates(&Records::from_decoded(sweeper.shape(), states))?)
    }

    /// The state of the same sequence at the top level, as a [`Student`](super::Student) has it.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for a state that is not this tree's.
    pub fn at_top(&self, state: &SequenceState) -> Result<SequenceState> {
        self.check(state)?;
        let values = self.lifted(state.level, state.values.clone())?;
        Ok(SequenceState::at_level(self.top(), state.len, values))
    }

    /// The level of a state that this tree can have made.
    pub(super) fn check(&self, state: &SequenceState) -> Result<usize> {
        self.check_len(state.len)?;
        let Some(level) = self.levels.get(state.level).filter(|_| state.level >= depth(state.len)) else {
            let expected = format!("{} to {}", depth(state.len), self.top());
            return Err(Error::argument("the level of a state", expected, state.level));
        };
        let expected = level.empty.len();
        if state.values.len() != expected {
            return Err(Error::argument("the length of a state", expected.to_string(), state.values.len()));
        }
        Ok(state.level)
    }

    fn check_len(&self, len: u64) -> Result<()> {
        if (1..=self.capacity()).contains(&len) {
            return Ok(());
        }
        Err(Error::argument("the length of a sequence", format!("1 to {} records", self.capacity()), len))
    }
}

/// States that are numbers: of a record near the greatest `f32` they are not, and whatever shares a state with
/// it would be lost.
fn finite(states: Vec<f32>) -> Result<Vec<f32>> {
    check_overflow("the values of a state", &states)?;
    Ok(states)
}

fn past_the_end(index: u64, len: u64) -> Error {
    Error::argument("the index in a sequence", format!("below {len}"), index)
}
