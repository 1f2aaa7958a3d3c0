//! An agent's memory: useful notes stay, notes that are never recalled are evicted, important ones are pinned.
//!
//! `cargo run --example agent_memory`

use apcm::{Attributes, Metadata, PlainCodec, Record, Result, Store};
use std::time::Duration;

fn moment(seed: usize) -> Result<Record> {
    Record::vector((0..32).map(|i| ((seed * 37 + i * 11) as f32 * 0.61).sin()).collect())
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("apcm-agent-{}.apcm", std::process::id()));
    // The plain codec keeps records as they are; `FlowCodec::trainer` makes one that compresses.
    let memory = Store::builder().capacity(8).create(&path, PlainCodec::new(&[32], 32)?)?;

    memory.put(b"name", &moment(0)?, Attributes::default().pinned())?;
    let today = Attributes::default()
        .with_metadata(Metadata::from([("kind".into(), "plan".into())]))
        .expiring_in(Duration::from_secs(24 * 3_600));
    memory.put(b"today", &moment(1)?, today)?;
    for step in 2..8 {
        memory.insert(&moment(step)?)?;
    }
    // Recalling is what keeps a memory.
    for step in [2, 3, 5] {
        memory.read(&moment(step)?)?;
    }
    memory.get(b"today")?;
    for step in 8..11 {
        for left in memory.insert(&moment(step)?)?.evicted {
            println!("{} left, recalled {} times", left.id, left.count);
        }
        memory.read(&moment(step)?)?;
    }
    println!("\n{:>6} {:>8} pinned key", "id", "recalled");
    for entry in memory.iter()? {
        let entry = entry?;
        let key = entry.key().map(String::from_utf8_lossy).unwrap_or_default();
        println!("{:>6} {:>8} {:<6} {key}", entry.id().to_string(), entry.count(), entry.is_pinned());
    }
    memory.close()?;
    std::fs::remove_file(&path).map_err(|source| apcm::Error::Io { path, source })
}
