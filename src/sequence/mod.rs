//! Sequences: many records folded into one bounded state, and any of them out of it again.
//!
//! The memory flows of the IMFN paper. A *sweeper* is a codec from two states to one and back; a
//! [`SweeperTree`] has one for each level of a binary tree, so a sequence of `n` records becomes one state in
//! `log2 n` levels, and one record comes out by as many inverse steps. Knows nothing of stores or files.
//!
//! - [`tree`](SweeperTree): encode, decode all, a range, or one. [`Frontier`]: append, one path at a time.
//! - [`Student`]: a recurrent network that follows a tree, a step a record.
//! - [`TreeTrainer`]: level by level, each frozen before the next. Images in the manner of codecs.

mod frontier;
mod image;
mod samples;
mod student;
mod train;
mod tree;

pub use frontier::Frontier;
pub use student::{Student, StudentTrainer};
pub use train::{LevelReport, TrainedTree, TreeTrainer};
pub use tree::{SequenceState, SweeperTree};

#[cfg(test)]
mod tests;
