//! The handle: what a store is, and how it ends.

use super::engine::Engine;
use super::outcome::Description;
use crate::codec::Codec;
use crate::error::Result;
use apcm_format::Fingerprint;
use std::path::Path;
use std::sync::Arc;

/// An embedded store for memories. See the [crate's front page](crate) for an example.
///
/// A store is `Send + Sync` and all its methods take `&self`: share one behind an `Arc`. One process may have a
/// store open for writing, or any number for reading.
pub struct Store {
    pub(crate) engine: Arc<Engine>,
    /// What closing does besides closing the file; the builder gives it to a handle that writes.
    on_close: Option<OnClose>,
}

/// Brings what is only in memory to the disk, and ends what runs beside the store.
pub(crate) type OnClose = Box<dyn FnOnce() -> Result<()> + Send + Sync>;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.engine.backing.name())
            .field("header", &self.engine.header)
            .finish()
    }
}

impl Store {
    pub(crate) fn new(engine: Arc<Engine>, on_close: Option<OnClose>) -> Self {
        Self { engine, on_close }
    }

    /// What the store is: shape, capacity, similarity.
    pub fn description(&self) -> Description {
        let header = &self.engine.header;
        Description { shape: header.shape, capacity: header.capacity, similarity: header.similarity }
    }

    /// The store's file; `None` in storage of the user's own.
    pub fn path(&self) -> Option<&Path> {
        self.engine.backing.path()
    }

    /// The codec in the file.
    pub fn codec(&self) -> &dyn Codec {
        self.engine.codec.as_ref()
    }

    /// Names the codec in the file.
    pub fn fingerprint(&self) -> Fingerprint {
        self.engine.header.fingerprint
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
        self.on_close.take().map_or(Ok(()), |on_close| on_close())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Counts that could not be flushed are lost, as documented; a destructor cannot return an error.
        let _ = self.end();
    }
}
