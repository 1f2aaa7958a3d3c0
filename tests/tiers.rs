//! Fidelity tiers and the byte budget.

mod common;

use apcm::{
    Attributes, Device, Error, Fidelity, FlowCodec, MemoryId, PlainCodec, QuantizerSpec, Record, Records,
    Store,
};
use common::{Home, images, noise, vector};
use redb::{ReadableDatabase, ReadableTable};
use std::sync::OnceLock;

fn codec() -> FlowCodec {
    static IMAGE: OnceLock<apcm_format::CodecImage> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        use apcm::Codec;
        let data = images(0..1_500);
        let trainer = FlowCodec::trainer(&data).quantizer(QuantizerSpec::entropy(24)).steps(60);
        trainer.train().unwrap().codec.image().unwrap()
    });
    FlowCodec::from_image(image, Device::Cpu).unwrap()
}

fn with(fidelity: Fidelity) -> Attributes {
    Attributes::default().with_fidelity(fidelity)
}

fn error(record: &[f32], given: &[f32]) -> f64 {
    let squared = record.iter().zip(given).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2));
    squared.sum::<f64>() / record.len() as f64
}

fn bits(record: &[f32]) -> Vec<u32> {
    record.iter().map(|value| value.to_bits()).collect()
}

/// Bounds from a little below the codes' own errors to far below, read one by one and all at once, on every
/// device.
#[test]
fn bounds_hold_on_every_device_and_at_every_batch_size_and_lossless_is_to_the_bit() {
    let home = Home::new();
    let store = Store::builder().capacity(1_100).create(&home.path, codec()).unwrap();
    let data = images(2_000..3_100);
    let bounds = [2e-2_f32, 5e-3, 1e-3, 1e-4, 1e-6];
    let mut transaction = store.begin_write();
    let attributes = (0..data.len()).map(|row| match row % 6 {
        5 => (None, with(Fidelity::Lossless)),
        tier => (None, with(Fidelity::Bounded(bounds[tier]))),
    });
    transaction.write_all(&data, attributes).unwrap();
    let done = transaction.commit().unwrap();
    store.close().unwrap();
    for device in Device::compiled_in() {
        let store = match Store::builder().device(device).open(&home.path) {
            Ok(store) => store,
            Err(error) => {
                eprintln!("SKIPPED on {device}: {error}");
                continue;
            }
        };
        let entries: Vec<_> = store.iter().unwrap().map(Result::unwrap).collect();
        let all = apcm::Entry::records(&entries).unwrap().unwrap();
        for row in (0..data.len()).step_by(if device == Device::Cpu { 7 } else { 97 }) {
            let single = store.peek_id(done.ids[row]).unwrap();
            for given in [single.record.values(), all.row(row)] {
                let off = error(data.row(row), given);
                if row % 6 == 5 {
                    assert_eq!(bits(given), bits(data.row(row)), "{device}");
                } else {
                    let bound = bounds[row % 6];
                    assert!(off <= f64::from(bound), "{device}: {off:e} for {bound:e}");
                }
                assert!(
                    off <= f64::from(single.error) * 1.02 + 1e-9,
                    "{device}: {off:e}, measured {:e}",
                    single.error
                );
            }
        }
        // A loose bound costs nothing, a tight one more than a loose one.
        let cost = |tier: usize| {
            let own = entries.iter().skip(tier).step_by(6);
            own.map(apcm::Entry::residual_len).sum::<usize>()
        };
        assert!(cost(0) < cost(1) && cost(1) < cost(2) && cost(2) < cost(3) && cost(3) < cost(4));
        // Thirteen bytes say that there is a bound, where the code alone keeps it.
        assert!(entries.iter().step_by(6).any(|entry| entry.residual_len() == 13));
        drop(entries);
        let hits = store.search(&data.get(5)).k(3).with_records().max_error(0.0).run().unwrap();
        assert_eq!(hits.len(), 3);
        assert!(hits.iter().all(|hit| hit.error == 0.0));
        assert_eq!(bits(hits[0].record.as_ref().unwrap().values()), bits(data.row(5)));
    }
}

