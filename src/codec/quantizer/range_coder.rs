//! The range coder, and how a code ends.
//!
//! The coder itself is `constriction`'s. Only the end is ours: of all numbers in the last interval the one with
//! the fewest bytes is written, and trailing zero bytes are left out, because the slot knows the length anyway
//! and the decoder reads zeros past the end. That costs a third of a byte on average where a sealed word costs
//! two.

use constriction::UnwrapInfallible;
use constriction::backends::Cursor;
use constriction::stream::model::{
    ContiguousCategoricalEntropyModel, DecoderModel, EncoderModel, UniformModel,
};
use constriction::stream::queue::{EncoderSituation, RangeDecoder, RangeEncoder};
use constriction::stream::{Decode, Encode};

/// Bits of a frequency.
pub(crate) const PRECISION: usize = 15;
/// Longest prefix of an Exp-Golomb code: what is longer no writer makes.
const PREFIX_MAX: u32 = 24;

/// Frequencies as the coder takes them.
pub(crate) type Categorical = ContiguousCategoricalEntropyModel<u16, Vec<u16>, PRECISION>;

/// A categorical distribution of frequencies that add up to one; none where they do not.
pub(crate) fn categorical(frequencies: &[u16]) -> Option<Categorical> {
    Categorical::from_nonzero_fixed_point_probabilities(frequencies, false).ok()
}

/// Bits that a frequency costs.
pub(crate) fn bits_of(frequency: u16) -> f32 {
    PRECISION as f32 - f32::from(frequency).log2()
}

/// Whole frequencies in proportion to weights, none of them zero, `1 << PRECISION` in all.
pub(crate) fn frequencies(weights: &[f64]) -> Vec<u16> {
    let total: f64 = weights.iter().sum();
    let room = f64::from((1_u32 << PRECISION) - weights.len() as u32);
    let mut whole: Vec<u32> =
        weights.iter().map(|weight| 1 + (weight / total * room).floor().max(0.0) as u32).collect();
    let left = (1_u32 << PRECISION) - whole.iter().sum::<u32>();
    let largest = (0..whole.len()).rev().max_by_key(|&symbol| whole[symbol]).unwrap_or(0);
    whole[largest] += left;
    whole.into_iter().map(|frequency| frequency as u16).collect()
}

/// Writes symbols.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer(RangeEncoder<u16, u64>);

impl Writer {
    pub(crate) fn put<M>(&mut self, symbol: usize, model: M)
    where
        M: EncoderModel<PRECISION, Symbol = usize, Probability = u16>,
    {
        // The only failure is a symbol outside the alphabet, which callers never form.
        let done = self.0.encode_symbol(symbol, model);
        debug_assert!(done.is_ok());
    }

    /// Bits of no preference, lowest first.
    pub(crate) fn put_bits(&mut self, value: u32, bits: u32) {
        for bit in 0..bits {
            self.put((value >> bit & 1) as usize, UniformModel::<u16, PRECISION>::new(2));
        }
    }

    /// A number of unknown size: its length in unary, the leading one implied, then the low bits as they are.
    pub(crate) fn put_exp_golomb(&mut self, value: u32, order: u32) {
        let high = (value >> order) + 1;
        let prefix = high.ilog2();
        self.put_bits((1 << prefix) - 1, prefix + 1);
        self.put_bits(high - (1 << prefix), prefix);
        self.put_bits(value & ((1 << order) - 1), order);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
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
pub(crate) struct Reader(RangeDecoder<u16, u64, Cursor<u16, Vec<u16>>>);

impl Reader {
    pub(crate) fn new(code: &[u8]) -> Self {
        let words: Vec<u16> = code
            .chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
            .collect();
        Self(RangeDecoder::from_compressed(words).unwrap_infallible())
    }

    /// The next symbol, or none where no encoder can have been.
    pub(crate) fn take<M>(&mut self, model: M) -> Option<usize>
    where
        M: DecoderModel<PRECISION, Symbol = usize, Probability = u16>,
    {
        self.0.decode_symbol(model).ok()
    }

    pub(crate) fn take_bits(&mut self, bits: u32) -> Option<u32> {
        let mut value = 0;
        for bit in 0..bits {
            value |= (self.take(UniformModel::<u16, PRECISION>::new(2))? as u32) << bit;
        }
        Some(value)
    }

    pub(crate) fn take_exp_golomb(&mut self, order: u32) -> Option<u32> {
        let mut prefix = 0;
        while self.take_bits(1)? == 1 {
            prefix += 1;
            if prefix > PREFIX_MAX {
                return None;
            }
        }
        let high = (1 << prefix) + self.take_bits(prefix)?;
        Some(((high - 1) << order) | self.take_bits(order)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn frequencies_are_whole_never_zero_and_add_up() {
        for weights in [vec![1.0, 1e-12, 3.0, 0.0], vec![0.0, 0.0, 0.0, 1.0], vec![1.0; 122]] {
            let whole = frequencies(&weights);
            assert!(whole.iter().all(|&frequency| frequency > 0));
            assert_eq!(whole.iter().map(|&f| u32::from(f)).sum::<u32>(), 1 << PRECISION);
        }
    }

    #[test]
    fn numbers_of_any_size_come_back() {
        for order in 0..5 {
            let mut writer = Writer::default();
            let numbers = [0, 1, 2, 7, 8, 1_000, 1 << 20];
            numbers.iter().for_each(|&number| writer.put_exp_golomb(number, order));
            let code = writer.finish();
            let mut reader = Reader::new(&code);
            assert!(numbers.iter().all(|&number| reader.take_exp_golomb(order) == Some(number)));
        }
        assert_eq!(Reader::new(&[0xff; 30]).take_exp_golomb(0), None);
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
