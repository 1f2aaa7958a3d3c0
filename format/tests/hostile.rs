//! Inputs made to hurt: they carry a correct checksum, so that only the decoder's own checks stand in the way.

use apcm_format::{DecodeError, Place, SlotMetadata, StoreHeader, StoreUuid, Table, Value, frame, limits};

fn place() -> Place {
    Place::numbered(StoreUuid([1; 16]), Table::Metadata, 0)
}

fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![1, 1, 0, 0];
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&place().crc(&[&out]).to_le_bytes());
    out
}

#[test]
fn nesting_deeper_than_the_limit_is_an_error_and_not_a_stack_overflow() {
    // No key, one field "a", then list-of-one, over and over.
    let mut payload = vec![0, 1, 1, b'a'];
    // Miri sees no overflow of the stack, and takes a quarter of an hour for so many.
    let times = if cfg!(miri) { 2_000 } else { 500_000 };
    payload.extend(std::iter::repeat_n([6_u8, 1], times).flatten());
    let error = frame::open::<SlotMetadata>(&sealed(&payload), place()).unwrap_err();
    assert!(matches!(&error, DecodeError::Malformed { cause, .. } if cause.contains("nested")), "{error}");
}

#[test]
fn the_deepest_allowed_nesting_is_read_back() {
    let mut value = Value::Int(1);
    for _ in 0..limits::METADATA_NESTING_MAX {
        value = Value::List(vec![value]);
    }
    let metadata = SlotMetadata { key: None, values: [("a".to_owned(), value)].into() };
    let bytes = frame::seal(&metadata, place()).unwrap();
    assert_eq!(frame::open::<SlotMetadata>(&bytes, place()).unwrap(), metadata);
}

#[test]
fn a_claimed_length_is_not_believed() {
    // A list that claims 2^60 values and has none; a text that claims 2^40 bytes and has none.
    for payload in [
        [&[0, 1, 1, b'a', 6, 253][..], &(1_u64 << 60).to_le_bytes()].concat(),
        [&[0, 1, 1, b'a', 5, 253][..], &(1_u64 << 40).to_le_bytes()].concat(),
    ] {
        assert!(matches!(
            frame::open::<SlotMetadata>(&sealed(&payload), place()),
            Err(DecodeError::Malformed { .. })
        ));
    }
}

#[test]
fn names_out_of_order_or_twice_are_refused() {
    for names in [[b'b', b'a'], [b'a', b'a']] {
        let payload = [0, 2, 1, names[0], 0, 1, names[1], 0];
        assert!(frame::open::<SlotMetadata>(&sealed(&payload), place()).is_err());
    }
    assert!(frame::open::<SlotMetadata>(&sealed(&[0, 2, 1, b'a', 0, 1, b'b', 0]), place()).is_ok());
}

#[test]
fn a_header_from_a_newer_version_says_so_whatever_follows() {
    let mut bytes = *b"\x89APCM\r\n\x1a\x02\x00 and then something this version cannot know";
    assert!(matches!(StoreHeader::decode(&bytes), Err(DecodeError::TooNew { found: 2, known: 1, .. })));
    bytes[0] = 0;
    assert!(matches!(StoreHeader::decode(&bytes), Err(DecodeError::Magic { .. })));
}
