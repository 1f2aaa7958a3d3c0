//! A pack: an immutable copy of a store, laid out to be searched where it lies.
//!
//! ```text
//! 0        header, 192 bytes, its own CRC at the end
//! 4096     sections, each on a multiple of 64 bytes, one after the other:
//!            codec      the codec's image
//!            rows       40 bytes a memory
//!            scales     f32 a memory: the step of its integers
//!            residuals  f32 a memory: length of what its integers leave out
//!            integers   i8 [memory, search dims]
//!            vectors    f32 [memory, search dims], of length 1
//!            memories   slot record, framed metadata, residual record: as in the store
//!            keys       u32 a key: whose it is; in the order of the keys' bytes
//! ..       u32 a block of 64 KiB from 4096 on: its CRC
//! ```
//! Where a section begins follows from how many memories, keys, dimensions and bytes there are: a file cannot
//! say two things about it. Memories stand in the order of their slots.

use crate::bytes::Reader;
use crate::limits::{CODE_LEN_MAX, CODEC_LEN_MAX, METADATA_LEN_MAX, RESIDUAL_LEN_MAX, SEQ_MAX};
use crate::preamble::{Preamble, capacity, sealed, search_dims};
use crate::{
    DecodeError, Features, Fingerprint, Place, RecordShape, Similarity, SlotRecord, StoreUuid, StoredReal,
    Table,
};
use std::ops::Range;

const ROW: &str = "a pack's row";
const PREAMBLE: Preamble = Preamble {
    what: "a pack's header",
    file: "an apcm pack",
    magic: *b"\x89APCK\r\n\x1a",
    major: 1,
    minor: 0,
};
const ALIGNMENT: u64 = 64;

/// Bytes of a pack's header.
pub const HEADER_LEN: usize = 192;
/// Bytes of it that mean nothing yet.
const RESERVED_LEN: usize = 24;
/// Where the first section begins: a page, so that what is mapped is aligned.
pub const DATA_START: u64 = 4_096;
/// Bytes that share a checksum.
pub const BLOCK_LEN: u64 = 1 << 16;
/// Bytes of a row.
pub const ROW_LEN: usize = 40;

/// What a pack is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackHeader {
    /// The pack's own name, which keys its blocks.
    pub uuid: StoreUuid,
    /// The store it was made from, which keys the values in it.
    pub store: StoreUuid,
    /// Feature bits.
    pub features: Features,
    /// Slots of that store.
    pub capacity: u32,
    /// What cosine compares.
    pub similarity: Similarity,
    /// Shape of every record.
    pub shape: RecordShape,
    /// Length of a search vector.
    pub search_dims: u32,
    /// The codec that wrote the codes.
    pub fingerprint: Fingerprint,
    /// When the pack was made, in seconds since 1970.
    pub created_at: u64,
    /// The highest sequence number that the store had given.
    pub last_seq: u64,
    /// Memories in it.
    pub memories: u32,
    /// Those among them that have a key.
    pub keys: u32,
    /// Bytes of the codec's image.
    pub codec_len: u64,
    /// Bytes of all memories.
    pub memories_len: u64,
    /// CRC of the blocks' CRCs.
    pub blocks_crc: u32,
}

/// Where everything is, in bytes from the beginning of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackLayout {
    /// The codec's image.
    pub codec: Range<u64>,
    /// [`PackRow`]s.
    pub rows: Range<u64>,
    /// Steps of the integers.
    pub scales: Range<u64>,
    /// What the integers leave out.
    pub residuals: Range<u64>,
    /// Search vectors as integers.
    pub integers: Range<u64>,
    /// Search vectors.
    pub vectors: Range<u64>,
    /// What the slots hold.
    pub memories: Range<u64>,
    /// The row of each key.
    pub keys: Range<u64>,
    /// CRCs of all blocks before.
    pub blocks: Range<u64>,
}

/// A range that ends beyond what 64 bits count.
const TOO_LONG: DecodeError =
    DecodeError::Limit { what: "the length of a pack", found: u64::MAX, max: i64::MAX as u64 };

impl PackLayout {
    /// The bytes that blocks are counted from and to.
    pub fn data(&self) -> Range<u64> {
        DATA_START..self.blocks.start
    }

