//! What callers may call: rules over callers, guests and methods, of which the first that fits decides.

use wildmatch::WildMatch;

use super::{AccessError, callers::Callers};
use crate::{access::ANONYMOUS, limits::MAX_RULES};

/// Allows or refuses calls. In each list `*` stands for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What refusals call it; its number, if this is empty.
    pub name: String,
    /// Whether it allows or refuses.
    pub allow: bool,
    /// The callers. Who proves nothing is allowed nothing where [`ANONYMOUS`] is not written; `*` refuses it, too.
    pub callers: Vec<String>,
    /// The guests, by their names. `bridge` is the bridge itself, with its hypervisors.
    pub guests: Vec<String>,
    /// The methods: `package.Service/Method`, and `metrics` for what Prometheus gets.
    pub methods: Vec<String>,
}

impl Rule {
    /// Allows calls.
    pub fn allow<const A: usize, const B: usize, const C: usize>(
        name: &str,
        callers: [&str; A],
        guests: [&str; B],
        methods: [&str; C],
    ) -> Self {
        Self {
            name: name.to_owned(),
            allow: true,
            callers: callers.map(str::to_owned).to_vec(),
            guests: guests.map(str::to_owned).to_vec(),
            methods: methods.map(str::to_owned).to_vec(),
        }
    }

    /// Refuses calls.
    pub fn deny<const A: usize, const B: usize, const C: usize>(
        name: &str,
        callers: [&str; A],
        guests: [&str; B],
        methods: [&str; C],
    ) -> Self {
        Self {
            allow: false,
            ..Self::allow(name, callers, guests, methods)
        }
    }
}

/// What the rules say of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    Allowed,
    /// By the rule of that name.
    Denied(&'a str),
    /// No rule speaks of it.
    NotNamed,
}

#[derive(Debug)]
pub(super) struct Rules(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    name: String,
    allow: bool,
    callers: Vec<WildMatch>,
    anonymous: bool,
    guests: Vec<WildMatch>,
    methods: Vec<WildMatch>,
}

impl Rules {
    pub(super) fn new(rules: &[Rule], callers: &Callers) -> Result<Self, AccessError> {
        if rules.is_empty() {
            return Err(AccessError::NoRules);
        }
        if rules.len() > MAX_RULES {
            return Err(AccessError::TooMany {
                count: rules.len(),
                what: "rules",
                limit: MAX_RULES,
            });
        }
        let compiled = rules.iter().enumerate();
        let compiled = compiled.map(|(index, rule)| {
            let compiled = Compiled::new(rule, index + 1);
            for (pattern, caller) in compiled.callers.iter().zip(&rule.callers) {
                // Most likely a slip, and then the rule does not do what was meant.
                let is_meant = caller == "*" || caller == ANONYMOUS;
                if !is_meant && !callers.names().any(|name| pattern.matches(name)) {
                    return Err(AccessError::UnknownCaller {
                        rule: compiled.name,
                        caller: caller.escape_debug().to_string(),
                    });
                }
            }
            Ok(compiled)
        });
        Ok(Self(compiled.collect::<Result<_, _>>()?))
    }

    pub(super) fn verdict(&self, caller: &str, guest: &str, method: &str) -> Verdict<'_> {
        let method = method.strip_prefix('/').unwrap_or(method);
        let guest = guest.to_ascii_lowercase();
        let mut rules = self.0.iter();
        let rule = rules.find(|rule| {
            rule.is_for(caller, &guest) && rule.methods.iter().any(|it| it.matches(method))
        });
        match rule {
            Some(rule) if rule.allow => Verdict::Allowed,
            Some(rule) => Verdict::Denied(&rule.name),
            None => Verdict::NotNamed,
        }
    }

    /// Whether some rule may allow something to who proves nothing.
    pub(super) fn lets_anybody(&self) -> bool {
        self.0.iter().any(|rule| rule.allow && rule.anonymous)
    }

    /// Whether some rule may allow it something of that guest. It may be that others refuse all that there is, each by its name.
    pub(super) fn sees(&self, caller: &str, guest: &str) -> bool {
        let guest = guest.to_ascii_lowercase();
        let mut rules = self.0.iter().filter(|rule| rule.is_for(caller, &guest));
        let all = |rule: &&Compiled| rule.allow || rule.methods.iter().any(|it| it.matches(""));
        // One that refuses everything hides what comes behind it.
        rules.find(all).is_some_and(|rule| rule.allow)
    }
}

