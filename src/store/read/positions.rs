//! How far datasets were ingested.

use crate::error::{Error, Result};
use crate::store::engine::Engine;
use crate::store::file::{META, POSITION_PREFIX, SOURCE_PREFIX, meta_place, storage};
use crate::store::store::Store;
use apcm_format::frame::{self, Framed};
use apcm_format::{IngestPosition, IngestSource};

impl Store {
    /// How far a dataset of this name has been ingested.
    ///
    /// # Errors
    /// [`Storage`](crate::Error::Storage), [`Corrupt`](crate::Error::Corrupt).
    pub fn ingest_position(&self, name: &str) -> Result<Option<IngestPosition>> {
        self.engine.noted(POSITION_PREFIX, name)
    }

    /// What was ingested up to the position of this name.
    pub(crate) fn ingest_source(&self, name: &str) -> Result<Option<IngestSource>> {
        self.engine.noted(SOURCE_PREFIX, name)
    }
}

impl Engine {
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
}
