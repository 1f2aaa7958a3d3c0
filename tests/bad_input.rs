//! Bad input: a defined answer or an error with the numbers, never a panic, and nothing lost.

mod common;

use apcm::{Attributes, Error, Filter, Metadata, PlainCodec, Record, Records, Store};
use common::tamper::{METADATA, flip, tamper};
use common::{Home, axis, plain_store, vector};
use redb::ReadableTable;
use std::io::Write;

#[test]
fn records_with_the_wrong_shape_or_values_are_refused() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let wrong = vector(&[1.0, 2.0]);
    for error in [
        store.insert(&wrong).map(drop),
        store.put(b"a", &wrong, Attributes::default()).map(drop),
        store.read(&wrong).map(drop),
        store.search(&wrong).run().map(drop),
        store.insert(&Record::new(&[2, 2], vec![0.0; 4]).unwrap()).map(drop),
    ] {
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::RecordShape { .. }), "{error}");
        assert!(error.to_string().contains("[4]"), "{error}");
    }
    assert!(store.is_empty());
    for (values, at) in
        [(vec![0.0, f32::NAN], 1), (vec![f32::INFINITY, 0.0], 0), (vec![0.0, f32::NEG_INFINITY], 1)]
    {
        assert!(
            matches!(Record::vector(values), Err(Error::NotFinite { record: 0, index, .. }) if index == at)
        );
    }
    let mut records = Records::with_dims(&[2]).unwrap();
    records.push_values(&[0.0, 1.0]).unwrap();
    assert!(matches!(
        records.push_values(&[f32::NAN, 1.0]),
        Err(Error::NotFinite { record: 1, index: 0, .. })
    ));
    assert_eq!(records.len(), 1);
    for dims in [&[][..], &[0], &[3, 0], &[1, 1, 1, 1], &[usize::MAX, 2], &[1 << 25]] {
        assert!(matches!(Record::new(dims, vec![]), Err(Error::Argument { .. })), "{dims:?}");
    }
}

#[test]
fn empty_and_oversized_arguments_are_refused() {
    let home = Home::new();
    for capacity in [0, u32::MAX] {
        let result =
            Store::builder().capacity(capacity).create(&home.path, PlainCodec::new(&[4], 4).unwrap());
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::Argument { .. }) && error.to_string().contains(&capacity.to_string())
        );
        assert!(!home.path.exists());
    }
    let store = plain_store(&home, 4, 4);
    assert_eq!(store.read(&axis(0, 4)).unwrap(), None, "an empty store answers None");
    assert_eq!(store.peek(&axis(0, 4)).unwrap(), None);
    assert!(store.search(&axis(0, 4)).run().unwrap().is_empty());
    assert!(matches!(store.search(&axis(0, 4)).k(0).run(), Err(Error::Argument { .. })));
    assert!(matches!(store.search(&axis(0, 4)).min_similarity(f32::NAN).run(), Err(Error::Argument { .. })));
    let none = Records::with_dims(&[4]).unwrap();
    assert!(matches!(store.search_many(&none).run_all(), Err(Error::Argument { .. })));
    let mut transaction = store.begin_write();
    transaction.insert_all(&none).unwrap();
    assert!(transaction.commit().unwrap().ids.is_empty());
    for key in [&[][..], &[1; 4_097]] {
        assert!(matches!(store.put(key, &axis(0, 4), Attributes::default()), Err(Error::Argument { .. })));
        assert!(matches!(store.get(key), Err(Error::Argument { .. })));
    }
    store.put(&[1; 4_096], &axis(0, 4), Attributes::default()).unwrap();
    let long_name = Metadata::from([("x".repeat(257), true.into())]);
    assert!(matches!(store.put(b"a", &axis(0, 4), long_name), Err(Error::Argument { .. })));
    let too_much = Metadata::from([("x".to_owned(), "y".repeat(2 << 20).into())]);
    assert!(matches!(store.put(b"a", &axis(0, 4), too_much), Err(Error::Argument { .. })));
    let mut deep = apcm::Value::Null;
    for _ in 0..17 {
        deep = apcm::Value::List(vec![deep]);
    }
    let nested_name = apcm::Value::Map(Metadata::from([("x".repeat(257), true.into())]));
    for value in [deep, nested_name] {
        let metadata = Metadata::from([("x".to_owned(), value)]);
        assert!(matches!(store.put(b"a", &axis(0, 4), metadata), Err(Error::Argument { .. })));
    }
    let many = apcm::Value::List((0..150_000_i64).map(Into::into).collect());
    let many = Metadata::from([("x".to_owned(), many)]);
    store.put(b"many", &axis(0, 4), many.clone()).unwrap();
    assert_eq!(store.get(b"many").unwrap().unwrap().metadata, many);
    assert!(store.remove(b"many").unwrap());
    assert!(!store.contains(b"a").unwrap() && store.len() == 1);
    store.put(b"a", &axis(0, 4), Attributes::default()).unwrap();
    for (dims, kept) in [(4, 0), (4, 5), (100_000, 100_000)] {
        assert!(matches!(PlainCodec::new(&[dims], kept), Err(Error::Argument { .. })));
    }
    let error = store.search(&axis(0, 4)).filter("year >>= 3").unwrap_err();
    assert!(matches!(&error, Error::Filter { column: 7, .. }), "{error}");
    assert!(Filter::parse("a = 1").is_ok());
}

