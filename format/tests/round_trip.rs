//! Laws: what is written is read back equal, and only from the place it was written for.

use apcm_format::{
    CodecImage, CounterChunk, DecodeError, ElementType, Features, Fingerprint, IngestPosition, NamedTensor,
    Original, Place, PlainConfig, Policy, RecordShape, ResidualForm, ResidualRecord, Similarity, SlotFlags,
    SlotKind, SlotMetadata, SlotRecord, StoreHeader, StoreState, StoreUuid, StoredReal, StreamHead,
    StreamPart, Table, UseChunk, Value, frame, limits, stream,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::Lfu),
        (1..=u32::MAX).prop_map(|half_life| Policy::LfuAged { half_life }),
        Just(Policy::Lru),
        Just(Policy::Fifo),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (any::<[u8; 16]>(), any::<u64>())
        .prop_map(|(uuid, key)| Place::numbered(StoreUuid(uuid), Table::Slots, key))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Float),
        ".{0,20}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            btree_map("[a-z]{1,8}", inner, 0..6).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn slot_record(
        place in place(), other in place(), pinned: bool, without_predictor: bool, seq in 1..(1_u64 << 48),
        written_at: u32, expires_at: Option<u32>, last_access: Option<u32>, policy_word: Option<u32>,
        error in 0.0_f32..1e9, norm in 0.0_f32..1e9, code in vec(any::<u8>(), 0..300),
    ) {
        let record = SlotRecord {
            kind: SlotKind::Record,
            flags: SlotFlags { pinned, without_predictor, residual: pinned != without_predictor },
            seq, written_at, expires_at, last_access, policy_word,
            error: StoredReal::at_least(error),
            norm: StoredReal::at_least(norm),
            code: &code,
        };
        let bytes = record.encode(place).unwrap();
        prop_assert_eq!(SlotRecord::decode(&bytes, place).unwrap(), record);
        if last_access.is_none() && policy_word.is_none() {
            prop_assert!(bytes.len() <= code.len() + limits::SLOT_OVERHEAD_MAX);
        }
        if other != place {
            let refused = SlotRecord::decode(&bytes, other).is_err();
            prop_assert!(refused);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_slot_record_is_noticed(code in vec(any::<u8>(), 0..40),
        bit in any::<prop::sample::Index>()) {
        let place = Place::numbered(StoreUuid([3; 16]), Table::Slots, 9);
        let mut bytes = SlotRecord {
            kind: SlotKind::Record, flags: SlotFlags::default(), seq: 5, written_at: 6, expires_at: None,
            last_access: None, policy_word: None, error: StoredReal::at_least(0.1),
                norm: StoredReal::at_least(2.0),
            code: &code,
        }.encode(place).unwrap();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let noticed = matches!(SlotRecord::decode(&bytes, place), Err(DecodeError::Checksum { .. }));
        prop_assert!(noticed);
    }

    #[test]
    fn residual_record(
        place in place(), other in place(), lossless: bool, seq in 0..(1_u64 << 48), error in 0.0_f32..1e9,
        payload in vec(any::<u8>(), 0..300), bit in any::<prop::sample::Index>(),
    ) {
        let form = if lossless { ResidualForm::Lossless } else { ResidualForm::Bounded };
        let residual =
            ResidualRecord { form, seq, error_without: StoredReal::at_least(error), payload: &payload };
        let mut bytes = residual.encode(place).unwrap();
        prop_assert_eq!(bytes.len(), payload.len() + 13);
        prop_assert_eq!(ResidualRecord::decode(&bytes, place).unwrap(), residual);
        if other != place {
            prop_assert!(ResidualRecord::decode(&bytes, other).is_err());
        }
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(ResidualRecord::decode(&bytes, place).is_err());
    }

    #[test]
    fn header(
        uuid: [u8; 16], compatible: u64, capacity in 1..=limits::CAPACITY_MAX, centred: bool,
        dims in vec(1_usize..200, 1..=3), fingerprint: [u8; 32], created_at: u64, policy in policy(),
    ) {
        let header = StoreHeader {
            uuid: StoreUuid(uuid),
            features: Features { compatible, ..Features::default() },
            capacity,
            policy,
            similarity: if centred { Similarity::CentredCosine } else { Similarity::Cosine },
            shape: RecordShape::new(&dims).unwrap(),
            search_dims: 1,
            fingerprint: Fingerprint(fingerprint),
            created_at,
        };
        let bytes = header.encode();
        prop_assert_eq!(StoreHeader::decode(&bytes).unwrap(), header);
        for len in 0..bytes.len() {
            prop_assert!(StoreHeader::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn counter_chunk(place in place(), counts in vec(any::<u32>(), limits::COUNTERS_PER_CHUNK)) {
        let chunk = CounterChunk { counts: counts.try_into().unwrap() };
        prop_assert_eq!(CounterChunk::decode(&chunk.encode(place), place).unwrap(), chunk);
    }

    #[test]
    fn use_chunk(place in place(), words in vec(any::<u64>(), limits::USES_PER_CHUNK)) {
        let chunk = UseChunk { words: words.try_into().unwrap() };
        prop_assert_eq!(UseChunk::decode(&chunk.encode(place), place).unwrap(), chunk);
    }

    #[test]
    fn stream_part(
        search in vec(-1e30_f32..1e30, 0..20), state in vec(-1e30_f32..1e30, 0..40),
            errors in vec(0.0_f32..1e9, 1..70),
    ) {
        let errors = errors.into_iter().map(StoredReal::at_least).collect();
        let part = StreamPart { search, state, errors };
        let bytes = part.encode().unwrap();
        prop_assert_eq!(bytes.len(), StreamPart::encoded_len(part.search.len(), part.state.len(),
            part.errors.len()));
        prop_assert_eq!(StreamPart::decode(&bytes).unwrap(), part.clone());
        for len in 0..bytes.len() {
            prop_assert!(StreamPart::decode(&bytes[..len]).is_err());
        }
        // What could not be read again is not written.
        let endless = |values: &[f32]| [values, &[f32::INFINITY]].concat();
        let endless_search = StreamPart { search: endless(&part.search), ..part.clone() };
        let endless_state = StreamPart { state: endless(&part.state), ..part };
        prop_assert!(endless_search.encode().is_err() && endless_state.encode().is_err());
    }

    #[test]
    fn stream_head(
        place in place(), other in place(), first: u64, more: u32, states in vec(vec(-1e30_f32..1e30,
            0..9), 0..9),
        bit in any::<prop::sample::Index>(),
    ) {
        let originals = (0..more % 4)
            .map(|i| Original { off: StoredReal::at_least(0.25), scale: StoredReal::at_least(i as f32),
                values: vec![i as u16 + 7; more as usize % 5] })
            .collect();
        let head = StreamHead { first, len: first.saturating_add(more.into()), states, originals };
        let mut bytes = head.encode(place);
        prop_assert_eq!(StreamHead::decode(&bytes, place).unwrap(), head);
        if other != place {
            prop_assert!(StreamHead::decode(&bytes, other).is_err());
        }
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(StreamHead::decode(&bytes, place).is_err());
    }

    #[test]
    fn part_keys_stand_in_order(name in "[a-z]{1,20}", other in "[a-z]{1,20}", first: u64, second: u64) {
        let key = stream::part_key(&name, first);
        prop_assert_eq!(stream::part_of_key(&key), Some((name.as_str(), first)));
        prop_assert_eq!(key.cmp(&stream::part_key(&name, second)), first.cmp(&second));
        prop_assert_eq!(stream::part_key(&other, first).starts_with(&stream::part_keys(&name)), name == other);
        prop_assert_eq!(stream::part_of_key(&key[..key.len() - 1]), None);
        prop_assert_eq!(stream::part_of_key(name.as_bytes()), None);
    }

    #[test]
    fn policy_text(policy in policy()) {
        prop_assert_eq!(policy.to_string().parse::<Policy>(), Ok(policy));
    }

    #[test]
    fn slot_metadata(place in place(), key in prop::option::of(vec(any::<u8>(), 1..100)), values in btree_map("[a-z]{1,8}", value(), 0..6)) {
        let metadata = SlotMetadata { key, values };
        let bytes = frame::seal(&metadata, place).unwrap();
        prop_assert_eq!(frame::open::<SlotMetadata>(&bytes, place).unwrap(), metadata);
    }

    #[test]
    fn state(place in place(), next_seq: u64, reads: u64, evictions: u64, evictions_never_read: u64) {
        let state = StoreState { next_seq, reads, evictions, evictions_never_read, ..StoreState::default() };
        let bytes = frame::seal(&state, place).unwrap();
        prop_assert_eq!(frame::open::<StoreState>(&bytes, place).unwrap(), state);
        let other_kind = frame::open::<IngestPosition>(&bytes, place).is_err();
        prop_assert!(other_kind);
    }

    #[test]
    fn codec_image(names in prop::collection::btree_set("[a-z.]{1,12}", 0..5), rows in 0_u32..7) {
        let (rank, shape) = RecordShape::new(&[4, 4]).unwrap().to_stored();
        let mut image = CodecImage::new("plain", &PlainConfig { shape, rank, kept: 3 }).unwrap();
        for (i, name) in names.into_iter().enumerate() {
            image.tensors.push(NamedTensor {
                name, element: ElementType::F16, dims: vec![rows, 3], bytes: vec![i as u8; rows as usize * 6],
            });
        }
        let bytes = image.encode().unwrap();
        prop_assert_eq!(CodecImage::decode(&bytes).unwrap(), image);
        for len in 0..bytes.len() {
            prop_assert!(CodecImage::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn any_bytes_give_a_value_or_an_error(place in place(), bytes in vec(any::<u8>(), 0..400)) {
        let _ = StoreHeader::decode(&bytes);
        let _ = SlotRecord::decode(&bytes, place);
        let _ = CounterChunk::decode(&bytes, place);
        let _ = UseChunk::decode(&bytes, place);
        let _ = StreamPart::decode(&bytes);
        let _ = StreamHead::decode(&bytes, place);
        let _ = frame::open::<SlotMetadata>(&bytes, place);
        let _ = CodecImage::decode(&bytes);
    }
}
