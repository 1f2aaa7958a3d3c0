//! The equations of the transition model (TMNN), as documentation that runs: the store beside a dense matrix.

mod common;

use apcm::{
    Attributes, Codec, Error, Fidelity, FlowCodec, HotFirst, InMemoryBackend, MemoryId, PlainCodec,
    QuantizerSpec, Record, Similarity, Store,
};
use common::{Home, axis, images, noise, plain_store, vector};
use proptest::prelude::*;

/// The paper's memory: `M`, a matrix of one row a slot, with what it needs to choose a row.
struct Dense {
    /// `M`, `[slot, feature]`; zeros where nothing was written.
    rows: Vec<Vec<f64>>,
    /// `c`, how often each row was read since it was written.
    counts: Vec<u64>,
    /// When each row was written; `None` for one that never was.
    written: Vec<Option<u64>>,
    clock: u64,
}

impl Dense {
    fn new(slots: usize, features: usize) -> Self {
        Self {
            rows: vec![vec![0.0; features]; slots],
            counts: vec![0; slots],
            written: vec![None; slots],
            clock: 0,
        }
    }

    /// `i = argmax beta` with `beta = -ln((c + 1) / (C + N))`; a row that was never written first, the oldest
    /// among equals.
    fn least_used(&self) -> usize {
        if let Some(free) = self.written.iter().position(Option::is_none) {
            return free;
        }
        let all = (self.counts.iter().sum::<u64>() + self.counts.len() as u64) as f64;
        let beta = |slot: usize| -((self.counts[slot] + 1) as f64 / all).ln();
        let slots = 0..self.rows.len();
        slots
            .max_by(|&a, &b| beta(a).total_cmp(&beta(b)).then(self.written[b].cmp(&self.written[a])))
            .unwrap()
    }

    /// `M' = e_i V + (I - e_i e_i^T) M`, by products of matrices.
    fn write(&mut self, value: &[f64]) -> usize {
        let (slots, i) = (self.rows.len(), self.least_used());
        let e: Vec<f64> = (0..slots).map(|slot| f64::from(u8::from(slot == i))).collect();
        let identity = |a: usize, b: usize| f64::from(u8::from(a == b));
        let keep: Vec<Vec<f64>> =
            (0..slots).map(|a| (0..slots).map(|b| identity(a, b) - e[a] * e[b]).collect()).collect();
        let features = 0..value.len();
        let product = |a: usize, feature: usize| -> f64 {
            (0..slots).map(|b| keep[a][b] * self.rows[b][feature]).sum::<f64>() + e[a] * value[feature]
        };
        self.rows =
            (0..slots).map(|a| features.clone().map(|feature| product(a, feature)).collect()).collect();
        self.counts[i] = 0;
        self.clock += 1;
        self.written[i] = Some(self.clock);
        i
    }

    /// `alpha = softmax((V M^T) o A)`, `A_i = 1 / (|V| |M_i|)`, over the rows that were written; 0 for others.
    fn alpha(&self, value: &[f64]) -> Vec<f64> {
        let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-8);
        let power = |slot: usize| {
            let row = &self.rows[slot];
            let product = row.iter().zip(value).map(|(a, b)| a * b).sum::<f64>();
            if self.written[slot].is_some() { (product / (norm(row) * norm(value))).exp() } else { 0.0 }
        };
        let powers: Vec<f64> = (0..self.rows.len()).map(power).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| if sum > 0.0 { power / sum } else { 0.0 }).collect()
    }

    /// `argmax alpha`, which is counted.
    fn read(&mut self, value: &[f64]) -> Option<usize> {
        let alpha = self.alpha(value);
        let written = (0..self.rows.len()).filter(|&slot| self.written[slot].is_some());
        let best = written.max_by(|&a, &b| alpha[a].total_cmp(&alpha[b]).then(b.cmp(&a)))?;
        self.counts[best] += 1;
        Some(best)
    }
}

