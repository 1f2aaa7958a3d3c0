//! The store: one file, a fixed number of slots, a codec.
//!
//! The only user of redb. What is in memory while a store is open (search vectors, occupancy, counts) changes only
//! after the commit that makes it true, so a failed commit leaves the handle as it was.
//!
//! Locks, in the order they are taken: `writer` (one commit at a time), then `live` (readers share it, a commit
//! holds it only to swap what changed). Neither is held while a record is encoded or decoded.

mod builder;
mod commit;
mod counts;
mod dirty;
mod draft;
mod file;
mod flusher;
mod frequency;
mod group;
mod guard;
mod held;
mod holder;
mod import;
mod iter;
mod live;
mod load;
mod maintenance;
mod medium;
mod memory;
#[cfg(test)]
mod names_test;
mod overlay;
mod pack;
mod policy;
mod read;
mod recode;
mod rows;
mod search;
mod soft;
mod stream;
mod tables;
mod transaction;
mod transfer;
mod uses;

pub use builder::StoreBuilder;
pub use frequency::{AccessFrequency, MemoryFrequency};
#[cfg(feature = "cli")]
pub(crate) use guard::{is_damage, is_guarded};
pub use import::{Import, ImportReport};
pub use iter::{Entries, Entry};
pub use maintenance::{
    Backup, BackupReport, CompactReport, Damage, RepairPlan, RepairStep, SalvageReport, Verify, VerifyReport,
};
pub use memory::{Attributes, CodecStats, Committed, Description, Evicted, HotFirstReport, Put, Stats};
pub use pack::{ExportPack, ExportReport};
pub use recode::{Recode, RecodeReport};
pub use redb::backends::InMemoryBackend;
pub use redb::{BackendError, StorageBackend};
pub use soft::{SoftMemory, SoftRead, SoftShare};
pub use stream::{Appended, Recalled, Stream, StreamInfo};
pub use transaction::Transaction;

use crate::clock::Clock;
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::pack::Pack;
use crate::record::{Record, Records};
use crate::search::{HotFirst, Search};
use crate::summary::ErrorSummary;
use apcm_format::frame::{self, Framed};
use apcm_format::{Fingerprint, IngestPosition, IngestSource, MemoryId, StoreHeader};
use file::Handle;
use flusher::Flusher;
use guard::{guarded, storage};
use live::Live;
use medium::Medium;
use parking_lot::{Mutex, RwLock};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tables::{COUNTERS, KEYS, META, METADATA, RESIDUALS, SLOTS, meta_place};

/// Is told how much is done and how much there is; may stop what it is told of.
type Callback<'a> = Box<dyn FnMut(u64, u64) -> ControlFlow<()> + 'a>;

/// An embedded store for memories. See the [crate's front page](crate) for an example.
///
/// A store is `Send + Sync` and all its methods take `&self`: share one behind an `Arc`. One process may have a
/// store open for writing, or any number for reading.
pub struct Store {
    inner: Arc<Inner>,
    flusher: Option<Flusher>,
}

/// What the store shares with its flusher thread.
struct Inner {
    medium: Medium,
    header: StoreHeader,
    codec: Box<dyn Codec>,
    codec_bytes: u64,
    /// Before the handle, because it holds a view of the database, which ends first.
    live: RwLock<Live>,
    handle: Handle,
    /// Held by whoever commits.
    writer: Mutex<()>,
    /// Who waits to commit.
    group: group::Group,
    poisoned: AtomicBool,
    signal: Arc<flusher::Signal>,
    clock: Clock,
    streams: stream::Streams,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.medium.name())
            .field("header", &self.inner.header)
            .finish()
    }
}

impl Store {
    /// Starts creating or opening a store with options.
    pub fn builder() -> StoreBuilder {
        StoreBuilder::new()
    }

