//! Who is let do what: which methods may be called at all.
//!
//! ```text
//!   a method ──▶ the first rule that names it ──▶ allowed, or refused by that rule
//!            └── none ──▶ the profile ──────────▶ allowed, or refused by the profile
//! ```
//!
//! A refusal is PERMISSION_DENIED with `POLICY_DENIED`, names its rule, and is logged. [`Policy`] can be replaced while calls
//! go on: those that were let in go on.

use std::{fmt, sync::Arc};

use tokio::sync::watch;
use tonic::Status;

use crate::error;

/// Characters of a method's name that a log shows: the agent's own are shorter.
const MAX_LOGGED: usize = 128;

/// What [`Profile::Observe`] lets be called: what changes nothing, and gives nobody the content of a file or the words of a
/// command, either of which may hold a secret.
const OBSERVE: [&str; 17] = [
    "grpc.health.v1.Health/*",
    "grpc.reflection.v1.ServerReflection/*",
    "grpc.reflection.v1alpha.ServerReflection/*",
    "vbridge.guest.v1.Events/*",
    "vbridge.guest.v1.Files/List",
    "vbridge.guest.v1.Files/Stat",
    "vbridge.guest.v1.Hardware/List*",
    "vbridge.guest.v1.Metrics/*",
    "vbridge.guest.v1.Network/List*",
    "vbridge.guest.v1.Services/Get",
    "vbridge.guest.v1.Services/L*",
    "vbridge.guest.v1.Storage/FreezeStatus",
    "vbridge.guest.v1.Storage/List*",
    "vbridge.guest.v1.System/Get*",
    "vbridge.guest.v1.System/ListUsers",
    "vbridge.guest.v1.System/Ping",
    "vbridge.guest.v1.Time/Get*",
];

/// What is allowed where no rule says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Everything.
    #[default]
    Full,
    /// What changes nothing. Services of an embedder's own are refused, unless a rule allows them.
    Observe,
}

/// Allows or refuses methods by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    name: String,
    allow: bool,
    methods: Vec<String>,
}

/// The rules in their order, and a profile for what none of them names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    profile: Profile,
    rules: Vec<Rule>,
}

/// The rules that hold now. Clones are the same policy.
#[derive(Clone, Default)]
pub struct Policy(watch::Sender<Arc<Rules>>);

// === impl Profile ===

impl Profile {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 2] = [("full", Self::Full), ("observe", Self::Observe)];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Observe => "observe",
        }
    }

    fn allows(self, method: &str) -> bool {
        match self {
            Self::Full => true,
            Self::Observe => OBSERVE.iter().any(|pattern| matches(pattern, method)),
        }
    }
}

// === impl Rule ===

impl Rule {
    /// Lets these methods be called: `package.Service/Method`, in which `*` is anything.
    pub fn allow(
        name: impl Into<String>,
        methods: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            allow: true,
            methods: methods.into_iter().map(Into::into).collect(),
        }
    }

    /// Refuses these methods: `package.Service/Method`, in which `*` is anything.
    pub fn deny(
        name: impl Into<String>,
        methods: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            allow: false,
            ..Self::allow(name, methods)
        }
    }
}

// === impl Rules ===