impl Compiled {
    fn new(rule: &Rule, number: usize) -> Self {
        let compile = |patterns: &[String]| patterns.iter().map(|it| WildMatch::new(it)).collect();
        let lowercase: Vec<_> = rule
            .guests
            .iter()
            .map(|it| it.to_ascii_lowercase())
            .collect();
        Self {
            name: match rule.name.as_str() {
                "" => number.to_string(),
                name => name.escape_debug().to_string(),
            },
            allow: rule.allow,
            callers: compile(&rule.callers),
            anonymous: rule
                .callers
                .iter()
                .any(|caller| caller == ANONYMOUS || caller == "*" && !rule.allow),
            guests: compile(&lowercase),
            methods: compile(&rule.methods),
        }
    }

    fn is_for(&self, caller: &str, guest: &str) -> bool {
        let is_caller = match caller {
            ANONYMOUS => self.anonymous,
            caller => self.callers.iter().any(|it| it.matches(caller)),
        };
        is_caller && self.guests.iter().any(|it| it.matches(guest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{CallerSpec, Proof};

    fn rules(rules: &[Rule]) -> Rules {
        let callers = ["ops", "web-1"].into_iter().zip(1..);
        let callers = callers.map(|(name, uid)| CallerSpec::new(name, [Proof::Uid(uid)]));
        let callers = Callers::new(&callers.collect::<Vec<_>>(), None).unwrap();
        Rules::new(rules, &callers).unwrap()
    }

    #[test]
    fn everybody_is_whoever_has_proved_who_it_is() {
        let rules = rules(&[Rule::allow("", ["*"], ["*"], ["*"])]);
        assert_eq!(rules.verdict("ops", "db", "/a.B/C"), Verdict::Allowed);
        assert_eq!(rules.verdict(ANONYMOUS, "db", "/a.B/C"), Verdict::NotNamed);
        assert!(!rules.sees(ANONYMOUS, "db"));
    }

    #[test]
    fn what_is_refused_to_everybody_is_refused_to_who_proves_nothing() {
        let rules = rules(&[
            Rule::deny("", ["*"], ["*"], ["a.B/*"]),
            Rule::allow("", [ANONYMOUS, "ops"], ["*"], ["*"]),
        ]);
        assert_eq!(
            rules.verdict(ANONYMOUS, "db", "a.B/C"),
            Verdict::Denied("1")
        );
        assert_eq!(rules.verdict(ANONYMOUS, "db", "a.D/C"), Verdict::Allowed);
    }

    #[test]
    fn guests_are_named_in_any_letter_case_as_calls_name_them() {
        let rules = rules(&[Rule::allow("", ["ops"], ["Web-*"], ["a.B/*"])]);
        assert_eq!(rules.verdict("ops", "WEB-7", "a.B/C"), Verdict::Allowed);
        assert_eq!(rules.verdict("ops", "web", "a.B/C"), Verdict::NotNamed);
        assert_eq!(rules.verdict("ops", "web-7", "a.b/C"), Verdict::NotNamed);
    }

    #[test]
    fn a_guest_of_which_all_is_refused_is_not_seen_whatever_follows() {
        let rules = rules(&[
            Rule::deny("", ["ops"], ["secret"], ["*"]),
            Rule::deny("", ["ops"], ["half"], ["a.B/*"]),
            Rule::allow("", ["ops"], ["*"], ["*"]),
        ]);
        assert!(!rules.sees("ops", "secret"));
        assert!(rules.sees("ops", "half") && rules.sees("ops", "db"));
        assert_eq!(rules.verdict("ops", "half", "a.B/C"), Verdict::Denied("2"));
    }

    #[test]
    fn a_hundred_stars_are_matched_at_once() {
        let pattern = "a*".repeat(100) + "b";
        let rules = rules(&[Rule::allow("", ["ops"], ["*"], [pattern.as_str()])]);
        let method = "a".repeat(60_000);
        assert_eq!(rules.verdict("ops", "db", &method), Verdict::NotNamed);
    }
}
