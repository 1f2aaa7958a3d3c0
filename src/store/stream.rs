//! Streams: sequences of records, each folded into a few slots.
//!
//! As many records as a sweeper tree takes are one *part*: a slot whose code is the tree's state, found by the mean of its
//! records' search vectors and evicted like any memory. The slot's metadata say `stream`, `first` and `len`, and its key,
//! which no user can give, leads to it. What appending needs besides, the subtrees that wait, is the stream's *head*.
//!
//! A head that is lost costs nothing but room: the next append begins a part of its own.

use super::commit::durable;
use super::file::{read_image, write_codec};
use super::guard::storage;
use super::memory::Evicted;
use super::read::Snapshot;
use super::tables::{KEYS, STREAMS, SWEEPER_TREE, optional, stream_place};
use super::transaction::{Content, Op};
use super::{Inner, Store};
use crate::codec::{Device, Encoded, mean_record};
use crate::error::{Error, Result};
use crate::record::{Record, Records, check_shape};
use crate::sequence::{Frontier, SequenceState, SweeperTree};
use crate::stored::Stored;
use apcm_format::stream::{PART_KEY_PREFIX, is_stream_name, part_key, part_keys, part_of_key};
use apcm_format::{
    CodecImage, DecodeError, MemoryId, Metadata, SlotKind, SlotMetadata, StoredReal, StreamHead, StreamPart,
    Value, limits,
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use redb::ReadableTable;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::Range;
use std::sync::Arc;

/// Streams that can be appended to at the same time.
const SHARDS: usize = 16;
/// How often an append begins again because its part made room meanwhile.
const ATTEMPTS: usize = 8;

/// What a store keeps in memory for its streams.
pub(super) struct Streams {
    /// The sweeper tree, once it was asked for.
    tree: RwLock<Option<Arc<SweeperTree>>>,
    device: Device,
    /// Memory that the tree may take.
    limit: u64,
    /// Held by whoever appends to a stream of that shard.
    appending: [Mutex<()>; SHARDS],
}

impl Streams {
    pub(super) fn new(device: Device, limit: u64) -> Self {
        Self { tree: RwLock::new(None), device, limit, appending: Default::default() }
    }

    fn lock(&self, name: &str) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        self.appending[hash as usize % SHARDS].lock()
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
    /// Mean squared error per element of what recalling it right after it was appended returns, rounded up.
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
    /// Mean squared error per element, measured when it was appended. What came later is folded into the same state, and
    /// nobody has the original any more: the error now is greater, by as much as records of a full part are worse than
    /// those of a young one.
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
        self.inner.tree()
    }

    /// A stream of this name, whether or not anything was appended to it yet.
    ///
    /// Streams share the store's slots with its memories: each part takes one, whatever the number of its records, and when
    /// the store is full the policy decides which parts stay. A search finds a part by the mean of its records' search
    /// vectors; its metadata say `stream`, `first` and `len`, its record is the mean of its records, and its error that of its
    /// records when they were appended, on average. An append counts as an access of its part. What appending needs
    /// besides, at most one state a level for each stream, is not counted by a byte budget.
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
        let all = inner.reading("list the streams", || inner.parts(&inner.snapshot()?))?;
        let mut infos: Vec<StreamInfo> = Vec::new();
        for part in all {
            match infos.last_mut().filter(|info| info.name == part.name) {
                Some(info) => {
                    info.len = part.range().end;
                    info.records += part.len;
                    info.parts += 1;
                }
                None => infos.push(StreamInfo {
                    len: part.range().end,
                    records: part.len,
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
        inner.reading("look at a stream", || Ok(inner.position(&inner.snapshot()?, &self.name)?.len))
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
    /// way made room, another is begun too, and indices go on; where nothing is left of the stream they begin at 0 again.
    /// Cost: one merge and one inverse a level, and one durable transaction, however long the stream.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) where the store has no sweeper tree, [`RecordShape`](Error::RecordShape), and as
    /// [`Store::insert`]. Nothing was appended then.
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
        let mut recalled = self.recall_range(index..index.saturating_add(1))?;
        recalled.pop().ok_or(Error::Forgotten { stream: self.name.clone(), index })
    }

    /// Recalls a range of records, and counts an access of each part.
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
        self.inner.recall(&self.name, 0..self.len()?, true)
    }

    /// Removes all of it; gives how many parts there were.
    ///
    /// # Errors
    /// As [`Store::remove_id`].
    pub fn remove(&self) -> Result<u64> {
        let inner = self.inner;
        let _appending = inner.streams.lock(&self.name);
        let firsts =
            inner.reading("look at a stream", || inner.first_records(&inner.snapshot()?, &self.name))?;
        let ops = firsts.into_iter().map(|first| Op::RemoveKey(part_key(&self.name, first))).collect();
        inner.commit(ops).map(|done| done.removed as u64)
    }
}

/// A part of a stream, as it is stored.
struct Part {
    name: String,
    first: u64,
    len: u64,
    stored: Stored,
}

impl Part {
    fn range(&self) -> Range<u64> {
        self.first..self.first.saturating_add(self.len)
    }
}

/// Where a stream is.
struct Position {
    len: u64,
    /// The part under way, and what is needed to append to it.
    open: Option<(Part, StreamHead)>,
}

impl Inner {
    fn set_tree(&self, tree: SweeperTree) -> Result<()> {
        self.check_usable()?;
        self.handle.writable()?;
        check_shape(self.header.shape, tree.shape())?;
        let records = usize::try_from(tree.capacity()).unwrap_or(usize::MAX);
        let len = StreamPart::encoded_len(
            self.header.search_dims as usize,
            tree.state_len(tree.capacity()),
            records,
        );
        if len > limits::CODE_LEN_MAX {
            let expected =
                format!("at most {} bytes, search vector and errors included", limits::CODE_LEN_MAX);
            return Err(Error::argument("a part of a stream", expected, format!("{len} bytes")));
        }
        let image = tree.image()?.encode()?;
        // Nobody appends meanwhile what the old tree folded.
        let _appending: Vec<MutexGuard<'_, ()>> = self.streams.appending.iter().map(Mutex::lock).collect();
        let _writer = self.writer.lock();
        self.check_usable()?;
        let found = self.live.read().parts();
        if found > 0 {
            // A tree that was lost, by a salvage say, may be put back.
            let before = self.reading("read the sweeper tree", || self.tree_image());
            match before {
                Ok(Some(before)) if before == image => return Ok(()),
                Ok(Some(_)) => {
                    let found = format!("{found} parts of streams that another tree folded");
                    return Err(Error::argument("a store for another sweeper tree", "no streams", found));
                }
                Ok(None) | Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // As it will be read again.
        let tree = Arc::new(SweeperTree::from_image(&CodecImage::decode(&image)?, self.streams.device)?);
        let mut cached = self.streams.tree.write();
        self.write_tree(&image)?;
        *cached = Some(tree);
        Ok(())
    }

    /// Puts another store's tree into this one, which nobody uses yet.
    pub(super) fn put_tree(&self, image: &[u8]) -> Result<()> {
        let _writer = self.writer.lock();
        self.write_tree(image)
    }

    fn write_tree(&self, image: &[u8]) -> Result<()> {
        self.poisoning(|| {
            let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
            write_codec(&transaction, self.header.uuid, SWEEPER_TREE, image)?;
            durable(transaction)
        })
    }

    /// The sweeper tree's image, if there is one.
    pub(super) fn tree_image(&self) -> Result<Option<Vec<u8>>> {
        let image =
            read_image(&self.handle.begin_read()?, self.header.uuid, SWEEPER_TREE, self.streams.limit)?;
        Ok(Some(image).filter(|image| !image.is_empty()))
    }

    /// All heads that can be read.
    pub(super) fn heads(&self) -> Result<Vec<(String, StreamHead)>> {
        let table =
            optional(self.handle.begin_read()?.open_table(STREAMS)).map_err(storage("open a table"))?;
        let Some(table) = table else { return Ok(Vec::new()) };
        let mut heads = Vec::new();
        for row in table.iter().map_err(storage("read the streams"))? {
            let (name, value) = row.map_err(storage("read the streams"))?;
            let name = name.value().to_owned();
            let head = StreamHead::decode(value.value(), stream_place(self.header.uuid, &name));
            heads.extend(head.ok().map(|head| (name, head)));
        }
        Ok(heads)
    }

    pub(super) fn tree(&self) -> Result<Option<Arc<SweeperTree>>> {
        if let Some(tree) = self.streams.tree.read().as_ref() {
            return Ok(Some(Arc::clone(tree)));
        }
        // Held while it is loaded, so that nobody loads what somebody else has exchanged meanwhile.
        let mut cached = self.streams.tree.write();
        if let Some(tree) = cached.as_ref() {
            return Ok(Some(Arc::clone(tree)));
        }
        let Some(image) = self.reading("read the sweeper tree", || self.tree_image())? else {
            return Ok(None);
        };
        let corrupt = |error| match error {
            Error::Format(cause) => {
                Error::Corrupt { what: "the sweeper tree in the store".to_owned(), cause }
            }
            other => other,
        };
        let image = CodecImage::decode(&image).map_err(Error::Format).map_err(corrupt)?;
        let tree = Arc::new(SweeperTree::from_image(&image, self.streams.device).map_err(corrupt)?);
        let misfit = |_| Error::Corrupt {
            what: "the sweeper tree in the store".to_owned(),
            cause: DecodeError::Invalid {
                what: "the shape of its records",
                found: tree.shape().values() as u64,
            },
        };
        check_shape(self.header.shape, tree.shape()).map_err(misfit)?;
        *cached = Some(Arc::clone(&tree));
        Ok(Some(tree))
    }

    fn tree_at_hand(&self) -> Result<Arc<SweeperTree>> {
        self.tree()?.ok_or_else(|| {
            Error::argument("the store's sweeper tree", "one, from Store::set_sweeper_tree", "none")
        })
    }

    /// Readable parts of all streams, in order.
    fn parts(&self, snapshot: &Snapshot) -> Result<Vec<Part>> {
        let (from, to) = (part_keys(""), [PART_KEY_PREFIX, &[u8::MAX; 264]].concat());
        let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        let mut parts = Vec::new();
        let now = self.now();
        for row in keys.range(from.as_slice()..=to.as_slice()).map_err(storage("read the keys"))? {
            let (key, slot) = row.map_err(storage("read the keys"))?;
            match self.part(snapshot, key.value(), slot.value()) {
                Ok(part) => parts.extend(part.filter(|part| part.stored.is_there(now))),
                // One damaged part must not take the others with it.
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(parts)
    }

    /// Where the parts of a stream begin, readable or not.
    fn first_records(&self, snapshot: &Snapshot, name: &str) -> Result<Vec<u64>> {
        let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        let (from, to) = (part_key(name, 0), part_key(name, u64::MAX));
        let rows = keys.range(from.as_slice()..=to.as_slice()).map_err(storage("read the keys"))?;
        let first = |key: &[u8]| part_of_key(key).map_or(0, |(_, first)| first);
        rows.map(|row| row.map(|(key, _)| first(key.value())).map_err(storage("read the keys"))).collect()
    }

    /// The part that a key leads to, where the slot names the key in return.
    fn part(&self, snapshot: &Snapshot, key: &[u8], slot: u32) -> Result<Option<Part>> {
        let Some((name, first)) = part_of_key(key) else { return Ok(None) };
        let Some(stored) = self.stored_in(snapshot, slot, None)? else { return Ok(None) };
        if stored.kind != SlotKind::StreamRoot || stored.metadata.key.as_deref() != Some(key) {
            return Ok(None);
        }
        let len = stored.part()?.errors.len() as u64;
        Ok(Some(Part { name: name.to_owned(), first, len, stored }))
    }

    /// The last part of a stream that begins at or before an index: where it begins, and the part or how it is damaged.
    /// Rows of keys that lead astray, which nobody vouches for, are passed over.
    fn part_before(
        &self,
        snapshot: &Snapshot,
        name: &str,
        index: u64,
    ) -> Result<Option<(u64, Result<Part>)>> {
        let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        let (from, to) = (part_key(name, 0), part_key(name, index));
        let mut rows = keys.range(from.as_slice()..=to.as_slice()).map_err(storage("look up a key"))?;
        let now = self.now();
        while let Some(row) = rows.next_back() {
            let (key, slot) = row.map_err(storage("look up a key"))?;
            match self.part(snapshot, key.value(), slot.value()) {
                Ok(Some(part)) if part.stored.is_there(now) => return Ok(Some((part.first, Ok(part)))),
                Ok(_) => {}
                Err(damage @ Error::Corrupt { .. }) => {
                    let first = part_of_key(key.value()).map_or(0, |(_, first)| first);
                    return Ok(Some((first, Err(damage))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn position(&self, snapshot: &Snapshot, name: &str) -> Result<Position> {
        let Some((first, last)) = self.part_before(snapshot, name, u64::MAX)? else {
            // Of a stream of which nothing is left nothing is known.
            return Ok(Position { len: 0, open: None });
        };
        let streams = optional(snapshot.transaction.open_table(STREAMS)).map_err(storage("open a table"))?;
        let head = match streams {
            Some(streams) => streams.get(name).map_err(storage("look up a stream"))?.and_then(|value| {
                // A head that cannot be read is one that was lost.
                StreamHead::decode(value.value(), stream_place(self.header.uuid, name)).ok()
            }),
            None => None,
        };
        // A part that cannot be read held one record at least.
        let end = last.as_ref().map_or(first.saturating_add(1), |last| last.range().end);
        let len = head.as_ref().map_or(end, |head| head.len.max(end));
        let open = last
            .ok()
            .zip(head)
            .filter(|(last, head)| last.first == head.first && last.range().end == head.len);
        Ok(Position { len, open })
    }

    fn append(&self, name: &str, records: &Records) -> Result<Vec<Appended>> {
        self.check_usable()?;
        self.handle.writable()?;
        check_shape(self.header.shape, records.shape())?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let vectors = self.codec.query_vectors(records, self.header.similarity)?;
        let _appending = self.streams.lock(name);
        let tree = self.tree_at_hand()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let position = self.reading("look at a stream", || self.position(&self.snapshot()?, name))?;
            let begins = position.len;
            let mut draft = Draft::of(&tree, name, position)?;
            for (record, vector) in records.rows().zip(vectors.chunks_exact(self.header.search_dims as usize))
            {
                draft.append(record, vector)?;
            }
            let errors = std::mem::take(&mut draft.appended);
            match self.commit(draft.finish()?) {
                Ok(done) => {
                    let mut evicted = done.evicted;
                    // The last part that was written holds the last record; those before it are full.
                    let parts = errors.iter().map(|(part, _)| *part);
                    let ids: Vec<MemoryId> = parts.map(|part| done.ids[part]).collect();
                    // An append is an access of its part: or the one under way would be the next to make room.
                    ids.iter().for_each(|&id| self.count(id, true));
                    return Ok((begins..)
                        .zip(ids)
                        .zip(errors)
                        .map(|((index, id), (_, error))| Appended {
                            index,
                            id,
                            error,
                            evicted: std::mem::take(&mut evicted),
                        })
                        .collect());
                }
                Err(Error::NotFound { .. }) if attempt < ATTEMPTS => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
    }

    /// The records of a range that are there. A damaged part in it is an error, or passed over.
    fn recall(&self, name: &str, range: Range<u64>, lenient: bool) -> Result<Vec<Recalled>> {
        let tree = self.tree()?;
        let parts = self.reading("recall", || {
            let snapshot = self.snapshot()?;
            let len = self.position(&snapshot, name)?.len;
            if range.end > len {
                let expected = format!("below {len}");
                return Err(Error::argument("the index in a stream", expected, range.end - 1));
            }
            let mut parts = Vec::new();
            let mut end = range.end;
            // From the last one back: keys lead to where a part begins.
            while end > range.start
                && let Some((first, part)) = self.part_before(&snapshot, name, end - 1)?
            {
                end = first;
                match part {
                    Ok(part) => parts.push(part),
                    Err(_) if lenient => {}
                    Err(damage) => return Err(damage),
                }
            }
            Ok(parts)
        })?;
        let mut recalled = Vec::new();
        for part in parts.into_iter().rev() {
            let tree = tree.as_ref().ok_or_else(|| no_tree(part.stored.id.slot))?;
            let (from, to) = (part.first.max(range.start), part.range().end.min(range.end));
            if from >= to {
                continue;
            }
            let StreamPart { state, errors, .. } = part.stored.part()?;
            let state = SequenceState::new(part.len, state);
            let slot = part.stored.id.slot;
            let records = tree
                .decode_range(&state, from - part.first..to - part.first)
                .map_err(|error| misfit(slot, &error))?;
            self.count(part.stored.id, true);
            let errors = &errors[(from - part.first) as usize..];
            recalled.extend((from..to).zip(errors).enumerate().map(|(row, (index, error))| Recalled {
                index,
                record: records.get(row),
                error: error.get(),
            }));
        }
        Ok(recalled)
    }

    /// All records of a part.
    pub(super) fn records_of_part(&self, stored: &Stored) -> Result<Records> {
        let part = stored.part()?;
        let state = SequenceState::new(part.errors.len() as u64, part.state);
        let Some(tree) = self.tree()? else { return Err(no_tree(stored.id.slot)) };
        tree.decode(&state).map_err(|error| misfit(stored.id.slot, &error))
    }

    /// What a part is where it is read as one memory: the mean of its records, which is what its search vector means.
    pub(super) fn mean_of_part(&self, stored: &Stored) -> Result<Vec<f32>> {
        Ok(mean_record(&self.records_of_part(stored)?)?.values().to_vec())
    }
}

fn no_tree(slot: u32) -> Error {
    let cause = DecodeError::Truncated { what: "the sweeper tree of a store", needed: 1, found: 0 };
    Error::Corrupt { what: format!("the part of a stream in slot {slot}"), cause }
}

/// A part that passed its checksum and that the tree cannot have made.
fn misfit(slot: u32, error: &Error) -> Error {
    let cause = DecodeError::Malformed { what: "a part of a stream", cause: error.to_string() };
    Error::Corrupt { what: format!("the part of a stream in slot {slot}"), cause }
}

/// An append being put together: parts one after the other, the last of them under way.
struct Draft<'a> {
    tree: &'a SweeperTree,
    name: &'a str,
    frontier: Frontier,
    first: u64,
    part: StreamPart,
    norm: f32,
    ops: Vec<Op>,
    /// Which part each record went to, of those written here, and its error.
    appended: Vec<(usize, f32)>,
    written: usize,
}

impl<'a> Draft<'a> {
    fn of(tree: &'a SweeperTree, name: &'a str, position: Position) -> Result<Self> {
        let mut draft = Self {
            tree,
            name,
            frontier: Frontier::new(),
            first: position.len,
            part: StreamPart::default(),
            norm: 0.0,
            ops: Vec::new(),
            appended: Vec::new(),
            written: 0,
        };
        if let Some((part, head)) = position.open
            && part.len < tree.capacity()
            && let Ok(frontier) = Frontier::from_states(part.len, head.states)
            && frontier.fits(tree)
        {
            draft.ops.push(Op::Expect(part.stored.id));
            (draft.frontier, draft.first, draft.part) = (frontier, part.first, part.stored.part()?);
        }
        Ok(draft)
    }

    fn append(&mut self, record: &[f32], vector: &[f32]) -> Result<()> {
        if self.frontier.len() == self.tree.capacity() {
            self.write()?;
            self.first += self.frontier.len();
            (self.frontier, self.part) = (Frontier::new(), StreamPart::default());
        }
        let record = Record::new(&self.tree.shape().dims(), record.to_vec())?;
        let state = self.frontier.append(self.tree, &record)?;
        let decoded = self.tree.decode_at(&state, state.len() - 1)?;
        let (error, norm) = crate::codec::error_and_norm(record.values(), decoded.values());
        let error = StoredReal::at_least(error as f32 * super::transaction::ROUNDING_MARGIN);
        self.norm = norm;
        self.part.errors.push(error);
        self.part.search.resize(vector.len(), 0.0);
        let share = 1.0 / state.len() as f32;
        self.part.search.iter_mut().zip(vector).for_each(|(mean, value)| *mean += (value - *mean) * share);
        self.part.state = state.values().to_vec();
        self.appended.push((self.written, error.get()));
        Ok(())
    }

    /// Stages the part under way.
    fn write(&mut self) -> Result<()> {
        let content = content(self.name, self.first, &self.part, self.norm)?;
        let metadata_len = content.metadata_len();
        self.ops.push(Op::Write { content, metadata_len, pinned: false, expiry: None });
        self.written += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Op>> {
        self.write()?;
        // Nothing is appended to a full part.
        let open = self.frontier.len() < self.tree.capacity();
        let states = self.frontier.states().filter(|_| open).map(<[f32]>::to_vec).collect();
        let head =
            StreamHead { first: self.first, len: self.first.saturating_add(self.frontier.len()), states };
        self.ops.push(Op::Head(self.name.to_owned(), head));
        Ok(self.ops)
    }
}

/// What a slot holds for a part.
pub(super) fn content(name: &str, first: u64, part: &StreamPart, norm: f32) -> Result<Box<Content>> {
    let len = part.errors.len();
    let mean = part.errors.iter().map(|error| f64::from(error.get())).sum::<f64>() / len.max(1) as f64;
    let number = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let values = Metadata::from([
        ("stream".to_owned(), Value::Text(name.to_owned())),
        ("first".to_owned(), number(first)),
        ("len".to_owned(), number(len as u64)),
    ]);
    Ok(Box::new(Content {
        encoded: Encoded { code: part.encode()?, error: mean as f32, norm, without_predictor: false },
        residual: None,
        search: part.search.clone(),
        metadata: SlotMetadata { key: Some(part_key(name, first)), values },
        kind: SlotKind::StreamRoot,
    }))
}
