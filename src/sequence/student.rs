//! A student of the tree: one step of constant cost for each record, instead of a merge a level.

use super::frontier::path;
use super::tree::{SequenceState, SweeperTree};
use crate::codec::flow::recurrence::Recurrence;
use crate::codec::train::recurrence::{Lessons, Trajectories, teach};
use crate::codec::{Device, StageReport};
use crate::error::{Error, Result};
use crate::progress::{Callback, Progress};
use crate::record::{Record, Records};
use crate::whole_file::{self, Taken};
use apcm_format::CodecImage;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Most numbers of all the teacher's memories together that a student is taught with.
const MEMORY_NUMBERS_MAX: usize = 1 << 26;

/// What a callback sees: the stage's name, its step and its steps.
/// A recurrent network that follows a tree: `m' = m + g(m, x, t)`.
///
/// Its memory stands for what the tree would have made of the same records, at the tree's top level, and the
/// tree decodes it. Cost: one pass through one network a record, however many came before. It follows the tree,
/// and is never it: how far off it ends is measured when it is taught (on MNIST a seventh of the square of the
/// states, docs/numbers.md). The tree, whose appends are exact, is what [streams](crate::Store::stream) use.
///
/// # Source
/// The student of the IMFN paper, taught its teacher's trajectory: each next state from the true one (teacher
/// forcing), then from its own, eight steps in a row.
#[derive(Debug)]
pub struct Student {
    recurrence: Recurrence,
    /// The tree's state of nothing, at its top level.
    empty: Vec<f32>,
}

/// Builds a [`Student`].
#[must_use = "a builder does nothing by itself"]
pub struct StudentTrainer<'a> {
    tree: &'a SweeperTree,
    records: &'a Records,
    length: usize,
    hidden: usize,
    steps: usize,
    seed: u64,
    device: Device,
    time_max: Option<Duration>,
    progress: Option<Callback<'a>>,
}

impl std::fmt::Debug for StudentTrainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StudentTrainer")
            .field("records", &self.records.len())
            .field("length", &self.length)
            .field("hidden", &self.hidden)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl<'a> StudentTrainer<'a> {
    /// Units of the network; 1,024 by default.
    pub fn hidden(mut self, units: usize) -> Self {
        self.hidden = units;
        self
    }

    /// Steps of each of the two stages; 2,000 by default.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Seed of weights and batches.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Where to compute.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Most time for both stages together; no limit by default.
    pub fn time_budget(mut self, time_max: Option<Duration>) -> Self {
        self.time_max = time_max;
        self
    }

    /// Is called a few times a second; [`ControlFlow::Break`] ends a stage with the best so far.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Teaches; gives the student and how its two stages went. Their errors are of a run alone from the
    /// beginning, on sequences set aside, as a share of the square of the tree's states.
    ///
    /// # Errors
    /// [`TooLittleData`](Error::TooLittleData) for fewer than two whole sequences,
    /// [`Argument`](Error::Argument) for a length that is not the tree's, or no steps or units.
    pub fn train(self) -> Result<(Student, Vec<StageReport>)> {
        let tree = self.tree;
        if self.length < 2 || self.length as u64 > tree.capacity() {
            let expected = format!("2 to {}", tree.capacity());
            return Err(Error::argument("the length of a sequence", expected, self.length));
        }
        if self.steps == 0 || self.hidden == 0 {
            return Err(Error::argument("the steps and the units", "at least 1", 0));
        }
        let (top, width) = (tree.top(), tree.levels[tree.top()].empty.len());
        let most = (MEMORY_NUMBERS_MAX / (width * (self.length + 1))).max(2);
        let sequences = (self.records.len() / self.length).min(most);
        if sequences < 2 {
            let purpose = format!("a student of sequences of {}", self.length);
            return Err(Error::TooLittleData {
                records: self.records.len(),
                needed: 2 * self.length,
                purpose,
            });
        }
        let records = self.records.slice(0..sequences * self.length);
        let leaves = tree.leaves(&records)?;
        let leaf = tree.levels[0].empty.len();
        let mut taught = Trajectories {
            memory: width,
            input: leaf,
            steps: self.length,
            memories: vec![0.0; sequences * (self.length + 1) * width],
            inputs: leaves,
        };
        let mut put = |step: usize, memories: &[f32]| {
            for (sequence, memory) in memories.chunks_exact(width).enumerate() {
                let at = (sequence * (taught.steps + 1) + step) * width;
                taught.memories[at..at + width].copy_from_slice(memory);
            }
        };
        put(0, &tree.levels[top].empty.repeat(sequences));
        // All sequences side by side: every merge is one of as many pairs as there are sequences.
        let mut waiting = Vec::new();
        for step in 0..self.length {
            let at = |sequence: usize| (sequence * self.length + step) * leaf;
            let now: Vec<f32> = (0..sequences)
                .flat_map(|sequence| &taught.inputs[at(sequence)..at(sequence) + leaf])
                .copied()
                .collect();
            let (next, root) = path(&waiting, step as u64, now, |level, left, right| {
                tree.merged_beside(level, left, right)
            })?;
            waiting = next;
            put(step + 1, &tree.lifted(super::tree::depth(step as u64 + 1), root)?);
        }
        let lessons = Lessons {
            hidden: self.hidden,
            steps: self.steps,
            seed: self.seed,
            device: self.device,
            time_max: self.time_max,
            progress: self.progress,
        };
        let (recurrence, reports) = teach(&taught, lessons)?;
        Ok((Student { recurrence, empty: tree.levels[top].empty.clone() }, reports))
    }
}