#[test]
fn a_file_that_is_not_a_store_is_refused_and_stays_as_it_was_byte_for_byte() {
    let home = Home::new();
    let redb = |name: &str, clean: bool| {
        let path = home.file(name);
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = redb::TableDefinition::<&str, u64>::new("numbers");
        transaction.open_table(table).unwrap().insert("answer", 42).unwrap();
        transaction.commit().unwrap();
        if clean {
            drop(database);
        } else {
            // What a crash leaves behind: the file as it is while the database is open.
            let copy = home.file("copy");
            std::fs::copy(&path, &copy).unwrap();
            drop(database);
            std::fs::rename(copy, &path).unwrap();
        }
        std::fs::read(path).unwrap()
    };
    // Another program's database whose one table has our name and type, and something else inside.
    let lookalike = {
        let path = home.file("lookalike");
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
        transaction.open_table(table).unwrap().insert("header", &b"theirs"[..]).unwrap();
        transaction.commit().unwrap();
        drop(database);
        std::fs::read(path).unwrap()
    };
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("text", b"to be or not to be".to_vec()),
        ("short", b"redb".to_vec()),
        ("only the magic", b"redb\x1A\x0A\xA9\x0D\x0A".to_vec()),
        ("magic and zeros", [&b"redb\x1A\x0A\xA9\x0D\x0A"[..], &[0; 8_192]].concat()),
        ("another's, clean", redb("clean", true)),
        ("another's, dirty", redb("dirty", false)),
        ("another's with our table", lookalike),
    ] {
        let path = home.file("stranger");
        std::fs::write(&path, &bytes).unwrap();
        for (how, result) in [("write", Store::open(&path)), ("read", Store::open_read_only(&path))] {
            let error = result.map(drop).unwrap_err();
            assert!(
                matches!(&error, Error::NotAStore { .. } | Error::NeedsRecovery { .. }),
                "{name}, to {how}: {error:?}"
            );
            assert!(std::fs::read(&path).unwrap() == bytes, "{name} was touched by opening it to {how}");
        }
    }
    assert!(matches!(Store::open(home.folder.path()), Err(Error::NotAStore { .. } | Error::Io { .. })));
    assert!(matches!(Store::open(home.file("nowhere")), Err(Error::Io { .. })));
}

