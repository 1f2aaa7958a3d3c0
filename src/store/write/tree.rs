//! The tree that folds a store's streams: kept in the file beside the codec.

use super::commit::durable;
use crate::error::{Error, Result};
use crate::record::check_shape;
use crate::sequence::SweeperTree;
use crate::store::engine::Engine;
use crate::store::file::{SWEEPER_TREE, storage, write_codec};
use crate::store::resident::Kept;
use apcm_format::{CodecImage, StreamPart, limits};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Engine {
    pub(crate) fn set_tree(&self, tree: SweeperTree) -> Result<()> {
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
        let tree = Arc::new(SweeperTree::from_image(&CodecImage::decode(&image)?, self.trees.device)?);
        let _writer = self.writer.lock();
        self.check_usable()?;
        let found = self.resident.read().parts();
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
        let mut cached = self.trees.tree.write();
        self.write_tree(&image)?;
        // An append that computed with another tree sees by it that it was too late.
        let generation = self.trees.generation.fetch_add(1, Ordering::AcqRel) + 1;
        // Parts that are there, of a tree that was lost, are this one's.
        let since = if found > 0 { 0 } else { self.resident.read().state().next_seq };
        *cached = Some(Kept { tree, since, generation });
        Ok(())
    }

    /// Writes another store's tree into this one, which is not in use yet.
    pub(crate) fn put_tree(&self, image: &[u8]) -> Result<()> {
        let _writer = self.writer.lock();
        self.write_tree(image)
    }

    fn write_tree(&self, image: &[u8]) -> Result<()> {
        self.check_room(image.len(), 1)?;
        self.poisoning("commit", || {
            let transaction = self.handle.writable()?.begin_write().map_err(storage("begin a write"))?;
            write_codec(&transaction, self.header.uuid, SWEEPER_TREE, image)?;
            durable(transaction)
        })
    }
}
