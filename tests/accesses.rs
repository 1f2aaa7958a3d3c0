//! What counts as an access, and that counts survive.

mod common;

use apcm::{Attributes, Store};
use common::{Home, axis, plain_store, records};

#[test]
fn read_and_get_count_their_memory_and_nothing_else_does() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let a = store.put(b"a", &axis(0, 4), Attributes::default()).unwrap().id;
    let b = store.put(b"b", &axis(1, 4), Attributes::default()).unwrap().id;
    let counts = || (store.access_count(a).unwrap(), store.access_count(b).unwrap());
    store.read(&axis(0, 4)).unwrap();
    store.get(b"a").unwrap();
    store.get_id(b).unwrap();
    assert_eq!(counts(), (2, 1));
    store.peek(&axis(0, 4)).unwrap();
    store.peek_key(b"a").unwrap();
    store.peek_id(a).unwrap();
    store.contains(b"a").unwrap();
    store.search(&axis(0, 4)).run().unwrap();
    store.search(&axis(0, 4)).with_records().run().unwrap();
    for entry in store.iter().unwrap() {
        entry.unwrap().record().unwrap();
    }
    assert_eq!(counts(), (2, 1));
    store.search(&axis(0, 4)).k(2).counted().run().unwrap();
    assert_eq!(counts(), (3, 2));
    assert_eq!(store.stats().unwrap().reads, 5);
}

#[test]
fn replacing_a_keys_record_keeps_count_pin_and_expiry_and_makes_the_old_id_stale() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let pinned = Attributes::default().pinned().expiring_in(std::time::Duration::from_secs(1_000));
    let old = store.put(b"a", &axis(0, 4), pinned).unwrap().id;
    for _ in 0..3 {
        store.get(b"a").unwrap();
    }
    let new = store.put(b"a", &axis(1, 4), Attributes::default()).unwrap().id;
    assert_eq!((new.slot, store.len()), (old.slot, 1));
    assert_eq!((store.access_count(new), store.access_count(old)), (Some(3), None));
    let entry = store.iter().unwrap().next().unwrap().unwrap();
    assert!(entry.is_pinned() && entry.expires_at().is_some());
    assert_eq!((entry.count(), entry.record().unwrap()), (3, axis(1, 4)));
    store.close().unwrap();
    assert_eq!(Store::open(&home.path).unwrap().access_count(new), Some(3));
}

#[test]
fn counts_and_reads_survive_close_and_drop() {
    let home = Home::new();
    let store = plain_store(&home, 600, 4);
    let mut transaction = store.begin_write();
    transaction.insert_all(&records(&[4], common::noise(4 * 600, 3))).unwrap();
    let ids = transaction.commit().unwrap().ids;
    // Slots of three different counter chunks.
    for (times, slot) in [(3, 0), (5, 251), (7, 599)] {
        for _ in 0..times {
            store.get_id(ids[slot]).unwrap();
        }
    }
    store.close().unwrap();
    let store = Store::open(&home.path).unwrap();
    let counts = |store: &Store| [0, 251, 599, 1].map(|slot| store.access_count(ids[slot]).unwrap());
    assert_eq!(counts(&store), [3, 5, 7, 0]);
    store.get_id(ids[1]).unwrap();
    drop(store);
    let store = Store::open(&home.path).unwrap();
    assert_eq!(counts(&store), [3, 5, 7, 1]);
    assert_eq!(store.stats().unwrap().reads, 16);
}

#[test]
fn counts_ride_on_the_next_commit_and_are_not_applied_twice() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let id = store.insert(&axis(0, 4)).unwrap().id;
    for _ in 0..4 {
        store.get_id(id).unwrap();
    }
    store.insert(&axis(1, 4)).unwrap();
    store.get_id(id).unwrap();
    store.flush().unwrap();
    store.flush().unwrap();
    assert_eq!(store.access_count(id), Some(5));
    // What is on disk now, seen by a process that never closes this handle.
    let copy = home.file("copy.apcm");
    std::fs::copy(&home.path, &copy).unwrap();
    let copied = Store::open(&copy).unwrap();
    assert_eq!((copied.access_count(id), copied.stats().unwrap().reads), (Some(5), 5));
}