#[test]
fn a_store_of_a_future_version_is_refused_untouched() {
    let home = Home::new();
    plain_store(&home, 4, 4).close().unwrap();
    // The header's major version, behind its magic, wherever the database put it.
    let set_header = |change: &dyn Fn(&mut [u8])| {
        let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
        let database = redb::Database::open(&home.path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut meta = transaction.open_table(table).unwrap();
            let mut header = meta.get("header").unwrap().unwrap().value().to_vec();
            change(&mut header);
            let body = header.len() - 4;
            let crc = apcm_crc(&header[..body]);
            header[body..].copy_from_slice(&crc.to_le_bytes());
            meta.insert("header", header.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    };
    set_header(&|header| header[8] = 2);
    let before = home.bytes();
    assert!(matches!(Store::open(&home.path), Err(Error::TooNew { .. })));
    assert!(matches!(Store::open_read_only(&home.path), Err(Error::TooNew { .. })));
    assert!(home.bytes() == before);
    // An unknown incompatible feature forbids opening, a read-only compatible one writing, a compatible one
    // nothing.
    set_header(&|header| (header[8], header[32]) = (1, 4));
    assert!(matches!(Store::open_read_only(&home.path), Err(Error::TooNew { .. })));
    set_header(&|header| (header[32], header[24]) = (0, 4));
    let before = home.bytes();
    assert!(matches!(Store::open(&home.path), Err(Error::TooNew { .. })));
    assert!(home.bytes() == before);
    Store::open_read_only(&home.path).unwrap();
    set_header(&|header| (header[24], header[16]) = (0, 4));
    Store::open(&home.path).unwrap();
}

/// CRC-32 bit by bit: the header's is not keyed.
fn apcm_crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[test]
fn a_store_cut_short_anywhere_is_an_error_and_no_panic() {
    let home = Home::new();
    let store = plain_store(&home, 50, 8);
    for i in 0..50 {
        store.insert(&axis(i, 8)).unwrap();
    }
    store.close().unwrap();
    let bytes = home.bytes();
    let path = home.file("cut.apcm");
    for share in 0..40 {
        let len = bytes.len() * share / 40;
        std::fs::write(&path, &bytes[..len]).unwrap();
        let error = Store::open(&path).map(drop).unwrap_err();
        assert!(matches!(&error, Error::NotAStore { .. }), "{len} bytes: {error:?}");
        assert_eq!(std::fs::read(&path).unwrap().len(), len);
    }
}

#[test]
fn a_damaged_slot_is_one_error_and_the_others_stay_readable() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    for i in 0..3 {
        store.put(&[i], &axis(i.into(), 4), Attributes::default()).unwrap();
    }
    store.close().unwrap();
    {
        let table = redb::TableDefinition::<u32, &[u8]>::new("slots");
        let database = redb::Database::open(&home.path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            // Slot 1 gets slot 0's record, checksum and all: intact bytes in the wrong place.
            let mut slots = transaction.open_table(table).unwrap();
            let other = slots.get(0).unwrap().unwrap().value().to_vec();
            slots.insert(1, other.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    let store = Store::open(&home.path).unwrap();
    assert!(matches!(store.get(&[1]), Err(Error::Corrupt { what, .. }) if what == "slot 1"));
    assert_eq!(store.get(&[0]).unwrap().unwrap().record, axis(0, 4));
    assert_eq!(store.read(&axis(2, 4)).unwrap().unwrap().record, axis(2, 4));
    let stats = store.stats().unwrap();
    assert_eq!((stats.occupied, stats.damaged), (3, 1));
    let (good, bad): (Vec<_>, Vec<_>) = store.iter().unwrap().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (2, 1));
    // It is nobody's victim, and can be removed.
    store.insert(&axis(3, 4)).unwrap();
    store.insert(&axis(1, 4)).unwrap();
    assert_eq!(store.stats().unwrap().damaged, 1);
    assert!(store.remove(&[1]).unwrap());
    assert_eq!(store.stats().unwrap().damaged, 0);
}

/// What cannot say what it is must not make a search for the others fail.
#[test]
fn a_memory_with_damaged_metadata_is_one_error_and_no_hit() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let note = || Metadata::from([("kind".to_owned(), "note".into())]);
    let ids: Vec<_> = (0..3).map(|i| store.put(&[i], &axis(i.into(), 4), note()).unwrap().id).collect();
    store.close().unwrap();
    tamper(&home, |transaction, _| flip(transaction, METADATA, 1));
    let store = Store::open(&home.path).unwrap();
    let hits = store.search(&axis(1, 4)).k(3).run().unwrap();
    assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert_eq!(store.search(&axis(1, 4)).filter("kind = 'note'").unwrap().run().unwrap().len(), 2);
    assert!(matches!(store.get(&[1]), Err(Error::Corrupt { what, .. }) if what == "the metadata of slot 1"));
    assert!(matches!(store.get_id(ids[1]), Err(Error::Corrupt { .. })));
    let stats = store.stats().unwrap();
    assert_eq!((stats.damaged, stats.code_bytes), (1, 16.0), "what is damaged counts for nothing");
    // More threads than anybody gives are not asked for.
    assert_eq!(store.search(&axis(1, 4)).threads(1 << 30).run().unwrap().len(), 2);
    store.remove_id(ids[1]).unwrap();
    assert_eq!((store.len(), store.stats().unwrap().damaged), (2, 0));
    store.put(&[1], &axis(1, 4), note()).unwrap();
    assert_eq!(store.get(&[1]).unwrap().unwrap().record, axis(1, 4));
}

#[test]
fn a_key_that_leads_astray_never_touches_the_stranger_it_leads_to() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    for i in 0..3 {
        store.put(&[i], &axis(i.into(), 4), Attributes::default()).unwrap();
    }
    store.close().unwrap();
    {
        let table = redb::TableDefinition::<&[u8], u32>::new("keys");
        let database = redb::Database::open(&home.path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut keys = transaction.open_table(table).unwrap();
            keys.insert(&[7][..], 1).unwrap();
            keys.insert(&[8][..], 3_000_000).unwrap();
        }
        transaction.commit().unwrap();
    }
    let store = Store::open(&home.path).unwrap();
    assert!(matches!(store.get(&[7]), Err(Error::Corrupt { .. })));
    assert!(!store.remove(&[8]).unwrap());
    let put = store.put(&[7], &axis(3, 4), Attributes::default()).unwrap();
    assert_eq!((put.id.slot, put.evicted.len()), (3, 0));
    for i in 0..3 {
        assert_eq!(store.get(&[i]).unwrap().unwrap().record, axis(i.into(), 4));
    }
    assert_eq!(store.get(&[7]).unwrap().unwrap().record, axis(3, 4));
}

#[test]
fn creating_over_a_file_is_refused() {
    let home = Home::new();
    std::fs::write(&home.path, "precious").unwrap();
    let result = Store::builder().create(&home.path, PlainCodec::new(&[4], 4).unwrap());
    assert!(matches!(result, Err(Error::Exists { .. })));
    assert_eq!(std::fs::read(&home.path).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(home.folder.path()).unwrap().count(), 1, "no temporary file is left behind");
}

#[test]
fn a_store_in_use_is_locked_for_everybody_else() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    assert!(matches!(Store::open(&home.path), Err(Error::Locked { .. })));
    assert!(matches!(Store::open_read_only(&home.path), Err(Error::Locked { .. })));
    store.insert(&axis(0, 4)).unwrap();
    drop(store);
    let reader = Store::open_read_only(&home.path).unwrap();
    assert!(matches!(Store::open(&home.path), Err(Error::Locked { .. })));
    drop(reader);
    Store::open(&home.path).unwrap();
}

