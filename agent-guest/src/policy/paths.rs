//! Paths: which root a caller's path lies in, and what is closed below it.
//!
//! The innermost root decides, however the rules are ordered; of two for one directory it is the first. A root is a place
//! to begin at, and no prefix to be compared: [`crate::files`] opens it and walks down from there, name by name, and asks the
//! [`Fence`] at each whether it is closed. A link that leads out of the root is refused, wherever it leads to.
//!
//! What a way through a link comes to is asked about where it really lies. A rule that is written through a link would not
//! be about that, and [`PathRule::check_place`] finds it.

use std::{
    iter,
    path::{Path, PathBuf},
};

use super::{PolicyError, pattern::matches};

/// What may be done with what lies in a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    None,
    /// It may be read, and looked at.
    Read,
    /// It may be changed as well.
    Write,
}

/// A root, and what may be done below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    pub(super) name: String,
    root: Vec<String>,
    pub(super) access: Access,
    closed: Vec<Closed>,
}

/// What is closed below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Closed {
    /// What lies at this path below it; each name is a pattern.
    At(Vec<String>),
    /// What has such a name, wherever it lies.
    Named(String),
}

/// What keeps a call in its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    /// The rule, for refusals.
    pub(crate) rule: String,
    root: Vec<String>,
    closed: Vec<Closed>,
}

// === impl Access ===

impl Access {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("read", Self::Read),
        ("write", Self::Write),
    ];
}

// === impl PathRule ===

impl PathRule {
    /// Lets this be done with what lies in the directory `root`, an absolute path.
    ///
    /// # Errors
    /// It is no absolute path, or has `..` in it.
    pub fn new(name: impl Into<String>, root: &str, access: Access) -> Result<Self, PolicyError> {
        Ok(Self {
            name: name.into(),
            root: names(root)?,
            access,
            closed: Vec::new(),
        })
    }

    /// Closes this below it: an absolute path, each name of which may have `*`, or a bare name, which is closed at any depth.
    ///
    /// # Errors
    /// It does not lie below the root, or is neither of these.
    pub fn deny(
        mut self,
        closed: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, PolicyError> {
        for text in closed {
            let text = text.as_ref();
            let closed = match text.contains('/') {
                false if matches!(text, "" | "." | "..") => {
                    return Err(PolicyError::new(format!("{text:?} is no name")));
                }
                false => Closed::Named(text.to_owned()),
                true => match names(text)?.strip_prefix(self.root.as_slice()) {
                    None | Some([]) => {
                        let root = self.root.join("/");
                        return Err(PolicyError::new(format!(
                            "{text:?} does not lie below \"/{root}\", the root that it is denied in"
                        )));
                    }
                    Some(below) => Closed::At(below.to_vec()),
                },
            };
            self.closed.push(closed);
        }
        Ok(self)
    }

    /// Whether the root, and what is closed at a path, lie in the guest where they are written. Looks at the guest's files;
    /// what is not there yet lies where it is written.
    pub(super) fn check_place(&self) -> Result<(), PolicyError> {
        let closed = self.closed.iter().filter_map(|closed| match closed {
            Closed::Named(_) => None,
            Closed::At(below) => Some([self.root.as_slice(), literal(below)].concat()),
        });
        for names in iter::once(self.root.clone()).chain(closed) {
            let written = Path::new("/").join(names.join("/"));
            let real = real(&written);
            if real != written {
                let (name, written, real) = (&self.name, written.display(), real.display());
                return Err(PolicyError::new(format!(
                    "rule {name:?}: {written} lies at {real} here: write that"
                )));
            }
        }
        Ok(())
    }

    /// Whether the root of another rule lies in this one's, or is the same.
    pub(super) fn holds(&self, other: &Self) -> bool {
        other.root.starts_with(&self.root)
    }

    /// Lets nothing be done in this root.
    pub(super) fn closed_by(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            access: Access::None,
            closed: Vec::new(),
            ..self.clone()
        }
    }

