//! A store against a model of it (F1 of the fault matrix in docs/reliability.md): random operations, the same
//! keys, slots, sequence numbers, counts, pins and values after each, and after every reopening, under every
//! policy.

mod common;

use apcm::{PlainCodec, Policy, Store};
use common::disk::{Disk, Random};
use common::model::{Model, Op, apply, memories, recall, tree};

fn values(random: &mut Random) -> [f32; 2] {
    [random.below(200) as f32 / 100.0 - 1.0, random.below(200) as f32 / 100.0 - 1.0]
}

fn op(random: &mut Random) -> Op {
    let key = random.below(6) as u8;
    match random.below(19) {
        0..4 => Op::Insert((0..=random.below(6)).map(|_| values(random)).collect()),
        4..9 => Op::Put(key, values(random)),
        9 => Op::Remove(key),
        10..13 => Op::Get(key, 1 + random.below(3) as u8),
        13 => Op::Pin(key, true),
        14 => Op::Pin(key, false),
        15 if random.below(8) == 0 => Op::Policy(policy(random)),
        16 | 17 => Op::Append(key % 2, (0..=random.below(5)).map(|_| values(random)).collect()),
        18 => Op::Recall(key % 2),
        _ => Op::Flush,
    }
}

fn policy(random: &mut Random) -> Policy {
    match random.below(4) {
        0 => Policy::Lfu,
        // So short that ranks are exact: at most a few hundred uses, which span fewer than 32 bits.
        1 => Policy::LfuAged { half_life: 64 },
        2 => Policy::Lru,
        _ => Policy::Fifo,
    }
}

#[test]
fn f1_a_store_does_what_its_model_does() {
    let (sequences, ops) = if std::env::var_os("APCM_DEEP").is_some() { (20_000, 200) } else { (1_000, 200) };
    let (mut evictions, mut refused, mut reopened, mut recalled) = (0, 0, 0, 0);
    for sequence in 0..sequences {
        let mut random = Random(sequence);
        let capacity = 1 + random.below(6) as usize;
        let disk = Disk::new();
        let policy = policy(&mut random);
        let builder = || Store::builder().capacity(capacity as u32).policy(policy).clock(|| 1_000);
        let mut store = builder().create_on(disk.clone(), PlainCodec::new(&[2], 2).unwrap()).unwrap();
        store.set_sweeper_tree(tree()).unwrap();
        let mut model = Model::new(capacity, policy);
        for step in 0..ops {
            let op = op(&mut random);
            if let Op::Recall(stream) = op {
                let found = recall(&store, stream).unwrap();
                assert_eq!(found, model.recalled(stream), "sequence {sequence}, step {step}");
                recalled += found.len();
                model.apply(&op);
                continue;
            }
            let (done, expected) = (apply(&store, &op).unwrap(), model.apply(&op));
            assert_eq!(done, expected, "sequence {sequence}, step {step}: {op:?}");
            refused += usize::from(!done);
            if random.below(20) == 0 {
                store.close().unwrap();
                store = builder().open_on(disk.clone()).unwrap();
                reopened += 1;
            }
            assert_eq!(
                memories(&store).unwrap(),
                model.memories(),
                "sequence {sequence}, step {step}: {op:?}"
            );
        }
        assert_eq!(store.stats().unwrap().evictions, model.evictions, "sequence {sequence}");
        evictions += model.evictions;
    }
    eprintln!(
        "{sequences} sequences of {ops}: {evictions} evictions, {refused} refused, {reopened} reopened, {recalled} recalled"
    );
    assert!(evictions > 10_000 && refused > 500 && reopened > 5_000 && recalled > 5_000);
}
