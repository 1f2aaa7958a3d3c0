//! Where memories go: free slots first, then the least used, the oldest among equals.

mod common;

use apcm::{Attributes, Error, Record};
use common::{Home, axis, plain_store, vector};
use std::time::Duration;

#[test]
fn n_inserts_fill_n_slots_and_none_twice() {
    let home = Home::new();
    let store = plain_store(&home, 5, 8);
    let slots: Vec<u32> = (0..5).map(|i| store.insert(&axis(i, 8)).unwrap().id.slot).collect();
    assert_eq!(slots, [0, 1, 2, 3, 4]);
    assert_eq!(store.len(), 5);
    for i in 0..5 {
        assert_eq!(store.peek(&axis(i, 8)).unwrap().unwrap().record, axis(i, 8));
    }
}

#[test]
fn a_full_store_evicts_the_least_used_and_the_oldest_among_equals() {
    let home = Home::new();
    let store = plain_store(&home, 4, 8);
    let ids: Vec<_> = (0..4).map(|i| store.insert(&axis(i, 8)).unwrap().id).collect();
    for i in [0, 0, 1, 3] {
        store.read(&axis(i, 8)).unwrap();
    }
    let expected = [ids[2], ids[1], ids[3], ids[0]];
    for (i, expected) in expected.into_iter().enumerate() {
        // Reads make each newcomer dearer than the others, so that it does not leave again at once.
        let put = store.insert(&axis(4 + i, 8)).unwrap();
        assert_eq!(put.evicted.iter().map(|evicted| evicted.id).collect::<Vec<_>>(), [expected]);
        for _ in 0..5 {
            store.read(&axis(4 + i, 8)).unwrap();
        }
    }
}

#[test]
fn a_newcomer_nobody_reads_is_the_next_to_go() {
    let home = Home::new();
    let store = plain_store(&home, 2, 4);
    store.insert(&axis(0, 4)).unwrap();
    store.insert(&axis(1, 4)).unwrap();
    store.read(&axis(0, 4)).unwrap();
    store.read(&axis(1, 4)).unwrap();
    let first = store.insert(&axis(2, 4)).unwrap();
    let second = store.insert(&axis(3, 4)).unwrap();
    assert_eq!(second.evicted[0].id, first.id);
    let stats = store.stats().unwrap();
    assert_eq!((stats.evictions, stats.evictions_never_read), (2, 1));
}

#[test]
fn a_batch_as_large_as_a_full_hot_store_replaces_all_of_it() {
    let home = Home::new();
    let store = plain_store(&home, 6, 8);
    for i in 0..6 {
        store.insert(&axis(i, 8)).unwrap();
        for _ in 0..10 {
            store.read(&axis(i, 8)).unwrap();
        }
    }
    let mut transaction = store.begin_write();
    for i in 0..6 {
        transaction.insert(&vector(&[1.0, 1.0, i as f32, 0.0, 0.0, 0.0, 0.0, 1.0])).unwrap();
    }
    let done = transaction.commit().unwrap();
    assert_eq!(done.evicted.len(), 6);
    assert!(done.ids.iter().all(|&id| store.peek_id(id).is_ok()));
}

#[test]
fn a_batch_larger_than_the_store_keeps_its_last_records() {
    let home = Home::new();
    let store = plain_store(&home, 3, 8);
    let mut transaction = store.begin_write();
    for i in 0..7 {
        transaction.insert(&axis(i, 8)).unwrap();
    }
    let done = transaction.commit().unwrap();
    assert_eq!((done.ids.len(), done.evicted.len(), store.len()), (7, 4, 3));
    let there: Vec<bool> = done.ids.iter().map(|&id| store.peek_id(id).is_ok()).collect();
    assert_eq!(there, [false, false, false, false, true, true, true]);
}

#[test]
fn a_removed_memory_frees_the_lowest_slot_for_the_next() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let ids: Vec<_> = (0..4).map(|i| store.insert(&axis(i, 4)).unwrap().id).collect();
    store.remove_id(ids[2]).unwrap();
    store.remove_id(ids[1]).unwrap();
    let put = store.insert(&axis(5, 4)).unwrap();
    assert_eq!((put.id.slot, put.evicted.len()), (1, 0));
    assert_eq!(store.insert(&axis(6, 4)).unwrap().id.slot, 2);
}

#[test]
fn a_pinned_slot_is_never_a_victim_and_all_pinned_loses_nothing() {
    let home = Home::new();
    let store = plain_store(&home, 3, 4);
    let ids: Vec<_> = (0..3).map(|i| store.insert(&axis(i, 4)).unwrap().id).collect();
    store.pin(ids[0], true).unwrap();
    store.read(&axis(2, 4)).unwrap();
    let put = store.insert(&axis(3, 4)).unwrap();
    assert_eq!(put.evicted[0].id, ids[1], "slot 0 is as unused and older, but pinned");
    store.pin(ids[2], true).unwrap();
    store.pin(put.id, true).unwrap();
    let error = store.insert(&vector(&[1.0, 1.0, 1.0, 1.0])).unwrap_err();
    assert!(matches!(error, Error::AllPinned { capacity: 3 }), "{error}");
    for id in [ids[0], ids[2], put.id] {
        store.peek_id(id).unwrap();
    }
    store.close().unwrap();
    let store = apcm::Store::open(&home.path).unwrap();
    assert_eq!((store.len(), store.stats().unwrap().pinned), (3, 3));
    store.pin(ids[2], false).unwrap();
    assert_eq!(store.insert(&axis(1, 4)).unwrap().evicted[0].id, ids[2]);
}

