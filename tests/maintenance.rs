//! Looking after a file: what verify finds, repair mends, salvage saves, backup copies and compact gives back.

mod common;

use apcm::{Attributes, Error, Fidelity, Metadata, Store};
use apcm_format::{
    CounterChunk, Place, ResidualForm, ResidualRecord, SlotMetadata, StoreHeader, Table, frame,
};
use common::Home;
use common::disk::Random;
use common::scripts::{Snapshot, codec, counts, record, snapshot};
use common::tamper::{CODEC, COUNTERS, KEYS, META, METADATA, RESIDUALS, SLOTS, flip, tamper};
use redb::{ReadableTable, WriteTransaction};
use std::ops::ControlFlow;

/// Ten memories with keys `0` to `9` in slots 0 to 9 of twelve; even ones have values, 3 and 6 residuals.
fn filled(home: &Home) -> Store {
    let store = Store::builder().capacity(12).clock(|| 1_000).create(&home.path, codec()).unwrap();
    let mut random = Random(5);
    for row in 0..10_i64 {
        let mut metadata = Metadata::new();
        if row % 2 == 0 {
            metadata.insert("row".to_owned(), row.into());
        }
        let fidelity =
            if row % 3 == 0 && row > 0 && row < 9 { Fidelity::Lossless } else { Fidelity::Compact };
        let attributes = Attributes::default().with_metadata(metadata).with_fidelity(fidelity);
        store.put(row.to_string().as_bytes(), &record(&mut random), attributes).unwrap();
        for _ in 0..row {
            store.get(row.to_string().as_bytes()).unwrap();
        }
    }
    store
}

fn open(home: &Home) -> (Snapshot, common::scripts::Counts) {
    let store = Store::builder().clock(|| 1_000).open(&home.path).unwrap();
    (snapshot(&store).unwrap(), counts(&store).unwrap())
}

#[test]
fn a_whole_store_verifies_and_is_not_touched_by_it() {
    let home = Home::new();
    let store = filled(&home);
    let error = Store::verify(&home.path).run().unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    // As a crash leaves it.
    let crashed = home.file("crashed.apcm");
    std::fs::copy(&home.path, &crashed).unwrap();
    store.close().unwrap();
    for (path, needs_recovery) in [(&home.path, false), (&crashed, true)] {
        let before = std::fs::read(path).unwrap();
        let report = Store::verify(path).run().unwrap();
        assert!(report.ok && report.pages_ok && report.findings.is_empty(), "{report:?}");
        assert_eq!(report.needs_recovery, needs_recovery);
        assert_eq!((report.slots_checked, report.keys_checked, report.residuals_checked), (10, 10, 2));
        assert_eq!((report.metadata_checked, report.codec_chunks_checked), (10, 1));
        assert!(before == std::fs::read(path).unwrap(), "verify wrote to {}", path.display());
        let plan = Store::repair(path).plan().unwrap();
        assert!(plan.is_empty() && plan.in_place() && plan.needs_recovery() == needs_recovery);
        assert!(before == std::fs::read(path).unwrap(), "a plan wrote to {}", path.display());
    }
    // Beside a reader.
    let reader = Store::open_read_only(&home.path).unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
    drop(reader);
    let stopped = Store::verify(&home.path).progress(|_| ControlFlow::Break(())).run();
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let stranger = home.file("text");
    std::fs::write(&stranger, "not a store").unwrap();
    assert!(matches!(Store::verify(&stranger).run(), Err(Error::NotAStore { .. })));
}

