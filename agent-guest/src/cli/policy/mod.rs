//! The policy: a profile by its name, or a file with rules.

mod entries;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use agent_guest::{AddressRule, CommandRule, Limit, PathRule, PolicyError, Profile, Rule, Rules};
use serde::Deserialize;
use vbridge_settings::FileError;

/// Where the rules are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// There are none but the profile's.
    Profile(Profile),
    /// In this file.
    File(PathBuf),
    /// The configuration itself has lists.
    Lists(Box<Lists>),
}

/// Lists of the configuration file, and what they come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lists {
    programs: Vec<String>,
    folders: Option<Vec<String>>,
    rules: Rules,
}

/// A file whose rules have an end, and are about paths where they really lie.
#[derive(Default, Deserialize)]
#[serde(try_from = "File")]
struct Checked(Rules);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "profile")]
    profile: Profile,
    #[serde(default, rename = "rule", deserialize_with = "entries::methods")]
    rules: Vec<Rule>,
    #[serde(default, rename = "command", deserialize_with = "entries::commands")]
    commands: Vec<CommandRule>,
    #[serde(default, rename = "path", deserialize_with = "entries::paths")]
    paths: Vec<PathRule>,
    #[serde(default, rename = "address", deserialize_with = "entries::addresses")]
    addresses: Vec<AddressRule>,
    #[serde(default, rename = "limit", deserialize_with = "entries::limits")]
    limits: Vec<Limit>,
}

// === impl Source ===

impl Source {
    /// A profile's name, or a path.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::File(text.into()));
        }
        named(text)
            .map(Self::Profile)
            .map_err(|error| format!("{error}, and no path of a file either"))
    }

    /// Reads the rules.
    pub(crate) fn rules(&self) -> Result<Rules, FileError> {
        match self {
            Self::Profile(profile) => Ok(Rules::new(*profile)),
            Self::File(path) => read(path),
            Self::Lists(lists) => Ok(lists.rules.clone()),
        }
    }

    /// The configuration's lists, if the rules are these.
    pub(crate) fn lists(&self) -> Option<&Lists> {
        match self {
            Self::Lists(lists) => Some(lists),
            Self::Profile(_) | Self::File(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(profile) => f.write_str(profile.as_str()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Lists(_) => f.write_str("of the configuration's lists"),
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Profile(Profile::default())
    }
}

// === impl Lists ===

impl Lists {
    /// Checks them, and that they are about places where they really lie.
    pub(crate) fn new(programs: Vec<String>, folders: Option<Vec<String>>) -> Result<Self, String> {
        let rules = Rules::of_lists(&programs, folders.as_deref()).and_then(|rules| {
            rules.check_places()?;
            Ok(rules)
        });
        Ok(Self {
            rules: rules.map_err(|error| error.to_string())?,
            programs,
            folders,
        })
    }

    pub(crate) fn programs(&self) -> &[String] {
        &self.programs
    }

    /// `None`: the profile's own.
    pub(crate) fn folders(&self) -> Option<&[String]> {
        self.folders.as_deref()
    }
}

fn read(path: &Path) -> Result<Rules, FileError> {
    let Checked(rules) = vbridge_settings::read(path)?;
    Ok(rules)
}

impl TryFrom<File> for Checked {
    type Error = PolicyError;

    fn try_from(file: File) -> Result<Self, PolicyError> {
        let rules = Rules::new(file.profile);
        let rules = file.rules.into_iter().fold(rules, Rules::rule);
        let rules = file.commands.into_iter().fold(rules, Rules::command);
        let rules = file.paths.into_iter().fold(rules, Rules::path);
        let rules = file.addresses.into_iter().fold(rules, Rules::address);
        let rules = file.limits.into_iter().fold(rules, Rules::limit);
        rules.check()?;
        rules.check_places()?;
        Ok(Self(rules))
    }
}

fn named(text: &str) -> Result<Profile, String> {
    let found = Profile::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, profile)| *profile).ok_or_else(|| {
        let names = Profile::ALL.map(|(name, _)| name).join(", ");
        format!("{text:?} is no profile ({names})")
    })
}

