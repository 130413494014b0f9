//! Variables that a caller may set for a command.

use super::{
    PolicyError,
    arguments::{MayRead, Word},
    pattern::matches,
};

/// Variables that make programs run, load or read something else than they would. A `*` of a rule never stands for one of
/// these: a rule that wants them names them.
const DANGEROUS: [&str; 37] = [
    "BASHOPTS",
    "BASH_*",
    "BROWSER",
    "CDPATH",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GIT_*",
    "GLIBC_TUNABLES",
    "HOME",
    "HOSTALIASES",
    "IFS",
    "JAVA_*",
    "JDK_*",
    "LD_*",
    "LESS*",
    "LOCALDOMAIN",
    "LOCPATH",
    "LUA_*",
    "MALLOC_*",
    "NIS_PATH",
    "NLSPATH",
    "NODE_*",
    "PAGER",
    "PATH",
    "PERL*",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHON*",
    "RESOLV_*",
    "RES_OPTIONS",
    "RUBY*",
    "SHELL*",
    "SYSTEMD_*",
    "TMPDIR",
    "VISUAL",
];

/// A variable, or several by a pattern, and which values it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    name: String,
    /// None: any.
    value: Option<Word>,
}

impl Variable {
    /// `NAME` or `NAME=VALUE`, both patterns.
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let (name, value) = match text.split_once('=') {
            None => (text, None),
            Some((name, value)) => (name, Some(Word::parse(value)?)),
        };
        match name.is_empty() {
            true => Err(PolicyError::new(format!("{text:?} has no variable's name"))),
            false => Ok(Self {
                name: name.to_owned(),
                value,
            }),
        }
    }

    /// Whether a caller may set it to `value`, or remove it.
    pub(super) fn allows(&self, name: &str, value: Option<&str>, may_read: MayRead<'_>) -> bool {
        let is_named = self.name == name || (!is_dangerous(name) && matches(&self.name, name));
        let has_value = match (&self.value, value) {
            (None, _) | (_, None) => true,
            (Some(pattern), Some(value)) => pattern.matches(value, may_read),
        };
        is_named && has_value
    }
}

fn is_dangerous(name: &str) -> bool {
    DANGEROUS.iter().any(|pattern| matches(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pattern: &str, name: &str, value: Option<&str>) -> bool {
        let variable = Variable::parse(pattern).unwrap();
        variable.allows(name, value, &|_| false)
    }

    #[test]
    fn a_star_never_stands_for_what_makes_a_program_do_something_else() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "PATH",
            "BASH_ENV",
            "BASH_FUNC_x%%",
            "ENV",
            "IFS",
            "PYTHONPATH",
            "PERL5LIB",
            "LESSOPEN",
            "PAGER",
            "GCONV_PATH",
            "SYSTEMD_PAGER",
        ] {
            assert!(!allowed("*", name, Some("/tmp/x")), "{name}");
            assert!(!allowed("*", name, None), "{name} must not be removed");
            assert!(allowed(name, name, Some("/tmp/x")), "{name}, if named");
        }
        assert!(!allowed("LD_*", "LD_PRELOAD", Some("x")));
        assert!(allowed("*", "LANG", Some("C")));
    }

    #[test]
    fn a_value_may_be_bound() {
        assert!(allowed("LC_*={name}", "LC_ALL", Some("C.UTF-8")));
        assert!(!allowed("LC_*={name}", "LC_ALL", Some("../../tmp/x")));
        assert!(!allowed("LC_*={name}", "LANG", Some("C")));
        assert!(Variable::parse("=x").is_err());
        assert!(Variable::parse("A={x}").is_err());
    }
}
