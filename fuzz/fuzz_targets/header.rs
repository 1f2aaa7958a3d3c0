//! Any bytes are a header or an error; a header that is read writes the bytes it was read from.
#![no_main]

use apcm_format::StoreHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = StoreHeader::decode(data);
    // Most mutations die at the checksum; with it mended, the checks behind it are reached.
    if let Some((body, _)) = data.split_last_chunk::<4>() {
        let mut mended = body.to_vec();
        mended.extend_from_slice(&crc32fast_of(body).to_le_bytes());
        if let Ok(header) = StoreHeader::decode(&mended) {
            let written = header.encode();
            // The minor version is the one field a reader may see and not keep.
            assert_eq!(written[..10], mended[..10]);
            assert_eq!(written[12..124], mended[12..124]);
        }
    }
});

fn crc32fast_of(bytes: &[u8]) -> u32 {
    // The header's CRC is not keyed: bitwise CRC-32 keeps the fuzz crate free of another dependency.
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}
