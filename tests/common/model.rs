//! What a store should do, written a second time and as plainly as possible: a vector of slots.

use apcm::{Attributes, Device, Policy, Record, Records, Store, SweeperTree, Value};
use apcm_format::CodecImage;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A memory as the model knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    pub seq: u64,
    pub key: Option<Vec<u8>>,
    /// Which stream it is a part of, where it begins and how many records it has.
    pub part: Option<(u8, u64, u64)>,
    /// A part has none: its records are looked at when they are recalled.
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
    /// Records at the end of a stream, in one transaction.
    Append(u8, Vec<[f32; 2]>),
    /// All that is left of a stream, counted.
    Recall(u8),
    Flush,
}

/// Records in a part of a stream.
const PART: usize = 4;

/// The model: slots and their ranks, the next sequence number, counted reads, and how many memories left
/// against their will.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub policy: Policy,
    pub slots: Vec<Option<Memory>>,
    pub ranks: Vec<u128>,
    pub reads: u64,
    pub next_seq: u64,
    pub evictions: u64,
    /// Of each stream where the part under way begins, and how many records there ever were.
    heads: BTreeMap<u8, (u64, u64)>,
    /// What was written into parts, by stream and beginning, in hundredths.
    parts: BTreeMap<(u8, u64), Vec<[i32; 2]>>,
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
            heads: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// What one use at this time adds to a rank. An aged use weighs twice as much a half-life later, and what
    /// it weighs grows in a straight line between.
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

    /// Parts of a stream: where they begin, how many records they have, and where they are.
    fn parts_of(&self, stream: u8) -> Vec<(u64, u64, usize)> {
        let part = |(slot, memory): (usize, &Option<Memory>)| {
            let (of, first, len) = memory.as_ref()?.part?;
            (of == stream).then_some((first, len, slot))
        };
        let mut parts: Vec<(u64, u64, usize)> = self.slots.iter().enumerate().filter_map(part).collect();
        parts.sort_unstable();
        parts
    }

    fn find(&mut self, key: &[u8]) -> Option<&mut Memory> {
        self.slots.iter_mut().flatten().find(|memory| memory.key.as_deref() == Some(key))
    }

    /// Whether a memory is a part that its stream goes on with.
    fn is_open(&self, memory: &Memory) -> bool {
        memory.part.is_some_and(|(stream, first, len)| {
            len < PART as u64 && self.heads.get(&stream) == Some(&(first, first + len))
        })
    }

    /// The lowest free slot; else that of the memory of the lowest rank that is not pinned, the oldest among
    /// equals; a part that was appended to within as many writes as there are slots only after all that was
    /// there before, and one that this very transaction wrote only when there is no other.
    fn place(&mut self, memory: Memory, since: u64) -> bool {
        let free = self.slots.iter().position(Option::is_none);
        let victim = || {
            let candidates =
                self.slots.iter().enumerate().filter_map(|(slot, memory)| Some((slot, memory.as_ref()?)));
            let recent = since.saturating_sub(self.slots.len() as u64);
            let order = |(slot, memory): &(usize, &Memory)| {
                let under_way = memory.seq < since && memory.seq >= recent && self.is_open(memory);
                (memory.seq >= since, under_way, self.ranks[*slot], memory.seq)
            };
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
        let old = key.as_deref().and_then(|key| self.slot_of(key));
        self.write_over(
            old,
            Memory { seq: 0, key, part: None, values: bits(values), pinned: false, count: 0 },
            since,
        )
    }

    /// Writes a memory, in the place of an older one of the same name if there is one.
    fn write_over(&mut self, old: Option<usize>, memory: Memory, since: u64) -> bool {
        let seq = self.next_seq;
        self.next_seq += 1;
        if let Some(slot) = old {
            if let Some(old) = &mut self.slots[slot] {
                (old.seq, old.part, old.values) = (seq, memory.part, memory.values);
            }
            match self.policy {
                Policy::Lru => self.ranks[slot] = u128::from(seq + self.reads),
                Policy::LfuAged { .. } => self.ranks[slot] += self.weight(seq + self.reads),
                _ => {}
            }
            return true;
        }
        self.place(Memory { seq, ..memory }, since)
    }

    fn write_part(&mut self, stream: u8, first: u64, records: &[[i32; 2]], since: u64) -> bool {
        let old = self.parts_of(stream).into_iter().find(|part| part.0 == first).map(|part| part.2);
        self.parts.insert((stream, first), records.to_vec());
        let part = Some((stream, first, records.len() as u64));
        let memory = Memory { seq: 0, key: None, part, values: Vec::new(), pinned: false, count: 0 };
        self.write_over(old, memory, since)
    }

    /// Goes on with the part under way, if it is there and has room, and begins others.
    fn append(&mut self, stream: u8, values: &[[f32; 2]], since: u64) -> bool {
        let head = self.heads.get(&stream).copied();
        let (mut first, mut records) = match (self.parts_of(stream).last(), head) {
            (None, _) => (0, Vec::new()),
            (Some(&(first, len, _)), Some(head)) if head == (first, first + len) && len < PART as u64 => {
                (first, self.parts[&(stream, first)].clone())
            }
            (Some(&(first, len, _)), head) => (head.map_or(0, |head| head.1).max(first + len), Vec::new()),
        };
        for value in values {
            if records.len() == PART {
                if !self.write_part(stream, first, &records, since) {
                    return false;
                }
                first += PART as u64;
                records.clear();
            }
            records.push(value.map(hundredths));
        }
        if !self.write_part(stream, first, &records, since) {
            return false;
        }
        self.heads.insert(stream, (first, first + records.len() as u64));
        true
    }

    /// Counts a read, of nobody where a memory has left meanwhile.
    fn count(&mut self, slot: Option<usize>) {
        let tick = self.next_seq + self.reads;
        self.reads += 1;
        let Some(slot) = slot else { return };
        self.ranks[slot] = match self.policy {
            Policy::Lfu => self.ranks[slot] + 1,
            Policy::Lru => u128::from(tick),
            _ => self.ranks[slot] + self.weight(tick),
        };
        if let Some(memory) = &mut self.slots[slot] {
            memory.count += 1;
        }
    }

    /// What is left of a stream, by index.
    pub fn recalled(&self, stream: u8) -> Vec<(u64, [i32; 2])> {
        let parts = self.parts_of(stream);
        parts
            .iter()
            .flat_map(|&(first, ..)| (first..).zip(self.parts[&(stream, first)].iter().copied()))
            .collect()
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
                    (0..*times).for_each(|_| self.count(Some(slot)));
                }
                true
            }
            Op::Append(stream, values) => self.append(*stream, values, since),
            Op::Recall(stream) => {
                self.parts_of(*stream).into_iter().for_each(|(.., slot)| self.count(Some(slot)));
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
                            // When it was written is told by its number alone: reads are taken to have come
                            // evenly.
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

fn hundredths(value: f32) -> i32 {
    (100.0 * value).round() as i32
}

fn stream_name(stream: u8) -> String {
    format!("stream {stream}")
}

/// A tree whose states lose nothing, trained once.
pub fn tree() -> SweeperTree {
    static IMAGE: OnceLock<CodecImage> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let mut seen = Records::with_dims(&[2]).unwrap();
        (0..64_u32).for_each(|i| seen.push_values(&[(i % 7) as f32, (i % 5) as f32]).unwrap());
        let trained = SweeperTree::trainer(&seen, &[PART; 16]).state(2 * PART).untrained().train();
        trained.unwrap().tree.image().unwrap()
    });
    SweeperTree::from_image(image, Device::Cpu).unwrap()
}