#[test]
fn a_bound_out_of_reach_is_kept_losslessly_and_a_bound_that_is_none_is_an_error() {
    let home = Home::new();
    let store = Store::builder().capacity(10).create(&home.path, codec()).unwrap();
    let image = images(2_000..2_001).get(0);
    let put = store.insert_with(&image, with(Fidelity::Bounded(1e-12))).unwrap();
    assert_eq!(put.error, 0.0);
    assert_eq!(bits(store.peek_id(put.id).unwrap().record.values()), bits(image.values()));
    for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = store.insert_with(&image, with(Fidelity::Bounded(wrong))).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{wrong}: {error}");
    }
    // The mean of a batch is what its tier refers to.
    let batch = images(2_000..2_004);
    let mut transaction = store.begin_write();
    transaction.write_mean(&batch, with(Fidelity::Lossless)).unwrap();
    let id = transaction.commit().unwrap().ids[0];
    let mean: Vec<f32> =
        (0..784).map(|i| (batch.rows().map(|row| f64::from(row[i])).sum::<f64>() / 4.0) as f32).collect();
    assert_eq!(bits(store.peek_id(id).unwrap().record.values()), bits(&mean));
}

#[test]
fn replacing_a_lossless_record_with_a_compact_one_leaves_no_residual_behind() {
    let home = Home::new();
    let store = Store::builder().capacity(4).create(&home.path, codec()).unwrap();
    let data = images(2_000..2_002);
    store.put(b"a", &data.get(0), with(Fidelity::Lossless)).unwrap();
    assert_eq!(store.stats().unwrap().residuals, 1);
    let put = store.put(b"a", &data.get(1), Attributes::default()).unwrap();
    assert!(put.error > 0.0);
    assert_eq!(store.stats().unwrap().residuals, 0);
    store.put(b"a", &data.get(0), with(Fidelity::Lossless)).unwrap();
    assert!(store.remove(b"a").unwrap());
    store.close().unwrap();
    let database = redb::Database::open(&home.path).unwrap();
    let table = redb::TableDefinition::<u32, &[u8]>::new("residuals");
    assert!(
        redb::ReadableTableMetadata::is_empty(&database.begin_read().unwrap().open_table(table).unwrap())
            .unwrap()
    );
}

#[test]
fn a_damaged_residual_is_one_error_and_the_others_stay_readable() {
    let home = Home::new();
    let store = Store::builder().capacity(4).create(&home.path, codec()).unwrap();
    let data = images(2_000..2_003);
    let ids: Vec<MemoryId> = data
        .rows()
        .map(|row| {
            let record = Record::new(&[28, 28], row.to_vec()).unwrap();
            store.insert_with(&record, with(Fidelity::Bounded(1e-4))).unwrap().id
        })
        .collect();
    store.close().unwrap();
    let database = redb::Database::open(&home.path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(redb::TableDefinition::<u32, &[u8]>::new("residuals")).unwrap();
        let mut bytes = table.get(1).unwrap().unwrap().value().to_vec();
        bytes[20] ^= 1;
        table.insert(1, bytes.as_slice()).unwrap();
        // Intact, but another slot's: its checksum is keyed.
        let other = table.get(0).unwrap().unwrap().value().to_vec();
        table.insert(2, other.as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let store = Store::open(&home.path).unwrap();
    assert!(store.peek_id(ids[0]).is_ok());
    for slot in [1, 2] {
        let error = store.peek_id(ids[slot]).unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt { what, .. } if *what == format!("the residual of slot {slot}")),
            "{error}"
        );
    }
}

/// Records of eight values, two of them in the code.
fn budgeted(home: &Home, budget: u64) -> Store {
    Store::builder()
        .capacity(50)
        .byte_budget(budget)
        .create(&home.path, PlainCodec::new(&[8], 2).unwrap())
        .unwrap()
}

fn record(seed: u64) -> Record {
    vector(&noise(8, seed + 1))
}

