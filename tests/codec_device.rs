//! The codec, on every device compiled in: `cargo test --test codec_device --features ndarray,wgpu`.

mod common;

use apcm::codec::{EndedBy, Trained};
use apcm::{
    Codec, Device, Error, FlowCodec, Preset, QuantizerSpec, Records, Similarity, Store, StoredCode,
    WeightPrecision,
};
use common::{Home, gaussian, images, noise, records};
use std::ops::ControlFlow;
use std::time::Duration;

/// Reconstructions of one code on two devices differ by at most this much of the record's largest value: sums
/// in another order, through about ten layers of `f32`.
const DEVICE_TOLERANCE: f32 = 1e-4;

/// Every device of this build that works on this machine; says which one is left out.
fn devices() -> Vec<Device> {
    let probe = records(&[2], noise(20, 1));
    Device::compiled_in()
        .into_iter()
        .filter(|&device| {
            let works = FlowCodec::trainer(&probe)
                .quantizer(QuantizerSpec::F32(1))
                .device(device)
                .untrained()
                .train();
            match works {
                Ok(_) => true,
                Err(error) => {
                    assert_ne!(device, Device::Cpu, "{error}");
                    eprintln!("SKIPPED on {device}: {error}");
                    false
                }
            }
        })
        .collect()
}

/// `[t, t^2, t^3, t^4]` for `t` uniform in `[-1, 1]`, rotated into 32 dimensions.
fn manifold(count: usize, seed: u64) -> Records {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for axis in gaussian(4 * 32, 99).chunks_exact(32) {
        let mut axis: Vec<f64> = axis.iter().map(|&value| value.into()).collect();
        for other in &basis {
            let dot: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            axis.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
        }
        let norm = axis.iter().map(|a| a * a).sum::<f64>().sqrt();
        basis.push(axis.into_iter().map(|a| a / norm).collect());
    }
    let values = noise(count, seed)
        .into_iter()
        .flat_map(|t| {
            let t = f64::from(t);
            let powers = [t, t * t, t * t * t, t * t * t * t];
            (0..32)
                .map(|i| powers.iter().zip(&basis).map(|(p, b)| p * b[i]).sum::<f64>() as f32)
                .collect::<Vec<_>>()
        })
        .collect();
    records(&[32], values)
}

fn mean_error(codec: &FlowCodec, records: &Records) -> f64 {
    let encoded = codec.encode(records).unwrap();
    encoded.iter().map(|encoded| f64::from(encoded.error)).sum::<f64>() / records.len() as f64
}

fn decode(codec: &dyn Codec, records: &Records) -> Records {
    let encoded = codec.encode(records).unwrap();
    let codes: Vec<StoredCode<'_>> = encoded
        .iter()
        .map(|encoded| StoredCode { bytes: &encoded.code, without_predictor: encoded.without_predictor })
        .collect();
    codec.decode(&codes).unwrap()
}

#[test]
fn the_paper_preset_has_the_papers_parameters_and_is_invertible() {
    let data = records(&[1024], gaussian(1024 * 140, 4));
    for device in devices() {
        let codec = FlowCodec::trainer(&data)
            .preset(Preset::Paper)
            .quantizer(QuantizerSpec::F32(128))
            .device(device)
            .untrained()
            .train()
            .unwrap()
            .codec;
        assert_eq!(codec.info().parameters, 6_715_520);
        let few = data.slice(0..8);
        let back = codec.inverse(&codec.forward(&few).unwrap()).unwrap();
        let largest = few.values().iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for (x, y) in few.values().iter().zip(back.values()) {
            assert!((x - y).abs() <= 1e-4 * largest, "{device}: {x} came back as {y}");
        }
    }
}

/// Eigenvectors of a symmetric matrix, largest eigenvalue first, by Jacobi's rotations: nothing in common with
/// the library's own way.
fn jacobi(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = a.len();
    let mut v: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..60 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q].abs() < 1e-300 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for row in a.iter_mut().chain(v.iter_mut()) {
                    let (x, y) = (row[p], row[q]);
                    (row[p], row[q]) = (c * x - s * y, s * x + c * y);
                }
                let (above, below) = a.split_at_mut(q);
                for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    order.into_iter().map(|j| v.iter().map(|row| row[j]).collect()).collect()
}

