//! A codec from hostile bytes is an error, or a codec that codes and decodes within bounds, whatever its
//! weights and tables say.
#![no_main]

use apcm::{Codec, Device, Records, Similarity, StoredCode};
use libfuzzer_sys::fuzz_target;

/// Larger codecs are possible and too slow to be told much by.
const VALUES_MAX: usize = 4_096;

fuzz_target!(|data: &[u8]| {
    let Ok(codec) = apcm::codec::load(data, Device::Cpu) else { return };
    let values = codec.shape().values();
    if values > VALUES_MAX || codec.code_len_max() > VALUES_MAX {
        return;
    }
    for fill in [0, 0xff, data.first().copied().unwrap_or(1)] {
        let code = vec![fill; codec.code_len_max()];
        if let Ok(records) = codec.decode(&[StoredCode { bytes: &code, without_predictor: fill == 0 }]) {
            assert_eq!(records.values().len(), values);
        }
        if let Ok(vectors) = codec.search_vectors(&[&code], Similarity::Cosine) {
            assert_eq!(vectors.len(), codec.search_dims(Similarity::Cosine));
        }
    }
    let record: Vec<f32> = (0..values).map(|i| (i % 7) as f32 / 7.0).collect();
    if let Ok(records) = Records::from_values(codec.shape(), record)
        && let Ok(encoded) = codec.encode(&records)
    {
        assert!(encoded[0].code.len() <= codec.code_len_max());
        let stored = StoredCode { bytes: &encoded[0].code, without_predictor: encoded[0].without_predictor };
        let _ = codec.decode(&[stored]);
    }
});
