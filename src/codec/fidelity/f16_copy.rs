//! A record in two bytes a value, and how far that is from it: what an error can be measured against later.

use crate::codec::error_and_norm;
use apcm_format::StoredReal;
use apcm_format::stream::Original;
use half::f16;

/// Copies a record.
pub(crate) fn nearly(record: &[f32]) -> Original {
    let scale = StoredReal::at_least(record.iter().fold(0.0_f32, |most, value| most.max(value.abs())));
    let by = if scale.get().is_finite() { scale } else { StoredReal::at_least(f32::MAX / 2.0) };
    let scale = by.get();
    let values = record.iter().map(|&value| {
        let value = if scale > 0.0 { value / scale } else { 0.0 };
        f16::from_f32(value).to_bits()
    });
    let mut copy = Original { off: StoredReal::default(), scale: by, values: values.collect() };
    copy.off = StoredReal::at_least((error_and_norm(record, &values_of(&copy)).0.sqrt() as f32).next_up());
    copy
}

/// The values of a copy.
pub(crate) fn values_of(copy: &Original) -> Vec<f32> {
    copy.values.iter().map(|&bits| f16::from_bits(bits).to_f32() * copy.scale.get()).collect()
}

/// Mean squared error per element of a reconstruction, at most: the triangle through the copy.
pub(crate) fn error_at_most(copy: &Original, decoded: &[f32]) -> f64 {
    let (error, norm) = error_and_norm(&values_of(copy), decoded);
    // A read computes the reconstruction once more, in a batch of another size.
    let rounding = 4.0 * f64::from(f32::EPSILON) * f64::from(norm) / (decoded.len().max(1) as f64).sqrt();
    (f64::from(copy.off.get()) + error.sqrt() + rounding).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stated_is_never_less_than_the_error_and_close_to_it(
            pairs in prop::collection::vec((-1e4_f32..1e4, -1.0_f32..1.0), 1..64),
            size in -30_i32..30,
            off in 1e-6_f32..1.0,
        ) {
            let size = 2_f32.powi(size);
            let record: Vec<f32> = pairs.iter().map(|&(x, _)| x * size).collect();
            let decoded: Vec<f32> = pairs.iter().map(|&(x, d)| (x + d * off * 1e4) * size).collect();
            let copy = nearly(&record);
            let (truth, stated) = (error_and_norm(&record, &decoded).0, error_at_most(&copy, &decoded));
            let largest = f64::from(1e4 * size).powi(2);
            prop_assert!(stated >= truth);
            prop_assert!(stated.sqrt() <= truth.sqrt() + 1e-3 * largest.sqrt(), "{stated:e} for {truth:e}");
        }

        #[test]
        fn any_finite_record_has_a_copy(
            record in prop::collection::vec(prop::num::f32::NORMAL
                | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL,
                1..20),
        ) {
            let copy = nearly(&record);
            prop_assert!(copy.scale.get().is_finite());
            prop_assert!(values_of(&copy).iter().all(|value| value.is_finite()));
        }
    }
}