#[test]
fn untrained_ordered_equals_principal_components() {
    let (width, kept, count) = (20, 6, 300);
    // Correlated data with a mean: each value is a running sum of the noise before it.
    let mut values = gaussian(width * count, 8);
    for row in values.chunks_exact_mut(width) {
        let mut sum = 3.0;
        for (i, value) in row.iter_mut().enumerate() {
            sum += *value * (1.0 + i as f32 / 7.0);
            *value = sum;
        }
    }
    // With as many records as values, and with fewer: the two ways through the spectrum.
    for rows in [count, 15] {
        let data = records(&[width], values[..width * rows].to_vec());
        let mean: Vec<f64> =
            (0..width).map(|j| data.rows().map(|row| f64::from(row[j])).sum::<f64>() / rows as f64).collect();
        let centred =
            |row: &[f32]| -> Vec<f64> { row.iter().zip(&mean).map(|(&x, m)| f64::from(x) - m).collect() };
        let mut covariance = vec![vec![0.0; width]; width];
        for row in data.rows() {
            let row = centred(row);
            for i in 0..width {
                for j in 0..width {
                    covariance[i][j] += row[i] * row[j] / rows as f64;
                }
            }
        }
        let axes = jacobi(covariance);
        for device in devices() {
            let codec = FlowCodec::trainer(&data)
                .quantizer(QuantizerSpec::F32(kept))
                .precision(WeightPrecision::F32)
                .device(device)
                .untrained()
                .train()
                .unwrap()
                .codec;
            let decoded = decode(&codec, &data);
            for (row, back) in data.rows().zip(decoded.rows()) {
                let row = centred(row);
                let mut expected = mean.clone();
                for axis in &axes[..kept] {
                    let along: f64 = axis.iter().zip(&row).map(|(a, x)| a * x).sum();
                    expected.iter_mut().zip(axis).for_each(|(e, a)| *e += along * a);
                }
                let norm = expected.iter().map(|e| e * e).sum::<f64>().sqrt();
                let off =
                    expected.iter().zip(back).map(|(e, &b)| (e - f64::from(b)).powi(2)).sum::<f64>().sqrt();
                assert!(off <= 1e-5 * norm, "{device}, {rows} rows: off by {:.2e}", off / norm);
            }
        }
    }
}

#[test]
fn on_a_gaussian_source_the_gate_refuses_training() {
    let source = gaussian(12 * 3_000, 5);
    let values = source.chunks_exact(12).flat_map(|row| {
        row.iter().enumerate().map(|(i, value)| value / (1.0 + i as f32)).collect::<Vec<_>>()
    });
    let data = records(&[12], values.collect());
    let Trained { codec, report } =
        FlowCodec::trainer(&data).quantizer(QuantizerSpec::F32(4)).steps(300).train().unwrap();
    let [stage] = report.stages.as_slice() else { panic!("{report:?}") };
    assert!(!stage.accepted, "{stage:?}");
    assert_eq!(codec.config().predictor_hidden, 0);
    assert_eq!((report.training_records, report.validation_records), (2_700, 300));
}

#[test]
fn on_a_curved_manifold_training_is_worth_ten_decibels() {
    let data = manifold(4_000, 2);
    let fresh = manifold(500, 3);
    let pca = FlowCodec::pca(&data, QuantizerSpec::F32(1)).unwrap();
    let Trained { codec, report } =
        FlowCodec::trainer(&data).quantizer(QuantizerSpec::F32(1)).steps(600).train().unwrap();
    assert!(report.stages[0].accepted);
    let gain = 10.0 * (mean_error(&pca, &fresh) / mean_error(&codec, &fresh)).log10();
    assert!(gain >= 10.0, "{gain:.1} dB");
}

