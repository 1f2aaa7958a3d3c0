//! Packs: what a store was when one was made, found in place, and nothing wrong from a file that changed.

mod common;

use apcm::{
    Attributes, Error, Fidelity, FlowCodec, Hit, Loading, Metadata, Pack, PlainCodec, QuantizerSpec, Records,
    Scan, Similarity, Store,
};
use apcm_format::PackHeader;
use apcm_format::pack::HEADER_LEN;
use common::tamper::{SLOTS, flip, tamper};
use common::{Home, RaggedCodec, axis, images, noise, plain_store, records, vector};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A store of images with every kind of memory in it, at second 1,000; and queries near some of them.
fn filled(home: &Home) -> (Store, Records) {
    let codec = FlowCodec::pca(&images(0..1_000), QuantizerSpec::Allocated(48)).unwrap();
    let store = Store::builder()
        .capacity(400)
        .similarity(Similarity::CentredCosine)
        .clock(|| 1_000)
        .create(&home.path, codec)
        .unwrap();
    let data = images(1_000..1_360);
    let mut transaction = store.begin_write();
    let attributes = (0..360_usize).map(|row| {
        let key = (row % 3 == 0).then(|| format!("image/{row}").into_bytes());
        let values =
            Metadata::from([("row".into(), (row as i64).into()), ("even".into(), (row % 2 == 0).into())]);
        let mut attributes = if row % 4 == 3 { Attributes::default() } else { Attributes::from(values) };
        if row % 50 == 1 {
            attributes = attributes.pinned();
        }
        if row % 40 == 2 {
            attributes = attributes.expiring_in(Duration::from_secs(if row % 80 == 2 { 10 } else { 500 }));
        }
        let tier = match row % 10 {
            8 => Fidelity::Lossless,
            9 => Fidelity::Bounded(1e-3),
            _ => Fidelity::Compact,
        };
        (key, attributes.with_fidelity(tier))
    });
    transaction.write_all(&data, attributes).unwrap();
    let ids = transaction.commit().unwrap().ids;
    let mut transaction = store.begin_write();
    ids.iter().step_by(16).for_each(|&id| transaction.remove_id(id));
    transaction.commit().unwrap();
    for &id in ids.iter().skip(1).step_by(16) {
        store.get_id(id).unwrap();
        store.get_id(id).unwrap();
    }
    (store, images(1_100..1_112))
}

fn pack_of(home: &Home, store: &Store) -> PathBuf {
    let path = home.file("m.apack");
    store.export_pack(&path).run().unwrap();
    path
}

fn open(path: &Path, loading: Loading, now: u64) -> Pack {
    Pack::builder().loading(loading).clock(move || now).open(path).unwrap()
}

fn bits(hits: &[Hit]) -> Vec<(String, u32, Option<Vec<u32>>)> {
    let values = |hit: &Hit| {
        hit.record.as_ref().map(|record| record.values().iter().map(|value| value.to_bits()).collect())
    };
    hits.iter()
        .map(|hit| {
            (format!("{:?}", (hit.id, &hit.key, &hit.metadata)), hit.similarity.to_bits(), values(hit))
        })
        .collect()
}

