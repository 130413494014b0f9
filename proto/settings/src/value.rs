//! A value that is checked while it is read.

use std::fmt;

use serde::{Deserializer, de::Visitor};

/// Reads a string and lets `check` make of it what it stands for. It is checked inside of the deserializer, so that an
/// error has the line of the value and not of the block around it.
///
/// # Errors
/// It is no string, or `check` refuses it.
pub fn checked<'de, D: Deserializer<'de>, T, E: fmt::Display>(
    deserializer: D,
    check: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Checked(check))
}

struct Checked<F>(F);

impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for Checked<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<D: serde::de::Error>(self, text: &str) -> Result<T, D> {
        (self.0)(text).map_err(D::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use crate::{Format, parse};

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    struct Form {
        port: Port,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Port(u16);

    impl<'de> Deserialize<'de> for Port {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            checked(deserializer, |text| text.parse().map(Self))
        }
    }

    #[test]
    fn a_refused_value_is_named_with_its_own_line() {
        let error = |text: &str, format| {
            let result = parse::<Form>(text, format, Path::new("a"));
            result.unwrap_err().to_string()
        };
        for (text, format) in [
            ("\nport = \"x\"\n", Format::Toml),
            ("\nport: x\n", Format::Yaml),
        ] {
            let error = error(text, format);
            assert!(error.starts_with("a, line 2: "), "{error}");
            assert!(error.contains("invalid digit"), "{error}");
        }
        assert!(error("port = 7\n", Format::Toml).contains("expected a string"));
        let form: Form = parse("port = \"7\"\n", Format::Toml, Path::new("a")).unwrap();
        assert_eq!(form.port, Port(7));
    }
}
