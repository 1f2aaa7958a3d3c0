//! How long do encoding and decoding take? `cargo bench --bench codec`
//!
//! The network of the ApCM paper, and the project's images under the quantizer that `bytes_per_record` prefers.
#![allow(missing_docs, reason = "a benchmark")]

use apcm::ingest::Dataset;
use apcm::{Codec, FlowCodec, Preset, QuantizerSpec, RecordShape, Records, Result, StoredCode};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn paper() -> Result<(FlowCodec, Records)> {
    let values = (0..1_024 * 1_024).map(|i| ((i as f32) * 0.618).sin()).collect();
    let shape = RecordShape::new(&[1_024]).map_err(|error| apcm::Error::Argument {
        what: "a shape",
        expected: "one that is possible".to_owned(),
        found: error.to_string(),
    })?;
    let records = Records::from_values(shape, values)?;
    let trainer = FlowCodec::trainer(&records).preset(Preset::Paper).untrained();
    Ok((trainer.quantizer(QuantizerSpec::F32(128)).train()?.codec, records))
}

fn images() -> Result<(FlowCodec, Records)> {
    let dataset = Dataset::open("examples/data/fashion-mnist/t10k-images-idx3-ubyte.gz")?;
    Ok((
        FlowCodec::pca(&dataset.load_range(0..4_000)?, QuantizerSpec::entropy(32))?,
        dataset.load_range(0..1_024)?,
    ))
}

fn codec(criterion: &mut Criterion) {
    for (name, made) in [("the paper's network", paper()), ("images, entropy coded", images())] {
        let (codec, records) = made.unwrap_or_else(|error| panic!("{error}"));
        let encoded = codec.encode(&records).unwrap_or_else(|error| panic!("{error}"));
        let codes: Vec<StoredCode<'_>> = encoded
            .iter()
            .map(|one| StoredCode { bytes: &one.code, without_predictor: one.without_predictor })
            .collect();
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        for size in [1, 1_024] {
            let some = records.slice(0..size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new("encode", size), |bencher| {
                bencher.iter(|| done(codec.encode(&some)));
            });
            group.bench_function(BenchmarkId::new("decode", size), |bencher| {
                bencher.iter(|| done(codec.decode(&codes[..size])));
            });
        }
        group.finish();
    }
}

/// What was asked for; an error is no fast success.
fn done<T>(result: Result<T>) -> T {
    black_box(result.unwrap_or_else(|error| panic!("{error}")))
}

criterion_group!(benches, codec);
criterion_main!(benches);