#[test]
fn a_pack_answers_as_its_store_does_bit_for_bit() {
    let home = Home::new();
    let (store, queries) = filled(&home);
    let path = pack_of(&home, &store);
    for (loading, mapped) in [(Loading::Auto, true), (Loading::Mapped, true), (Loading::InMemory, false)] {
        let pack = open(&path, loading, 1_000);
        assert_eq!(pack.is_mapped(), mapped, "{loading:?}");
        assert_eq!(
            (pack.len(), pack.shape(), pack.capacity()),
            (store.len(), store.description().shape, 400)
        );
        for scan in [Scan::Auto, Scan::Exact, Scan::TwoStage] {
            for (floor, error, filter) in [
                (-2.0, f32::INFINITY, None),
                (0.3, f32::INFINITY, Some("even = true")),
                (-1.0, 0.01, Some("row < 200")),
            ] {
                let run = |search: apcm::Search<'_>| {
                    let search = search.k(7).min_similarity(floor).max_error(error).scan(scan).with_records();
                    match filter {
                        Some(filter) => search.filter(filter).unwrap().run_all().unwrap(),
                        None => search.run_all().unwrap(),
                    }
                };
                let (ours, theirs) = (run(pack.search_many(&queries)), run(store.search_many(&queries)));
                assert!(ours.iter().any(|hits| !hits.is_empty()));
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    assert!(bits(ours) == bits(theirs), "{scan:?} {floor} {error} {filter:?}");
                }
            }
        }
        let (entries, stored) = (pack.iter().map(Result::unwrap), store.iter().unwrap().map(Result::unwrap));
        let mut seen = 0;
        for (entry, stored) in entries.zip(stored) {
            assert_eq!((entry.id(), entry.key(), entry.count()), (stored.id(), stored.key(), stored.count()));
            assert_eq!((entry.metadata(), entry.is_pinned()), (stored.metadata(), stored.is_pinned()));
            assert!(entry.record().unwrap() == stored.record().unwrap() && entry.error() == stored.error());
            let by_id = pack.get_id(entry.id()).unwrap();
            assert!(by_id.record == stored.record().unwrap());
            if let Some(key) = entry.key() {
                assert_eq!(pack.get(key).unwrap().unwrap().id, entry.id());
            }
            seen += 1;
        }
        assert_eq!(seen, store.len());
        for key in [&b"image/0"[..], b"image/1", b"", b"zzz"] {
            assert!(pack.get(key).unwrap().is_none(), "removed, without a key, or never there");
        }
        let stranger = apcm::MemoryId { seq: 9_999, ..pack.iter().next().unwrap().unwrap().id() };
        assert!(matches!(pack.get_id(stranger), Err(Error::NotFound { .. })));
        let nearest = pack.read(&queries.get(0)).unwrap().unwrap();
        assert!(nearest.record == store.peek(&queries.get(0)).unwrap().unwrap().record);
        let report = pack.verify().unwrap();
        assert_eq!(report.memories, store.len() as u64);
    }
}

#[test]
fn what_expires_is_not_found_in_a_pack_either() {
    let home = Home::new();
    let (store, queries) = filled(&home);
    let path = pack_of(&home, &store);
    let (before, after) = (open(&path, Loading::Auto, 1_000), open(&path, Loading::Auto, 1_100));
    assert!(before.get(b"image/42").unwrap().is_some() && before.get(b"image/162").unwrap().is_some());
    let ends = |pack: &Pack| pack.iter().count();
    assert!(ends(&after) < ends(&before) && ends(&after) < after.len());
    let all = |pack: &Pack| pack.search(&queries.get(0)).k(1_000).run().unwrap().len();
    assert_eq!((all(&before), all(&after)), (ends(&before), ends(&after)));
    let gone = before
        .iter()
        .map(Result::unwrap)
        .find(|entry| matches!(after.get_id(entry.id()), Err(Error::NotFound { .. })));
    assert!(gone.is_some());
}

#[test]
fn an_unpacked_store_is_the_store_that_was() {
    let home = Home::new();
    let (store, _) = filled(&home);
    let pack = open(&pack_of(&home, &store), Loading::Auto, 1_000);
    let path = home.file("unpacked.apcm");
    let mut told = Vec::new();
    let unpacked = Store::builder()
        .clock(|| 1_000)
        .unpack(&pack, &path)
        .progress(|progress| {
            told.push((progress.done, progress.total));
            ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    assert_eq!(told.last(), Some(&(store.len() as u64, store.len() as u64)));
    assert_eq!(unpacked.description(), store.description());
    assert_eq!(unpacked.fingerprint(), store.fingerprint());
    let all = |store: &Store| {
        let entries = store.iter().unwrap().map(Result::unwrap);
        entries
            .map(|e| {
                let said =
                    (e.id(), e.key().map(<[u8]>::to_vec), e.metadata().clone(), e.count(), e.is_pinned());
                let kept = (
                    e.written_at(),
                    e.expires_at(),
                    e.error().to_bits(),
                    e.norm().to_bits(),
                    e.residual_len(),
                );
                (said, kept, e.record().unwrap())
            })
            .collect::<Vec<_>>()
    };
    assert!(all(&unpacked) == all(&store));
    // The next number is the one that the store would give.
    let record = images(5_000..5_001).get(0);
    assert_eq!(unpacked.insert(&record).unwrap().id.seq, store.insert(&record).unwrap().id.seq);
    unpacked.close().unwrap();
    assert!(Store::verify(&path).run().unwrap().ok);
    let again = Store::builder().unpack(&pack, &path).run();
    assert!(matches!(again, Err(Error::Exists { .. })));
    let other = home.file("stopped.apcm");
    let stopped = Store::builder().unpack(&pack, &other).progress(|_| ControlFlow::Break(())).run();
    assert!(matches!(stopped, Err(Error::Cancelled)) && !other.exists());
    let left: Vec<_> =
        std::fs::read_dir(home.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".apcm-new")), "{left:?}");
}