fn wide(record: &Record) -> Vec<f64> {
    record.values().iter().map(|&value| f64::from(value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Random writes and reads: the same row is written, the same row is read, and what is read is that row.
    #[test]
    fn the_store_is_the_matrix(
        slots in 1_usize..7,
        operations in prop::collection::vec((any::<bool>(), 0_u64..1_000), 1..80),
    ) {
        let dims = 5;
        let codec = PlainCodec::new(&[dims], dims).unwrap();
        let store = Store::builder().capacity(slots as u32).create_on(InMemoryBackend::new(), codec).unwrap();
        let mut matrix = Dense::new(slots, dims);
        for (write, seed) in operations {
            let record = vector(&noise(dims, seed));
            if write {
                let next = store.access_frequency().unwrap().least_used().copied();
                let put = store.insert(&record).unwrap();
                prop_assert_eq!(put.id.slot as usize, matrix.write(&wide(&record)));
                // Who leaves is whom the access-frequency logarithm names.
                if let Some(evicted) = put.evicted.first() {
                    prop_assert_eq!(Some(evicted.id), next.map(|memory| memory.id));
                }
            } else {
                let memory = store.read(&record).unwrap();
                let row = matrix.read(&wide(&record));
                prop_assert_eq!(memory.as_ref().map(|memory| memory.id.slot as usize), row);
                if let (Some(memory), Some(row)) = (memory, row) {
                    prop_assert_eq!(wide(&memory.record), matrix.rows[row].clone());
                }
            }
        }
        // The soft read at the paper's temperature: alpha over the rows that were written, and alpha M.
        let query = vector(&noise(dims, 4_711));
        let alpha = matrix.alpha(&wide(&query));
        let soft = store.read_soft(&query).temperature(1.0).k(slots).not_counted().run().unwrap();
        prop_assert_eq!(soft.as_ref().map_or(0, |soft| soft.shares.len()), alpha.iter()
            .filter(|&&a| a > 0.0).count());
        if let Some(soft) = soft {
            for share in &soft.shares {
                prop_assert!((f64::from(share.weight) - alpha[share.memory.id.slot as usize]).abs() < 1e-5);
            }
            for (feature, &value) in soft.record.values().iter().enumerate() {
                let product: f64 = alpha.iter().zip(&matrix.rows).map(|(alpha, row)| alpha * row[feature])
                    .sum();
                prop_assert!((f64::from(value) - product).abs() < 1e-4, "{value} {product}");
            }
        }
        for entry in store.iter().unwrap().map(Result::unwrap) {
            prop_assert_eq!(wide(&entry.record().unwrap()), matrix.rows[entry.id().slot as usize].clone());
        }
        let counts: Vec<u64> = store.access_frequency().unwrap().memories.iter()
            .map(|memory| memory.count.into()).collect();
        let written = matrix.written.iter().zip(&matrix.counts).filter(|(written, _)| written.is_some());
        prop_assert_eq!(counts, written.map(|(_, &count)| count).collect::<Vec<_>>());
    }
}

fn filled(home: &Home) -> Store {
    let codec = FlowCodec::pca(&images(0..1_000), QuantizerSpec::Allocated(32)).unwrap();
    let store = Store::builder()
        .capacity(200)
        .similarity(Similarity::CentredCosine)
        .create(&home.path, codec)
        .unwrap();
    let mut transaction = store.begin_write();
    let tier = |row: usize| if row.is_multiple_of(5) { Fidelity::Lossless } else { Fidelity::Compact };
    let attributes = (0..150).map(|row| (None, Attributes::default().with_fidelity(tier(row))));
    transaction.write_all(&images(1_000..1_150), attributes).unwrap();
    transaction.commit().unwrap();
    store
}

#[test]
fn a_soft_read_at_no_temperature_is_a_read() {
    let home = Home::new();
    let store = filled(&home);
    let queries = images(1_100..1_130);
    for row in 0..queries.len() {
        let query = queries.get(row);
        let hard = store.peek(&query).unwrap().unwrap();
        for temperature in [0.0, 1e-30, 1e-7] {
            let soft = store.read_soft(&query).temperature(temperature).not_counted().run().unwrap().unwrap();
            assert!(soft.record == hard.record && soft.shares.len() == 1, "{temperature}");
            assert_eq!((soft.shares[0].memory.id, soft.shares[0].weight), (hard.id, 1.0));
        }
    }
}

#[test]
fn weights_are_a_softmax_and_the_strongest_is_counted() {
    let home = Home::new();
    let store = filled(&home);
    let query = images(1_010..1_011).get(0);
    for (temperature, k) in [(0.05, 16), (1.0, 200), (0.3, 3), (f32::INFINITY, 5)] {
        let soft = store.read_soft(&query).temperature(temperature).k(k).run().unwrap().unwrap();
        let hits = store.search(&query).k(k).run().unwrap();
        let sum: f64 = hits.iter().map(|hit| f64::from(hit.similarity / temperature).exp()).sum();
        let total: f32 = soft.shares.iter().map(|share| share.weight).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        for (share, hit) in soft.shares.iter().zip(&hits) {
            let expected = f64::from(hit.similarity / temperature).exp() / sum;
            assert_eq!(share.memory.id, hit.id);
            assert!((f64::from(share.weight) - expected).abs() < 1e-5, "{} {expected}", share.weight);
        }
    }
    let strongest = store.search(&query).k(1).run().unwrap()[0].id;
    assert_eq!(store.access_count(strongest), Some(4));
    assert_eq!(store.access_frequency().unwrap().total, 4);
}

#[test]
fn what_is_blended_are_the_codes() {
    let home = Home::new();
    let store = plain_store(&home, 8, 3);
    assert!(store.read_soft(&axis(0, 3)).run().unwrap().is_none());
    let rows = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, -3.0]];
    rows.iter().for_each(|row| drop(store.insert(&vector(row)).unwrap()));
    let soft = store.read_soft(&vector(&[1.0, 0.5, 0.1])).temperature(0.5).run().unwrap().unwrap();
    let mut mean = [0.0; 3];
    for share in &soft.shares {
        let row = rows[share.memory.id.slot as usize];
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += share.weight * value);
    }
    for (blended, mean) in soft.record.values().iter().zip(mean) {
        assert!((blended - mean).abs() < 1e-6);
    }
    // Through a network too: without one that predicts, decoding is affine, so the blend is that of the
    // records.
    let other = Home::new();
    let store = filled(&other);
    let query = images(1_003..1_004).get(0);
    let soft = store.read_soft(&query).temperature(0.1).k(6).run().unwrap().unwrap();
    let mut mean = vec![0.0_f64; 784];
    for share in &soft.shares {
        // The codes alone: a lossless memory's record is more than its code says.
        let code = store.codec().encode(&images(
            1_000 + u64::from(share.memory.id.slot)..1_001 + u64::from(share.memory.id.slot),
        ));
        let code = code.unwrap().remove(0);
        let stored = apcm::StoredCode { bytes: &code.code, without_predictor: code.without_predictor };
        let decoded = store.codec().decode(&[stored]).unwrap();
        mean.iter_mut()
            .zip(decoded.row(0))
            .for_each(|(mean, &value)| *mean += f64::from(share.weight) * f64::from(value));
    }
    for (blended, mean) in soft.record.values().iter().zip(mean) {
        assert!((f64::from(*blended) - mean).abs() < 1e-4, "{blended} {mean}");
    }
}