#[test]
fn every_quantizer_measures_what_its_codes_give_back() {
    let data = images(0..600);
    for spec in [
        QuantizerSpec::F32(8),
        QuantizerSpec::F16(16),
        QuantizerSpec::I8(32),
        QuantizerSpec::Allocated(32),
        QuantizerSpec::Residual(32),
        QuantizerSpec::entropy_fixed(32),
    ] {
        // These two compute on the host whatever the device: training around them on every device shows nothing
        // new.
        let on_host = matches!(spec, QuantizerSpec::Residual(_) | QuantizerSpec::Entropy(_));
        for device in devices().into_iter().filter(|&device| device == Device::Cpu || !on_host) {
            let codec =
                FlowCodec::trainer(&data).quantizer(spec).device(device).steps(40).train().unwrap().codec;
            let few = data.slice(0..50);
            let encoded = codec.encode(&few).unwrap();
            let decoded = decode(&codec, &few);
            for (index, encoded) in encoded.iter().enumerate() {
                assert_eq!(encoded.code.len(), 32.min(spec.bytes()));
                let exact: f64 = few
                    .row(index)
                    .iter()
                    .zip(decoded.row(index))
                    .map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2))
                    .sum::<f64>()
                    / 784.0;
                assert!((f64::from(encoded.error) / exact - 1.0).abs() < 1e-4, "{spec:?} on {device}");
                // The flag's guarantee: no record is kept worse than by the same code without the predictor.
                let bare =
                    codec.decode(&[StoredCode { bytes: &encoded.code, without_predictor: true }]).unwrap();
                let bare: f64 = few
                    .row(index)
                    .iter()
                    .zip(bare.row(0))
                    .map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2))
                    .sum::<f64>()
                    / 784.0;
                assert!(exact <= bare * (1.0 + 1e-4), "{spec:?} on {device}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_codec_and_another_seed_another() {
    let data = manifold(600, 7);
    let train = |seed| {
        let trainer = FlowCodec::trainer(&data).bytes_per_record(2).steps(60).seed(seed).time_budget(None);
        let codec = trainer.train().unwrap().codec;
        apcm::codec::fingerprint(&codec.image().unwrap().encode().unwrap())
    };
    assert_eq!(train(1), train(1));
    assert_ne!(train(1), train(2));
}

#[test]
fn the_same_training_gives_the_same_content_of_the_file() {
    let data = manifold(400, 7);
    let content = || {
        let home = Home::new();
        let codec =
            FlowCodec::trainer(&data).bytes_per_record(3).steps(30).time_budget(None).train().unwrap().codec;
        let store = Store::builder().capacity(100).clock(|| 5).create(&home.path, codec).unwrap();
        let mut transaction = store.begin_write();
        transaction.insert_all(&data.slice(0..120)).unwrap();
        transaction.commit().unwrap();
        let entries: Vec<_> = store
            .iter()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.id(), entry.error().to_bits(), entry.norm().to_bits(), entry.record().unwrap())
            })
            .collect();
        (store.fingerprint(), entries)
    };
    assert!(content() == content());
}

