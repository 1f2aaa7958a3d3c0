//! How much each memory is used, as the TMNN paper writes it: the access-frequency logarithm.

use crate::error::Result;
use crate::store::engine::Engine;
use crate::store::store::Store;
use apcm_format::MemoryId;

/// Added to every count, so that no logarithm is of zero.
const SMOOTHING: f64 = 1.0;

/// Access counts of all memories, and what follows from them.
///
/// The paper prints `beta_i = log(-c_i / C)`, the logarithm of a negative number; what its text describes is
/// the negative logarithm of the access frequency, `beta_i = -ln((c_i + 1) / (C + N))`, which this is. Its
/// softmax has a closed form, `w_i = (1 / (c_i + 1)) / sum_j 1 / (c_j + 1)`. The least used memory has the
/// greatest `beta`: among equals the oldest, which is evicted next, by the integer rule that
/// [placement](crate::Store::insert) follows.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct AccessFrequency {
    /// One entry a memory, in slot order.
    pub memories: Vec<MemoryFrequency>,
    /// Sum of all counts, `C`.
    pub total: u64,
}

/// How much one memory is used.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryFrequency {
    /// The memory.
    pub id: MemoryId,
    /// How often it was read, `c_i`.
    pub count: u32,
    /// Its part of all reads, `c_i / C`; 0 where nothing was read.
    pub share: f64,
    /// The access-frequency logarithm.
    pub beta: f64,
    /// `beta`, normalized by a softmax: the weights of all memories add up to 1.
    pub weight: f64,
    /// Whether it is never a victim.
    pub pinned: bool,
}

impl AccessFrequency {
    fn of(memories: Vec<(MemoryId, u32, bool)>) -> Self {
        let total: u64 = memories.iter().map(|&(_, count, _)| u64::from(count)).sum();
        let all = total as f64 + SMOOTHING * memories.len() as f64;
        let inverse = |count: u32| 1.0 / (f64::from(count) + SMOOTHING);
        let sum: f64 = memories.iter().map(|&(_, count, _)| inverse(count)).sum();
        let memories = memories
            .into_iter()
            .map(|(id, count, pinned)| MemoryFrequency {
                id,
                count,
                share: f64::from(count) / (total as f64).max(1.0),
                beta: -((f64::from(count) + SMOOTHING) / all).ln(),
                weight: inverse(count) / sum,
                pinned,
            })
            .collect();
        Self { memories, total }
    }

    /// The memory with the greatest `beta`, the oldest among equals, of those that may go: the next to make
    /// room under [`Policy::Lfu`](crate::Policy::Lfu), the paper's; other policies look at other things.
    pub fn least_used(&self) -> Option<&MemoryFrequency> {
        let may_go = self.memories.iter().filter(|memory| !memory.pinned);
        may_go.max_by(|a, b| a.beta.total_cmp(&b.beta).then(b.id.seq.cmp(&a.id.seq)))
    }
}

impl Store {
    /// How much each memory is used: counts, shares and the access-frequency logarithm of the TMNN paper.
    /// Counts nothing.
    ///
    /// # Errors
    /// [`Poisoned`](crate::Error::Poisoned).
    pub fn access_frequency(&self) -> Result<AccessFrequency> {
        self.engine.check_usable()?;
        Ok(self.engine.access_frequency())
    }
}

impl Engine {
    pub(crate) fn access_frequency(&self) -> AccessFrequency {
        let now = self.now();
        let resident = self.resident.read();
        let there = resident.bank().iter().filter(|(slot, _)| resident.occupant(*slot, now).is_some());
        AccessFrequency::of(
            there
                .filter(|(_, occupant)| !occupant.damaged)
                .map(|(slot, occupant)| {
                    (MemoryId { slot, seq: occupant.seq }, resident.counts().get(slot), occupant.pinned)
                })
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The closed form is the softmax of beta, and the greatest beta is the least (count, sequence) of
        /// integers, whatever the counts.
        #[test]
        fn the_greatest_beta_is_the_least_used_by_integers(
            memories in prop::collection::vec(
                (prop_oneof![0..3_u32, Just(u32::MAX), Just(u32::MAX - 1), any::<u32>()], any::<bool>()), 1..40,
            ),
            shift in 0_u64..40,
        ) {
            let count = memories.len() as u64;
            let named: Vec<(MemoryId, u32, bool)> = memories
                .iter()
                .enumerate()
                .map(|(slot, &(reads, pinned))| {
                    (MemoryId { slot: slot as u32,
                        seq: 1 + (slot as u64 * 7 + shift) % count.max(1) * count + slot as u64 }, reads,
                            pinned)
                })
                .collect();
            let frequency = AccessFrequency::of(named.clone());
            let least = named.iter().filter(|(_, _, pinned)| !pinned).min_by_key(|(id, reads, _)| (*reads,
                id.seq));
            prop_assert_eq!(frequency.least_used().map(|memory| memory.id), least.map(|(id, _, _)| *id));
            let greatest = frequency.memories.iter().map(|memory| memory.beta).fold(f64::MIN, f64::max);
            let powers: f64 = frequency.memories.iter().map(|memory| (memory.beta - greatest).exp()).sum();
            for memory in &frequency.memories {
                prop_assert!(memory.beta.is_finite());
                prop_assert!(((memory.beta - greatest).exp() / powers - memory.weight).abs() < 1e-9);
            }
            let sum: f64 = frequency.memories.iter().map(|memory| memory.weight).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9);
        }
    }
}
