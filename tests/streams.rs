//! Streams: appended, recalled, found, evicted, crashed, damaged and moved.

mod common;

use apcm::sequence::SweeperTree;
use apcm::{
    Attributes, Error, InMemoryBackend, Pack, PlainCodec, Policy, Record, Records, Store, StoreBuilder, Value,
};
use common::disk::{Disk, Fate, Fill, Moment};
use common::{Home, records, vector};
use redb::{Database, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::sync::OnceLock;

const STREAMS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("streams");

/// Two points that go round circles at different speeds.
fn walk(i: usize) -> [f32; 4] {
    let (a, b) = (i as f32 / 5.0, i as f32 / 11.0);
    [a.sin(), a.cos(), 0.5 * b.sin(), 0.5 * b.cos()]
}

fn step(i: usize) -> Record {
    vector(&walk(i))
}

/// A tree that folds sixteen steps into twelve values.
fn tree() -> SweeperTree {
    let seen = records(&[4], (0..640).flat_map(walk).collect());
    SweeperTree::trainer(&seen, &[16; 40]).state(12).untrained().train().unwrap().tree
}

fn codec() -> PlainCodec {
    PlainCodec::new(&[4], 4).unwrap()
}

fn store(home: &Home, capacity: u32) -> Store {
    let store = Store::builder().capacity(capacity).create(&home.path, codec()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    store
}

fn filled(home: &Home, capacity: u32, steps: usize) -> Store {
    let store = store(home, capacity);
    let steps = records(&[4], (0..steps).flat_map(walk).collect());
    store.stream("walk").unwrap().append_all(&steps).unwrap();
    store
}

fn error(a: &Record, b: &Record) -> f32 {
    let squares = a.values().iter().zip(b.values()).map(|(x, y)| (x - y) * (x - y));
    squares.sum::<f32>() / a.values().len() as f32
}

#[test]
fn what_was_appended_comes_back_with_the_error_that_was_measured() {
    let home = Home::new();
    let store = store(&home, 10);
    let stream = store.stream("walk").unwrap();
    for i in 0..40 {
        let appended = stream.append(&step(i)).unwrap();
        assert_eq!((appended.index, appended.evicted.len()), (i as u64, 0));
        let recalled = stream.recall(i as u64).unwrap();
        assert_eq!((recalled.index, recalled.error), (i as u64, appended.error));
        assert!(error(&recalled.record, &step(i)) <= recalled.error);
        assert_eq!((store.len(), stream.len().unwrap()), (i / 16 + 1, i as u64 + 1));
    }
    let all = stream.recall_all().unwrap();
    assert_eq!(all.len(), 40);
    for (i, recalled) in all.iter().enumerate() {
        assert!(error(&recalled.record, &step(i)) < 0.02, "{i}: {recalled:?}");
        let alone = stream.recall(i as u64).unwrap();
        assert!(error(&alone.record, &recalled.record) < 1e-9);
    }
    let some = stream.recall_range(10..35).unwrap();
    assert_eq!(some.iter().map(|recalled| recalled.index).collect::<Vec<_>>(), (10..35).collect::<Vec<_>>());
    assert!(stream.recall_range(7..7).unwrap().is_empty());
    let info = &store.streams().unwrap()[0];
    assert_eq!((info.name.as_str(), info.len, info.records, info.parts), ("walk", 40, 40, 3));
}

#[test]
fn one_by_one_all_at_once_and_after_a_restart_are_the_same_stream() {
    let (one, all) = (Home::new(), Home::new());
    let mut store = store(&one, 10);
    for i in 0..37 {
        store.stream("walk").unwrap().append(&step(i)).unwrap();
        if i % 5 == 0 {
            store.close().unwrap();
            store = Store::open(&one.path).unwrap();
        }
    }
    let at_once = filled(&all, 10, 37);
    let found = store.stream("walk").unwrap().recall_all().unwrap();
    assert_eq!(found, at_once.stream("walk").unwrap().recall_all().unwrap());
    assert!(Store::verify(&one.path).run().is_err(), "it is open");
    store.close().unwrap();
    let report = Store::verify(&one.path).run().unwrap();
    assert!(report.ok && report.streams_checked == 1, "{report:?}");
}

#[test]
fn a_part_has_the_greatest_norm_of_its_records() {
    let home = Home::new();
    let mut store = store(&home, 10);
    for (i, scale) in [1.0, 3.0, 2.0].into_iter().cycle().take(20).enumerate() {
        let scaled = walk(i).map(|value| scale * value);
        store.stream("walk").unwrap().append(&vector(&scaled)).unwrap();
        if i == 3 {
            store.close().unwrap();
            store = Store::open(&home.path).unwrap();
        }
    }
    // All steps of the walk are as long; of the last four the longest is thrice that.
    let longest = 3.0 * 1.25_f32.sqrt();
    for entry in store.iter().unwrap() {
        let norm = entry.unwrap().norm();
        assert!((longest..longest * 1.01).contains(&norm), "{norm}");
    }
}

#[test]
fn a_part_is_found_by_the_mean_of_its_records() {
    let home = Home::new();
    let store = filled(&home, 10, 20);
    store.put(b"other", &vector(&[0.0, 0.0, -3.0, 1.0]), Attributes::default()).unwrap();
    let mut mean = [0.0; 4];
    (0..16).for_each(|i| mean.iter_mut().zip(walk(i)).for_each(|(mean, value)| *mean += value / 16.0));
    let hits = store.search(&vector(&mean)).k(1).with_records().run().unwrap();
    let hit = &hits[0];
    assert!(hit.similarity > 0.9999 && hit.key.is_none(), "{hit:?}");
    assert_eq!(hit.metadata["stream"], Value::Text("walk".to_owned()));
    assert_eq!((&hit.metadata["first"], &hit.metadata["len"]), (&Value::Int(0), &Value::Int(16)));
    assert!(error(hit.record.as_ref().unwrap(), &vector(&mean)) < 1e-2);
    let filtered =
        store.search(&vector(&mean)).filter("stream = 'walk' and first > 0").unwrap().run().unwrap();
    assert_eq!(filtered.len(), 1);
    let hard = store.read_soft(&vector(&mean)).temperature(0.0).run().unwrap().unwrap();
    let read = store.read(&vector(&mean)).unwrap().unwrap();
    assert_eq!((hard.shares[0].memory.id, &hard.record), (read.id, &read.record));
    // A part has no code to blend.
    let soft = store.read_soft(&vector(&mean)).temperature(10.0).run().unwrap().unwrap();
    assert_eq!(soft.shares.len(), 1);
    // The same after opening, from what is stored.
    store.close().unwrap();
    let store = Store::open(&home.path).unwrap();
    let again = store.search(&vector(&mean)).k(1).with_records().run().unwrap();
    assert_eq!(again, hits);
    let entries: Vec<_> =
        store.iter().unwrap().map(|entry| entry.unwrap().key().map(<[u8]>::to_vec)).collect();
    assert_eq!(entries, [None, None, Some(b"other".to_vec())]);
}

#[test]
fn parts_make_room_like_memories_and_what_is_left_stays_readable() {
    let home = Home::new();
    let builder = Store::builder().capacity(3).policy(Policy::Fifo);
    let store = builder.create(&home.path, codec()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    let stream = store.stream("walk").unwrap();
    for i in 0..64 {
        let appended = stream.append(&step(i)).unwrap();
        // The fourth part takes the first one's slot.
        assert_eq!(appended.evicted.len(), usize::from(i == 48), "{i}");
        if i == 48 {
            assert_eq!(appended.evicted[0].key, None);
            assert_eq!(appended.evicted[0].metadata["stream"], Value::Text("walk".to_owned()));
        }
    }
    let gone = stream.recall(5).unwrap_err();
    assert!(matches!(&gone, Error::Forgotten { stream, index: 5 } if stream == "walk"), "{gone}");
    assert!(matches!(stream.recall_range(10..20).unwrap_err(), Error::Forgotten { index: 10, .. }));
    let left: Vec<u64> = stream.recall_all().unwrap().iter().map(|recalled| recalled.index).collect();
    assert_eq!(left, (16..64).collect::<Vec<u64>>());
    let info = &store.streams().unwrap()[0];
    assert_eq!((info.len, info.records, info.parts), (64, 48, 3));
}

#[test]
fn a_stream_whose_part_under_way_made_room_goes_on_and_one_of_which_nothing_is_left_begins_again() {
    let home = Home::new();
    let store = filled(&home, 5, 20);
    let stream = store.stream("walk").unwrap();
    let open = store.search(&step(18)).filter("first = 16").unwrap().run().unwrap()[0].id;
    store.remove_id(open).unwrap();
    // Nobody knows any more that there were 20.
    assert_eq!(stream.len().unwrap(), 20);
    let appended = stream.append(&step(20)).unwrap();
    assert_eq!((appended.index, appended.id.slot), (20, open.slot));
    assert!(matches!(stream.recall(17).unwrap_err(), Error::Forgotten { index: 17, .. }));
    assert!(error(&stream.recall(20).unwrap().record, &step(20)) < 0.01);
    assert_eq!(stream.recall_all().unwrap().len(), 17);
    assert_eq!(stream.remove().unwrap(), 2);
    assert_eq!((stream.len().unwrap(), store.streams().unwrap().len(), store.len()), (0, 0, 0));
    store.close().unwrap();
    let report = Store::verify(&home.path).run().unwrap();
    assert!(report.ok && report.streams_checked == 0, "its head went with its last part: {report:?}");
    let store = Store::open(&home.path).unwrap();
    let stream = store.stream("walk").unwrap();
    assert_eq!(stream.append(&step(0)).unwrap().index, 0);
    store.close().unwrap();
    let report = Store::verify(&home.path).run().unwrap();
    assert!(report.ok && report.streams_checked == 1, "{report:?}");
}

#[test]
fn what_cannot_be_is_an_error_with_the_numbers_and_changes_nothing() {
    let home = Home::new();
    let bare = Store::builder().capacity(4).create(&home.path, codec()).unwrap();
    assert_eq!(bare.sweeper_tree().unwrap().map(|_| ()), None);
    let none = bare.stream("walk").unwrap().append(&step(0)).unwrap_err();
    assert!(none.to_string().contains("Store::set_sweeper_tree"), "{none}");
    assert!(bare.stream("walk").unwrap().recall_all().unwrap().is_empty());
    for name in ["", &"x".repeat(256)] {
        let error = bare.stream(name).unwrap_err().to_string();
        assert!(error.contains("1 to 255 bytes") && error.contains(&name.len().to_string()), "{error}");
    }
    assert!(bare.stream(&"x".repeat(255)).is_ok());
    bare.set_sweeper_tree(tree()).unwrap();
    bare.set_sweeper_tree(tree()).unwrap();
    let stream = bare.stream("walk").unwrap();
    let other = stream.append(&vector(&[1.0; 5])).unwrap_err();
    assert!(matches!(other, Error::RecordShape { .. }), "{other}");
    let beyond = stream.recall(0).unwrap_err();
    assert_eq!(beyond.to_string(), "the index in a stream must be below 0, found 0");
    let beyond = stream.recall(u64::MAX).unwrap_err();
    assert_eq!(beyond.to_string(), format!("the index in a stream must be below 0, found {}", u64::MAX));
    stream.append(&step(0)).unwrap();
    assert_eq!(stream.recall(1).unwrap_err().to_string(), "the index in a stream must be below 1, found 1");
    let (late, early) = (9, 3);
    assert!(stream.recall_range(late..early).unwrap().is_empty());
    assert!(stream.append_all(&Records::with_dims(&[4]).unwrap()).unwrap().is_empty());
    let seen = records(&[4], (0..640).flat_map(walk).collect());
    let other = SweeperTree::trainer(&seen, &[8; 80]).state(9).untrained().train().unwrap().tree;
    let exchanged = bare.set_sweeper_tree(other).unwrap_err();
    assert!(exchanged.to_string().contains("1 parts of streams"), "{exchanged}");
    let seen = records(&[3], common::noise(3 * 64, 1));
    let shape = SweeperTree::trainer(&seen, &[8; 8]).state(6).untrained().train().unwrap().tree;
    assert!(matches!(bare.set_sweeper_tree(shape).unwrap_err(), Error::RecordShape { .. }));
    // No key of a user's leads to a part.
    let key = [b"\xffapcm stream\0".as_slice(), b"\x04walk", &[0; 8]].concat();
    assert!(bare.put(&key, &step(1), Attributes::default()).is_err() && bare.get(&key).is_err());
    assert_eq!((bare.len(), stream.len().unwrap()), (1, 1));
    bare.close().unwrap();
    let reader = Store::open_read_only(&home.path).unwrap();
    let stream = reader.stream("walk").unwrap();
    assert!(matches!(stream.append(&step(1)).unwrap_err(), Error::ReadOnly));
    assert_eq!(stream.recall_all().unwrap().len(), 1);
}

#[test]
fn recalls_count_for_their_part_and_appends_do_not() {
    let home = Home::new();
    let store = filled(&home, 4, 20);
    let stream = store.stream("walk").unwrap();
    stream.recall(3).unwrap();
    stream.recall_range(10..18).unwrap();
    let counts: Vec<u32> = store.iter().unwrap().map(|entry| entry.unwrap().count()).collect();
    assert_eq!(counts, [2, 1]);
    // Counts are the part's: they stay when another record is folded in.
    stream.append(&step(20)).unwrap();
    let counts: Vec<u32> = store.iter().unwrap().map(|entry| entry.unwrap().count()).collect();
    assert_eq!(counts, [2, 1]);
}

/// Appending is not an access: a stream that is never recalled is evicted like any memory that is never read.
/// Only the open part is protected, and only while it is recent.
#[test]
fn a_stream_that_is_never_recalled_is_evicted_part_by_part() {
    let home = Home::new();
    let store = filled(&home, 5, 70);
    assert_eq!(store.stats().unwrap().free, 0);
    let put = |i: usize| store.insert(&vector(&[i as f32, 1.0, 0.0, 0.0])).unwrap();
    let parts: Vec<u32> = (0..4).map(|i| put(i).evicted[0].id.slot).collect();
    assert_eq!(parts, [0, 1, 2, 3], "full parts leave, the oldest first");
    let stream = store.stream("walk").unwrap();
    assert_eq!(stream.recall_all().unwrap().len(), 6);
    stream.append(&step(70)).unwrap();
    // The last part was recalled once; with a use each the four others stay, and newcomers share one slot.
    for entry in store.iter().unwrap() {
        let id = entry.unwrap().id();
        store.get_id(id).unwrap();
    }
    let put = |i: usize| store.insert(&vector(&[i as f32, 1.0, 0.0, 0.0])).unwrap();
    let evicted: Vec<u32> = (0..6).map(|i| put(i).evicted[0].id.slot).collect();
    assert!(evicted.iter().all(|&slot| slot < 4), "{evicted:?}: the part under way stays");
    // A stream that is left alone is under way no more once the store has been written through.
    let home = Home::new();
    let store = filled(&home, 3, 3);
    let put = |i: usize| store.insert(&vector(&[i as f32, 1.0, 0.0, 0.0])).unwrap();
    let evicted: Vec<Vec<u32>> =
        (0..6).map(|i| put(i).evicted.iter().map(|evicted| evicted.id.slot).collect()).collect();
    assert_eq!(evicted[2], [1], "{evicted:?}: the part is the oldest, and stays");
    assert!(evicted.iter().flatten().any(|&slot| slot == 0), "{evicted:?}");
}

#[test]
fn threads_that_append_to_one_stream_get_every_index_once() {
    let home = Home::new();
    let store = store(&home, 20);
    let indices: BTreeSet<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let store = &store;
                scope.spawn(move || {
                    let stream = store.stream("walk").unwrap();
                    let own = store.stream(&format!("own {worker}")).unwrap();
                    (0..12)
                        .map(|i| {
                            assert_eq!(own.append(&step(i)).unwrap().index, i as u64);
                            stream.append(&step(100 * worker + i)).unwrap().index
                        })
                        .collect::<Vec<u64>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(indices, (0..48).collect());
    assert_eq!(store.stream("walk").unwrap().recall_all().unwrap().len(), 48);
    assert_eq!(store.streams().unwrap().len(), 5);
}

/// Appends and recalls while the parts they are about are evicted: no call fails, and what is left is
/// whole.
#[test]
fn threads_whose_parts_make_room_for_each_other_never_fail() {
    let home = Home::new();
    let store = Store::builder().capacity(3).policy(Policy::Lru).create(&home.path, codec()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let stream = store.stream(&format!("own {worker}")).unwrap();
                for i in 0..60 {
                    stream.append(&step(i)).unwrap();
                    stream.recall_all().unwrap();
                    if worker == 0 {
                        store.insert(&step(i)).unwrap();
                    }
                }
            });
            scope.spawn(move || {
                let stream = store.stream(&format!("own {worker}")).unwrap();
                for i in 0..60 {
                    for recalled in stream.recall_all().unwrap() {
                        assert!(
                            recalled.record.values().iter().all(|value| value.abs() < 2.0),
                            "{recalled:?}"
                        );
                    }
                    match stream.recall(i) {
                        Ok(recalled) => assert_eq!(recalled.index, i),
                        Err(Error::Forgotten { .. } | Error::Argument { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert_eq!(store.len(), 3);
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

#[test]
fn more_parts_at_once_than_there_are_slots_leave_the_last_ones() {
    let home = Home::new();
    let store = store(&home, 2);
    let stream = store.stream("walk").unwrap();
    let steps = records(&[4], (0..80).flat_map(walk).collect());
    let appended = stream.append_all(&steps).unwrap();
    assert_eq!((appended.len(), stream.len().unwrap(), store.len()), (80, 80, 2));
    let left = stream.recall_all().unwrap();
    assert_eq!(left.len(), 32);
    for recalled in &left {
        assert!(error(&recalled.record, &step(recalled.index as usize)) < 0.02, "{recalled:?}");
    }
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

/// What does not fit into a state as a number must not take those with it that are there.
#[test]
fn a_record_that_overflows_is_refused_and_harms_no_other() {
    let home = Home::new();
    let mut store = filled(&home, 4, 10);
    let most = f32::MAX;
    let mut refused = 0;
    for huge in [[most; 4], [most, -most, most, -most], [-most; 4], [most, most, 0.0, 0.0]] {
        let (before, len) = (store.stream("walk").unwrap().recall_all().unwrap(), store.len());
        match store.stream("walk").unwrap().append(&vector(&huge)) {
            Err(error) => {
                assert!(error.to_string().contains("takes smaller records"), "{error}");
                refused += 1;
                assert_eq!((store.stream("walk").unwrap().recall_all().unwrap(), store.len()), (before, len));
            }
            Ok(appended) => assert_eq!(appended.index, before.len() as u64),
        }
        store.close().unwrap();
        store = Store::open(&home.path).unwrap();
        let stream = store.stream("walk").unwrap();
        assert_eq!(stream.recall_all().unwrap().len() as u64, stream.len().unwrap());
    }
    assert!(refused > 0);
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

/// Power fails at any write: what is found is what was promised or what was under way, whole, and it goes on.
#[test]
fn a_crash_leaves_the_stream_as_it_was_or_as_it_was_to_be() {
    let builder = || -> StoreBuilder { Store::builder().capacity(3).policy(Policy::Fifo).clock(|| 1_000) };
    let disk = Disk::new();
    let store = builder().create_on(disk.clone(), codec()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    let stream = store.stream("walk").unwrap();
    let mut promises = vec![(disk.events(), stream.recall_all().unwrap())];
    for i in 0..52 {
        stream.append(&step(i)).unwrap();
        promises.push((disk.events(), stream.recall_all().unwrap()));
    }
    store.close().unwrap();
    let log = disk.log();
    let mut images = 0;
    for point in (promises[0].0..=log.len()).step_by(3) {
        let moment = Moment::after(&[], &log, point);
        for lost in [false, true] {
            let fate = |index: usize| if lost && index.is_multiple_of(2) { Fate::Lost } else { Fate::Kept };
            let store = builder().open_on(Disk::holding(moment.image(fate, Fill::Zeros))).unwrap();
            let stream = store.stream("walk").unwrap();
            let found = stream.recall_all().unwrap();
            let kept = promises.partition_point(|(events, _)| *events <= point);
            let allowed = &promises[kept - 1..(kept + 1).min(promises.len())];
            assert!(allowed.iter().any(|(_, promise)| *promise == found), "{point}: {} records", found.len());
            let next = stream.len().unwrap();
            assert_eq!(stream.append(&step(next as usize)).unwrap().index, next);
            images += 1;
        }
    }
    assert!(images > 200, "{images}");
}

#[test]
fn a_damaged_head_costs_a_part_and_no_record() {
    let home = Home::new();
    filled(&home, 5, 20).close().unwrap();
    let database = Database::open(&home.path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut heads = transaction.open_table(STREAMS).unwrap();
        let mut value = heads.get("walk").unwrap().unwrap().value().to_vec();
        value[12] ^= 4;
        heads.insert("walk", value.as_slice()).unwrap();
        heads.insert("nobody's", value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let report = Store::verify(&home.path).run().unwrap();
    assert_eq!((report.ok, report.findings.len()), (false, 2), "{report:?}");
    let store = Store::open(&home.path).unwrap();
    let stream = store.stream("walk").unwrap();
    assert_eq!((stream.len().unwrap(), stream.recall_all().unwrap().len()), (20, 20));
    assert_eq!(stream.append(&step(20)).unwrap().index, 20);
    assert_eq!((stream.recall_all().unwrap().len(), store.len()), (21, 3));
    store.close().unwrap();
    Store::repair(&home.path).plan().unwrap().apply().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
    assert_eq!(Store::open(&home.path).unwrap().stream("walk").unwrap().recall_all().unwrap().len(), 21);
}

#[test]
fn streams_go_along_with_backups_recodes_and_salvages_and_stay_out_of_packs() {
    let home = Home::new();
    let store = filled(&home, 5, 20);
    store.put(b"other", &step(7), Attributes::default()).unwrap();
    let before = store.stream("walk").unwrap().recall_all().unwrap();
    let (copy, moved, pack) = (home.file("copy"), home.file("moved"), home.file("pack"));
    store.backup(&copy).run().unwrap();
    // Another codec, with search vectors of another length.
    let report = store.recode(&moved, PlainCodec::new(&[4], 3).unwrap()).run().unwrap();
    assert_eq!(report.records, 3);
    // A code and three search vectors are shorter by a number; heads count on both sides.
    assert_eq!(report.stored_before - report.stored_after, 3 * 4);
    let report = store.export_pack(&pack).run().unwrap();
    assert_eq!((report.memories, report.parts_left_out), (1, 2));
    assert_eq!(Pack::open(&pack).unwrap().len(), 1);
    store.close().unwrap();
    let salvaged = home.file("salvaged");
    Store::salvage(&home.path, &salvaged).run().unwrap();
    for path in [&copy, &moved, &salvaged] {
        let store = Store::open(path).unwrap();
        let stream = store.stream("walk").unwrap();
        assert_eq!(stream.recall_all().unwrap(), before, "{}", path.display());
        let hits = store.search(&step(0)).filter("first = 0").unwrap().run().unwrap();
        assert_eq!(hits.len(), 1);
        let appended = stream.append(&step(20)).unwrap();
        assert_eq!((appended.index, store.len()), (20, 3), "the part under way goes on");
        store.close().unwrap();
        assert!(Store::verify(path).run().unwrap().ok);
    }
}

#[test]
fn a_budget_holds_for_parts_too() {
    let builder = Store::builder().capacity(8).byte_budget(600).policy(Policy::Fifo);
    let store = builder.create_on(InMemoryBackend::new(), codec()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    let stream = store.stream("walk").unwrap();
    let mut left = 0;
    for i in 0..80 {
        left += stream.append(&step(i)).unwrap().evicted.len();
    }
    assert!(left > 0 && store.stats().unwrap().stored_bytes <= 600);
    assert_eq!(stream.len().unwrap(), 80);
    assert!(error(&stream.recall(79).unwrap().record, &step(79)) < 0.02);
}

/// What appending needs counts as bytes of the part under way, and leaves with it.
#[test]
fn bytes_of_streams_are_the_same_after_a_restart() {
    let home = Home::new();
    let mut store = Store::builder().capacity(3).policy(Policy::Fifo).create(&home.path, codec()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    let mut bytes = Vec::new();
    for i in 0..70 {
        let name = ["a", "b"][usize::from(i % 7 == 6)];
        store.stream(name).unwrap().append(&step(i)).unwrap();
        if i == 60 {
            // The part under way, of a stream that has another.
            let open = store.search(&step(i)).filter("stream = 'a' and len < 16").unwrap().run().unwrap();
            assert!(store.remove_id(open[0].id).is_ok());
        }
        bytes.push(store.stats().unwrap().stored_bytes);
        store.close().unwrap();
        store = Store::open(&home.path).unwrap();
        assert_eq!(store.stats().unwrap().stored_bytes, bytes[i], "{i}");
    }
    // Four subtrees wait after 15 records, none after 16.
    let home = Home::new();
    let store = filled(&home, 3, 15);
    let before = store.stats().unwrap().stored_bytes;
    store.stream("walk").unwrap().append(&step(15)).unwrap();
    assert!(store.stats().unwrap().stored_bytes + 100 < before);
}

/// Under the paper's rule what nobody reads leaves first; a part that is being appended to is not among them.
#[test]
fn a_part_under_way_is_not_the_next_to_go() {
    let store = Store::builder().capacity(3).create_on(InMemoryBackend::new(), codec()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    let stream = store.stream("walk").unwrap();
    for i in 0..12 {
        assert_eq!(stream.append(&step(i)).unwrap().index, i as u64);
        store.insert(&step(100 + i)).unwrap();
    }
    assert_eq!((stream.len().unwrap(), stream.recall_all().unwrap().len()), (12, 12));
}

/// Changes rows of a closed store.
fn tamper(home: &Home, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(&home.path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_row_of_keys_that_leads_astray_hides_nothing() {
    const KEYS: TableDefinition<'static, &[u8], u32> = TableDefinition::new("keys");
    let home = Home::new();
    filled(&home, 6, 40).close().unwrap();
    let key = |first: u64| [b"\xffapcm stream\0\x04walk".as_slice(), &first.to_be_bytes()].concat();
    tamper(&home, |transaction| {
        let mut keys = transaction.open_table(KEYS).unwrap();
        // The last part's row leads to a free slot, and one that never was to the first part.
        keys.insert(key(32).as_slice(), 5).unwrap();
        keys.insert(key(u64::MAX).as_slice(), 0).unwrap();
    });
    assert!(!Store::verify(&home.path).run().unwrap().ok);
    let store = Store::open(&home.path).unwrap();
    let stream = store.stream("walk").unwrap();
    // The head still knows how many there were.
    assert_eq!((stream.len().unwrap(), stream.recall_all().unwrap().len()), (40, 32));
    assert_eq!(stream.append(&step(40)).unwrap().index, 40);
    assert!(error(&stream.recall(3).unwrap().record, &step(3)) < 0.02);
    store.close().unwrap();
    Store::repair(&home.path).plan().unwrap().apply().unwrap();
    let store = Store::open(&home.path).unwrap();
    assert_eq!(
        store.stream("walk").unwrap().recall_all().unwrap().len(),
        41,
        "the last part is led to again"
    );
}

#[test]
fn a_damaged_part_is_one_error_and_the_others_stay_readable() {
    const SLOTS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("slots");
    for slot in 0..3 {
        let home = Home::new();
        filled(&home, 6, 40).close().unwrap();
        tamper(&home, |transaction| {
            let mut slots = transaction.open_table(SLOTS).unwrap();
            let mut value = slots.get(slot).unwrap().unwrap().value().to_vec();
            value[40] ^= 1;
            slots.insert(slot, value.as_slice()).unwrap();
        });
        let store = Store::open(&home.path).unwrap();
        let stream = store.stream("walk").unwrap();
        assert_eq!(stream.len().unwrap(), 40);
        let left = stream.recall_all().unwrap();
        assert_eq!(left.len(), [24, 24, 32][slot as usize]);
        let inside = u64::from(slot) * 16 + 2;
        assert!(matches!(stream.recall(inside).unwrap_err(), Error::Corrupt { .. }));
        assert_eq!(store.streams().unwrap()[0].parts, 2);
        assert_eq!(stream.append(&step(40)).unwrap().index, 40);
        assert_eq!(stream.recall_all().unwrap().len(), left.len() + 1);
        assert!(stream.remove().unwrap() >= 3);
        assert_eq!((store.len(), stream.len().unwrap()), (0, 0));
    }
}

/// What is left of a damaged file with streams is a store in order.
#[test]
fn a_salvage_leaves_no_part_that_nobody_can_ask_for() {
    const METADATA: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("metadata");
    const SLOTS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("slots");
    type Damage = fn(&redb::WriteTransaction);
    let damage: [(&str, Damage, u64, usize); 4] = [
        ("metadata", |transaction| flip(transaction, METADATA, 0), 1, 24),
        ("a part", |transaction| flip(transaction, SLOTS, 1), 1, 24),
        ("a head", |transaction| flip_head(transaction, "walk"), 0, 40),
        ("the only part", |transaction| flip(transaction, SLOTS, 3), 1, 40),
    ];
    for (what, damage, lost, left) in damage {
        let home = Home::new();
        let store = filled(&home, 6, 40);
        store.stream("short").unwrap().append(&step(0)).unwrap();
        store.close().unwrap();
        tamper(&home, damage);
        assert!(!Store::verify(&home.path).run().unwrap().ok, "{what}");
        let salvaged = home.file("salvaged");
        let report = Store::salvage(&home.path, &salvaged).run().unwrap();
        assert_eq!((report.slots_lost, report.memories), (lost, 4 - lost), "{what}");
        let verified = Store::verify(&salvaged).run().unwrap();
        assert!(verified.ok, "{what}: {verified:?}");
        let store = Store::open(&salvaged).unwrap();
        assert_eq!(store.stream("walk").unwrap().recall_all().unwrap().len(), left, "{what}");
        let index = store.stream("walk").unwrap().append(&step(40)).unwrap().index;
        assert_eq!(index, 40, "{what}");
    }
}

fn flipped(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    value[20] ^= 1;
    value
}

/// One bit of a slot's row.
fn flip(transaction: &redb::WriteTransaction, table: TableDefinition<'static, u32, &[u8]>, slot: u32) {
    let mut table = transaction.open_table(table).unwrap();
    let value = flipped(table.get(slot).unwrap().unwrap().value());
    table.insert(slot, value.as_slice()).unwrap();
}

fn flip_head(transaction: &redb::WriteTransaction, stream: &str) {
    let mut table = transaction.open_table(STREAMS).unwrap();
    let value = flipped(table.get(stream).unwrap().unwrap().value());
    table.insert(stream, value.as_slice()).unwrap();
}

/// A tree that was lost may be put back, and no other.
#[test]
fn a_lost_tree_may_be_put_back() {
    const CODEC: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("codec");
    let home = Home::new();
    filled(&home, 6, 20).close().unwrap();
    tamper(&home, |transaction| {
        transaction.open_table(CODEC).unwrap().retain(|number, _| number < 1 << 32).unwrap();
    });
    let report = Store::verify(&home.path).run().unwrap();
    assert!(!report.ok, "parts without a tree");
    let store = Store::open(&home.path).unwrap();
    assert!(matches!(store.stream("walk").unwrap().recall(3).unwrap_err(), Error::Corrupt { .. }));
    store.set_sweeper_tree(tree()).unwrap();
    assert_eq!(store.stream("walk").unwrap().recall_all().unwrap().len(), 20);
    store.set_sweeper_tree(tree()).unwrap();
    let seen = records(&[4], (0..640).flat_map(walk).collect());
    let other = SweeperTree::trainer(&seen, &[8; 80]).state(9).untrained().train().unwrap().tree;
    assert!(store.set_sweeper_tree(other).is_err());
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

/// Windows of 14 x 14 that slide over four images side by side, a pixel a step.
fn windows(source: usize, count: usize) -> Vec<Vec<f32>> {
    let data = common::images(4 * source as u64..4 * source as u64 + 4);
    (0..count)
        .map(|left| {
            let at = |at: usize| {
                let (x, y) = (left + at % 14, 7 + at / 14);
                data.row(x / 28)[y * 28 + x % 28]
            };
            (0..196).map(at).collect()
        })
        .collect()
}

/// Walks of their own speeds.
fn walks(source: usize, count: usize) -> Vec<Vec<f32>> {
    let speed = 1.0 + 0.1 * (source as f32).sin();
    let step = |i: usize| {
        let (a, b) = ((i + 37 * source) as f32 * speed / 5.0, (i + 37 * source) as f32 * speed / 11.0);
        vec![a.sin(), a.cos(), 0.5 * b.sin(), 0.5 * b.cos()]
    };
    (0..count).map(step).collect()
}

/// Frames of a film, 16 x 12 and grey, where this project's data and `ffmpeg` are.
fn frames(path: &std::path::Path) -> Option<Vec<Vec<f32>>> {
    let output = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-vf", "scale=16:12,format=gray", "-f", "rawvideo", "-"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let grey = |frame: &[u8]| frame.iter().map(|&value| f32::from(value) / 255.0).collect();
    Some(output.stdout.chunks_exact(16 * 12).map(grey).collect())
}

/// All films, in the order of their names.
fn films() -> Option<&'static [Vec<Vec<f32>>]> {
    static FILMS: OnceLock<Option<Vec<Vec<Vec<f32>>>>> = OnceLock::new();
    let read = || {
        let folder = std::path::PathBuf::from(std::env::var_os("APCM_DATA")?).join("video/asl_gestures");
        let mut paths: Vec<_> = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| frames(path)).collect()
    };
    FILMS.get_or_init(read).as_deref()
}

/// Frames of films: of the last three for the sources that nothing is learned from, of the others for those
/// before.
fn film(source: usize, count: usize) -> Vec<Vec<f32>> {
    let films = films().unwrap();
    let learned = films.len() - 3;
    let (film, from) =
        if source < 60 { (source % learned, source / learned * 10) } else { (learned + source - 60, 0) };
    films[film][from..from + count].to_vec()
}

/// After every append, every record of the part is at most as far off as is stated, and on average not much
/// less: what is folded in later changes what was there before, and its error is measured again.
#[test]
fn stated_errors_hold_after_every_append_and_are_close_to_the_true_ones() {
    type Sequence = fn(usize, usize) -> Vec<Vec<f32>>;
    let mut sources: Vec<(&str, usize, Sequence, usize, usize)> = vec![
        ("walks", 4, walks, 64, 8),
        ("walks in short parts", 4, walks, 16, 12),
        ("windows", 196, windows, 64, 98),
        ("windows in short parts", 196, windows, 16, 98),
    ];
    match films() {
        Some(_) => sources.push(("films", 192, film, 16, 96)),
        None => eprintln!("SKIPPED: films: APCM_DATA names no folder with them, or there is no ffmpeg"),
    }
    for (name, values, sequence, len, state) in sources {
        let seen: Vec<f32> = (0..60).flat_map(|source| sequence(source, len).concat()).collect();
        let seen = records(&[values], seen);
        let tree = SweeperTree::trainer(&seen, &[len; 60]).state(state).untrained().train().unwrap().tree;
        let codec = PlainCodec::new(&[values], values).unwrap();
        let store = Store::builder().capacity(100).create_on(InMemoryBackend::new(), codec).unwrap();
        store.set_sweeper_tree(tree).unwrap();
        let (mut stated, mut truth, mut time) = (0.0, 0.0, std::time::Duration::ZERO);
        let mut count = 0;
        for source in 60..63 {
            let originals = sequence(source, len + 3);
            let stream = store.stream(&format!("{source}")).unwrap();
            for (last, original) in originals.iter().enumerate() {
                let began = std::time::Instant::now();
                stream.append(&vector(original)).unwrap();
                (time, count) = (time + began.elapsed(), count + 1);
                let recalled = stream.recall_all().unwrap();
                assert_eq!(recalled.len(), last + 1);
                for (recalled, original) in recalled.iter().zip(&originals) {
                    let squares = recalled.record.values().iter().zip(original);
                    let true_error =
                        squares.map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / values as f64;
                    assert!(
                        f64::from(recalled.error) >= true_error,
                        "{name} {source}, after {last}, record {}: {} stated, {true_error} true",
                        recalled.index,
                        recalled.error
                    );
                    (stated, truth) = (stated + f64::from(recalled.error), truth + true_error);
                }
            }
            // The slot says the mean, and filters on errors see it.
            for entry in store.iter().unwrap().map(Result::unwrap) {
                assert!(entry.error() > 0.0 && entry.error().is_finite());
            }
            let whole = stream.recall_all().unwrap();
            let worst = whole.iter().take(len).map(|recalled| recalled.error).sum::<f32>() / len as f32;
            let query = vector(&originals[len / 2]);
            let hits = store.search(&query).k(100).max_error(worst * 0.99).run().unwrap();
            let full = |hit: &apcm::Hit| {
                hit.metadata["stream"] == Value::Text(format!("{source}"))
                    && hit.metadata["first"] == Value::Int(0)
            };
            assert!(!hits.iter().any(full), "{name}: the part is worse than that");
            let hits = store.search(&query).k(100).max_error(worst * 1.01).run().unwrap();
            assert!(hits.iter().any(full), "{name}: the part is that good");
        }
        let ratio = stated / truth;
        eprintln!("{name}: stated {ratio:.3} times the true error; {:?} an append", time / count);
        assert!(ratio < 1.5, "{name}: {ratio}");
    }
}

/// A part that an older version began has no copies of its records: it is gone on with, and roots of changes
/// add to the errors that were stated.
#[test]
fn a_part_without_its_records_is_gone_on_with() {
    let home = Home::new();
    let store = filled(&home, 10, 20);
    let before: Vec<f32> =
        store.stream("walk").unwrap().recall_all().unwrap().iter().map(|recalled| recalled.error).collect();
    store.close().unwrap();
    common::tamper::tamper(&home, |transaction, header| {
        let mut streams = transaction.open_table(STREAMS).unwrap();
        let place = apcm_format::Place::named(header.uuid, apcm_format::Table::Streams, b"walk");
        let head = apcm_format::StreamHead::decode(streams.get("walk").unwrap().unwrap().value(), place);
        let head = head.unwrap();
        assert_eq!(head.originals.len(), 4);
        let old = apcm_format::StreamHead { originals: Vec::new(), ..head };
        streams.insert("walk", old.encode(place).as_slice()).unwrap();
    });
    let store = Store::open(&home.path).unwrap();
    let stream = store.stream("walk").unwrap();
    for i in 20..32 {
        let appended = stream.append(&step(i)).unwrap();
        assert_eq!((appended.index, store.streams().unwrap()[0].parts), (i as u64, 2));
        for recalled in stream.recall_range(16..i as u64 + 1).unwrap() {
            assert!(
                error(&recalled.record, &step(recalled.index as usize)) <= recalled.error,
                "{recalled:?}"
            );
        }
    }
    let after = stream.recall_all().unwrap();
    assert!(after.iter().zip(&before).all(|(after, before)| after.error >= *before));
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

/// A last part whose metadata are damaged does not stop the stream: the next append begins another part.
#[test]
fn a_stream_goes_on_behind_a_part_with_damaged_metadata() {
    const METADATA: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("metadata");
    let home = Home::new();
    filled(&home, 6, 20).close().unwrap();
    tamper(&home, |transaction| flip(transaction, METADATA, 1));
    let store = Store::open(&home.path).unwrap();
    let stream = store.stream("walk").unwrap();
    assert_eq!(stream.append(&step(20)).unwrap().index, 20);
    assert_eq!(stream.append(&step(21)).unwrap().index, 21);
    assert_eq!(stream.recall_all().unwrap().len(), 18);
}
