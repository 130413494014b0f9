//! Who is let do what: which methods, which commands, which paths and addresses, and how much of it at once.
//!
//! ```text
//!   a call
//!     │ method ──▶ the first rule that names it ── none ──▶ the profile ───────▶ POLICY_DENIED, with the rule's name
//!     │ limits ──▶ each that names the method: a token, a place ───────────────▶ RATE_LIMITED, TOO_MANY, with the same
//!     ▼
//!   its service: what does the call lead to?
//!     │ Exec     ──▶ the first rule with a line that is the command ─ none ────▶ the profile ─▶ POLICY_DENIED
//!     │                └─ then user, terminal, directory, variables, as that rule has them
//!     │ Files    ──▶ the innermost root that the path lies in ─────── none ────▶ the profile ─▶ POLICY_DENIED
//!     │                └─ then its access, and all that is opened from there on
//!     │ Tunnel   ──▶ the first rule about the address, once it is looked up ─ none ▶ the profile
//!     ▼
//!   done: within what was granted
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`methods`] | rules of methods, and what observing is |
//! | [`commands`], [`arguments`], [`environment`] | rules of commands |
//! | [`paths`] | roots, and what is closed in them |
//! | [`addresses`] | where tunnels lead |
//! | [`limits`] | how many calls |
//! | [`held`] | all of it as it holds now |
//! | [`restricted`] | the lists of the profile of that name |
//! | [`lists`] | lists of one's own in their place |
//!
//! What is refused is logged, with names and never with contents. [`Policy`] can be replaced while calls go on: those that
//! were let in go on, and keep their places in the limits.

mod addresses;
mod arguments;
mod commands;
mod environment;
mod held;
mod limits;
mod lists;
mod methods;
mod paths;
mod pattern;
mod restricted;

use std::{fmt, sync::Arc, time::Instant};

use tokio::sync::watch;
use tonic::Status;

use self::methods::OBSERVE;
pub use self::{
    addresses::{AddressRule, AddressUse},
    commands::CommandRule,
    limits::Limit,
    methods::Rule,
    paths::{Access, PathRule},
};
pub(crate) use self::{
    addresses::{Site, Wanted},
    commands::Asked,
    held::Held,
    limits::Places,
    paths::Fence,
};
use crate::error;

/// Characters of a name that a log or a message shows: the agent's own are shorter.
const MAX_SHOWN: usize = 128;

/// What is allowed where no rule says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Everything.
    #[default]
    Full,
    /// What changes nothing. Services of an embedder's own are refused, unless a rule allows them.
    Observe,
    /// What observing allows, the journal, files in some folders, some commands that look, and only so many calls. Services
    /// of an embedder's own are refused, unless a rule allows them.
    Restricted,
}

/// A rule that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

/// The rules in their order, and a profile for what none of them is about.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    profile: Profile,
    rules: Vec<Rule>,
    commands: Vec<CommandRule>,
    paths: Vec<PathRule>,
    addresses: Vec<AddressRule>,
    limits: Vec<Limit>,
    /// A text for the shell is taken as its words, where it is nothing else.
    divides_texts: bool,
}

/// The rules that hold now. Clones are the same policy.
#[derive(Clone, Default)]
pub struct Policy(watch::Sender<Arc<Held>>);

// === impl PolicyError ===

impl PolicyError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

// === impl Profile ===

impl Profile {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("full", Self::Full),
        ("observe", Self::Observe),
        ("restricted", Self::Restricted),
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Observe => "observe",
            Self::Restricted => "restricted",
        }
    }

    /// How a refusal names it.
    fn rule(self) -> String {
        format!("profile {}", self.as_str())
    }

    fn allows(self, method: &str) -> bool {
        match self {
            Self::Full => true,
            Self::Observe => methods::names(&OBSERVE, method),
            Self::Restricted => restricted::allows(method),
        }
    }

    /// What may be done with paths that no rule is about.
    fn access(self) -> Access {
        match self {
            Self::Full => Access::Write,
            Self::Observe => Access::Read,
            Self::Restricted => Access::None,
        }
    }
}

// === impl Rules ===

