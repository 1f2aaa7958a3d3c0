//! What the entropy-coded and the residual quantizer promise, on real images.

mod common;

use apcm::{
    Codec, Device, Encoded, EntropySpec, Error, FlowCodec, QuantizerSpec, Rate, Records, Similarity,
    StoredCode, counted_bytes,
};
use apcm_format::{CodecImage, ElementType};
use common::{images, noise, records};
use std::sync::OnceLock;

const TRAINING: u64 = 3_000;

fn fitted(spec: QuantizerSpec) -> FlowCodec {
    FlowCodec::trainer(&images(0..TRAINING)).quantizer(spec).predictor(0, 0).train().unwrap().codec
}

/// Entropy-coded, 24 bytes on average, none above 40; fitted once for all tests.
fn entropy() -> &'static FlowCodec {
    static CODEC: OnceLock<FlowCodec> = OnceLock::new();
    CODEC.get_or_init(|| fitted(QuantizerSpec::entropy(24).max_bytes(40)))
}

fn held_out() -> Records {
    images(TRAINING..TRAINING + 1_500)
}

fn mean_error(encoded: &[Encoded]) -> f64 {
    encoded.iter().map(|encoded| f64::from(encoded.error)).sum::<f64>() / encoded.len() as f64
}

fn stored(encoded: &[Encoded]) -> Vec<StoredCode<'_>> {
    encoded
        .iter()
        .map(|encoded| StoredCode { bytes: &encoded.code, without_predictor: encoded.without_predictor })
        .collect()
}

#[test]
fn the_mean_length_is_what_was_asked_for_and_no_code_is_above_the_cap() {
    let encoded = entropy().encode(&held_out()).unwrap();
    let mean =
        encoded.iter().map(|encoded| counted_bytes(encoded.code.len())).sum::<f64>() / encoded.len() as f64;
    assert!((mean / 24.0 - 1.0).abs() < 0.02, "{mean:.2} bytes");
    let lengths: std::collections::BTreeSet<usize> =
        encoded.iter().map(|encoded| encoded.code.len()).collect();
    assert!(lengths.len() > 10, "easy records are short: {lengths:?}");
    assert!(*lengths.last().unwrap() <= 40);
    // Noise is nothing the tables expect: it is coded coarsely, within the cap, and its error says so.
    let strange = records(&[28, 28], noise(784 * 20, 5).into_iter().map(|x| x * 30.0).collect());
    let strange = entropy().encode(&strange).unwrap();
    assert!(strange.iter().all(|encoded| encoded.code.len() <= 40 && encoded.error > 1.0));
    assert_eq!(entropy().decode(&stored(&strange)).unwrap().len(), 20);
}

#[test]
fn at_equal_bytes_charts_beat_water_filling_and_so_does_a_fixed_length() {
    let entropy = mean_error(&entropy().encode(&held_out()).unwrap());
    let allocated = mean_error(&fitted(QuantizerSpec::Allocated(24)).encode(&held_out()).unwrap());
    assert!(entropy < 0.8 * allocated, "{entropy:.5} and {allocated:.5}");
    let fixed = fitted(QuantizerSpec::entropy_fixed(24)).encode(&held_out()).unwrap();
    assert!(fixed.iter().all(|encoded| encoded.code.len() == 24));
    assert!(mean_error(&fixed) < 0.9 * allocated, "{:.5} and {allocated:.5}", mean_error(&fixed));
    assert!(mean_error(&fixed) > entropy, "letting easy records be short is worth something");
    let residual = fitted(QuantizerSpec::Residual(24)).encode(&held_out()).unwrap();
    assert!(residual.iter().all(|encoded| encoded.code.len() == 24));
    assert!(mean_error(&residual) < allocated, "{:.5} and {allocated:.5}", mean_error(&residual));
}

