//! Transactions, keys, metadata, searches, iteration.

mod common;

use apcm::{Attributes, Error, Metadata, Store, Value};
use common::{Home, RaggedCodec, axis, noise, plain_store, records, vector};

fn kind(name: &str, year: i64) -> Metadata {
    Metadata::from([("kind".into(), name.into()), ("year".into(), year.into())])
}

#[test]
fn a_transaction_takes_effect_at_commit_and_sees_its_own_keys_before() {
    let home = Home::new();
    let store = plain_store(&home, 8, 4);
    store.put(b"old", &axis(0, 4), Attributes::default()).unwrap();
    let mut transaction = store.begin_write();
    transaction.put(b"new", &axis(1, 4), kind("note", 2026)).unwrap();
    transaction.remove(b"old").unwrap();
    assert!(transaction.contains(b"new").unwrap() && !transaction.contains(b"old").unwrap());
    assert!(!store.contains(b"new").unwrap() && store.contains(b"old").unwrap());
    let done = transaction.commit().unwrap();
    assert_eq!((done.ids.len(), done.removed), (1, 1));
    assert!(store.contains(b"new").unwrap() && !store.contains(b"old").unwrap());
}

#[test]
fn a_dropped_transaction_leaves_no_trace() {
    let home = Home::new();
    let store = plain_store(&home, 8, 4);
    let before = home.bytes();
    let mut transaction = store.begin_write();
    transaction.put(b"a", &axis(1, 4), Attributes::default()).unwrap();
    drop(transaction);
    assert!(store.is_empty() && home.bytes() == before);
    assert_eq!(store.begin_write().commit().unwrap(), apcm::Committed::default());
}

#[test]
fn a_commit_that_fails_changes_nothing_and_the_store_goes_on() {
    let home = Home::new();
    let store = plain_store(&home, 2, 4);
    let id = store.put(b"a", &axis(0, 4), Attributes::default()).unwrap().id;
    let gone = store.put(b"b", &axis(1, 4), Attributes::default()).unwrap().id;
    store.remove(b"b").unwrap();
    let mut transaction = store.begin_write();
    transaction.put(b"a", &axis(2, 4), Attributes::default()).unwrap();
    transaction.put(b"c", &axis(3, 4), Attributes::default()).unwrap();
    transaction.remove_id(gone);
    assert!(matches!(transaction.commit(), Err(Error::NotFound { .. })));
    assert_eq!(store.get(b"a").unwrap().unwrap().id, id);
    assert!(!store.contains(b"c").unwrap());
    store.put(b"d", &axis(3, 4), Attributes::default()).unwrap();
    store.close().unwrap();
    let store = Store::open(&home.path).unwrap();
    assert_eq!((store.len(), store.access_count(id)), (2, Some(1)));
}

#[test]
fn one_key_put_twice_in_a_transaction_ends_with_the_last() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let mut transaction = store.begin_write();
    transaction.put(b"a", &axis(0, 4), kind("first", 1)).unwrap();
    transaction.put(b"a", &axis(1, 4), kind("second", 2)).unwrap();
    transaction.put(b"b", &axis(2, 4), Attributes::default()).unwrap();
    transaction.remove(b"b").unwrap();
    transaction.put(b"b", &axis(3, 4), Attributes::default()).unwrap();
    transaction.commit().unwrap();
    let memory = store.get(b"a").unwrap().unwrap();
    assert_eq!((memory.record, memory.metadata), (axis(1, 4), kind("second", 2)));
    assert_eq!((store.get(b"b").unwrap().unwrap().record, store.len()), (axis(3, 4), 2));
}

