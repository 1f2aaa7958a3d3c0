//! Moving a store to another codec.

mod common;

use apcm::{Attributes, Error, Fidelity, FlowCodec, MemoryId, Metadata, PlainCodec, QuantizerSpec, Store};
use apcm_format::IngestPosition;
use common::{Home, images, plain_store, vector};
use std::ops::ControlFlow;
use std::time::Duration;

fn error(record: &[f32], given: &[f32]) -> f64 {
    let squared = record.iter().zip(given).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2));
    squared.sum::<f64>() / record.len() as f64
}

/// A store of 700 slots with 620 memories of every kind in it, some of them read.
fn filled(home: &Home, codec: FlowCodec) -> (Store, Vec<MemoryId>) {
    let store = Store::builder().capacity(700).clock(|| 1_000).create(&home.path, codec).unwrap();
    let data = images(1_000..1_640);
    let mut transaction = store.begin_write();
    let attributes = (0..640_usize).map(|row| {
        let key = (row % 3 == 0).then(|| format!("image/{row}").into_bytes());
        let mut attributes = Attributes::from(Metadata::from([("row".into(), (row as i64).into())]));
        if row % 50 == 1 {
            attributes = attributes.pinned();
        }
        if row % 70 == 2 {
            attributes = attributes.expiring_in(std::time::Duration::from_secs(500));
        }
        let tier = match row % 10 {
            8 => Fidelity::Lossless,
            9 => Fidelity::Bounded(1e-3),
            _ => Fidelity::Compact,
        };
        (key, attributes.with_fidelity(tier))
    });
    transaction.write_all(&data, attributes).unwrap();
    let position = IngestPosition { next: 640, total: 10_000, source_bytes: 7 };
    transaction.set_ingest_position("images", position);
    let ids = transaction.commit().unwrap().ids;
    let mut transaction = store.begin_write();
    ids.iter().step_by(32).for_each(|&id| transaction.remove_id(id));
    transaction.commit().unwrap();
    let left: Vec<MemoryId> =
        ids.into_iter().enumerate().filter(|(row, _)| row % 32 != 0).map(|(_, id)| id).collect();
    for &id in left.iter().step_by(5) {
        store.get_id(id).unwrap();
        store.get_id(id).unwrap();
    }
    (store, left)
}

type Seen = (MemoryId, Option<Vec<u8>>, Metadata, u32, bool, u32, Option<u32>);

fn seen(store: &Store) -> Vec<Seen> {
    let entries = store.iter().unwrap().map(Result::unwrap);
    entries
        .map(|e| {
            (
                e.id(),
                e.key().map(<[u8]>::to_vec),
                e.metadata().clone(),
                e.count(),
                e.is_pinned(),
                e.written_at(),
                e.expires_at(),
            )
        })
        .collect()
}