#[test]
fn a_pack_is_imported_as_it_is_under_its_codec_and_encoded_again_under_another() {
    let home = Home::new();
    let (store, _) = filled(&home);
    let pack = open(&pack_of(&home, &store), Loading::Auto, 1_000);
    // The same codec, fewer slots, and a key that is there already.
    let codec = FlowCodec::pca(&images(0..1_000), QuantizerSpec::Allocated(48)).unwrap();
    let same = Store::builder().capacity(300).clock(|| 1_000).create(home.file("same.apcm"), codec).unwrap();
    let here = same.put(b"image/3", &images(0..1).get(0), Attributes::default()).unwrap();
    let report = same.import(&pack).run().unwrap();
    assert_eq!((report.memories, report.error_added, report.encoded_again), (pack.len() as u64, 0.0, false));
    assert!(report.evicted > 0 && same.len() == 300);
    assert!(matches!(same.get_id(here.id), Err(Error::NotFound { .. })));
    let mut compared = 0;
    for entry in same.iter().unwrap().map(Result::unwrap) {
        let Some(key) = entry.key() else { continue };
        let from = store.peek_key(key).unwrap().unwrap();
        assert!(entry.record().unwrap() == from.record && entry.error().to_bits() == from.error.to_bits());
        assert!(entry.count() == 0 && *entry.metadata() == from.metadata);
        let packed = pack.iter().map(Result::unwrap).find(|packed| packed.key() == Some(key)).unwrap();
        assert_eq!((entry.is_pinned(), entry.expires_at()), (packed.is_pinned(), packed.expires_at()));
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
    // Another codec.
    let codec = FlowCodec::pca(&images(0..1_000), QuantizerSpec::Allocated(24)).unwrap();
    let other =
        Store::builder().capacity(500).clock(|| 1_000).create(home.file("other.apcm"), codec).unwrap();
    let report = other.import(&pack).run().unwrap();
    assert!(report.encoded_again && report.error_added > 0.0 && report.evicted == 0);
    for entry in other.iter().unwrap().map(Result::unwrap) {
        let Some(key) = entry.key() else { continue };
        let from = store.peek_key(key).unwrap().unwrap();
        let row: usize = std::str::from_utf8(key).unwrap()[6..].parse().unwrap();
        let original = images(1_000 + row as u64..1_001 + row as u64);
        let now = entry.record().unwrap();
        let difference = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let error = original.row(0).iter().zip(now.values()).map(difference).sum::<f64>() / 784.0;
        assert!(error <= f64::from(entry.error()) * 1.0001, "{row}: {error} beyond {}", entry.error());
        if from.error == 0.0 {
            assert_eq!(entry.error(), 0.0, "lossless stays lossless");
        }
    }
    let stranger = plain_store(&Home::new(), 10, 5);
    assert!(matches!(stranger.import(&pack).run(), Err(Error::RecordShape { .. })));
}

#[test]
fn a_file_that_is_there_stays_and_a_stopped_export_leaves_nothing() {
    let home = Home::new();
    let store = plain_store(&home, 8, 4);
    let empty = pack_of(&home, &store);
    let pack = Pack::open(&empty).unwrap();
    assert!(pack.is_empty() && pack.verify().unwrap().memories == 0);
    assert!(pack.search(&axis(0, 4)).run().unwrap().is_empty() && pack.read(&axis(0, 4)).unwrap().is_none());
    assert!(std::fs::metadata(&empty).unwrap().permissions().readonly());
    store.insert(&axis(1, 4)).unwrap();
    assert!(matches!(store.export_pack(&empty).run(), Err(Error::Exists { .. })));
    let other = home.file("other.apack");
    let stopped = store.export_pack(&other).progress(|_| ControlFlow::Break(())).run();
    assert!(matches!(stopped, Err(Error::Cancelled)) && !other.exists());
    // A file that may be written to is not mapped unless that is asked for.
    std::fs::copy(&empty, &other).unwrap();
    let mut permissions = std::fs::metadata(&other).unwrap().permissions();
    #[expect(
        clippy::permissions_set_readonly_false,
        reason = "a file that everybody may write to is the point"
    )]
    permissions.set_readonly(false);
    std::fs::set_permissions(&other, permissions).unwrap();
    assert!(!Pack::open(&other).unwrap().is_mapped() && Pack::open(&empty).unwrap().is_mapped());
    // Bad questions.
    let pack = Pack::open(&other).unwrap();
    assert!(matches!(pack.search(&axis(0, 4)).k(0).run(), Err(Error::Argument { .. })));
    assert!(matches!(pack.search(&axis(0, 5)).run(), Err(Error::RecordShape { .. })));
    for stranger in [&home.path, &home.folder.path().to_owned()] {
        assert!(matches!(Pack::open(stranger), Err(Error::NotAPack { .. })), "{}", stranger.display());
    }
    assert!(matches!(Pack::open(home.file("missing")), Err(Error::Io { .. })));
    assert!(matches!(Store::open(&other), Err(Error::NotAStore { .. })));
}

