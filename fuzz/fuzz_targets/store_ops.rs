//! Any operations do to a store what they do to its model, and when the power fails at any write, what is found
//! is what was promised or what was under way.
#![no_main]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/common/disk.rs"]
mod disk;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/common/model.rs"]
mod model;

use apcm::{PlainCodec, Policy, Store, StoreBuilder};
use disk::{Disk, Fate, Fill, Moment};
use libfuzzer_sys::fuzz_target;
use model::{Memory, Model, Op, apply, memories, tree};
use std::collections::BTreeMap;

const CAPACITY: usize = 4;

fn builder() -> StoreBuilder {
    Store::builder().capacity(CAPACITY as u32).clock(|| 1_000)
}

fn values(byte: u8) -> [f32; 2] {
    [f32::from(byte) / 64.0 - 2.0, f32::from(byte ^ 0x55) / 64.0 - 2.0]
}

fn op(kind: u8, byte: u8) -> Op {
    let key = byte % 5;
    match kind % 8 {
        0 => Op::Insert((0..=kind / 64).map(|i| values(byte.wrapping_add(i))).collect()),
        1 => Op::Append(key % 2, (0..=kind / 64).map(|i| values(byte.wrapping_add(i))).collect()),
        2 | 3 => Op::Put(key, values(byte)),
        4 => Op::Remove(key),
        5 => Op::Get(key, 1 + kind / 128),
        6 => Op::Pin(key, kind >= 128),
        _ if kind >= 128 => Op::Recall(key % 2),
        _ => Op::Flush,
    }
}

/// Without counts, which may be behind after a crash.
fn uncounted(memories: BTreeMap<u32, Memory>) -> BTreeMap<u32, Memory> {
    memories.into_iter().map(|(slot, memory)| (slot, Memory { count: 0, ..memory })).collect()
}

// The input: where the power fails and what arrives, which also says the policy, then operations of two bytes
// each.
fuzz_target!(|data: &[u8]| {
    let [a, b, fate, rest @ ..] = data else { return };
    let disk = Disk::new();
    let policy = [Policy::Lfu, Policy::Lru, Policy::Fifo, Policy::LfuAged { half_life: 64 }]
        [usize::from(fate / 4 % 4)];
    let store = builder().policy(policy).create_on(disk.clone(), PlainCodec::new(&[2], 2).unwrap()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    let mut model = Model::new(CAPACITY, policy);
    let mut promises = vec![(disk.events(), model.memories())];
    for step in rest.chunks_exact(2).take(60) {
        let op = op(step[0], step[1]);
        assert_eq!(apply(&store, &op).unwrap(), model.apply(&op), "{op:?}");
        let found = memories(&store).unwrap();
        assert_eq!(found, model.memories(), "{op:?}");
        promises.push((disk.events(), found));
    }
    store.close().unwrap();
    let log = disk.log();
    let first = promises[0].0;
    let point = first + usize::from(u16::from_le_bytes([*a, *b])) % (log.len() - first + 1);
    let moment = Moment::after(&[], &log, point);
    let fill = if fate & 64 == 0 { Fill::Zeros } else { Fill::Garbage };
    let last = moment.pending.len().saturating_sub(1);
    let image = moment.image(
        |index| match fate % 4 {
            0 => Fate::Kept,
            1 if index % 2 == usize::from(fate / 128) => Fate::Lost,
            2 if index == last => Fate::Head(usize::from(*fate) * 16),
            3 => Fate::Sectors(u64::from(*fate) << 8 | index as u64),
            _ => Fate::Kept,
        },
        fill,
    );
    let store = builder().open_on(Disk::holding(image)).unwrap();
    let found = uncounted(memories(&store).unwrap());
    let kept = promises.partition_point(|(events, _)| *events <= point);
    let allowed = &promises[kept - 1..(kept + 1).min(promises.len())];
    assert!(allowed.iter().any(|(_, memories)| uncounted(memories.clone()) == found), "{found:?}");
});
