//! Workloads step by step, and what a store holds after each step.

use super::disk::{Disk, Random};
use apcm::{
    Attributes, Device, Fidelity, MemoryId, Metadata, PlainCodec, Policy, Record, Records, Store,
    StoreBuilder, StreamInfo, SweeperTree,
};
use apcm_format::CodecImage;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

/// Values of a record. The codec keeps two of them, so that residuals have something to say.
pub const DIMS: usize = 4;
pub const KEPT: usize = 2;
pub const CAPACITY: u32 = 6;

pub fn codec() -> PlainCodec {
    PlainCodec::new(&[DIMS], KEPT).unwrap()
}

/// The clock stands still: nothing expires while nobody looks.
pub fn builder() -> StoreBuilder {
    Store::builder().capacity(CAPACITY).clock(|| 1_000)
}

pub fn record(random: &mut Random) -> Record {
    let values = (0..DIMS).map(|_| random.below(2_000) as f32 / 1_000.0 - 1.0).collect();
    Record::vector(values).unwrap()
}

/// Everything about a memory that must survive, bit for bit.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub key: Option<Vec<u8>>,
    pub metadata: Metadata,
    pub record: Vec<u32>,
    pub error: u32,
    pub pinned: bool,
    pub expires_at: Option<u32>,
    pub residual: usize,
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub memories: BTreeMap<(u32, u64), Kept>,
    pub evictions: u64,
    pub residuals_dropped: u64,
    pub position: Option<u64>,
    pub policy: Policy,
    pub streams: Vec<StreamInfo>,
}

/// Everything that can be read; an error where something that must be readable is not.
pub fn snapshot(store: &Store) -> apcm::Result<Snapshot> {
    let mut memories = BTreeMap::new();
    for entry in store.iter()? {
        let entry = entry?;
        let record = entry.record()?;
        let id = entry.id();
        let kept = Kept {
            key: entry.key().map(<[u8]>::to_vec),
            metadata: entry.metadata().clone(),
            record: record.values().iter().map(|value| value.to_bits()).collect(),
            error: entry.error().to_bits(),
            pinned: entry.is_pinned(),
            expires_at: entry.expires_at(),
            residual: entry.residual_len(),
        };
        if let Some(key) = &kept.key {
            assert_eq!(store.id_of(key)?, Some(id), "a key leads to its slot");
        }
        memories.insert((id.slot, id.seq), kept);
    }
    let stats = store.stats()?;
    assert_eq!(stats.occupied + stats.free, stats.capacity);
    assert_eq!(stats.damaged, 0);
    let position = store.ingest_position("data")?.map(|position| position.next);
    let streams = store.streams()?;
    Ok(Snapshot {
        memories,
        evictions: stats.evictions,
        residuals_dropped: stats.residuals_dropped,
        position,
        policy: store.policy(),
        streams,
    })
}

/// Access counts by slot and sequence number.
pub type Counts = BTreeMap<(u32, u64), u32>;

/// Access counts of all memories.
pub fn counts(store: &Store) -> apcm::Result<Counts> {
    store
        .iter()?
        .map(|entry| {
            let entry = entry?;
            Ok(((entry.id().slot, entry.id().seq), entry.count()))
        })
        .collect()
}

/// What was promised after a step.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Events of the disk when the step had returned.
    pub events: usize,
    pub snapshot: Snapshot,
    /// Counts that are on disk for certain, and counts as they truly are.
    pub flushed: Counts,
    pub counted: Counts,
}

/// One step does at most one commit; it says whether it did.
pub type Step = fn(&Store, usize, &mut Random) -> apcm::Result<bool>;

/// A workload.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    pub name: &'static str,
    pub steps: usize,
    pub byte_budget: Option<u64>,
    /// Whether there is a sweeper tree.
    pub tree: bool,
    pub step: Step,
}

/// The four workloads that are crashed at every write.
pub const SCRIPTS: [Script; 4] = [
    Script { name: "fill and evict", steps: 26, byte_budget: None, tree: false, step: fill_and_evict },
    Script { name: "batches", steps: 16, byte_budget: None, tree: false, step: batches },
    Script { name: "tiers under a budget", steps: 20, byte_budget: Some(700), tree: false, step: tiers },
    Script { name: "streams and policies", steps: 24, byte_budget: None, tree: true, step: streams },
];

/// A tree that folds four records into six values.
fn tree() -> SweeperTree {
    static TREE: OnceLock<Vec<u8>> = OnceLock::new();
    let image = TREE.get_or_init(|| {
        let mut random = Random(3);
        let mut seen = Records::with_dims(&[DIMS]).unwrap();
        (0..160).for_each(|_| seen.push_values(record(&mut random).values()).unwrap());
        let tree = SweeperTree::trainer(&seen, &[4; 40]).state(6).untrained().train().unwrap().tree;
        tree.image().unwrap().encode().unwrap()
    });
    SweeperTree::from_image(&CodecImage::decode(image).unwrap(), Device::default()).unwrap()
}

