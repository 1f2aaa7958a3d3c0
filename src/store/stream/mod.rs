//! Streams: sequences of records, each folded into a few slots.
//!
//! As many records as a sweeper tree takes are one *part*: a slot whose code is the tree's state, found by the mean of its
//! records' search vectors and evicted like any memory. The slot's metadata say `stream`, `first` and `len`, and its key,
//! which no user can give, leads to it. What appending needs besides, the subtrees that wait, is the stream's *head*.
//!
//! A head that is lost costs nothing but room: the next append begins a part of its own.

mod append;
mod parts;
mod recall;
mod tree;

pub(super) use append::content;

use super::memory::Evicted;
use super::transaction::{Expected, Op};
use super::{Inner, Store};
use crate::codec::Device;
use crate::error::{Error, Result};
use crate::record::{Record, Records};
use crate::sequence::SweeperTree;
use apcm_format::stream::{is_stream_name, part_key};
use apcm_format::{MemoryId, Original, StreamHead, limits};
use parking_lot::RwLock;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times that an append or a removal begins again because others were faster, and the time after which it does no more: one
/// that takes seconds to compute would otherwise begin again for hours.
const TRIES: u32 = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `attempt` until it succeeds, or fails by more than a stream that changed meanwhile.
fn until_unchanged<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let (began, mut passes) = (Instant::now(), 0);
    loop {
        passes += 1;
        match attempt() {
            Err(error) if !is_changed(&error) => return Err(error),
            Err(_) if passes >= TRIES || began.elapsed() > PATIENCE => return Err(Error::Busy { passes }),
            Err(_) => std::thread::yield_now(),
            done => return done,
        }
    }
}

/// What a store keeps in memory for its streams.
pub(super) struct Streams {
    /// The sweeper tree, once it was asked for.
    tree: RwLock<Option<Kept>>,
    device: Device,
    /// Memory that the tree may take.
    limit: u64,
    /// How often the tree was exchanged; it is under the writer's lock.
    generation: AtomicU64,
}

/// A tree, the sequence number that the first part it folded can have, and which of the store's trees it is.
#[derive(Clone)]
struct Kept {
    tree: Arc<SweeperTree>,
    since: u64,
    generation: u64,
}

/// What a commit says to an append whose stream, or tree, changed since it was read. It never leaves the store.
pub(super) fn changed() -> Error {
    Error::NotFound { id: MemoryId { slot: u32::MAX, seq: 0 } }
}

fn is_changed(error: &Error) -> bool {
    matches!(error, Error::NotFound { id: MemoryId { slot: u32::MAX, seq: 0 } })
}

/// Bytes of what is kept beside a part to append to it.
pub(super) fn bytes_beside(head: &StreamHead) -> u32 {
    let states = 4 * head.states.iter().map(Vec::len).sum::<usize>();
    let originals = head.originals.iter().map(|original| Original::encoded_len(original.values.len()));
    u32::try_from(states + originals.sum::<usize>()).unwrap_or(u32::MAX)
}

impl Streams {
    pub(super) fn new(device: Device, limit: u64) -> Self {
        Self { tree: RwLock::new(None), device, limit, generation: AtomicU64::new(0) }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// A record that was appended to a stream.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Appended {
    /// Its index in the stream, from 0.
    pub index: u64,
    /// The part it is in now; a later append gives it another number.
    pub id: MemoryId,
    /// Mean squared error per element of what recalling it now returns, rounded up. Until its part is full, later appends
    /// change it, and [`Recalled::error`] says what it is then.
    pub error: f32,
    /// Who made room.
    pub evicted: Vec<Evicted>,
}

/// A record of a stream, recalled.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recalled {
    /// Its index in the stream.
    pub index: u64,
    /// The record, reconstructed.
    pub record: Record,
    /// Mean squared error per element of this reconstruction, at most: measured when the last record was folded into its part.
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
    inner: &'a Inner,
    name: String,
}

impl Store {
    /// Gives the store the tree that folds its streams; durable when this returns.
    ///
    /// The tree lives in the file, like the codec. It can be exchanged as long as there is no stream, and put back where it was
    /// lost.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape) for a tree of other records; [`Argument`](Error::Argument) for states too long for
    /// a slot, and where there are streams already; [`ReadOnly`](Error::ReadOnly), [`Storage`](Error::Storage),
    /// [`OutcomeUnknown`](Error::OutcomeUnknown).
    pub fn set_sweeper_tree(&self, tree: SweeperTree) -> Result<()> {
        self.inner.set_tree(tree)
    }

    /// The tree that folds the store's streams, if it has one.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt), [`MemoryLimit`](Error::MemoryLimit).
    pub fn sweeper_tree(&self) -> Result<Option<Arc<SweeperTree>>> {
        Ok(self.inner.kept_tree()?.map(|kept| kept.tree))
    }

