//! A sync that fails as Linux fails it (F8 of the fault matrix in docs/reliability.md).
//!
//! The kernel drops the pages that it could not write, marks them clean, and goes on showing them from its
//! cache; the next sync succeeds. So what is read after the store was opened again is no proof of what is on
//! the disk, and only a loss of power some commits later shows on what they were built. Held to the same rule
//! as any crash: what was acknowledged is there.

mod common;

use apcm::{Attributes, Error};
use common::disk::{Call, Disk, Event, Fate, Fault, Fill, Loss, Moment, Random};
use common::scripts::{SCRIPTS, Script, Snapshot, builder, create, go, record, snapshot};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Mutex;

/// Writes after the store was opened again, each acknowledged.
const MORE: usize = 5;

fn deep() -> bool {
    std::env::var_os("APCM_DEEP").is_some()
}

fn fail_sync(disk: &Disk, at: u64, loss: Loss) {
    disk.set_loss(loss);
    disk.set_fault(Some(Fault { call: Call::Sync, at, kind: ErrorKind::Other, lasting: false }));
}

/// Images of a moment: everything arrived, nothing did, some subsets.
fn images(moment: &Moment<'_>, seed: u64) -> Vec<Vec<u8>> {
    let subsets = if deep() { 12 } else { 2 };
    let mut images =
        vec![moment.image(|_| Fate::Kept, Fill::Zeros), moment.image(|_| Fate::Lost, Fill::Zeros)];
    if moment.pending.len() > 1 {
        images.extend((0..subsets).map(|subset| {
            let chosen = |index: usize| Random(seed * 1_000 + subset * 100 + index as u64).next() & 1 == 1;
            moment.image(|index| if chosen(index) { Fate::Kept } else { Fate::Lost }, Fill::Zeros)
        }));
    }
    images
}

