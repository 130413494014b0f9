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
//! | [`restricted`] | the lists of the profile of that name |
//!
//! What is refused is logged, with names and never with contents. [`Policy`] can be replaced while calls go on: those that
//! were let in go on, and keep their places in the limits.

mod addresses;
mod arguments;
mod commands;
mod environment;
mod limits;
mod methods;
mod paths;
mod pattern;
mod restricted;

use std::{fmt, ops::Deref, path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::watch;
use tonic::Status;

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
    limits::Places,
    paths::Fence,
};
use self::{commands::Verdict, limits::Limiter, methods::OBSERVE};
use crate::{
    error::{self, Reason},
    files::failure,
};

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
    /// What observing allows, files in some folders, some commands that look, and only so many calls. Services of an
    /// embedder's own are refused, unless a rule allows them.
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
}

/// Rules that hold, with what the profile adds to them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    rules: Rules,
    commands: Vec<CommandRule>,
    paths: Vec<PathRule>,
    limiter: Limiter,
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

// === impl Held ===

impl Held {
    fn new(rules: Rules, old: &Self) -> Self {
        let (mut commands, mut paths) = (rules.commands.clone(), rules.paths.clone());
        let mut limits = rules.limits.clone();
        match rules.profile {
            Profile::Restricted => {
                // They are constants that a test reads. Without them everything would be refused.
                commands.extend(restricted::commands().unwrap_or_default());
                paths.extend(restricted::paths().unwrap_or_default());
                let own = restricted::limits().into_iter();
                let own = own.filter(|own| !rules.limits.iter().any(|it| it.name() == own.name()));
                limits.extend(own.collect::<Vec<_>>());
            }
            // What no rule is about is a root as well, so that no link leads from it into one.
            profile if !paths.is_empty() => {
                paths.extend(PathRule::new(profile.rule(), "/", profile.access()));
            }
            Profile::Full | Profile::Observe => {}
        }
        Self {
            limiter: Limiter::new(&limits, &old.limiter),
            rules,
            commands,
            paths,
        }
    }

    /// Why a method that may be called can still do nothing; none if it can.
    pub(crate) fn obstacle(&self, method: &str) -> Option<String> {
        let is_full = self.profile == Profile::Full;
        let method = method.strip_prefix("vbridge.guest.v1.")?;
        let (what, is_possible) = match method {
            "Exec/Run" | "Exec/Start" => (
                "command",
                is_full || self.commands.iter().any(|rule| rule.allow),
            ),
            "Tunnel/Connect" => (
                "address",
                is_full || self.leads_anywhere(AddressUse::Connect),
            ),
            "Tunnel/Listen" => (
                "address",
                is_full || self.leads_anywhere(AddressUse::Listen),
            ),
            "Files/Write"
            | "Files/Mkdir"
            | "Files/Remove"
            | "Files/Rename"
            | "Files/PushTree"
            | "Files/SetAttributes" => ("path that may be changed", self.gives(Access::Write)),
            method if method.starts_with("Files/") => {
                ("path that may be read", self.gives(Access::Read))
            }
            _ => return None,
        };
        (!is_possible).then(|| format!("the policy allows no {what} ({})", self.profile.rule()))
    }

    fn leads_anywhere(&self, purpose: AddressUse) -> bool {
        let mut rules = self.rules.addresses.iter();
        rules.any(|rule| rule.allow && rule.is_for(purpose))
    }

    fn gives(&self, access: Access) -> bool {
        match self.paths.as_slice() {
            [] => self.profile.access() >= access,
            paths => paths.iter().any(|rule| rule.access >= access),
        }
    }

    /// What keeps a call to `path` in its root; none where everything is open to it.
    pub(crate) fn fence(&self, path: &str, access: Access) -> Result<Option<Arc<Fence>>, Status> {
        self.find_fence(path, access).map_err(|rule| {
            let what = match access {
                Access::Write => "changing",
                Access::Read | Access::None => "reading",
            };
            refused(&rule, &format!("{what} the path {}", failure::shown(path)))
        })
    }

    /// The same, for a question that nobody has to be told the answer of; refused by the rule of this name.
    pub(crate) fn find_fence(
        &self,
        path: &str,
        access: Access,
    ) -> Result<Option<Arc<Fence>>, String> {
        let rule = match paths::find(&self.paths, path) {
            Some(rule) => rule,
            None if self.paths.is_empty() && self.profile.access() >= access => return Ok(None),
            None => return Err(self.profile.rule()),
        };
        match rule.access < access {
            true => Err(rule.name.clone()),
            false => Ok(Some(Arc::new(paths::fence(&self.paths, rule)))),
        }
    }

    /// Whether every command may be run, as its caller wants it.
    pub(crate) fn frees_commands(&self) -> bool {
        self.commands.is_empty() && self.profile == Profile::Full
    }