    /// Opens a store for reading and writing; the codec comes from the file.
    ///
    /// Cost: reads every slot record once and derives the search vectors, on all cores.
    ///
    /// # Errors
    /// [`NotAStore`](Error::NotAStore) and [`TooNew`](Error::TooNew) leave the file untouched, byte for byte;
    /// [`Locked`](Error::Locked), [`Io`](Error::Io), [`UnknownCodec`](Error::UnknownCodec).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Opens a store for reading, beside any number of other readers. Nothing is counted.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`NeedsRecovery`](Error::NeedsRecovery) after a crash.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open_read_only(path)
    }

    /// What the store is: shape, capacity, similarity.
    pub fn description(&self) -> Description {
        let header = &self.inner.header;
        Description { shape: header.shape, capacity: header.capacity, similarity: header.similarity }
    }

    /// The store's file; `None` in storage of the user's own.
    pub fn path(&self) -> Option<&Path> {
        self.inner.medium.path()
    }

    /// The codec in the file.
    pub fn codec(&self) -> &dyn Codec {
        self.inner.codec.as_ref()
    }

    /// Names the codec in the file.
    pub fn fingerprint(&self) -> Fingerprint {
        self.inner.header.fingerprint
    }

    /// How many memories there are, expired ones not counted.
    pub fn len(&self) -> usize {
        let now = self.inner.now();
        let live = self.inner.live.read();
        live.bank().occupied() as usize - live.bank().expired(now).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the nearest memory and counts the access; `None` from an empty store.
    ///
    /// Cost: one pass over the search vectors, one lookup, one decoding; no disk write.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape), [`Corrupt`](Error::Corrupt) when the winner's bytes are damaged.
    pub fn read(&self, query: &Record) -> Result<Option<Memory>> {
        self.inner.nearest(query, true)
    }

    /// Reads the nearest memory without counting the access.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn peek(&self, query: &Record) -> Result<Option<Memory>> {
        self.inner.nearest(query, false)
    }

    /// Starts a soft read: the blend of the nearest memories, weighted by how near they are. See [`SoftRead`].
    pub fn read_soft<'a>(&'a self, query: &Record) -> SoftRead<'a> {
        SoftRead::new(&self.inner, query)
    }

    /// How much each memory is used: counts, shares and the access-frequency logarithm of the TMNN paper. Counts nothing.
    ///
    /// # Errors
    /// [`Poisoned`](Error::Poisoned).
    pub fn access_frequency(&self) -> Result<AccessFrequency> {
        self.inner.check_usable()?;
        Ok(self.inner.access_frequency())
    }

    /// Starts a search for the nearest memories: see [`Search`].
    pub fn search<'a>(&'a self, query: &Record) -> Search<'a> {
        Search::new(self.inner.as_ref(), Records::from(query))
    }

    /// What a hot-first search of these queries misses: its hits beside those of a search over everything.
    ///
    /// Cost: both searches, one after the other: what is written in between counts as missed.
    ///
    /// # Errors
    /// As [`Search::run_all`].
    pub fn hot_first_report(&self, queries: &Records, k: usize, hot: HotFirst) -> Result<HotFirstReport> {
        let found = self.search_many(queries).k(k).hot_first(hot).run_all()?;
        let all = self.search_many(queries).k(k).run_all()?;
        let now = self.inner.now();
        let candidates = self.inner.live.read().hot(hot.frequent, hot.recent, now).len();
        let (mut same, mut sought, mut first) = (0, 0, 0);
        for (found, all) in found.iter().zip(&all) {
            let there: Vec<MemoryId> = found.iter().map(|hit| hit.id).collect();
            sought += all.len();
            same += all.iter().filter(|hit| there.contains(&hit.id)).count();
            first += usize::from(all.first().map(|hit| hit.id) == there.first().copied());
        }
        Ok(HotFirstReport {
            queries: queries.len(),
            candidates,
            recall: if sought == 0 { 1.0 } else { same as f64 / sought as f64 },
            first: first as f64 / queries.len() as f64,
        })
    }

    /// Starts a search for each of several queries, answered by [`Search::run_all`].
    pub fn search_many<'a>(&'a self, queries: &Records) -> Search<'a> {
        Search::new(self.inner.as_ref(), queries.clone())
    }

    /// Reads the memory with this key and counts the access.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt), [`Storage`](Error::Storage).
    pub fn get(&self, key: &[u8]) -> Result<Option<Memory>> {
        self.inner.by_key(key, true)
    }

    /// Reads the memory with this key without counting the access.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn peek_key(&self, key: &[u8]) -> Result<Option<Memory>> {
        self.inner.by_key(key, false)
    }

    /// Reads the memory with this id and counts the access.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) for an id whose memory left, whoever has its slot now.
    pub fn get_id(&self, id: MemoryId) -> Result<Memory> {
        self.inner.by_id(id, true)
    }

    /// Reads the memory with this id without counting the access.
    ///
    /// # Errors
    /// As [`get_id`](Self::get_id).
    pub fn peek_id(&self, id: MemoryId) -> Result<Memory> {
        self.inner.by_id(id, false)
    }

    /// Whether there is a memory with this key.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.inner.find_key(key)?.is_some())
    }

    /// The id of the memory with this key.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn id_of(&self, key: &[u8]) -> Result<Option<MemoryId>> {
        self.inner.find_key(key)
    }

    /// How often the memory has been read since it was written; `None` for an id whose memory left.
    pub fn access_count(&self, id: MemoryId) -> Option<u32> {
        let now = self.inner.now();
        let live = self.inner.live.read();
        live.holds(id, now).then(|| live.counts().get(id.slot))
    }

    /// Stores a record: in the first free slot, or in the place of the least used memory.
    ///
    /// One durable transaction. For many records, [`begin_write`](Self::begin_write) is many times faster.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape), [`AllPinned`](Error::AllPinned), [`NoSpace`](Error::NoSpace): nothing
    /// was written. [`OutcomeUnknown`](Error::OutcomeUnknown): open the store again and look.
    pub fn insert(&self, record: &Record) -> Result<Put> {
        self.insert_with(record, Attributes::default())
    }

    /// Stores a record with metadata, a pin or an expiry.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_with(&self, record: &Record, attributes: impl Into<Attributes>) -> Result<Put> {
        let mut transaction = self.begin_write();
        transaction.insert_with(record, attributes)?;
        transaction.commit_one()
    }

    /// Stores a record under a key, in the place of the record that had it: that one's count, pin and expiry stay.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and [`Argument`](Error::Argument) for an empty or overlong key.
    pub fn put(&self, key: &[u8], record: &Record, attributes: impl Into<Attributes>) -> Result<Put> {
        let mut transaction = self.begin_write();
        transaction.put(key, record, attributes)?;
        transaction.commit_one()
    }

    /// Stores the mean of a batch in one slot: the write of the ApCM paper, which averages `z_comp` over the batch.
    ///
    /// The measured error is against the mean of the batch's records.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and [`Argument`](Error::Argument) for an empty batch.
    pub fn write_mean(&self, batch: &Records) -> Result<Put> {
        let mut transaction = self.begin_write();
        transaction.write_mean(batch, Attributes::default())?;
        transaction.commit_one()
    }

    /// Removes the memory with this key; whether there was one.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`OutcomeUnknown`](Error::OutcomeUnknown).
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        let mut transaction = self.begin_write();
        transaction.remove(key)?;
        Ok(transaction.commit()?.removed > 0)
    }

    /// Removes the memory with this id.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) for an id whose memory left.
    pub fn remove_id(&self, id: MemoryId) -> Result<()> {
        let mut transaction = self.begin_write();
        transaction.remove_id(id);
        transaction.commit().map(drop)
    }

    /// Makes a memory never a victim, or a possible one again.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) for an id whose memory left.
    pub fn pin(&self, id: MemoryId, pinned: bool) -> Result<()> {
        let mut transaction = self.begin_write();
        transaction.pin(id, pinned);
        transaction.commit().map(drop)
    }

    /// Starts a transaction: a buffer of operations that take effect together, or not at all.
    pub fn begin_write(&self) -> Transaction<'_> {
        Transaction::new(&self.inner)
    }

    /// All memories in slot order, as of now; records are decoded only where asked for.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage).
    pub fn iter(&self) -> Result<Entries<'_>> {
        Entries::new(&self.inner)
    }

    /// Starts a move to another codec, into a new file or over this one: see [`Recode`].
    pub fn recode(&self, to: impl AsRef<Path>, codec: impl Codec) -> Recode<'_> {
        Recode::new(self, to.as_ref(), Box::new(codec))
    }

    /// Starts a move to a codec that is behind a pointer already.
    pub fn recode_boxed(&self, to: &Path, codec: Box<dyn Codec>) -> Recode<'_> {
        Recode::new(self, to, codec)
    }

    /// Starts a verification of a file that nobody has open for writing: see [`Verify`].
    pub fn verify<'a>(path: impl AsRef<Path>) -> Verify<'a> {
        Verify::new(path.as_ref())
    }

    /// Starts a backup of the store as it is now, while it is in use: see [`Backup`].
    pub fn backup<'a>(&'a self, to: impl AsRef<Path>) -> Backup<'a> {
        Backup::new(self, to.as_ref())
    }

    /// Starts an export of the store as it is now into a pack, while it is in use: see [`ExportPack`].
    pub fn export_pack<'a>(&'a self, to: impl AsRef<Path>) -> ExportPack<'a> {
        ExportPack::new(self, to.as_ref())
    }

    /// Starts an import of a pack's memories: see [`Import`].
    pub fn import<'a>(&'a self, pack: &'a Pack) -> Import<'a> {
        Import::new(self, pack)
    }

    /// Plans the repair of a file that nobody has open; nothing is written until [`RepairPlan::apply`].
    ///
    /// `progress` is called with how many slots were looked at and how many there are, and may stop it.
    ///
    /// # Errors
    /// As [`Verify::run`].
    pub fn plan_repair(
        path: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<RepairPlan> {
        RepairPlan::of(path.as_ref(), &mut progress)
    }

    /// Copies what can be read of a damaged file into a new one. The damaged file is only read.
    ///
    /// Rows are asked for one by one, so that a page that cannot be read takes no other with it; keys are written again
    /// from what the slots say of themselves; what [`Policy`](crate::Policy) keeps of uses is estimated from counts and
    /// ages. `progress` is called with slots done and to do, and may stop it.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Locked`](Error::Locked), [`NotAStore`](Error::NotAStore),
    /// [`Cancelled`](Error::Cancelled); [`Corrupt`](Error::Corrupt) or [`Storage`](Error::Storage) when the header or
    /// the codec cannot be read, without which no code means anything.
    pub fn salvage(
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<SalvageReport> {
        maintenance::salvage(from.as_ref(), to.as_ref(), &mut progress)
    }

    /// Makes a file that nobody has open as small as its contents allow.
    ///
    /// Cost: moves every page that lies behind a free one; durable at each step, so a crash leaves the store whole.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn compact(path: impl AsRef<Path>) -> Result<CompactReport> {
        maintenance::compact(path.as_ref())
    }

    /// Brings access counts to the disk.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`OutcomeUnknown`](Error::OutcomeUnknown). Nothing to do on a read-only handle.
    pub fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    /// The store in numbers.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`Io`](Error::Io).
    pub fn stats(&self) -> Result<Stats> {
        self.inner.stats()
    }

    /// How far a dataset of this name has been ingested.
    ///
    /// # Errors
    /// [`Storage`](Error::Storage), [`Corrupt`](Error::Corrupt).
    pub fn ingest_position(&self, name: &str) -> Result<Option<IngestPosition>> {
        self.inner.noted(transaction::POSITION_PREFIX, name)
    }

    /// What was ingested up to the position of this name.
    pub(crate) fn ingest_source(&self, name: &str) -> Result<Option<IngestSource>> {
        self.inner.noted(transaction::SOURCE_PREFIX, name)
    }

    /// Flushes, ends the flusher and closes the file.
    ///
    /// Dropping a store does the same and forgets the error.
    ///
    /// # Errors
    /// As [`flush`](Self::flush). The store is closed all the same.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        match self.flusher.take() {
            Some(flusher) => {
                flusher.join();
                self.inner.flush()
            }
            None => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Counts that could not be flushed are the documented loss; a destructor has nobody to tell.
        let _ = self.end();
    }
}

