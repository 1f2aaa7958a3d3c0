//! Searches in the store: rank in memory, look up in a snapshot.

use super::lookup::vanished;
use crate::error::Result;
use crate::filter::Filter;
use crate::index::Ranked;
use crate::memory::{Hit, Memory};
use crate::record::{Record, Records};
use crate::search::{Search, SearchRequest, Searchable};
use crate::store::engine::Engine;
use crate::store::file::{Snapshot, metadata_place, storage};
use crate::store::store::Store;
use crate::stored::{Stored, hits};
use apcm_format::{MemoryId, Metadata, SlotMetadata, frame};
use redb::ReadableTable;
use std::collections::HashSet;

/// Queries of a search that are ranked under one lock.
const QUERIES_AT_ONCE: usize = 64;

impl Searchable for Engine {
    fn answer(&self, request: &SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.found(request)?.into_iter().map(|found| self.hits(found, request)).collect()
    }
}

impl Engine {
    /// The nearest memories of each query, with their similarities.
    pub(crate) fn found(&self, request: &SearchRequest) -> Result<Vec<Vec<(Stored, f32)>>> {
        self.check_usable()?;
        let vectors = self.codec.query_vectors(&request.queries, self.header.similarity)?;
        for attempt in 0.. {
            let now = self.now();
            let (last, writer) = self.last_attempt(attempt);
            // The snapshot comes first: what it holds and what is ranked agree wherever their sequence numbers
            // do.
            let answered = self.reading("search", || {
                let snapshot = self.snapshot()?;
                let admitted =
                    request.filter.as_ref().map(|filter| self.admitted(&snapshot, filter)).transpose()?;
                let ranked = self.rank(&vectors, request, now, admitted.as_ref());
                ranked
                    .into_iter()
                    .map(|ranked| self.look_up(&snapshot, ranked))
                    .collect::<Result<Result<Vec<_>, u32>>>()
            })?;
            match answered {
                Ok(answers) => {
                    drop(writer);
                    return Ok(answers);
                }
                Err(slot) if last => return Err(vanished(slot)),
                Err(_) => std::thread::yield_now(),
            }
        }
        Ok(Vec::new())
    }

    /// The nearest slots of each query, with the numbers of the writes that filled them.
    fn rank(
        &self,
        vectors: &[f32],
        request: &SearchRequest,
        now: u32,
        admitted: Option<&Admitted>,
    ) -> Vec<Vec<(Ranked, u64)>> {
        let dims = self.header.search_dims as usize;
        // What a scan needs grows with the queries it answers at once, and a commit waits for it: a few at a
        // time.
        let some = vectors.chunks(QUERIES_AT_ONCE * dims);
        some.flat_map(|vectors| self.rank_some(vectors, request, now, admitted)).collect()
    }

    fn rank_some(
        &self,
        vectors: &[f32],
        request: &SearchRequest,
        now: u32,
        admitted: Option<&Admitted>,
    ) -> Vec<Vec<(Ranked, u64)>> {
        let resident = self.resident.read();
        let admit = |slot| {
            resident.occupant(slot, now).is_some()
                && (request.parts || !resident.is_part(slot))
                && admitted.is_none_or(|set| set.has(slot))
                && request.admits_error(|| resident.error(slot))
        };
        let seq = |hit: Ranked| Some((hit, resident.occupant(hit.slot, now)?.seq));
        let (view, wanted) = (resident.scan().view(), request.scan_options());
        let ranked = match request.hot {
            None => view.nearest(vectors, &wanted, admit),
            Some(hot) => {
                let slots = resident.hot(hot.frequent, hot.recent, now);
                let one = |vector| view.nearest_among(vector, &wanted, &slots, admit);
                let mut found: Vec<Vec<Ranked>> = vectors.chunks_exact(view.dims).map(one).collect();
                let enough = |found: &[Ranked]| {
                    found.len() == wanted.k && found.first().is_some_and(|best| best.similarity >= hot.floor)
                };
                let wide: Vec<usize> = (0..found.len()).filter(|&query| !enough(&found[query])).collect();
                let vector = |&query: &usize| vectors[query * view.dims..(query + 1) * view.dims].iter();
                let widened: Vec<f32> = wide.iter().flat_map(vector).copied().collect();
                if !wide.is_empty() {
                    for (query, all) in wide.into_iter().zip(view.nearest(&widened, &wanted, admit)) {
                        found[query] = all;
                    }
                }
                found
            }
        };
        ranked.into_iter().map(|hits| hits.into_iter().filter_map(seq).collect()).collect()
    }