#[test]
fn a_search_ranks_filters_before_ranking_and_respects_its_floor() {
    let home = Home::new();
    let store = plain_store(&home, 16, 2);
    for i in 0..10_i64 {
        let angle = i as f32 / 10.0;
        let name = if i % 2 == 0 { "even" } else { "odd" };
        store.put(format!("{i}").as_bytes(), &vector(&[angle.cos(), angle.sin()]), kind(name, i)).unwrap();
    }
    store.insert(&vector(&[1.0, 0.01])).unwrap();
    let query = vector(&[1.0, 0.0]);
    let keys = |hits: Vec<apcm::Hit>| -> Vec<String> {
        hits.into_iter()
            .map(|hit| hit.key.map_or("-".into(), |key| String::from_utf8(key).unwrap()))
            .collect()
    };
    let search = |filter: &str| store.search(&query).k(3).filter(filter).unwrap().run().unwrap();
    assert_eq!(keys(store.search(&query).k(4).run().unwrap()), ["0", "-", "1", "2"]);
    // All three hits, although the two nearest memories are no match.
    assert_eq!(keys(search("kind = 'odd'")), ["1", "3", "5"]);
    assert_eq!(keys(search("kind = 'odd' and year > 3 or year in [8]")), ["5", "7", "8"]);
    assert_eq!(keys(search("not exists kind")), ["-"]);
    let near = store.search(&query).k(99).min_similarity(0.9).run().unwrap();
    assert!(near.iter().all(|hit| hit.similarity >= 0.9) && near.len() == 6, "{}", near.len());
    assert!(near.is_sorted_by(|a, b| a.similarity >= b.similarity));
    assert!(store.search(&query).filter("year > 100").unwrap().run().unwrap().is_empty());
    let hit = &store.search(&query).k(1).with_records().run().unwrap()[0];
    assert_eq!(hit.record.as_ref().unwrap().values(), [1.0, 0.0]);
}

#[test]
fn many_queries_are_answered_as_each_alone() {
    let home = Home::new();
    let store = plain_store(&home, 64, 8);
    let mut transaction = store.begin_write();
    transaction.insert_all(&records(&[8], noise(8 * 64, 1))).unwrap();
    transaction.commit().unwrap();
    let queries = records(&[8], noise(8 * 9, 2));
    let together = store.search_many(&queries).k(5).run_all().unwrap();
    for (index, hits) in together.into_iter().enumerate() {
        assert_eq!(store.search(&queries.get(index)).k(5).run().unwrap(), hits);
    }
}

#[test]
fn equals_are_ranked_by_slot() {
    let home = Home::new();
    let store = plain_store(&home, 8, 4);
    for scale in [1.0, 2.0, 0.5, 4.0] {
        store.insert(&vector(&[scale, 0.0, 0.0, 0.0])).unwrap();
    }
    let slots: Vec<u32> = store.search(&axis(0, 4)).run().unwrap().iter().map(|hit| hit.id.slot).collect();
    assert_eq!(slots, [0, 1, 2, 3]);
}

#[test]
fn metadata_of_every_kind_comes_back() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    let metadata: Metadata = serde_json::from_str(
        r#"{"text": "é\u0000\"", "int": -9007199254740993, "real": 0.1, "truth": true, "none": null,
            "list": [1, [2.5, "x"], {}], "map": {"b": {"c": []}}}"#,
    )
    .unwrap();
    assert!(matches!(metadata["int"], Value::Int(_)) && matches!(metadata["real"], Value::Float(_)));
    let key = [0, 255, 10];
    store.put(&key, &axis(0, 4), metadata.clone()).unwrap();
    store.close().unwrap();
    let memory = Store::open(&home.path).unwrap().get(&key).unwrap().unwrap();
    assert_eq!((memory.key.as_deref(), memory.metadata), (Some(&key[..]), metadata));
}

#[test]
fn iteration_is_a_snapshot_in_slot_order() {
    let home = Home::new();
    let store = plain_store(&home, 8, 8);
    for i in 0..5 {
        store.put(&[i], &axis(i.into(), 8), Attributes::default()).unwrap();
    }
    let entries = store.iter().unwrap();
    store.remove(&[1]).unwrap();
    store.put(&[9], &axis(7, 8), Attributes::default()).unwrap();
    let keys: Vec<u8> = entries.map(|entry| entry.unwrap().key().unwrap()[0]).collect();
    assert_eq!(keys, [0, 1, 2, 3, 4]);
    let now: Vec<u8> = store.iter().unwrap().map(|entry| entry.unwrap().key().unwrap()[0]).collect();
    assert_eq!(now, [0, 9, 2, 3, 4]);
}