#[test]
fn everything_moves_and_the_error_that_was_added_is_known() {
    let home = Home::new();
    let training = images(0..1_000);
    let old = FlowCodec::pca(&training, QuantizerSpec::Allocated(96)).unwrap();
    let new = FlowCodec::trainer(&training)
        .quantizer(QuantizerSpec::entropy(24))
        .predictor(0, 0)
        .train()
        .unwrap()
        .codec;
    let (store, ids) = filled(&home, old);
    let before = home.bytes();
    let to = home.file("smaller.apcm");
    let old_records: Vec<_> = ids.iter().map(|&id| store.peek_id(id).unwrap()).collect();
    let mut calls = 0;
    let moved = store.recode(&to, new).progress(|_| {
        calls += 1;
        ControlFlow::Continue(())
    });
    let report = moved.run().unwrap();
    assert_eq!((report.records, report.resumed), (620, 0));
    assert!(calls >= 2);
    let clock = || Store::builder().clock(|| 1_000);
    let new_store = clock().open(&to).unwrap();
    assert!(seen(&new_store) == seen(&store));
    let position = new_store.ingest_position("images").unwrap().unwrap();
    assert_eq!((position.next, position.total), (640, 10_000));
    let (stats, old_stats) = (new_store.stats().unwrap(), store.stats().unwrap());
    assert_eq!((stats.reads, stats.residuals > 100), (old_stats.reads, true));
    assert!(report.stored_after < report.stored_before && stats.stored_bytes == report.stored_after);
    let data = images(1_000..1_640);
    let mut added = 0.0;
    for (old, &id) in old_records.iter().zip(&ids) {
        let new = new_store.peek_id(id).unwrap();
        let original = data.row(match &old.metadata["row"] {
            apcm::Value::Int(row) => *row as usize,
            other => panic!("{other:?}"),
        });
        let off = error(original, new.record.values());
        assert!(
            off <= f64::from(new.error) * 1.001 + 1e-9,
            "{off:e} is more than the {:e} it says",
            new.error
        );
        added += error(old.record.values(), new.record.values());
        if old.error == 0.0 {
            assert_eq!((new.error, off), (0.0, 0.0), "lossless stays so");
        }
        if id.slot % 10 == 9 {
            assert!(new.error <= old.error * 1.25, "{:e} was {:e}", new.error, old.error);
        }
    }
    assert!(
        (added / 620.0 / report.error_added - 1.0).abs() < 0.01,
        "{} and {}",
        added / 620.0,
        report.error_added
    );
    // The next write goes on with the numbers: no id comes twice.
    let put = new_store.insert(&data.get(0)).unwrap();
    assert!(put.id.seq > ids.iter().map(|id| id.seq).max().unwrap());
    drop(store);
    assert_eq!(home.bytes().len(), before.len());
}

#[test]
fn an_interrupted_move_goes_on_and_sees_what_changed_meanwhile() {
    let home = Home::new();
    let training = images(0..1_000);
    let (store, ids) = filled(&home, FlowCodec::pca(&training, QuantizerSpec::Allocated(64)).unwrap());
    let new = || FlowCodec::pca(&training, QuantizerSpec::I8(32)).unwrap();
    let to = home.file("new.apcm");
    let stopped = store.recode(&to, new()).progress(|progress| {
        if progress.done >= 512 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped.run(), Err(Error::Cancelled)));
    let partial = || {
        let files = std::fs::read_dir(home.folder.path()).unwrap().map(|file| file.unwrap().path());
        files.into_iter().find(|path| path.to_string_lossy().ends_with(".recoding"))
    };
    let name = partial().unwrap();
    assert!(!to.exists());
    // Somebody has it open: it is not taken away.
    {
        let _open = Store::builder().clock(|| 1_000).open(&name).unwrap();
        assert!(matches!(store.recode(&to, new()).run(), Err(Error::Locked { .. })));
    }
    // One leaves, one is replaced and one is pinned before the move goes on.
    store.pin(ids[5], true).unwrap();
    store.remove_id(ids[3]).unwrap();
    let put = store.insert(&images(0..1).get(0)).unwrap();
    let report = store.recode(&to, new()).run().unwrap();
    assert_eq!(report.records, 620);
    assert!((500..=511).contains(&report.resumed), "{}", report.resumed);
    let moved = Store::builder().clock(|| 1_000).open(&to).unwrap();
    assert!(seen(&moved) == seen(&store));
    assert!(moved.peek_id(put.id).is_ok() && moved.peek_id(ids[3]).is_err());
    assert!(partial().is_none());
    // Another codec does not go on with this one's beginning, nor does another store.
    let other = home.file("other.apcm");
    let stopped = store.recode(&other, new()).progress(|_| ControlFlow::Break(()));
    assert!(matches!(stopped.run(), Err(Error::Cancelled)));
    let coarser = FlowCodec::pca(&training, QuantizerSpec::I8(16)).unwrap();
    assert_eq!(store.recode(&other, coarser).run().unwrap().resumed, 0);
    let third = home.file("third.apcm");
    let stopped = store.recode(&third, new()).progress(|_| ControlFlow::Break(()));
    assert!(matches!(stopped.run(), Err(Error::Cancelled)));
    let second_home = Home::new();
    let (second, _) = filled(&second_home, FlowCodec::pca(&training, QuantizerSpec::Allocated(64)).unwrap());
    let report = second.recode(&third, new()).run().unwrap();
    assert_eq!((report.records, report.resumed), (620, 0));
}

