//! Calls that fail (F8 to F10 of the fault matrix in docs/reliability.md): a sync, a write, a read, no room.

mod common;

use apcm::Error;
use common::disk::{Call, Disk, Fate, Fault, Fill, Moment, Random};
use common::scripts::{SCRIPTS, Script, builder, create, go, record, snapshot};
use std::io::ErrorKind;

/// Fails every n-th call of a kind in turn; gives how many runs met the fault.
fn fail_everywhere(script: &Script, call: Call, kind: ErrorKind) -> u64 {
    let mut met = 0;
    for lasting in [false, true] {
        for at in 0.. {
            let disk = Disk::new();
            disk.set_fault(Some(Fault { call, at, kind, lasting }));
            let what = format!("{}, {call:?} {at} fails with {kind:?}, lasting: {lasting}", script.name);
            let mut promises = Vec::new();
            let store = match create(script, &disk) {
                Ok(store) => store,
                Err(error) => {
                    // Nothing was acknowledged; the error says what failed and nothing panicked.
                    assert!(disk.struck() > 0, "{what}: {error}");
                    met += 1;
                    continue;
                }
            };
            let result = go(script, &store, &disk, &mut promises);
            if disk.struck() == 0 {
                result.unwrap_or_else(|error| panic!("{what}: {error}"));
                break;
            }
            met += 1;
            match result {
                // A failure that the database rides out, such as a shrink that may as well not happen.
                Ok(()) => {}
                Err(Error::Storage { .. } | Error::OutcomeUnknown { .. }) => {
                    let error = store.insert(&record(&mut Random(1))).unwrap_err();
                    assert!(matches!(error, Error::Poisoned), "{what}: {error}");
                    let error = store.flush().unwrap_err();
                    assert!(matches!(error, Error::Poisoned), "{what}: {error}");
                    let error = store.read(&record(&mut Random(1))).unwrap_err();
                    assert!(matches!(error, Error::Poisoned), "{what}: {error}");
                }
                Err(other) => panic!("{what}: {other}"),
            }
            drop(store);
            disk.set_fault(None);
            // Open again, with what was not synced on the disk, and without.
            let kept = promises.last().unwrap();
            let log = disk.log();
            let moment = Moment::after(&[], &log, log.len());
            for (arrived, fate) in [("all", Fate::Kept), ("nothing", Fate::Lost)] {
                let disk = Disk::holding(moment.image(|_| fate, Fill::Zeros));
                let store = builder()
                    .open_on(disk)
                    .unwrap_or_else(|error| panic!("{what}, {arrived} arrived: {error}"));
                let found = snapshot(&store).unwrap();
                // One commit may have been under way; it is there whole or not at all, which the store's own
                // invariants and a step's bound on what it writes show.
                let whole = found == kept.snapshot || follows(script, promises.len(), &found);
                assert!(whole, "{what}, {arrived} arrived: {found:#?}\n{:#?}", kept.snapshot);
                store.insert(&record(&mut Random(2))).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
        }
    }
    met
}

/// Whether this is what the store holds after so many steps without a fault.
fn follows(script: &Script, steps: usize, found: &common::scripts::Snapshot) -> bool {
    let disk = Disk::new();
    let store = create(script, &disk).unwrap();
    let mut promises = Vec::new();
    go(script, &store, &disk, &mut promises).unwrap();
    promises.get(steps).is_some_and(|promise| promise.snapshot == *found)
}

fn every_script(call: Call, kind: ErrorKind, least: u64) {
    let met: u64 = SCRIPTS.iter().map(|script| fail_everywhere(script, call, kind)).sum();
    eprintln!("{call:?} failed with {kind:?} in {met} runs");
    assert!(met >= least, "only {met} runs met the fault");
}

#[test]
fn f8_a_sync_that_fails() {
    every_script(Call::Sync, ErrorKind::Other, 100);
}

#[test]
fn f9_a_write_that_fails() {
    every_script(Call::Write, ErrorKind::Other, 500);
}

#[test]
fn f9_a_read_that_fails() {
    every_script(Call::Read, ErrorKind::Other, 6);
}

#[test]
fn f9_a_read_that_ends_early() {
    every_script(Call::Read, ErrorKind::UnexpectedEof, 6);
}

#[test]
fn f10_no_room_for_a_write() {
    every_script(Call::Write, ErrorKind::StorageFull, 500);
}

#[test]
fn f10_no_room_to_grow() {
    every_script(Call::SetLen, ErrorKind::StorageFull, 6);
}
