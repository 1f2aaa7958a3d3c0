//! Any bytes are a part of a stream, a head, or an error; one that is read writes the bytes it was read from. A
//! key is a part's or is not.
#![no_main]

use apcm_format::{Place, StoreUuid, StreamHead, StreamPart, stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(part) = StreamPart::decode(data) {
        assert_eq!(part.encode().expect("what was read can be written"), data);
    }
    let place = Place::named(StoreUuid([0; 16]), apcm_format::Table::Streams, b"name");
    let _ = StreamHead::decode(data, place);
    let mut mended = data.to_vec();
    mended.extend_from_slice(&place.crc(&[data]).to_le_bytes());
    if let Ok(head) = StreamHead::decode(&mended, place) {
        assert_eq!(head.encode(place), mended);
    }
    let key = [stream::PART_KEY_PREFIX, data].concat();
    if let Some((name, first)) = stream::part_of_key(&key) {
        assert_eq!(stream::part_key(name, first), key);
    }
});
