//! The tree and its frontier together, on sequences small enough for a debug build.

use super::*;
use crate::record::{Record, Records};
use crate::{Device, Error};
use apcm_format::{CodecImage, RecordShape};

/// Noise that is the same everywhere, in -1 .. 1.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn error_of(exact: &Records, decoded: &Records) -> f64 {
    crate::codec::error_and_norm(exact.values(), decoded.values()).0
}

/// Items of six values, of which a few say most.
fn items(count: usize, seed: u64) -> Records {
    let mut values = noise(count * 6, seed);
    for item in values.chunks_exact_mut(6) {
        item.iter_mut().zip([3.0, 2.0, 1.0, 0.3, 0.2, 0.1]).for_each(|(value, scale)| *value *= scale);
    }
    Records::from_values(RecordShape::new(&[6]).unwrap(), values).unwrap()
}

fn tree(state: usize) -> SweeperTree {
    let lengths = [16; 40];
    SweeperTree::trainer(&items(640, 1), &lengths).state(state).untrained().train().unwrap().tree
}

#[test]
fn a_state_as_long_as_the_sequence_loses_nothing() {
    let tree = tree(96);
    let sequence = items(16, 2);
    for len in 1..=16 {
        let some = sequence.slice(0..len);
        let state = tree.encode(&some).unwrap();
        assert_eq!(state.values().len(), tree.state_len(len as u64));
        let back = tree.decode(&state).unwrap();
        for (x, y) in some.values().iter().zip(back.values()) {
            assert!((x - y).abs() < 0.01, "{len}: {x} came back as {y}");
        }
    }
}

/// Where records go with each other, one that is followed by nothing is beside what it makes one expect: it
/// comes back well. Beside the mean of all its error would be ten times as large.
#[test]
fn a_sequence_of_any_length_comes_back_well() {
    let walk = |i: usize| [(i as f32 / 9.0).sin(), (i as f32 / 9.0).cos(), (i as f32 / 23.0).sin()];
    let mut records = Records::with_dims(&[3]).unwrap();
    (0..2_048).for_each(|i| records.push_values(&walk(i)).unwrap());
    let trained = SweeperTree::trainer(&records, &[32; 64]).state(9).untrained().train().unwrap().tree;
    let error = |len: usize| {
        let some = records.slice(100..100 + len);
        error_of(&some, &trained.decode(&trained.encode(&some).unwrap()).unwrap())
    };
    // The records' variance is a half; beside the mean of all, errors here are up to 0.054.
    for len in 1..=32 {
        assert!(error(len) < 0.01, "{len}: {}", error(len));
    }
}

/// Of independent items the linear optimum is the items' own: a tree of 2 values an item is PCA with 2 values.
#[test]
fn of_independent_items_the_tree_is_pca() {
    use crate::codec::{Codec, FlowCodec, QuantizerSpec, StoredCode};
    let records = items(8_000, 3);
    let lengths = [16; 500];
    let tree = SweeperTree::trainer(&records, &lengths).state(32).untrained().train().unwrap().tree;
    let pca = FlowCodec::pca(&records, QuantizerSpec::F32(2)).unwrap();
    let fresh = items(1_600, 4);
    let (mut ours, mut theirs) = (0.0, 0.0);
    for first in (0..1_600).step_by(16) {
        let some = fresh.slice(first..first + 16);
        let back = tree.decode(&tree.encode(&some).unwrap()).unwrap();
        ours += error_of(&some, &back);
        let codes = pca.encode(&some).unwrap();
        let codes: Vec<StoredCode<'_>> =
            codes.iter().map(|code| StoredCode { bytes: &code.code, without_predictor: true }).collect();
        theirs += error_of(&some, &pca.decode(&codes).unwrap());
    }
    assert!((ours / theirs - 1.0).abs() < 0.01, "{ours} and {theirs}");
}

#[test]
fn appending_gives_what_encoding_gives() {
    let tree = tree(12);
    let sequence = items(16, 5);
    let mut frontier = Frontier::new();
    for len in 1..=16 {
        let appended = frontier.append(&tree, &sequence.get(len - 1)).unwrap();
        let rebuilt = tree.encode(&sequence.slice(0..len)).unwrap();
        assert_eq!(appended.len(), len as u64);
        for (a, b) in appended.values().iter().zip(rebuilt.values()) {
            assert!((a - b).abs() < 1e-4, "{len}: {a} and {b}");
        }
        let kept = frontier.states().map(<[f32]>::to_vec).collect::<Vec<_>>();
        assert_eq!(Frontier::from_states(frontier.len(), kept).unwrap().len(), len as u64);
    }
    let full = frontier.append(&tree, &sequence.get(0)).unwrap_err();
    assert_eq!(full.to_string(), "the length of a sequence must be at most 16 records, found 17");
    assert_eq!(frontier.len(), 16);
}