#[test]
fn a_move_in_place_keeps_the_old_file_until_the_end() {
    let home = Home::new();
    let store = plain_store(&home, 20, 4);
    let ids: Vec<_> =
        (0..10).map(|i| store.insert(&vector(&[i as f32, 1.0, 2.0, 3.0])).unwrap().id).collect();
    let smaller = || PlainCodec::new(&[4], 2).unwrap();
    let stopped = store.recode(&home.path, smaller()).progress(|_| ControlFlow::Break(()));
    assert!(matches!(stopped.run(), Err(Error::Cancelled)));
    assert_eq!(store.peek_id(ids[9]).unwrap().record.values(), [9.0, 1.0, 2.0, 3.0]);
    store.recode(&home.path, smaller()).run().unwrap();
    // The old handle has a file without a name: it says so instead of writing into the void.
    assert!(matches!(store.insert(&vector(&[1.0; 4])), Err(Error::Poisoned)));
    drop(store);
    let store = Store::open(&home.path).unwrap();
    let memory = store.peek_id(ids[9]).unwrap();
    assert_eq!(memory.record.values(), [9.0, 1.0, 0.0, 0.0]);
    assert!(memory.error >= 13.0 / 4.0 && memory.error < 13.2 / 4.0, "{}", memory.error);
    assert_eq!(store.codec().code_len_max(), 8);
}

#[test]
fn what_cannot_be_moved_is_an_error_and_the_old_store_stays_as_it_was() {
    let home = Home::new();
    let store = plain_store(&home, 5, 4);
    store.insert(&vector(&[1.0; 4])).unwrap();
    let error = store.recode(home.file("a.apcm"), PlainCodec::new(&[5], 2).unwrap()).run().unwrap_err();
    assert!(matches!(error, Error::RecordShape { .. }), "{error}");
    std::fs::write(home.file("there"), b"precious").unwrap();
    let error = store.recode(home.file("there"), PlainCodec::new(&[4], 2).unwrap()).run().unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(std::fs::read(home.file("there")).unwrap(), b"precious");
    assert_eq!(store.len(), 1);
}

#[test]
fn a_codec_too_large_for_the_byte_budget_is_an_error_and_nobody_is_dropped() {
    let home = Home::new();
    let small = PlainCodec::new(&[4], 1).unwrap();
    let store = Store::builder().capacity(20).byte_budget(340).create(&home.path, small).unwrap();
    for i in 0..10 {
        assert!(store.insert(&vector(&[i as f32, 1.0, 2.0, 3.0])).unwrap().evicted.is_empty());
    }
    let error = store.recode(home.file("large.apcm"), PlainCodec::new(&[4], 4).unwrap()).run().unwrap_err();
    assert!(matches!(error, Error::OverBudget { needed: 440, budget: 340 }), "{error}");
    assert!(store.len() == 10 && !home.file("large.apcm").exists());
    let report = store.recode(home.file("same.apcm"), PlainCodec::new(&[4], 1).unwrap()).run().unwrap();
    let moved = Store::open(home.file("same.apcm")).unwrap();
    assert_eq!((report.records, moved.stats().unwrap().byte_budget), (10, Some(340)));
}

