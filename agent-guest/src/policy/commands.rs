//! Commands: the first rule with a line that is the command decides.
//!
//! A program is where it lies, and not what it is called: the name that a caller gives is looked for in the system's own
//! folders whatever PATH says, and what is run is the file in the very directory that the rule's program lies in. Links at
//! the end of a path are left as they are, for some systems have one program behind all names (busybox).

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    PolicyError,
    arguments::{MayRead, Word, is_name},
    environment::Variable,
    pattern::matches,
};

/// Where programs are looked for, whatever any environment says.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Any of these makes a file a program.
const EXECUTABLE: u32 = 0o111;

/// What follows a pattern that stands for any number of words, at the end of a line.
const REST: &str = "...";

/// Allows or refuses commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRule {
    pub(super) name: String,
    pub(super) allow: bool,
    lines: Vec<Line>,
    shell: bool,
    terminal: bool,
    working_directory: bool,
    clear_environment: bool,
    users: Vec<String>,
    groups: Vec<String>,
    environment: Vec<Variable>,
}

/// A command as a rule has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    program: Program,
    words: Vec<Word>,
    rest: Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Program {
    Any,
    /// In one of [`FOLDERS`].
    Named(String),
    /// In this directory, under a name that the pattern is.
    In(PathBuf, String),
}

/// The words behind those that a line has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    None,
    Anything,
    Each(Word),
}

/// A command as a caller wants it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) argv: &'a [String],
    /// It came as a text for the shell.
    pub(crate) is_shell: bool,
    /// The type of its terminal, if it is to have one.
    pub(crate) terminal: Option<&'a str>,
    pub(crate) directory: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) group: Option<&'a str>,
    pub(crate) environment: &'a [(String, Option<String>)],
    /// It is to have none of the agent's own variables.
    pub(crate) clear_environment: bool,
}

/// A file that a name leads to.
#[derive(Debug)]
struct Found {
    /// Device and inode of the directory that it lies in.
    directory: (u64, u64),
    name: String,
    /// Without a link on the way.
    path: PathBuf,
}

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No rule is about it; this is what would be run.
    Open(PathBuf),
    /// This file may be run.
    Run(PathBuf),
    /// There is no such program.
    Missing,
    /// Its name depends on the working directory.
    Relative,
    /// A rule refuses it; with why, if it is about how the command is asked for.
    Refused(String, Option<String>),
}

// === impl CommandRule ===