#[test]
fn one_record_is_the_same_alone_in_a_range_and_among_all() {
    let tree = tree(12);
    let sequence = items(13, 6);
    let state = tree.encode(&sequence).unwrap();
    let all = tree.decode(&state).unwrap();
    for i in 0..13_u64 {
        let alone = tree.decode_at(&state, i).unwrap();
        let range = tree.decode_range(&state, i.saturating_sub(2)..(i + 3).min(13)).unwrap();
        let at = (i - i.saturating_sub(2)) as usize;
        for (j, (x, y)) in alone.values().iter().zip(all.row(i as usize)).enumerate() {
            assert!((x - y).abs() < 1e-5 && (range.row(at)[j] - y).abs() < 1e-5, "{i}: {x} and {y}");
        }
    }
    assert!(tree.decode_range(&state, 5..5).unwrap().is_empty());
}

#[test]
fn what_cannot_be_is_an_error_with_the_numbers() {
    let tree = tree(12);
    let state = tree.encode(&items(5, 7)).unwrap();
    let said = |error: Error| error.to_string();
    assert_eq!(
        said(tree.decode_at(&state, 5).unwrap_err()),
        "the index in a sequence must be below 5, found 5"
    );
    assert!(tree.decode_range(&state, 3..6).is_err());
    assert!(tree.encode(&items(17, 8)).is_err() && tree.encode(&items(0, 8)).is_err());
    let short = SequenceState::new(5, vec![0.0; 3]);
    assert_eq!(said(tree.decode(&short).unwrap_err()), "the length of a state must be 12, found 3");
    let other = Records::with_dims(&[7]).unwrap();
    assert!(matches!(tree.encode(&other).unwrap_err(), Error::Argument { .. } | Error::RecordShape { .. }));
    let records = items(64, 9);
    let train =
        |lengths: &[usize], state| SweeperTree::trainer(&records, lengths).state(state).untrained().train();
    for (lengths, state) in [(&[32_usize, 31][..], 8), (&[64, 0], 8), (&[1; 64], 8), (&[64], 0), (&[], 8)] {
        assert!(train(lengths, state).is_err(), "{lengths:?}, {state}");
    }
    assert!(Record::vector(vec![1.0]).is_ok());
}

#[test]
fn a_tree_is_the_same_after_it_was_stored() {
    let tree = tree(12);
    let bytes = tree.image().unwrap().encode().unwrap();
    let again = SweeperTree::from_image(&CodecImage::decode(&bytes).unwrap(), Device::Cpu).unwrap();
    let sequence = items(11, 10);
    assert_eq!(tree.encode(&sequence).unwrap(), again.encode(&sequence).unwrap());
    assert_eq!((tree.capacity(), tree.parameters()), (again.capacity(), again.parameters()));
    // Levels that do not fit together are an error.
    let mut image = tree.image().unwrap();
    image.tensors.retain(|tensor| tensor.name != "level2.sweeper");
    assert!(SweeperTree::from_image(&image, Device::Cpu).is_err());
    let mut image = tree.image().unwrap();
    let first = image.tensors.iter().position(|tensor| tensor.name == "level3.sweeper").unwrap();
    let other = image.tensors.iter().position(|tensor| tensor.name == "level1.sweeper").unwrap();
    let bytes = image.tensors[other].clone();
    image.tensors[first] = apcm_format::NamedTensor { name: "level3.sweeper".to_owned(), ..bytes };
    assert!(SweeperTree::from_image(&image, Device::Cpu).is_err());
}

/// On data that is not linear a restorer is learned and stored with the tree.
#[test]
fn a_restorer_pays_on_a_curve_and_is_left_out_where_it_does_not() {
    let curve = |count: usize, seed| {
        let mut records = Records::with_dims(&[3]).unwrap();
        for x in noise(count, seed) {
            records.push_values(&[2.0 * x, x * x, 0.5 * x * x * x]).unwrap();
        }
        records
    };
    let lengths = [4; 256];
    let train = |steps| {
        let records = curve(1_024, 11);
        SweeperTree::trainer(&records, &lengths).state(4).steps(steps).train().unwrap()
    };
    let (plain, trained) = (train(0), train(400));
    assert!(plain.levels.iter().all(|level| level.stages.is_empty()));
    let fresh = curve(400, 12);
    let error = |tree: &SweeperTree| -> f64 {
        (0..100)
            .map(|i| {
                let some = fresh.slice(4 * i..4 * i + 4);
                let back = tree.decode(&tree.encode(&some).unwrap()).unwrap();
                error_of(&some, &back)
            })
            .sum()
    };
    let (before, after) = (error(&plain.tree), error(&trained.tree));
    assert!(after < 0.5 * before, "{before} and {after}");
    let kept = |name: &str| {
        trained
            .levels
            .iter()
            .flat_map(|level| &level.stages)
            .any(|stage| stage.name == name && stage.accepted)
    };
    assert!(kept("predictor") && kept("restorer"), "{:?}", trained.levels);
    let bytes = trained.tree.image().unwrap().encode().unwrap();
    let again = SweeperTree::from_image(&CodecImage::decode(&bytes).unwrap(), Device::Cpu).unwrap();
    assert_eq!(error(&again), after);
    assert!(trained.tree.parameters() > plain.tree.parameters());
}

