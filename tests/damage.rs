//! Damaged files (F13 to F15 of the fault matrix in docs/reliability.md): flipped bits, lost ends, misplaced pages.
//! Whatever the damage, a value that is given is the right one, nothing panics, and what is intact stays readable.

mod common;

use apcm::{Attributes, Error, Fidelity, Metadata, Store};
use common::Home;
use common::disk::Random;
use common::scripts::{codec, record};
use std::collections::BTreeMap;
use std::path::Path;

/// Every memory by key: the values of its record, bit for bit, and its metadata.
type Content = BTreeMap<Vec<u8>, (Vec<u32>, Metadata)>;

const SLOTS: u32 = 100;

/// A closed store of a hundred memories, some with metadata, some with residuals.
fn store(home: &Home) -> Content {
    let store = Store::builder().capacity(SLOTS).clock(|| 1_000).create(&home.path, codec()).unwrap();
    let mut random = Random(7);
    let mut transaction = store.begin_write();
    for row in 0..SLOTS {
        let fidelity = match row % 5 {
            0 => Fidelity::Lossless,
            1 => Fidelity::Bounded(1e-3),
            _ => Fidelity::Compact,
        };
        let mut metadata = Metadata::new();
        if row % 2 == 0 {
            metadata.insert("row".to_owned(), i64::from(row).into());
        }
        let attributes = Attributes::default().with_metadata(metadata).with_fidelity(fidelity);
        transaction.put(format!("key {row}").as_bytes(), &record(&mut random), attributes).unwrap();
    }
    transaction.commit().unwrap();
    for row in 0..SLOTS / 4 {
        store.get(format!("key {row}").as_bytes()).unwrap();
    }
    let content = content(&store);
    store.close().unwrap();
    Store::compact(&home.path).unwrap();
    content
}

fn content(store: &Store) -> Content {
    (0..SLOTS)
        .filter_map(|row| {
            let key = format!("key {row}").into_bytes();
            let memory = store.peek_key(&key).unwrap()?;
            Some((
                key,
                (memory.record.values().iter().map(|value| value.to_bits()).collect(), memory.metadata),
            ))
        })
        .collect()
}

/// redb's panics are caught and become errors; here their messages would drown everything else.
fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let ours = info.location().is_some_and(|place| !place.file().contains("redb-"));
        if ours {
            eprintln!("{info}");
        }
    }));
}

/// What a damaged file still gives.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    refused: usize,
    whole: usize,
    partly: usize,
}

/// Opens a file in every way and holds whatever comes out against the truth.
fn probe(path: &Path, truth: &Content, what: &str, outcome: &mut Outcome) {
    let report = Store::verify(path).run();
    let store = match Store::open(path) {
        Ok(store) => store,
        Err(
            Error::NotAStore { .. }
            | Error::Corrupt { .. }
            | Error::Storage { .. }
            | Error::TooNew { .. }
            | Error::Format(_),
        ) => {
            outcome.refused += 1;
            assert!(!report.is_ok_and(|report| report.ok), "{what}: verified, and cannot be opened");
            return;
        }
        Err(other) => panic!("{what}: {other:?}"),
    };
    let mut missing = 0;
    for (key, (bits, metadata)) in truth {
        match store.peek_key(key) {
            Ok(Some(memory)) => {
                let found: Vec<u32> = memory.record.values().iter().map(|value| value.to_bits()).collect();
                assert_eq!((&found, &memory.metadata), (bits, metadata), "{what}: a wrong value for {key:?}");
            }
            // A key whose row was damaged may not be found: it is not said that it is another's.
            Ok(None) | Err(Error::Corrupt { .. } | Error::Storage { .. } | Error::Poisoned) => missing += 1,
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
    // Searching and walking must not panic either.
    let _ = store.peek(&record(&mut Random(3)));
    let _ = store.search(&record(&mut Random(3))).k(5).with_records().run();
    if let Ok(entries) = store.iter() {
        for entry in entries {
            let _ = entry.and_then(|entry| entry.record());
        }
    }
    match missing {
        0 => outcome.whole += 1,
        _ => {
            outcome.partly += 1;
            assert!(
                !report.is_ok_and(|report| report.ok),
                "{what}: verified, and {missing} memories are missing"
            );
        }
    }
}

#[test]
fn f13_flipped_bits() {
    quiet();
    let home = Home::new();
    let truth = store(&home);
    assert_eq!(truth.len(), SLOTS as usize);
    let intact = home.bytes();
    let report = Store::verify(&home.path).run().unwrap();
    assert!(report.ok && report.slots_checked == 100 && report.residuals_checked == 40, "{report:?}");
    let stride = if std::env::var_os("APCM_DEEP").is_some() { 7 } else { 7 * 41 };
    let path = home.file("damaged");
    let mut outcome = Outcome::default();
    for at in (0..intact.len()).step_by(stride) {
        for flip in [|byte: u8| byte ^ 1, |byte| byte ^ 0x80, |_| 0, |_| 0xff] {
            if flip(intact[at]) == intact[at] {
                continue;
            }
            let mut bytes = intact.clone();
            bytes[at] = flip(intact[at]);
            std::fs::write(&path, &bytes).unwrap();
            probe(&path, &truth, &format!("byte {at} of {}", intact.len()), &mut outcome);
        }
    }
    eprintln!("{} bytes, every {stride}th: {outcome:?}", intact.len());
    assert!(outcome.whole > 100 && outcome.partly > 10 && outcome.refused > 0, "{outcome:?}");
}