#[test]
fn a_file_that_was_not_closed_needs_recovery_before_it_is_read() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    store.put(b"a", &axis(0, 4), Attributes::default()).unwrap();
    let copy = home.file("crashed.apcm");
    std::fs::copy(&home.path, &copy).unwrap();
    drop(store);
    assert!(matches!(Store::open_read_only(&copy), Err(Error::NeedsRecovery { .. })));
    Store::open(&copy).unwrap().close().unwrap();
    assert!(Store::open_read_only(&copy).unwrap().contains(b"a").unwrap());
}

#[test]
fn foreign_and_truncated_datasets_are_refused_with_what_was_found() {
    use apcm::ingest::Dataset;
    let home = Home::new();
    let npy = |text: &str, data: &[u8]| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    };
    let dict = |descr: &str, shape: &str| {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")
    };
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&[0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2, 3, 4]).unwrap();
    let gz = gz.finish().unwrap();
    for (name, bytes, part) in [
        ("empty", Vec::new(), "neither npy"),
        ("text", b"some text".to_vec(), "neither npy"),
        ("long", npy(&dict("<f4", "(2, 2)"), &[0; 17]), "the file has"),
        ("short", npy(&dict("<f4", "(2, 2)"), &[0; 15]), "the file has"),
        ("vast", npy(&dict("<f4", "(4000000000, 4000000000)"), &[]), "at most 16777216 values"),
        ("more", npy(&dict("<f4", "(18446744073709551615, 8)"), &[]), "too many"),
        ("ints", npy(&dict("<i4", "(2,)"), &[0; 8]), "<i4"),
        ("no rows of nothing", npy(&dict("<f4", "(3, 0)"), &[]), "none of them 0"),
        ("idx", vec![0, 0, 8, 1, 0, 0, 0, 9, 1, 2], "the file has"),
        ("cut gzip", gz[..gz.len() - 12].to_vec(), "damaged"),
    ] {
        let path = home.file("data");
        std::fs::write(&path, bytes).unwrap();
        let error = Dataset::open(&path).and_then(|dataset| dataset.load()).unwrap_err();
        assert!(matches!(error, Error::Dataset { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
    // Its header promises three records, the packed data holds two.
    let path = home.file("data.gz");
    std::fs::write(&path, gz).unwrap();
    let dataset = Dataset::open(&path).unwrap();
    assert_eq!(dataset.len(), 3);
    let error = dataset.load().unwrap_err().to_string();
    assert!(error.contains("ends after 2"), "{error}");
    let path = home.file("nan.npy");
    let values: Vec<u8> = [0.0_f64, 1.0, 2.0, 1e300].iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(&path, npy(&dict("<f8", "(2, 2)"), &values)).unwrap();
    let error = Dataset::open(&path).unwrap().load().unwrap_err().to_string();
    assert!(error.contains("record 1 holds inf at position 1"), "{error}");
}
