//! Every maximum of the format, tied together at compile time.
//!
//! A limit is a promise to readers: no valid store asks for more, so a number above it is damage.

/// Most slots a store may have.
pub const CAPACITY_MAX: u32 = 1 << 27;
/// Longest code of one record, in bytes.
pub const CODE_LEN_MAX: usize = 1 << 16;
/// Longest payload of a residual: the largest record, and a little for its form.
pub const RESIDUAL_LEN_MAX: usize = (RECORD_VALUES_MAX as usize) * 4 + (1 << 10);
/// Most values in one record.
pub const RECORD_VALUES_MAX: u32 = 1 << 24;
/// Most axes a record's shape may have.
pub const RANK_MAX: usize = 3;
/// Longest user key, in bytes.
pub const KEY_LEN_MAX: usize = 4_096;
/// Longest metadata of one slot, in encoded bytes, its key included.
pub const METADATA_LEN_MAX: usize = 1 << 20;
/// Deepest nesting of lists and maps inside metadata.
pub const METADATA_NESTING_MAX: u32 = 16;
/// Longest name of a metadata field, in bytes.
pub const FIELD_NAME_LEN_MAX: usize = 256;
/// Longest name of a stream, in bytes.
pub const STREAM_NAME_LEN_MAX: usize = 255;
/// Highest sequence number of a write: 48 bits.
pub const SEQ_MAX: u64 = (1 << 48) - 1;
/// Bytes a slot record adds to its code at most.
pub const SLOT_OVERHEAD_MAX: usize = 24;
/// Access counts in one counter chunk. Four chunks of 1,004 bytes fill a 4-KiB page.
pub const COUNTERS_PER_CHUNK: usize = 250;
/// Words of the policy in one chunk of them: as many bytes as a counter chunk.
pub const USES_PER_CHUNK: usize = COUNTERS_PER_CHUNK / 2;
/// Largest stored codec, weights included.
pub const CODEC_LEN_MAX: u64 = 1 << 32;
/// Bytes of a codec in one value of the `codec` table.
pub const CODEC_CHUNK_LEN: usize = 1 << 16;
/// Most tensors a codec image may list.
pub const TENSORS_MAX: usize = 16_384;
/// Longest name of a tensor, in bytes.
pub const TENSOR_NAME_LEN_MAX: usize = 255;
/// Longest kind name of a codec image, in bytes.
pub const CODEC_KIND_LEN_MAX: usize = 32;
/// Longest configuration inside a codec image, in bytes.
pub const CODEC_CONFIG_LEN_MAX: usize = 1 << 16;
/// Layers, blocks and the like in a codec's configuration.
pub const LAYERS_MAX: u32 = 256;
/// Widest hidden layer in a codec's configuration.
pub const WIDTH_MAX: u32 = 1 << 16;

// A key always fits in the metadata that names it.
const _: () = assert!(KEY_LEN_MAX < METADATA_LEN_MAX);
// The header of a slot is smaller than what it is allowed to add: fixed part 16, expiry 4, CRC 4.
const _: () = assert!(16 + 4 + 4 <= SLOT_OVERHEAD_MAX);
// Four counter chunks, each with its CRC, its key and redb's offsets, fit in one 4-KiB leaf.
const _: () = assert!(4 * (COUNTERS_PER_CHUNK * 4 + 4 + 4 + 4) + 16 <= 4_096);
// Chunk numbers of the largest codec fit in 32 bits.
const _: () = assert!(CODEC_LEN_MAX / CODEC_CHUNK_LEN as u64 <= u32::MAX as u64);
// The deepest network fits: a coupling of two blocks has 28 tensors and a permutation, a block 10.
const _: () = assert!(LAYERS_MAX as usize * (29 + 10) + 64 <= TENSORS_MAX);
// A record's values can be addressed in bytes on a 32-bit machine.
const _: () = assert!((RECORD_VALUES_MAX as u64) * 4 <= u32::MAX as u64);
