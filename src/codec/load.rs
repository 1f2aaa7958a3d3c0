//! From the image in a file to the codec that wrote it.

use super::device::Device;
use super::flow::{self, FlowCodec};
use super::interface::Codec;
use super::plain::{self, PlainCodec};
use crate::error::{Error, Result};
use apcm_format::CodecImage;

/// Loads a codec from the bytes of its image, on a device.
///
/// # Errors
/// [`Format`](Error::Format) for damaged bytes, [`UnknownCodec`](Error::UnknownCodec) for a codec of the user's
/// own.
pub fn load(image: &[u8], device: Device) -> Result<Box<dyn Codec>> {
    let image = CodecImage::decode(image)?;
    match image.kind.as_str() {
        flow::KIND => Ok(Box::new(FlowCodec::from_image(&image, device)?)),
        plain::KIND => Ok(Box::new(PlainCodec::from_image(&image)?)),
        _ => Err(Error::UnknownCodec { kind: image.kind }),
    }
}