#[test]
fn budgets_end_training_and_say_which() {
    let data = manifold(600, 7);
    let trainer = || FlowCodec::trainer(&data).quantizer(QuantizerSpec::F32(1));
    let ended = |trained: Trained| (trained.report.stages[0].ended_by, trained.report.stages[0].steps);
    assert_eq!(ended(trainer().steps(20).train().unwrap()), (EndedBy::Steps, 20));
    let timed = trainer().steps(100_000).time_budget(Some(Duration::from_millis(300))).train().unwrap();
    assert!(timed.report.seconds < 60.0);
    assert_eq!(ended(timed).0, EndedBy::Time);
    let mut calls = 0;
    let cancelled = trainer()
        .progress(|progress| {
            calls += 1;
            assert_eq!(progress.stage, "predictor");
            if progress.done >= 25 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .train()
        .unwrap();
    assert_eq!(ended(cancelled), (EndedBy::Cancelled, 25));
    assert!(calls > 1);
    // Where nothing can be learnt, looking on is given up.
    let flat = records(&[4], gaussian(4 * 400, 1));
    let stopped = FlowCodec::trainer(&flat).quantizer(QuantizerSpec::F32(2)).train().unwrap();
    let stage = &stopped.report.stages[0];
    assert_eq!((stage.ended_by, stage.accepted), (EndedBy::EarlyStop, false));
    assert!(stage.history.len() > 2 && stage.history.iter().all(|point| point.training.is_finite()));
}

#[test]
fn couplings_are_a_candidate_behind_the_gate() {
    let data = images(0..500);
    let trained = FlowCodec::trainer(&data)
        .quantizer(QuantizerSpec::Allocated(8))
        .couplings(2)
        .coupling_hidden(32)
        .steps(60)
        .train()
        .unwrap();
    assert!(
        FlowCodec::trainer(&data).couplings(1 << 40).train().unwrap_err().to_string().contains("at most 256")
    );
    // Where the code keeps every coordinate there is nothing to couple, and that is no reason to fail.
    let all =
        FlowCodec::trainer(&manifold(300, 1)).bytes_per_record(4).couplings(2).steps(10).train().unwrap();
    assert_eq!(all.codec.config().couplings, 0);
    let names: Vec<&str> = trained.report.stages.iter().map(|stage| stage.name).collect();
    assert_eq!(names, ["predictor", "couplings"]);
    let stage = &trained.report.stages[1];
    assert_eq!(trained.codec.config().couplings, if stage.accepted { 2 } else { 0 });
    assert!(
        stage.accepted
            == (stage.error_before.unwrap() - stage.error_after.unwrap()
                > (2.0 * stage.standard_error.unwrap()).max(0.005 * stage.error_before.unwrap()))
    );
}

#[test]
fn a_codec_survives_its_file_and_damage_to_it_is_noticed() {
    let home = Home::new();
    let data = manifold(500, 7);
    let codec = FlowCodec::trainer(&data).bytes_per_record(3).steps(30).train().unwrap().codec;
    let path = home.file("a.codec");
    codec.save(&path).unwrap();
    let loaded = FlowCodec::load(&path, Device::Cpu).unwrap();
    assert_eq!(codec.encode(&data).unwrap(), loaded.encode(&data).unwrap());
    assert_eq!(codec.image().unwrap(), loaded.image().unwrap());
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(FlowCodec::load(&path, Device::Cpu), Err(Error::Format(_))), "byte {at}");
    }
    for len in (0..bytes.len()).step_by(101) {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(FlowCodec::load(&path, Device::Cpu).is_err());
    }
}

#[test]
fn cosine_search_approximates_the_cosine_of_the_records() {
    let data = images(0..800);
    let codec = FlowCodec::pca(&data, QuantizerSpec::Allocated(64)).unwrap();
    let encoded = codec.encode(&data).unwrap();
    let codes: Vec<&[u8]> = encoded.iter().map(|encoded| encoded.code.as_slice()).collect();
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let mean = apcm_mean(&data);
    for (similarity, bound) in [(Similarity::Cosine, 0.05), (Similarity::CentredCosine, 0.15)] {
        let dims = codec.search_dims(similarity);
        let queries = codec.query_vectors(&data, similarity).unwrap();
        let stored = codec.search_vectors(&codes, similarity).unwrap();
        let row = |index: usize| -> Vec<f32> {
            match similarity {
                Similarity::Cosine => data.row(index).to_vec(),
                Similarity::CentredCosine => data.row(index).iter().zip(&mean).map(|(x, m)| x - m).collect(),
            }
        };
        let off: f64 = (0..200)
            .map(|i| {
                let j = (i * 37 + 11) % 800;
                let approximate =
                    cosine(&queries[i * dims..(i + 1) * dims], &stored[j * dims..(j + 1) * dims]);
                (approximate - cosine(&row(i), &row(j))).abs()
            })
            .sum::<f64>()
            / 200.0;
        assert!(off < bound, "{similarity:?}: off by {off:.3} on average");
    }
}

fn apcm_mean(data: &Records) -> Vec<f32> {
    let width = data.shape().values();
    (0..width).map(|j| data.rows().map(|row| row[j]).sum::<f32>() / data.len() as f32).collect()
}