#[test]
fn a_codec_of_the_users_own_opens_its_pack() {
    let home = Home::new();
    let codec = RaggedCodec::new(6);
    let store = Store::builder().capacity(40).create(&home.path, codec.clone()).unwrap();
    store.begin_write().commit().unwrap();
    for row in 0..30 {
        store.insert(&vector(&noise(6, row))).unwrap();
    }
    let path = pack_of(&home, &store);
    assert!(matches!(Pack::open(&path), Err(Error::UnknownCodec { .. })));
    let pack = Pack::builder().open_with_codec(&path, codec).unwrap();
    let query = vector(&noise(6, 7));
    assert!(pack.read(&query).unwrap().unwrap().record == query);
    let other = Pack::builder().open_with_codec(&path, PlainCodec::new(&[6], 6).unwrap());
    assert!(matches!(other, Err(Error::CodecMismatch { .. })));
}

/// A small pack of several blocks: what everything in it gives.
struct Whole {
    bytes: Vec<u8>,
    answers: Vec<String>,
    queries: Records,
}

fn whole(home: &Home) -> Whole {
    let dims = 40;
    let store = plain_store(home, 500, dims);
    let mut transaction = store.begin_write();
    let data = records(&[dims], noise(420 * dims, 5));
    let attributes = (0..420_usize).map(|row| {
        let values = Metadata::from([("row".into(), (row as i64).into())]);
        let tier = if row % 7 == 0 { Fidelity::Lossless } else { Fidelity::Compact };
        (Some(format!("k{row}").into_bytes()), Attributes::from(values).with_fidelity(tier))
    });
    transaction.write_all(&data, attributes).unwrap();
    transaction.commit().unwrap();
    let bytes = std::fs::read(pack_of(home, &store)).unwrap();
    let queries = records(&[dims], noise(4 * dims, 5));
    let mut whole = Whole { bytes, answers: Vec::new(), queries };
    whole.answers = whole.ask(&home.file("m.apack")).into_iter().map(Result::unwrap).collect();
    whole
}

impl Whole {
    /// Everything that can be asked of a pack, each answer or error on its own.
    fn ask(&self, path: &Path) -> Vec<apcm::Result<String>> {
        let pack = match Pack::builder().loading(Loading::InMemory).clock(|| 1_000).open(path) {
            Ok(pack) => pack,
            Err(error) => return vec![Err(error)],
        };
        let mut answers = Vec::new();
        for scan in [Scan::Exact, Scan::TwoStage] {
            let hits = pack.search_many(&self.queries).scan(scan).with_records().run_all();
            answers.push(hits.map(|hits| hits.iter().map(|hits| format!("{:?}", bits(hits))).collect()));
        }
        let filtered = pack.search(&self.queries.get(1)).filter("row >= 100").unwrap().run();
        answers.push(filtered.map(|hits| format!("{:?}", bits(&hits))));
        for key in ["k0", "k77", "k419", "k5000"] {
            answers.push(pack.get(key.as_bytes()).map(|memory| format!("{memory:?}")));
        }
        answers.push(pack.iter().map(|entry| Ok(format!("{:?}", entry?.record()?))).collect());
        answers.push(pack.verify().map(|report| format!("{report:?}")));
        answers
    }
}