#[test]
fn an_error_can_be_asked_for_instead_of_bytes() {
    for asked in [0.02, 0.004] {
        let encoded = fitted(QuantizerSpec::entropy_error(asked)).encode(&held_out()).unwrap();
        let error = mean_error(&encoded);
        // The step was set on 150 records; what their mean may be off by is three of its standard errors.
        let squared: f64 = encoded.iter().map(|encoded| (f64::from(encoded.error) - error).powi(2)).sum();
        let standard_error = (squared / 1_500.0 / 150.0).sqrt();
        assert!(
            (error - asked).abs() < 3.0 * standard_error,
            "{error:.5} for {asked}, +-{standard_error:.5}"
        );
        assert!(standard_error < 0.1 * asked);
    }
    let error = FlowCodec::trainer(&images(0..500)).quantizer(QuantizerSpec::entropy_error(1e-30)).train();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("mean squared error") && error.contains("1e-30"), "{error}");
    for wrong in [0.0, -1.0, f64::NAN] {
        let error =
            FlowCodec::trainer(&images(0..500)).quantizer(QuantizerSpec::entropy_error(wrong)).train();
        assert!(matches!(error, Err(Error::Argument { .. })), "{wrong}");
    }
}

/// Everything between a code and its coordinates runs on the host: not a bit may differ.
#[test]
fn codes_mean_the_same_to_the_bit_on_every_device_and_after_a_reload() {
    let codec = entropy();
    let encoded = codec.encode(&held_out().slice(0..300)).unwrap();
    let codes: Vec<&[u8]> = encoded.iter().map(|encoded| encoded.code.as_slice()).collect();
    let bits = |codec: &FlowCodec| -> Vec<u32> {
        codec.search_vectors(&codes, Similarity::Cosine).unwrap().into_iter().map(f32::to_bits).collect()
    };
    let expected = bits(codec);
    let image = codec.image().unwrap();
    for device in Device::compiled_in() {
        match FlowCodec::from_image(&image, device) {
            Ok(other) => assert!(bits(&other) == expected, "{device}"),
            Err(error) => eprintln!("SKIPPED on {device}: {error}"),
        }
    }
}

#[test]
fn hostile_codes_are_errors_or_finite_records() {
    let codec = entropy();
    let mut state = 7_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    for round in 0..2_000 {
        let code: Vec<u8> = (0..round % 41).map(|_| byte()).collect();
        if let Ok(records) = codec.decode(&[StoredCode { bytes: &code, without_predictor: false }]) {
            assert!(records.values().iter().all(|value| value.is_finite()));
        }
    }
    let long = vec![1; 41];
    let error = codec.decode(&[StoredCode { bytes: &long, without_predictor: false }]).unwrap_err();
    assert!(matches!(error, Error::Format(_)), "{error}");
}

/// Any single tensor replaced by other bytes, with the image's checksum made right again.
/// One value that is no number would spoil every record: no float of a codec may be one.
#[test]
fn weights_that_are_not_finite_are_refused_wherever_they_stand() {
    let image = entropy().image().unwrap();
    let mut floats = 0;
    for at in 0..image.tensors.len() {
        let bad: [&[u8]; 3] = match image.tensors[at].element {
            ElementType::F32 => [&[0, 0, 0xc0, 0x7f], &[0, 0, 0x80, 0x7f], &[0, 0, 0x80, 0xff]],
            ElementType::F16 => [&[0, 0x7e], &[0, 0x7c], &[0, 0xfc]],
            _ => continue,
        };
        floats += 1;
        for value in bad {
            let mut hostile = image.clone();
            let tensor = &mut hostile.tensors[at];
            let last = tensor.bytes.len() - value.len();
            tensor.bytes[last..].copy_from_slice(value);
            let name = tensor.name.clone();
            let result = FlowCodec::from_image(&hostile, Device::Cpu);
            assert!(matches!(result, Err(Error::Format(_))), "{name} with {value:?} was accepted");
        }
    }
    assert!(floats >= 3, "{floats}");
}