/// Each damage alone: what is found, what is said about it, and what the mended store holds.
#[test]
fn each_damage_is_found_named_and_mended() {
    type Change = fn(&WriteTransaction, &StoreHeader);
    let cases: &[(&str, Change, &str, &[u32], usize)] = &[
        ("a slot", |t, _| flip(t, SLOTS, 4), "free slot 4", &[4], 9),
        (
            "a slot out of reach",
            |t, _| {
                let value = t.open_table(SLOTS).unwrap().get(1).unwrap().unwrap().value().to_vec();
                t.open_table(SLOTS).unwrap().insert(700, value.as_slice()).unwrap();
            },
            "free slot 700",
            &[700],
            10,
        ),
        ("metadata", |t, _| flip(t, METADATA, 2), "keep slot 2 without key and values", &[2], 10),
        (
            "metadata of a free slot",
            |t, header| {
                let metadata = SlotMetadata { key: Some(b"x".to_vec()), values: Metadata::new() };
                let sealed =
                    frame::seal(&metadata, Place::numbered(header.uuid, Table::Metadata, 11)).unwrap();
                t.open_table(METADATA).unwrap().insert(11, sealed.as_slice()).unwrap();
            },
            "keep slot 11 without key and values",
            &[11],
            10,
        ),
        ("a residual", |t, _| flip(t, RESIDUALS, 3), "keep slot 3 as its code alone gives it", &[3], 10),
        (
            "a missing residual",
            |t, _| {
                t.open_table(RESIDUALS).unwrap().remove(6).unwrap();
            },
            "keep slot 6 as its code alone gives it",
            &[6],
            10,
        ),
        (
            "a residual of another write",
            |t, header| {
                let stale = ResidualRecord {
                    form: ResidualForm::Bounded,
                    seq: 1,
                    error_without: apcm_format::StoredReal::at_least(1.0),
                    payload: &[],
                };
                let value = stale.encode(Place::numbered(header.uuid, Table::Residuals, 3)).unwrap();
                t.open_table(RESIDUALS).unwrap().insert(3, value.as_slice()).unwrap();
            },
            "keep slot 3 as its code alone gives it",
            &[3],
            10,
        ),
        (
            "a key that leads nowhere",
            |t, _| {
                t.open_table(KEYS).unwrap().insert(&b"ghost"[..], 11).unwrap();
            },
            "forget the key \"ghost\"",
            &[11],
            10,
        ),
        (
            "a key that leads to another's slot",
            |t, _| {
                t.open_table(KEYS).unwrap().insert(&b"7"[..], 1).unwrap();
            },
            "let the key \"7\" lead to slot 7",
            &[1, 7],
            10,
        ),
        (
            "a missing key",
            |t, _| {
                t.open_table(KEYS).unwrap().remove(&b"5"[..]).unwrap();
            },
            "let the key \"5\" lead to slot 5",
            &[5],
            10,
        ),
        (
            "two slots of one key",
            |t, header| {
                let metadata = SlotMetadata { key: Some(b"1".to_vec()), values: Metadata::new() };
                let sealed =
                    frame::seal(&metadata, Place::numbered(header.uuid, Table::Metadata, 7)).unwrap();
                t.open_table(METADATA).unwrap().insert(7, sealed.as_slice()).unwrap();
                t.open_table(KEYS).unwrap().remove(&b"7"[..]).unwrap();
            },
            "keep slot 7 without its key",
            &[7],
            10,
        ),
        ("counts", |t, _| flip(t, COUNTERS, 0), "begin the counts of chunk 0 again at 0", &[], 10),
        (
            "a count of a free slot",
            |t, header| {
                let place = Place::numbered(header.uuid, Table::Counters, 0);
                let mut chunk = {
                    let table = t.open_table(COUNTERS).unwrap();
                    let value = table.get(0).unwrap().unwrap();
                    CounterChunk::decode(value.value(), place).unwrap()
                };
                chunk.counts[11] = 3;
                t.open_table(COUNTERS).unwrap().insert(0, chunk.encode(place).as_slice()).unwrap();
            },
            "set 1 counts of chunk 0 to 0",
            &[],
            10,
        ),
        (
            "the state",
            |t, _| {
                t.open_table(META).unwrap().insert("state", &b"nonsense"[..]).unwrap();
            },
            "begin the lifetime totals again",
            &[],
            10,
        ),
        (
            "a position",
            |t, _| {
                t.open_table(META).unwrap().insert("ingest:data", &b"nonsense"[..]).unwrap();
            },
            "forget \"ingest:data\"",
            &[],
            10,
        ),
    ];
    for (name, change, action, slots, left) in cases {
        let home = Home::new();
        filled(&home).close().unwrap();
        let (whole, counted) = open(&home);
        tamper(&home, change);
        let damaged = home.bytes();
        let report = Store::verify(&home.path).run().unwrap();
        assert!(!report.ok && report.pages_ok, "{name}: {report:?}");
        let mut found: Vec<u32> = report.findings.iter().filter_map(|damage| damage.slot).collect();
        found.sort_unstable();
        found.dedup();
        assert!(slots.iter().all(|slot| found.contains(slot)), "{name}: {report:?}");
        let plan = Store::repair(&home.path).plan().unwrap();
        let actions: Vec<String> = plan.steps().into_iter().map(|step| step.action).collect();
        assert!(actions.iter().any(|step| step.contains(action)), "{name}: {actions:?}");
        assert!(plan.in_place() && home.bytes() == damaged, "{name}: a plan must not write");
        plan.apply().unwrap_or_else(|error| panic!("{name}: {error}"));
        let report = Store::verify(&home.path).run().unwrap();
        assert!(report.ok, "{name}: {report:?}");
        let (mended, recounted) = open(&home);
        assert_eq!(mended.memories.len(), *left, "{name}");
        for (id, kept) in &mended.memories {
            let was = &whole.memories[id];
            let touched = slots.contains(&id.0);
            assert!(touched || kept == was, "{name}: {id:?} was not damaged");
            assert!(recounted[id] == counted[id] || name.starts_with("count"), "{name}: {id:?}");
        }
    }
}

