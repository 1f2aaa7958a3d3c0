//! What a training says of itself: errors on records that nothing was fitted to, groups that are set aside
//! whole, and a network that diverged.

mod common;

use apcm::codec::EndedBy;
use apcm::{Codec, Error, FlowCodec, Preset, QuantizerSpec, Records};
use common::{gaussian, records};

fn mean_error(codec: &FlowCodec, data: &Records) -> f64 {
    let errors: Vec<f64> =
        codec.encode(data).unwrap().iter().map(|encoded| f64::from(encoded.error)).collect();
    errors.iter().sum::<f64>() / errors.len() as f64
}

/// Records whose variance falls slowly over all of their directions.
fn wide(count: usize, values: usize, seed: u64) -> Records {
    let data = gaussian(count * values, seed);
    let scaled = data.iter().enumerate().map(|(at, x)| x / (1.0 + (at % values) as f32 / 40.0));
    records(&[values], scaled.collect())
}

/// Few and large records: new ones lie mostly outside the directions of those that were learned from.
#[test]
fn an_error_that_new_records_cannot_have_is_refused_with_the_one_they_can() {
    let training = wide(300, 600, 1);
    let ask = |error: f64| {
        FlowCodec::trainer(&training).quantizer(QuantizerSpec::entropy_error(error)).steps(20).train()
    };
    let refused = ask(2e-3).unwrap_err().to_string();
    assert!(refused.contains("2e-3") && refused.contains("outside the"), "{refused}");
    let least: f64 = refused.split("more than ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    assert!(least > 1e-2, "{refused}");
    let asked = 1.15 * least;
    let trained = ask(asked).unwrap();
    let said = trained.report.quantizers.iter().find(|choice| choice.chosen).unwrap().error.unwrap();
    let found = mean_error(&trained.codec, &wide(400, 600, 2));
    assert!((said / asked - 1.0).abs() < 0.05, "asked {asked:e}, says {said:e}");
    assert!((found / said - 1.0).abs() < 0.1, "says {said:e}, new records have {found:e}");
}

/// The error beside a size is that of records that nothing was fitted to as well.
#[test]
fn the_error_of_a_quantizer_is_that_of_new_records() {
    let training = wide(300, 600, 3);
    let trained = FlowCodec::trainer(&training).bytes_per_record(24).steps(20).train().unwrap();
    let said = trained.report.quantizers.iter().find(|choice| choice.chosen).unwrap().error.unwrap();
    let found = mean_error(&trained.codec, &wide(400, 600, 4));
    assert!((found / said - 1.0).abs() < 0.1, "says {said:e}, new records have {found:e}");
}

/// Too few to train on, and still the error is measured on some that were set aside.
#[test]
fn an_error_is_measured_even_where_nothing_is_trained() {
    let few = wide(60, 200, 5);
    let refused = FlowCodec::trainer(&few).quantizer(QuantizerSpec::entropy_error(1e-3)).train();
    assert!(matches!(refused, Err(Error::Argument { .. })), "{refused:?}");
    let flat = records(&[8], gaussian(60 * 8, 6));
    let trained = FlowCodec::trainer(&flat).quantizer(QuantizerSpec::entropy_error(0.05)).train().unwrap();
    assert!(
        trained.report.validation_records >= 6 && trained.report.stages.is_empty(),
        "{:?}",
        trained.report
    );
    let found = mean_error(&trained.codec, &records(&[8], gaussian(400 * 8, 7)));
    assert!(found < 0.1, "{found}");
}

/// Copies of each record, nearly: what is learned by heart from some is no proof on the others.
#[test]
fn groups_are_set_aside_whole() {
    let (groups, copies, values) = (40, 10, 12);
    let centres = gaussian(groups * values, 8);
    let jitter = gaussian(groups * copies * values, 9);
    let all: Vec<f32> = (0..groups * copies * values)
        .map(|at| centres[at / (copies * values) * values + at % values] + 0.01 * jitter[at])
        .collect();
    let data = records(&[values], all);
    let labels: Vec<usize> = (0..groups * copies).map(|row| row / copies).collect();
    // Copies of what decides are among what was fitted to, unless whole groups are set aside.
    let error = |groups: Option<Vec<usize>>| {
        let trainer = FlowCodec::trainer(&data).quantizer(QuantizerSpec::Residual(8)).predictor(0, 0);
        let trainer = match groups {
            Some(groups) => trainer.groups(groups),
            None => trainer,
        };
        let report = trainer.train().unwrap().report;
        (report.quantizers[0].error.unwrap(), report)
    };
    let ((leaky, _), (honest, report)) = (error(None), error(Some(labels.clone())));
    assert!(honest > 2.0 * leaky, "{honest:e} with groups, {leaky:e} without");
    assert_eq!(report.training_records + report.validation_records, 400);
    assert!(
        report.validation_records.is_multiple_of(copies) && report.validation_records >= 40,
        "{report:?}"
    );
    let wrong = FlowCodec::trainer(&data)
        .quantizer(QuantizerSpec::I8(4))
        .groups(vec![0; 7])
        .train()
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("400") && wrong.contains('7'), "{wrong}");
    // With few groups nothing can be set aside.
    let few: Vec<usize> = labels.iter().map(|group| group % 3).collect();
    assert_eq!(error_free(&data, few), 0);
}

fn error_free(data: &Records, groups: Vec<usize>) -> usize {
    let trainer = FlowCodec::trainer(data).quantizer(QuantizerSpec::I8(4)).groups(groups);
    trainer.train().unwrap().report.validation_records
}

/// The published network has unbounded scales and can diverge: the report says so and the best weights before
/// are kept. `scale_clamp` delays the divergence.
#[test]
fn a_paper_network_that_diverges_says_so_and_keeps_what_it_had() {
    let data = records(&[16], gaussian(200 * 16, 10));
    let train = |clamp: Option<f32>, rate: f64| {
        let trainer = FlowCodec::trainer(&data)
            .preset(Preset::Paper)
            .quantizer(QuantizerSpec::F32(8))
            .learning_rate(rate)
            .steps(100);
        let trainer = match clamp {
            Some(bound) => trainer.scale_clamp(bound),
            None => trainer,
        };
        trainer.train().unwrap().report.stages.remove(0)
    };
    let free = train(None, 0.003);
    assert_eq!(free.ended_by, EndedBy::Diverged, "{free:?}");
    assert!(free.error_after.unwrap() < 1.0, "the weights before are kept: {free:?}");
    let bounded = train(Some(0.3), 0.003);
    assert!(bounded.steps > free.steps && bounded.error_after.unwrap() < 1.0, "{bounded:?}");
    assert_eq!(train(Some(0.3), 0.001).ended_by, EndedBy::Steps);
    for bound in [0.0, -1.0, f32::NAN] {
        let trainer = FlowCodec::trainer(&data).quantizer(QuantizerSpec::I8(4));
        let error = trainer.scale_clamp(bound).train().unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
    }
}
