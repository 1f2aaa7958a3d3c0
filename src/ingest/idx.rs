//! The idx format of the MNIST family: big-endian header, then numbers.

use super::header::{Element, Header};

/// Longest header this reader takes: four axes.
pub(super) const HEADER_LEN_MAX: usize = 4 + 4 * 4;

/// Reads `00 00 type rank`, then `rank` big-endian lengths.
pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let (&[zero, also_zero, kind, rank], rest) = bytes
        .split_first_chunk::<4>()
        .ok_or_else(|| format!("an idx header has 4 bytes or more, found {}", bytes.len()))?;
    if (zero, also_zero) != (0, 0) {
        return Err(format!("an idx file starts with 00 00, found {zero:02x} {also_zero:02x}"));
    }
    if kind != 0x08 {
        return Err(format!("idx files of bytes (type 08) are read, found type {kind:02x}"));
    }
    if !(1..=4).contains(&rank) {
        return Err(format!("an idx array of 1 to 4 axes was expected, found {rank}"));
    }
    let lengths = rest
        .get(..usize::from(rank) * 4)
        .ok_or_else(|| format!("the idx header of {rank} axes is cut short"))?;
    let dims =
        lengths.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    Ok(Header { dims, element: Element::U8, data: 4 + usize::from(rank) * 4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_header_of_mnist_images() {
        let bytes = [0, 0, 8, 3, 0, 0, 0x27, 0x10, 0, 0, 0, 28, 0, 0, 0, 28];
        let header = header(&bytes).unwrap();
        assert_eq!((header.dims, header.data), (vec![10_000, 28, 28], 16));
    }

    #[test]
    fn says_what_is_wrong_with_the_rest() {
        for (bytes, part) in [
            (&b"no"[..], "found 2"),
            (b"text, not idx", "found 74 65"),
            (&[0, 0, 0x0d, 1, 0, 0, 0, 1], "type 0d"),
            (&[0, 0, 8, 0], "found 0"),
            (&[0, 0, 8, 9], "found 9"),
            (&[0, 0, 8, 2, 0, 0, 0, 1], "cut short"),
        ] {
            let error = header(bytes).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