/// A length that is no power of two has no full subtree at its top.
#[test]
fn sequences_of_all_lengths_are_learned_from() {
    let walk = |i: usize| [(i as f32 / 9.0).sin(), (i as f32 / 9.0).cos(), (i as f32 / 23.0).sin()];
    let mut records = Records::with_dims(&[3]).unwrap();
    (0..2_000).for_each(|i| records.push_values(&walk(i)).unwrap());
    let mixed: Vec<usize> = [17, 17, 1, 17, 32, 16].into_iter().cycle().take(120).collect();
    let all: [Vec<usize>; 6] = [vec![3; 40], vec![5; 400], vec![100; 20], vec![64], vec![2], mixed];
    for lengths in &all {
        for steps in [0, 2] {
            let some = records.slice(0..lengths.iter().sum());
            let trained = SweeperTree::trainer(&some, lengths).state(9).steps(steps).train().unwrap();
            // A merge that drops nothing leaves nothing to predict, and is not tried.
            let tried = |stage: &crate::codec::StageReport| stage.steps > 0;
            assert!(trained.levels.iter().flat_map(|level| &level.stages).all(tried), "{:?}", trained.levels);
            let longest = *lengths.iter().max().unwrap();
            assert_eq!(trained.tree.capacity(), longest.next_power_of_two() as u64);
            for len in [1, longest / 2, longest] {
                let some = records.slice(0..len.max(1));
                let error =
                    error_of(&some, &trained.tree.decode(&trained.tree.encode(&some).unwrap()).unwrap());
                // Their variance is a half. One sequence says little of how its records go with each other.
                let most = if lengths.len() > 1 { 0.1 } else { 0.3 };
                assert!(error < most, "{lengths:?}, {steps} steps, {len}: {error}");
            }
        }
    }
}

/// Gates judge on sequences that axes are not fitted to: others in their place change no state.
#[test]
fn what_judges_is_not_fitted_to() {
    use rand::SeedableRng;
    let lengths = [4; 40];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let sequences = samples::sequences(&lengths, true, &mut rng);
    let (seen, judges) = samples::split(&sequences);
    assert_eq!((seen.len(), judges.len()), (32, 8));
    let (records, others) = (items(160, 15), items(160, 16));
    let state_with = |exchanged: std::ops::Range<usize>| {
        let mut mixed = Records::new(records.shape());
        for row in 0..160 {
            let from = if exchanged.contains(&row) { &others } else { &records };
            mixed.push_values(from.row(row)).unwrap();
        }
        let trained = SweeperTree::trainer(&mixed, &lengths).state(4).steps(1).seed(5).train().unwrap();
        assert_eq!(trained.levels[0].pairs, 128);
        trained.tree.encode(&items(4, 17)).unwrap()
    };
    let as_it_is = state_with(0..0);
    assert_eq!(state_with(judges[0].first..judges[0].first + 4), as_it_is);
    assert_ne!(state_with(seen[0].first..seen[0].first + 4), as_it_is);
}

/// A student that was taught follows the tree better than one that does nothing, and can be stored.
#[test]
fn a_student_follows_its_tree() {
    let tree = tree(12);
    for records in [0, 10, 31] {
        let refused = Student::trainer(&tree, &items(records, 13), 16).train().unwrap_err();
        assert!(matches!(refused, Error::TooLittleData { needed: 32, .. }), "{refused}");
    }
    let records = items(640, 13);
    let (student, stages) = Student::trainer(&tree, &records, 16).hidden(64).steps(400).train().unwrap();
    let error = |stage: usize| (stages[stage].error_before.unwrap(), stages[stage].error_after.unwrap());
    assert!(error(0).1 < 0.3 * error(0).0 && error(1).1 <= error(1).0, "{stages:?}");
    assert_eq!((student.capacity(), tree.capacity()), (16, 16));
    let fresh = items(16, 14);
    let bytes = student.image().unwrap().encode().unwrap();
    let again = Student::from_image(&CodecImage::decode(&bytes).unwrap(), Device::Cpu).unwrap();
    let (mut memory, mut other) = (student.begin(&tree).unwrap(), again.begin(&tree).unwrap());
    for row in 0..16 {
        memory = student.append(&tree, &memory, &fresh.get(row)).unwrap();
        other = again.append(&tree, &other, &fresh.get(row)).unwrap();
    }
    assert_eq!(memory, other);
    let teacher = tree.at_top(&tree.encode(&fresh).unwrap()).unwrap();
    let square =
        |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let off = square(&mut memory.values().iter().zip(teacher.values()).map(|(a, b)| a - b));
    assert!(off < 0.5 * square(&mut teacher.values().iter().copied()), "{off}");
    assert_eq!(tree.decode(&memory).unwrap().len(), 16);
    let beyond = student.append(&tree, &memory, &fresh.get(0)).unwrap_err();
    assert_eq!(beyond.to_string(), "the length of a sequence must be at most 16 records, found 17");
}