#[test]
fn hostile_tables_are_errors_and_never_panics() {
    let image = entropy().image().unwrap();
    let probe = held_out().slice(0..3);
    let mut refused = 0;
    for at in 0..image.tensors.len() {
        if !image.tensors[at].name.starts_with("quantizer.") {
            continue;
        }
        for (fill, dims) in
            [(0x00_u8, None), (0xff, None), (0x01, None), (0x7f, None), (0x01, Some(1)), (0, Some(0))]
        {
            let mut hostile = image.clone();
            let tensor = &mut hostile.tensors[at];
            if let Some(first) = dims {
                let width = match tensor.element {
                    ElementType::F32 | ElementType::U32 => 4,
                    ElementType::F16 | ElementType::U16 => 2,
                    ElementType::U8 => 1,
                };
                tensor.dims[0] = first;
                let len = tensor.dims.iter().map(|&dim| dim as usize).product::<usize>() * width;
                tensor.bytes.resize(len, 1);
            }
            tensor.bytes.iter_mut().for_each(|byte| *byte = fill);
            let bytes = hostile.encode().unwrap();
            match CodecImage::decode(&bytes)
                .map_err(Error::Format)
                .and_then(|i| FlowCodec::from_image(&i, Device::Cpu))
            {
                Err(_) => refused += 1,
                Ok(codec) => {
                    // What loads must also run: on wrong tables with wrong results, but in bounds.
                    if let Ok(encoded) = codec.encode(&probe) {
                        let _ = codec.decode(&stored(&encoded));
                    }
                }
            }
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn strange_training_data_has_a_defined_answer() {
    let entropy = QuantizerSpec::entropy(8);
    // All the same: there is nothing to code.
    let same = records(&[6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].repeat(300));
    for spec in [entropy, QuantizerSpec::Residual(4), QuantizerSpec::Allocated(2), QuantizerSpec::F32(1)] {
        let error = FlowCodec::trainer(&same).quantizer(spec).train().unwrap_err().to_string();
        assert!(error.contains("that are all the same"), "{error}");
    }
    // One dimension, and only two values of it.
    let line = records(&[1], noise(400, 3));
    let two = records(&[1], [0.25, 0.75].repeat(200));
    // Fewer rows than a codebook has entries, most of them duplicates.
    let few = records(&[5], noise(5 * 7, 9).repeat(5));
    for data in [&line, &two, &few] {
        for spec in [entropy, QuantizerSpec::entropy_fixed(8), QuantizerSpec::Residual(2)] {
            let codec = FlowCodec::trainer(data).quantizer(spec).train().unwrap().codec;
            let encoded = codec.encode(data).unwrap();
            let spread = apcm::report::variance(data);
            assert!(mean_error(&encoded) < 0.05 * spread, "{spec:?}: {} of {spread}", mean_error(&encoded));
        }
    }
}

#[test]
fn sizes_out_of_range_are_errors_that_name_them() {
    let data = images(0..300);
    let spec = |rate, max_bytes, charts| QuantizerSpec::Entropy(EntropySpec { rate, max_bytes, charts });
    for (spec, part) in [
        (QuantizerSpec::entropy(0), "at least 1"),
        (QuantizerSpec::entropy(2), "at least 4"),
        (QuantizerSpec::entropy_fixed(5), "at least 8"),
        (QuantizerSpec::Residual(0), "at least 1"),
        (QuantizerSpec::Residual(70_000), "1 to 65536"),
        (QuantizerSpec::entropy(16).max_bytes(15), "16 to 65536"),
        (spec(Rate::Mean(16), None, Some(0)), "1 to 1024"),
    ] {
        let error = FlowCodec::trainer(&data).quantizer(spec).train().unwrap_err().to_string();
        assert!(error.contains(part), "{spec:?}: {error}");
    }
}

#[test]
fn bytes_alone_pick_the_quantizer_and_the_report_says_which_and_why() {
    let trained =
        FlowCodec::trainer(&images(0..TRAINING)).bytes_per_record(24).predictor(0, 0).train().unwrap();
    let choices = &trained.report.quantizers;
    assert!(choices.len() >= 3, "{choices:?}");
    let chosen: Vec<_> = choices.iter().filter(|choice| choice.chosen).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!((chosen[0].quantizer, trained.codec.info().quantizer.as_str()), ("entropy", "entropy"));
    assert!(choices.iter().all(|choice| choice.error.unwrap() >= chosen[0].error.unwrap()));
    assert!((chosen[0].bytes.unwrap() / 24.0 - 1.0).abs() < 0.02, "{chosen:?}");
}
