//! The sweeper tree that folds the store's streams, once it was asked for.

use crate::codec::Device;
use crate::sequence::SweeperTree;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sweeper tree in memory, and the limits for loading it.
pub(crate) struct Trees {
    /// The sweeper tree, once it was asked for.
    pub(crate) tree: RwLock<Option<Kept>>,
    pub(crate) device: Device,
    /// Memory that the tree may take.
    pub(crate) limit: u64,
    /// How often the tree was exchanged; it is under the writer's lock.
    pub(crate) generation: AtomicU64,
}

/// A tree, the sequence number that the first part it folded can have, and which of the store's trees it is.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) tree: Arc<SweeperTree>,
    pub(crate) since: u64,
    pub(crate) generation: u64,
}

impl Trees {
    pub(crate) fn new(device: Device, limit: u64) -> Self {
        Self { tree: RwLock::new(None), device, limit, generation: AtomicU64::new(0) }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
