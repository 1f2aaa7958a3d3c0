//! Files of format version 1 as a released program wrote them, and what is in them: every later version must
//! read them alike. Whoever changes the format on purpose makes the fixtures again, in the same commit, with a
//! line in CHANGELOG: `cargo test --test golden -- --ignored make_the_fixtures`.

mod common;

use apcm::{
    Attributes, Error, Fidelity, MemoryId, Metadata, Pack, PlainCodec, Policy, Record, Similarity, Store,
    Value,
};
use apcm_format::StoreHeader;
use common::Home;
use redb::ReadableDatabase;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FOLDER: &str = "tests/golden/v1";
/// BLAKE3 of `expected.json`, which has those of the files: a fixture that was swapped is seen.
const EXPECTED_HASH: &str = "9693ade6feba6f0203702ef9ee6fab1b6e3cf1f08f9d2db5a55fb455b26f769c";
/// BLAKE3 of `good.apack`, which `apcm pack` made of `good.apcm`.
const PACK_HASH: &str = "f5ea4c22ca34157df2ecf291917d40e32cac93a6ecb2fcfd843613bef96e98b3";

fn fixture(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn hash(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
}

fn expected() -> serde_json::Value {
    assert_eq!(
        hash(&fixture("expected.json")),
        EXPECTED_HASH,
        "expected.json is not the one this test was made with"
    );
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

/// A copy of a fixture that may be opened for writing.
fn copy(home: &Home, name: &str) -> PathBuf {
    let path = home.file(name);
    std::fs::copy(fixture(name), &path).unwrap();
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a copy in the test's own folder")]
    permissions.set_readonly(false);
    std::fs::set_permissions(&path, permissions).unwrap();
    path
}

/// Everything that a store says of itself and of its memories.
fn content(store: &Store) -> serde_json::Value {
    let description = store.description();
    let memories: Vec<_> = store
        .iter()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let bits: Vec<u32> =
                entry.record().unwrap().values().iter().map(|value| value.to_bits()).collect();
            json!({
                "slot": entry.id().slot,
                "seq": entry.id().seq,
                "key": entry.key().map(|key| String::from_utf8_lossy(key)),
                "metadata": entry.metadata(),
                "record_bits": bits,
                "error_bits": entry.error().to_bits(),
                "norm_bits": entry.norm().to_bits(),
                "code_len": entry.code_len(),
                "residual_len": entry.residual_len(),
                "count": entry.count(),
                "pinned": entry.is_pinned(),
                "written_at": entry.written_at(),
                "expires_at": entry.expires_at(),
            })
        })
        .collect();
    let stats = store.stats().unwrap();
    let position = store.ingest_position("data.npy").unwrap();
    json!({
        "capacity": description.capacity,
        "shape": description.shape.dims(),
        "centred": description.similarity == Similarity::CentredCosine,
        "fingerprint": store.fingerprint().to_string(),
        "evictions": stats.evictions,
        "evictions_never_read": stats.evictions_never_read,
        "reads": stats.reads,
        "byte_budget": stats.byte_budget,
        "position": position.map(|position| [position.next, position.total, position.source_bytes]),
        "memories": memories,
    })
}

fn clocked() -> apcm::StoreBuilder {
    Store::builder().clock(|| 1_800_000_000)
}

#[test]
fn the_fixtures_are_those_that_were_released() {
    let expected = expected();
    let files = expected["files"].as_object().unwrap();
    assert_eq!(files.len(), 4);
    for (name, recorded) in files {
        assert_eq!(recorded, &hash(&fixture(name)), "{name} was swapped");
    }
}

#[test]
fn a_good_file_holds_what_it_held() {
    let home = Home::new();
    let path = copy(&home, "good.apcm");
    assert!(Store::verify(&path).run().unwrap().ok);
    assert_eq!(content(&clocked().open_read_only(&path).unwrap()), expected()["content"]);
    let store = clocked().open(&path).unwrap();
    assert_eq!(content(&store), expected()["content"]);
    // And it goes on from there.
    let put = store.insert(&Record::new(&[2, 2], vec![0.5, 0.25, -1.0, 2.0]).unwrap()).unwrap();
    assert_eq!(put.id.seq, expected()["next_seq"].as_u64().unwrap());
    store.close().unwrap();
    assert!(Store::verify(&path).run().unwrap().ok);
}

#[test]
fn a_good_pack_holds_what_the_store_held() {
    assert_eq!(hash(&fixture("good.apack")), PACK_HASH, "good.apack was swapped");
    let pack = Pack::builder().clock(|| 1_800_000_000).open(fixture("good.apack")).unwrap();
    pack.verify().unwrap();
    let home = Home::new();
    let path = home.file("unpacked.apcm");
    let store = clocked().unpack(&pack, &path).run().unwrap();
    let (unpacked, expected) = (content(&store), expected());
    for field in ["capacity", "shape", "centred", "fingerprint", "memories"] {
        assert_eq!(unpacked[field], expected["content"][field], "{field}");
    }
    let put = store.insert(&Record::new(&[2, 2], vec![0.5, 0.25, -1.0, 2.0]).unwrap()).unwrap();
    assert_eq!(put.id.seq, expected["next_seq"].as_u64().unwrap());
}

