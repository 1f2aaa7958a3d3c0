//! Bringing a pack's memories into a store: into one that is there, or a new one that is as the old one was.

use super::moved::{Transferred, as_they_are, batch, encode_again};
use crate::codec;
use crate::error::{Error, Result};
use crate::pack::{Pack, PackEntry};
use crate::progress::{Progress, Reporter};
use crate::record::check_shape;
use crate::store::builder::StoreBuilder;
use crate::store::engine::Engine;
use crate::store::file::{Backing, FileStorage, SharedBackend, callers};
use crate::store::staged::{Expiry, Op};
use crate::store::store::Store;
use crate::stored::Stored;
use crate::whole_file::{NewFile, Taken};
use apcm_format::StoreState;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ImportReport {
    /// Memories that were put in.
    pub memories: u64,
    /// Memories that were evicted.
    pub evicted: u64,
    /// Whether they were encoded again, because the store has another codec.
    pub encoded_again: bool,
    /// Mean of the errors they had.
    pub error_before: f64,
    /// Mean squared error per element between what they were and what they are: 0 under the same codec.
    pub error_added: f64,
}

/// An import of a pack; [`run`](Self::run) makes it.
#[must_use = "nothing is imported until it is run"]
pub struct Import<'a> {
    store: &'a Store,
    pack: &'a Pack,
    progress: Reporter<'a>,
}

impl fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("store", &self.store).field("pack", &self.pack).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts an import of a pack's memories: see [`Import`].
    pub fn import<'a>(&'a self, pack: &'a Pack) -> Import<'a> {
        Import::new(self, pack)
    }
}

impl<'a> Import<'a> {
    pub(crate) fn new(store: &'a Store, pack: &'a Pack) -> Self {
        Self { store, pack, progress: Reporter::new("import") }
    }

    /// Called after each transaction with how many memories are in and how many there are; may stop the import.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Puts the pack's memories in as if they were [put](Store::put) now: new ids, counts of 0, least used
    /// memories are evicted. Metadata, pins, residuals and the times of expiry come along; what has expired
    /// does not. A memory replaces the one that has its key, whose count, pin and expiry stay where it has none
    /// of its own. Memories without a key are added: importing twice adds them twice.
    ///
    /// Under the same codec codes are taken as they are. Under another, memories are decoded and encoded again,
    /// and their errors are at most the squares of the sums of roots.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape), [`Corrupt`](Error::Corrupt), [`Cancelled`](Error::Cancelled), and
    /// those of [`insert`](Store::insert). Memories before the failure are in the store, durably.
    pub fn run(mut self) -> Result<ImportReport> {
        self.progress.begin();
        let engine = &self.store.engine;
        engine.handle.writable()?;
        check_shape(engine.header.shape, self.pack.shape())?;
        let mut report = ImportReport {
            memories: 0,
            evicted: 0,
            encoded_again: self.pack.fingerprint() != engine.header.fingerprint,
            error_before: 0.0,
            error_added: 0.0,
        };
        in_batches(self.pack, |some| {
            let now = engine.now();
            let mut transaction = self.store.begin_write();
            for (entry, moved) in some.iter().zip(transferred(engine, self.pack, some, report.encoded_again)?)
            {
                // The pack may have another clock.
                if !entry.stored().is_there(now) {
                    continue;
                }
                report.memories += 1;
                report.error_before += f64::from(entry.error());
                report.error_added += f64::from(moved.added);
                let expiry = entry.expires_at().map(Expiry::At);
                transaction.push_content(moved.content, entry.is_pinned(), expiry);
            }
            report.evicted += transaction.commit()?.evicted.len() as u64;
            proceed(&mut self.progress, report.memories, self.pack)
        })?;
        let memories = (report.memories as f64).max(1.0);
        report.error_before /= memories;
        report.error_added /= memories;
        Ok(report)
    }
}

/// A store made of a pack; [`run`](Self::run) makes and opens it.
#[must_use = "nothing is unpacked until it is run"]
pub struct Unpack<'a> {
    builder: StoreBuilder,
    pack: &'a Pack,
    to: PathBuf,
    progress: Reporter<'a>,
}

impl fmt::Debug for Unpack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpack").field("pack", &self.pack).field("to", &self.to).finish_non_exhaustive()
    }
}

impl StoreBuilder {
    /// Starts to make a store of a pack: see [`Unpack`]. The eviction policy comes from this builder; a pack
    /// has none.
    pub fn unpack<'a>(self, pack: &'a Pack, path: impl AsRef<Path>) -> Unpack<'a> {
        let to = path.as_ref().to_owned();
        Unpack { builder: self, pack, to, progress: Reporter::new("unpack") }
    }
}

