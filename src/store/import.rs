//! Bringing a pack's memories into a store: into one that is there, or a new one that is as the old one was.

use super::guard::callers;
use super::medium::{Medium, Shared};
use super::transaction::{Expiry, Op};
use super::transfer::{Transferred, as_they_are, batch, encode_again};
use super::{Callback, Inner, Store, StoreBuilder};
use crate::codec;
use crate::error::{Error, Result};
use crate::pack::{Pack, PackEntry};
use crate::record::check_shape;
use crate::stored::Stored;
use crate::whole_file::{NewFile, Taken};
use apcm_format::StoreState;
use redb::backends::FileBackend;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ImportReport {
    /// Memories that were put in.
    pub memories: u64,
    /// Memories that made room.
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
    progress: Option<Callback<'a>>,
}

impl fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("store", &self.store).field("pack", &self.pack).finish_non_exhaustive()
    }
}

impl<'a> Import<'a> {
    pub(super) fn new(store: &'a Store, pack: &'a Pack) -> Self {
        Self { store, pack, progress: None }
    }

    /// Called after each transaction with how many memories are in and how many there are; may stop the import.
    pub fn progress(mut self, callback: impl FnMut(u64, u64) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Puts the pack's memories in as if they were [put](Store::put) now: new ids, counts of 0, least used memories make
    /// room. Metadata, pins, residuals and the times of expiry come along; what has expired does not. A memory replaces
    /// the one that has its key, whose count, pin and expiry stay where it has none of its own. Memories without a key
    /// are added: importing twice adds them twice.
    ///
    /// Under the same codec codes are taken as they are. Under another, memories are decoded and encoded again, and their
    /// errors are at most the squares of the sums of roots.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape), [`Corrupt`](Error::Corrupt), [`Cancelled`](Error::Cancelled), and those of
    /// [`insert`](Store::insert). Memories before the failure are in the store, durably.
    pub fn run(mut self) -> Result<ImportReport> {
        let inner = &self.store.inner;
        inner.handle.writable()?;
        check_shape(inner.header.shape, self.pack.shape())?;
        let mut report = ImportReport {
            memories: 0,
            evicted: 0,
            encoded_again: self.pack.fingerprint() != inner.header.fingerprint,
            error_before: 0.0,
            error_added: 0.0,
        };
        in_batches(self.pack, |some| {
            let now = inner.now();
            let mut transaction = self.store.begin_write();
            for (entry, moved) in some.iter().zip(transferred(inner, self.pack, some, report.encoded_again)?)
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

impl StoreBuilder {
    /// Makes a store of a pack, and opens it: the same slots, ids, keys, metadata, residuals, pins, expiries and counts as
    /// the store had that the pack was made from, and the same codec. Capacity and similarity are the pack's too. What is
    /// the store's own and not its memories' stays behind: lifetime totals, positions of ingests, its byte budget.
    ///
    /// The store gets its name when it is whole, and replaces no other file. The eviction policy comes from this builder; a
    /// pack has none. `progress` is called with how many memories are in and how many there are, and may stop it.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Corrupt`](Error::Corrupt), [`Cancelled`](Error::Cancelled), [`Io`](Error::Io),
    /// [`OverBudget`](Error::OverBudget), [`MemoryLimit`](Error::MemoryLimit), [`UnknownCodec`](Error::UnknownCodec) for
    /// a codec of the user's own: create a store with it, and [`import`](Store::import). After an error there is no store.
    pub fn unpack(
        self,
        pack: &Pack,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Store> {
        let path = path.as_ref();
        let new = NewFile::create(path, Taken::Refuse)?;
        let codec = codec::load(pack.codec_image()?, self.device)?;
        let builder = self.without_budget().capacity(pack.capacity()).similarity(pack.similarity());
        let file = new.file().try_clone().map_err(Error::io(path))?;
        let file = FileBackend::new(file).map_err(|error| Error::io(path)(std::io::Error::other(error)))?;
        let store = builder.create_in(Medium::Backend(Shared::new(file)), codec)?;
        fill(&store, pack, self.byte_budget, &mut Some(Box::new(&mut progress)))?;
        store.close()?;
        new.finish(self.permissions.clone())?;
        // A store that cannot be opened is not left behind, unless another process has found it first and opened it.
        self.open(path).inspect_err(|error| {
            if !matches!(error, Error::Locked { .. }) {
                drop(std::fs::remove_file(path));
            }
        })
    }
}

fn fill(
    store: &Store,
    pack: &Pack,
    byte_budget: Option<u64>,
    progress: &mut Option<Callback<'_>>,
) -> Result<()> {
    let inner = &store.inner;
    let mut done = 0;
    in_batches(pack, |some| {
        let mut transaction = store.begin_write();
        for (entry, moved) in some.iter().zip(transferred(inner, pack, some, false)?) {
            if entry.id().slot >= inner.header.capacity {
                return Err(Error::argument(
                    "the slot of a memory",
                    format!("below {}", inner.header.capacity),
                    entry.id().slot,
                ));
            }
            transaction.push(Op::restore(moved.content, entry.stored(), None));
        }
        transaction.commit()?;
        let live = inner.live.read();
        for (id, count) in some.iter().map(|entry| (entry.id(), entry.count())) {
            live.counts().restore(id.slot, count);
            live.uses().restore(id.slot, live.uses().rule().estimated(id.seq, count));
        }
        drop(live);
        done += some.len() as u64;
        proceed(progress, done, pack)
    })?;
    // The budget comes last: it must not begin by dropping what was just put in.
    let needed = inner.live.read().stored();
    if let Some(budget) = byte_budget.filter(|&budget| needed > budget) {
        return Err(Error::OverBudget { needed, budget });
    }
    let mut transaction = store.begin_write();
    let state = inner.live.read().state();
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

fn transferred(into: &Inner, pack: &Pack, some: &[PackEntry<'_>], again: bool) -> Result<Vec<Transferred>> {
    let stored: Vec<&Stored> = some.iter().map(PackEntry::stored).collect();
    match if again { PackEntry::records(some)? } else { None } {
        Some(records) => encode_again(into, pack.store_uuid(), &stored, &records),
        None => as_they_are(into, pack.store_uuid(), &stored),
    }
}

fn proceed(progress: &mut Option<Callback<'_>>, done: u64, pack: &Pack) -> Result<()> {
    if let Some(callback) = progress
        && callers(|| callback(done, pack.len() as u64)).is_break()
    {
        return Err(Error::Cancelled);
    }
    Ok(())
}
