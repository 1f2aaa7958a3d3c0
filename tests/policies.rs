//! Policies beyond the paper's: who leaves under each, that it is kept across reopening, changing, recoding and
//! copying, and that damage to what they keep costs no memory. `tests/differential.rs` holds them beside a
//! model.

mod common;

use apcm::{Attributes, Error, InMemoryBackend, MemoryId, PlainCodec, Policy, Store};
use common::{Home, axis};
use redb::{Database, ReadableTable, TableDefinition};

const POLICIES: [Policy; 4] = [Policy::Lfu, Policy::LfuAged { half_life: 20 }, Policy::Lru, Policy::Fifo];

fn store(home: &Home, policy: Policy) -> Store {
    Store::builder()
        .capacity(4)
        .policy(policy)
        .create(&home.path, PlainCodec::new(&[16], 16).unwrap())
        .unwrap()
}

/// Four memories, of which the first was read most, long ago, the second and third since, and the fourth never.
fn filled(store: &Store) -> [MemoryId; 4] {
    let ids = [0, 1, 2].map(|i| store.insert(&axis(i, 16)).unwrap().id);
    for (slot, reads) in [(0, 50), (1, 30), (2, 20), (1, 1)] {
        for _ in 0..reads {
            store.get_id(ids[slot]).unwrap();
        }
    }
    [ids[0], ids[1], ids[2], store.insert(&axis(3, 16)).unwrap().id]
}

/// Memories in the order in which they leave: each newcomer is read so much that it stays.
fn leaving(store: &Store) -> Vec<u32> {
    (0..3)
        .map(|i| {
            let put = store.put(&[i], &axis(8 + usize::from(i), 16), Attributes::default()).unwrap();
            for _ in 0..100 {
                store.get_id(put.id).unwrap();
            }
            put.evicted[0].id.slot
        })
        .collect()
}

fn expected(policy: Policy) -> [u32; 3] {
    match policy {
        // Never, 20 times, 31 times.
        Policy::Lfu => [3, 2, 1],
        // The first was read most, but that was more than two half-lives ago; the third's 20 reads are one
        // half-life younger than the second's 30.
        Policy::LfuAged { .. } => [3, 0, 1],
        Policy::Lru => [0, 2, 1],
        _ => [0, 1, 2],
    }
}

#[test]
fn each_policy_has_its_own_order() {
    for policy in POLICIES {
        let home = Home::new();
        let store = store(&home, policy);
        filled(&store);
        assert_eq!(leaving(&store), expected(policy), "{policy}");
        assert_eq!((store.policy(), store.stats().unwrap().policy), (policy, policy));
    }
}

#[test]
fn the_order_survives_reopening_and_copies() {
    for policy in POLICIES {
        let home = Home::new();
        // Chosen at creation, and changed after it.
        let first = store(&home, if policy == Policy::Fifo { Policy::Lru } else { Policy::Fifo });
        first.set_policy(policy).unwrap();
        filled(&first);
        let copy = home.file("copy.apcm");
        first.backup(&copy).run().unwrap();
        let moved = home.file("moved.apcm");
        first.recode(&moved, PlainCodec::new(&[16], 15).unwrap()).run().unwrap();
        first.close().unwrap();
        let salvaged = home.file("salvaged.apcm");
        Store::salvage(&home.path, &salvaged).run().unwrap();
        assert_eq!(Store::open(&salvaged).unwrap().policy(), policy);
        for path in [&home.path, &copy, &moved] {
            let store = Store::open(path).unwrap();
            assert_eq!(store.policy(), policy);
            assert_eq!(leaving(&store), expected(policy), "{policy}, {}", path.display());
            store.close().unwrap();
            assert!(Store::verify(path).run().unwrap().ok);
        }
    }
}

#[test]
fn a_policy_can_be_changed_and_begins_with_what_is_known() {
    for policy in POLICIES {
        let home = Home::new();
        let store = store(&home, Policy::Lfu);
        filled(&store);
        store.set_policy(policy).unwrap();
        let stats = store.stats().unwrap();
        assert_eq!((stats.policy, stats.occupied, stats.reads), (policy, 4, 101));
        store.close().unwrap();
        let store = Store::open(&home.path).unwrap();
        assert_eq!(store.policy(), policy);
        let expected = match policy {
            Policy::Lfu => [3, 2, 1],
            // Counts, as if each memory's reads had come when it was written, and the store's reads evenly
            // between the writes: a good half-life lies between two of them.
            Policy::LfuAged { .. } => [3, 0, 1],
            // When a memory was read nobody wrote down: the order of writes.
            _ => [0, 1, 2],
        };
        assert_eq!(leaving(&store), expected, "{policy}");
        store.set_policy(Policy::Lfu).unwrap();
        assert_eq!(store.policy(), Policy::Lfu);
        store.close().unwrap();
        assert!(Store::verify(&home.path).run().unwrap().ok);
    }
}

