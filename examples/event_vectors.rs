//! Events as blocks of latent tokens `[tokens, features]`, as the TMNN paper has them: kept, found again,
//! blended.
//!
//! `cargo run --release --example event_vectors`

use apcm::ingest::{Dataset, Ingest, npy};
use apcm::{FlowCodec, Result, Store};

const EVENTS: usize = 600;
const TOKENS: usize = 8;
const FEATURES: usize = 16;

/// Hidden states of a made-up sequence model: tokens drift from where an event began, and events are of few
/// kinds.
fn events() -> Vec<f32> {
    let mut values = Vec::with_capacity(EVENTS * TOKENS * FEATURES);
    for event in 0..EVENTS {
        let kind = (event * 7) % 5;
        for token in 0..TOKENS {
            for feature in 0..FEATURES {
                let (kind, token, feature) = (kind as f32, token as f32, feature as f32);
                let drift = (event as f32 * 0.37 + token * 0.2 + feature).sin();
                values.push((kind * 1.7 + feature * 0.9).cos() + 0.3 * drift);
            }
        }
    }
    values
}

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("apcm-events-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|source| apcm::Error::Io { path: folder.clone(), source })?;
    // An array of three axes is a dataset of blocks.
    let file = folder.join("events.npy");
    npy::write(&file, &[EVENTS, TOKENS, FEATURES], &events())?;
    let dataset = Dataset::open(&file)?;
    println!("{} events of shape {}", dataset.len(), dataset.shape());

    let trained = FlowCodec::trainer(&dataset.load()?).bytes_per_record(16).predictor(0, 0).train()?;
    let store = Store::builder().capacity(400).create(folder.join("events.apcm"), trained.codec)?;
    let report = Ingest::new(&store, &dataset).run()?;
    println!(
        "{} went in, {} were evicted, mean error {:.1e}",
        report.ingested, report.evicted, report.mean_error
    );

    // The nearest event, and the blend of those like it.
    let query = dataset.load_range(590..591)?.get(0);
    if let Some(memory) = store.read(&query)? {
        println!("nearest: {} of shape {}, error {:.1e}", memory.id, memory.record.shape(), memory.error);
    }
    if let Some(blend) = store.read_soft(&query).temperature(0.02).k(8).run()? {
        println!("blended from {} events:", blend.shares.len());
        for share in blend.shares.iter().take(3) {
            println!(
                "  {} weighs {:.2}, similarity {:.3}",
                share.memory.id, share.weight, share.memory.similarity
            );
        }
    }
    // Which memories are used, and which would be evicted next.
    let frequency = store.access_frequency()?;
    if let Some(least) = frequency.least_used() {
        println!("next to leave: {}, read {} times, beta {:.2}", least.id, least.count, least.beta);
    }
    store.close()?;
    std::fs::remove_dir_all(&folder).map_err(|source| apcm::Error::Io { path: folder, source })
}
