//! Named values with types: how libvirt passes what it may extend.

use std::fmt;

use crate::raw::{admin, remote};

/// Named values, in the daemon's order. A name may appear more than once.
#[derive(Clone, PartialEq, Default)]
pub struct Params(Vec<(String, Value)>);

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A 32-bit number.
    Int(i32),
    /// A 32-bit number without a sign.
    UInt(u32),
    /// A 64-bit number.
    Long(i64),
    /// A 64-bit number without a sign.
    ULong(u64),
    /// A floating-point number.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// A text.
    Text(String),
}

// === impl Params ===

impl Params {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; for building arguments.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter()
            .find_map(|(of, value)| (of == name).then_some(value))
    }

    /// The first value of this name, if it is a number that is not negative.
    pub fn number(&self, name: &str) -> Option<u64> {
        match *self.get(name)? {
            Value::Int(value) => u64::try_from(value).ok(),
            Value::UInt(value) => Some(value.into()),
            Value::Long(value) => u64::try_from(value).ok(),
            Value::ULong(value) => Some(value),
            Value::Double(_) | Value::Boolean(_) | Value::Text(_) => None,
        }
    }

    /// The first value of this name, if it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Defines how parameters travel in a program, each of which has types of its own for them.
macro_rules! program {
    ($program:ident, $to_raw:ident) => {
        impl Params {
            pub(crate) fn $to_raw(&self) -> Vec<$program::TypedParam> {
                self.iter()
                    .map(|(name, value)| $program::TypedParam {
                        field: name.to_owned(),
                        value: match value.clone() {
                            Value::Int(value) => $program::TypedParamValue::Int(value),
                            Value::UInt(value) => $program::TypedParamValue::Uint(value),
                            Value::Long(value) => $program::TypedParamValue::Llong(value),
                            Value::ULong(value) => $program::TypedParamValue::Ullong(value),
                            Value::Double(value) => $program::TypedParamValue::Double(value),
                            Value::Boolean(value) => {
                                $program::TypedParamValue::Boolean(value.into())
                            }
                            Value::Text(value) => $program::TypedParamValue::String(value),
                        },
                    })
                    .collect()
            }
        }

        impl From<Vec<$program::TypedParam>> for Params {
            fn from(raw: Vec<$program::TypedParam>) -> Self {
                raw.into_iter()
                    .map(|param| {
                        let value = match param.value {
                            $program::TypedParamValue::Int(value) => Value::Int(value),
                            $program::TypedParamValue::Uint(value) => Value::UInt(value),
                            $program::TypedParamValue::Llong(value) => Value::Long(value),
                            $program::TypedParamValue::Ullong(value) => Value::ULong(value),
                            $program::TypedParamValue::Double(value) => Value::Double(value),
                            $program::TypedParamValue::Boolean(value) => Value::Boolean(value != 0),
                            $program::TypedParamValue::String(value) => Value::Text(value),
                        };
                        (param.field, value)
                    })
                    .collect()
            }
        }
    };
}

program!(remote, to_raw);
program!(admin, to_admin);

impl FromIterator<(String, Value)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl IntoIterator for Params {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

// === impl Value ===

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::UInt(value) => value.fmt(f),
            Self::Long(value) => value.fmt(f),
            Self::ULong(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

from!(
    i32 => Int,
    u32 => UInt,
    i64 => Long,
    u64 => ULong,
    f64 => Double,
    bool => Boolean,
    String => Text,
    &str => Text,
);