/// A source that was restored from a backup and written on in the same second has the same numbers for other
/// memories.
#[test]
fn a_resumed_move_takes_nothing_for_moved_that_is_another_memory() {
    let home = Home::new();
    let store = Store::builder()
        .capacity(1_200)
        .clock(|| 1_000)
        .create(&home.path, PlainCodec::new(&[4], 4).unwrap())
        .unwrap();
    let fill = |store: &Store, from: usize| {
        let mut transaction = store.begin_write();
        for i in from..600 {
            transaction.insert(&vector(&[i as f32, 1.0, 2.0, 3.0])).unwrap();
        }
        transaction.commit().unwrap();
    };
    fill(&store, 100);
    let backup = home.file("backup.apcm");
    store.backup(&backup).run().unwrap();
    let write = |store: &Store, value: f32| store.insert(&vector(&[value, 5.0, 6.0, 7.0])).unwrap().id;
    let first = write(&store, 1.0);
    let to = home.file("moved.apcm");
    let codec = || PlainCodec::new(&[4], 2).unwrap();
    let stop = |progress: &apcm::Progress<'_>| {
        if progress.done >= 501 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(store.recode(&to, codec()).progress(stop).run(), Err(Error::Cancelled)));
    store.close().unwrap();
    std::fs::remove_file(&home.path).unwrap();
    std::fs::rename(&backup, &home.path).unwrap();
    let store = Store::builder().clock(|| 1_000).open(&home.path).unwrap();
    let second = write(&store, 2.0);
    assert_eq!(first, second, "the same number, in the same second");
    let report = store.recode(&to, codec()).run().unwrap();
    assert_eq!((report.records, report.resumed), (501, 500));
    let moved = Store::builder().clock(|| 1_000).open(&to).unwrap();
    let memory = moved.peek_id(second).unwrap();
    assert_eq!(memory.record.values(), [2.0, 5.0, 0.0, 0.0]);
    assert!(memory.error >= (36.0 + 49.0) / 4.0, "{}", memory.error);
}

/// The same codec adds nothing to any error, however often, and nothing else changes either.
#[test]
fn a_move_to_the_same_codec_changes_nothing() {
    let home = Home::new();
    let training = images(0..1_000);
    let codec = || FlowCodec::pca(&training, QuantizerSpec::I8(32)).unwrap();
    let (store, _) = filled(&home, codec());
    let contents = |store: &Store| {
        let entries = store.iter().unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let record: Vec<u32> = entry.record().unwrap().values().iter().map(|x| x.to_bits()).collect();
                (entry.id(), entry.error().to_bits(), entry.norm().to_bits(), entry.residual_len(), record)
            })
            .collect::<Vec<_>>()
    };
    let (before, numbers) = (contents(&store), seen(&store));
    let report = store.recode(home.file("again.apcm"), codec()).run().unwrap();
    assert_eq!((report.records, report.error_added), (620, 0.0));
    assert_eq!((report.error_before, report.stored_before), (report.error_after, report.stored_after));
    drop(store);
    let mut path = home.file("again.apcm");
    for round in 0..3 {
        let store = Store::builder().clock(|| 1_000).open(&path).unwrap();
        assert!(contents(&store) == before && seen(&store) == numbers, "round {round}");
        let next = home.file(&format!("again {round}.apcm"));
        store.recode(&next, codec()).run().unwrap();
        path = next;
    }
}

