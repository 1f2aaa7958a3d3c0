//! Appending to a tree: one path from the new leaf to the root.

use super::tree::{SequenceState, SweeperTree, depth};
use crate::error::{Error, Result};
use crate::record::{Record, Records};

/// The state needed to append to a sequence: its length, and the full subtrees.
///
/// A binary counter, as in a Merkle tree that grows: bit `k` of the length says whether there is a full subtree
/// of level `k` that waits for its neighbour. So it keeps at most one state a level, and an append costs one
/// merge a level.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frontier {
    len: u64,
    /// The full subtree of each level that waits.
    waiting: Vec<Option<Vec<f32>>>,
}

impl Frontier {
    /// Of an empty sequence.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether its states are as long as this tree's.
    pub(crate) fn fits(&self, tree: &SweeperTree) -> bool {
        let waiting = self.waiting.iter().zip(&tree.levels);
        self.len <= tree.capacity()
            && waiting
                .flat_map(|(state, level)| Some((state.as_ref()?, level)))
                .all(|(state, level)| state.len() == level.empty.len())
    }

    /// How many records were appended.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a record; gives the state of the whole sequence, as [`SweeperTree::encode`] would, up to
    /// rounding.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape); [`Argument`](Error::Argument) when the tree is full, for states of
    /// another tree, and for a record so large that the state overflows. Nothing changes then.
    pub fn append(&mut self, tree: &SweeperTree, record: &Record) -> Result<SequenceState> {
        if self.len >= tree.capacity() {
            let most = format!("at most {} records", tree.capacity());
            return Err(Error::argument("the length of a sequence", most, self.len + 1));
        }
        if !self.fits(tree) {
            let found = "those of another";
            return Err(Error::argument("the states of a frontier", "those of this tree", found));
        }
        let leaf = tree.leaves(&Records::from(record))?;
        let (waiting, root) =
            path(&self.waiting, self.len, leaf, |level, left, right| tree.merged_beside(level, left, right))?;
        (self.len, self.waiting) = (self.len + 1, waiting);
        Ok(SequenceState::new(self.len, root))
    }

    /// Its states, from the lowest level: what to keep beside the length.
    pub fn states(&self) -> impl Iterator<Item = &[f32]> {
        self.waiting.iter().flatten().map(Vec::as_slice)
    }

    /// One that was kept: its length, and its states as [`states`](Self::states) gave them.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) when there are more or fewer states than such a length has.
    pub fn from_states(len: u64, states: impl IntoIterator<Item = Vec<f32>>) -> Result<Self> {
        let mut states = states.into_iter();
        let mut count = 0;
        let waiting = (0..u64::BITS - len.leading_zeros())
            .map(|level| {
                let state = if len >> level & 1 == 1 { states.next() } else { None };
                count += u32::from(state.is_some());
                state
            })
            .collect();
        let found = count as usize + states.count();
        if found != len.count_ones() as usize {
            return Err(Error::argument("the states of a frontier", len.count_ones().to_string(), found));
        }
        Ok(Self { len, waiting })
    }
}

/// Subtrees that wait and the root once `leaf` is appended to `len` others. A node may be of several sequences
/// side by side. `merge` is given the level of its result, and no right state where there is nothing yet.
#[expect(clippy::type_complexity, reason = "two things, named where they are used")]
pub(super) fn path(
    waiting: &[Option<Vec<f32>>],
    len: u64,
    leaf: Vec<f32>,
    mut merge: impl FnMut(usize, &[f32], Option<&[f32]>) -> Result<Vec<f32>>,
) -> Result<(Vec<Option<Vec<f32>>>, Vec<f32>)> {
    let top = depth(len + 1);
    let mut waiting = waiting.to_vec();
    waiting.resize(top + 1, None);
    let mut node = leaf;
    // As long as every level below was complete, so is this node.
    let mut complete = true;
    for (level, slot) in waiting.iter_mut().enumerate().take(top) {
        node = match slot {
            Some(left) => {
                let merged = merge(level + 1, left, Some(&node))?;
                // A full pair is a full subtree of the next level; until then the left one goes on waiting.
                if complete {
                    *slot = None;
                }
                merged
            }
            None => {
                let merged = merge(level + 1, &node, None)?;
                if complete {
                    *slot = Some(node);
                }
                complete = false;
                merged
            }
        };
    }
    if complete {
        waiting[top] = Some(node.clone());
    }
    Ok((waiting, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A merge that says what it merged: brackets, and dots for what is not there.
    fn text(level: usize, left: &[f32], right: Option<&[f32]>) -> Vec<f32> {
        let nothing = vec![-1.0; 1];
        [&[level as f32 + 0.5], left, right.unwrap_or(&nothing)].concat()
    }

    fn rebuilt(leaves: &[Vec<f32>]) -> Vec<f32> {
        let mut states = leaves.to_vec();
        for level in 1..=depth(leaves.len() as u64) {
            states =
                states.chunks(2).map(|pair| text(level, &pair[0], pair.get(1).map(Vec::as_slice))).collect();
        }
        states.concat()
    }

    proptest! {
        /// Whatever a merge does, appending one by one and building the whole tree merge the same things in the
        /// same way.
        #[test]
        fn the_root_of_every_prefix_is_that_of_a_rebuild(count in 1_usize..140, kept_after in 0_usize..140) {
            let leaves: Vec<Vec<f32>> = (0..count).map(|leaf| vec![leaf as f32]).collect();
            let mut frontier = Frontier::new();
            for (index, leaf) in leaves.iter().enumerate() {
                let mut merges = 0;
                let (waiting, root) = path(&frontier.waiting, frontier.len, leaf.clone(), |level, left, right| {
                    merges += 1;
                    Ok(text(level, left, right))
                })
                .unwrap();
                (frontier.len, frontier.waiting) = (frontier.len + 1, waiting);
                prop_assert_eq!(root, rebuilt(&leaves[..=index]));
                prop_assert_eq!(merges, depth(index as u64 + 1));
                prop_assert_eq!(frontier.states().count() as u32, (index as u32 + 1).count_ones());
                if index == kept_after {
                    let states: Vec<Vec<f32>> = frontier.states().map(<[f32]>::to_vec).collect();
                    let kept = Frontier::from_states(frontier.len, states.clone()).unwrap();
                    prop_assert!(kept.states().eq(frontier.states()));
                    frontier = kept;
                    prop_assert!(Frontier::from_states(frontier.len, states[1..].to_vec()).is_err());
                }
            }
        }
    }
}