    /// A stream of this name, whether or not anything was appended to it yet.
    ///
    /// Streams share the store's slots with its memories: each part takes one, whatever the number of its records, and when
    /// the store is full the policy decides which parts stay. A search finds a part by the mean of its records' search
    /// vectors; its metadata say `stream`, `first` and `len`, its record is the mean of its records, its norm the greatest of
    /// theirs, and its error the mean of theirs. Appending is no access; the part that is being appended to leaves only after all
    /// else, unless the store saw as many writes as it has slots since. What appending needs besides counts as bytes of that part:
    /// at most one state a level, and its records in two bytes a value until it is full, because the error of each is measured
    /// again whenever another record is folded in.
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
        Ok(Stream { inner: &self.inner, name: name.to_owned() })
    }

    /// All streams of which something is left, by name length and name.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`Corrupt`](Error::Corrupt).
    pub fn streams(&self) -> Result<Vec<StreamInfo>> {
        let inner = &self.inner;
        let all = inner.reading("list the streams", || inner.parts(&*inner.snapshot()?))?;
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
        let inner = self.inner;
        inner.reading("look at a stream", || Ok(inner.position(&*inner.snapshot()?, &self.name)?.len))
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
    /// Its part is written again, with one more record in it, and where that is full, another is begun. Where the part under
    /// way was evicted, another is begun too, and indices go on; where nothing is left of the stream they begin at 0 again.
    /// Cost: one merge a level, one inverse for each record of the part, and one durable transaction, however long the stream.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) where the store has no sweeper tree and for a record so large that its state overflows,
    /// [`RecordShape`](Error::RecordShape), and as [`Store::insert`]. Nothing was appended then.
    ///
    /// A record a million times larger than those the tree was trained with is no error, and drowns those that share its part.
    pub fn append(&self, record: &Record) -> Result<Appended> {
        let appended = self.append_all(&Records::from(record))?;
        appended.into_iter().next().ok_or_else(|| Error::argument("records to append", "1", 0))
    }

    /// Appends records in one durable transaction, each measured as if it had been appended alone. Whoever made room is said
    /// with the first of them.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_all(&self, records: &Records) -> Result<Vec<Appended>> {
        self.inner.append(&self.name, records)
    }

    /// Recalls one record, and counts an access of its part.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) past the end, [`Forgotten`](Error::Forgotten) where its part made room,
    /// [`Corrupt`](Error::Corrupt).
    pub fn recall(&self, index: u64) -> Result<Recalled> {
        let Some(end) = index.checked_add(1) else {
            let expected = format!("below {}", self.len()?);
            return Err(Error::argument("the index in a stream", expected, index));
        };
        let mut recalled = self.recall_range(index..end)?;
        recalled.pop().ok_or(Error::Forgotten { stream: self.name.clone(), index })
    }

    /// Recalls a range of records, and counts an access of each part. A range that ends where it begins, or before, is empty.
    ///
    /// # Errors
    /// As [`recall`](Self::recall), for the first of them that is not there.
    pub fn recall_range(&self, range: Range<u64>) -> Result<Vec<Recalled>> {
        let recalled = self.inner.recall(&self.name, range.clone(), false)?;
        let missing = range
            .clone()
            .zip(recalled.iter().map(|recalled| Some(recalled.index)).chain(std::iter::repeat(None)));
        match missing.into_iter().find(|(wanted, found)| Some(*wanted) != *found) {
            Some((index, _)) => Err(Error::Forgotten { stream: self.name.clone(), index }),
            None => Ok(recalled),
        }
    }

    /// Recalls all that is left, and counts an access of each part. Damaged parts are passed over; recalling one of their
    /// records says what is wrong.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`Poisoned`](Error::Poisoned).
    pub fn recall_all(&self) -> Result<Vec<Recalled>> {
        self.inner.recall(&self.name, 0..u64::MAX, true)
    }

    /// Removes all of it; gives how many parts there were.
    ///
    /// # Errors
    /// As [`Store::remove_id`].
    pub fn remove(&self) -> Result<u64> {
        let inner = self.inner;
        until_unchanged(|| {
            let (last, firsts) = inner.reading("look at a stream", || {
                let snapshot = inner.snapshot()?;
                Ok((inner.position(&snapshot, &self.name)?.last, inner.first_records(&snapshot, &self.name)?))
            })?;
            // A part that is begun meanwhile would stay, without those before it.
            let tree = inner.streams.generation();
            let expected = Op::Expect(Expected { name: self.name.clone(), last, tree });
            let removals = firsts.into_iter().map(|first| Op::RemoveKey(part_key(&self.name, first)));
            let done = inner.commit(std::iter::once(expected).chain(removals).collect())?;
            Ok(done.removed as u64)
        })
    }
}
