//! Any bytes are a chunk of counts, and one of uses, or an error; a chunk that is read writes the bytes it was
//! read from.
#![no_main]

use apcm_format::{CounterChunk, Place, StoreUuid, Table, UseChunk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let place = Place::numbered(StoreUuid([0; 16]), Table::Counters, 3);
    let _ = CounterChunk::decode(data, place);
    let mut mended = data.to_vec();
    mended.resize(1_000, 0);
    mended.extend_from_slice(&place.crc(&[&mended]).to_le_bytes());
    let chunk = CounterChunk::decode(&mended, place).expect("its length and checksum are right");
    assert_eq!(chunk.encode(place).to_vec(), mended);
    let chunk = UseChunk::decode(&mended, place).expect("its length and checksum are right");
    assert_eq!(chunk.encode(place).to_vec(), mended);
});