#[test]
fn a_flipped_bit_damages_one_memory() {
    let home = Home::new();
    let path = copy(&home, "flipped.apcm");
    let slot = u32::try_from(expected()["flipped_slot"].as_u64().unwrap()).unwrap();
    let report = Store::verify(&path).run().unwrap();
    assert!(!report.ok && report.findings[0].slot == Some(slot), "{report:?}");
    let store = clocked().open(&path).unwrap();
    for memory in expected()["content"]["memories"].as_array().unwrap() {
        let number = |field: &str| memory[field].as_u64().unwrap();
        let id = MemoryId { slot: u32::try_from(number("slot")).unwrap(), seq: number("seq") };
        match store.peek_id(id) {
            Ok(found) => {
                let bits: Vec<u32> = found.record.values().iter().map(|value| value.to_bits()).collect();
                assert!(id.slot != slot && json!(bits) == memory["record_bits"]);
            }
            Err(error) => assert!(id.slot == slot && matches!(error, Error::Corrupt { .. }), "{error}"),
        }
    }
}

#[test]
fn a_file_cut_short_and_one_of_a_newer_version_are_refused_unchanged() {
    let home = Home::new();
    for name in ["truncated.apcm", "newer.apcm"] {
        let path = copy(&home, name);
        let (write, read) = (Store::open(&path).unwrap_err(), Store::open_read_only(&path).unwrap_err());
        match name {
            "newer.apcm" => assert!(
                matches!((&write, &read), (Error::TooNew { .. }, Error::TooNew { .. })),
                "{write}; {read}"
            ),
            // To a reader it is a file that was not closed; whoever would recover it is told what it is.
            _ => assert!(
                matches!((&write, &read), (Error::NotAStore { .. }, Error::NeedsRecovery { .. })),
                "{write}; {read}"
            ),
        }
        assert_eq!(hash(&path), hash(&fixture(name)), "{name} was changed");
    }
}