#[test]
fn a_slots_next_occupant_starts_at_zero() {
    let home = Home::new();
    let store = plain_store(&home, 1, 4);
    let old = store.insert(&axis(0, 4)).unwrap().id;
    for _ in 0..9 {
        store.get_id(old).unwrap();
    }
    let put = store.insert(&axis(1, 4)).unwrap();
    assert_eq!((put.evicted[0].count, store.access_count(put.id)), (9, Some(0)));
    store.remove_id(put.id).unwrap();
    let next = store.insert(&axis(2, 4)).unwrap().id;
    store.close().unwrap();
    assert_eq!(Store::open(&home.path).unwrap().access_count(next), Some(0));
}

#[test]
fn a_read_writes_nothing_to_the_file() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    store.insert(&axis(0, 4)).unwrap();
    let before = home.bytes();
    for _ in 0..100 {
        store.read(&axis(0, 4)).unwrap();
    }
    assert!(home.bytes() == before);
}

#[test]
fn read_only_handles_share_the_file_and_count_nothing() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let id = store.put(b"a", &axis(0, 4), Attributes::default()).unwrap().id;
    store.close().unwrap();
    let before = home.bytes();
    let one = Store::open_read_only(&home.path).unwrap();
    let two = Store::open_read_only(&home.path).unwrap();
    assert_eq!(one.read(&axis(0, 4)).unwrap().unwrap().id, id);
    assert_eq!(two.get(b"a").unwrap().unwrap().id, id);
    assert_eq!((one.access_count(id), one.stats().unwrap().reads), (Some(0), 0));
    for refused in [
        one.insert(&axis(1, 4)).map(drop),
        one.put(b"b", &axis(1, 4), Attributes::default()).map(drop),
        one.remove(b"a").map(drop),
        one.pin(id, true),
    ] {
        assert!(matches!(refused, Err(apcm::Error::ReadOnly)));
    }
    one.flush().unwrap();
    one.close().unwrap();
    drop(two);
    assert!(home.bytes() == before);
}

/// Nobody commits, flushes or closes: the flusher alone brings counts to the disk once enough of them wait.
#[test]
fn enough_reads_reach_the_disk_by_themselves() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let id = store.insert(&axis(0, 4)).unwrap().id;
    for _ in 0..65_536 {
        store.get_id(id).unwrap();
    }
    let copy = home.file("copy.apcm");
    // The flusher is another thread; how soon it gets to run is not what is tested, that it does is.
    for _ in 0..200 {
        std::fs::copy(&home.path, &copy).unwrap();
        if Store::open(&copy).is_ok_and(|copied| copied.access_count(id) == Some(65_536)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("65,536 reads were still only in memory after 20 seconds");
}

#[test]
fn readers_and_writers_at_once_never_see_a_stranger_under_an_id() {
    let home = Home::new();
    let store = plain_store(&home, 8, 16);
    for i in 0..8 {
        store.insert(&axis(i, 16)).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..300 {
                    let query = axis(i * 5 + thread, 16);
                    let memory = store.read(&query).unwrap().unwrap();
                    // A codec without loss: the similarity that was ranked is that of the record that came
                    // back.
                    let dot: f32 =
                        query.values().iter().zip(memory.record.values()).map(|(x, y)| x * y).sum();
                    let norm =
                        |record: &apcm::Record| record.values().iter().map(|x| x * x).sum::<f32>().sqrt();
                    let cosine = dot / norm(&query) / norm(&memory.record);
                    assert!((memory.similarity.unwrap() - cosine).abs() < 1e-6);
                }
            });
        }
        for i in 0..60 {
            store.insert(&axis(i * 7, 16)).unwrap();
        }
    });
    assert_eq!(store.len(), 8);
    let total: u64 = store.iter().unwrap().map(|entry| u64::from(entry.unwrap().count())).sum();
    assert!(total <= store.stats().unwrap().reads && store.stats().unwrap().reads == 900);
}
