//! What the parts of an open store share, and the locks around it.
//!
//! Locks, in the order they are taken: `writer` (one commit at a time), then `resident` (readers share it; a
//! commit shares it while it writes, and holds it alone only to swap what changed). Neither is held while a
//! record is encoded or decoded.

use super::file::{Backing, Handle, callers, guarded, is_fatal};
use super::resident::{Resident, Signal, Trees};
use super::staged::Group;
use crate::clock::Clock;
use crate::codec::{Codec, Encoded};
use crate::error::{Error, Result};
use crate::record::{Records, check_overflow};
use apcm_format::{StoreHeader, limits};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the parts of an open store share.
pub(crate) struct Engine {
    pub(crate) backing: Backing,
    pub(crate) header: StoreHeader,
    pub(crate) codec: Box<dyn Codec>,
    pub(crate) codec_bytes: u64,
    /// Before the handle: it holds a view of the database, which ends first.
    pub(crate) resident: RwLock<Resident>,
    pub(crate) handle: Handle,
    /// Held by the thread that commits.
    pub(crate) writer: Mutex<()>,
    /// Transactions that wait to be committed.
    pub(crate) group: Group,
    pub(crate) poisoned: AtomicBool,
    pub(crate) signal: Arc<Signal>,
    pub(crate) clock: Clock,
    pub(crate) trees: Trees,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("path", &self.backing.name()).finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // After a storage error nothing that the database has in memory may reach the file.
        if self.poisoned.load(Ordering::Acquire) {
            self.handle.abandon();
        }
    }
}

impl Engine {
    /// The time in seconds, as slots store it.
    pub(crate) fn now(&self) -> u32 {
        u32::try_from(callers(|| (self.clock)())).unwrap_or(u32::MAX)
    }

    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// Runs something that reads the database; a storage error poisons the handle.
    pub(crate) fn reading<T>(&self, during: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check_usable()?;
        self.poisoning(during, run)
    }

    /// Runs something that uses the database; after a storage error the handle refuses everything.
    pub(crate) fn poisoning<T>(&self, during: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = guarded(during, run);
        if let Err(error) = &result
            && is_fatal(error)
        {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    /// Codes of records and their search vectors, one for each code.
    ///
    /// Search vectors come from the codes, as they will when the store is opened: what is ranked now is ranked
    /// alike then.
    pub(crate) fn encode(&self, records: &Records) -> Result<(Vec<Encoded>, Vec<f32>)> {
        let (encoded, vectors) = self.codec.encode_for_search(records, self.header.similarity)?;
        encoded.iter().try_for_each(check_length)?;
        let expected = encoded.len() * self.header.search_dims as usize;
        check_made("search values of a batch", expected, vectors.len())?;
        Ok((encoded, vectors))
    }

    /// Search vectors of codes, checked for number.
    pub(crate) fn search_vectors(&self, codes: &[&[u8]]) -> Result<Vec<f32>> {
        let vectors = self.codec.search_vectors(codes, self.header.similarity)?;
        let expected = codes.len() * self.header.search_dims as usize;
        check_made("search values of a batch", expected, vectors.len())?;
        Ok(vectors)
    }

    /// Search vectors of records, checked for number and overflow: they are stored.
    pub(crate) fn finite_vectors(&self, records: &Records) -> Result<Vec<f32>> {
        let vectors = self.codec.query_vectors(records, self.header.similarity)?;
        let expected = records.len() * self.header.search_dims as usize;
        check_made("search values of a batch", expected, vectors.len())?;
        check_overflow("the search vector of a record", &vectors)?;
        Ok(vectors)
    }
}

/// A codec of the user's own may return too few results; that is an error, not a lost memory.
pub(crate) fn check_made(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::argument(what, expected.to_string(), found))
}

/// A code that a slot can hold.
pub(crate) fn check_length(encoded: &Encoded) -> Result<()> {
    let (found, most) = (encoded.code.len(), limits::CODE_LEN_MAX);
    if found <= most {
        return Ok(());
    }
    Err(Error::argument("the length of a code", format!("at most {most}"), found))
}
