//! A dataset into a store, end to end, and its encoding alone.

use super::{Outcome, Words, in_seconds, seconds};
use apcm::ingest::{Dataset, Ingest, Keys};
use apcm::{Codec, Device, FlowCodec, QuantizerSpec, Store};
use apcm_format::CodecImage;
use serde_json::Value;
use std::hint::black_box;
use std::path::PathBuf;

/// Records of a batch, as `Ingest` takes them.
const BATCH: usize = 1_024;

#[derive(Default)]
pub(super) struct Ingested {
    made: Option<(PathBuf, CodecImage)>,
}

impl Ingested {
    pub(super) fn answer(&mut self, words: &Words<'_>) -> Outcome<Option<Value>> {
        match words.text(0)? {
            // A codec for a dataset: `entropy`, the default of `bytes_per_record`, or `allocated`, which
            // encodes fastest.
            "dataset" => {
                let path = words.path(1)?;
                let some = Dataset::open(&path)?.load_range(0..8_000)?;
                let quantizer = match words.text(2)? {
                    "entropy" => QuantizerSpec::entropy(64),
                    _ => QuantizerSpec::Allocated(64),
                };
                self.made = Some((path, FlowCodec::pca(&some, quantizer)?.image()?));
                Ok(Some(serde_json::json!({})))
            }
            "encode-alone" => {
                let (codec, dataset) = self.codec()?;
                let records = dataset.load()?;
                let (seconds, ()) = seconds(|| {
                    for first in (0..records.len()).step_by(BATCH) {
                        let some = records.slice(first..(first + BATCH).min(records.len()));
                        black_box(codec.encode(&some)?);
                    }
                    Ok(())
                })?;
                in_seconds(seconds)
            }
            "ingest" => {
                let path = words.path(1)?;
                let (codec, dataset) = self.codec()?;
                let store = Store::builder().capacity(dataset.len() as u32).create(&path, codec)?;
                let (seconds, _) = seconds(|| Ok(Ingest::new(&store, &dataset).keys(Keys::Row).run()?))?;
                store.close()?;
                std::fs::remove_file(path)?;
                in_seconds(seconds)
            }
            _ => Ok(None),
        }
    }

    fn codec(&self) -> Outcome<(FlowCodec, Dataset)> {
        let (path, image) = self.made.as_ref().ok_or("no dataset")?;
        Ok((FlowCodec::from_image(image, Device::default())?, Dataset::open(path)?))
    }
}
