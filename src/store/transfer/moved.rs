//! Memories of one store on their way into another: encoded again, or as they are where the codec is the same.

use crate::codec::fidelity::{Correction, corrections};
use crate::codec::{Encoded, Fidelity};
use crate::error::Result;
use crate::record::Records;
use crate::store::engine::{Engine, check_made};
use crate::store::staged::{Content, SearchVector};
use crate::stored::Stored;
use apcm_format::{ResidualForm, StoreUuid};

/// Most memories of a transaction, and most values of their records.
const BATCH: usize = 512;
const BATCH_VALUES: usize = 1 << 24;
/// A bounded memory is kept to this share of the error it had, so that its error grows by little: by the roots,
/// a tenth.
const BOUNDED_SHARE: f32 = 0.01;

/// Memories that go together.
pub(crate) fn batch(values: usize) -> usize {
    (BATCH_VALUES / values).clamp(1, BATCH)
}

/// A memory under the codec of where it goes.
pub(crate) struct Transferred {
    pub(crate) content: Box<Content>,
    /// Mean squared error between what it was and what it is.
    pub(crate) added: f32,
    /// Its error now, at most: the original is gone.
    pub(crate) error: f32,
}

/// Encodes memories again, from what a read of them gives. Lossless ones stay lossless, bounded ones keep a
/// residual.
pub(crate) fn encode_again(
    into: &Engine,
    from: StoreUuid,
    all: &[&Stored],
    records: &Records,
) -> Result<Vec<Transferred>> {
    let codec = into.codec.as_ref();
    let (encoded, vectors) = into.encode(records)?;
    check_made("codes of a batch", all.len(), encoded.len())?;
    let wanted = all.iter().map(|stored| fidelity(stored, from)).collect::<Result<Vec<Fidelity>>>()?;
    let residuals = corrections(codec, records, &encoded, &wanted)?;
    let vectors = SearchVector::rows(vectors, into.header.search_dims as usize);
    let transferred = all.iter().zip(encoded).zip(residuals).zip(vectors);
    transferred
        .map(|(((stored, encoded), residual), search)| {
            let added = residual.as_ref().map_or(encoded.error, |residual| residual.error);
            let error = summed(stored.error, added);
            let encoded =
                Encoded { error: summed(stored.error, encoded.error), norm: stored.norm, ..encoded };
            let residual = residual.map(|residual| Correction { error, ..residual });
            let metadata = Content::framed(&stored.metadata)?;
            let key = stored.metadata.key.clone();
            let content = Content::measured(encoded, residual, search, key, metadata);
            Ok(Transferred { content, added, error })
        })
        .collect()
}

/// Takes memories as they are, for a store with the codec that wrote them.
pub(crate) fn as_they_are(into: &Engine, from: StoreUuid, all: &[&Stored]) -> Result<Vec<Transferred>> {
    let codes: Vec<&[u8]> = all.iter().map(|stored| stored.code.as_slice()).collect();
    let vectors = into.search_vectors(&codes)?;
    let vectors = SearchVector::rows(vectors, into.header.search_dims as usize);
    all.iter()
        .zip(vectors)
        .map(|(stored, search)| {
            let kept = stored.residual(from)?;
            // Stored errors are what they are: measured, with a margin, and rounded up once.
            let encoded = Encoded {
                code: stored.code.clone(),
                error: kept.map_or(stored.error, |kept| kept.error_without.get()),
                norm: stored.norm,
                without_predictor: stored.without_predictor,
            };
            let residual = kept.map(|kept| Correction {
                form: kept.form,
                payload: kept.payload.to_vec(),
                error: stored.error,
            });
            let (key, metadata) = (stored.metadata.key.clone(), Content::framed(&stored.metadata)?);
            let content = Box::new(Content { encoded, residual, search, key, metadata, kind: stored.kind });
            Ok(Transferred { content, added: 0.0, error: stored.error })
        })
        .collect()
}

fn fidelity(stored: &Stored, from: StoreUuid) -> Result<Fidelity> {
    Ok(match stored.residual(from)?.map(|residual| residual.form) {
        None => Fidelity::Compact,
        Some(ResidualForm::Lossless) => Fidelity::Lossless,
        // An error of zero leaves no room for a share of it.
        Some(ResidualForm::Bounded) if stored.error > 0.0 => {
            Fidelity::Bounded((stored.error * BOUNDED_SHARE).max(f32::MIN_POSITIVE))
        }
        Some(ResidualForm::Bounded) => Fidelity::Lossless,
    })
}

/// Errors of two moves one after the other add up at most by their roots.
fn summed(before: f32, added: f32) -> f32 {
    if before == 0.0 { added } else { (before.sqrt() + added.sqrt()).powi(2) }
}