#[test]
fn no_flipped_bit_gives_a_wrong_answer_and_none_passes_a_verification() {
    let home = Home::new();
    let whole = whole(&home);
    let path = home.file("flipped.apack");
    // Every byte of the header, some of each of the rest; in the deep tier all of them.
    let stride = if std::env::var_os("APCM_DEEP").is_some() { 1 } else { 97 };
    let places = (0..HEADER_LEN).chain((HEADER_LEN..whole.bytes.len()).step_by(stride));
    let (mut refused, mut noticed) = (0, 0);
    for at in places {
        let mut bytes = whole.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let answers = whole.ask(&path);
        if let [Err(error)] = answers.as_slice() {
            assert!(
                matches!(
                    error,
                    Error::NotAPack { .. } | Error::Corrupt { .. } | Error::TooNew { .. } | Error::Format(_)
                ),
                "{at}: {error:?}"
            );
            refused += 1;
            continue;
        }
        assert!(answers.last().unwrap().is_err(), "{at}: a verification passes");
        for (answer, truth) in answers.iter().zip(&whole.answers) {
            match answer {
                Ok(answer) => assert!(answer == truth, "{at}: a wrong answer"),
                Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{at}: {error:?}"),
            }
        }
        noticed += 1;
    }
    assert!(refused >= HEADER_LEN && noticed > 100, "{refused} refused, {noticed} noticed");
}

#[test]
fn a_pack_cut_short_or_longer_is_refused() {
    let home = Home::new();
    let whole = whole(&home);
    let path = home.file("cut.apack");
    let len = whole.bytes.len();
    for cut in [0, 1, 8, HEADER_LEN - 1, HEADER_LEN, 4_096, 70_000, len - 1] {
        std::fs::write(&path, &whole.bytes[..cut]).unwrap();
        let error = Pack::open(&path).unwrap_err();
        assert!(matches!(error, Error::NotAPack { .. }), "{cut}: {error:?}");
    }
    std::fs::write(&path, [whole.bytes.as_slice(), &[0]].concat()).unwrap();
    let error = Pack::open(&path).unwrap_err().to_string();
    assert!(error.contains(&(len + 1).to_string()) && error.contains(&len.to_string()), "{error}");
}

/// Makes all checksums right again, so that what is behind them is reached.
fn sum_again(bytes: &mut [u8], header: &PackHeader) {
    let layout = header.layout().unwrap();
    let mut sums = Vec::new();
    for number in 0..layout.block_count() {
        let block = layout.block(number);
        let block = &bytes[block.start as usize..block.end as usize];
        sums.extend_from_slice(&header.block_place(number).crc(&[block]).to_le_bytes());
    }
    bytes[layout.blocks.start as usize..].copy_from_slice(&sums);
    let header = PackHeader { blocks_crc: header.blocks_place().crc(&[&sums]), ..header.clone() };
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
}

