//! The range coder, and how a code ends.
//!
//! The coder itself is `constriction`'s. Only the end is ours: of all numbers in the last interval the one with the
//! fewest bytes is written, and trailing zero bytes are left out, because the slot knows the length anyway and the
//! decoder reads zeros past the end. That costs a third of a byte on average where a sealed word costs two.

use super::tables::PRECISION;
use constriction::UnwrapInfallible;
use constriction::backends::Cursor;
use constriction::stream::model::{DecoderModel, EncoderModel, UniformModel};
use constriction::stream::queue::{EncoderSituation, RangeDecoder, RangeEncoder};
use constriction::stream::{Decode, Encode};

/// Writes symbols.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer(RangeEncoder<u16, u64>);

impl Writer {
    pub(super) fn put<M>(&mut self, symbol: usize, model: M)
    where
        M: EncoderModel<PRECISION, Symbol = usize, Probability = u16>,
    {
        // The only failure is a symbol outside the alphabet, which callers never form.
        let done = self.0.encode_symbol(symbol, model);
        debug_assert!(done.is_ok());
    }

    /// Bits of no preference, lowest first.
    pub(super) fn put_bits(&mut self, value: u32, bits: u32) {
        for bit in 0..bits {
            self.put((value >> bit & 1) as usize, UniformModel::<u16, PRECISION>::new(2));
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let (words, state, situation) = self.0.into_raw_parts();
        let (lower, range) = (state.lower(), state.range().get());
        let (mut last, mut carried) = (lower, false);
        for kept in 0..=8_u32 {
            let mask = if kept == 8 { 0 } else { u64::MAX >> (8 * kept) };
            let (up, over) = lower.overflowing_add(mask);
            let candidate = up & !mask;
            if candidate.wrapping_sub(lower) < range {
                (last, carried) = (candidate, over);
                break;
            }
        }
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        match situation {
            EncoderSituation::Normal => debug_assert!(!carried),
            EncoderSituation::Inverted(count, first) => {
                let (first, rest) = if carried { (first.wrapping_add(1), 0_u16) } else { (first, u16::MAX) };
                bytes.extend(first.to_be_bytes());
                (1..count.get()).for_each(|_| bytes.extend(rest.to_be_bytes()));
            }
        }
        bytes.extend(last.to_be_bytes());
        let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(length);
        bytes
    }
}

/// Reads symbols. Any bytes decode to some symbols; that they are the right ones is the checksum's business.
#[derive(Debug)]
pub(super) struct Reader(RangeDecoder<u16, u64, Cursor<u16, Vec<u16>>>);

impl Reader {
    pub(super) fn new(code: &[u8]) -> Self {
        let words: Vec<u16> = code
            .chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
            .collect();
        Self(RangeDecoder::from_compressed(words).unwrap_infallible())
    }

    /// The next symbol, or none where no encoder can have been.
    pub(super) fn take<M>(&mut self, model: M) -> Option<usize>
    where
        M: DecoderModel<PRECISION, Symbol = usize, Probability = u16>,
    {
        self.0.decode_symbol(model).ok()
    }

    pub(super) fn take_bits(&mut self, bits: u32) -> Option<u32> {
        let mut value = 0;
        for bit in 0..bits {
            value |= (self.take(UniformModel::<u16, PRECISION>::new(2))? as u32) << bit;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::quantizer::entropy::tables::{categorical, frequencies};

    /// Skewed and flat symbols, enough of them that every way to end is met, carries included.
    #[test]
    fn what_was_written_is_read_back_and_costs_what_it_must() {
        let model = categorical(&frequencies(&[1.0, 30.0, 900.0, 7.0, 0.001])).unwrap();
        let mut state = 1_u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let (mut bits, mut bytes) = (0.0, 0);
        for length in 0..3_000 {
            let symbols: Vec<usize> =
                (0..length % 80).map(|_| [2, 2, 2, 1, 2, 3, 0, 2, 4][next(9) as usize]).collect();
            let mut writer = Writer::default();
            for &symbol in &symbols {
                writer.put(symbol, model.as_view());
                let (_, probability) = model.left_cumulative_and_probability(symbol).unwrap();
                bits += PRECISION as f64 - f64::from(probability.get()).log2();
            }
            writer.put_bits(length, 12);
            bits += 12.0;
            let code = writer.finish();
            assert_ne!(code.last(), Some(&0), "zeros at the end are implied");
            bytes += code.len();
            for padding in [0, 1, 2, 9] {
                let padded = [code.clone(), vec![0; padding]].concat();
                let mut reader = Reader::new(&padded);
                for &symbol in &symbols {
                    assert_eq!(reader.take(model.as_view()), Some(symbol));
                }
                assert_eq!(reader.take_bits(12), Some(length));
            }
        }
        let excess = bytes as f64 - bits / 8.0;
        assert!(excess / 3_000.0 < 0.4, "{:.3} bytes a code too many", excess / 3_000.0);
    }

    #[test]
    fn any_bytes_decode_to_something_or_nothing() {
        let model = categorical(&frequencies(&[1.0, 2.0, 5.0, 1.0])).unwrap();
        for seed in 0..=255_u8 {
            let code: Vec<u8> = (0..9).map(|i| seed.wrapping_mul(i).wrapping_add(seed)).collect();
            let mut reader = Reader::new(&code);
            for _ in 0..200 {
                if let Some(symbol) = reader.take(model.as_view()) {
                    assert!(symbol < 4);
                }
            }
        }
    }
}