/// All that is left of a stream, in hundredths, counted.
pub fn recall(store: &Store, stream: u8) -> apcm::Result<Vec<(u64, [i32; 2])>> {
    let recalled = store.stream(&stream_name(stream))?.recall_all()?;
    let values = |record: &Record| [hundredths(record.values()[0]), hundredths(record.values()[1])];
    Ok(recalled.iter().map(|recalled| (recalled.index, values(&recalled.record))).collect())
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
        Op::Append(stream, all) => {
            let mut records = Records::with_dims(&[2])?;
            all.iter().try_for_each(|values| records.push_values(values))?;
            store.stream(&stream_name(*stream))?.append_all(&records).map(drop)
        }
        Op::Recall(stream) => recall(store, *stream).map(drop),
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
            let number = |name: &str| match entry.metadata().get(name) {
                Some(Value::Int(number)) => *number as u64,
                _ => u64::MAX,
            };
            let part = match entry.metadata().get("stream") {
                Some(Value::Text(name)) => {
                    let stream = name.bytes().last().map_or(u8::MAX, |digit| digit - b'0');
                    Some((stream, number("first"), number("len")))
                }
                _ => None,
            };
            let record = entry.record()?;
            let memory = Memory {
                seq: entry.id().seq,
                key: entry.key().map(<[u8]>::to_vec),
                values: match part {
                    Some(_) => Vec::new(),
                    None => record.values().iter().map(|value| value.to_bits()).collect(),
                },
                part,
                pinned: entry.is_pinned(),
                count: entry.count(),
            };
            Ok((entry.id().slot, memory))
        })
        .collect()
}
