//! Names of units as systemd.unit(5) has them, and patterns of names.
//!
//! What has become a [`UnitName`] or a [`Pattern`] begins with no dash and holds neither spaces nor slashes: it can't be taken
//! for an option or for a path.

use std::fmt;

use crate::limits::MAX_UNIT_NAME;

/// What a name ends with, which says of what kind the unit is.
const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// What a name without a suffix is.
const SERVICE: &str = ".service";

/// A unit's full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitName(String);

/// A pattern of names, as fnmatch(3) has it; a name is one, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl UnitName {
    /// The name, with a suffix if it has none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        check(text, |c| is_letter(c) || c == '@')?;
        let name = with_suffix(text);
        // `with_suffix` sees to it that there is a dot.
        let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem);
        if stem.is_empty() || stem.starts_with('@') {
            return Err(format!("{text:?} has nothing before its suffix or its @"));
        }
        check_length(&name)?;
        Ok(Self(name))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// What the unit is: `service`, `timer` …
    pub(crate) fn kind(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, kind)| kind)
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// The pattern; a name without a suffix is a service's.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        check(text, |c| is_letter(c) || "@*?[]!^".contains(c))?;
        let is_name = !text.contains(['*', '?', '[']);
        let pattern = match is_name {
            true => with_suffix(text),
            false => text.to_owned(),
        };
        check_length(&pattern)?;
        Ok(Self(pattern))
    }

    /// All services.
    pub(crate) fn services() -> Self {
        Self(format!("*{SERVICE}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str, may: impl Fn(char) -> bool) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    // Before it is repeated in an error.
    check_length(text)?;
    // systemd's own root slice is called so; journalctl or a shell would take others for options.
    if text.starts_with('-') && text != "-.slice" && text != "-.mount" {
        return Err(format!("{text:?} begins with a dash"));
    }
    match text.chars().find(|c| !may(*c)) {
        Some(c) => Err(format!(
            "{text:?} has the character {c:?}, which no unit's name has: other characters are escaped, see systemd-escape(1)"
        )),
        None => Ok(()),
    }
}

fn check_length(name: &str) -> Result<(), String> {
    match name.len() > MAX_UNIT_NAME {
        true => Err(format!(
            "has {} bytes, and {MAX_UNIT_NAME} is the most",
            name.len()
        )),
        false => Ok(()),
    }
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":-_.\\".contains(c)
}

fn with_suffix(text: &str) -> String {
    match text.rsplit_once('.') {
        Some((_, suffix)) if SUFFIXES.contains(&suffix) => text.to_owned(),
        _ => format!("{text}{SERVICE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_known_suffix_is_a_services() {
        for (text, name, kind) in [
            ("nginx", "nginx.service", "service"),
            ("nginx.service", "nginx.service", "service"),
            ("org.example", "org.example.service", "service"),
            ("getty@tty1", "getty@tty1.service", "service"),
            ("getty@.service", "getty@.service", "service"),
            ("a@b@c.timer", "a@b@c.timer", "timer"),
            (r"dev-disk\x2d1.device", r"dev-disk\x2d1.device", "device"),
            ("-.mount", "-.mount", "mount"),
        ] {
            let parsed = UnitName::parse(text).unwrap();
            assert_eq!((parsed.as_str(), parsed.kind()), (name, kind));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(MAX_UNIT_NAME - SERVICE.len() + 1);
        for text in [
            "",
            ".service",
            "@.service",
            "@x.service",
            "a b",
            "a/b.service",
            "/etc/passwd",
            "a\n",
            "a\0",
            "ü",
            "nginx*",
            "--force",
            "-u",
            "--.slice",
            "a=b",
            &long,
        ] {
            assert!(UnitName::parse(text).is_err(), "{text:?}");
        }
        assert!(UnitName::parse(&long[1..]).is_ok());
    }

    #[test]
    fn a_pattern_is_left_as_it_is_and_a_name_completed() {
        for (text, pattern) in [
            ("nginx", "nginx.service"),
            ("nginx*", "nginx*"),
            ("*.timer", "*.timer"),
            ("[!a-c]?.socket", "[!a-c]?.socket"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap().as_str(), pattern);
        }
        for text in ["", "--all", "a b*", "/dev/*", "*\n"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }
}