impl Student {
    /// Starts teaching a student of this tree. Every `length` records, one after the other, are a sequence.
    pub fn trainer<'a>(tree: &'a SweeperTree, records: &'a Records, length: usize) -> StudentTrainer<'a> {
        StudentTrainer {
            tree,
            records,
            length,
            hidden: 1_024,
            steps: 2_000,
            seed: 42,
            device: Device::default(),
            time_max: None,
            progress: None,
        }
    }

    /// Most records it can follow.
    pub fn capacity(&self) -> u64 {
        self.recurrence.config().positions.into()
    }

    /// Weights.
    pub fn parameters(&self) -> u64 {
        self.recurrence.parameters()
    }

    /// The memory of nothing.
    pub fn begin(&self, tree: &SweeperTree) -> Result<SequenceState> {
        self.check(tree)?;
        Ok(SequenceState::at_level(tree.top(), 0, self.empty.clone()))
    }

    /// The memory after another record; [`SweeperTree::decode`] reads it.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape); [`Argument`](Error::Argument) when it has seen all it can follow,
    /// and for a tree or a memory that is not its own.
    pub fn append(
        &self,
        tree: &SweeperTree,
        memory: &SequenceState,
        record: &Record,
    ) -> Result<SequenceState> {
        self.check(tree)?;
        if memory.len() >= self.capacity() {
            let most = format!("at most {} records", self.capacity());
            return Err(Error::argument("the length of a sequence", most, memory.len() + 1));
        }
        if !memory.is_empty() {
            tree.check(memory)?;
        }
        if memory.level() != tree.top() || memory.values().len() != self.empty.len() {
            let expected = format!("{} values at the top level", self.empty.len());
            return Err(Error::argument("a student's memory", expected, memory.values().len()));
        }
        let leaf = tree.leaves(&Records::from(record))?;
        let values = self.recurrence.next(memory.values(), &leaf, memory.len() as usize);
        Ok(SequenceState::at_level(tree.top(), memory.len() + 1, values))
    }

    fn check(&self, tree: &SweeperTree) -> Result<()> {
        let (leaf, state) = (tree.levels[0].empty.len(), tree.levels[tree.top()].empty.len());
        let config = self.recurrence.config();
        if (leaf, state) == (config.input as usize, config.memory as usize) {
            return Ok(());
        }
        let expected = format!("one of {} and {} values", config.input, config.memory);
        Err(Error::argument("the student's tree", expected, format!("one of {leaf} and {state}")))
    }

    /// The student as bytes, in the form of a codec's image.
    ///
    /// # Errors
    /// When it is larger than the format allows.
    pub fn image(&self) -> Result<CodecImage> {
        let mut image = self.recurrence.image()?;
        image.tensors.push(super::image::floats("empty", &self.empty));
        Ok(image)
    }

    /// Builds a student from its image, on a device.
    ///
    /// # Errors
    /// [`Format`](Error::Format), [`UnknownCodec`](Error::UnknownCodec), [`Device`](Error::Device).
    pub fn from_image(image: &CodecImage, device: Device) -> Result<Self> {
        let recurrence = Recurrence::from_image(image, device)?;
        let empty = super::image::read_floats(image, "empty", recurrence.config().memory as usize)?;
        Ok(Self { recurrence, empty })
    }

    /// Writes the student to a new file of its own: under that name there is all of it or nothing, durably.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Io`](Error::Io); an older file of that name is unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        whole_file::write(path.as_ref(), &self.image()?.encode()?, Taken::Refuse)
    }

    /// The same, replacing an older file, which is unchanged until the new one is complete.
    ///
    /// # Errors
    /// [`Io`](Error::Io).
    pub fn save_over(&self, path: impl AsRef<Path>) -> Result<()> {
        whole_file::write(path.as_ref(), &self.image()?.encode()?, Taken::Replace)
    }

    /// Loads a student from a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Io`](Error::Io), and as [`from_image`](Self::from_image).
    pub fn load(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        let path = path.as_ref();
        Self::from_image(&CodecImage::decode(&std::fs::read(path).map_err(Error::io(path))?)?, device)
    }
}
