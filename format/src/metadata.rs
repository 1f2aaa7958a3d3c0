//! Metadata of a memory: JSON-like values under short names, and an optional key.

use crate::frame::{Depth, Framed};
use crate::limits::{FIELD_NAME_LEN_MAX, KEY_LEN_MAX};
use bincode::de::{BorrowDecoder, Decode};
use bincode::enc::Encoder;
use bincode::error::{DecodeError as BinDecodeError, EncodeError as BinEncodeError};
use bincode::{BorrowDecode, Encode};
use std::collections::BTreeMap;

/// Named values of one memory, ordered by name.
pub type Metadata = BTreeMap<String, Value>;

/// A JSON-like value. Integers and floats stay apart, so `9007199254740993` survives.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(Metadata),
}

impl<'de> serde::Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Takes every value that can be kept; a whole number that would lose digits is refused.
struct AnyValue;

impl<'de> serde::de::Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing, a truth, a number, text, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        serde::Deserialize::deserialize(deserializer)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number).map(Value::Int).map_err(|_| {
            E::custom(format_args!(
                "whole numbers up to {} are kept, found {number}; write it as text",
                i64::MAX
            ))
        })
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Metadata::new();
        while let Some((name, value)) = fields.next_entry()? {
            map.insert(name, value);
        }
        Ok(Value::Map(map))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

/// Everything a slot's row in the `metadata` table says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SlotMetadata {
    /// The user's key, so that eviction can follow it back.
    pub key: Option<Vec<u8>>,
    /// The user's values.
    pub values: Metadata,
}

impl Framed for SlotMetadata {
    const KIND: u8 = 1;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "a slot's metadata";
}

impl Encode for Value {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), BinEncodeError> {
        match self {
            Self::Null => 0_u8.encode(encoder),
            Self::Bool(false) => 1_u8.encode(encoder),
            Self::Bool(true) => 2_u8.encode(encoder),
            Self::Int(number) => {
                3_u8.encode(encoder)?;
                number.encode(encoder)
            }
            Self::Float(number) => {
                4_u8.encode(encoder)?;
                number.to_bits().to_le_bytes().encode(encoder)
            }
            Self::Text(text) => {
                5_u8.encode(encoder)?;
                text.as_str().encode(encoder)
            }
            Self::List(list) => {
                6_u8.encode(encoder)?;
                (list.len() as u64).encode(encoder)?;
                list.iter().try_for_each(|value| value.encode(encoder))
            }
            Self::Map(map) => {
                7_u8.encode(encoder)?;
                encode_map(map, encoder)
            }
        }
    }
}

impl<'de> BorrowDecode<'de, Depth> for Value {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Depth>>(
        decoder: &mut D,
    ) -> Result<Self, BinDecodeError> {
        Ok(match u8::decode(decoder)? {
            0 => Self::Null,
            1 => Self::Bool(false),
            2 => Self::Bool(true),
            3 => Self::Int(i64::decode(decoder)?),
            4 => Self::Float(f64::from_bits(u64::from_le_bytes(<[u8; 8]>::decode(decoder)?))),
            5 => Self::Text(<&str>::borrow_decode(decoder)?.to_owned()),
            6 => nested(decoder, |decoder| {
                let len = u64::decode(decoder)?;
                // Grown as values arrive, never reserved: a length is only a claim until its values are there.
                let mut list = Vec::new();
                for _ in 0..len {
                    list.push(Self::borrow_decode(decoder)?);
                }
                Ok(Self::List(list))
            })?,
            7 => nested(decoder, |decoder| decode_map(decoder).map(Self::Map))?,
            found => {
                return Err(BinDecodeError::UnexpectedVariant {
                    type_name: "Value",
                    allowed: &bincode::error::AllowedEnumVariants::Range { min: 0, max: 7 },
                    found: found.into(),
                });
            }
        })
    }
}

/// Runs `decode` one level down. Without a bound, a megabyte of nested lists would overflow the stack.
fn nested<'de, D: BorrowDecoder<'de, Context = Depth>, T>(
    decoder: &mut D,
    decode: impl FnOnce(&mut D) -> Result<T, BinDecodeError>,
) -> Result<T, BinDecodeError> {
    let deeper = decoder.context().0.checked_sub(1).ok_or(BinDecodeError::Other("nested too deeply"))?;
    decoder.context().0 = deeper;
    let value = decode(decoder)?;
    decoder.context().0 = deeper.saturating_add(1);
    Ok(value)
}

fn encode_map<E: Encoder>(map: &Metadata, encoder: &mut E) -> Result<(), BinEncodeError> {
    (map.len() as u64).encode(encoder)?;
    map.iter().try_for_each(|(name, value)| {
        name.as_str().encode(encoder)?;
        value.encode(encoder)
    })
}

fn decode_map<'de, D: BorrowDecoder<'de, Context = Depth>>(
    decoder: &mut D,
) -> Result<Metadata, BinDecodeError> {
    let len = u64::decode(decoder)?;
    let mut map = Metadata::new();
    let mut previous: Option<&str> = None;
    for _ in 0..len {
        let name = <&str>::borrow_decode(decoder)?;
        if name.len() > FIELD_NAME_LEN_MAX {
            return Err(BinDecodeError::Other("a field's name is too long"));
        }
        // One value, one encoding: names rise strictly, so a map cannot be written in two ways.
        if previous.is_some_and(|previous| previous >= name) {
            return Err(BinDecodeError::Other("the names of a map are not in order"));
        }
        map.insert(name.to_owned(), Value::borrow_decode(decoder)?);
        previous = Some(name);
    }
    Ok(map)
}

impl Encode for SlotMetadata {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), BinEncodeError> {
        match &self.key {
            None => 0_u8.encode(encoder)?,
            Some(key) => {
                1_u8.encode(encoder)?;
                key.as_slice().encode(encoder)?;
            }
        }
        encode_map(&self.values, encoder)
    }
}

impl<'de> BorrowDecode<'de, Depth> for SlotMetadata {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Depth>>(
        decoder: &mut D,
    ) -> Result<Self, BinDecodeError> {
        let key = match u8::decode(decoder)? {
            0 => None,
            1 => Some(<&[u8]>::borrow_decode(decoder)?),
            _ => return Err(BinDecodeError::Other("a key is there or it is not")),
        };
        if key.is_some_and(|key| key.is_empty() || key.len() > KEY_LEN_MAX) {
            return Err(BinDecodeError::Other("a key is empty or too long"));
        }
        Ok(Self { key: key.map(<[u8]>::to_vec), values: decode_map(decoder)? })
    }
}