#[test]
fn a_pack_that_lies_under_right_checksums_is_found_out() {
    let home = Home::new();
    let whole = whole(&home);
    let path = home.file("lie.apack");
    let header = PackHeader::decode(&whole.bytes[..HEADER_LEN]).unwrap();
    let layout = header.layout().unwrap();
    let lie = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.bytes.clone();
        change(&mut bytes);
        sum_again(&mut bytes, &header);
        std::fs::write(&path, &bytes).unwrap();
        whole.ask(&path)
    };
    let (rows, keys) = (layout.rows.start as usize, layout.keys.start as usize);
    assert!(lie(&|_| ()).iter().all(Result::is_ok), "nothing changed, nothing found");
    type Lie<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));
    let lies: [Lie<'_>; 7] = [
        ("a row beyond the memories", &|bytes| bytes[rows + 7] = 0x7f),
        ("a row of another length", &|bytes| bytes[rows + 20..rows + 24].fill(0xff)),
        ("a row of another slot", &|bytes| bytes[rows + 16] ^= 1),
        ("a row with another number", &|bytes| bytes[rows + 8] ^= 1),
        ("a row with another error", &|bytes| bytes[rows + 14] ^= 1),
        ("a key beyond the rows", &|bytes| bytes[keys..keys + 4].fill(0xff)),
        ("keys in another order", &|bytes| bytes.copy_within(keys + 4..keys + 8, keys)),
    ];
    for (what, change) in lies {
        let answers = lie(change);
        assert!(answers.last().unwrap().is_err(), "{what}: a verification passes");
        for answer in &answers {
            if let Err(error) = answer {
                assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
            }
        }
    }
    // More memories than there are bytes for, under a right header.
    for (memories, codec_len) in [(500, header.codec_len), (header.memories, 1 << 31), (header.memories, 1)] {
        let mut bytes = whole.bytes.clone();
        let forged = PackHeader { memories, codec_len, ..header.clone() };
        bytes[..HEADER_LEN].copy_from_slice(&forged.encode());
        std::fs::write(&path, &bytes).unwrap();
        let error = Pack::open(&path).unwrap_err();
        assert!(matches!(error, Error::NotAPack { .. } | Error::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn damage_is_met_where_it_is_read_and_nowhere_else() {
    let home = Home::new();
    let whole = whole(&home);
    let header = PackHeader::decode(&whole.bytes[..HEADER_LEN]).unwrap();
    let layout = header.layout().unwrap();
    let path = home.file("damaged.apack");
    let mut bytes = whole.bytes.clone();
    // The last memory's bytes, in a block that holds neither rows nor search vectors.
    let at = layout.memories.end - 40;
    let block = layout.blocks_of(at..at + 1).start;
    assert!(block > layout.blocks_of(layout.vectors.clone()).end, "the pack is too small for this test");
    bytes[at as usize] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let pack = Pack::open(&path).unwrap();
    let first = pack.iter().next().unwrap().unwrap();
    assert!(pack.get_id(first.id()).is_ok());
    let hits = pack.search(&whole.queries.get(0)).k(1).run().unwrap();
    assert_eq!(hits[0].key.as_deref(), Some(&b"k0"[..]));
    let error = pack.iter().find_map(Result::err).unwrap();
    assert!(error.to_string().contains(&format!("block {block} of the pack")), "{error}");
    assert!(matches!(pack.verify(), Err(Error::Corrupt { .. })));
}

#[test]
fn many_threads_look_at_the_same_blocks_for_the_first_time() {
    let home = Home::new();
    let whole = whole(&home);
    let pack = Pack::open(home.file("m.apack")).unwrap();
    assert!(pack.is_mapped());
    let expected = bits(&pack.search(&whole.queries.get(2)).run().unwrap());
    let pack = Pack::open(home.file("m.apack")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(bits(&pack.search(&whole.queries.get(2)).run().unwrap()) == expected));
        }
    });
}

#[test]
fn an_expiry_is_a_time_and_what_has_expired_is_not_imported() {
    let home = Home::new();
    let (store, _) = filled(&home);
    let pack = open(&pack_of(&home, &store), Loading::Auto, 1_000);
    let codec = FlowCodec::pca(&images(0..1_000), QuantizerSpec::Allocated(48)).unwrap();
    let later =
        Store::builder().capacity(400).clock(|| 1_100).create(home.file("later.apcm"), codec).unwrap();
    let report = later.import(&pack).run().unwrap();
    let gone = pack.iter().filter(|entry| entry.as_ref().unwrap().expires_at() == Some(1_010)).count();
    assert!(gone > 0);
    assert_eq!(report.memories as usize, pack.len() - gone);
    let times: Vec<u32> = later.iter().unwrap().filter_map(|entry| entry.unwrap().expires_at()).collect();
    assert!(!times.is_empty() && times.iter().all(|&at| at == 1_500), "{times:?}");
}

