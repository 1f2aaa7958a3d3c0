//! A robot's senses, hour after hour, in a few slots: streams of a store.
//!
//! `cargo run --release --example session_stream`

use apcm::{FlowCodec, QuantizerSpec, Records, Result, Store, SweeperTree};

/// Stands for a real sensor: eight joints that swing at speeds of their own.
fn pose(step: usize) -> Vec<f32> {
    (0..8).map(|joint| (step as f32 / (4.0 + 1.7 * joint as f32)).sin()).collect()
}

fn main() -> Result<()> {
    let mut seen = Records::with_dims(&[8])?;
    (0..8_192).try_for_each(|step| seen.push_values(&pose(step)))?;

    // Sixty-four poses, 512 numbers, into a state of 64.
    let lengths = vec![64; seen.len() / 64];
    let trained = SweeperTree::trainer(&seen, &lengths).state(64).untrained().train()?;
    for level in &trained.levels {
        println!("{:>3} poses in {:>2} numbers: error {:.1e}", level.records, level.state, level.error);
    }

    let path = std::env::temp_dir().join("apcm-session-stream.apcm");
    let _ = std::fs::remove_file(&path);
    let codec = FlowCodec::pca(&seen, QuantizerSpec::F16(8))?;
    let store = Store::builder().capacity(4).create(&path, codec)?;
    store.set_sweeper_tree(trained.tree)?;

    let stream = store.stream("arm")?;
    for hour in 0..5 {
        let mut poses = Records::with_dims(&[8])?;
        (hour * 64..(hour + 1) * 64).try_for_each(|step| poses.push_values(&pose(step)))?;
        let evicted: usize = stream.append_all(&poses)?.iter().map(|appended| appended.evicted.len()).sum();
        println!("hour {hour}: {} poses in {} slots, {evicted} evicted", stream.len()?, store.len());
    }

    let recalled = stream.recall(200)?;
    let off = recalled.record.values().iter().zip(pose(200)).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    println!("pose 200 comes back, off by {off:.3} at most");
    match stream.recall(10) {
        Err(gone) => println!("pose 10: {gone}"),
        Ok(_) => println!("pose 10 is there still"),
    }

    // What is left, and where it lies.
    for info in store.streams()? {
        println!("{}: {} of {} poses, in {} slots", info.name, info.records, info.len, info.parts);
    }
    store.close()
}