/// The paper's network predicts what a code does not say, and that is not affine: the blend of coordinates is
/// another record than the blend of records.
#[test]
fn coordinates_are_blended_before_the_network_and_not_after_it() {
    let dims = 24;
    let data = common::records(&[dims], noise(200 * dims, 9));
    let trainer = FlowCodec::trainer(&data).preset(apcm::Preset::Paper).untrained();
    let codec = trainer.quantizer(QuantizerSpec::F32(8)).train().unwrap().codec;
    let codes: Vec<_> = codec.encode(&data.slice(0..2)).unwrap().into_iter().map(|one| one.code).collect();
    let weights = [0.75, 0.25];
    let floats = |code: &[u8]| -> Vec<f32> {
        code.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let mean: Vec<u8> = floats(&codes[0])
        .iter()
        .zip(floats(&codes[1]))
        .flat_map(|(a, b)| (weights[0] * a + weights[1] * b).to_le_bytes())
        .collect();
    let decode = |codes: &[&[u8]], without_predictor: bool| {
        let stored: Vec<_> =
            codes.iter().map(|&bytes| apcm::StoredCode { bytes, without_predictor }).collect();
        codec.decode(&stored).unwrap()
    };
    for without in [false, true] {
        let stored: Vec<_> =
            codes.iter().map(|code| apcm::StoredCode { bytes: code, without_predictor: without }).collect();
        let blended = codec.blend(&stored, &weights).unwrap();
        let expected = decode(&[&mean], without);
        let differs =
            |other: &[f32]| blended.row(0).iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(differs(expected.row(0)) < 1e-5, "{without}");
        assert!(
            differs(decode(&[&mean], !without).row(0)) > 1e-4,
            "the predictor is asked as most codes say"
        );
        let apart = decode(&[&codes[0], &codes[1]], without);
        let records: Vec<f32> =
            apart.row(0).iter().zip(apart.row(1)).map(|(a, b)| weights[0] * a + weights[1] * b).collect();
        assert!(differs(&records) > 1e-5, "{without}: what is blended are not the records");
    }
}

#[test]
fn bad_questions_are_answered_with_the_numbers() {
    let home = Home::new();
    let store = plain_store(&home, 8, 3);
    store.insert(&axis(0, 3)).unwrap();
    for temperature in [-1.0, f32::NAN, f32::NEG_INFINITY] {
        let error = store.read_soft(&axis(0, 3)).temperature(temperature).run().unwrap_err();
        assert!(
            matches!(&error, Error::Argument { .. }) && error.to_string().contains("0 or more"),
            "{error}"
        );
    }
    assert!(matches!(store.read_soft(&axis(0, 3)).k(0).run(), Err(Error::Argument { .. })));
    assert!(matches!(store.read_soft(&axis(0, 4)).run(), Err(Error::RecordShape { .. })));
    let zero = store.read_soft(&vector(&[0.0, 0.0, 0.0])).run().unwrap().unwrap();
    assert_eq!(zero.shares[0].memory.similarity, 0.0);
}

#[test]
fn frequencies_are_of_those_that_are_there() {
    let home = Home::new();
    let store = plain_store(&home, 4, 4);
    assert_eq!(store.access_frequency().unwrap().least_used(), None);
    let ids: Vec<MemoryId> = (0..4).map(|row| store.insert(&axis(row, 4)).unwrap().id).collect();
    for (times, &id) in ids.iter().enumerate() {
        (0..=times).for_each(|_| drop(store.get_id(id).unwrap()));
    }
    store.pin(ids[0], true).unwrap();
    store.remove_id(ids[3]).unwrap();
    let frequency = store.access_frequency().unwrap();
    assert_eq!(frequency.total, 6);
    let counts: Vec<u32> = frequency.memories.iter().map(|memory| memory.count).collect();
    assert_eq!(counts, [1, 2, 3]);
    assert_eq!(frequency.least_used().map(|memory| memory.id), Some(ids[1]), "the pinned one stays");
    let shares: f64 = frequency.memories.iter().map(|memory| memory.share).sum();
    assert!((shares - 1.0).abs() < 1e-12);
}

#[test]
fn hot_first_finds_what_is_hot_and_widens_where_that_is_not_enough() {
    let home = Home::new();
    let store = filled(&home);
    let data = images(1_000..1_150);
    let entries: Vec<MemoryId> = store.iter().unwrap().map(|entry| entry.unwrap().id()).collect();
    // The first thirty are read, and the counts reach the disk.
    for &id in &entries[..30] {
        (0..3).for_each(|_| drop(store.get_id(id).unwrap()));
    }
    store.flush().unwrap();
    let hot = HotFirst { frequent: 30, recent: 10, floor: -1.0 };
    let found = |row: usize, hot: HotFirst| {
        store.search(&data.get(row)).k(1).hot_first(hot).run().unwrap()[0].id.slot as usize
    };
    let all = |row: usize| store.search(&data.get(row)).k(1).run().unwrap()[0].id.slot as usize;
    for row in 0..150 {
        let first = found(row, hot);
        assert!(!(30..140).contains(&first), "{row}: {first} is neither used nor late");
        // Exact among those: nobody hot is nearer.
        let nearest = store.search(&data.get(row)).k(150).run().unwrap();
        let expected =
            nearest.iter().map(|hit| hit.id.slot as usize).find(|&slot| !(30..140).contains(&slot));
        assert_eq!(Some(first), expected);
        // With a floor that only a memory's own image reaches, everything is found.
        assert_eq!(found(row, HotFirst { floor: 0.999, ..hot }), all(row));
    }
    // Fewer than asked for: everything is looked at.
    let query = data.get(77);
    let hits = store.search(&query).k(60).hot_first(hot).run().unwrap();
    assert_eq!(hits, store.search(&query).k(60).run().unwrap());
    let narrow = store.search(&query).k(5).hot_first(hot).max_error(0.0).run().unwrap();
    assert!(narrow.len() == 5 && narrow.iter().all(|hit| hit.error == 0.0), "a condition that few meet");
    let exact = || store.search(&query).k(20).max_error(0.0);
    let (exactly, first) = (exact().run().unwrap(), exact().hot_first(hot).run().unwrap());
    assert!(exactly.len() == 20 && first == exactly, "eight of those that are hot meet it");

    let report = store.hot_first_report(&data, 1, hot).unwrap();
    let same = (0..150).filter(|&row| found(row, hot) == all(row)).count();
    assert!((report.recall - same as f64 / 150.0).abs() < 1e-12 && report.candidates == 40, "{report:?}");
    let everything = HotFirst { frequent: 200, recent: 0, floor: -1.0 };
    assert_eq!(store.hot_first_report(&data, 10, everything).unwrap().recall, 1.0);

    // It follows what is read, from the next flush on: others are the most used now.
    let used = HotFirst { frequent: 5, recent: 0, floor: -1.0 };
    assert!((0..150).all(|row| found(row, used) < 30));
    for &id in &entries[60..65] {
        (0..9).for_each(|_| drop(store.get_id(id).unwrap()));
    }
    assert!((0..150).all(|row| found(row, used) < 30), "not before");
    store.flush().unwrap();
    assert!((0..150).all(|row| (60..65).contains(&found(row, used))));
    store.remove_id(entries[62]).unwrap();
    assert!((0..150).all(|row| [60, 61, 63, 64].contains(&found(row, used)) || found(row, used) < 30));
    store.pin(entries[61], true).unwrap();
    assert!((0..150).any(|row| found(row, used) == 61), "pinned ones are as hot as others");

    // It follows commits: a newcomer is late, and whoever leaves is gone.
    let put = store.insert(&images(5_000..5_001).get(0)).unwrap();
    let late = HotFirst { frequent: 0, recent: 1, floor: -1.0 };
    assert_eq!(store.search(&data.get(0)).k(1).hot_first(late).run().unwrap()[0].id, put.id);
    store.remove_id(put.id).unwrap();
    assert_ne!(store.search(&data.get(0)).k(1).hot_first(late).run().unwrap()[0].id, put.id);
    for wrong in [HotFirst { floor: f32::NAN, ..hot }, HotFirst { frequent: 0, recent: 0, floor: 0.0 }] {
        assert!(matches!(store.search(&query).hot_first(wrong).run(), Err(Error::Argument { .. })));
    }
}