/// A plan frees no slot that another memory has taken since.
#[test]
fn a_plan_of_another_state_is_refused() {
    let home = Home::new();
    filled(&home).close().unwrap();
    tamper(&home, |t, _| flip(t, SLOTS, 4));
    let plan = || Store::repair(&home.path).plan().unwrap();
    let (early, late) = (plan(), plan());
    late.apply().unwrap();
    let store = Store::builder().clock(|| 1_000).open(&home.path).unwrap();
    let put = store.insert(&record(&mut Random(4))).unwrap();
    assert_eq!(put.id.slot, 4, "the slot that was freed");
    store.close().unwrap();
    let (before, counted) = open(&home);
    let error = early.apply().unwrap_err();
    assert!(
        matches!(error, Error::Argument { .. }) && error.to_string().contains("another state"),
        "{error}"
    );
    assert_eq!(open(&home), (before, counted));
}

#[test]
fn what_a_repair_cannot_mend_is_salvaged() {
    let home = Home::new();
    filled(&home).close().unwrap();
    let (whole, counted) = open(&home);
    tamper(&home, |t, _| {
        flip(t, SLOTS, 4);
        flip(t, METADATA, 2);
        flip(t, RESIDUALS, 3);
        t.open_table(META).unwrap().insert("state", &b"nonsense"[..]).unwrap();
    });
    let damaged = home.bytes();
    let saved = home.file("saved.apcm");
    let report = Store::salvage(&home.path, &saved).run().unwrap();
    assert!(home.bytes() == damaged, "the damaged file is only read");
    assert_eq!((report.memories, report.slots_lost), (9, 1));
    assert_eq!((report.metadata_lost, report.residuals_lost, report.counter_chunks_lost), (1, 1, 0));
    assert!(Store::verify(&saved).run().unwrap().ok);
    let store = Store::builder().clock(|| 1_000).open(&saved).unwrap();
    let found = snapshot(&store).unwrap();
    for (id, kept) in &found.memories {
        assert!([2, 3].contains(&id.0) || *kept == whole.memories[id], "{id:?}");
        assert_eq!(store.access_count(apcm::MemoryId { slot: id.0, seq: id.1 }), Some(counted[id]));
    }
    // Numbers of writes go on above those that were.
    let put = store.insert(&record(&mut Random(1))).unwrap();
    assert!(put.id.seq > 10);
    let error = Store::salvage(&home.path, &saved).run().unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    // Without its codec no code means anything.
    tamper(&home, |t, _| {
        let mut table = t.open_table(CODEC).unwrap();
        let mut bytes = table.get(0).unwrap().unwrap().value().to_vec();
        bytes[9] ^= 1;
        table.insert(0, bytes.as_slice()).unwrap();
    });
    let plan = Store::repair(&home.path).plan().unwrap();
    assert!(!plan.in_place() && matches!(plan.apply(), Err(Error::Argument { .. })));
    let error = Store::salvage(&home.path, home.file("none.apcm")).run().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(!home.file("none.apcm").exists());
}

