//! Any payload is a value or an error, in little memory and without deep recursion; a value survives another
//! trip.
#![no_main]

use apcm_format::frame::{self, Framed};
use apcm_format::{
    CodecImage, FlowConfig, IngestPosition, IngestSource, Place, PlainConfig, SlotMetadata, StoreState,
    StoreUuid, Table,
};
use libfuzzer_sys::fuzz_target;

fn trip<T: Framed>(place: Place, payload: &[u8]) -> Option<T> {
    let mut bytes = vec![T::KIND, T::SCHEMA, 0, 0];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&place.crc(&[&bytes]).to_le_bytes());
    let value = frame::open::<T>(&bytes, place).ok()?;
    let again = frame::seal(&value, place).expect("what was read can be written");
    assert!(frame::open::<T>(&again, place).is_ok());
    Some(value)
}

fuzz_target!(|data: &[u8]| {
    let place = Place::numbered(StoreUuid([0; 16]), Table::Metadata, 0);
    let Some((&choice, payload)) = data.split_first() else { return };
    match choice % 7 {
        0 => drop(trip::<SlotMetadata>(place, payload)),
        1 => drop(trip::<StoreState>(place, payload)),
        2 => drop(trip::<IngestPosition>(place, payload)),
        3 => {
            if let Some(config) = trip::<FlowConfig>(place, payload) {
                let _ = config.check();
            }
        }
        4 => {
            if let Some(config) = trip::<PlainConfig>(place, payload) {
                let _ = config.record_shape();
            }
        }
        5 => {
            let _ = CodecImage::decode(payload);
        }
        _ => drop(trip::<IngestSource>(place, payload)),
    }
});