#[test]
fn a_file_written_on_one_device_reads_alike_on_every_other() {
    let data = images(0..400);
    let home = Home::new();
    let codec = FlowCodec::trainer(&data).bytes_per_record(32).steps(40).train().unwrap().codec;
    let store = Store::builder().capacity(301).create(&home.path, codec).unwrap();
    let mut transaction = store.begin_write();
    transaction.insert_all(&data.slice(0..300)).unwrap();
    transaction.commit().unwrap();
    let read = |store: &Store| -> Vec<Vec<f32>> {
        store.iter().unwrap().map(|entry| entry.unwrap().record().unwrap().into_values()).collect()
    };
    let queries = data.slice(300..340);
    let found = |store: &Store| -> Vec<Vec<apcm::MemoryId>> {
        let answers = store.search_many(&queries).k(5).run_all().unwrap();
        answers.into_iter().map(|hits| hits.into_iter().map(|hit| hit.id).collect()).collect()
    };
    let (records, ids) = (read(&store), found(&store));
    store.close().unwrap();
    for device in devices() {
        let store = Store::builder().device(device).open(&home.path).unwrap();
        assert_eq!(found(&store), ids, "{device}");
        for (one, other) in records.iter().zip(read(&store)) {
            let largest = one.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let off = one.iter().zip(&other).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(off <= DEVICE_TOLERANCE * largest, "{device}: off by {off:e}");
        }
        // And it is written on that device too.
        let put = store.insert(&data.get(350)).unwrap();
        assert!(store.peek_id(put.id).is_ok());
        // The next device finds what this one found.
        store.remove_id(put.id).unwrap();
    }
}

#[test]
fn sizes_that_do_not_fit_the_data_are_errors_with_numbers() {
    let data = records(&[6], noise(6 * 40, 3));
    for (spec, parts) in [
        (QuantizerSpec::F32(7), &["at most 6", "found 7"][..]),
        (QuantizerSpec::I8(0), &["at least 1"]),
        (QuantizerSpec::Allocated(0), &["at least 1"]),
        (QuantizerSpec::Allocated(7), &["1 to 6", "found 7"]),
    ] {
        let error = FlowCodec::pca(&data, spec).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{spec:?}: {error}");
    }
    let few = data.slice(0..4);
    let error = FlowCodec::pca(&few, QuantizerSpec::F32(5)).unwrap_err();
    assert!(matches!(error, Error::TooLittleData { records: 4, needed: 6, .. }), "{error}");
    assert!(matches!(
        FlowCodec::pca(&data.slice(0..0), QuantizerSpec::F32(1)),
        Err(Error::TooLittleData { records: 0, .. })
    ));
    let error = FlowCodec::pca(&few, QuantizerSpec::Allocated(5)).unwrap_err();
    assert!(matches!(error, Error::TooLittleData { records: 4, needed: 6, .. }), "{error}");
    // Records on a line need one coordinate, however many bytes are offered.
    let line = records(&[6], noise(40, 3).into_iter().flat_map(|t| [t, -t, t, t, 2.0 * t, 0.0]).collect());
    let codec = FlowCodec::pca(&line, QuantizerSpec::Allocated(5)).unwrap();
    assert_eq!((codec.code_len_max(), codec.config().kept), (1, 1));
    // Records that are all the same have no direction to keep.
    let same = records(&[6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].repeat(40));
    let error = FlowCodec::pca(&same, QuantizerSpec::F32(1)).unwrap_err().to_string();
    assert!(error.contains("all the same"), "{error}");
    let paper = FlowCodec::trainer(&data).preset(Preset::Paper).bytes_per_record(4).train().unwrap_err();
    assert!(paper.to_string().contains("f32, f16 or i8"), "{paper}");
    let codec = FlowCodec::pca(&data, QuantizerSpec::F32(2)).unwrap();
    assert!(matches!(codec.encode(&records(&[2, 3], vec![0.0; 6])), Err(Error::RecordShape { .. })));
    let short = codec.decode(&[StoredCode { bytes: &[1, 2, 3], without_predictor: false }]);
    assert!(matches!(short, Err(Error::Format(_))));
}

#[cfg(not(all(feature = "ndarray", feature = "wgpu")))]
#[test]
fn a_device_that_is_not_compiled_in_is_an_error_that_names_the_feature() {
    let data = records(&[6], noise(6 * 40, 3));
    for device in Device::ALL.into_iter().filter(|device| !device.is_compiled_in()) {
        let error = FlowCodec::trainer(&data).bytes_per_record(2).device(device).train().unwrap_err();
        assert!(error.to_string().contains(&format!("--features {device}")), "{error}");
    }
}
