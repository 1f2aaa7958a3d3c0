//! A record to the bit, well compressed.
//!
//! ```text
//! 0   form
//! ..  the values in that form
//! ```
//! Four forms are tried and the shortest is kept: one byte a value where all are whole numbers over the same
//! divisor, which is what images are; a palette of the different values and an index for each; two bytes a
//! value where half precision holds them all, which is what many embeddings are; four bytes a value, bytes of
//! equal weight side by side. All are deflated. Nothing here depends on a reconstruction, so nothing here
//! depends on a backend: the one operation is a division of two small whole numbers, which IEEE 754 rounds
//! alike everywhere.

use super::malformed::malformed;
use crate::error::Result;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use half::f16;
use std::io::{Read, Write};

const PALETTE: u8 = 0;
const HALF: u8 = 1;
const SINGLE: u8 = 2;
const WHOLE: u8 = 3;
/// The divisor of bytes: 255 in images scaled to `[0, 1]`, 1 in those that are not.
const DIVISORS: [u8; 2] = [255, 1];
/// Deflate's best; records are small.
const LEVEL: u32 = 9;

pub(super) fn pack(values: &[f32]) -> Vec<u8> {
    let forms = [palette(values), half(values), Some(single(values))];
    let whole = DIVISORS.into_iter().find_map(|divisor| whole(values, divisor));
    let shortest = forms.into_iter().chain([whole]).flatten().min_by_key(Vec::len);
    shortest.unwrap_or_default()
}

/// Reads `count` values.
pub(super) fn unpack(bytes: &[u8], count: usize) -> Result<Vec<f32>> {
    let (&form, rest) = bytes.split_first().ok_or_else(|| malformed("it is empty"))?;
    match form {
        PALETTE => {
            let (&colors, rest) = rest.split_first().ok_or_else(|| malformed("its palette is missing"))?;
            let body = inflated(rest, (usize::from(colors) + 1) * 4 + count)?;
            let (palette, indices) = body.split_at((usize::from(colors) + 1) * 4);
            let color = |&index: &u8| {
                let at = usize::from(index) * 4;
                let bytes =
                    palette.get(at..at + 4).ok_or_else(|| malformed("an index is outside its palette"))?;
                Ok(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            };
            indices.iter().map(color).collect()
        }
        HALF => {
            let body = inflated(rest, count * 2)?;
            let (low, high) = body.split_at(count);
            Ok(low.iter().zip(high).map(|(&low, &high)| f16::from_le_bytes([low, high]).to_f32()).collect())
        }
        SINGLE => {
            let body = inflated(rest, count * 4)?;
            let plane = |weight: usize, i: usize| body[weight * count + i];
            Ok((0..count)
                .map(|i| f32::from_le_bytes([plane(0, i), plane(1, i), plane(2, i), plane(3, i)]))
                .collect())
        }
        WHOLE => {
            let (&divisor, rest) = rest.split_first().ok_or_else(|| malformed("its divisor is missing"))?;
            // By zero, values are not finite: an error below.
            Ok(inflated(rest, count)?.iter().map(|&whole| over(whole, divisor)).collect())
        }
        _ => Err(malformed("its form is none that is known")),
    }
    .and_then(|values: Vec<f32>| match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(malformed("a value is not finite")),
    })
}

fn palette(values: &[f32]) -> Option<Vec<u8>> {
    let mut colors: Vec<u32> = Vec::new();
    for value in values {
        let bits = value.to_bits();
        if let Err(at) = colors.binary_search(&bits) {
            if colors.len() == 256 {
                return None;
            }
            colors.insert(at, bits);
        }
    }
    let last = u8::try_from(colors.len().checked_sub(1)?).ok()?;
    let mut body: Vec<u8> = colors.iter().flat_map(|color| color.to_le_bytes()).collect();
    body.extend(
        values.iter().filter_map(|value| colors.binary_search(&value.to_bits()).ok()).map(|at| at as u8),
    );
    Some(deflated(&[PALETTE, last], &body))
}

fn over(whole: u8, divisor: u8) -> f32 {
    f32::from(whole) / f32::from(divisor)
}

fn whole(values: &[f32], divisor: u8) -> Option<Vec<u8>> {
    let body: Option<Vec<u8>> = values
        .iter()
        .map(|&value| {
            let whole = (value * f32::from(divisor)).round() as u8;
            (over(whole, divisor).to_bits() == value.to_bits()).then_some(whole)
        })
        .collect();
    body.map(|body| deflated(&[WHOLE, divisor], &body))
}

fn half(values: &[f32]) -> Option<Vec<u8>> {
    let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
    let exact = halves.iter().zip(values).all(|(half, value)| half.to_f32().to_bits() == value.to_bits());
    exact.then(|| {
        let plane = |weight: usize| halves.iter().map(move |half| half.to_le_bytes()[weight]);
        deflated(&[HALF], &plane(0).chain(plane(1)).collect::<Vec<u8>>())
    })
}

fn single(values: &[f32]) -> Vec<u8> {
    let plane = |weight: usize| values.iter().map(move |value| value.to_le_bytes()[weight]);
    deflated(&[SINGLE], &(0..4).flat_map(plane).collect::<Vec<u8>>())
}

fn deflated(head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(head.to_vec(), Compression::new(LEVEL));
    // Writing to memory cannot fail; if it did, the record would be found short when it is read.
    match encoder.write_all(body) {
        Ok(()) => encoder.finish().unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Exactly `len` bytes, or an error: never more than that in memory, whatever the stream says.
fn inflated(bytes: &[u8], len: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = DeflateDecoder::new(bytes).take(len as u64 + 1).read_to_end(&mut body);
    match read {
        Ok(found) if found == len => Ok(body),
        _ => Err(malformed("it does not hold as many values as a record")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn every_form_comes_back_to_the_bit_and_the_shortest_is_taken() {
        let image: Vec<f32> = (0..784).map(|i| ((i / 28 + i % 28) % 256) as f32 / 255.0).collect();
        let embedding: Vec<f32> =
            (0..384).map(|i| f16::from_f32(((i * 37) % 997) as f32 / 997.0 - 0.5).to_f32()).collect();
        let mut state = 1_u32;
        let wild: Vec<f32> = (0..300)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from_bits(state & 0x7f7f_ffff)
            })
            .collect();
        let pixels: Vec<f32> = image.iter().map(|value| (value * 255.0).round()).collect();
        let steps: Vec<f32> = (0..784).map(|i| ((i / 28 + i % 28) % 7) as f32 * 0.1).collect();
        let odd = vec![0.0, -0.0, f32::MIN_POSITIVE / 8.0, f32::MAX, -1.5];
        for (values, form) in [
            (&image, WHOLE),
            (&pixels, WHOLE),
            (&steps, PALETTE),
            (&embedding, HALF),
            (&wild, SINGLE),
            (&odd, SINGLE),
        ] {
            let packed = pack(values);
            assert_eq!(bits(&unpack(&packed, values.len()).unwrap()), bits(values));
            if values.len() > 5 {
                assert_eq!(packed[0], form);
            }
            assert!(unpack(&packed, values.len() + 1).is_err() && unpack(&packed, values.len() - 1).is_err());
            for cut in 0..packed.len() {
                assert!(unpack(&packed[..cut], values.len()).is_err(), "{cut}");
            }
        }
        assert!(pack(&image).len() < 784 && pack(&embedding).len() < 2 * 384 + 16);
    }

    #[test]
    fn a_bomb_is_an_error_that_fits_in_memory() {
        let bomb = deflated(&[SINGLE], &vec![0; 1 << 24]);
        assert!(unpack(&bomb, 10).is_err());
    }
}