impl CommandRule {
    /// Lets these commands be run. Each is a program and a pattern for each of its arguments, as `docs/policy.md` has them.
    ///
    /// # Errors
    /// A program or a pattern is none.
    pub fn allow<L: IntoIterator<Item: Into<String>>>(
        name: impl Into<String>,
        lines: impl IntoIterator<Item = L>,
    ) -> Result<Self, PolicyError> {
        Ok(Self {
            name: name.into(),
            allow: true,
            lines: lines
                .into_iter()
                .map(|line| Line::parse(line.into_iter().map(Into::into)))
                .collect::<Result<_, _>>()?,
            shell: false,
            terminal: false,
            working_directory: false,
            clear_environment: false,
            users: Vec::new(),
            groups: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// Refuses these commands.
    ///
    /// # Errors
    /// A program or a pattern is none.
    pub fn deny<L: IntoIterator<Item: Into<String>>>(
        name: impl Into<String>,
        lines: impl IntoIterator<Item = L>,
    ) -> Result<Self, PolicyError> {
        Ok(Self {
            allow: false,
            ..Self::allow(name, lines)?
        })
    }

    /// Its lines are about texts for the shell as well: `/bin/sh`, `-c` and the text. Default: no.
    #[must_use]
    pub fn shell(mut self, shell: bool) -> Self {
        self.shell = shell;
        self
    }

    /// Whether the command may have a terminal. Default: no, for many programs can be made to run others on one.
    #[must_use]
    pub fn terminal(mut self, terminal: bool) -> Self {
        self.terminal = terminal;
        self
    }

    /// Whether the caller may choose the working directory, in a root that may be read. Default: no.
    #[must_use]
    pub fn working_directory(mut self, working_directory: bool) -> Self {
        self.working_directory = working_directory;
        self
    }

    /// Whether the command may be run without the agent's own variables, which may hold what bounds it. Default: no.
    #[must_use]
    pub fn clear_environment(mut self, clear_environment: bool) -> Self {
        self.clear_environment = clear_environment;
        self
    }

    /// Users that the command may be run as, by pattern. Default: none; it runs as the agent does.
    #[must_use]
    pub fn users(mut self, users: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.users = users.into_iter().map(Into::into).collect();
        self
    }

    /// Groups that may be named for it, by pattern. Default: none.
    #[must_use]
    pub fn groups(mut self, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.groups = groups.into_iter().map(Into::into).collect();
        self
    }

    /// Variables that may be set: `NAME` or `NAME=VALUE`, both patterns. Default: none.
    ///
    /// # Errors
    /// One is none.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, PolicyError> {
        let variables = variables.into_iter().map(|it| Variable::parse(it.as_ref()));
        self.environment = variables.collect::<Result<_, _>>()?;
        Ok(self)
    }

    fn line(&self, found: &Found, asked: &Asked<'_>, may_read: MayRead<'_>) -> Option<PathBuf> {
        // A text for the shell is a command of its own kind, but for those who refuse.
        if asked.is_shell && self.allow && !self.shell {
            return None;
        }
        let arguments = asked.argv.get(1..).unwrap_or_default();
        let mut lines = self.lines.iter();
        lines.find_map(|line| {
            let path = line.program.matches(found)?;
            line.takes(arguments, may_read).then_some(path)
        })
    }

    /// What of the way that a command is asked for goes too far.
    fn obstacle(&self, asked: &Asked<'_>, may_read: MayRead<'_>) -> Option<String> {
        let named = |patterns: &[String], name: &str| patterns.iter().any(|it| matches(it, name));
        if asked.user.is_some_and(|user| !named(&self.users, user)) {
            return Some("not as that user".to_owned());
        }
        if asked.group.is_some_and(|it| !named(&self.groups, it)) {
            return Some("not with that group".to_owned());
        }
        match asked.terminal {
            Some(_) if !self.terminal => return Some("not on a terminal".to_owned()),
            Some(term) if !is_name(term) => {
                return Some("not on a terminal of that type".to_owned());
            }
            _ => {}
        }
        if asked.directory.is_some() && !self.working_directory {
            return Some("not in a directory of the caller's choice".to_owned());
        }
        if asked.clear_environment && !self.clear_environment {
            return Some("not without the agent's variables".to_owned());
        }
        let is_allowed = |name: &str, value: Option<&str>| {
            let mut variables = self.environment.iter();
            variables.any(|it| it.allows(name, value, may_read))
        };
        let mut variables = asked.environment.iter();
        let refused = variables.find(|(name, value)| !is_allowed(name, value.as_deref()));
        // The value may be a secret.
        refused.map(|(name, _)| format!("not with the variable {name:?}, or not with that value"))
    }
}

/// What the rules say of a command. Looks at the guest's files.
pub(super) fn decide(
    rules: &[CommandRule],
    asked: &Asked<'_>,
    may_read: MayRead<'_>,
) -> io::Result<Verdict> {
    let name = asked.argv.first().map_or("", String::as_str);
    if name.contains('/') && !name.starts_with('/') {
        return Ok(Verdict::Relative);
    }
    let Some(found) = Found::new(name)? else {
        return Ok(Verdict::Missing);
    };
    for rule in rules {
        let Some(path) = rule.line(&found, asked, may_read) else {
            continue;
        };
        if !rule.allow {
            return Ok(Verdict::Refused(rule.name.clone(), None));
        }
        return Ok(match rule.obstacle(asked, may_read) {
            None => Verdict::Run(path),
            why => Verdict::Refused(rule.name.clone(), why),
        });
    }
    Ok(Verdict::Open(found.path))
}

// === impl Line ===

impl Line {
    fn parse(line: impl Iterator<Item = String>) -> Result<Self, PolicyError> {
        let mut line: Vec<String> = line.collect();
        if line.is_empty() {
            return Err(PolicyError::new("a command must at least have a program"));
        }
        let program = Program::parse(&line.remove(0))?;
        let rest = match line.last().and_then(|last| last.strip_suffix(REST)) {
            None => Rest::None,
            Some("") => Rest::Anything,
            Some(each) => Rest::Each(Word::parse(each)?),
        };
        if rest != Rest::None {
            line.pop();
        }
        let words = line.iter().map(|word| Word::parse(word));
        Ok(Self {
            program,
            words: words.collect::<Result<_, _>>()?,
            rest,
        })
    }

    fn takes(&self, arguments: &[String], may_read: MayRead<'_>) -> bool {
        let Some((first, rest)) = arguments.split_at_checked(self.words.len()) else {
            return false;
        };
        let mut first = self.words.iter().zip(first);
        first.all(|(word, argument)| word.matches(argument, may_read))
            && match &self.rest {
                Rest::None => rest.is_empty(),
                Rest::Anything => true,
                Rest::Each(word) => rest.iter().all(|it| word.matches(it, may_read)),
            }
    }
}

// === impl Program ===

impl Program {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let wrong = || {
            let message = format!(
                "{text:?} is no program: write an absolute path, in whose last name * is anything, a bare name, or *"
            );
            Err(PolicyError::new(message))
        };
        match text.rsplit_once('/') {
            None if text == "*" => Ok(Self::Any),
            None if is_name(text) => Ok(Self::Named(text.to_owned())),
            Some((folder, name)) if text.starts_with('/') && !folder.contains('*') => {
                match matches!(name, "" | "." | "..") {
                    true => wrong(),
                    false => Ok(Self::In(Path::new("/").join(folder), name.to_owned())),
                }
            }
            _ => wrong(),
        }
    }

    /// What is to be run of it, if this is the program.
    fn matches(&self, found: &Found) -> Option<PathBuf> {
        match self {
            Self::Any => Some(found.path.clone()),
            Self::Named(name) => {
                let own = Found::new(name).ok()??;
                let is_same = own.directory == found.directory && own.name == found.name;
                is_same.then_some(own.path)
            }
            Self::In(folder, pattern) => {
                let is_same = directory(folder).ok()? == found.directory;
                (is_same && matches(pattern, &found.name)).then(|| folder.join(&found.name))
            }
        }
    }
}

// === impl Found ===

impl Found {
    /// What an absolute path or a bare name leads to. None if nothing is there.
    fn new(name: &str) -> io::Result<Option<Self>> {
        if name.starts_with('/') {
            return Self::at(Path::new(name));
        }
        for folder in FOLDERS {
            let path = Path::new(folder).join(name);
            let is_program = fs::metadata(&path)
                .is_ok_and(|it| it.is_file() && it.permissions().mode() & EXECUTABLE != 0);
            if is_program {
                return Self::at(&path);
            }
        }
        Ok(None)
    }

    fn at(path: &Path) -> io::Result<Option<Self>> {
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(folder), Some(name)) = (path.parent(), name) else {
            return Ok(None);
        };
        // From here on no link is on the way: what is looked at is what is run.
        let folder = match folder.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            folder => folder?,
        };
        Ok(Some(Self {
            directory: directory(&folder)?,
            name: name.to_owned(),
            path: folder.join(name),
        }))
    }
}

fn directory(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests;