#[test]
fn what_cannot_be_unpacked_leaves_nothing() {
    let home = Home::new();
    let (store, _) = filled(&home);
    let pack = open(&pack_of(&home, &store), Loading::Auto, 1_000);
    let path = home.file("new.apcm");
    let unpack = |builder: apcm::StoreBuilder| {
        let result = builder.clock(|| 1_000).unpack(&pack, &path).run();
        let left: Vec<_> =
            std::fs::read_dir(home.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        let hidden = left.iter().any(|name| name.to_string_lossy().starts_with(".apcm-new"));
        assert!(!hidden && (result.is_ok() || !path.exists()), "{left:?}");
        result
    };
    let budget = store.stats().unwrap().stored_bytes;
    let error = unpack(Store::builder().byte_budget(budget - 1)).unwrap_err();
    assert!(matches!(error, Error::OverBudget { .. }), "{error:?}");
    assert!(matches!(unpack(Store::builder().memory_limit(1_000)), Err(Error::MemoryLimit { .. })));
    let whole = unpack(Store::builder().byte_budget(budget)).unwrap();
    assert_eq!((whole.len(), whole.stats().unwrap().byte_budget), (store.len(), Some(budget)));
    assert_eq!(whole.stats().unwrap().residuals, store.stats().unwrap().residuals);
    let limited = Pack::builder().loading(Loading::InMemory).memory_limit(1_000).open(home.file("m.apack"));
    assert!(matches!(limited, Err(Error::MemoryLimit { limit: 1_000, .. })));
}

#[test]
fn a_damaged_store_is_not_packed_and_a_store_in_use_is() {
    let home = Home::new();
    let store = plain_store(&home, 300, 4);
    for row in 0..100 {
        store.put(format!("k{row}").as_bytes(), &axis(row, 4), Attributes::default()).unwrap();
    }
    // Others write while a pack is made: it is of one moment.
    let path = home.file("busy.apack");
    let mut written = 0;
    let made = store
        .export_pack(&path)
        .progress(|_| {
            store.put(format!("late{written}").as_bytes(), &axis(written, 4), Attributes::default()).unwrap();
            store.remove(b"k5").unwrap();
            written += 1;
            ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    assert!(made.memories == 100 && written > 0);
    let pack = Pack::open(&path).unwrap();
    assert!(pack.verify().unwrap().keys == 100 && pack.get(b"k5").unwrap().is_some());
    assert!(pack.get(b"late0").unwrap().is_none());
    store.close().unwrap();
    tamper(&home, |transaction, _| flip(transaction, SLOTS, 7));
    let other = home.file("other.apack");
    let error = Store::open(&home.path).unwrap().export_pack(&other).run().unwrap_err();
    assert!(error.to_string().contains("slot 7") && !other.exists(), "{error}");
}

#[test]
fn sequence_numbers_that_no_store_could_go_on_from_are_refused() {
    let home = Home::new();
    let whole = whole(&home);
    let header = PackHeader::decode(&whole.bytes[..HEADER_LEN]).unwrap();
    let path = home.file("late.apack");
    let mut refused = 0;
    for last_seq in [(1 << 48) - 2, (1 << 48) - 1, u64::MAX, 3] {
        let mut bytes = whole.bytes.clone();
        bytes[..HEADER_LEN].copy_from_slice(&PackHeader { last_seq, ..header.clone() }.encode());
        std::fs::write(&path, &bytes).unwrap();
        match Pack::open(&path) {
            Err(Error::Corrupt { .. }) => refused += 1,
            // Lower than those of its memories.
            Ok(pack) if last_seq == 3 => assert!(pack.verify().is_err()),
            other => assert!(last_seq == (1 << 48) - 2 && other.is_ok(), "{last_seq}: {other:?}"),
        }
    }
    assert_eq!(refused, 2);
    // The last numbers are given, and then no more; the store stays what it is.
    let mut bytes = whole.bytes.clone();
    let last = PackHeader { last_seq: (1 << 48) - 2, ..header.clone() };
    bytes[..HEADER_LEN].copy_from_slice(&last.encode());
    std::fs::write(&path, &bytes).unwrap();
    let (pack, unpacked) = (Pack::open(&path).unwrap(), home.file("last.apcm"));
    let store = Store::builder().unpack(&pack, &unpacked).run().unwrap();
    let record = whole.queries.get(0);
    assert_eq!(store.insert(&record).unwrap().id.seq, (1 << 48) - 1);
    store.close().unwrap();
    let store = Store::open(&unpacked).unwrap();
    assert!(matches!(store.insert(&record), Err(Error::Format(_))));
    assert_eq!((store.len(), store.read(&record).unwrap().is_some()), (421, true));
    store.close().unwrap();
    assert!(Store::verify(&unpacked).run().unwrap().ok);
}