    /// The bytes of a block; an empty range behind the last.
    pub fn block(&self, number: u64) -> Range<u64> {
        let Range { start, end } = self.data();
        let at = |number: u64| number.saturating_mul(BLOCK_LEN).saturating_add(start).min(end);
        at(number)..at(number.saturating_add(1))
    }

    /// How many blocks there are.
    pub fn block_count(&self) -> u64 {
        self.blocks.end.saturating_sub(self.blocks.start) / 4
    }

    /// The blocks that hold some bytes of the data.
    pub fn blocks_of(&self, bytes: Range<u64>) -> Range<u64> {
        let start = bytes.start.saturating_sub(DATA_START) / BLOCK_LEN;
        let end = bytes.end.saturating_sub(DATA_START).div_ceil(BLOCK_LEN);
        start..end.max(start)
    }

    /// Length of the file.
    pub fn len(&self) -> u64 {
        self.blocks.end
    }

    /// Never: there is a header at least.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl PackHeader {
    /// Where everything is.
    ///
    /// # Errors
    /// [`Limit`](DecodeError::Limit) when that is beyond counting.
    pub fn layout(&self) -> Result<PackLayout, DecodeError> {
        let mut end = DATA_START;
        let mut section = |elements: u64, bytes: u64| -> Result<Range<u64>, DecodeError> {
            let start = end.checked_next_multiple_of(ALIGNMENT).ok_or(TOO_LONG)?;
            let len = elements.checked_mul(bytes).ok_or(TOO_LONG)?;
            end = start.checked_add(len).filter(|&end| end <= i64::MAX as u64).ok_or(TOO_LONG)?;
            Ok(start..end)
        };
        let memories = u64::from(self.memories);
        let values = memories.checked_mul(self.search_dims.into()).ok_or(TOO_LONG)?;
        let codec = section(self.codec_len, 1)?;
        let rows = section(memories, ROW_LEN as u64)?;
        let scales = section(memories, 4)?;
        let residuals = section(memories, 4)?;
        let integers = section(values, 1)?;
        let vectors = section(values, 4)?;
        let slots = section(self.memories_len, 1)?;
        let keys = section(self.keys.into(), 4)?;
        let data = section(0, 0)?.start;
        let blocks = data.saturating_sub(DATA_START).div_ceil(BLOCK_LEN);
        let blocks = section(blocks, 4)?;
        Ok(PackLayout { codec, rows, scales, residuals, integers, vectors, memories: slots, keys, blocks })
    }

    /// What the CRC of a block is keyed with.
    pub fn block_place(&self, number: u64) -> Place {
        Place::numbered(self.uuid, Table::Pack, number)
    }

    /// What the CRC of the blocks' CRCs is keyed with.
    pub fn blocks_place(&self) -> Place {
        self.block_place(u64::MAX)
    }

