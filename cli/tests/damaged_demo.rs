//! F13 of docs/reliability.md, at length: damage in a store with a trained codec.
#![allow(missing_docs, reason = "tests")]

#[path = "../../tests/common/mod.rs"]
mod common;

use apcm::{Error, Store};
use common::Home;
use common::disk::Random;
use std::collections::BTreeMap;

/// Bytes of a page.
const PAGE: usize = 4_096;

/// The store that the demonstration makes, with a trained codec: one flipped byte in every page of it.
#[test]
fn f13_every_page_of_a_demo_store() {
    if std::env::var_os("APCM_DEEP").is_none() {
        eprintln!("SKIPPED: part of the deep tier (APCM_DEEP=1)");
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        if !apcm::panic_becomes_error() {
            eprintln!("{info}");
        }
    }));
    let home = Home::new();
    let demo = home.file("demo");
    let made =
        std::process::Command::new(env!("CARGO_BIN_EXE_apcm")).args(["demo", "--out"]).arg(&demo).output();
    assert!(made.unwrap().status.success());
    let made = demo.join("memory.apcm");
    Store::compact(&made).unwrap();
    let truth = walk(&Store::open(&made).unwrap());
    assert_eq!(truth.len(), 1_500);
    let intact = std::fs::read(&made).unwrap();
    let path = home.file("damaged");
    let mut random = Random(13);
    let (mut refused, mut whole, mut partly) = (0, 0, 0);
    for page in 0..intact.len() / PAGE {
        let at = page * PAGE + random.below(PAGE as u64) as usize;
        let mut bytes = intact.clone();
        bytes[at] ^= 1 << random.below(8);
        std::fs::write(&path, &bytes).unwrap();
        let opened = if page % 2 == 0 { Store::open(&path) } else { Store::open_read_only(&path) };
        let report = Store::verify(&path).run();
        let found = match opened {
            Ok(store) => walk(&store),
            Err(
                Error::NotAStore { .. } | Error::Corrupt { .. } | Error::Storage { .. } | Error::Format(_),
            ) => {
                refused += 1;
                assert!(!report.is_ok_and(|report| report.ok), "byte {at}: verified, and cannot be opened");
                continue;
            }
            Err(other) => panic!("byte {at}: {other:?}"),
        };
        for (id, values) in &found {
            assert_eq!(truth.get(id), Some(values), "byte {at}: a wrong value in {id:?}");
        }
        if found.len() == truth.len() { whole += 1 } else { partly += 1 }
    }
    eprintln!("{} pages: {refused} refused, {whole} whole, {partly} in part", intact.len() / PAGE);
    assert!(refused > 0 && whole > 0 && partly > 0);
}

/// Every memory that can be read: a fingerprint of its record's bits.
fn walk(store: &Store) -> BTreeMap<(u32, u64), u64> {
    let Ok(entries) = store.iter() else { return BTreeMap::new() };
    let entries: Vec<_> = entries.filter_map(Result::ok).collect();
    let mut found = BTreeMap::new();
    for batch in entries.chunks(500) {
        let hash = |values: &[f32]| {
            values.iter().fold(0_u64, |hash, value| {
                hash.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(value.to_bits()))
            })
        };
        if let Ok(Some(records)) = apcm::Entry::records(batch) {
            for (index, entry) in batch.iter().enumerate() {
                found.insert((entry.id().slot, entry.id().seq), hash(records.row(index)));
            }
        }
    }
    found
}
