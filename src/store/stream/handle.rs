//! A stream of the store, and what it gives back.

use super::retry::until_unchanged;

use crate::error::{Error, Result};
use crate::record::{Record, Records};
use crate::sequence::SweeperTree;
use crate::store::engine::Engine;
use crate::store::outcome::Evicted;
use crate::store::staged::{Expected, Op};
use crate::store::store::Store;
use apcm_format::stream::{is_stream_name, part_key};
use apcm_format::{MemoryId, limits};
use std::ops::Range;
use std::sync::Arc;

/// A record that was appended to a stream.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Appended {
    /// Its index in the stream, from 0.
    pub index: u64,
    /// The part it is in now; a later append gives it another number.
    pub id: MemoryId,
    /// Mean squared error per element of what recalling it now returns, rounded up. Until its part is full,
    /// later appends change it, and [`Recalled::error`] says what it is then.
    pub error: f32,
    /// Memories that were evicted.
    pub evicted: Vec<Evicted>,
}

/// A record of a stream, recalled.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Recalled {
    /// Its index in the stream.
    pub index: u64,
    /// The record, reconstructed.
    pub record: Record,
    /// Mean squared error per element of this reconstruction, at most: measured when the last record was folded
    /// into its part.
    pub error: f32,
}

/// What a stream is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// How many records were ever appended: the index that the next one gets.
    pub len: u64,
    /// How many of them are there.
    pub records: u64,
    /// In how many parts, each of them a slot.
    pub parts: u64,
}

/// A sequence of records under a name: see [`Store::stream`].
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    engine: &'a Engine,
    name: String,
}

impl Store {
    /// Gives the store the tree that folds its streams; durable when this returns.
    ///
    /// The tree lives in the file, like the codec. It can be exchanged as long as there is no stream, and put
    /// back where it was lost.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape) for a tree of other records; [`Argument`](Error::Argument) for
    /// states too long for a slot, and where there are streams already; [`ReadOnly`](Error::ReadOnly),
    /// [`Storage`](Error::Storage), [`OutcomeUnknown`](Error::OutcomeUnknown).
    pub fn set_sweeper_tree(&self, tree: SweeperTree) -> Result<()> {
        self.engine.set_tree(tree)
    }

    /// The tree that folds the store's streams, if it has one.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt), [`MemoryLimit`](Error::MemoryLimit).
    pub fn sweeper_tree(&self) -> Result<Option<Arc<SweeperTree>>> {
        Ok(self.engine.kept_tree()?.map(|kept| kept.tree))
    }

    /// A stream of this name, whether or not anything was appended to it yet.
    ///
    /// Streams share the store's slots with its memories: each part takes one, whatever the number of its
    /// records, and when the store is full the policy decides which parts stay. A search finds a part by the
    /// mean of its records' search vectors; its metadata say `stream`, `first` and `len`, its record is the
    /// mean of its records, its norm the greatest of theirs, and its error the mean of theirs. Appending is no
    /// access; the part that is being appended to leaves only after all else, unless the store saw as many
    /// writes as it has slots since. What appending needs besides counts as bytes of that part: at most one
    /// state a level, and its records in two bytes a value until it is full, because the error of each is
    /// measured again whenever another record is folded in.
    ///
    /// ```
    /// use apcm::{PlainCodec, Record, Records, Store, SweeperTree};
    /// # fn main() -> apcm::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("memory.apcm");
    /// let walk = |i: usize| [(i as f32 / 9.0).sin(), (i as f32 / 9.0).cos()];
    /// let mut seen = Records::with_dims(&[2])?;
    /// (0..512).try_for_each(|i| seen.push_values(&walk(i)))?;
    /// let tree = SweeperTree::trainer(&seen, &[32; 16]).state(8).untrained().train()?.tree;
    ///
    /// let store = Store::builder().capacity(100).create(&path, PlainCodec::new(&[2], 2)?)?;
    /// store.set_sweeper_tree(tree)?;
    /// let stream = store.stream("walk")?;
    /// for i in 0..40 {
    ///     stream.append(&Record::vector(walk(i).to_vec())?)?;
    /// }
    /// assert_eq!((stream.len()?, store.len()), (40, 2));
    /// let tenth = stream.recall(10)?;
    /// assert!((tenth.record.values()[0] - walk(10)[0]).abs() < 0.2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for a name that is empty or longer than 255 bytes.
    pub fn stream(&self, name: &str) -> Result<Stream<'_>> {
        if !is_stream_name(name) {
            let expected = format!("1 to {} bytes", limits::STREAM_NAME_LEN_MAX);
            return Err(Error::argument("the name of a stream", expected, format!("{} bytes", name.len())));
        }
        Ok(Stream { engine: &self.engine, name: name.to_owned() })
    }

    /// All streams of which something is left, by name length and name.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`Corrupt`](Error::Corrupt).
    pub fn streams(&self) -> Result<Vec<StreamInfo>> {
        let engine = &self.engine;
        let all = engine.reading("list the streams", || engine.parts(&*engine.snapshot()?))?;
        let mut infos: Vec<StreamInfo> = Vec::new();
        for part in all {
            match infos.last_mut().filter(|info| info.name == part.name) {
                Some(info) => {
                    info.len = part.range().end;
                    info.records += part.len();
                    info.parts += 1;
                }
                None => infos.push(StreamInfo {
                    len: part.range().end,
                    records: part.len(),
                    parts: 1,
                    name: part.name,
                }),
            }
        }
        for info in &mut infos {
            info.len = self.stream(&info.name)?.len()?.max(info.len);
        }
        Ok(infos)
    }
}