    /// Lays the header out.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = PREAMBLE.encode(HEADER_LEN);
        out.extend_from_slice(&self.features.compatible.to_le_bytes());
        out.extend_from_slice(&self.features.incompatible.to_le_bytes());
        out.extend_from_slice(&self.uuid.0);
        out.extend_from_slice(&self.store.0);
        out.extend_from_slice(&self.capacity.to_le_bytes());
        let (rank, dims) = self.shape.stored();
        out.extend_from_slice(&[self.similarity.stored(), rank, 0, 0]);
        for dim in dims {
            out.extend_from_slice(&dim.to_le_bytes());
        }
        out.extend_from_slice(&self.search_dims.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.0);
        out.extend_from_slice(&self.created_at.to_le_bytes());
        out.extend_from_slice(&self.last_seq.to_le_bytes());
        out.extend_from_slice(&self.memories.to_le_bytes());
        out.extend_from_slice(&self.keys.to_le_bytes());
        out.extend_from_slice(&self.codec_len.to_le_bytes());
        out.extend_from_slice(&self.memories_len.to_le_bytes());
        out.extend_from_slice(&self.blocks_crc.to_le_bytes());
        out.extend_from_slice(&[0; RESERVED_LEN]);
        sealed(out)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`Magic`](DecodeError::Magic) when the bytes are something else, [`TooNew`](DecodeError::TooNew) for a
    /// newer major version or unknown incompatible features, and the other variants for damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = PREAMBLE.fields(bytes, HEADER_LEN)?;
        let invalid = |what, found: u64| Err(DecodeError::Invalid { what, found });
        let features =
            Features { compatible: reader.u64()?, incompatible: reader.u64()?, ..Features::default() };
        if features.incompatible & !Features::INCOMPATIBLE_KNOWN != 0 {
            return Err(DecodeError::TooNew {
                what: "a feature of this pack",
                found: features.incompatible,
                known: Features::INCOMPATIBLE_KNOWN,
            });
        }
        let (uuid, store) = (StoreUuid(reader.array()?), StoreUuid(reader.array()?));
        let capacity = capacity(&mut reader)?;
        let similarity = Similarity::from_stored(reader.u8()?)?;
        let rank = reader.u8()?;
        let reserved = reader.u16()?;
        if reserved != 0 {
            return invalid("reserved bytes of the header", reserved.into());
        }
        let stored = [reader.u32()?, reader.u32()?, reader.u32()?];
        let shape = RecordShape::from_stored(rank, stored)?;
        let search_dims = search_dims(&mut reader, shape)?;
        let fingerprint = Fingerprint(reader.array()?);
        let created_at = reader.u64()?;
        let last_seq = reader.u64()?;
        if last_seq >= SEQ_MAX {
            return Err(DecodeError::Limit { what: "a sequence number", found: last_seq, max: SEQ_MAX });
        }
        let (memories, keys) = (reader.u32()?, reader.u32()?);
        if memories > capacity {
            let (found, max) = (memories.into(), capacity.into());
            return Err(DecodeError::Limit { what: "the memories of a pack", found, max });
        }
        if keys > memories {
            let (found, max) = (keys.into(), memories.into());
            return Err(DecodeError::Limit { what: "the keys of a pack", found, max });
        }
        let codec_len = reader.u64()?;
        if codec_len > CODEC_LEN_MAX {
            let max = CODEC_LEN_MAX;
            return Err(DecodeError::Limit { what: "the length of a codec", found: codec_len, max });
        }
        let memories_len = reader.u64()?;
        let blocks_crc = reader.u32()?;
        if reader.take(RESERVED_LEN)?.iter().any(|&byte| byte != 0) {
            return invalid("reserved bytes of the header", 1);
        }
        let _crc = reader.u32()?;
        reader.finish()?;
        Ok(Self {
            uuid,
            store,
            features,
            capacity,
            similarity,
            shape,
            search_dims,
            fingerprint,
            created_at,
            last_seq,
            memories,
            keys,
            codec_len,
            memories_len,
            blocks_crc,
        })
    }
}

/// A memory's summary, and where its values are.
///
/// ```text
/// 0   where it begins, from the beginning of the memories; 8 bytes
/// 8   sequence number of its write, 48 bits
/// 14  measured error, upper half of an f32
/// 16  its slot in the store
/// 20  bytes of its slot record
/// 24  bytes of its metadata; 0 for none
/// 28  bytes of its residual; 0 for none
/// 32  when it expires, in seconds since 1970; 0 for never
/// 36  how often it had been read
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRow {
    /// Where it begins, from the beginning of the memories.
    pub offset: u64,
    /// The number of the write that filled its slot.
    pub seq: u64,
    /// Measured error.
    pub error: StoredReal,
    /// Its slot in the store.
    pub slot: u32,
    /// Bytes of its slot record.
    pub record_len: u32,
    /// Bytes of its framed metadata; 0 for none.
    pub metadata_len: u32,
    /// Bytes of its residual record; 0 for none.
    pub residual_len: u32,
    /// When it expires, in seconds since 1970; 0 for never.
    pub expires_at: u32,
    /// How often it had been read.
    pub count: u32,
}

impl PackRow {
    /// Lays the row out.
    pub fn encode(&self) -> [u8; ROW_LEN] {
        let mut out = Vec::with_capacity(ROW_LEN);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(self.seq.to_le_bytes().first_chunk::<6>().unwrap_or(&[0; 6]));
        out.extend_from_slice(&self.error.to_bits().to_le_bytes());
        let words =
            [self.slot, self.record_len, self.metadata_len, self.residual_len, self.expires_at, self.count];
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        let mut bytes = [0; ROW_LEN];
        for (to, from) in bytes.iter_mut().zip(out) {
            *to = from;
        }
        bytes
    }

