//! Parts of streams as memories: the tree that folded them, and what it unfolds.

use crate::codec::mean_record;
use crate::error::{Error, Result};
use crate::record::{Records, check_shape};
use crate::sequence::{SequenceState, SweeperTree};
use crate::store::engine::Engine;
use crate::store::file::{SWEEPER_TREE, read_image};
use crate::store::resident::Kept;
use crate::stored::{Stored, corrupt_part};
use apcm_format::{CodecImage, DecodeError, MemoryId};
use std::sync::Arc;

impl Engine {
    /// The sweeper tree's image, if there is one.
    pub(crate) fn tree_image(&self) -> Result<Option<Vec<u8>>> {
        let image = read_image(&self.handle.begin_read()?, self.header.uuid, SWEEPER_TREE, self.trees.limit)?;
        Ok(Some(image).filter(|image| !image.is_empty()))
    }

    pub(crate) fn kept_tree(&self) -> Result<Option<Kept>> {
        if let Some(kept) = self.trees.tree.read().as_ref() {
            return Ok(Some(kept.clone()));
        }
        let generation = self.trees.generation();
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
        let tree = Arc::new(SweeperTree::from_image(&image, self.trees.device).map_err(corrupt)?);
        let misfit = |_| Error::Corrupt {
            what: "the sweeper tree in the store".to_owned(),
            cause: DecodeError::Invalid {
                what: "the shape of its records",
                found: tree.shape().values() as u64,
            },
        };
        check_shape(self.header.shape, tree.shape()).map_err(misfit)?;
        let mut cached = self.trees.tree.write();
        // Exchanged, or loaded by another thread, while this one loaded it: then that one it is.
        if let Some(kept) = cached.as_ref() {
            return Ok(Some(kept.clone()));
        }
        // All parts in the file are its own.
        let kept = Kept { tree, since: 0, generation };
        *cached = Some(kept.clone());
        Ok(Some(kept))
    }

    /// The tree that folded a part which was read before. One that left meanwhile, with all others, so that the
    /// tree could be exchanged, is not to be unfolded by another's inverse.
    pub(crate) fn tree_of(&self, part: MemoryId) -> Result<Arc<SweeperTree>> {
        match self.kept_tree()? {
            Some(Kept { tree, since, .. }) if part.seq >= since => Ok(tree),
            Some(_) => Err(Error::NotFound { id: part }),
            None => {
                let cause =
                    DecodeError::Truncated { what: "the sweeper tree of a store", needed: 1, found: 0 };
                Err(corrupt_part(part.slot, cause))
            }
        }
    }

    pub(crate) fn tree_at_hand(&self) -> Result<Kept> {
        self.kept_tree()?.ok_or_else(|| {
            Error::argument(
                "the store's sweeper tree",
                "one, from Store::set_sweeper_tree or `apcm stream tree`",
                "none",
            )
        })
    }

    /// All records of a part.
    pub(crate) fn records_of_part(&self, stored: &Stored) -> Result<Records> {
        let part = stored.part()?;
        let state = SequenceState::new(part.errors.len() as u64, part.state);
        self.tree_of(stored.id)?.decode(&state).map_err(|error| misfit(stored.id.slot, &error))
    }

    /// The record of a part that is read as one memory: the mean of its records, like its search vector.
    pub(crate) fn mean_of_part(&self, stored: &Stored) -> Result<Vec<f32>> {
        Ok(mean_record(&self.records_of_part(stored)?)?.values().to_vec())
    }
}

/// A part that passed its checksum and that the tree cannot have made.
pub(crate) fn misfit(slot: u32, error: &Error) -> Error {
    let cause = DecodeError::Malformed { what: "a part of a stream", cause: error.to_string() };
    corrupt_part(slot, cause)
}
