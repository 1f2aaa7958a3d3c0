//! Damaged files (F13 to F15 of the fault matrix in docs/reliability.md): flipped bits, lost ends, misplaced
//! pages. Whatever the damage, a value that is given is the right one, nothing panics, and what is intact stays
//! readable.

mod common;

use apcm::{Attributes, Error, Fidelity, Memory, Metadata, Store};
use common::Home;
use common::disk::Random;
use common::scripts::{codec, record};
use std::collections::BTreeMap;
use std::path::Path;

/// More of everything: `APCM_DEEP=1 cargo test --release --test damage -- --nocapture`.
fn deep() -> bool {
    std::env::var_os("APCM_DEEP").is_some()
}

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

/// A record, bit for bit.
fn bits(memory: &Memory) -> Vec<u32> {
    memory.record.values().iter().map(|value| value.to_bits()).collect()
}

fn content(store: &Store) -> Content {
    (0..SLOTS)
        .filter_map(|row| {
            let key = format!("key {row}").into_bytes();
            let memory = store.peek_key(&key).unwrap()?;
            Some((key, (bits(&memory), memory.metadata)))
        })
        .collect()
}

/// redb's panics are caught and become errors; here their messages would drown everything else.
fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        if !apcm::panic_becomes_error() {
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
    for (key, (values, metadata)) in truth {
        match store.peek_key(key) {
            Ok(Some(memory)) => {
                assert_eq!(
                    (&bits(&memory), &memory.metadata),
                    (values, metadata),
                    "{what}: a wrong value for {key:?}"
                );
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
    let stride = if deep() { 7 } else { 7 * 41 };
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

#[test]
fn f14_lost_and_added_ends() {
    quiet();
    let home = Home::new();
    let truth = store(&home);
    let intact = home.bytes();
    let path = home.file("damaged");
    let mut outcome = Outcome::default();
    let edges = (0..=intact.len()).step_by(4_096).flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]);
    let short = (0..8_192).step_by(if deep() { 1 } else { 16 });
    for len in short.chain(edges).filter(|&len| len < intact.len()) {
        std::fs::write(&path, &intact[..len]).unwrap();
        probe(&path, &truth, &format!("the first {len} of {} bytes", intact.len()), &mut outcome);
    }
    assert!(outcome.refused > 500 && outcome.partly == 0, "{outcome:?}");
    for more in [1, 2, 511, 512, 4_095, 4_096, 4_097, 65_536] {
        for fill in [0, 0xa5] {
            let mut bytes = intact.clone();
            bytes.resize(intact.len() + more, fill);
            std::fs::write(&path, &bytes).unwrap();
            probe(&path, &truth, &format!("{more} bytes of {fill} more"), &mut outcome);
        }
    }
    eprintln!("{outcome:?}");
    assert_eq!(outcome.partly, 0, "{outcome:?}");
}

const PAGE: usize = 4_096;

#[test]
fn f15_pages_in_each_others_places() {
    quiet();
    let home = Home::new();
    let truth = store(&home);
    let intact = home.bytes();
    let pages = intact.len() / PAGE;
    let path = home.file("damaged");
    let mut outcome = Outcome::default();
    for (a, b) in (0..pages).flat_map(|a| (a + 1..pages).map(move |b| (a, b))) {
        let (from, to) = (a * PAGE..(a + 1) * PAGE, b * PAGE..(b + 1) * PAGE);
        if intact[from.clone()] == intact[to.clone()] {
            continue;
        }
        let mut bytes = intact.clone();
        bytes[from.clone()].copy_from_slice(&intact[to.clone()]);
        bytes[to].copy_from_slice(&intact[from]);
        std::fs::write(&path, &bytes).unwrap();
        probe(&path, &truth, &format!("pages {a} and {b} of {pages} swapped"), &mut outcome);
    }
    eprintln!("{outcome:?}");
    assert!(outcome.refused + outcome.partly > 30, "{outcome:?}");
}

/// A write that never reached the disk leaves an old page, whole and valid: no checksum of a value can tell.
/// The tree of checksums can, which is what `verify` is for.
#[test]
fn f15_pages_that_are_out_of_date() {
    quiet();
    let home = Home::new();
    store(&home);
    let old = home.bytes();
    {
        let store = Store::builder().clock(|| 1_000).open(&home.path).unwrap();
        let mut random = Random(99);
        for row in (0..SLOTS).step_by(9) {
            let key = format!("key {row}");
            store.put(key.as_bytes(), &record(&mut random), Attributes::default()).unwrap();
        }
        store.close().unwrap();
    }
    let new = home.bytes();
    let path = home.file("damaged");
    let (mut tried, mut found) = (0, 0);
    for page in 0..old.len().min(new.len()) / PAGE {
        let range = page * PAGE..(page + 1) * PAGE;
        if old[range.clone()] == new[range.clone()] {
            continue;
        }
        let mut bytes = new.clone();
        bytes[range.clone()].copy_from_slice(&old[range]);
        std::fs::write(&path, &bytes).unwrap();
        tried += 1;
        let report = Store::verify(&path).run();
        if report.as_ref().is_ok_and(|report| report.ok) {
            // Then the page was not in use: everything that is, is as it was.
            let (damaged, whole) = (Store::open(&path).unwrap(), Store::open(&home.path).unwrap());
            assert_eq!(content(&damaged), content(&whole), "page {page}");
        } else {
            found += 1;
        }
    }
    eprintln!("{found} of {tried} old pages were in use and found");
    assert!(tried > 5 && found > 3, "{found} of {tried}");
}

/// Whatever byte is damaged, what salvage saves is right, and it saves most where opening saves nothing.
#[test]
fn salvage_saves_what_is_right_or_nothing() {
    quiet();
    let home = Home::new();
    let truth = store(&home);
    let intact = home.bytes();
    let (path, saved) = (home.file("damaged"), home.file("saved"));
    let (mut all, mut some, mut none, mut rescued) = (0, 0, 0, 0);
    for at in (0..intact.len()).step_by(if deep() { 31 } else { 487 }) {
        let mut bytes = intact.clone();
        bytes[at] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        let Ok(report) = Store::salvage(&path, &saved).run() else {
            none += 1;
            assert!(!saved.exists());
            continue;
        };
        rescued += usize::from(Store::open(&path).is_err());
        assert!(Store::verify(&saved).run().unwrap().ok, "byte {at}");
        let found = content(&Store::open(&saved).unwrap());
        for (key, kept) in &found {
            // A residual that was lost leaves the memory as its code gives it.
            assert!(truth[key] == *kept || report.residuals_lost > 0, "byte {at}, {key:?}");
        }
        if found == truth {
            all += 1;
        } else {
            some += 1;
        }
        std::fs::remove_file(&saved).unwrap();
    }
    eprintln!("{all} files saved whole, {some} in part, {none} not; {rescued} of them could not be opened");
    assert!(all > 50 && some > 10 && rescued > 0, "{all} {some} {none} {rescued}");
}

/// A page that stands beside the slots and cannot be read keeps nobody from reading what else is there.
#[test]
fn f13_a_reader_gets_what_can_be_read_around_a_page_that_cannot() {
    quiet();
    let home = Home::new();
    let truth = store(&home);
    let intact = home.bytes();
    let path = home.file("damaged");
    let mut around = 0;
    // The first bytes of a page say what it is and how much is in it.
    for at in (0..intact.len()).step_by(PAGE).flat_map(|page| (page..page + 16).step_by(2)) {
        let mut bytes = intact.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&path, &bytes).unwrap();
        let refused = matches!(Store::open(&path), Err(Error::Storage { .. }));
        std::fs::write(&path, &bytes).unwrap();
        let mut read = 0;
        for (key, (values, metadata)) in &truth {
            // Each anew: a handle that met such a page refuses everything from then on.
            let Ok(store) = Store::open_read_only(&path) else { break };
            if let Ok(Some(memory)) = store.peek_key(key) {
                assert_eq!(
                    (&bits(&memory), &memory.metadata),
                    (values, metadata),
                    "byte {at}: a wrong value"
                );
                read += 1;
            }
        }
        around += usize::from(refused && read > 0);
    }
    eprintln!("{around} files that no writer may open gave memories to a reader");
    assert!(around > 0);
}