    /// Reads a row. Its checksum is that of its block.
    ///
    /// # Errors
    /// Impossible fields.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(ROW, bytes);
        let row = Self {
            offset: reader.u64()?,
            seq: reader.u48()?,
            error: StoredReal::from_bits(reader.u16()?)?,
            slot: reader.u32()?,
            record_len: reader.u32()?,
            metadata_len: reader.u32()?,
            residual_len: reader.u32()?,
            expires_at: reader.u32()?,
            count: reader.u32()?,
        };
        reader.finish()?;
        let parts = [
            (row.record_len, CODE_LEN_MAX.saturating_add(64)),
            (row.metadata_len, METADATA_LEN_MAX.saturating_add(64)),
            (row.residual_len, RESIDUAL_LEN_MAX.saturating_add(64)),
        ];
        for (len, max) in parts {
            if len as usize > max {
                let (found, max) = (len.into(), max as u64);
                return Err(DecodeError::Limit { what: "the length of a memory's part", found, max });
            }
        }
        Ok(row)
    }

    /// Where its slot record, metadata and residual are, from the beginning of the memories.
    pub fn parts(&self) -> [Range<u64>; 3] {
        let record = self.offset.saturating_add(self.record_len.into());
        let metadata = record.saturating_add(self.metadata_len.into());
        let residual = metadata.saturating_add(self.residual_len.into());
        [self.offset..record, record..metadata, metadata..residual]
    }

    /// Whether the row says of its memory what the memory says of itself.
    pub fn agrees(&self, record: &SlotRecord<'_>) -> bool {
        self.seq == record.seq
            && self.error == record.error
            && self.expires_at == record.expires_at.unwrap_or(0)
            && (self.residual_len > 0) == record.flags.residual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> PackHeader {
        PackHeader {
            uuid: StoreUuid([1; 16]),
            store: StoreUuid([2; 16]),
            features: Features::default(),
            capacity: 100,
            similarity: Similarity::CentredCosine,
            shape: RecordShape::new(&[3, 5]).unwrap(),
            search_dims: 7,
            fingerprint: Fingerprint([3; 32]),
            created_at: 1_700_000_000,
            last_seq: 90,
            memories: 80,
            keys: 40,
            codec_len: 1_001,
            memories_len: 70_000,
            blocks_crc: 0xdead_beef,
        }
    }

    #[test]
    fn a_header_survives_its_bytes_and_no_other_bytes_pass() {
        let bytes = header().encode();
        assert_eq!(PackHeader::decode(&bytes), Ok(header()));
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert!(PackHeader::decode(&damaged).is_err(), "{at}");
            assert!(PackHeader::decode(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn sections_follow_each_other_on_multiples_of_64_and_blocks_hold_all_of_them() {
        let layout = header().layout().unwrap();
        let sections = [
            (&layout.codec, 1_001),
            (&layout.rows, 80 * 40),
            (&layout.scales, 320),
            (&layout.residuals, 320),
            (&layout.integers, 560),
            (&layout.vectors, 2_240),
            (&layout.memories, 70_000),
            (&layout.keys, 160),
            (&layout.blocks, 8),
        ];
        let mut end = DATA_START;
        for (section, len) in sections {
            assert_eq!(section.start, end.next_multiple_of(64));
            assert_eq!(section.end - section.start, len);
            end = section.end;
        }
        assert_eq!(layout.block(0), 4_096..4_096 + 65_536);
        assert_eq!(layout.block(1), 4_096 + 65_536..layout.blocks.start);
        assert!(layout.block(2).is_empty());
        assert_eq!(layout.blocks_of(layout.memories.clone()), 0..2);
        assert_eq!(layout.blocks_of(5_000..5_000), 0..1);
        let endless = PackHeader { memories: u32::MAX, search_dims: u32::MAX, ..header() };
        assert!(endless.layout().is_err());
        assert!(PackHeader { memories_len: u64::MAX, ..header() }.layout().is_err());
    }

    #[test]
    fn a_row_survives_its_bytes() {
        let row = PackRow {
            offset: 1 << 40,
            seq: (1 << 48) - 1,
            error: StoredReal::at_least(0.25),
            slot: 7,
            record_len: 60,
            metadata_len: 0,
            residual_len: 1_000,
            expires_at: 9,
            count: u32::MAX,
        };
        assert_eq!(PackRow::decode(&row.encode()), Ok(row));
        assert_eq!(row.parts()[2], (1 << 40) + 60..(1 << 40) + 1_060);
        assert!(PackRow::decode(&row.encode()[1..]).is_err());
        assert!(PackRow::decode(&PackRow { record_len: 1 << 30, ..row }.encode()).is_err());
    }
}
