//! Datasets into stores: every kind of file, keys and metadata, resuming, bounded batches.

mod common;

use apcm::ingest::{Dataset, Ingest, Keys, npy};
use apcm::{Error, Store, Value};
use common::{Home, noise, plain_store};
use std::io::Write;
use std::ops::ControlFlow;

fn npy_file(path: &std::path::Path, descr: &str, shape: &str, data: &[u8]) {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn arrays_of_every_element_type_give_the_same_records() {
    let home = Home::new();
    let values = [0.0_f32, 0.25, 0.5, 0.75, 1.0, 0.2];
    let path = home.file("a.npy");
    let half = |value: f32| half::f16::from_f32(value).to_le_bytes();
    let files: [(&str, Vec<u8>); 4] = [
        ("<f2", values.iter().flat_map(|&value| half(value)).collect()),
        ("<f4", values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ("<f8", values.iter().flat_map(|&value| f64::from(value).to_le_bytes()).collect()),
        ("|u1", values.iter().map(|value| (value * 255.0).round() as u8).collect()),
    ];
    for (descr, data) in files {
        npy_file(&path, descr, "(3, 2)", &data);
        let dataset = Dataset::open(&path).unwrap();
        assert_eq!((dataset.len(), dataset.shape().dims()), (3, vec![2]));
        let found = dataset.load().unwrap();
        assert!(found.values().iter().zip(values).all(|(a, b)| (a - b).abs() < 3e-3), "{descr}");
    }
}

#[test]
fn shapes_of_one_to_three_dimensions_and_a_single_record() {
    let home = Home::new();
    let path = home.file("a.npy");
    for (dims, count, shape) in [
        (&[6][..], 1, vec![6]),
        (&[3, 2], 3, vec![2]),
        (&[1, 3, 2], 1, vec![3, 2]),
        (&[1, 1, 3, 2], 1, vec![1, 3, 2]),
    ] {
        npy::write(&path, dims, &noise(6, 1)).unwrap();
        let dataset = Dataset::open(&path).unwrap();
        assert_eq!((dataset.len(), dataset.shape().dims()), (count, shape));
    }
    // What `get` writes is one record to a store that holds that shape.
    npy::write(&path, &[3, 2], &noise(6, 1)).unwrap();
    let shape = apcm::RecordShape::new(&[3, 2]).unwrap();
    assert_eq!(Dataset::open_as(&path, shape).unwrap().len(), 1);
    let other = apcm::RecordShape::new(&[5]).unwrap();
    assert!(matches!(Dataset::open_as(&path, other), Err(Error::RecordShape { .. })));
}

#[test]
fn idx_packed_or_not_gives_records_with_their_positions() {
    let home = Home::new();
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 2];
    bytes.extend(0..16_u8);
    std::fs::write(home.file("a.idx"), &bytes).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&bytes).unwrap();
    std::fs::write(home.file("a.idx.gz"), packed.finish().unwrap()).unwrap();
    for name in ["a.idx", "a.idx.gz"] {
        let dataset = Dataset::open(home.file(name)).unwrap();
        assert_eq!((dataset.len(), dataset.shape().dims()), (4, vec![2, 2]));
        let found: Vec<(u64, f32)> = dataset
            .read_from(1)
            .unwrap()
            .map(|record| record.map(|(at, record)| (at, record.values()[0] * 255.0)).unwrap())
            .collect();
        assert_eq!(found, [(1, 4.0), (2, 8.0), (3, 12.0)]);
        assert!(matches!(dataset.read_from(5), Err(Error::Argument { .. })));
    }
}

/// A dataset of `count` records of four values, and the JSONL file beside it.
fn dataset(home: &Home, count: usize) -> Dataset {
    let path = home.file("data.npy");
    npy::write(&path, &[count, 4], &noise(count * 4, 9)).unwrap();
    let lines: String = (0..count).map(|i| format!("{{\"name\": \"n{i}\", \"row\": {i}}}\n")).collect();
    std::fs::write(home.file("data.jsonl"), lines).unwrap();
    Dataset::open(path).unwrap()
}

