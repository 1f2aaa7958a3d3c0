//! How long does a dataset take into a store? `cargo bench --bench ingest`
#![allow(missing_docs, reason = "a benchmark")]

use apcm::ingest::{Dataset, Ingest, Keys};
use apcm::{FlowCodec, QuantizerSpec, Result, Store};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn ingest(criterion: &mut Criterion) {
    let made = || -> Result<(Dataset, Vec<(&str, FlowCodec)>)> {
        let dataset = Dataset::open("examples/data/fashion-mnist/t10k-images-idx3-ubyte.gz")?;
        let some = dataset.load_range(0..4_000)?;
        let fast = FlowCodec::pca(&some, QuantizerSpec::Allocated(32))?;
        let small = FlowCodec::pca(&some, QuantizerSpec::entropy(32))?;
        Ok((dataset, vec![("allocated bits", fast), ("entropy coded", small)]))
    };
    let (dataset, codecs) = made().unwrap_or_else(|error| panic!("{error}"));
    let mut group = criterion.benchmark_group("ingest, 10,000 images");
    group.sample_size(10).throughput(Throughput::Elements(dataset.len()));
    for (name, codec) in codecs {
        let image = apcm::Codec::image(&codec).unwrap_or_else(|error| panic!("{error}"));
        let empty = || {
            let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
            let store = FlowCodec::from_image(&image, apcm::Device::default())
                .and_then(|codec| Store::builder().create(folder.path().join("m.apcm"), codec))
                .unwrap_or_else(|error| panic!("{error}"));
            (folder, store)
        };
        group.bench_function(name, |bencher| {
            let run = |(_folder, store): &mut (tempfile::TempDir, Store)| {
                done(Ingest::new(store, &dataset).keys(Keys::Row).run())
            };
            bencher.iter_batched_ref(empty, run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// What was asked for; an error is no fast success.
fn done<T>(result: Result<T>) -> T {
    black_box(result.unwrap_or_else(|error| panic!("{error}")))
}

criterion_group!(benches, ingest);
criterion_main!(benches);
