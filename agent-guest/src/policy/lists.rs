//! A policy of two lists, programs and folders: what a configuration means that knows no rules.
//!
//! | list | entry | what is allowed |
//! |---|---|---|
//! | programs | one that [`Profile::Restricted`] knows | what that allows of it |
//! | | another program | it, with any arguments |
//! | | a program and words behind it | a line of a rule of commands: just these arguments, each a pattern |
//! | folders | one of the profile's, or one that lies in one | what the profile allows there: `/etc` is only read, and secrets are closed |
//! | | another | it is written, but for [`FORBIDDEN`] |
//!
//! A text for the shell that is only words, some of them perhaps in quotes, is the command that they are, and run without a
//! shell; every other text is refused, as by the profile. What is in neither list is refused, the profile's own programs and folders among it; its methods and limits hold.

use super::{Access, CommandRule, PathRule, PolicyError, Profile, Rules, restricted};

/// The rule that refusals name for programs.
const PROGRAMS: &str = "allowed_commands";

/// The rule that refusals name for folders.
const FOLDERS: &str = "allowed_paths";

/// What no list opens. Files of `/etc` and in homes are closed by the profile.
const FORBIDDEN: [&str; 3] = ["/root", "/proc", "/sys"];

/// Entries of a list.
const MAX_ENTRIES: usize = 256;

impl Rules {
    /// The profile [`Profile::Restricted`] with lists of one's own. Without programs, or without a list of folders, it has its own.
    ///
    /// # Errors
    /// An entry is no program or no absolute path, or names what is closed to hosts anyhow, or there are too many.
    pub fn of_lists(programs: &[String], folders: Option<&[String]>) -> Result<Self, PolicyError> {
        let mut rules = Self {
            divides_texts: true,
            ..Self::new(Profile::Restricted)
        };
        if !programs.is_empty() {
            at_most(PROGRAMS, programs)?;
            let lines = programs.iter().flat_map(|entry| lines(entry));
            let allowed =
                CommandRule::allow(PROGRAMS, lines).map_err(|error| of(PROGRAMS, &error))?;
            rules = rules
                .command(allowed.environment(restricted::ENVIRONMENT)?)
                .command(CommandRule::deny(PROGRAMS, [["*", "..."]])?);
        }
        let Some(folders) = folders else {
            return Ok(rules);
        };
        at_most(FOLDERS, folders)?;
        let known = restricted::paths()?;
        let closed = |root: &str| PathRule::new(FOLDERS, root, Access::None);
        let forbidden = FORBIDDEN.map(closed).into_iter();
        let forbidden = forbidden.collect::<Result<Vec<_>, _>>()?;
        let opened = folders
            .iter()
            .map(|folder| opened(folder, &known, &forbidden));
        let opened = opened.collect::<Result<Vec<_>, _>>()?;
        // The profile adds its own, of which one that is not listed is not allowed.
        let unlisted = known
            .iter()
            .filter(|it| !opened.iter().any(|root| root.holds(it)));
        let unlisted = unlisted.map(|it| it.closed_by(FOLDERS)).collect::<Vec<_>>();
        let all = opened.into_iter().chain(unlisted).chain(forbidden);
        Ok(all.fold(rules, Self::path))
    }
}

/// The lines of rules that an entry of the programs stands for.
fn lines(entry: &str) -> Vec<Vec<&str>> {
    let words: Vec<&str> = entry.split_whitespace().collect();
    let [program] = words.as_slice() else {
        return vec![words];
    };
    let known = restricted::COMMANDS.iter();
    let known = known.filter(|line| line.first() == Some(program));
    let known: Vec<_> = known.map(|line| line.to_vec()).collect();
    match known.is_empty() {
        true => vec![vec![program, "..."]],
        false => known,
    }
}

/// The root that an entry of the folders stands for.
fn opened(
    folder: &str,
    known: &[PathRule],
    forbidden: &[PathRule],
) -> Result<PathRule, PolicyError> {
    let root = PathRule::new(FOLDERS, folder, Access::Write).map_err(|it| of(FOLDERS, &it))?;
    let open = match known.iter().find(|it| it.holds(&root)) {
        Some(outer) => outer.narrowed(root),
        None if forbidden.iter().any(|it| it.holds(&root)) => None,
        None => Some(root),
    };
    open.ok_or_else(|| {
        PolicyError::new(format!(
            "{FOLDERS}: {folder:?} is closed to hosts whatever a list says: leave it out, or write a policy with a rule for it"
        ))
    })
}

fn at_most(list: &str, entries: &[String]) -> Result<(), PolicyError> {
    match entries.len() {
        0 => Err(PolicyError::new(format!(
            "{list} is empty: name what is allowed, or leave the list out for the profile's own"
        ))),
        1..=MAX_ENTRIES => Ok(()),
        len => Err(PolicyError::new(format!(
            "{list} has {len} entries, and {MAX_ENTRIES} is the most"
        ))),
    }
}