impl Rules {
    /// Only a profile.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            rules: Vec::new(),
        }
    }

    /// With one rule more, behind the others.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// What holds where no rule says otherwise.
    pub(crate) fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether `package.Service/Method` may be called, or what refuses it.
    pub(crate) fn decide(&self, method: &str) -> Result<(), String> {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.methods.iter().any(|pattern| matches(pattern, method)));
        match rule {
            Some(rule) if rule.allow => Ok(()),
            Some(rule) => Err(rule.name.clone()),
            None if self.profile.allows(method) => Ok(()),
            None => Err(format!("profile {}", self.profile.as_str())),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// A policy of these rules.
    pub fn new(rules: Rules) -> Self {
        Self(watch::Sender::new(Arc::new(rules)))
    }

    /// Other rules, from the next call on.
    pub fn replace(&self, rules: Rules) {
        self.0.send_replace(Arc::new(rules));
    }

    /// The rules that hold now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.borrow())
    }

    /// Sees the rules that [`replace`](Self::replace) brings from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Rules>> {
        self.0.subscribe()
    }

    /// Lets a call of `/package.Service/Method` in, or says why not.
    pub(crate) fn admit(&self, path: &str) -> Result<(), Status> {
        let method = path.strip_prefix('/').unwrap_or(path);
        self.rules().decide(method).map_err(|rule| {
            let shown: String = method.chars().take(MAX_LOGGED).collect();
            let shown = shown.escape_debug();
            tracing::warn!("{shown} was refused by the policy: {}", rule.escape_debug());
            error::policy_denied(
                &rule,
                format!("the guest's policy does not allow this call ({rule})"),
            )
        })
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policy").field(&self.rules()).finish()
    }
}

/// Whether `text` is what `pattern` describes; `*` stands for any number of any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, mut pattern)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(head) else {
        return false;
    };
    // What lies between two stars is taken where it comes first: that leaves most for the others.
    while let Some((part, behind)) = pattern.split_once('*') {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        pattern = behind;
    }
    rest.ends_with(pattern)
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::discovery::Descriptors;

    #[test]
    fn a_star_is_anything() {
        for (pattern, text, expected) in [
            ("a.B/C", "a.B/C", true),
            ("a.B/C", "a.B/CD", false),
            ("a.B/*", "a.B/C", true),
            ("*/Get*", "a.B/GetThis", true),
            ("*/Get*", "a.B/ForGet", false),
            ("a*b*c", "abcbc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_names_a_method_decides_and_is_named() {
        let rules = Rules::new(Profile::Observe)
            .rule(Rule::deny("no-clock", ["*.Time/*"]))
            .rule(Rule::allow("clock", ["*.Time/Set", "own.Service/*"]));
        assert_eq!(
            rules.decide("vbridge.guest.v1.Time/Set"),
            Err("no-clock".into())
        );
        assert_eq!(rules.decide("own.Service/Any"), Ok(()));
        assert_eq!(
            rules.decide("vbridge.guest.v1.Exec/Run"),
            Err("profile observe".into())
        );
        let status = Policy::new(rules)
            .admit("/vbridge.guest.v1.Time/Get")
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "POLICY_DENIED");
        assert_eq!(info.metadata["rule"], "no-clock");
    }

    #[test]
    fn who_observes_changes_nothing() {
        let methods = Descriptors::built_in().unwrap().methods([
            "vbridge.guest.v1.Accounts",
            "vbridge.guest.v1.Exec",
            "vbridge.guest.v1.Files",
            "vbridge.guest.v1.Hardware",
            "vbridge.guest.v1.Power",
            "vbridge.guest.v1.Services",
            "vbridge.guest.v1.Storage",
            "vbridge.guest.v1.System",
            "vbridge.guest.v1.Time",
            "vbridge.guest.v1.Tunnel",
        ]);
        let rules = Rules::new(Profile::Observe);
        let allowed: Vec<_> = methods
            .iter()
            .filter(|method| rules.decide(method).is_ok())
            .collect();
        for method in &allowed {
            let name = method.rsplit('/').next().unwrap();
            let reads = ["Get", "List", "Stat", "Ping", "Logs", "FreezeStatus"];
            assert!(reads.iter().any(|verb| name.starts_with(verb)), "{method}");
        }
        assert!(allowed.len() > 10, "{allowed:?}");
        assert!(
            methods
                .iter()
                .all(|method| Rules::default().decide(method).is_ok())
        );
    }

    #[test]
    fn other_rules_hold_from_the_next_call_on() {
        let policy = Policy::default();
        let same = policy.clone();
        assert!(same.admit("/a.B/C").is_ok());
        policy.replace(Rules::new(Profile::Observe));
        assert!(same.admit("/a.B/C").is_err());
    }
}