#[test]
fn an_expired_memory_is_not_found_and_its_slot_is_free() {
    let home = Home::new();
    let time = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1_000));
    let clock = std::sync::Arc::clone(&time);
    let store = common::plain_builder(2)
        .clock(move || clock.load(std::sync::atomic::Ordering::Relaxed))
        .create(&home.path, apcm::PlainCodec::new(&[4], 4).unwrap())
        .unwrap();
    let short = Attributes::default().expiring_in(Duration::from_secs(10));
    let old = store.put(b"old", &axis(0, 4), short).unwrap().id;
    store.put(b"new", &axis(1, 4), Attributes::default()).unwrap();
    time.store(1_009, std::sync::atomic::Ordering::Relaxed);
    assert!(store.contains(b"old").unwrap());
    time.store(1_010, std::sync::atomic::Ordering::Relaxed);
    assert!(!store.contains(b"old").unwrap());
    assert!(matches!(store.peek_id(old), Err(Error::NotFound { .. })));
    assert_eq!(store.len(), 1);
    assert_eq!(store.peek(&axis(0, 4)).unwrap().unwrap().key.as_deref(), Some(&b"new"[..]));
    assert_eq!(store.iter().unwrap().count(), 1);
    // Its slot is free: nobody is evicted, and its key is gone with it.
    let put = store.insert(&axis(2, 4)).unwrap();
    assert_eq!((put.id.slot, put.evicted.len()), (old.slot, 0));
    assert_eq!(store.stats().unwrap().evictions, 0);
    assert_eq!(store.get(b"old").unwrap(), None);
}

#[test]
fn a_stale_id_never_reaches_the_slots_next_occupant() {
    let home = Home::new();
    let store = plain_store(&home, 1, 4);
    let old = store.put(b"a", &axis(0, 4), Attributes::default()).unwrap().id;
    let new = store.insert(&axis(1, 4)).unwrap();
    assert_eq!(new.id.slot, old.slot);
    assert_eq!(new.evicted[0].key.as_deref(), Some(&b"a"[..]));
    for result in [store.get_id(old).map(drop), store.pin(old, true), store.remove_id(old)] {
        assert!(matches!(result, Err(Error::NotFound { id }) if id == old));
    }
    assert_eq!(store.access_count(old), None);
    // After a reopen too: sequence numbers go on where they stopped.
    store.remove_id(new.id).unwrap();
    store.close().unwrap();
    let store = apcm::Store::open(&home.path).unwrap();
    let next = store.insert(&axis(2, 4)).unwrap().id;
    assert!(next.seq > new.id.seq);
    assert!(store.peek_id(old).is_err() && store.peek_id(new.id).is_err());
}

#[test]
fn an_evicted_key_is_gone_from_every_table() {
    let home = Home::new();
    let store = plain_store(&home, 1, 4);
    let metadata = apcm::Metadata::from([("kind".into(), "note".into())]);
    store.put(b"gone", &axis(0, 4), metadata.clone()).unwrap();
    let put = store.insert(&axis(1, 4)).unwrap();
    assert_eq!((put.evicted[0].key.as_deref(), &put.evicted[0].metadata), (Some(&b"gone"[..]), &metadata));
    assert!(!store.contains(b"gone").unwrap());
    assert_eq!(store.get(b"gone").unwrap(), None);
    assert!(!store.remove(b"gone").unwrap());
    let heir = store.peek_id(put.id).unwrap();
    assert_eq!((heir.key, heir.metadata.len()), (None, 0));
    assert!(store.search(&axis(1, 4)).filter("kind = 'note'").unwrap().run().unwrap().is_empty());
    store.close().unwrap();
    let store = apcm::Store::open(&home.path).unwrap();
    assert!(!store.contains(b"gone").unwrap());
    // The key is free for another memory.
    store.put(b"gone", &axis(2, 4), Attributes::default()).unwrap();
    assert_eq!(store.get(b"gone").unwrap().unwrap().record, axis(2, 4));
}

#[test]
fn the_zero_vector_is_a_memory_like_any_other_and_near_to_nothing() {
    let home = Home::new();
    let store = plain_store(&home, 3, 4);
    let zero = Record::vector(vec![0.0; 4]).unwrap();
    let id = store.insert(&zero).unwrap().id;
    assert_eq!(store.peek_id(id).unwrap().record, zero);
    let found = store.read(&zero).unwrap().unwrap();
    assert_eq!((found.id, found.similarity), (id, Some(0.0)));
    let opposite = store.insert(&vector(&[-1.0, 0.0, 0.0, 0.0])).unwrap().id;
    let hits = store.search(&axis(0, 4)).run().unwrap();
    assert_eq!(
        hits.iter().map(|hit| (hit.id, hit.similarity)).collect::<Vec<_>>(),
        [(id, 0.0), (opposite, -1.0)]
    );
}