fn of(list: &str, error: &PolicyError) -> PolicyError {
    PolicyError::new(format!("{list}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Asked, Policy};

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&it| it.to_owned()).collect()
    }

    fn of_folders(folders: &[&str]) -> Policy {
        Policy::new(Rules::of_lists(&[], Some(&texts(folders))).unwrap())
    }

    fn of_programs(programs: &[&str]) -> Policy {
        Policy::new(Rules::of_lists(&texts(programs), None).unwrap())
    }

    fn runs(policy: &Policy, argv: &[&str]) -> bool {
        let asked = Asked {
            argv: &texts(argv),
            is_shell: false,
            terminal: None,
            directory: None,
            user: None,
            group: None,
            environment: &[],
            clear_environment: false,
        };
        let may_read = |path: &str| policy.rules().find_fence(path, Access::Read).is_ok();
        policy.rules().program(&asked, &may_read).is_ok()
    }

    /// What may be done at a path: nothing, `r` or `rw`.
    fn access(policy: &Policy, path: &str) -> &'static str {
        let may = |access| policy.rules().find_fence(path, access).is_ok();
        match (may(Access::Read), may(Access::Write)) {
            (true, true) => "rw",
            (true, false) => "r",
            _ => "",
        }
    }

    #[test]
    fn the_folders_of_the_list_are_opened_and_the_profiles_others_are_not() {
        let policy = of_folders(&["/tmp/", "/var/log/", "/home/", "/srv/data"]);
        for (path, expected) in [
            ("/tmp/x", "rw"),
            ("/var/log/syslog", "rw"),
            ("/home/a/b", "rw"),
            ("/srv/data/x", "rw"),
            ("/srv/other", ""),
            ("/etc/hostname", ""),
            ("/root/x", ""),
            ("/proc/1/environ", ""),
        ] {
            assert_eq!(access(&policy, path), expected, "{path}");
        }
        let fence = policy
            .rules()
            .fence("/home/a/x", Access::Read)
            .unwrap()
            .unwrap();
        assert!(
            fence.closes(&[b"a".to_vec(), b".ssh".to_vec()]),
            "as in the profile"
        );
        let own = Rules::of_lists(&[], None).unwrap();
        assert_eq!(
            (own.profile, own.paths, own.commands),
            (Profile::Restricted, vec![], vec![])
        );
    }

    #[test]
    fn what_lies_in_a_folder_of_the_profile_has_no_more_than_that() {
        let policy = of_folders(&["/etc/ssh", "/home/bob"]);
        for (path, expected) in [
            ("/etc/ssh/sshd_config", "r"),
            ("/etc/hostname", ""),
            ("/home/bob/x", "rw"),
            ("/home/eve/x", ""),
            ("/tmp/x", ""),
        ] {
            assert_eq!(access(&policy, path), expected, "{path}");
        }
        let fence = |path| policy.rules().fence(path, Access::Read).unwrap().unwrap();
        let (ssh, bob) = (fence("/etc/ssh/x"), fence("/home/bob/x"));
        assert!(ssh.closes(&[b"ssh_host_rsa_key".to_vec()]));
        assert!(bob.closes(&[b".netrc".to_vec()]));
        let wide = of_folders(&["/"]);
        for (path, expected) in [
            ("/srv/x", "rw"),
            ("/etc/hostname", "r"),
            ("/root/x", ""),
            ("/proc/self/mem", ""),
            ("/sys/power/state", ""),
        ] {
            assert_eq!(access(&wide, path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_closed_anyhow_or_no_path_is_refused_by_its_name() {
        for folder in [
            "/root/",
            "/proc/1",
            "/sys",
            "/etc/shadow",
            "/etc/ssl/private/x",
            "/home/bob/.ssh",
            "tmp",
            "/tmp/../etc",
        ] {
            let error = Rules::of_lists(&[], Some(&texts(&["/tmp", folder])));
            let error = error.unwrap_err().to_string();
            let (list, entry) = (error.starts_with("allowed_paths: "), format!("{folder:?}"));
            assert!(list && error.contains(&entry), "{error}");
        }
        let none = Rules::of_lists(&[], Some(&[])).unwrap_err().to_string();
        assert!(none.contains("allowed_paths is empty"), "{none}");
        let many = vec!["ls".to_owned(); MAX_ENTRIES + 1];
        assert!(Rules::of_lists(&many, None).is_err());
        let error = Rules::of_lists(&texts(&["./x"]), None)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("allowed_commands: \"./x\""), "{error}");
    }

    #[test]
    fn the_programs_of_the_list_are_run_and_the_profiles_others_are_not() {
        let policy = of_programs(&["ls", "sh", "head -n {number} {path}"]);
        for (argv, expected) in [
            (&["ls", "-l", "/tmp"][..], true),
            // As the profile has it.
            (&["ls", "/root"], false),
            (&["sh", "-c", "true"], true),
            (&["head", "-n", "3", "/tmp"], true),
            (&["head", "/tmp"], false),
            (&["cat", "/tmp"], false),
            (&["df"], false),
        ] {
            assert_eq!(runs(&policy, argv), expected, "{argv:?}");
        }
        assert!(runs(&of_programs(&[]), &["df"]), "the profile's own list");
    }
}
