//! Rules that hold: what the file says, what the profile adds, and what of the limits is used.

use std::{ops::Deref, path::PathBuf, sync::Arc};

use tonic::Status;

use super::{
    AddressUse, Asked, CommandRule, Fence, PathRule, Profile, Rules, Site, Wanted, addresses,
    commands::{self, Verdict},
    limits::Limiter,
    paths::{self, Access},
    refused, restricted, shown,
};
use crate::{
    error::{self, Reason},
    files::failure,
};

/// Rules that hold, with what the profile adds to them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(super) rules: Rules,
    commands: Vec<CommandRule>,
    paths: Vec<PathRule>,
    pub(super) limiter: Limiter,
}

// === impl Held ===

impl Held {
    pub(super) fn new(rules: Rules, old: &Self) -> Self {
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
