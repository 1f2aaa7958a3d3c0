//! What a store should do, written a second time and as plainly as possible: a vector of slots.

use apcm::{Attributes, Policy, Record, Store};
use std::collections::BTreeMap;

/// A memory as the model knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    pub seq: u64,
    pub key: Option<Vec<u8>>,
    pub values: Vec<u32>,
    pub pinned: bool,
    pub count: u32,
}

/// Something that is done to a store and to the model of it.
#[derive(Debug, Clone)]
pub enum Op {
    /// Records without keys, in one transaction.
    Insert(Vec<[f32; 2]>),
    Put(u8, [f32; 2]),
    Remove(u8),
    /// Counted reads of a key.
    Get(u8, u8),
    Pin(u8, bool),
    Policy(Policy),
    Flush,
}

/// The model: slots and their ranks, the next sequence number, counted reads, and how many memories left against their
/// will.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub policy: Policy,
    pub slots: Vec<Option<Memory>>,
    pub ranks: Vec<u128>,
    pub reads: u64,
    pub next_seq: u64,
    pub evictions: u64,
}

fn key_of(name: u8) -> Vec<u8> {
    vec![b'k', name]
}

fn bits(values: [f32; 2]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

impl Model {
    pub fn new(capacity: usize, policy: Policy) -> Self {
        Self {
            policy,
            slots: vec![None; capacity],
            ranks: vec![0; capacity],
            next_seq: 1,
            reads: 0,
            evictions: 0,
        }
    }

    /// What one use at this time adds to a rank. An aged use weighs twice as much a half-life later, and what it
    /// weighs grows in a straight line between.
    fn weight(&self, tick: u64) -> u128 {
        match self.policy {
            Policy::LfuAged { half_life } => {
                let half_life = u64::from(half_life);
                u128::from(half_life + tick % half_life) << (tick / half_life)
            }
            _ => 0,
        }
    }

    fn rank_of_written(&self, seq: u64, count: u32) -> u128 {
        match self.policy {
            Policy::Lfu => count.into(),
            Policy::Lru => u128::from(seq),
            Policy::LfuAged { .. } => self.weight(seq) * u128::from(count + 1),
            _ => 0,
        }
    }

    fn slot_of(&self, key: &[u8]) -> Option<usize> {
        let named = |memory: &Memory| memory.key.as_deref() == Some(key);
        self.slots.iter().position(|memory| memory.as_ref().is_some_and(named))
    }

    fn find(&mut self, key: &[u8]) -> Option<&mut Memory> {
        self.slots.iter_mut().flatten().find(|memory| memory.key.as_deref() == Some(key))
    }

    /// The lowest free slot; else that of the memory of the lowest rank that is not pinned, the oldest among equals, one that
    /// this very transaction wrote only when there is no other.
    fn place(&mut self, memory: Memory, since: u64) -> bool {
        let free = self.slots.iter().position(Option::is_none);
        let victim = || {
            let candidates =
                self.slots.iter().enumerate().filter_map(|(slot, memory)| Some((slot, memory.as_ref()?)));
            let order =
                |(slot, memory): &(usize, &Memory)| (memory.seq >= since, self.ranks[*slot], memory.seq);
            candidates.filter(|(_, memory)| !memory.pinned).min_by_key(order).map(|(slot, _)| slot)
        };
        match free.or_else(victim) {
            None => false,
            Some(slot) => {
                self.evictions += u64::from(free.is_none());
                self.ranks[slot] = match self.policy {
                    Policy::Lfu | Policy::Fifo => 0,
                    _ => self.rank_of_written(memory.seq + self.reads, 0),
                };
                self.slots[slot] = Some(memory);
                true
            }
        }
    }

    fn write(&mut self, key: Option<Vec<u8>>, values: [f32; 2], since: u64) -> bool {
        let seq = self.next_seq;
        self.next_seq += 1;
        let values = bits(values);
        if let Some(slot) = key.as_deref().and_then(|key| self.slot_of(key)) {
            if let Some(old) = &mut self.slots[slot] {
                (old.seq, old.values) = (seq, values);
            }
            match self.policy {
                Policy::Lru => self.ranks[slot] = u128::from(seq + self.reads),
                Policy::LfuAged { .. } => self.ranks[slot] += self.weight(seq + self.reads),
                _ => {}
            }
            return true;
        }
        self.place(Memory { seq, key, values, pinned: false, count: 0 }, since)
    }

    /// Does an operation; false, and nothing is done, where every slot is pinned.
    pub fn apply(&mut self, op: &Op) -> bool {
        let before = self.clone();
        let since = self.next_seq;
        let done = match op {
            Op::Insert(all) => all.iter().all(|&values| self.write(None, values, since)),
            Op::Put(key, values) => self.write(Some(key_of(*key)), *values, since),
            Op::Remove(key) => {
                let key = key_of(*key);
                for slot in &mut self.slots {
                    if slot.as_ref().is_some_and(|memory| memory.key.as_ref() == Some(&key)) {
                        *slot = None;
                    }
                }
                true
            }
            Op::Get(key, times) => {
                if let Some(slot) = self.slot_of(&key_of(*key)) {
                    for _ in 0..*times {
                        let tick = self.next_seq + self.reads;
                        self.ranks[slot] = match self.policy {
                            Policy::Lfu => self.ranks[slot] + 1,
                            Policy::Lru => u128::from(tick),
                            _ => self.ranks[slot] + self.weight(tick),
                        };
                        self.reads += 1;
                    }
                    if let Some(memory) = &mut self.slots[slot] {
                        memory.count += u32::from(*times);
                    }
                }
                true
            }
            Op::Pin(key, pinned) => {
                if let Some(memory) = self.find(&key_of(*key)) {
                    memory.pinned = *pinned;
                }
                true
            }
            Op::Policy(policy) => {
                if self.policy != *policy {
                    self.policy = *policy;
                    for slot in 0..self.slots.len() {
                        if let Some(memory) = &self.slots[slot] {
                            // When it was written is told by its number alone: reads are taken to have come evenly.
                            let written = memory.seq * (self.next_seq + self.reads) / self.next_seq;
                            self.ranks[slot] = self.rank_of_written(written, memory.count);
                        }
                    }
                }
                true
            }
            Op::Flush => true,
        };
        if !done {
            *self = before;
        }
        done
    }

    pub fn memories(&self) -> BTreeMap<u32, Memory> {
        (0..).zip(&self.slots).filter_map(|(slot, memory)| Some((slot, memory.clone()?))).collect()
    }
}

fn record(values: [f32; 2]) -> Record {
    Record::vector(values.to_vec()).unwrap()
}

/// Does an operation to a store; false where every slot is pinned.
pub fn apply(store: &Store, op: &Op) -> apcm::Result<bool> {
    let result = match op {
        Op::Insert(all) => {
            let mut transaction = store.begin_write();
            all.iter().try_for_each(|&values| transaction.insert(&record(values)))?;
            transaction.commit().map(drop)
        }
        Op::Put(key, values) => store.put(&key_of(*key), &record(*values), Attributes::default()).map(drop),
        Op::Remove(key) => store.remove(&key_of(*key)).map(drop),
        Op::Get(key, times) => (0..*times).try_for_each(|_| store.get(&key_of(*key)).map(drop)),
        Op::Pin(key, pinned) => match store.id_of(&key_of(*key))? {
            Some(id) => store.pin(id, *pinned),
            None => Ok(()),
        },
        Op::Policy(policy) => store.set_policy(*policy),
        Op::Flush => store.flush(),
    };
    match result {
        Err(apcm::Error::AllPinned { .. }) => Ok(false),
        other => other.map(|()| true),
    }
}

/// What a store holds, as the model would say it.
pub fn memories(store: &Store) -> apcm::Result<BTreeMap<u32, Memory>> {
    store
        .iter()?
        .map(|entry| {
            let entry = entry?;
            let memory = Memory {
                seq: entry.id().seq,
                key: entry.key().map(<[u8]>::to_vec),
                values: entry.record()?.values().iter().map(|value| value.to_bits()).collect(),
                pinned: entry.is_pinned(),
                count: entry.count(),
            };
            Ok((entry.id().slot, memory))
        })
        .collect()
}