fn streams(store: &Store, step: usize, random: &mut Random) -> apcm::Result<bool> {
    const POLICIES: [Policy; 4] = [Policy::Lru, Policy::Fifo, Policy::LfuAged { half_life: 8 }, Policy::Lfu];
    match step % 6 {
        0 | 3 => store.stream("a")?.append(&record(random)).map(|_| true),
        1 => {
            let mut some = Records::with_dims(&[DIMS])?;
            (0..3).try_for_each(|_| some.push_values(record(random).values()))?;
            store.stream("b")?.append_all(&some).map(|_| true)
        }
        2 => store.insert(&record(random)).map(|_| true),
        4 => {
            store.stream("a")?.recall_all()?;
            store.set_policy(POLICIES[step / 6 % 4]).map(|()| true)
        }
        _ if step % 12 == 11 => store.stream("b")?.remove().map(|_| true),
        _ => {
            store.read(&record(random))?;
            Ok(false)
        }
    }
}

fn fill_and_evict(store: &Store, step: usize, random: &mut Random) -> apcm::Result<bool> {
    match step % 5 {
        0 | 1 => store.insert(&record(random)).map(|_| true),
        2 => store.put(&[b'a' + (step % 3) as u8], &record(random), Attributes::default()).map(|_| true),
        3 => {
            for _ in 0..=random.below(4) {
                store.read(&record(random))?;
            }
            Ok(false)
        }
        _ => store.flush().map(|()| true),
    }
}

fn batches(store: &Store, step: usize, random: &mut Random) -> apcm::Result<bool> {
    let mut transaction = store.begin_write();
    for _ in 0..=random.below(3) {
        let long = "x".repeat(random.below(3_000) as usize);
        let metadata =
            Metadata::from([("note".to_owned(), long.into()), ("step".to_owned(), (step as i64).into())]);
        let key = [b'k', random.below(4) as u8];
        transaction.put(&key, &record(random), metadata)?;
    }
    match step % 4 {
        0 => transaction.remove(&[b'k', random.below(4) as u8])?,
        1 => {
            let attributes = Attributes::default().pinned().expiring_in(Duration::from_secs(5_000));
            transaction.insert_with(&record(random), attributes)?;
        }
        2 => {
            let pinned: Vec<MemoryId> = store
                .iter()?
                .filter_map(Result::ok)
                .filter(apcm::Entry::is_pinned)
                .map(|entry| entry.id())
                .collect();
            pinned.into_iter().for_each(|id| transaction.pin(id, false));
        }
        _ => {
            store.read(&record(random))?;
        }
    }
    let position = apcm_format::IngestPosition { next: step as u64, total: 100, source_bytes: 1_000 };
    transaction.set_ingest_position("data", position);
    transaction.commit().map(|_| true)
}

fn tiers(store: &Store, step: usize, random: &mut Random) -> apcm::Result<bool> {
    let fidelity = match step % 4 {
        0 => Fidelity::Lossless,
        1 => Fidelity::Bounded(1e-4),
        2 => Fidelity::Compact,
        _ => {
            store.read(&record(random))?;
            return Ok(false);
        }
    };
    let attributes = Attributes::default().with_fidelity(fidelity);
    match step % 3 {
        0 => store.put(b"key", &record(random), attributes).map(|_| true),
        _ => store.insert_with(&record(random), attributes).map(|_| true),
    }
}

/// A script's empty store.
pub fn create(script: &Script, disk: &Disk) -> apcm::Result<Store> {
    let mut creating = builder();
    if let Some(bytes) = script.byte_budget {
        creating = creating.byte_budget(bytes);
    }
    let store = creating.create_on(disk.clone(), codec())?;
    if script.tree {
        store.set_sweeper_tree(tree())?;
    }
    Ok(store)
}

/// Runs a script; notes what was promised after each step, the empty store first. Ends at the first error.
pub fn go(script: &Script, store: &Store, disk: &Disk, promises: &mut Vec<Promise>) -> apcm::Result<()> {
    let mut random = Random(script.steps as u64);
    let mut flushed = BTreeMap::new();
    for step in 0..=script.steps {
        if step > 0 && (script.step)(store, step - 1, &mut random)? {
            flushed = counts(store)?;
        }
        let events = disk.events();
        promises.push(Promise {
            events,
            snapshot: snapshot(store)?,
            flushed: flushed.clone(),
            counted: counts(store)?,
        });
    }
    Ok(())
}
