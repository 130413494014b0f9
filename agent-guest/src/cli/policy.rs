//! The policy: a profile by its name, or a file with rules.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use agent_guest::{Profile, Rule, Rules};
use serde::Deserialize;
use vbridge_settings::FileError;

/// Rules of a file.
const MAX_RULES: usize = 256;

/// Where the rules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// There are none but the profile's.
    Profile(Profile),
    /// In this file.
    File(PathBuf),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "profile")]
    profile: Profile,
    #[serde(default, rename = "rule", deserialize_with = "rules")]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
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
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(profile) => f.write_str(profile.as_str()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Profile(Profile::default())
    }
}

fn read(path: &Path) -> Result<Rules, FileError> {
    let file: File = vbridge_settings::read(path)?;
    let rules = Rules::new(file.profile);
    Ok(file.rules.into_iter().fold(rules, Rules::rule))
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

fn rules<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    use serde::de::Error as _;
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    if entries.len() > MAX_RULES {
        let error = format!("{} rules, and {MAX_RULES} is the most", entries.len());
        return Err(D::Error::custom(error));
    }
    entries
        .into_iter()
        .map(rule)
        .collect::<Result<_, _>>()
        .map_err(D::Error::custom)
}

fn rule(entry: Entry) -> Result<Rule, String> {
    let Entry { name, allow, deny } = entry;
    let shown = name.escape_debug().to_string();
    let (methods, rule) = match (allow, deny) {
        (Some(methods), None) => (methods.clone(), Rule::allow(name, methods)),
        (None, Some(methods)) => (methods.clone(), Rule::deny(name, methods)),
        _ => {
            return Err(format!(
                "rule {shown:?} needs `allow` or `deny`, and not both"
            ));
        }
    };
    match methods.iter().find(|method| !method.contains(['/', '*'])) {
        None if methods.is_empty() => Err(format!("rule {shown:?} names no method")),
        None => Ok(rule),
        Some(method) => Err(format!(
            "rule {shown:?}: {method:?} is no method: write package.Service/Method, in which * is anything"
        )),
    }
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
                "\"all\" is no profile (full, observe)",
            ),
            ("[[rule]]\nname = \"a\"\n", "`allow` or `deny`"),
            ("[[rule]]\nname = \"a\"\nallow = []\n", "names no method"),
            (
                "[[rule]]\nname = \"a\"\ndeny = [\"Exec\"]\n",
                "package.Service/Method",
            ),
            ("[[rule]]\nname = \"a\"\ndney = []\n", "dney"),
            ("rules = 1\n", "rules"),
        ] {
            let error = rules(text).unwrap_err();
            assert!(
                error.contains(words) && error.contains(", line "),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(Source::parse("all").unwrap_err().contains("no path"));
    }
}