fn profile<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Profile, D::Error> {
    vbridge_settings::checked(deserializer, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        let source = Source::parse(path.to_str().unwrap()).unwrap();
        source.rules().map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_has_a_profile_and_rules_in_their_order() {
        let text = "profile = \"observe\"\n\
            [[rule]]\nname = \"a\"\ndeny = [\"*.Files/*\"]\n\
            [[rule]]\nname = \"b\"\nallow = [\"vbridge.guest.v1.Exec/Run\"]\n";
        let expected = Rules::new(Profile::Observe)
            .rule(Rule::deny("a", ["*.Files/*"]))
            .rule(Rule::allow("b", ["vbridge.guest.v1.Exec/Run"]));
        assert_eq!(rules(text), Ok(expected));
        assert_eq!(rules(""), Ok(Rules::default()));
        assert_eq!(
            Source::parse("observe"),
            Ok(Source::Profile(Profile::Observe))
        );
    }

    #[test]
    fn what_is_no_policy_is_one_sentence_that_says_where() {
        for (text, words) in [
            (
                "profile = \"all\"\n",
                "\"all\" is no profile (full, observe, restricted)",
            ),
            ("[[rule]]\nname = \"a\"\n", "`allow` or `deny`"),
            ("[[rule]]\nname = \"a\"\nallow = []\n", "names no method"),
            (
                "[[rule]]\nname = \"a\"\ndeny = [\"Exec\"]\n",
                "package.Service/Method",
            ),
            ("[[rule]]\nname = \"a\"\ndney = []\n", "dney"),
            ("rules = 1\n", "rules"),
            (
                "[[command]]\nname = \"a\"\nallow = [[\"./x\"]]\n",
                "no program",
            ),
            (
                "[[command]]\nname = \"a\"\nallow = [[\"x\", \"{y}\"]]\n",
                "no pattern",
            ),
            ("[[command]]\nname = \"a\"\nallow = []\n", "no command"),
            (
                "[[command]]\nname = \"a\"\ndeny = [[\"x\"]]\nshell = true\nusers = [\"b\"]\n",
                "grants nothing",
            ),
            (
                "[[path]]\nname = \"a\"\nroot = \"tmp\"\naccess = \"read\"\n",
                "no absolute path",
            ),
            (
                "[[path]]\nname = \"a\"\nroot = \"/tmp\"\naccess = \"all\"\n",
                "none, read, write",
            ),
            (
                "[[path]]\nname = \"a\"\nroot = \"/tmp\"\naccess = \"read\"\ndeny = [\"/x\"]\n",
                "below",
            ),
            ("[[address]]\nname = \"a\"\nallow = [\"x\"]\n", "no address"),
            (
                "[[address]]\nname = \"a\"\nallow = [\"*\"]\nonly = \"x\"\n",
                "connect, listen",
            ),
            (
                "[[limit]]\nname = \"a\"\nmethods = [\"*\"]\n",
                "bounds nothing",
            ),
            (
                "[[limit]]\nname = \"a\"\nmethods = [\"*\"]\nper_second = 0\n",
                "at least 1",
            ),
            (
                "[[limit]]\nname = \"a\"\nmethods = [\"*\"]\nper_second = 1\nper_minute = 1\n",
                "both",
            ),
            (
                "[[limit]]\nname = \"a\"\nmethods = [\"*\"]\nburst = 1\nconcurrent = 1\n",
                "burst",
            ),
            (
                "[[limit]]\nname = \"a\"\nmethods = [\"*\"]\nconcurrent = 1\n[[limit]]\nname = \"a\"\nmethods = [\"*\"]\nconcurrent = 1\n",
                "twice",
            ),
        ] {
            let error = rules(text).unwrap_err();
            assert!(
                error.contains(words) && error.contains(", line "),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        for (text, words) in [
            (
                "[[command]]\nname = \"a\"\nallow = [[\"ls\"]]\n",
                "commands",
            ),
            (
                "[[address]]\nname = \"a\"\nallow = [\"tcp:*:80\"]\n",
                "addresses",
            ),
            (
                "[[path]]\nname = \"a\"\nroot = \"/tmp\"\naccess = \"read\"\n",
                "paths",
            ),
        ] {
            let error = rules(text).unwrap_err();
            assert!(error.contains(words) && error.contains("full"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(rules(&format!("profile = \"restricted\"\n{text}")).is_ok());
        }
        assert!(Source::parse("all").unwrap_err().contains("no path"));
    }
}