/// Fails each sync of a workload in turn, opens again, writes on, and loses power at every moment of that.
/// Gives how many images were opened.
fn fail_every_sync(script: &Script, loss: Loss) -> usize {
    let mut opened = 0;
    for at in 0.. {
        let disk = Disk::new();
        fail_sync(&disk, at, loss);
        let what = format!("{}, sync {at} fails with {loss:?}", script.name);
        let mut promises = Vec::new();
        // What fails while it is created is begun again with empty storage.
        let Ok(store) = create(script, &disk) else { continue };
        let result = go(script, &store, &disk, &mut promises);
        drop(store);
        if disk.struck() == 0 {
            result.unwrap_or_else(|error| panic!("{what}: {error}"));
            return opened;
        }
        let begun = disk.events();
        let store = builder().open_on(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut kept: Vec<(usize, Snapshot)> = vec![(disk.events(), snapshot(&store).unwrap())];
        let mut random = Random(at);
        for _ in 0..MORE {
            store.insert(&record(&mut random)).unwrap_or_else(|error| panic!("{what}: {error}"));
            kept.push((disk.events(), snapshot(&store).unwrap()));
        }
        store.close().unwrap();
        let log = disk.log();
        let mut moment = Moment::after(&[], &log, begun);
        for point in begun..=log.len() {
            if point > begun {
                moment.advance(&log[point - 1]);
            }
            let promised = kept.partition_point(|(events, _)| *events <= point);
            for image in images(&moment, point as u64) {
                opened += 1;
                let store = builder()
                    .open_on(Disk::holding(image))
                    .unwrap_or_else(|error| panic!("{what}, power lost after event {point}: {error}"));
                let found = snapshot(&store).unwrap();
                // Before it was opened again: what was promised last, or the commit whose sync failed.
                let fits = match promised {
                    0 => promises.last().is_some_and(|last| last.snapshot == found) || kept[0].1 == found,
                    promised => kept[promised - 1..(promised + 1).min(kept.len())]
                        .iter()
                        .any(|(_, kept)| *kept == found),
                };
                assert!(fits, "{what}, power lost after event {point}: {found:#?}");
            }
        }
    }
    opened
}

/// Before the database touches an unclean file, all that was there is written again, once, and synced: what
/// comes after builds on the disk. (redb's own first sync would do today: it writes its header as it was, and
/// syncs. That is its business.)
#[test]
fn f8_an_unclean_file_is_written_again_and_synced_before_it_changes() {
    for script in &SCRIPTS {
        let disk = Disk::new();
        let store = create(script, &disk).unwrap();
        go(script, &store, &disk, &mut Vec::new()).unwrap();
        let image = disk.bytes();
        drop(store);
        let disk = Disk::holding(image.clone());
        drop(builder().open_on(disk.clone()).unwrap());
        let mut end = 0;
        for event in disk.log().into_iter().take_while(|event| *event != Event::Sync) {
            let Event::Write { offset, data } = event else { panic!("{}: {event:?}", script.name) };
            assert_eq!(offset as usize, end, "{}: written out of order, or twice", script.name);
            assert!(image[end..end + data.len()] == data, "{}: it changes before a sync", script.name);
            end += data.len();
        }
        assert_eq!(end, image.len(), "{}: not all of it was written again", script.name);
    }
}

fn every_script(loss: Loss) {
    let opened: usize = SCRIPTS.iter().map(|script| fail_every_sync(script, loss)).sum();
    eprintln!("{loss:?}: {opened} images");
    assert!(opened > 2_000, "only {opened} images");
}

#[test]
fn f8_pages_of_a_failed_sync_are_lost_and_shown() {
    every_script(Loss::All);
}

#[test]
fn f8_some_pages_of_a_failed_sync_are_lost_and_shown() {
    every_script(Loss::Some(7));
}

#[test]
fn f8_pages_of_a_failed_sync_stay_dirty() {
    every_script(Loss::Nothing);
}

/// The last acknowledged value of each key, and the writes whose outcome is unknown.
#[derive(Debug, Default, Clone)]
struct Known {
    acknowledged: BTreeMap<Vec<u8>, u32>,
    unknown: Vec<(Vec<u8>, u32)>,
}

fn value_of(record: &apcm::Record) -> u32 {
    record.values()[0].to_bits()
}

/// Threads put keys of their own until something fails; gives what they know.
fn put_together(store: &apcm::Store, known: &Mutex<Known>, round: u64) {
    const THREADS: u64 = 4;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = Random(round * THREADS + thread);
                for step in 0..6_u8 {
                    let key = vec![thread as u8, step % 2];
                    let record = record(&mut random);
                    match store.put(&key, &record, Attributes::default()) {
                        Ok(_) => {
                            let mut known = known.lock().unwrap();
                            known.acknowledged.insert(key.clone(), value_of(&record));
                            known.unknown.retain(|(unknown, _)| *unknown != key);
                        }
                        Err(Error::OutcomeUnknown { .. }) => {
                            known.lock().unwrap().unknown.push((key, value_of(&record)));
                        }
                        Err(Error::Poisoned | Error::Storage { .. }) => return,
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
}

#[test]
fn f8_threads_that_share_a_commit_whose_sync_fails() {
    let rounds = if deep() { 400 } else { 60 };
    let mut unknown = 0;
    for round in 0..rounds {
        let disk = Disk::new();
        let capacity = 16;
        let store = builder().capacity(capacity).create_on(disk.clone(), common::scripts::codec()).unwrap();
        let known = Mutex::new(Known::default());
        fail_sync(&disk, round % 12, if round % 2 == 0 { Loss::All } else { Loss::Some(round) });
        put_together(&store, &known, round);
        drop(store);
        disk.set_fault(None);
        let store = builder().open_on(disk.clone()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        unknown += known.lock().unwrap().unknown.len();
        let before = known.lock().unwrap().clone();
        put_together(&store, &known, rounds + round);
        let known = known.into_inner().unwrap();
        // The power fails before the store is closed: nothing after the last acknowledgement counts.
        let log = disk.log();
        let moment = Moment::after(&[], &log, log.len());
        for image in images(&moment, round) {
            let found = builder()
                .open_on(Disk::holding(image))
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            for (key, value) in &known.acknowledged {
                let there = found.get(key).unwrap().map(|memory| value_of(&memory.record));
                let may_be = |value: &u32| Some(*value) == there;
                let fits = may_be(value) || known.unknown.iter().any(|(k, v)| k == key && may_be(v));
                assert!(fits, "round {round}: {key:?} is {there:?}, not {value}; {before:?}");
            }
        }
        drop(store);
    }
    assert!(unknown > 0, "no commit failed under the threads");
}
