//! What a code is worth on real images. Minutes of training each, so not part of every run:
//! `cargo test --release --test fidelity -- --ignored --nocapture --test-threads 1`

mod common;

use apcm::ingest::Dataset;
use apcm::report::psnr_db;
use apcm::{Codec, FlowCodec, Preset, QuantizerSpec, Records, counted_bytes};
use common::{images, records};
use std::path::Path;
use std::time::Duration;

fn psnr(codec: &FlowCodec, records: &Records) -> f64 {
    measured(codec, records).1
}

/// Mean bytes, with what a code of varying length needs beside it, and PSNR of the mean error.
fn measured(codec: &FlowCodec, records: &Records) -> (f64, f64) {
    let encoded = codec.encode(records).unwrap();
    let count = records.len() as f64;
    let bytes = encoded.iter().map(|encoded| counted_bytes(encoded.code.len())).sum::<f64>() / count;
    (bytes, psnr_db(encoded.iter().map(|encoded| f64::from(encoded.error)).sum::<f64>() / count))
}

fn load(name: &str) -> Option<Records> {
    let Some(folder) = std::env::var_os("APCM_DATA") else {
        eprintln!("SKIPPED: APCM_DATA names no folder with {name}");
        return None;
    };
    Some(Dataset::open(Path::new(&folder).join(name)).unwrap().load().unwrap())
}

/// FAISS's residual quantizer (beam 5) on the same rows, and how far above it we want to be; `benches/peers`
/// runs it anew.
const RQ_IMAGES: [(usize, f64, f64); 3] = [(16, 20.61, 1.2), (32, 22.01, 2.1), (64, 23.72, 2.7)];
const RQ_TEXT: [(usize, f64, f64); 3] = [(16, 31.14, 0.2), (32, 33.09, 0.6), (64, 36.18, 1.6)];

fn beats_residual_quantization(training: &Records, held_out: &Records, targets: [(usize, f64, f64); 3]) {
    for (bytes, rq, wanted) in targets {
        let trained = FlowCodec::trainer(training).bytes_per_record(bytes).train().unwrap();
        let (used, psnr) = measured(&trained.codec, held_out);
        let picked = trained.report.quantizers.iter().find(|choice| choice.chosen);
        let model = trained.codec.image().unwrap().encode().unwrap().len() as f64 / 1e6;
        println!(
            "{bytes} bytes: {used:.2} used, {psnr:.2} dB, {:+.2} over RQ; {}, {:?}, codec {model:.2} MB, {:.0} s",
            psnr - rq,
            picked.unwrap().quantizer,
            trained.report.stages.iter().map(|stage| (stage.name, stage.accepted)).collect::<Vec<_>>(),
            trained.report.seconds
        );
        assert!((used / bytes as f64 - 1.0).abs() < 0.02, "{used:.2} bytes");
        assert!(psnr - rq >= wanted, "{:+.2} dB", psnr - rq);
        assert!(model <= 10.0 && trained.report.seconds <= 330.0);
    }
}

#[test]
#[ignore = "trains on 60,000 images that are not part of the project"]
fn images_at_16_32_and_64_bytes() {
    let Some(training) = load("fashion-mnist/train-images-idx3-ubyte.gz") else { return };
    let Some(held_out) = load("fashion-mnist/t10k-images-idx3-ubyte.gz") else { return };
    beats_residual_quantization(&training, &held_out, RQ_IMAGES);
}

#[test]
#[ignore = "trains on 36,000 embeddings that are not part of the project"]
fn text_embeddings_at_16_32_and_64_bytes() {
    let Some(training) = load("text-embeddings/train.npy") else { return };
    let Some(held_out) = load("text-embeddings/heldout.npy") else { return };
    beats_residual_quantization(&training, &held_out, RQ_TEXT);
}

#[test]
#[ignore = "trains on 60,000 images that are not part of the project"]
fn at_single_precision_the_predictor_is_worth_a_decibel_over_principal_components() {
    let Some(training) = load("fashion-mnist/train-images-idx3-ubyte.gz") else { return };
    let Some(held_out) = load("fashion-mnist/t10k-images-idx3-ubyte.gz") else { return };
    let bare = psnr(&FlowCodec::pca(&training, QuantizerSpec::F32(98)).unwrap(), &held_out);
    let trained = FlowCodec::trainer(&training).quantizer(QuantizerSpec::F32(98)).train().unwrap();
    let with = psnr(&trained.codec, &held_out);
    println!(
        "98 of 784 values, f32: PCA {bare:.2} dB, with predictor {with:.2} dB, {:.0} s",
        trained.report.seconds
    );
    assert!(with >= bare + 1.0, "{:+.2} dB", with - bare);
}

/// Bilinear, pixel centres aligned, as image libraries resize.
fn resized(images: &Records, side: usize) -> Records {
    let sample = |row: &[f32], x: f32, y: f32| {
        let at = |x: f32, y: f32| row[(y.clamp(0.0, 27.0) as usize) * 28 + x.clamp(0.0, 27.0) as usize];
        let (left, top) = (x.floor(), y.floor());
        let (u, v) = (x - left, y - top);
        let above = at(left, top) * (1.0 - u) + at(left + 1.0, top) * u;
        let below = at(left, top + 1.0) * (1.0 - u) + at(left + 1.0, top + 1.0) * u;
        above * (1.0 - v) + below * v
    };
    let place = |i: usize| (i as f32 + 0.5) * 28.0 / side as f32 - 0.5;
    let values = images
        .rows()
        .flat_map(|row| {
            (0..side * side).map(|i| sample(row, place(i % side), place(i / side))).collect::<Vec<_>>()
        })
        .collect();
    records(&[side, side], values)
}

#[test]
#[ignore = "trains for minutes"]
fn the_papers_network_is_good_on_what_it_saw_and_poor_on_what_it_did_not() {
    let all = resized(&images(0..1_250), 32);
    let (seen, unseen) = (all.slice(0..250), all.slice(250..1_250));
    let trained = FlowCodec::trainer(&seen)
        .preset(Preset::Paper)
        .quantizer(QuantizerSpec::F32(128))
        .validation(0.0)
        .steps(2_000)
        .time_budget(Some(Duration::from_secs(3_000)))
        .train()
        .unwrap();
    assert_eq!(trained.codec.info().parameters, 6_715_520);
    let stage = &trained.report.stages[0];
    assert!(
        stage.steps == 2_000 && stage.history.iter().all(|point| point.training.is_finite()),
        "{stage:?}"
    );
    let pca = FlowCodec::pca(&seen, QuantizerSpec::F32(128)).unwrap();
    println!(
        "ApCM as published, 128 of 1,024 f32 values, trained on 250 images: {:.2} dB on them, {:.2} dB on 1,000 others; \
         PCA {:.2} and {:.2} dB; last batch loss {:.2e}; {:.0} s",
        psnr(&trained.codec, &seen),
        psnr(&trained.codec, &unseen),
        psnr(&pca, &seen),
        psnr(&pca, &unseen),
        stage.history.last().unwrap().training,
        trained.report.seconds,
    );
    assert!(psnr(&trained.codec, &seen) > psnr(&trained.codec, &unseen) + 3.0);
}