impl Inner {
    /// The time, as slots keep it.
    fn now(&self) -> u32 {
        u32::try_from(guard::callers(|| (self.clock)())).unwrap_or(u32::MAX)
    }

    fn check_usable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// Runs something that reads the database; a storage error poisons the handle.
    fn reading<T>(&self, during: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check_usable()?;
        let result = guarded(during, run);
        if let Err(error) = &result
            && guard::is_fatal(error)
        {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    /// What stands in `meta` under a name.
    fn noted<T: Framed>(&self, prefix: &str, name: &str) -> Result<Option<T>> {
        self.reading("read a position", || {
            let name = format!("{prefix}{name}");
            let meta = self.snapshot()?.transaction.open_table(META).map_err(storage("open a table"))?;
            let Some(value) = meta.get(name.as_str()).map_err(storage("read a position"))? else {
                return Ok(None);
            };
            frame::open(value.value(), meta_place(self.header.uuid, &name))
                .map(Some)
                .map_err(|cause| Error::Corrupt { what: format!("the position {name:?}"), cause })
        })
    }

    fn stats(&self) -> Result<Stats> {
        self.check_usable()?;
        let file_bytes = self.medium.len()?;
        let live = self.live.read();
        let sums = live.sums();
        let readable = f64::from(live.bank().occupied() - sums.damaged).max(1.0);
        let occupied = live.bank().occupied();
        let slot_bytes = sums.stored_bytes as f64 / f64::from(occupied).max(1.0);
        let info = self.codec.info();
        Ok(Stats {
            capacity: self.header.capacity,
            occupied,
            free: self.header.capacity - occupied,
            policy: live.policy(),
            pinned: live.bank().pinned(),
            damaged: sums.damaged,
            code_bytes: sums.code_bytes as f64 / readable,
            slot_bytes: if occupied == 0 { 0.0 } else { slot_bytes },
            record_shape: self.header.shape.dims(),
            residuals: sums.residuals,
            stored_bytes: sums.stored_bytes,
            memory_bytes: live.memory(),
            byte_budget: live.state().byte_budget,
            residuals_dropped: live.state().residuals_dropped,
            file_bytes,
            mean_error: sums.error / readable,
            errors: ErrorSummary::of(&live.errors()),
            reads: live.reads(),

            evictions: live.state().evictions,
            evictions_never_read: live.state().evictions_never_read,
            codec: CodecStats {
                preset: info.preset,
                quantizer: info.quantizer,
                fingerprint: self.header.fingerprint.to_string(),
                parameters: info.parameters,
                bytes: self.codec_bytes,
            },
        })
    }
}

/// Makes every table exist, so that readers need not ask.
fn create_tables(transaction: &redb::WriteTransaction) -> Result<()> {
    transaction.open_table(SLOTS).map_err(storage("create a table"))?;
    transaction.open_table(COUNTERS).map_err(storage("create a table"))?;
    transaction.open_table(KEYS).map_err(storage("create a table"))?;
    transaction.open_table(METADATA).map_err(storage("create a table"))?;
    transaction.open_table(RESIDUALS).map_err(storage("create a table"))?;
    Ok(())
}

/// A key as the public face takes it, or an error with the numbers.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    let most = apcm_format::limits::KEY_LEN_MAX;
    if key.starts_with(apcm_format::stream::PART_KEY_PREFIX) {
        return Err(Error::argument(
            "a key",
            "one that does not begin like those of streams",
            format!("{key:?}"),
        ));
    }
    if key.is_empty() || key.len() > most {
        return Err(Error::argument("a key", format!("1 to {most} bytes"), format!("{} bytes", key.len())));
    }
    Ok(())
}
