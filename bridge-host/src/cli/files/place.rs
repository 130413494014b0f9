//! Where a file is: here, or in a guest.

use std::{fmt, path::PathBuf, str::FromStr};

use bridge_host::check_name;

use super::super::output::printable;

/// A file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Here(PathBuf),
    /// In a guest.
    Guest(GuestPath),
}

/// A path in a guest; without a name, in the only one there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct GuestPath {
    pub(super) guest: Option<String>,
    /// From the root on.
    pub(super) path: String,
}

impl FromStr for Place {
    type Err = String;

    /// As scp(1) reads it: what has a colon before its first slash is elsewhere.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((guest, _)) if !guest.contains('/') => text.parse().map(Self::Guest),
            _ if text.is_empty() => Err("a path must not be empty".to_owned()),
            _ => Ok(Self::Here(text.into())),
        }
    }
}

impl FromStr for GuestPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (guest, path) = text.split_once(':').ok_or_else(|| {
            format!(
                "\"{}\" names no guest: write NAME:PATH, or :PATH for the only one",
                text.escape_debug()
            )
        })?;
        let guest = match guest {
            "" => None,
            name => {
                check_name(name).map_err(|error| error.to_string())?;
                Some(name.to_owned())
            }
        };
        if !path.starts_with('/') {
            return Err(format!(
                "\"{}\": a path in a guest begins at its root: write {}:/{}",
                text.escape_debug(),
                guest.as_deref().unwrap_or_default(),
                path.escape_debug()
            ));
        }
        Ok(Self {
            guest,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = self.guest.as_deref().unwrap_or_default();
        write!(f, "{guest}:{}", printable(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(text: &str) -> (Option<String>, String) {
        match text.parse().unwrap() {
            Place::Guest(place) => (place.guest, place.path),
            here => panic!("{here:?}"),
        }
    }

    #[test]
    fn a_colon_before_the_first_slash_means_a_guest() {
        assert_eq!(
            guest("web:/etc/a:b"),
            (Some("web".into()), "/etc/a:b".into())
        );
        assert_eq!(guest(":/"), (None, "/".into()));
        for here in ["a", "/a:b", "./a:b", "../x/y:z"] {
            assert_eq!(here.parse(), Ok(Place::Here(here.into())));
        }
    }

    #[test]
    fn what_is_no_place_is_said() {
        for (text, words) in [
            ("web:etc/hosts", "web:/etc/hosts"),
            ("a b:/x", "only letters"),
            ("", "empty"),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!("/x".parse::<GuestPath>().unwrap_err().contains("NAME:PATH"));
    }
}
