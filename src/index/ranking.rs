//! The best `k` of a scan, in a total order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A slot and how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) slot: u32,
    pub(crate) similarity: f32,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    /// Nearer is greater; among equals the lower slot is.
    fn cmp(&self, other: &Self) -> Ordering {
        self.similarity.total_cmp(&other.similarity).then(other.slot.cmp(&self.slot))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Keeps the best `k` of the rows it is shown, above a floor that the caller knows too.
#[derive(Debug)]
pub(super) struct Best {
    k: usize,
    floor: f32,
    heap: BinaryHeap<Reverse<Ranked>>,
}

impl Best {
    pub(super) fn new(k: usize, floor: f32) -> Self {
        Self { k, floor, heap: BinaryHeap::new() }
    }

    pub(super) fn show(&mut self, ranked: Ranked) {
        if self.heap.len() < self.k {
            self.heap.push(Reverse(ranked));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && ranked > worst.0
        {
            worst.0 = ranked;
        }
    }

    /// What must be reached to be among the best: the floor, until there are `k`.
    ///
    /// Similarities are clamped to -1, and sums may lie below it by rounding: a threshold of -1 is one that
    /// every sum reaches.
    pub(super) fn threshold(&self) -> f32 {
        let threshold = match self.heap.peek() {
            Some(worst) if self.heap.len() == self.k => worst.0.similarity.max(self.floor),
            _ => self.floor,
        };
        if threshold <= -1.0 { f32::NEG_INFINITY } else { threshold }
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        other.heap.into_iter().for_each(|Reverse(ranked)| self.show(ranked));
        self
    }

    /// Nearest first.
    pub(super) fn into_sorted(self) -> Vec<Ranked> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked).collect()
    }
}