/// Writers go on while a store is moved, and nothing of what they do is missing.
#[test]
fn what_is_written_during_a_move_is_moved_too() {
    let home = Home::new();
    let store = plain_store(&home, 2_000, 4);
    let mut transaction = store.begin_write();
    for i in 0..1_500 {
        transaction
            .put(format!("{i}").as_bytes(), &vector(&[i as f32, 1.0, 2.0, 3.0]), Metadata::new())
            .unwrap();
    }
    transaction.commit().unwrap();
    let to = home.file("moved.apcm");
    let mut written = 0;
    let report = store
        .recode(&to, PlainCodec::new(&[4], 3).unwrap())
        .progress(|_| {
            if written < 20 {
                written += 1;
                store.put(b"0", &vector(&[written as f32, 9.0, 9.0, 9.0]), Metadata::new()).unwrap();
                store.insert(&vector(&[0.5, 1.0, written as f32, 0.0])).unwrap();
                store.remove(format!("{}", 100 + written).as_bytes()).unwrap();
                let id = store.id_of(b"7").unwrap().unwrap();
                store.pin(id, written % 2 == 0).unwrap();
            }
            ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    assert!(written == 20 && report.records == store.len() as u64, "{report:?}");
    let moved = Store::open(&to).unwrap();
    assert!(seen(&moved) == seen(&store));
    assert_eq!(moved.get(b"0").unwrap().unwrap().record.values(), [20.0, 9.0, 9.0, 0.0]);
    assert!(Store::verify(&home.path).run().is_err(), "the source goes on");
}

/// A memory that expires during a move leaves both stores, and ends nothing. Threads write and read until the
/// store is replaced under them: what was acknowledged is in the new file. Reads give the last step counts to
/// write before it takes the writers' lock, which is when a write comes in between.
#[test]
fn what_is_acknowledged_until_a_move_in_place_ends_is_moved() {
    for round in 0..10 {
        let home = Home::new();
        let store = plain_store(&home, 20_000, 4);
        let record = |value: u32| vector(&[1.0, value as f32, 2.0, 3.0]);
        (0..300).for_each(|value| drop(store.insert(&record(value)).unwrap()));
        let acknowledged: Vec<(MemoryId, u32)> = std::thread::scope(|scope| {
            let (store, record) = (&store, &record);
            let writers: Vec<_> = (1..4_u32)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut acknowledged = Vec::new();
                        for value in 1_000 * thread.. {
                            match store.insert(&record(value)) {
                                Ok(put) => acknowledged.push((put.id, value)),
                                Err(Error::Poisoned) => break,
                                Err(error) => panic!("{error}"),
                            }
                            std::thread::sleep(Duration::from_millis(u64::from(2 + (value + thread) % 5)));
                        }
                        acknowledged
                    })
                })
                .collect();
            scope.spawn(move || while store.read(&record(7)).is_ok() {});
            let mut moved = Err(Error::Busy { passes: 0 });
            // Writers that are faster than the passes go on in the store as it is.
            while matches!(moved, Err(Error::Busy { .. })) {
                moved = store.recode(&home.path, PlainCodec::new(&[4], 3).unwrap()).run().map(drop);
            }
            moved.unwrap();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        drop(store);
        let store = Store::open(&home.path).unwrap();
        for (id, value) in acknowledged {
            let found = store.get_id(id).unwrap_or_else(|error| panic!("round {round}, {id}: {error}"));
            assert_eq!(found.record.values()[1], value as f32, "round {round}, {id}");
        }
    }
}

#[test]
fn what_expires_during_a_move_is_not_moved() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let home = Home::new();
    let time = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&time);
    let builder = Store::builder().capacity(1_100).clock(move || clock.load(Ordering::Relaxed));
    let store = builder.create(&home.path, PlainCodec::new(&[4], 4).unwrap()).unwrap();
    let mut transaction = store.begin_write();
    for i in 0..1_050 {
        let attributes =
            Attributes::default().expiring_in(std::time::Duration::from_secs(10 + 1_000 * (i % 2)));
        transaction.insert_with(&vector(&[i as f32, 1.0, 2.0, 3.0]), attributes).unwrap();
    }
    transaction.commit().unwrap();
    let to = home.file("moved.apcm");
    let report = store
        .recode(&to, PlainCodec::new(&[4], 2).unwrap())
        .progress(|_| {
            time.store(1_500, Ordering::Relaxed);
            ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    let moved = Store::builder().clock(|| 1_500).open(&to).unwrap();
    assert_eq!((moved.len(), store.len()), (525, 525), "{report:?}");
}