    /// Which file a command may be run from. Looks at the guest's files.
    pub(crate) fn program(
        &self,
        asked: &Asked<'_>,
        may_read: &dyn Fn(&str) -> bool,
    ) -> Result<PathBuf, Status> {
        let name = shown(asked.argv.first().map_or("", String::as_str));
        let verdict = commands::decide(&self.commands, asked, may_read).map_err(|error| {
            let message = format!("the program {name} can't be looked at: {error}");
            error::failure(Reason::CmdExecFailed, message)
        })?;
        let is_full = self.profile == Profile::Full;
        match verdict {
            Verdict::Open(path) if is_full => Ok(path),
            Verdict::Run(path) => Ok(path),
            Verdict::Refused(rule, None) => Err(refused(&rule, &format!("the command {name}"))),
            Verdict::Refused(rule, Some(why)) => {
                Err(refused(&rule, &format!("the command {name}, {why}")))
            }
            Verdict::Open(_) => Err(refused(
                &self.profile.rule(),
                &format!("the command {name} with these arguments"),
            )),
            Verdict::Missing => {
                let message = format!(
                    "there is no program {name} in the guest, at its absolute path or in the system's folders"
                );
                Err(error::failure(Reason::CmdNotFound, message))
            }
            Verdict::Relative => Err(refused(
                &self.profile.rule(),
                &format!("the relative path {name} of a program"),
            )),
        }
    }

    /// Whether any rule is about addresses.
    pub(crate) fn knows_addresses(&self) -> bool {
        !self.rules.addresses.is_empty()
    }

    /// Where an address is that a tunnel may use, or what refuses it. Looks at the guest's files for a path.
    pub(crate) fn site(&self, wanted: Wanted<'_>, purpose: AddressUse) -> Result<Site, String> {
        match addresses::find(&self.rules.addresses, wanted, purpose) {
            Some((rule, site)) if rule.allow => Ok(site),
            Some((rule, _)) => Err(rule.name.clone()),
            None if self.profile == Profile::Full => Ok(Site::AsWritten),
            None => Err(self.profile.rule()),
        }
    }
}

impl Deref for Held {
    type Target = Rules;

    fn deref(&self) -> &Rules {
        &self.rules
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
fn shown(name: &str) -> String {
    let shown: String = name.chars().take(MAX_SHOWN).collect();
    shown.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::discovery::Descriptors;

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
    fn the_lists_of_restricted_can_be_read_and_hold() {
        assert!(!restricted::commands().unwrap().is_empty());
        assert!(!restricted::paths().unwrap().is_empty());
        let policy = Policy::new(Rules::new(Profile::Restricted));
        let held = policy.rules();
        for (path, access, expected) in [
            ("/tmp/x", Access::Write, true),
            ("/var/log/syslog", Access::Read, true),
            ("/home/ann/x", Access::Write, true),
            ("/etc/hosts", Access::Read, true),
            ("/etc/hosts", Access::Write, false),
            ("/root/x", Access::Read, false),
            ("/proc/1/environ", Access::Read, false),
            ("/sys/x", Access::Read, false),
            ("/", Access::Read, false),
        ] {
            assert_eq!(held.fence(path, access).is_ok(), expected, "{path}");
        }
        for method in [
            "Power/Shutdown",
            "Accounts/SetPassword",
            "Tunnel/Connect",
            "Services/Control",
        ] {
            assert!(
                held.decide(&format!("vbridge.guest.v1.{method}")).is_err(),
                "{method}"
            );
        }
    }

    #[test]
    fn who_observes_runs_nothing_and_writes_nothing_even_if_a_method_is_allowed() {
        let rules = Rules::new(Profile::Observe).rule(Rule::allow("all", ["*"]));
        let held = Held::new(rules, &Held::default());
        for method in ["Exec/Run", "Files/Write", "Tunnel/Connect"] {
            let why = held.obstacle(&format!("vbridge.guest.v1.{method}"));
            assert!(why.unwrap().contains("profile observe"), "{method}");
        }
        assert_eq!(held.obstacle("vbridge.guest.v1.Files/Read"), None);
        assert!(held.fence("/etc/hosts", Access::Read).unwrap().is_none());
        let status = held.fence("/tmp/x", Access::Write).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        let argv = ["true".to_owned()];
        let asked = Asked {
            argv: &argv,
            is_shell: false,
            terminal: None,
            directory: None,
            user: None,
            group: None,
            environment: &[],
        };
        assert!(held.program(&asked, &|_| true).is_err());
        let full = Held::default();
        assert!(full.frees_commands() && !held.frees_commands());
        assert_eq!(full.obstacle("vbridge.guest.v1.Exec/Run"), None);
    }

    #[test]
    fn what_no_root_holds_is_a_root_of_its_own_beside_the_others() {
        let root = PathRule::new("etc", "/etc", Access::Read).unwrap();
        let held = Held::new(Rules::default().path(root), &Held::default());
        let fence = held.fence("/tmp/x", Access::Write).unwrap().unwrap();
        assert!(fence.is_whole() && fence.closes(&[b"etc".to_vec()]));
        assert!(held.fence("/etc/x", Access::Write).is_err());
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
