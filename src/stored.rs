//! A memory as it is stored, and back to what it was.

use crate::codec::fidelity::restore;
use crate::codec::{self, Codec, StoredCode};
use crate::error::{Error, Result};
use crate::memory::{Hit, Memory};
use crate::record::{Record, Records};
use apcm_format::{
    DecodeError, MemoryId, Place, ResidualRecord, SlotKind, SlotMetadata, SlotRecord, StoreUuid, StreamPart,
    Table, frame,
};

/// A slot's stored form, copied out of where it was read: nothing of the file is held on to.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: MemoryId,
    pub(crate) kind: SlotKind,
    /// What the slot holds: of a part of a stream no code, but the part.
    pub(crate) code: Vec<u8>,
    pub(crate) without_predictor: bool,
    pub(crate) pinned: bool,
    pub(crate) written_at: u32,
    pub(crate) expires_at: Option<u32>,
    pub(crate) error: f32,
    pub(crate) norm: f32,
    pub(crate) metadata: SlotMetadata,
    /// Its residual's stored bytes, not yet looked at.
    pub(crate) residual: Option<Vec<u8>>,
}

impl Stored {
    pub(crate) fn new(
        slot: u32,
        record: &SlotRecord<'_>,
        metadata: SlotMetadata,
        residual: Option<Vec<u8>>,
    ) -> Self {
        Self {
            id: MemoryId { slot, seq: record.seq },
            kind: record.kind,
            code: record.code.to_vec(),
            without_predictor: record.flags.without_predictor,
            pinned: record.flags.pinned,
            written_at: record.written_at,
            expires_at: record.expires_at,
            error: record.error.get(),
            norm: record.norm.get(),
            metadata,
            residual,
        }
    }

    /// Names the memory with all that is stored for it: two with the same digest are the same memory.
    ///
    /// # Errors
    /// [`Format`](Error::Format) for metadata that cannot be sealed.
    pub(crate) fn digest(&self) -> Result<[u8; 32]> {
        let place = Place::numbered(StoreUuid([0; 16]), Table::Metadata, 0);
        let metadata = frame::seal(&self.metadata, place)?;
        let numbers = [
            u64::from(self.id.slot),
            self.id.seq,
            u64::from(self.kind == SlotKind::StreamRoot),
            u64::from(self.without_predictor),
            u64::from(self.pinned),
            self.written_at.into(),
            self.expires_at.map_or(u64::MAX, u64::from),
            self.error.to_bits().into(),
            self.norm.to_bits().into(),
            self.code.len() as u64,
            metadata.len() as u64,
            self.residual.as_ref().map_or(u64::MAX, |residual| residual.len() as u64),
        ];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend_from_slice(&self.code);
        bytes.extend_from_slice(&metadata);
        bytes.extend_from_slice(self.residual.as_deref().unwrap_or_default());
        Ok(codec::fingerprint(&bytes).0)
    }

    pub(crate) fn is_there(&self, now: u32) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// What is kept beside its code, checked: it belongs to this very write.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt).
    pub(crate) fn residual(&self, store: StoreUuid) -> Result<Option<ResidualRecord<'_>>> {
        let Some(bytes) = &self.residual else { return Ok(None) };
        let place = Place::numbered(store, Table::Residuals, self.id.slot.into());
        let residual =
            ResidualRecord::decode(bytes, place).map_err(|cause| corrupt_residual(self.id.slot, cause))?;
        if residual.seq != self.id.seq {
            let what = "the write that a residual belongs to";
            let cause = DecodeError::Invalid { what, found: residual.seq };
            return Err(corrupt_residual(self.id.slot, cause));
        }
        Ok(Some(residual))
    }

    pub(crate) fn code(&self) -> StoredCode<'_> {
        StoredCode { bytes: &self.code, without_predictor: self.without_predictor }
    }

    /// The user's key: a part of a stream has one that is not.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.metadata.key.as_deref().filter(|_| self.kind == SlotKind::Record)
    }

    /// The part of a stream that it holds.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt).
    pub(crate) fn part(&self) -> Result<StreamPart> {
        StreamPart::decode(&self.code).map_err(|cause| corrupt_code(self.id.slot, Error::Format(cause)))
    }

    pub(crate) fn into_hit(self, similarity: f32, record: Option<Record>) -> Hit {
        Hit {
            id: self.id,
            key: self.key().map(<[u8]>::to_vec),
            metadata: self.metadata.values,
            similarity,
            error: self.error,
            record,
        }
    }

    pub(crate) fn into_memory(self, record: Record, similarity: Option<f32>) -> Memory {
        Memory {
            id: self.id,
            key: self.key().map(<[u8]>::to_vec),
            metadata: self.metadata.values,
            record,
            error: self.error,
            similarity,
        }
    }
}

/// Decodes memories in one go, each with its residual. None of them is a part of a stream.
pub(crate) fn decode_all(codec: &dyn Codec, store: StoreUuid, all: &[&Stored]) -> Result<Records> {
    let codes: Vec<StoredCode<'_>> = all.iter().map(|stored| stored.code()).collect();
    let slot = all.first().map_or(0, |stored| stored.id.slot);
    let mut records = codec.decode(&codes).map_err(|error| corrupt_code(slot, error))?;
    for (index, stored) in all.iter().enumerate() {
        let Some(residual) = stored.residual(store)? else { continue };
        restore(residual.form, residual.payload, records.row_mut(index)).map_err(|error| match error {
            Error::Format(cause) => corrupt_residual(stored.id.slot, cause),
            other => other,
        })?;
    }
    Ok(records)
}

/// What a search gives back of what it found: memories and their similarities, with records where they are
/// asked for.
pub(crate) fn hits(
    found: Vec<(Stored, f32)>,
    with_records: bool,
    decode: impl FnOnce(&[&Stored]) -> Result<Records>,
) -> Result<Vec<Hit>> {
    let records = if with_records && !found.is_empty() {
        let stored: Vec<&Stored> = found.iter().map(|(stored, _)| stored).collect();
        Some(decode(&stored)?)
    } else {
        None
    };
    let hit = |(index, (stored, similarity)): (usize, (Stored, f32))| {
        stored.into_hit(similarity, records.as_ref().map(|records| records.get(index)))
    };
    Ok(found.into_iter().enumerate().map(hit).collect())
}

/// A code that passed its checksum and that the codec refuses all the same.
pub(crate) fn corrupt_code(slot: u32, error: Error) -> Error {
    match error {
        Error::Format(cause) => Error::Corrupt { what: format!("the code in slot {slot}"), cause },
        other => other,
    }
}

pub(crate) fn corrupt_part(slot: u32, cause: DecodeError) -> Error {
    Error::Corrupt { what: format!("the part of a stream in slot {slot}"), cause }
}

pub(crate) fn corrupt_residual(slot: u32, cause: DecodeError) -> Error {
    Error::Corrupt { what: format!("the residual of slot {slot}"), cause }
}
