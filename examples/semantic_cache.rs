//! A semantic cache: answers by meaning, bounded, and still there after a restart.
//!
//! `cargo run --example semantic_cache`

use apcm::{FlowCodec, Metadata, QuantizerSpec, Record, Records, Result, Store, Value};

/// Stands for a real embedding model: words that look alike land near each other.
fn embed(text: &str) -> Result<Record> {
    let mut values = vec![0.0_f32; 64];
    for word in text.to_lowercase().split_whitespace() {
        for pair in word.as_bytes().windows(2) {
            values[(usize::from(pair[0]) * 31 + usize::from(pair[1])) % 64] += 1.0;
        }
    }
    Record::vector(values)
}

fn main() -> Result<()> {
    let questions = [
        ("what is the capital of France", "Paris"),
        ("how tall is the Eiffel tower", "330 metres"),
        ("who wrote War and Peace", "Leo Tolstoy"),
        ("what is the boiling point of water", "100 degrees Celsius at sea level"),
    ];
    let mut records = Records::with_dims(&[64])?;
    for (question, _) in questions {
        records.push(&embed(question)?)?;
    }
    // A real cache would train on thousands of its own embeddings; four of them span three directions.
    let codec = FlowCodec::pca(&records, QuantizerSpec::F16(3))?;

    let path = std::env::temp_dir().join("apcm-semantic-cache.apcm");
    if !path.exists() {
        let cache = Store::builder().capacity(1_000).create(&path, codec)?;
        for (question, answer) in questions {
            let metadata = Metadata::from([("answer".into(), answer.into())]);
            cache.put(question.as_bytes(), &embed(question)?, metadata)?;
        }
        cache.close()?;
    }

    let cache = Store::open(&path)?;
    for asked in
        ["what's the capital city of France?", "who wrote the book War and Peace", "best pizza recipe"]
    {
        let hits = cache.search(&embed(asked)?).k(1).min_similarity(0.85).counted().run()?;
        match hits.first() {
            Some(hit) => {
                let Some(Value::Text(answer)) = hit.metadata.get("answer") else { continue };
                println!("{asked}\n  hit ({:.2}): {answer}", hit.similarity);
            }
            None => println!("{asked}\n  miss: ask the model, then put its answer"),
        }
    }
    cache.close()
}
