//! A codec of your own: nothing but `apcm` is needed to write one, and store, pack and recode take it.
//!
//! `cargo run --example own_codec`

use apcm::{
    Codec, CodecImage, CodecInfo, DecodeError, Encoded, Error, Pack, PlainCodec, Record, RecordShape,
    Records, Result, Similarity, Store, StoredCode,
};

/// Keeps the sign of each value, one bit each, and one magnitude for all of them.
#[derive(Debug)]
struct SignCodec {
    shape: RecordShape,
}

impl SignCodec {
    fn values(&self) -> usize {
        self.shape.values()
    }

    fn code(row: &[f32]) -> Vec<u8> {
        let magnitude = row.iter().map(|value| value.abs()).sum::<f32>() / row.len() as f32;
        let mut code = magnitude.to_le_bytes().to_vec();
        code.extend(row.chunks(8).map(|some| {
            some.iter().enumerate().fold(0, |byte, (bit, value)| byte | (u8::from(*value < 0.0) << bit))
        }));
        code
    }

    /// Codes come from disk: any bytes must give values or an error, never a panic.
    fn decoded(&self, code: &[u8]) -> Result<Vec<f32>> {
        let malformed =
            || Error::Format(DecodeError::Invalid { what: "a sign code", found: code.len() as u64 });
        let (magnitude, signs) = code.split_first_chunk::<4>().ok_or_else(malformed)?;
        let magnitude = f32::from_le_bytes(*magnitude);
        if signs.len() != self.values().div_ceil(8) || !magnitude.is_finite() {
            return Err(malformed());
        }
        let sign = |index: usize| signs[index / 8] >> (index % 8) & 1 == 1;
        Ok((0..self.values()).map(|index| if sign(index) { -magnitude } else { magnitude }).collect())
    }
}

impl Codec for SignCodec {
    fn shape(&self) -> RecordShape {
        self.shape
    }

    fn code_len_max(&self) -> usize {
        4 + self.values().div_ceil(8)
    }

    fn encode(&self, records: &Records) -> Result<Vec<Encoded>> {
        let encode = |row: &[f32]| {
            let code = Self::code(row);
            let squares = row.iter().zip(self.decoded(&code)?).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            Ok(Encoded { code, error: squares / row.len() as f32, norm, without_predictor: false })
        };
        records.rows().map(encode).collect()
    }

    fn decode(&self, codes: &[StoredCode<'_>]) -> Result<Records> {
        let rows = codes.iter().map(|code| self.decoded(code.bytes)).collect::<Result<Vec<_>>>()?;
        Records::from_values(self.shape, rows.concat())
    }

    fn search_dims(&self, _: Similarity) -> usize {
        self.values()
    }

    fn search_vectors(&self, codes: &[&[u8]], _: Similarity) -> Result<Vec<f32>> {
        Ok(codes.iter().map(|code| self.decoded(code)).collect::<Result<Vec<_>>>()?.concat())
    }

    fn query_vectors(&self, records: &Records, _: Similarity) -> Result<Vec<f32>> {
        Ok(records.values().to_vec())
    }

    /// What the store keeps to recognize the codec: opening with another one is an error.
    fn image(&self) -> Result<CodecImage> {
        let config = self.shape.dims().iter().flat_map(|&dim| (dim as u32).to_le_bytes()).collect();
        Ok(CodecImage { kind: "sign".to_owned(), config, tensors: Vec::new() })
    }

    fn info(&self) -> CodecInfo {
        CodecInfo { preset: "sign".to_owned(), quantizer: "one bit".to_owned(), parameters: 0 }
    }
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::io(std::path::Path::new("a temporary folder")))?;
    let path = folder.path().join("signs.apcm");
    let record = |i: usize| Record::vector((0..32).map(|j| ((i * 7 + j * 3) as f32).sin()).collect());
    let codec = || record(0).map(|record| SignCodec { shape: record.shape() });

    let store = Store::builder().capacity(100).create(&path, codec()?)?;
    for i in 0..50 {
        store.put(format!("{i}").as_bytes(), &record(i)?, apcm::Attributes::default())?;
    }
    let found = store.read(&record(7)?)?.map(|memory| memory.key);
    println!("{} memories of {} bytes; nearest to 7: {found:?}", store.len(), codec()?.code_len_max());

    // A pack and a reopened store get the codec from the program: the file only names it.
    let pack = folder.path().join("signs.apack");
    store.export_pack(&pack).run()?;
    let pack = Pack::builder().open_with_codec(&pack, codec()?)?;
    assert_eq!(pack.len(), 50);
    assert!(matches!(Store::open_read_only(&path), Err(Error::Locked { .. } | Error::UnknownCodec { .. })));

    // To a codec of the crate, and back to this one.
    let plain = folder.path().join("plain.apcm");
    store.recode(&plain, PlainCodec::new(&[32], 32)?).run()?;
    let back = folder.path().join("back.apcm");
    let report = Store::open(&plain)?.recode(&back, codec()?).run()?;
    let store = Store::builder().open_with_codec(&back, codec()?)?;
    println!("recoded {} memories, error added {:.1e}", report.records, report.error_added);
    assert_eq!(store.len(), 50);
    Ok(())
}
