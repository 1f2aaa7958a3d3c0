//! Searches: the nearest memories that meet a condition.

use super::Inner;
use super::guard::storage;
use super::memory::Hit;
use super::read::{Stored, vanished};
use super::tables::{METADATA, metadata_place};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::index::{Ranked, Scan, Wanted};
use crate::record::Records;
use apcm_format::{MemoryId, Metadata, SlotMetadata, frame};
use redb::{ReadTransaction, ReadableTable};
use std::collections::HashSet;

/// Queries of a search that are ranked under one lock.
const QUERIES_AT_ONCE: usize = 64;

/// A search under construction; [`run`](Self::run) answers it.
///
/// ```
/// # use apcm::{Metadata, PlainCodec, Record, Store};
/// # fn main() -> apcm::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let store = Store::builder().create(folder.path().join("m.apcm"), PlainCodec::new(&[2], 2)?)?;
/// let note = Metadata::from([("kind".into(), "note".into())]);
/// store.put(b"a", &Record::vector(vec![1.0, 0.0])?, note)?;
/// let query = Record::vector(vec![0.9, 0.1])?;
/// let hits = store.search(&query).k(10).min_similarity(0.4).filter("kind = 'note'")?.run()?;
/// assert_eq!(hits[0].key.as_deref(), Some(&b"a"[..]));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a search does nothing until it is run"]
pub struct Search<'a> {
    inner: &'a Inner,
    queries: Records,
    k: usize,
    floor: f32,
    max_error: f32,
    filter: Option<Filter>,
    counted: bool,
    records: bool,
    scan: Scan,
    threads: Option<usize>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("path", &self.medium.name()).finish_non_exhaustive()
    }
}

impl<'a> Search<'a> {
    pub(super) fn new(inner: &'a Inner, queries: Records) -> Self {
        Self {
            inner,
            queries,
            k: 10,
            floor: f32::NEG_INFINITY,
            max_error: f32::INFINITY,
            filter: None,
            counted: false,
            records: false,
            scan: Scan::Auto,
            threads: None,
        }
    }

