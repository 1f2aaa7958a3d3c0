//! The ApCM paper's network, 1024 to 128: six couplings of width 256, 6,715,520 weights.

use super::{Outcome, Words, in_seconds, median, seconds};
use apcm::ingest::Dataset;
use apcm::{Codec, Encoded, FlowCodec, Preset, QuantizerSpec, Records, StoredCode};
use serde_json::Value;
use std::hint::black_box;

#[derive(Default)]
pub(super) struct Coded {
    made: Option<(FlowCodec, Records, Vec<Encoded>)>,
    next: usize,
}

impl Coded {
    pub(super) fn answer(&mut self, words: &Words<'_>) -> Outcome<Option<Value>> {
        match words.text(0)? {
            "network" => {
                let records = Dataset::open(words.path(1)?)?.load()?;
                let trainer = FlowCodec::trainer(&records).preset(Preset::Paper).untrained();
                let codec = trainer.quantizer(QuantizerSpec::F32(128)).train()?.codec;
                let codes = codec.encode(&records)?;
                let parameters = codec.info().parameters;
                self.made = Some((codec, records, codes));
                Ok(Some(serde_json::json!({ "parameters": parameters })))
            }
            "forward" => self.run(words, |codec, records, _| {
                black_box(codec.forward(records)?);
                Ok(())
            }),
            "encode" => self.run(words, |codec, records, _| {
                black_box(codec.encode(records)?);
                Ok(())
            }),
            "decode" => self.run(words, |codec, _, codes| {
                black_box(codec.decode(codes)?);
                Ok(())
            }),
            _ => Ok(None),
        }
    }

    /// Median seconds of a call with a batch: several calls of small ones.
    fn run(
        &mut self,
        words: &Words<'_>,
        call: impl Fn(&FlowCodec, &Records, &[StoredCode<'_>]) -> Outcome<()>,
    ) -> Outcome<Option<Value>> {
        let (codec, records, codes) = self.made.as_ref().ok_or("no network")?;
        let size = words.number(1)?;
        let calls = (256 / size).max(1);
        let mut all = Vec::new();
        for _ in 0..calls {
            let first = self.next % (records.len() - size + 1);
            self.next += 1;
            let some = records.slice(first..first + size);
            let stored: Vec<StoredCode<'_>> = codes[first..first + size]
                .iter()
                .map(|encoded| StoredCode { bytes: &encoded.code, without_predictor: false })
                .collect();
            all.push(seconds(|| call(codec, &some, &stored))?.0);
        }
        in_seconds(median(all))
    }
}