/// Makes the fixtures; only where the format was changed on purpose.
#[test]
#[ignore = "writes to tests/golden"]
fn make_the_fixtures() {
    let home = Home::new();
    let store = clocked()
        .capacity(9)
        .byte_budget(10_000)
        .similarity(Similarity::CentredCosine)
        .create(&home.path, PlainCodec::new(&[2, 2], 3).unwrap())
        .unwrap();
    let value = |i: usize| ((i * 37) % 19) as f32 / 7.0 - 1.25;
    for row in 0..11_usize {
        let record = Record::new(&[2, 2], (0..4).map(|at| value(row * 4 + at)).collect()).unwrap();
        let mut attributes = Attributes::default();
        let mut metadata = Metadata::new();
        match row {
            2 => attributes = attributes.pinned(),
            3 => attributes = attributes.expiring_in(Duration::from_secs(1_000_000)),
            4 => attributes = attributes.with_fidelity(Fidelity::Lossless),
            5 => attributes = attributes.with_fidelity(Fidelity::Bounded(1e-4)),
            6 => {
                metadata.insert("text".to_owned(), "Grüße, 記憶".into());
                metadata.insert("number".to_owned(), 1.5.into());
                metadata
                    .insert("list".to_owned(), Value::List(vec![true.into(), Value::Null, (-7_i64).into()]));
            }
            _ => {}
        }
        let attributes = attributes.with_metadata(metadata);
        match row % 2 {
            0 => store.put(format!("key {row}").as_bytes(), &record, attributes).unwrap(),
            _ => store.insert_with(&record, attributes).unwrap(),
        };
        for _ in 0..row % 4 {
            store.read(&record).unwrap();
        }
    }
    let mut transaction = store.begin_write();
    let position = apcm_format::IngestPosition { next: 5, total: 10, source_bytes: 80 };
    transaction.set_ingest_position("data.npy", position);
    transaction.commit().unwrap();
    let next_seq = 12;
    let content = content(&store);
    store.close().unwrap();
    Store::compact(&home.path).unwrap();
    let good = home.bytes();
    std::fs::write(fixture("good.apcm"), &good).unwrap();
    std::fs::write(fixture("truncated.apcm"), &good[..good.len() / 2]).unwrap();
    let tamper = |name: &str, table: &str| {
        let path = home.file(name);
        std::fs::write(&path, &good).unwrap();
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        if table == "meta" {
            // A feature that is not known yet and forbids opening.
            let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
            let read = database.begin_read().unwrap();
            let table = read.open_table(meta).unwrap();
            let mut header = StoreHeader::decode(table.get("header").unwrap().unwrap().value()).unwrap();
            header.features.incompatible |= 1 << 62;
            transaction.open_table(meta).unwrap().insert("header", header.encode().as_slice()).unwrap();
        } else {
            let slots = redb::TableDefinition::<u32, &[u8]>::new("slots");
            let read = database.begin_read().unwrap();
            let mut record = read.open_table(slots).unwrap().get(6).unwrap().unwrap().value().to_vec();
            record[17] ^= 0x10;
            transaction.open_table(slots).unwrap().insert(6, record.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        std::fs::copy(path, fixture(name)).unwrap();
    };
    tamper("newer.apcm", "meta");
    tamper("flipped.apcm", "slots");
    let files: serde_json::Map<_, _> = ["good.apcm", "truncated.apcm", "newer.apcm", "flipped.apcm"]
        .into_iter()
        .map(|name| (name.to_owned(), hash(&fixture(name)).into()))
        .collect();
    let expected = json!({ "files": files, "flipped_slot": 6, "next_seq": next_seq, "content": content });
    let text = serde_json::to_string_pretty(&expected).unwrap() + "\n";
    std::fs::write(fixture("expected.json"), text).unwrap();
    println!("EXPECTED_HASH = {}", hash(&fixture("expected.json")));
}

/// BLAKE3 of `streams.apcm`: three parts of a stream, the second one evicted, under `lru`.
const STREAMS_HASH: &str = "06462559eb267667dd2befadcb3aaf5b40abbd12a7691b0e6e8de9218949d33a";

fn walk(i: usize) -> Record {
    let (a, b) = (i as f32 / 5.0, i as f32 / 11.0);
    Record::vector(vec![a.sin(), a.cos(), b.sin()]).unwrap()
}

#[test]
fn a_store_with_a_stream_and_a_policy_goes_on() {
    assert_eq!(hash(&fixture("streams.apcm")), STREAMS_HASH, "streams.apcm was swapped");
    let home = Home::new();
    let path = copy(&home, "streams.apcm");
    assert!(Store::verify(&path).run().unwrap().ok);
    let store = clocked().open(&path).unwrap();
    assert_eq!((store.policy(), store.len()), (Policy::Lru, 4));
    let stream = store.stream("walk").unwrap();
    let indices = |from, to| (from..to).collect::<Vec<u64>>();
    let found: Vec<u64> = stream.recall_all().unwrap().iter().map(|recalled| recalled.index).collect();
    assert_eq!(found, [indices(0, 8), indices(16, 22)].concat());
    for recalled in stream.recall_all().unwrap() {
        let exact = walk(recalled.index as usize);
        let off = recalled.record.values().iter().zip(exact.values()).map(|(x, y)| (x - y).abs());
        assert!(off.fold(0.0, f32::max) < 0.35, "{recalled:?}");
    }
    assert!(matches!(stream.recall(9).unwrap_err(), Error::Forgotten { index: 9, .. }));
    assert_eq!(stream.append(&walk(22)).unwrap().index, 22);
    // Everything of the stream was read just now, and `b` before it closed: `a` is who leaves.
    let put = store.put(b"c", &walk(40), Attributes::default()).unwrap();
    assert_eq!(put.evicted[0].key.as_deref(), Some(b"a".as_slice()));
}

/// Makes `streams.apcm`; only where the format was changed on purpose.
#[test]
#[ignore = "writes to tests/golden"]
fn make_the_fixture_with_a_stream() {
    let home = Home::new();
    let mut seen = apcm::Records::with_dims(&[3]).unwrap();
    (0..256).for_each(|i| seen.push(&walk(i)).unwrap());
    let tree = apcm::SweeperTree::trainer(&seen, &[8; 32]).state(9).untrained().train().unwrap().tree;
    let codec = PlainCodec::new(&[3], 3).unwrap();
    let store = clocked().capacity(4).policy(Policy::Lru).create(&home.path, codec).unwrap();
    store.set_sweeper_tree(tree).unwrap();
    let stream = store.stream("walk").unwrap();
    (0..16).for_each(|i| drop(stream.append(&walk(i)).unwrap()));
    store.put(b"a", &walk(30), Attributes::default()).unwrap();
    store.put(b"b", &walk(31), Attributes::default()).unwrap();
    stream.recall(3).unwrap();
    // The second part is the least recently used.
    (16..22).for_each(|i| drop(stream.append(&walk(i)).unwrap()));
    store.get(b"b").unwrap();
    store.close().unwrap();
    Store::compact(&home.path).unwrap();
    std::fs::copy(&home.path, fixture("streams.apcm")).unwrap();
    println!("STREAMS_HASH = {}", hash(&fixture("streams.apcm")));
}
