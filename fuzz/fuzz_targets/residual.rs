//! Any bytes are a residual record or an error; one that is read writes the bytes it was read from.
#![no_main]

use apcm_format::{Place, ResidualRecord, StoreUuid, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let place = Place::numbered(StoreUuid([0; 16]), Table::Residuals, 0);
    let _ = ResidualRecord::decode(data, place);
    let mut mended = data.to_vec();
    mended.extend_from_slice(&place.crc(&[data]).to_le_bytes());
    if let Ok(residual) = ResidualRecord::decode(&mended, place) {
        assert_eq!(residual.encode(place).expect("what was read can be written"), mended);
    }
});
