//! Any bytes are a slot record or an error; a record that is read writes the bytes it was read from.
#![no_main]

use apcm_format::{Place, SlotRecord, StoreUuid, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let place = Place::numbered(StoreUuid([0; 16]), Table::Slots, 0);
    let _ = SlotRecord::decode(data, place);
    let mut mended = data.to_vec();
    mended.extend_from_slice(&place.crc(&[data]).to_le_bytes());
    if let Ok(record) = SlotRecord::decode(&mended, place) {
        assert_eq!(record.encode(place).expect("what was read can be written"), mended);
    }
});
