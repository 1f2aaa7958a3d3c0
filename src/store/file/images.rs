//! Images of codecs in the file: chunks of at most 64 KiB, each under a checksum of its own.

use super::guard::storage;
use super::tables::{CODEC, OWN_CODEC, codec_chunk, codec_place};
use crate::claim::reserve;
use crate::codec;
use crate::error::{Error, Result};
use apcm_format::{DecodeError, StoreHeader, StoreUuid, limits};
use redb::{ReadTransaction, WriteTransaction};

/// The codec's image, whole: it has the fingerprint that the header names. As [`read_image`].
pub(crate) fn read_codec(transaction: &ReadTransaction, header: &StoreHeader, limit: u64) -> Result<Vec<u8>> {
    let image = read_image(transaction, header.uuid, OWN_CODEC, limit)?;
    if codec::fingerprint(&image) != header.fingerprint {
        return Err(Error::Corrupt {
            what: "the codec in the store".to_owned(),
            cause: DecodeError::Checksum { what: "the codec's fingerprint" },
        });
    }
    Ok(image)
}

/// A codec's image, put together from its chunks; empty where there is none of this number. Opening it takes at
/// most `limit` bytes, asked before they are taken.
pub(crate) fn read_image(
    transaction: &ReadTransaction,
    store: StoreUuid,
    number: u32,
    limit: u64,
) -> Result<Vec<u8>> {
    let chunks = transaction.open_table(CODEC).map_err(storage("open a table"))?;
    let mut image = Vec::new();
    let keys = codec_chunk(number, 0)..=codec_chunk(number, u32::MAX);
    for entry in chunks.range(keys).map_err(storage("read the codec"))? {
        let (key, value) = entry.map_err(storage("read the codec"))?;
        let value = value.value();
        let crc_fits = value.split_last_chunk::<4>().filter(|(chunk, crc)| {
            chunk.len() <= limits::CODEC_CHUNK_LEN
                && codec_place(store, key.value()).crc(&[chunk]) == u32::from_le_bytes(**crc)
        });
        let (chunk, _) = crc_fits.ok_or_else(|| Error::Corrupt {
            what: format!("chunk {} of the codec", key.value()),
            cause: DecodeError::Checksum { what: "a codec chunk" },
        })?;
        let needed = codec_memory(image.len() + chunk.len());
        if needed > limit {
            return Err(Error::MemoryLimit { what: "the codec in the store", needed, limit });
        }
        let len = image.len() + chunk.len();
        if len > image.capacity() {
            // Twice as much each time, or a long image would be copied once a chunk.
            let more = len.max(2 * image.len());
            reserve(&mut image, more).map_err(Error::memory("the codec in the store"))?;
        }
        image.extend_from_slice(chunk);
    }
    Ok(image)
}

/// Memory that a codec takes while it is loaded, at most: its image, twice while that grows; its tensors, of
/// two bytes a value there and four here; and those once more where they are computed with.
pub(crate) fn codec_memory(image: usize) -> u64 {
    8 * image as u64
}

/// Writes a codec's image, chunk by chunk, in the place of what there was under its number.
pub(crate) fn write_codec(
    transaction: &WriteTransaction,
    store: StoreUuid,
    number: u32,
    image: &[u8],
) -> Result<()> {
    let mut chunks = transaction.open_table(CODEC).map_err(storage("open a table"))?;
    let keys = codec_chunk(number, 0)..=codec_chunk(number, u32::MAX);
    chunks.retain_in(keys, |_, _| false).map_err(storage("write the codec"))?;
    for (chunk_number, chunk) in (0..).zip(image.chunks(limits::CODEC_CHUNK_LEN)) {
        let key = codec_chunk(number, chunk_number);
        let crc = codec_place(store, key).crc(&[chunk]);
        let value = [chunk, &crc.to_le_bytes()].concat();
        chunks.insert(key, value.as_slice()).map_err(storage("write the codec"))?;
    }
    Ok(())
}