    /// A root that lies in this one, with what this gives there and no more. None if that is closed.
    pub(super) fn narrowed(&self, inner: Self) -> Option<Self> {
        let below = inner.root.get(self.root.len()..)?;
        let mut closed = Vec::new();
        for it in &self.closed {
            match it {
                Closed::Named(pattern) if below.iter().any(|name| matches(pattern, name)) => {
                    return None;
                }
                Closed::Named(_) => closed.push(it.clone()),
                Closed::At(path) if !path.iter().zip(below).all(|(a, b)| matches(a, b)) => {}
                Closed::At(path) => match path.get(below.len()..) {
                    None | Some([]) => return None,
                    Some(rest) => closed.push(Closed::At(rest.to_vec())),
                },
            }
        }
        let access = self.access;
        Some(Self {
            access,
            closed,
            ..inner
        })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.root.is_empty()
    }
}

/// The root that a path lies in, if there is one, and whether `access` is more than it gives.
pub(super) fn find<'a>(rules: &'a [PathRule], path: &str) -> Option<&'a PathRule> {
    let path: Vec<&str> = split(path).collect();
    let holds = |rule: &PathRule| {
        path.len() >= rule.root.len() && rule.root.iter().zip(&path).all(|(a, b)| a == b)
    };
    // `max_by_key` gives the last of equals.
    let found = rules.iter().rev().filter(|rule| holds(rule));
    found.max_by_key(|rule| rule.root.len())
}

/// The fence of a root: what its rule closes, and the other roots that lie in it.
pub(super) fn fence(rules: &[PathRule], rule: &PathRule) -> Fence {
    let mut closed = rule.closed.clone();
    let inner = rules
        .iter()
        .filter_map(|other| other.root.strip_prefix(rule.root.as_slice()));
    closed.extend(
        inner
            .filter(|below| !below.is_empty())
            .map(|below| Closed::At(below.to_vec())),
    );
    Fence {
        rule: rule.name.clone(),
        root: rule.root.clone(),
        closed,
    }
}

/// The names before the first that is a pattern.
fn literal(names: &[String]) -> &[String] {
    let mut parts = names.split(|name| name.contains('*'));
    parts.next().unwrap_or_default()
}

/// Where a path leads to, as far as something is there.
fn real(path: &Path) -> PathBuf {
    let mut above = path.ancestors();
    let found = above.find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some((above.canonicalize().ok()?, rest))
    });
    match found {
        Some((real, rest)) => real.iter().chain(rest).collect(),
        None => path.to_owned(),
    }
}

fn split(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !matches!(*name, "" | "."))
}

fn names(path: &str) -> Result<Vec<String>, PolicyError> {
    let names: Vec<String> = split(path).map(str::to_owned).collect();
    match path.starts_with('/') && !names.iter().any(|name| name == "..") {
        true => Ok(names),
        false => Err(PolicyError::new(format!(
            "{path:?} is no absolute path without \"..\""
        ))),
    }
}

// === impl Fence ===

impl Fence {
    /// The root, below the guest's own.
    pub(crate) fn root(&self) -> String {
        self.root.join("/")
    }

    /// Whether it is the guest's own root, which absolute links start from.
    pub(crate) fn is_whole(&self) -> bool {
        self.root.is_empty()
    }

    /// Whether what lies at `place`, the names from the root on, is closed. Those above it have been asked about already.
    pub(crate) fn closes(&self, place: &[Vec<u8>]) -> bool {
        self.closed.iter().any(|closed| match closed {
            Closed::Named(pattern) => place.last().is_some_and(|name| is(pattern, name)),
            Closed::At(path) => {
                path.len() == place.len() && path.iter().zip(place).all(|(a, b)| is(a, b))
            }
        })
    }

    /// Whether something can be closed below the directory at `place` that would not be at another place.
    pub(crate) fn closes_below(&self, place: &[Vec<u8>]) -> bool {
        self.closed.iter().any(|closed| match closed {
            Closed::Named(_) => false,
            Closed::At(path) => {
                path.len() > place.len() && path.iter().zip(place).all(|(a, b)| is(a, b))
            }
        })
    }
}