    /// How many hits at most; 10 by default.
    pub fn k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }

    /// Least cosine of a hit.
    pub fn min_similarity(mut self, floor: f32) -> Self {
        self.floor = floor;
        self
    }

    /// Only memories whose measured error (mean squared, per element) is at most this. Applied before ranking, from
    /// memory: costs nothing.
    pub fn max_error(mut self, error: f32) -> Self {
        self.max_error = error;
        self
    }

    /// Only memories whose metadata meet a condition, in the language of [`Filter`]. It is applied before ranking,
    /// so a search finds `k` hits wherever that many meet it. Cost: reads all metadata once a search.
    ///
    /// # Errors
    /// [`Filter`](Error::Filter) with the column of what was not expected.
    pub fn filter(mut self, condition: &str) -> Result<Self> {
        self.filter = Some(Filter::parse(condition)?);
        Ok(self)
    }

    /// Counts every hit as an access; searches count nothing by default.
    pub fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    /// Decodes the hits' records too.
    pub fn with_records(mut self) -> Self {
        self.records = true;
        self
    }

    /// How to go over the search vectors; every way gives the same hits.
    pub fn scan(mut self, scan: Scan) -> Self {
        self.scan = scan;
        self
    }

    /// On how many threads, four a core at most; by default one, and all cores from about a million numbers on.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Answers the search: nearest first, equals by slot.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for `k` = 0 or a floor that is not a number,
    /// [`RecordShape`](Error::RecordShape), [`Corrupt`](Error::Corrupt).
    pub fn run(self) -> Result<Vec<Hit>> {
        Ok(self.run_all()?.into_iter().next().unwrap_or_default())
    }

    /// Answers a search of several queries, each with a list of its own.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`Argument`](Error::Argument) for no query at all.
    pub fn run_all(self) -> Result<Vec<Vec<Hit>>> {
        if self.k == 0 {
            return Err(Error::argument("k", "at least 1", 0));
        }
        if self.floor.is_nan() {
            return Err(Error::argument("the similarity floor", "a number", self.floor));
        }
        if self.max_error.is_nan() || self.max_error < 0.0 {
            return Err(Error::argument(
                "the largest error of a hit",
                "a number of 0 or more",
                self.max_error,
            ));
        }
        if self.queries.is_empty() {
            return Err(Error::argument("the queries of a search", "at least one", "none"));
        }
        let inner = self.inner;
        let vectors = inner.codec.query_vectors(&self.queries, inner.header.similarity)?;
        for attempt in 0.. {
            let (last, writer) = inner.last_attempt(attempt);
            // The snapshot comes first: what it holds and what is ranked agree wherever their sequence numbers do.
            let answered = inner.reading("search", || {
                let transaction = inner.handle.begin_read()?;
                let admitted =
                    self.filter.as_ref().map(|filter| inner.admitted(&transaction, filter)).transpose()?;
                let ranked = self.rank(&vectors, admitted.as_ref());
                ranked
                    .into_iter()
                    .map(|ranked| self.look_up(&transaction, ranked))
                    .collect::<Result<Result<Vec<_>, u32>>>()
            })?;
            match answered {
                Ok(answers) => {
                    drop(writer);
                    return answers.into_iter().map(|found| self.hits(found)).collect();
                }
                Err(slot) if last => return Err(vanished(slot)),
                Err(_) => std::thread::yield_now(),
            }
        }
        Ok(Vec::new())
    }

    /// The nearest slots of each query, with the numbers of the writes that filled them.
    fn rank(&self, vectors: &[f32], admitted: Option<&Admitted>) -> Vec<Vec<(Ranked, u64)>> {
        let now = self.inner.now();
        let dims = self.inner.header.search_dims as usize;
        // What a scan needs grows with the queries it answers at once, and a commit waits for it: a few at a time.
        let some = vectors.chunks(QUERIES_AT_ONCE * dims);
        some.flat_map(|vectors| self.rank_some(vectors, now, admitted)).collect()
    }

    fn rank_some(&self, vectors: &[f32], now: u32, admitted: Option<&Admitted>) -> Vec<Vec<(Ranked, u64)>> {
        let live = self.inner.live.read();
        let admit = |slot| {
            live.occupant(slot, now).is_some()
                && admitted.is_none_or(|set| set.has(slot))
                && (self.max_error == f32::INFINITY || live.error(slot) <= self.max_error)
        };
        let wanted = Wanted { k: self.k, floor: self.floor, scan: self.scan, threads: self.threads };
        let seq = |hit: Ranked| Some((hit, live.occupant(hit.slot, now)?.seq));
        let ranked = live.scan().nearest(vectors, &wanted, admit);
        ranked.into_iter().map(|hits| hits.into_iter().filter_map(seq).collect()).collect()
    }

    /// The memories of hits, or the slot of one that is ranked and not in the snapshot: a commit came between.
    fn look_up(
        &self,
        transaction: &ReadTransaction,
        ranked: Vec<(Ranked, u64)>,
    ) -> Result<Result<Vec<(Stored, f32)>, u32>> {
        ranked
            .into_iter()
            .map(|(hit, seq)| {
                let stored = self.inner.stored(transaction, MemoryId { slot: hit.slot, seq })?;
                Ok(stored.map(|stored| (stored, hit.similarity)).ok_or(hit.slot))
            })
            .collect()
    }

    fn hits(&self, found: Vec<(Stored, f32)>) -> Result<Vec<Hit>> {
        let records = if self.records && !found.is_empty() {
            let stored: Vec<&Stored> = found.iter().map(|(stored, _)| stored).collect();
            Some(self.inner.decode_all(&stored)?)
        } else {
            None
        };
        let hit = |(index, (stored, similarity)): (usize, (Stored, f32))| {
            self.inner.count(stored.id, self.counted);
            Hit {
                id: stored.id,
                key: stored.metadata.key,
                metadata: stored.metadata.values,
                similarity,
                error: stored.error,
                record: records.as_ref().map(|records| records.get(index)),
            }
        };
        Ok(found.into_iter().enumerate().map(hit).collect())
    }
}

/// The slots whose metadata meet a filter.
struct Admitted {
    /// Slots with metadata that meet it.
    slots: HashSet<u32>,
    /// Slots with metadata, of whatever kind.
    described: HashSet<u32>,
    /// Whether a memory without any metadata meets it.
    bare: bool,
}

impl Admitted {
    fn has(&self, slot: u32) -> bool {
        self.slots.contains(&slot) || (self.bare && !self.described.contains(&slot))
    }
}

impl Inner {
    fn admitted(&self, transaction: &ReadTransaction, filter: &Filter) -> Result<Admitted> {
        let table = transaction.open_table(METADATA).map_err(storage("open a table"))?;
        let bare = filter.matches(&Metadata::new());
        let mut admitted = Admitted { slots: HashSet::new(), described: HashSet::new(), bare };
        for entry in table.iter().map_err(storage("read metadata"))? {
            let (slot, value) = entry.map_err(storage("read metadata"))?;
            let slot = slot.value();
            // Damaged metadata meet no condition; reading that memory says what is wrong.
            let place = metadata_place(self.header.uuid, slot);
            if frame::open::<SlotMetadata>(value.value(), place)
                .is_ok_and(|found| filter.matches(&found.values))
            {
                admitted.slots.insert(slot);
            }
            admitted.described.insert(slot);
        }
        Ok(admitted)
    }
}
