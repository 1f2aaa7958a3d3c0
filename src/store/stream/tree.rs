//! The tree that folds a store's streams: kept in the file beside the codec.

use super::Kept;
use crate::error::{Error, Result};
use crate::record::check_shape;
use crate::sequence::SweeperTree;
use crate::store::Inner;
use crate::store::commit::durable;
use crate::store::file::{read_image, write_codec};
use crate::store::guard::storage;
use crate::store::tables::SWEEPER_TREE;
use crate::stored::corrupt_part;
use apcm_format::{CodecImage, DecodeError, MemoryId, StreamPart, limits};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Inner {
    pub(super) fn set_tree(&self, tree: SweeperTree) -> Result<()> {
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
        // As it will be read again. Loading computes, which no lock is held across.
        let tree = Arc::new(SweeperTree::from_image(&CodecImage::decode(&image)?, self.streams.device)?);
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
        let mut cached = self.streams.tree.write();
        self.write_tree(&image)?;
        // An append that computed with another tree sees by it that it was too late.
        let generation = self.streams.generation.fetch_add(1, Ordering::AcqRel) + 1;
        // Parts that are there, of a tree that was lost, are this one's.
        let since = if found > 0 { 0 } else { self.live.read().state().next_seq };
        *cached = Some(Kept { tree, since, generation });
        Ok(())
    }

    /// Puts another store's tree into this one, which nobody uses yet.
    pub(in crate::store) fn put_tree(&self, image: &[u8]) -> Result<()> {
        let _writer = self.writer.lock();
        self.write_tree(image)
    }

    fn write_tree(&self, image: &[u8]) -> Result<()> {
        self.check_room(image.len(), 1)?;
        self.poisoning(|| {
            let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
            write_codec(&transaction, self.header.uuid, SWEEPER_TREE, image)?;
            durable(transaction)
        })
    }

    /// The sweeper tree's image, if there is one.
    pub(in crate::store) fn tree_image(&self) -> Result<Option<Vec<u8>>> {
        let image =
            read_image(&self.handle.begin_read()?, self.header.uuid, SWEEPER_TREE, self.streams.limit)?;
        Ok(Some(image).filter(|image| !image.is_empty()))
    }

    pub(super) fn kept_tree(&self) -> Result<Option<Kept>> {
        if let Some(kept) = self.streams.tree.read().as_ref() {
            return Ok(Some(kept.clone()));
        }
        let generation = self.streams.generation();
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
        let mut cached = self.streams.tree.write();
        // Exchanged, or loaded by another thread, while this one loaded it: then that one it is.
        if let Some(kept) = cached.as_ref() {
            return Ok(Some(kept.clone()));
        }
        // All parts in the file are its own.
        let kept = Kept { tree, since: 0, generation };
        *cached = Some(kept.clone());
        Ok(Some(kept))
    }

    /// The tree that folded a part which was read before. One that left meanwhile, with all others, so that the tree could be
    /// exchanged, is not to be unfolded by another's inverse.
    pub(super) fn tree_of(&self, part: MemoryId) -> Result<Arc<SweeperTree>> {
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

    pub(super) fn tree_at_hand(&self) -> Result<Kept> {
        self.kept_tree()?.ok_or_else(|| {
            Error::argument(
                "the store's sweeper tree",
                "one, from Store::set_sweeper_tree or `apcm stream tree`",
                "none",
            )
        })
    }
}
