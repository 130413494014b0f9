//! The rules of a file, each a table of its own.

use std::time::Duration;

use agent_guest::{
    Access, AddressRule, AddressUse, CommandRule, Limit, PathRule, PolicyError, Rule,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// Rules of one kind in a file.
const MAX_RULES: usize = 256;

/// Entries of one list of a rule.
const MAX_ENTRIES: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Methods {
    name: String,
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    name: String,
    allow: Option<Vec<Vec<String>>>,
    deny: Option<Vec<Vec<String>>>,
    #[serde(default)]
    shell: bool,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    working_directory: bool,
    #[serde(default)]
    clear_environment: bool,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    environment: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Path {
    name: String,
    root: String,
    access: String,
    #[serde(default)]
    deny: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    name: String,
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    only: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    name: String,
    methods: Vec<String>,
    per_second: Option<u32>,
    per_minute: Option<u32>,
    burst: Option<u32>,
    concurrent: Option<u32>,
}

pub(super) fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    all(deserializer, |entry: Methods| {
        let Methods { name, allow, deny } = entry;
        let (is_allowed, methods) = one_of(&name, allow, deny)?;
        check_methods(&name, &methods)?;
        Ok(match is_allowed {
            true => Rule::allow(name, methods),
            false => Rule::deny(name, methods),
        })
    })
}

pub(super) fn commands<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<CommandRule>, D::Error> {
    all(deserializer, |entry: Command| {
        let name = entry.name;
        let wrong = |error: PolicyError| format!("rule {}: {error}", shown(&name));
        let (is_allowed, lines) = one_of(&name, entry.allow, entry.deny)?;
        if lines.is_empty() {
            return Err(format!("rule {} names no command", shown(&name)));
        }
        if !is_allowed {
            let grants = [
                entry.shell,
                entry.terminal,
                entry.working_directory,
                entry.clear_environment,
            ];
            let lists = [&entry.users, &entry.groups, &entry.environment];
            return match grants.contains(&true) || lists.iter().any(|list| !list.is_empty()) {
                true => Err(format!("rule {} denies, and grants nothing", shown(&name))),
                false => CommandRule::deny(&name, lines).map_err(wrong),
            };
        }
        let rule = CommandRule::allow(&name, lines).map_err(wrong)?;
        rule.shell(entry.shell)
            .terminal(entry.terminal)
            .working_directory(entry.working_directory)
            .clear_environment(entry.clear_environment)
            .users(entry.users)
            .groups(entry.groups)
            .environment(entry.environment)
            .map_err(wrong)
    })
}

pub(super) fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathRule>, D::Error> {
    all(deserializer, |entry: Path| {
        let Path {
            name,
            root,
            access,
            deny,
        } = entry;
        let wrong = |error: PolicyError| format!("rule {}: {error}", shown(&name));
        let access = pick(&name, &access, &Access::ALL)?;
        let rule = PathRule::new(&name, &root, access);
        at_most(&name, &deny)?;
        rule.and_then(|rule| rule.deny(deny)).map_err(wrong)
    })
}

pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<AddressRule>, D::Error> {
    const USES: [(&str, AddressUse); 2] = [
        ("connect", AddressUse::Connect),
        ("listen", AddressUse::Listen),
    ];
    all(deserializer, |entry: Address| {
        let Address {
            name,
            allow,
            deny,
            only,
        } = entry;
        let (is_allowed, addresses) = one_of(&name, allow, deny)?;
        let rule = match is_allowed {
            true => AddressRule::allow(&name, addresses),
            false => AddressRule::deny(&name, addresses),
        };
        let rule = rule.map_err(|error| format!("rule {}: {error}", shown(&name)))?;
        match only {
            None => Ok(rule),
            Some(only) => Ok(rule.only(pick(&name, &only, &USES)?)),
        }
    })
}

pub(super) fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Limit>, D::Error> {
    let mut names = Vec::new();
    all(deserializer, |entry: Bound| {
        let wrong = |what: &str| Err(format!("limit {} {what}", shown(&entry.name)));
        if names.contains(&entry.name) {
            return wrong("is there twice");
        }
        check_methods(&entry.name, &entry.methods)?;
        let mut limit = Limit::new(&entry.name, &entry.methods);
        let numbers = [
            entry.per_second,
            entry.per_minute,
            entry.burst,
            entry.concurrent,
        ];
        if numbers.contains(&Some(0)) {
            return wrong(
                "has a 0: each number must be at least 1; a rule denies methods altogether",
            );
        }
        let rate = match (entry.per_second, entry.per_minute) {
            (Some(_), Some(_)) => {
                return wrong("has both per_second and per_minute: make two of it");
            }
            (Some(calls), None) => Some((calls, 1)),
            (None, Some(calls)) => Some((calls, 60)),
            (None, None) => None,
        };
        match (rate, entry.burst) {
            (Some((calls, seconds)), burst) => {
                let time = Duration::from_secs(seconds);
                limit = limit.rate(calls, time, burst.unwrap_or(calls));
            }
            (None, Some(_)) => {
                return wrong("has a burst, which goes with per_second or per_minute");
            }
            (None, None) if entry.concurrent.is_none() => {
                return wrong("bounds nothing: give per_second, per_minute or concurrent");
            }
            (None, None) => {}
        }
        if let Some(most) = entry.concurrent {
            limit = limit.concurrent(most);
        }
        names.push(entry.name);
        Ok(limit)
    })
}

/// All tables of one kind, not too many.
fn all<'de, D: Deserializer<'de>, E: DeserializeOwned, R>(
    deserializer: D,
    make: impl FnMut(E) -> Result<R, String>,
) -> Result<Vec<R>, D::Error> {
    use serde::de::Error as _;
    let entries = Vec::<E>::deserialize(deserializer)?;
    if entries.len() > MAX_RULES {
        let error = format!("{} rules, and {MAX_RULES} is the most", entries.len());
        return Err(D::Error::custom(error));
    }
    entries
        .into_iter()
        .map(make)
        .collect::<Result<_, _>>()
        .map_err(D::Error::custom)
}

/// The one list that there is, and whether it allows.
fn one_of<T>(
    name: &str,
    allow: Option<Vec<T>>,
    deny: Option<Vec<T>>,
) -> Result<(bool, Vec<T>), String> {
    let (is_allowed, list) = match (allow, deny) {
        (Some(list), None) => (true, list),
        (None, Some(list)) => (false, list),
        _ => {
            let name = shown(name);
            return Err(format!("rule {name} needs `allow` or `deny`, and not both"));
        }
    };
    at_most(name, &list)?;
    Ok((is_allowed, list))
}

fn at_most<T>(name: &str, list: &[T]) -> Result<(), String> {
    match list.len() > MAX_ENTRIES {
        true => Err(format!(
            "rule {} has {} entries, and {MAX_ENTRIES} is the most",
            shown(name),
            list.len()
        )),
        false => Ok(()),
    }
}

fn check_methods(name: &str, methods: &[String]) -> Result<(), String> {
    at_most(name, methods)?;
    let name = shown(name);
    match methods.iter().find(|method| !method.contains(['/', '*'])) {
        None if methods.is_empty() => Err(format!("rule {name} names no method")),
        None => Ok(()),
        Some(method) => Err(format!(
            "rule {name}: {method:?} is no method: write package.Service/Method, in which * is anything"
        )),
    }
}

fn pick<T: Copy>(name: &str, text: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|(known, _)| *known).collect();
        let (name, known) = (shown(name), known.join(", "));
        format!("rule {name}: {text:?} is none of {known}")
    })
}

fn shown(name: &str) -> String {
    format!("{name:?}")
}
