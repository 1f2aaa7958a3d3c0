//! Small enums as text, both ways.

use std::fmt;

/// A text that names no variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// What it should name.
    pub what: &'static str,
    /// The names there are.
    pub expected: &'static str,
    /// The text.
    pub found: String,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is one of {}, found {:?}", self.what, self.expected, self.found)
    }
}

impl std::error::Error for UnknownName {}

/// `Display` and `FromStr` of an enum without fields: the names that its JSON has.
#[doc(hidden)]
#[macro_export]
macro_rules! named {
    ($type:ty, $what:literal, $first:ident => $first_name:literal $(, $variant:ident => $name:literal)*) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    Self::$first => $first_name,
                    $(Self::$variant => $name,)*
                })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::UnknownName;

            fn from_str(text: &str) -> Result<Self, $crate::UnknownName> {
                match text {
                    $first_name => Ok(Self::$first),
                    $($name => Ok(Self::$variant),)*
                    found => Err($crate::UnknownName {
                        what: $what,
                        expected: concat!($first_name $(, ", ", $name)*),
                        found: found.to_owned(),
                    }),
                }
            }
        }
    };
}