impl Rules {
    /// Only a profile.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            ..Self::default()
        }
    }

    /// With one rule for methods more, behind the others.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// With one rule for commands more, behind the others and before those of the profile.
    #[must_use]
    pub fn command(mut self, rule: CommandRule) -> Self {
        self.commands.push(rule);
        self
    }

    /// With one root more. It goes before one of the profile for the same directory.
    #[must_use]
    pub fn path(mut self, rule: PathRule) -> Self {
        self.paths.push(rule);
        self
    }

    /// With one rule for the addresses of tunnels more, behind the others.
    #[must_use]
    pub fn address(mut self, rule: AddressRule) -> Self {
        self.addresses.push(rule);
        self
    }

    /// With one limit more. One of the name of one of the profile's takes its place.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Whether rules that only allow have an end: under [`Profile::Full`] they would be no bound at all.
    ///
    /// # Errors
    /// What such rules leave over is allowed as well.
    pub fn check(&self) -> Result<(), PolicyError> {
        let wrong = |kind: &str, end: &str| {
            Err(PolicyError::new(format!(
                "the profile \"full\" allows what the rules for {kind} do not name as well: {end}, or choose another profile"
            )))
        };
        match self.profile {
            Profile::Observe | Profile::Restricted => Ok(()),
            Profile::Full if self.commands.last().is_some_and(|rule| rule.allow) => {
                wrong("commands", "end with one that denies [[\"*\", \"...\"]]")
            }
            Profile::Full if self.addresses.last().is_some_and(|rule| rule.allow) => {
                wrong("addresses", "end with one that denies [\"*\"]")
            }
            Profile::Full
                if !self.paths.is_empty() && !self.paths.iter().any(PathRule::is_everything) =>
            {
                wrong(
                    "paths",
                    "give one for the root \"/\", perhaps with access = \"none\"",
                )
            }
            Profile::Full => Ok(()),
        }
    }

    /// Whether all roots, and what is closed in them at a path, lie in the guest where they are written, and not behind a link:
    /// such a rule would never be about what lies there. Looks at the guest's files.
    ///
    /// # Errors
    /// One lies somewhere else.
    pub fn check_places(&self) -> Result<(), PolicyError> {
        self.paths.iter().try_for_each(PathRule::check_place)
    }

    /// Whether a text for the shell that needs none is the command that it names.
    pub(crate) fn divides_texts(&self) -> bool {
        self.divides_texts
    }

    /// What holds where no rule says otherwise.
    pub(crate) fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether `package.Service/Method` may be called, or what refuses it.
    pub(crate) fn decide(&self, method: &str) -> Result<(), String> {
        let rule = self.rules.iter().find(|rule| rule.names(method));
        match rule {
            Some(rule) if rule.allow => Ok(()),
            Some(rule) => Err(rule.name.clone()),
            None if self.profile.allows(method) => Ok(()),
            None => Err(self.profile.rule()),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// A policy of these rules.
    pub fn new(rules: Rules) -> Self {
        let held = Held::new(rules, &Held::default());
        Self(watch::Sender::new(Arc::new(held)))
    }

    /// Other rules, from the next call on.
    pub fn replace(&self, rules: Rules) {
        self.0
            .send_modify(|held| *held = Arc::new(Held::new(rules, held)));
    }

    /// The rules that hold now.
    pub(crate) fn rules(&self) -> Arc<Held> {
        Arc::clone(&self.0.borrow())
    }

    /// Sees the rules that [`replace`](Self::replace) brings from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Held>> {
        self.0.subscribe()
    }

    /// Lets a call of `/package.Service/Method` in, or says why not.
    pub(crate) fn admit(&self, path: &str) -> Result<(), Status> {
        let method = name(path);
        self.rules().decide(method).map_err(|rule| {
            tracing::warn!(
                "{} was refused by the policy: {}",
                shown(method),
                rule.escape_debug()
            );
            error::policy_denied(
                &rule,
                format!("the guest's policy does not allow this call ({rule})"),
            )
        })
    }

    /// Gives a call its places in the limits, or says which has none; none where no limit is about it.
    pub(crate) fn enter(&self, path: &str) -> Result<Option<Places>, Status> {
        self.rules().limiter.enter(name(path), Instant::now())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policy").field(&self.rules().rules).finish()
    }
}

/// What a rule refuses of what a call leads to.
pub(crate) fn refused(rule: &str, what: &str) -> Status {
    tracing::warn!("{what} was refused by the policy: {}", rule.escape_debug());
    let message = format!("the guest's policy does not allow {what} ({rule})");
    error::policy_denied(rule, message)
}

/// A method's name, of a path of HTTP.
fn name(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// A name that a caller has given, as a log may show it.
pub(crate) fn shown(name: &str) -> String {
    let shown: String = name.chars().take(MAX_SHOWN).collect();
    shown.escape_debug().to_string()
}

#[cfg(test)]
mod tests;