#[test]
fn write_mean_stores_the_mean_of_a_batch_in_one_slot() {
    let home = Home::new();
    let store = plain_store(&home, 4, 2);
    let put = store.write_mean(&records(&[2], vec![1.0, 0.0, 3.0, 4.0])).unwrap();
    assert_eq!(store.peek_id(put.id).unwrap().record, vector(&[2.0, 2.0]));
    assert_eq!((put.error, store.len()), (0.0, 1));
    assert!(matches!(store.write_mean(&records(&[2], vec![])), Err(Error::Argument { .. })));
}

#[test]
fn codes_may_have_any_length_and_the_codec_may_be_the_users_own() {
    let home = Home::new();
    let codec = RaggedCodec::new(6);
    let store = common::plain_builder(100).create(&home.path, codec.clone()).unwrap();
    let batch = records(&[6], noise(6 * 150, 5));
    let mut transaction = store.begin_write();
    transaction.insert_all(&batch).unwrap();
    let done = transaction.commit().unwrap();
    let lens: std::collections::BTreeSet<usize> =
        store.iter().unwrap().map(|entry| entry.unwrap().code_len()).collect();
    assert!(lens.len() > 20, "{lens:?}");
    let check = |store: &Store| {
        for (index, &id) in done.ids.iter().enumerate().skip(50) {
            assert_eq!(store.peek_id(id).unwrap().record, batch.get(index));
            assert_eq!(store.peek(&batch.get(index)).unwrap().unwrap().id, id);
        }
    };
    check(&store);
    let stats = store.stats().unwrap();
    assert!(stats.code_bytes > 24.0 && stats.slot_bytes > stats.code_bytes + 20.0);
    store.close().unwrap();
    // The crate cannot make the user's codec; the user can.
    assert!(matches!(Store::open(&home.path), Err(Error::UnknownCodec { kind }) if kind == "ragged"));
    let other = RaggedCodec(apcm::PlainCodec::new(&[6], 5).unwrap());
    assert!(matches!(Store::builder().open_with_codec(&home.path, other), Err(Error::CodecMismatch { .. })));
    check(&Store::builder().open_with_codec(&home.path, codec).unwrap());
}

#[test]
fn a_store_of_a_thousand_random_operations_agrees_with_a_plain_map() {
    use std::collections::BTreeMap;
    let home = Home::new();
    let mut store = plain_store(&home, 300, 3);
    let mut model: BTreeMap<Vec<u8>, (Vec<f32>, u32)> = BTreeMap::new();
    let dice = noise(4_000, 11);
    let mut dice = dice.iter().map(|value| ((value + 1.0) * 5_000.0) as usize);
    for step in 0..1_000 {
        let mut roll = |sides: usize| dice.next().unwrap() % sides;
        let key = format!("key{}", roll(200)).into_bytes();
        match roll(10) {
            0..5 => {
                let values = vec![step as f32, 1.0, -1.0];
                store.put(&key, &vector(&values), Attributes::default()).unwrap();
                let count = model.get(&key).map_or(0, |(_, count)| *count);
                model.insert(key, (values, count));
            }
            5..8 => {
                let found = store.get(&key).unwrap().map(|memory| memory.record.into_values());
                if let Some((_, count)) = model.get_mut(&key) {
                    *count += 1;
                }
                assert_eq!(found.as_ref(), model.get(&key).map(|(values, _)| values));
            }
            8 => assert_eq!(store.remove(&key).unwrap(), model.remove(&key).is_some()),
            _ if step % 5 == 0 => {
                store.close().unwrap();
                store = Store::open(&home.path).unwrap();
            }
            _ => assert_eq!(store.contains(&key).unwrap(), model.contains_key(&key)),
        }
    }
    let found: BTreeMap<Vec<u8>, (Vec<f32>, u32)> = store
        .iter()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.key().unwrap().to_vec(), (entry.record().unwrap().into_values(), entry.count()))
        })
        .collect();
    assert_eq!(found, model);
}
