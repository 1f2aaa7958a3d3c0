//! Filling a store from a dataset, offline: train on a part, ingest all of it, resumably.
//!
//! `cargo run --release --example offline_fill`

use apcm::ingest::{Dataset, Ingest, Keys};
use apcm::{FlowCodec, Result, Store};
use std::ops::ControlFlow;

fn main() -> Result<()> {
    let images = Dataset::open("examples/data/fashion-mnist/t10k-images-idx3-ubyte.gz")?;
    println!("{} records of shape {}", images.len(), images.shape());

    let path = std::env::temp_dir().join("apcm-offline-fill.apcm");
    let store = if path.exists() {
        Store::open(&path)?
    } else {
        let sample = images.load_range(0..2_000)?;
        let trained = FlowCodec::trainer(&sample).bytes_per_record(32).steps(100).train()?;
        Store::builder().capacity(10_000).create(&path, trained.codec)?
    };
    // Stop it with Ctrl-C and start it again: it goes on with the first record that is not in the store.
    let report = Ingest::new(&store, &images)
        .keys(Keys::Row)
        .resume(true)
        .progress(|progress| {
            eprint!("\r{} of {}, {:.0}/s ", progress.done, progress.total, progress.rate());
            ControlFlow::Continue(())
        })
        .run()?;
    println!("\n{} ingested, starting from {}", report.ingested, report.first);
    let stats = store.stats()?;
    println!("{} memories, mean squared error {:.4}", stats.occupied, stats.mean_error);
    store.close()
}