impl Stream<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many records were ever appended; 0 again once nothing of it is left.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`Corrupt`](Error::Corrupt).
    pub fn len(&self) -> Result<u64> {
        let engine = self.engine;
        engine.reading("look at a stream", || Ok(engine.position(&*engine.snapshot()?, &self.name)?.len))
    }

    /// Whether there is nothing of it.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Appends a record; durable when this returns.
    ///
    /// Its part is written again, with one more record in it, and where that is full, another is begun. Where
    /// the part under way was evicted, another is begun too, and indices go on; where nothing is left of the
    /// stream they begin at 0 again. Cost: one merge a level, one inverse for each record of the part, and one
    /// durable transaction, however long the stream.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) where the store has no sweeper tree and for a record so large that its
    /// state overflows, [`RecordShape`](Error::RecordShape), and as [`Store::insert`]. Nothing was appended
    /// then.
    ///
    /// A record a million times larger than those the tree was trained with is no error, and drowns those that
    /// share its part.
    pub fn append(&self, record: &Record) -> Result<Appended> {
        let appended = self.append_all(&Records::from(record))?;
        appended.into_iter().next().ok_or_else(|| Error::argument("records to append", "1", 0))
    }

    /// Appends records in one durable transaction, each measured as if it had been appended alone. Evictions
    /// are reported with the first record.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_all(&self, records: &Records) -> Result<Vec<Appended>> {
        self.engine.append(&self.name, records)
    }

    /// Recalls one record, and counts an access of its part.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) past the end, [`Forgotten`](Error::Forgotten) where its part was evicted,
    /// [`Corrupt`](Error::Corrupt).
    pub fn recall(&self, index: u64) -> Result<Recalled> {
        let Some(end) = index.checked_add(1) else {
            let expected = format!("below {}", self.len()?);
            return Err(Error::argument("the index in a stream", expected, index));
        };
        let mut recalled = self.recall_range(index..end)?;
        recalled.pop().ok_or(Error::Forgotten { stream: self.name.clone(), index })
    }

    /// Recalls a range of records, and counts an access of each part. A range that ends where it begins, or
    /// before, is empty.
    ///
    /// # Errors
    /// As [`recall`](Self::recall), for the first of them that is not there.
    pub fn recall_range(&self, range: Range<u64>) -> Result<Vec<Recalled>> {
        let recalled = self.engine.recall(&self.name, range.clone(), false)?;
        let missing = range
            .clone()
            .zip(recalled.iter().map(|recalled| Some(recalled.index)).chain(std::iter::repeat(None)));
        match missing.into_iter().find(|(wanted, found)| Some(*wanted) != *found) {
            Some((index, _)) => Err(Error::Forgotten { stream: self.name.clone(), index }),
            None => Ok(recalled),
        }
    }

    /// Recalls all that is left, and counts an access of each part. Damaged parts are passed over; recalling
    /// one of their records says what is wrong.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`Poisoned`](Error::Poisoned).
    pub fn recall_all(&self) -> Result<Vec<Recalled>> {
        self.engine.recall(&self.name, 0..u64::MAX, true)
    }

    /// Removes all of it; gives how many parts there were.
    ///
    /// # Errors
    /// As [`Store::remove_id`].
    pub fn remove(&self) -> Result<u64> {
        let engine = self.engine;
        until_unchanged(|| {
            let (last, firsts) = engine.reading("look at a stream", || {
                let snapshot = engine.snapshot()?;
                Ok((
                    engine.position(&snapshot, &self.name)?.last,
                    engine.first_records(&snapshot, &self.name)?,
                ))
            })?;
            // A part that is begun meanwhile would stay, without those before it.
            let tree = engine.trees.generation();
            let expected = Op::Expect(Expected { name: self.name.clone(), last, tree });
            let removals = firsts.into_iter().map(|first| Op::RemoveKey(part_key(&self.name, first)));
            let done = engine.commit(std::iter::once(expected).chain(removals).collect())?;
            Ok(done.removed as u64)
        })
    }
}