    /// The memories of hits, or the slot of one that is ranked and not in the snapshot: a commit came between.
    fn look_up(
        &self,
        snapshot: &Snapshot,
        ranked: Vec<(Ranked, u64)>,
    ) -> Result<Result<Vec<(Stored, f32)>, u32>> {
        ranked
            .into_iter()
            .map(|(hit, seq)| {
                let stored = self.stored(snapshot, MemoryId { slot: hit.slot, seq })?;
                Ok(stored.map(|stored| (stored, hit.similarity)).ok_or(hit.slot))
            })
            .collect()
    }

    fn hits(&self, found: Vec<(Stored, f32)>, request: &SearchRequest) -> Result<Vec<Hit>> {
        let hits = hits(found, request.records, |all| self.decode_all(all))?;
        hits.iter().for_each(|hit| self.count(hit.id, request.counted));
        Ok(hits)
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

impl Engine {
    fn admitted(&self, snapshot: &Snapshot, filter: &Filter) -> Result<Admitted> {
        let bare = filter.matches(&Metadata::new());
        let mut admitted = Admitted { slots: HashSet::new(), described: HashSet::new(), bare };
        for entry in snapshot.metadata.iter().map_err(storage("read metadata"))? {
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

impl Store {
    /// Reads the nearest memory and counts the access; `None` from an empty store.
    ///
    /// Cost: one pass over the search vectors, one lookup, one decoding; no disk write.
    ///
    /// # Errors
    /// [`RecordShape`](crate::Error::RecordShape), [`Corrupt`](crate::Error::Corrupt) when the winner's bytes
    /// are damaged.
    pub fn read(&self, query: &Record) -> Result<Option<Memory>> {
        self.engine.nearest(query, true)
    }

    /// Reads the nearest memory without counting the access.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn peek(&self, query: &Record) -> Result<Option<Memory>> {
        self.engine.nearest(query, false)
    }

    /// Starts a search for the nearest memories: see [`Search`].
    pub fn search<'a>(&'a self, query: &Record) -> Search<'a> {
        Search::new(self.engine.as_ref(), Records::from(query))
    }

    /// Starts a search for each of several queries, answered by [`Search::run_all`].
    pub fn search_many<'a>(&'a self, queries: &Records) -> Search<'a> {
        Search::new(self.engine.as_ref(), queries.clone())
    }
}

impl Engine {
    /// The nearest memory: a search for one.
    fn nearest(&self, query: &Record, counted: bool) -> Result<Option<Memory>> {
        let request = SearchRequest { k: 1, ..SearchRequest::new(Records::from(query)) };
        let nearest = self.found(&request)?.pop().and_then(|found| found.into_iter().next());
        let Some((stored, similarity)) = nearest else { return Ok(None) };
        let record = self.decode(&stored)?;
        self.count(stored.id, counted);
        Ok(Some(stored.into_memory(record, Some(similarity))))
    }

    /// After a few attempts a reader waits for the writer, so that no commit can come between; if what is in
    /// memory and what is on disk still disagree then, they always will. On a read-only handle nothing ever
    /// comes between.
    pub(crate) fn last_attempt(&self, attempt: u32) -> (bool, Option<parking_lot::MutexGuard<'_, ()>>) {
        let alone = self.handle.writable().is_err();
        let last = alone || attempt >= 3;
        (last, (last && !alone).then(|| self.writer.lock()))
    }
}