#[test]
fn keys_come_from_rows_or_from_fields_and_fields_become_metadata() {
    let home = Home::new();
    let data = dataset(&home, 50);
    let store = plain_store(&home, 100, 4);
    let report = Ingest::new(&store, &data).keys(Keys::Row).batch(7).run().unwrap();
    assert_eq!((report.first, report.ingested, report.evicted), (0, 50, 0));
    let expected = data.load().unwrap();
    for row in 0..50 {
        let memory = store.peek_key(row.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(memory.record.values(), expected.row(row));
    }
    // Again, with the names: the file beside the data is found by itself.
    Ingest::new(&store, &data).keys(Keys::Field("name".into())).run().unwrap();
    let memory = store.peek_key(b"n31").unwrap().unwrap();
    assert_eq!((memory.record.values(), &memory.metadata["row"]), (expected.row(31), &Value::Int(31)));
    // Once more: the same keys, the same slots.
    Ingest::new(&store, &data).keys(Keys::Row).metadata_from(home.file("data.jsonl")).run().unwrap();
    assert_eq!((store.len(), store.stats().unwrap().evictions), (100, 0));
    assert_eq!(store.peek_key(b"7").unwrap().unwrap().metadata["name"], "n7".into());
}

#[test]
fn an_interrupted_ingest_resumes_without_a_gap_or_a_double() {
    let home = Home::new();
    let data = dataset(&home, 40);
    let mut store = plain_store(&home, 100, 4);
    let mut runs = 0;
    loop {
        // Each run is stopped after its first batch, as a kill would, and the store is opened anew.
        let result = Ingest::new(&store, &data)
            .batch(11)
            .resume(true)
            .metadata_from(home.file("data.jsonl"))
            .progress(
                |progress| {
                    if progress.done < 40 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                },
            )
            .run();
        runs += 1;
        store.close().unwrap();
        store = Store::open(&home.path).unwrap();
        match result {
            Err(Error::Cancelled) => assert_eq!(store.len(), runs * 11),
            Ok(report) => break assert_eq!((report.first, report.ingested), (33, 7)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(runs, 4);
    let rows: Vec<Value> =
        store.iter().unwrap().map(|entry| entry.unwrap().metadata()["row"].clone()).collect();
    assert_eq!(rows, (0..40).map(Value::Int).collect::<Vec<_>>());
    // Nothing is left to do; from the beginning is from the beginning; another file of that name is another
    // file.
    assert_eq!(Ingest::new(&store, &data).resume(true).run().unwrap().ingested, 0);
    assert_eq!(Ingest::new(&store, &data).run().unwrap().ingested, 40);
    let other = dataset(&home, 41);
    let error = Ingest::new(&store, &other).resume(true).run().unwrap_err();
    assert!(error.to_string().contains("41 records"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_and_batches_before_it_stay() {
    let home = Home::new();
    let data = dataset(&home, 20);
    let store = plain_store(&home, 100, 4);
    std::fs::write(home.file("short.jsonl"), "{\"name\": \"a\"}\n".repeat(13)).unwrap();
    let error =
        Ingest::new(&store, &data).batch(5).metadata_from(home.file("short.jsonl")).run().unwrap_err();
    assert!(error.to_string().contains("after 13 lines"), "{error}");
    assert_eq!(store.len(), 10);
    for (line, part) in
        [("[1]", "line 1: a JSON object"), ("{\"name\": 1.5}", "field \"name\" of record 0"), ("{", "line 1")]
    {
        std::fs::write(home.file("bad.jsonl"), format!("{line}\n").repeat(20)).unwrap();
        let ingest = Ingest::new(&store, &data).metadata_from(home.file("bad.jsonl"));
        let error = ingest.keys(Keys::Field("name".into())).run().unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    std::fs::remove_file(home.file("data.jsonl")).unwrap();
    let error = Ingest::new(&store, &data).keys(Keys::Field("name".into())).run().unwrap_err();
    assert!(error.to_string().contains("JSONL file of the same name"), "{error}");
    assert!(matches!(Ingest::new(&store, &data).batch(0).run(), Err(Error::Argument { .. })));
}

/// A position is bound to what was ingested, not to a name, a count and a length.
#[test]
fn another_dataset_of_the_same_name_and_size_is_not_taken_for_ingested() {
    let home = Home::new();
    let data = dataset(&home, 40);
    let store = plain_store(&home, 100, 4);
    Ingest::new(&store, &data).run().unwrap();
    let folder = home.file("other");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("data.npy");
    let mut values = noise(160, 9);
    values[70] += 0.5;
    npy::write(&path, &[40, 4], &values).unwrap();
    let other = Dataset::open(&path).unwrap();
    assert_eq!((other.len(), other.file_len()), (data.len(), data.file_len()));
    let error = Ingest::new(&store, &other).resume(true).run().unwrap_err();
    assert!(matches!(&error, Error::Argument { .. }) && error.to_string().contains("40 records"), "{error}");
    assert_eq!(store.len(), 40, "nothing was put in");
    // The same contents elsewhere are the same dataset.
    npy::write(&path, &[40, 4], &noise(160, 9)).unwrap();
    let moved = Dataset::open(&path).unwrap();
    assert_eq!(Ingest::new(&store, &moved).resume(true).run().unwrap().ingested, 0);
    // What differs behind the position is not known yet, and goes in.
    let stop = |_: &apcm::Progress<'_>| ControlFlow::Break(());
    let stopped = Ingest::new(&store, &data).batch(10).progress(stop).run();
    assert!(matches!(stopped, Err(Error::Cancelled)));
    npy::write(&path, &[40, 4], &values).unwrap();
    let report = Ingest::new(&store, &Dataset::open(&path).unwrap()).batch(10).resume(true).run().unwrap();
    assert_eq!((report.first, report.ingested), (10, 30));
    // Other lines of metadata are another dataset too.
    let lines =
        |shift: usize| -> String { (0..40).map(|i| format!("{{\"row\": {}}}\n", i + shift)).collect() };
    std::fs::write(home.file("lines.jsonl"), lines(0)).unwrap();
    let with_lines = |resume| {
        Ingest::new(&store, &data).metadata_from(home.file("lines.jsonl")).batch(10).resume(resume).run()
    };
    with_lines(false).unwrap();
    assert_eq!(with_lines(true).unwrap().ingested, 0);
    std::fs::write(home.file("lines.jsonl"), lines(1)).unwrap();
    let error = with_lines(true).unwrap_err();
    assert!(error.to_string().contains("lines of metadata"), "{error}");
}

/// A whole number keeps all of its digits, or is refused.
#[test]
fn whole_numbers_that_do_not_fit_are_refused() {
    let home = Home::new();
    let data = dataset(&home, 3);
    let store = plain_store(&home, 10, 4);
    let ingest = |number: &str| {
        let line =
            format!("{{\"nested\": [{{\"n\": {number}}}], \"text\": \"99999999999999999999 \\\" 1\"}}\n");
        std::fs::write(home.file("data.jsonl"), line.repeat(3)).unwrap();
        Ingest::new(&store, &data).metadata_from(home.file("data.jsonl")).run()
    };
    for number in ["9223372036854775807", "-9223372036854775808", "0", "-1", "1e300", "9223372036854775808.0"]
    {
        ingest(number).unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    for number in
        ["9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809"]
    {
        let error = ingest(number).unwrap_err().to_string();
        assert!(error.contains(number) && error.contains("9223372036854775807"), "{number}: {error}");
    }
    let value = |text: &str| serde_json::from_str::<Value>(text);
    assert_eq!(value("9223372036854775807").unwrap(), Value::Int(i64::MAX));
    assert!(value("9223372036854775808").is_err());
    assert_eq!(
        value("[null, true, -2, 0.5, \"a\", {\"b\": []}]").unwrap(),
        Value::List(vec![
            Value::Null,
            Value::Bool(true),
            Value::Int(-2),
            Value::Float(0.5),
            Value::Text("a".to_owned()),
            Value::Map([("b".to_owned(), Value::List(Vec::new()))].into()),
        ])
    );
}
