//! What a code is worth on real images. Minutes of training each, so not part of every run:
//! `cargo test --release --test fidelity -- --ignored --nocapture --test-threads 1`

mod common;

use apcm::ingest::Dataset;
use apcm::report::psnr_db;
use apcm::{Codec, FlowCodec, Preset, QuantizerSpec, Records};
use common::{images, records};
use std::path::Path;
use std::time::Duration;

fn psnr(codec: &FlowCodec, records: &Records) -> f64 {
    let encoded = codec.encode(records).unwrap();
    psnr_db(encoded.iter().map(|encoded| f64::from(encoded.error)).sum::<f64>() / records.len() as f64)
}

#[test]
#[ignore = "trains on 60,000 images that are not part of the project"]
fn fashion_mnist_at_32_bytes() {
    let Some(folder) = std::env::var_os("APCM_DATA") else {
        eprintln!("SKIPPED: APCM_DATA names no folder with fashion-mnist/train-images-idx3-ubyte.gz");
        return;
    };
    let load = |name: &str| {
        Dataset::open(Path::new(&folder).join("fashion-mnist").join(name)).unwrap().load().unwrap()
    };
    let (training, test) = (load("train-images-idx3-ubyte.gz"), load("t10k-images-idx3-ubyte.gz"));
    let bare = psnr(&FlowCodec::pca(&training, QuantizerSpec::Allocated(32)).unwrap(), &test);
    let int8 = psnr(&FlowCodec::pca(&training, QuantizerSpec::I8(32)).unwrap(), &test);
    let trained = FlowCodec::trainer(&training).bytes_per_record(32).train().unwrap();
    let with = psnr(&trained.codec, &test);
    println!(
        "Fashion-MNIST, 32 bytes: PCA int8 {int8:.2} dB, allocated {bare:.2} dB, with predictor {with:.2} dB, {:.0} s",
        trained.report.seconds
    );
    assert!(bare >= 20.5 && with >= 21.6, "{bare:.2} and {with:.2} dB");
    assert!(trained.report.seconds <= 300.0);
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
