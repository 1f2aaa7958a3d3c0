//! Every impossible field, under a checksum that is right: each is an error that says what it is, with the
//! numbers.

use apcm_format::{
    CodecImage, CounterChunk, DecodeError, ElementType, Features, Fingerprint, FlowConfig, MemoryId,
    NamedTensor, Place, PlainConfig, Policy, Preset, QuantizerKind, RecordShape, ResidualForm,
    ResidualRecord, Similarity, SlotFlags, SlotKind, SlotMetadata, SlotRecord, StoreHeader, StoreState,
    StoreUuid, StoredReal, Table, UseChunk, Value, WeightPrecision, frame, limits,
};

fn place() -> Place {
    Place::numbered(StoreUuid([5; 16]), Table::Slots, 7)
}

/// The text of an error: what a user reads.
fn said<T: std::fmt::Debug>(result: Result<T, DecodeError>) -> String {
    match result {
        Err(error) => error.to_string(),
        Ok(value) => panic!("{value:?} was accepted"),
    }
}

/// Bytes with one part changed and the keyed checksum made anew.
fn resealed(bytes: &[u8], place: Place, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = bytes[..bytes.len() - 4].to_vec();
    change(&mut body);
    let crc = place.crc(&[&body]);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

fn rechecked(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = bytes[..bytes.len() - 4].to_vec();
    change(&mut body);
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

fn slot(code: &[u8]) -> SlotRecord<'_> {
    SlotRecord {
        kind: SlotKind::Record,
        flags: SlotFlags::default(),
        seq: 3,
        written_at: 4,
        expires_at: None,
        last_access: None,
        policy_word: None,
        error: StoredReal::at_least(0.5),
        norm: StoredReal::at_least(1.0),
        code,
    }
}

#[test]
fn slot_records() {
    let bytes = slot(b"code").encode(place()).unwrap();
    let cases: [(usize, u8, &str); 7] = [
        (0, 2 << 4, "a slot record was written by a newer version: found 0x2, known are up to 0x1"),
        (0, 1 << 4 | 7, "the kind of a slot has the impossible value 7"),
        (1, 1 << 6, "a flag of a slot was written by a newer version"),
        (2, 0, "a sequence number has the impossible value 0"),
        (13, 0xff, "a stored real has the impossible value"),
        (15, 0xff, "a stored real has the impossible value"),
        (1, 1 << 3 | 1 << 4, "a slot record needs 4 bytes, only 0 are there"),
    ];
    for (at, value, expected) in cases {
        let said = said(SlotRecord::decode(&resealed(&bytes, place(), |body| body[at] = value), place()));
        assert!(said.contains(expected), "{said}, expected {expected}");
    }
    let root = resealed(&bytes, place(), |body| body[0] |= 1);
    assert_eq!(SlotRecord::decode(&root, place()).unwrap().kind, SlotKind::StreamRoot);
    let long = vec![0; limits::CODE_LEN_MAX + 1];
    assert_eq!(said(slot(&long).encode(place())), "the length of a code is 65537, at most 65536 is allowed");
    let longer = resealed(&bytes, place(), |body| body.extend_from_slice(&long));
    assert!(said(SlotRecord::decode(&longer, place())).starts_with("the length of a code is 65541"));
    for seq in [0, limits::SEQ_MAX + 1] {
        assert!(said(SlotRecord { seq, ..slot(b"") }.encode(place())).starts_with("a sequence number is"));
    }
    assert_eq!(said(SlotRecord::decode(&[1, 2], place())), "a slot record needs 4 bytes, only 2 are there");
    let without =
        SlotRecord { flags: SlotFlags { residual: true, pinned: true, ..SlotFlags::default() }, ..slot(b"") };
    let without = without.without_residual(None);
    assert!(without.error.get() == f32::INFINITY && !without.flags.residual && without.flags.pinned);
    assert_eq!(slot(b"").without_residual(Some(StoredReal::at_least(2.0))).error.get(), 2.0);
}

#[test]
#[cfg_attr(miri, ignore = "a checksum of 64 MiB takes Miri an hour")]
fn residual_records() {
    let residual = |payload| ResidualRecord {
        form: ResidualForm::Bounded,
        seq: 3,
        error_without: StoredReal::at_least(0.5),
        payload,
    };
    let bytes = residual(b"more").encode(place()).unwrap();
    for (at, value, expected) in [
        (0, 2 << 4, "a residual was written by a newer version"),
        (0, 1 << 4 | 2, "the form of a residual has the impossible value 2"),
        (8, 0xff, "a stored real has the impossible value"),
    ] {
        let said = said(ResidualRecord::decode(&resealed(&bytes, place(), |body| body[at] = value), place()));
        assert!(said.contains(expected), "{said}, expected {expected}");
    }
    let long = vec![0; limits::RESIDUAL_LEN_MAX + 1];
    assert!(said(residual(&long).encode(place())).starts_with("the length of a residual is"));
    let longer = resealed(&bytes, place(), |body| body.extend_from_slice(&long));
    assert!(said(ResidualRecord::decode(&longer, place())).starts_with("the length of a residual is"));
    let late = ResidualRecord { seq: limits::SEQ_MAX + 1, ..residual(b"") };
    assert!(said(late.encode(place())).starts_with("a sequence number is"));
}

#[test]
fn headers() {
    let header = StoreHeader {
        uuid: StoreUuid([1; 16]),
        features: Features::default(),
        capacity: 10,
        policy: Policy::Lfu,
        similarity: Similarity::Cosine,
        shape: RecordShape::new(&[4, 5]).unwrap(),
        search_dims: 20,
        fingerprint: Fingerprint([2; 32]),
        created_at: 3,
    };
    let bytes = header.encode();
    assert!(header.features.writable());
    assert!(!Features { read_only_compatible: 4, ..Features::default() }.writable());
    let cases: [(usize, &[u8], &str); 17] = [
        (0, b"PK", "this is not an apcm store header: its first bytes are others"),
        (8, &[2], "an apcm store header was written by a newer version: found 0x2, known are up to 0x1"),
        (8, &[0], "the format's major version has the impossible value 0"),
        (12, &[64], "the header's length has the impossible value 64"),
        (
            32,
            &[8],
            "memories without a vector (a feature of format 1.1) was written by a newer version: found 0x8",
        ),
        (34, &[1], "a feature of this store was written by a newer version: found 0x10000"),
        (56, &[0], "the capacity is 0, at most 134217728 is allowed"),
        (59, &[0xff], "the capacity is"),
        (60, &[9], "the store's policy was written by a newer version"),
        (60, &[1], "the word beside the store's policy has the impossible value 0"),
        (61, &[9], "the store's similarity was written by a newer version"),
        (62, &[0], "the record shape has the impossible value 0"),
        (62, &[1], "the record shape has the impossible value 1"),
        (63, &[1], "a reserved byte of the header has the impossible value 1"),
        (76, &[0], "the length of a search vector is 0, at most 21 is allowed"),
        (76, &[22], "the length of a search vector is 22, at most 21 is allowed"),
        (120, &[1], "the word beside the store's policy has the impossible value 1"),
    ];
    for (at, value, expected) in cases {
        let changed = rechecked(&bytes, |body| body[at..at + value.len()].copy_from_slice(value));
        let said = said(StoreHeader::decode(&changed));
        assert!(said.contains(expected), "{at}: {said}, expected {expected}");
    }
    let longer = rechecked(&bytes, |body| body.push(0));
    assert!(said(StoreHeader::decode(&longer)).contains("left over"));
    assert!(said(StoreHeader::decode(&bytes[..10])).contains("failed its checksum"));
    assert!(said(StoreHeader::decode(&bytes[..9])).contains("needs 2 bytes, only 1"));
}

#[test]
fn counters_and_frames() {
    let chunk = CounterChunk { counts: [1; limits::COUNTERS_PER_CHUNK] };
    let bytes = chunk.encode(place());
    assert!(
        said(CounterChunk::decode(&resealed(&bytes, place(), |body| body.push(0)), place()))
            .contains("1 bytes are left over")
    );
    assert!(
        said(CounterChunk::decode(&resealed(&bytes, place(), |body| body.truncate(9)), place()))
            .contains("needs 4 bytes")
    );
    assert_eq!((CounterChunk::number_of(249), CounterChunk::number_of(250)), (0, 1));
    let bytes = UseChunk { words: [1; limits::USES_PER_CHUNK] }.encode(place());
    let longer = said(UseChunk::decode(&resealed(&bytes, place(), |body| body.push(0)), place()));
    assert!(longer.contains("a chunk of uses"), "{longer}");
    assert_eq!((UseChunk::number_of(124), UseChunk::number_of(125)), (0, 1));

    let state = StoreState { next_seq: 9, ..StoreState::default() };
    let named = Place::named(StoreUuid([5; 16]), Table::Meta, b"state");
    let bytes = frame::seal(&state, named).unwrap();
    assert_eq!(frame::open::<StoreState>(&bytes, named), Ok(state));
    let cases: [(usize, u8, &str); 5] = [
        (0, 1, "the kind of a frame has the impossible value 1"),
        (1, 2, "the store's state was written by a newer version"),
        (2, 1, "reserved bytes of a frame has the impossible value 1"),
        (7, 0xff, "the store's state is"),
        (4, 1, "bytes are left over after the store's state"),
    ];
    for (at, value, expected) in cases {
        let said = said(frame::open::<StoreState>(&resealed(&bytes, named, |body| body[at] = value), named));
        assert!(said.contains(expected), "{said}, expected {expected}");
    }
    // A payload that goes on after its value.
    let longer = resealed(&bytes, named, |body| {
        body[4] += 1;
        body.push(0);
    });
    assert!(said(frame::open::<StoreState>(&longer, named)).contains("1 bytes are left over"));
    // Too much to say, a key that is none, a name that is too long.
    let note =
        |text: String| SlotMetadata { key: None, values: [("note".to_owned(), Value::from(text))].into() };
    assert!(
        said(frame::seal(&note("x".repeat(limits::METADATA_LEN_MAX)), place()))
            .starts_with("a slot's metadata is")
    );
    let unnamed = SlotMetadata { key: Some(Vec::new()), ..SlotMetadata::default() };
    assert!(said(frame::seal(&unnamed, place())).contains("a key is empty or too long"));
    let name = "n".repeat(limits::FIELD_NAME_LEN_MAX + 1);
    let named = SlotMetadata { key: None, values: [(name, Value::Null)].into() };
    assert!(said(frame::seal(&named, place())).contains("a field's name is too long"));
    let bytes = frame::seal(&note("x".to_owned()), place()).unwrap();
    let odd = resealed(&bytes, place(), |body| body[8] = 2);
    assert!(said(frame::open::<SlotMetadata>(&odd, place())).contains("a key is there or it is not"));
    // The value's kind comes after the absent key, the number of fields and the name with its length.
    let odd = resealed(&bytes, place(), |body| body[8 + 1 + 1 + 5] = 9);
    assert!(said(frame::open::<SlotMetadata>(&odd, place())).contains("malformed"));
}

#[test]
fn values_shapes_and_names() {
    let values = [
        Value::from("text"),
        Value::from(3_i64),
        Value::from(0.5),
        Value::from(true),
        Value::from("x".to_owned()),
    ];
    assert!(matches!(
        values,
        [Value::Text(_), Value::Int(3), Value::Float(_), Value::Bool(true), Value::Text(_)]
    ));
    for wrong in [&[][..], &[1, 2, 3, 4], &[0], &[1 << 13, 1 << 13], &[usize::MAX, 2]] {
        let error = RecordShape::new(wrong).unwrap_err().to_string();
        assert!(error.contains("1 to 3 axes") && error.contains(&format!("{wrong:?}")), "{error}");
    }
    let shape = RecordShape::new(&[2, 3]).unwrap();
    assert_eq!(
        (shape.to_string(), format!("{shape:?}")),
        ("[2, 3]".to_owned(), "RecordShape[2, 3]".to_owned())
    );
    assert_eq!((shape.dims(), shape.values()), (vec![2, 3], 6));
    let print = Fingerprint([0xab; 32]);
    assert_eq!((print.to_string(), format!("{print:?}")), ("ab".repeat(32), format!("Fingerprint({print})")));
    let error = "12-3".parse::<MemoryId>().unwrap_err().to_string();
    assert_eq!(error, "a memory id looks like 12@345 (slot@sequence), not \"12-3\"");
}

fn flow() -> FlowConfig {
    FlowConfig {
        preset: Preset::Ordered,
        shape: [8, 1, 1],
        rank: 1,
        latent: 6,
        kept: 4,
        code_len: 4,
        quantizer: QuantizerKind::I8,
        precision: WeightPrecision::F16,
        couplings: 2,
        coupling_hidden: 8,
        scale_clamp: 1.0,
        permuted: false,
        predictor_hidden: 8,
        predictor_blocks: 1,
    }
}

#[test]
fn configurations() {
    assert_eq!((flow().check(), flow().record_shape().unwrap().values()), (Ok(()), 8));
    let cases: [(FlowConfig, &str); 15] = [
        (FlowConfig { rank: 0, ..flow() }, "the record shape has the impossible value 0"),
        (FlowConfig { shape: [8, 2, 1], ..flow() }, "the record shape has the impossible value 1"),
        (FlowConfig { latent: 0, ..flow() }, "the number of latent coordinates has the impossible value 0"),
        (FlowConfig { kept: 0, ..flow() }, "the number of kept coordinates has the impossible value 0"),
        (FlowConfig { code_len: 0, ..flow() }, "the length of a code has the impossible value 0"),
        (FlowConfig { latent: 9, ..flow() }, "the number of latent coordinates is 9, at most 8 is allowed"),
        (FlowConfig { kept: 7, ..flow() }, "the number of kept coordinates is 7, at most 6 is allowed"),
        (
            FlowConfig { code_len: 70_000, ..flow() },
            "the length of a code is 70000, at most 65536 is allowed",
        ),
        (FlowConfig { couplings: 257, ..flow() }, "the number of couplings is 257, at most 256 is allowed"),
        (FlowConfig { coupling_hidden: 70_000, ..flow() }, "the width of a coupling is 70000"),
        (FlowConfig { predictor_hidden: 70_000, ..flow() }, "the width of the predictor is 70000"),
        (FlowConfig { predictor_blocks: 257, ..flow() }, "the blocks of the predictor is 257"),
        (FlowConfig { scale_clamp: f32::NAN, ..flow() }, "the bound of a coupling's scale"),
        (FlowConfig { kept: 6, ..flow() }, "the number of couplings has the impossible value 2"),
        (FlowConfig { preset: Preset::Paper, ..flow() }, "a rotation in the paper preset"),
    ];
    for (config, expected) in cases {
        let said = said(config.check());
        assert!(said.contains(expected), "{said}, expected {expected}");
    }
    assert!(said(FlowConfig { coupling_hidden: 0, ..flow() }.check()).contains("the width of a coupling"));
    let narrow = FlowConfig { preset: Preset::Paper, shape: [1, 1, 1], latent: 1, kept: 1, ..flow() };
    assert!(said(narrow.check()).contains("the number of couplings"));
    let plain = PlainConfig { shape: [8, 1, 1], rank: 1, kept: 8 };
    assert_eq!(plain.record_shape().unwrap().values(), 8);
    for kept in [0, 9] {
        assert!(said(PlainConfig { kept, ..plain }.record_shape()).contains("at most 8 is allowed"));
    }
    let image = CodecImage::new("flow", &flow()).unwrap();
    assert_eq!(image.config::<FlowConfig>(), Ok(flow()));
    assert!(said(image.config::<PlainConfig>()).contains("the kind of a frame"));
}

#[test]
fn codec_images() {
    let tensor = |name: &str, element, dims: &[u32], len| NamedTensor {
        name: name.to_owned(),
        element,
        dims: dims.to_vec(),
        bytes: vec![1; len],
    };
    let mut image = CodecImage::new("flow", &flow()).unwrap();
    image.tensors = vec![
        tensor("a", ElementType::F32, &[2, 3], 24),
        tensor("b", ElementType::F16, &[3], 6),
        tensor("c", ElementType::U8, &[], 1),
        tensor("d", ElementType::U32, &[1], 4),
        tensor("e", ElementType::U16, &[2], 4),
    ];
    let bytes = image.encode().unwrap();
    assert_eq!(CodecImage::decode(&bytes), Ok(image.clone()));
    assert_eq!(image.tensor("a", ElementType::F32, &[2, 3]).unwrap().bytes.len(), 24);
    assert!(said(image.tensor("z", ElementType::F32, &[])).contains("the tensor \"z\" is missing"));
    for (element, dims) in
        [(ElementType::F16, &[2, 3][..]), (ElementType::F32, &[3, 2]), (ElementType::F32, &[6])]
    {
        assert!(said(image.tensor("a", element, dims)).contains("the tensor \"a\" is F32 [2, 3], expected"));
    }
    // Where the fields are: magic 8, version 2, the kind and its length 5, the configuration and its length.
    let config = 15 + 4 + image.config.len();
    let first = config + 4;
    let cases: [(usize, &[u8], &str); 13] = [
        (0, b"PK", "this is not a codec image"),
        (8, &[2], "a codec image was written by a newer version"),
        (10, &[33], "the name of a codec's kind is 33, at most 32 is allowed"),
        (11, &[0xff], "a codec image is malformed"),
        (18, &[1], "a codec's configuration is"),
        (config + 2, &[1], "the number of a codec's tensors is"),
        (first + 1, &[0xff], "a codec image is malformed"),
        (first + 2, &[9], "a tensor's element type has the impossible value 9"),
        (first + 3, &[5], "the axes of a tensor is 5, at most 4 is allowed"),
        (first + 4, &[0xff, 0xff, 0xff, 0xff], "the length of a tensor is"),
        (first + 4, &[3], "a codec image needs"),
        (first + 4, &[1], "bytes are left over after a codec image"),
        (first + 13, b"a", "the tensor \"a\" is there twice"),
    ];
    for (at, value, expected) in cases {
        let changed = rechecked(&bytes, |body| body[at..at + value.len()].copy_from_slice(value));
        let said = said(CodecImage::decode(&changed));
        assert!(said.contains(expected), "{at}: {said}, expected {expected}");
    }
    let mut flipped = bytes.clone();
    flipped[40] ^= 1;
    assert!(said(CodecImage::decode(&flipped)).contains("failed its checksum"));
    assert!(said(CodecImage::decode(&bytes[..12])).contains("failed its checksum"));
    assert!(said(CodecImage::decode(&bytes[..9])).contains("needs 2 bytes"));
    let with = |change: fn(&mut CodecImage)| {
        let mut changed = image.clone();
        change(&mut changed);
        said(changed.encode())
    };
    assert!(with(|image| image.kind = "k".repeat(33)).contains("the name of a codec's kind is 33"));
    assert!(with(|image| image.config = vec![0; 65_537]).contains("a codec's configuration is 65537"));
    assert!(with(|image| image.tensors[0].name = "n".repeat(256)).contains("the name of a tensor is 256"));
    assert!(with(|image| image.tensors[0].dims = vec![1; 5]).contains("the axes of a tensor is 5"));
    assert!(
        with(|image| image.tensors[0].bytes = vec![0; 23])
            .contains("the length of a tensor has the impossible value 23")
    );
    assert!(
        with(|image| image.tensors = vec![image.tensors[2].clone(); 16_385])
            .contains("the number of a codec's tensors is 16385")
    );
}
