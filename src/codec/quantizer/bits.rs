//! Fields of 0 to 8 bits, packed from the low end of each byte.

/// Writes bit fields into a byte slice.
pub(super) struct BitWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn put(&mut self, value: u8, width: u8) {
        let spread = u16::from(value) << (self.at % 8);
        let first = self.at / 8;
        if width > 0 {
            self.bytes[first] |= spread as u8;
            if self.at % 8 + usize::from(width) > 8 {
                self.bytes[first + 1] |= (spread >> 8) as u8;
            }
        }
        self.at += usize::from(width);
    }
}

/// Reads bit fields from a byte slice; beyond its end all bits are 0.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn take(&mut self, width: u8) -> u8 {
        let byte = |at: usize| u16::from(self.bytes.get(at).copied().unwrap_or(0));
        let word = byte(self.at / 8) | byte(self.at / 8 + 1) << 8;
        let value = (word >> (self.at % 8)) & ((1 << width) - 1);
        self.at += usize::from(width);
        value as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_come_back(fields in prop::collection::vec((any::<u8>(), 0_u8..=8), 0..60)) {
            let total: usize = fields.iter().map(|&(_, width)| usize::from(width)).sum();
            let mut bytes = vec![0; total.div_ceil(8)];
            let mut writer = BitWriter::new(&mut bytes);
            let masked = |value: u8, width: u8| (u16::from(value) & ((1 << width) - 1)) as u8;
            for &(value, width) in &fields {
                writer.put(masked(value, width), width);
            }
            let mut reader = BitReader::new(&bytes);
            for &(value, width) in &fields {
                prop_assert_eq!(reader.take(width), masked(value, width));
            }
        }
    }
}