#[test]
fn over_its_bytes_a_store_drops_residuals_first_least_used_first_and_memories_last() {
    let home = Home::new();
    // A slot takes 36 bytes (8 of code, 20 about it, 8 beside), a lossless residual of eight wild values about
    // 50 more.
    let store = budgeted(&home, 500);
    let mut ids = Vec::new();
    for seed in 0..5 {
        let put = store.insert_with(&record(seed), with(Fidelity::Lossless)).unwrap();
        assert!(put.evicted.is_empty() && put.residuals_dropped.is_empty() && put.error == 0.0, "{put:?}");
        ids.push(put.id);
    }
    let stored = store.stats().unwrap().stored_bytes;
    assert!(stored > 380 && stored <= 500, "{stored}");
    for id in &ids[..2] {
        store.get_id(*id).unwrap();
    }
    let put = store.insert_with(&record(5), with(Fidelity::Lossless)).unwrap();
    // The third is the oldest of those that nobody has read.
    assert_eq!((put.residuals_dropped.as_slice(), put.evicted.len()), (&ids[2..3], 0));
    let kept = store.peek_id(ids[2]).unwrap();
    assert_eq!(kept.record.values()[..2], record(2).values()[..2]);
    assert!(kept.error > 0.0 && kept.record.values()[2] == 0.0, "{kept:?}");
    assert_eq!(store.peek_id(ids[3]).unwrap().error, 0.0);
    // Compact newcomers push out all residuals before anybody has to leave.
    let mut dropped = 1;
    let mut evicted = 0;
    for seed in 6..20 {
        let put = store.insert(&record(seed)).unwrap();
        dropped += put.residuals_dropped.len();
        evicted += put.evicted.len();
        assert!(evicted == 0 || dropped == 6, "{seed}");
        assert!(store.stats().unwrap().stored_bytes <= 500);
    }
    assert_eq!(dropped, 6);
    assert!(evicted > 0);
    // Those that were read stay longest.
    assert!(store.peek_id(ids[0]).is_ok() && store.peek_id(ids[1]).is_ok());
    let stats = store.stats().unwrap();
    assert_eq!((stats.residuals, stats.residuals_dropped, stats.evictions), (0, 6, evicted as u64));
    store.close().unwrap();
    let reopened = Store::open(&home.path).unwrap().stats().unwrap();
    assert_eq!((reopened.stored_bytes, reopened.byte_budget), (stats.stored_bytes, Some(500)));
}

#[test]
fn a_budget_smaller_than_a_record_is_an_error_that_changes_nothing() {
    let home = Home::new();
    let store = budgeted(&home, 30);
    let error = store.insert(&record(0)).unwrap_err();
    assert!(matches!(error, Error::OverBudget { needed: 36, budget: 30 }), "{error}");
    assert!(store.is_empty() && store.stats().unwrap().stored_bytes == 0);
    let home = Home::new();
    let store = budgeted(&home, 80);
    let pinned = store.insert_with(&record(0), Attributes::default().pinned()).unwrap();
    store.insert(&record(1)).unwrap();
    // A residual that does not fit goes; the record stays.
    let put = store.put(b"k", &record(2), with(Fidelity::Lossless)).unwrap_err();
    assert!(matches!(put, Error::OverBudget { .. }), "{put}");
    let put = store.insert_with(&record(2), with(Fidelity::Lossless)).unwrap();
    assert_eq!((put.residuals_dropped.as_slice(), put.evicted.len()), (&[put.id][..], 1));
    assert!(put.error > 0.0, "the error is that of what was kept");
    assert_eq!(store.peek_id(put.id).unwrap().error, put.error);
    assert!(store.peek_id(pinned.id).is_ok());
    let batch = Records::from_values(store.description().shape, noise(80, 4)).unwrap();
    let mut transaction = store.begin_write();
    transaction.insert_all(&batch).unwrap();
    assert!(matches!(transaction.commit(), Err(Error::OverBudget { .. })));
    assert_eq!(store.len(), 2);
    assert!(
        Store::builder()
            .byte_budget(0)
            .create(home.file("b.apcm"), PlainCodec::new(&[8], 2).unwrap())
            .is_err()
    );
}