#[test]
fn replacing_a_keys_record_is_a_use_where_writing_is() {
    let aged = Policy::LfuAged { half_life: 1_000 };
    for (policy, leaves) in [(Policy::Lfu, b"a"), (aged, b"b"), (Policy::Fifo, b"b"), (Policy::Lru, b"b")] {
        let builder = Store::builder().capacity(2).policy(policy);
        let store = builder.create_on(InMemoryBackend::new(), PlainCodec::new(&[16], 16).unwrap()).unwrap();
        for (key, i) in [(b"a", 0), (b"b", 1), (b"a", 2)] {
            store.put(key, &axis(i, 16), Attributes::default()).unwrap();
        }
        store.get(b"b").unwrap();
        store.put(b"a", &axis(3, 16), Attributes::default()).unwrap();
        let put = store.insert(&axis(4, 16)).unwrap();
        assert_eq!(put.evicted[0].key.as_deref(), Some(leaves.as_slice()), "{policy}");
    }
}

#[test]
fn a_pack_keeps_counts_and_an_unpacked_store_begins_with_them() {
    let home = Home::new();
    let first = store(&home, Policy::Lru);
    filled(&first);
    let pack = home.file("memories.apack");
    first.export_pack(&pack).run().unwrap();
    let pack = apcm::Pack::open(&pack).unwrap();
    for (policy, expected) in
        [(Policy::Lfu, [3, 2, 1]), (Policy::LfuAged { half_life: 20 }, [3, 2, 1]), (Policy::Lru, [0, 1, 2])]
    {
        let path = home.file(&format!("{}.apcm", policy.to_string().replace(':', "-")));
        let store = Store::builder().capacity(4).policy(policy).unpack(&pack, &path).run().unwrap();
        assert_eq!(leaving(&store), expected, "{policy}");
    }
}

#[test]
fn a_damaged_chunk_of_uses_costs_an_order_and_no_memory() {
    const USES: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("uses");
    let home = Home::new();
    let first = store(&home, Policy::Lru);
    filled(&first);
    first.close().unwrap();
    let database = Database::open(&home.path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut uses = transaction.open_table(USES).unwrap();
        let mut value = uses.get(0).unwrap().unwrap().value().to_vec();
        value[3] ^= 1;
        uses.insert(0, value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let report = Store::verify(&home.path).run().unwrap();
    assert!(!report.ok && report.use_chunks_checked == 1, "{report:?}");
    let store = Store::open(&home.path).unwrap();
    assert_eq!((store.len(), leaving(&store)), (4, vec![0, 1, 2]));
    store.close().unwrap();
    // What was read since is written whole again.
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

#[test]
fn a_half_life_of_nothing_is_an_error_and_changes_nothing() {
    let home = Home::new();
    let store = store(&home, Policy::Lru);
    let error = store.set_policy(Policy::LfuAged { half_life: 0 }).unwrap_err();
    assert!(matches!(error, Error::Argument { .. }), "{error}");
    assert_eq!(error.to_string(), "the half-life must be at least 1, found 0");
    assert_eq!(store.policy(), Policy::Lru);
    store.close().unwrap();
    let reader = Store::open_read_only(&home.path).unwrap();
    assert!(matches!(reader.set_policy(Policy::Fifo), Err(Error::ReadOnly)));
}

/// Under every policy, the memories that are used most by a skewed workload are there more often than by
/// chance.
#[test]
fn what_is_used_stays() {
    for policy in POLICIES {
        let builder = Store::builder().capacity(64).policy(policy);
        let store = builder.create_on(InMemoryBackend::new(), PlainCodec::new(&[16], 16).unwrap()).unwrap();
        let mut state = 7_u64;
        let (mut hits, rounds) = (0, 4_000);
        for _ in 0..rounds {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Density falls as 1 / key, over 1 to 1024.
            let key = (2_f64.powf((state >> 11) as f64 / (1_u64 << 53) as f64 * 10.0) as u32).to_le_bytes();
            if store.get(&key).unwrap().is_some() {
                hits += 1;
            } else {
                store.put(&key, &axis(1, 16), Attributes::default()).unwrap();
            }
        }
        // 64 of 1024 keys by chance are 6 %; the 64 most wanted ones are wanted in 60 %.
        let rate = f64::from(hits) / f64::from(rounds);
        assert!((0.35..0.6).contains(&rate), "{policy}: {rate}");
    }
}

/// Policies change while others read, write and flush: nothing is invented, lost or damaged.
#[test]
fn a_policy_can_be_changed_in_the_middle_of_everything() {
    let home = Home::new();
    let store = store(&home, Policy::Lfu);
    (0..4).for_each(|i| drop(store.put(&[i], &axis(usize::from(i), 16), Attributes::default()).unwrap()));
    let done = std::sync::atomic::AtomicBool::new(false);
    let reads: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut reads = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        match worker {
                            0 => drop(store.put(b"new", &axis(9, 16), Attributes::default()).unwrap()),
                            _ => reads += u64::from(store.read(&axis(1, 16)).unwrap().is_some()),
                        }
                    }
                    reads
                })
            })
            .collect();
        for round in 0..40 {
            store.set_policy(POLICIES[round % 4]).unwrap();
            store.flush().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!((store.stats().unwrap().reads, store.len(), store.policy()), (reads, 4, Policy::Fifo));
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
    let store = Store::open(&home.path).unwrap();
    assert_eq!((store.stats().unwrap().reads, store.policy()), (reads, Policy::Fifo));
}