impl<'a> Unpack<'a> {
    /// Called after each transaction with how many memories are in and how many there are; may stop it.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Makes the store and opens it: the same slots, ids, keys, metadata, residuals, pins, expiries and counts
    /// as the store that the pack was made from, and the same codec, capacity and similarity. Not restored:
    /// lifetime totals, ingest positions, the byte budget.
    ///
    /// The store gets its name when it is complete, and replaces no other file.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Corrupt`](Error::Corrupt), [`Cancelled`](Error::Cancelled),
    /// [`Io`](Error::Io), [`OverBudget`](Error::OverBudget), [`MemoryLimit`](Error::MemoryLimit),
    /// [`UnknownCodec`](Error::UnknownCodec) for a codec of the user's own: create a store with it, and
    /// [`import`](Store::import). After an error there is no store.
    pub fn run(mut self) -> Result<Store> {
        self.progress.begin();
        let (options, pack, path) = (self.builder, self.pack, self.to.as_path());
        let new = NewFile::create(path, Taken::Refuse)?;
        let codec = codec::load(pack.codec_image()?, options.device)?;
        let builder = options.without_budget().capacity(pack.capacity()).similarity(pack.similarity());
        let file = new.file().try_clone().map_err(Error::io(path))?;
        let same = new.file().try_clone().map_err(Error::io(path))?;
        let file =
            FileStorage::new(file, same).map_err(|error| Error::io(path)(std::io::Error::other(error)))?;
        let store = builder.create_in(Backing::Backend(SharedBackend::new(file)), codec)?;
        fill(&store, pack, options.byte_budget, &mut self.progress)?;
        store.close()?;
        new.finish(options.permissions.clone())?;
        // A store that cannot be opened is not left behind, unless another process has found it first and
        // opened it.
        options.open(path).inspect_err(|error| {
            if !matches!(error, Error::Locked { .. }) {
                drop(std::fs::remove_file(path));
            }
        })
    }
}

fn fill(store: &Store, pack: &Pack, byte_budget: Option<u64>, progress: &mut Reporter<'_>) -> Result<()> {
    let engine = &store.engine;
    let mut done = 0;
    in_batches(pack, |some| {
        let mut transaction = store.begin_write();
        for (entry, moved) in some.iter().zip(transferred(engine, pack, some, false)?) {
            if entry.id().slot >= engine.header.capacity {
                return Err(Error::argument(
                    "the slot of a memory",
                    format!("below {}", engine.header.capacity),
                    entry.id().slot,
                ));
            }
            transaction.push(Op::restore(moved.content, entry.stored(), None));
        }
        transaction.commit()?;
        let resident = engine.resident.read();
        for (id, count) in some.iter().map(|entry| (entry.id(), entry.count())) {
            resident.counts().restore(id.slot, count);
            resident.uses().restore(id.slot, resident.uses().rule().estimated(id.seq, count));
        }
        drop(resident);
        done += some.len() as u64;
        proceed(progress, done, pack)
    })?;
    // The budget comes last: it must not begin by dropping what was just put in.
    let needed = engine.resident.read().stored();
    if let Some(budget) = byte_budget.filter(|&budget| needed > budget) {
        return Err(Error::OverBudget { needed, budget });
    }
    let mut transaction = store.begin_write();
    let state = engine.resident.read().state();
    let next_seq = pack.last_seq().saturating_add(1);
    transaction.push(Op::Inherit(StoreState { next_seq, byte_budget, ..state }));
    transaction.commit()?;
    store.flush()
}

/// Goes over a pack's memories, some at a time.
fn in_batches<'a>(pack: &'a Pack, mut take: impl FnMut(&[PackEntry<'a>]) -> Result<()>) -> Result<()> {
    let mut entries = pack.iter();
    loop {
        let some = entries.by_ref().take(batch(pack.shape().values())).collect::<Result<Vec<_>>>()?;
        if some.is_empty() {
            return Ok(());
        }
        take(&some)?;
    }
}

fn transferred(into: &Engine, pack: &Pack, some: &[PackEntry<'_>], again: bool) -> Result<Vec<Transferred>> {
    let stored: Vec<&Stored> = some.iter().map(PackEntry::stored).collect();
    match if again { PackEntry::records(some)? } else { None } {
        Some(records) => encode_again(into, pack.store_uuid(), &stored, &records),
        None => as_they_are(into, pack.store_uuid(), &stored),
    }
}

fn proceed(progress: &mut Reporter<'_>, done: u64, pack: &Pack) -> Result<()> {
    if callers(|| progress.report(done, pack.len() as u64)).is_break() {
        return Err(Error::Cancelled);
    }
    Ok(())
}