fn is(pattern: &str, name: &[u8]) -> bool {
    matches(pattern, &String::from_utf8_lossy(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Vec<Vec<u8>> {
        split(path).map(|name| name.as_bytes().to_vec()).collect()
    }

    fn rules() -> Vec<PathRule> {
        let rule = |name: &str, root, access| PathRule::new(name, root, access).unwrap();
        vec![
            rule("all", "/", Access::Read).deny(["*.key"]).unwrap(),
            rule("home", "/home/", Access::Write)
                .deny(["/home/*/.ssh"])
                .unwrap(),
            rule("ann", "/home/ann", Access::None),
            rule("late", "/home", Access::Read),
        ]
    }

    #[test]
    fn the_innermost_root_decides_and_of_equals_the_first() {
        let rules = rules();
        for (path, expected) in [
            ("/", "all"),
            ("/homes", "all"),
            ("/home", "home"),
            ("/home/bob/x", "home"),
            ("/home/ann", "ann"),
            ("/home/ann/x", "ann"),
            ("/home/annie", "home"),
        ] {
            assert_eq!(find(&rules, path).unwrap().name, expected, "{path}");
        }
        assert!(find(&rules[1..], "/etc").is_none());
    }

    #[test]
    fn what_is_denied_and_other_roots_are_closed() {
        let rules = rules();
        let home = fence(&rules, &rules[1]);
        assert!(home.closes(&place("/bob/.ssh")));
        assert!(home.closes(&place("/ann")), "a root of its own");
        assert!(!home.closes(&place("/bob/ssh")));
        assert!(!home.closes(&place("/bob/sub/.ssh")));
        assert!(home.closes_below(&place("/bob")));
        assert!(!home.closes_below(&place("/bob/sub")));
        let all = fence(&rules, &rules[0]);
        assert!(all.closes(&place("/home")) && all.closes(&place("/deep/in/x.key")));
        assert!(!all.closes_below(&place("/deep")));
    }

    #[test]
    fn what_is_written_through_a_link_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let at = |name: &str| base.join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at("run/secrets")).unwrap();
        std::os::unix::fs::symlink("run", at("link")).unwrap();
        let check = |root: &str, closed: &[&str]| {
            let rule = PathRule::new("x", &at(root), Access::Read).unwrap();
            let closed = closed.iter().map(|name| at(name));
            rule.deny(closed).unwrap().check_place()
        };
        for (root, closed) in [
            ("run", &["run/secrets", "run/*/link", "run/missing/x"][..]),
            ("missing", &[]),
            ("", &["*/secrets", "run/secrets/*.key"]),
        ] {
            assert_eq!(check(root, closed), Ok(()), "{root} {closed:?}");
        }
        for (root, closed, real) in [
            ("link", &[][..], "run"),
            ("link/secrets", &[], "run/secrets"),
            ("link/missing", &[], "run/missing"),
            ("", &["link/secrets"], "run/secrets"),
            ("", &["run/secrets", "link/missing/*"], "run/missing"),
            ("", &["link/*/x"], "run"),
        ] {
            let error = check(root, closed).unwrap_err().to_string();
            let end = format!(" lies at {} here: write that", at(real));
            assert!(
                error.starts_with("rule \"x\": ") && error.ends_with(&end),
                "{error}"
            );
        }
        let named = PathRule::new("x", "/", Access::Read).unwrap();
        assert_eq!(named.deny(["link"]).unwrap().check_place(), Ok(()));
    }

    #[test]
    fn a_root_and_what_is_closed_in_it_are_checked() {
        for wrong in ["", "tmp", "/tmp/../etc"] {
            assert!(PathRule::new("x", wrong, Access::Read).is_err(), "{wrong}");
        }
        let rule = PathRule::new("x", "/etc", Access::Read).unwrap();
        for wrong in ["/etc", "/tmp/x", "a/b", "..", ""] {
            assert!(rule.clone().deny([wrong]).is_err(), "{wrong}");
        }
    }
}