/// F23: while others write, a backup is one state of the store; stopped halfway, it is nothing.
#[test]
fn f23_a_backup_is_one_state_while_others_write() {
    let home = Home::new();
    let store = filled(&home);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(8);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Both in one commit: a copy has the two of the same round, or it tore a transaction apart.
                let round = i64::try_from(random.below(1 << 40)).unwrap();
                let mut transaction = store.begin_write();
                for key in [b"1", b"2"] {
                    let metadata = Metadata::from([("round".to_owned(), round.into())]);
                    transaction.put(key, &record(&mut random), metadata).unwrap();
                }
                transaction.commit().unwrap();
            }
        });
        for round in 0..20 {
            let path = home.file(&format!("backup {round}"));
            let report = store.backup(&path).run().unwrap();
            assert_eq!(report.memories, 10);
            assert_eq!(report.bytes, std::fs::metadata(&path).unwrap().len());
            assert!(Store::verify(&path).run().unwrap().ok);
            let copy = Store::open_read_only(&path).unwrap();
            let of = |key: &[u8]| copy.peek_key(key).unwrap().unwrap().metadata.get("round").cloned();
            assert_eq!(of(b"1"), of(b"2"));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let path = home.file("backup");
    let stopped = store.backup(&path).progress(|_| ControlFlow::Break(())).run();
    // So few rows are copied before anybody is asked.
    assert!(stopped.is_ok() || !path.exists());
    let error = store.backup(home.file("backup 3")).run().unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    store.close().unwrap();
    let left: Vec<_> = std::fs::read_dir(home.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".apcm-new-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn compacting_gives_room_back_and_changes_nothing() {
    let home = Home::new();
    let store = filled(&home);
    let long = Metadata::from([("note".to_owned(), "x".repeat(500_000).into())]);
    for _ in 0..4 {
        store.put(b"0", &record(&mut Random(1)), long.clone()).unwrap();
    }
    store.put(b"0", &record(&mut Random(1)), Metadata::new()).unwrap();
    assert!(matches!(Store::compact(&home.path), Err(Error::Locked { .. })));
    store.close().unwrap();
    let before = open(&home);
    let report = Store::compact(&home.path).unwrap();
    assert!(report.bytes_after < report.bytes_before / 2, "{report:?}");
    assert_eq!(report.bytes_after, std::fs::metadata(&home.path).unwrap().len());
    assert_eq!(open(&home), before);
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

#[cfg(unix)]
#[test]
fn files_are_their_owners_alone_unless_told_otherwise() {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    filled(&home).close().unwrap();
    assert_eq!(mode(&home.path), 0o600);
    let open = home.file("open.apcm");
    let store = Store::builder()
        .capacity(2)
        .permissions(Permissions::from_mode(0o640))
        .create(&open, codec())
        .unwrap();
    assert_eq!(mode(&open), 0o640);
    store.backup(home.file("copy.apcm")).run().unwrap();
    store.recode(home.file("recoded.apcm"), codec()).run().unwrap();
    store.close().unwrap();
    Store::salvage(&home.path, home.file("saved.apcm")).run().unwrap();
    assert_eq!((mode(&home.file("copy.apcm")), mode(&home.file("saved.apcm"))), (0o640, 0o600));
    assert_eq!(mode(&home.file("recoded.apcm")), 0o640);
}

/// No page is lost on the way: after everything has come and gone, the file is as small as an empty store's,
/// but for the chunks of counts, 1 KiB for 250 slots, which stay.
#[test]
fn an_emptied_store_is_as_small_as_an_empty_one() {
    let home = Home::new();
    Store::builder().capacity(3_000).create(&home.path, codec()).unwrap().close().unwrap();
    let empty = Store::compact(&home.path).unwrap().bytes_after;
    for round in 0..3 {
        let store = Store::open(&home.path).unwrap();
        let mut random = Random(round);
        let mut transaction = store.begin_write();
        for row in 0..3_000_i64 {
            let metadata = Metadata::from([("row".to_owned(), row.into())]);
            let fidelity = if row % 3 == 0 { Fidelity::Lossless } else { Fidelity::Compact };
            let attributes = Attributes::default().with_metadata(metadata).with_fidelity(fidelity);
            transaction.put(row.to_string().as_bytes(), &record(&mut random), attributes).unwrap();
        }
        transaction.commit().unwrap();
        let mut transaction = store.begin_write();
        (0..3_000).try_for_each(|row| transaction.remove(row.to_string().as_bytes())).unwrap();
        assert_eq!(transaction.commit().unwrap().removed, 3_000);
        store.close().unwrap();
        let full = std::fs::metadata(&home.path).unwrap().len();
        let report = Store::compact(&home.path).unwrap();
        assert!(
            full > 4 * empty && report.bytes_after <= empty + 6 * 4_096,
            "{full} full, {report:?}, {empty} empty"
        );
        assert!(Store::verify(&home.path).run().unwrap().ok);
    }
}
