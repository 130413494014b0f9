//! What the rules of commands say, on this machine's own programs.

use std::os::unix::fs::symlink;

use super::*;

fn argv(line: &[&str]) -> Vec<String> {
    line.iter().map(|&word| word.to_owned()).collect()
}

fn asked(argv: &[String]) -> Asked<'_> {
    Asked {
        argv,
        is_shell: false,
        terminal: None,
        directory: None,
        user: None,
        group: None,
        environment: &[],
        clear_environment: false,
    }
}

fn said(rules: &[CommandRule], line: &[&str]) -> Verdict {
    decide(rules, &asked(&argv(line)), &|path| path == "/tmp/x").unwrap()
}

fn is_run(rules: &[CommandRule], line: &[&str]) -> bool {
    matches!(said(rules, line), Verdict::Run(_))
}

fn allow(lines: &[&[&str]]) -> CommandRule {
    CommandRule::allow("rule", lines.iter().map(|line| line.iter().copied())).unwrap()
}

#[test]
fn a_line_is_a_program_and_as_many_arguments_as_it_says() {
    let rules = [allow(&[
        &["ls"],
        &["cat", "{path}"],
        &["head", "-n", "{number}", "{path}..."],
        &["echo", "..."],
    ])];
    for (line, expected) in [
        (&["ls"][..], true),
        (&["ls", "-l"], false),
        (&["cat", "/tmp/x"], true),
        (&["cat", "/etc/shadow"], false),
        (&["cat", "/tmp/x", "/tmp/x"], false),
        (&["cat"], false),
        (&["head", "-n", "3"], true),
        (&["head", "-n", "3", "/tmp/x", "/tmp/x"], true),
        (&["head", "-n", "3", "/tmp/x", "/etc/shadow"], false),
        (&["head", "-n", "3", "-c", "/tmp/x"], false),
        (&["echo", "-n", "; reboot", ""], true),
    ] {
        assert_eq!(is_run(&rules, line), expected, "{line:?}");
    }
}

#[test]
fn a_program_is_where_it_lies_and_not_what_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // A link to the program, one to its folder, and an impostor.
    symlink("/bin/sh", at("ls")).unwrap();
    let folder = Path::new("/usr/bin");
    symlink(folder, at("bin")).unwrap();
    let rules = [allow(&[&["ls", "..."]])];
    assert!(is_run(&rules, &["ls"]));
    assert!(!is_run(&rules, &[&at("ls")]), "another file of that name");
    let Verdict::Run(path) = said(&rules, &[&at("bin/ls")]) else {
        panic!("the same file by another way");
    };
    assert!(
        path.is_absolute() && !path.starts_with(dir.path()),
        "{path:?}"
    );
    for relative in ["./ls", "bin/ls", "../bin/ls"] {
        assert_eq!(said(&rules, &[relative]), Verdict::Relative, "{relative}");
    }
    assert_eq!(said(&rules, &["/no/such/program"]), Verdict::Missing);
    assert_eq!(said(&rules, &["nosuchprogram"]), Verdict::Missing);
    // All programs of a folder, and none of those below.
    let pattern = format!("{}/*", dir.path().display());
    let rules = [allow(&[&[&pattern]])];
    assert!(is_run(&rules, &[&at("ls")]));
    assert!(!is_run(&rules, &[&at("bin/ls")]));
}

#[test]
fn the_first_rule_with_the_line_decides_about_all_else() {
    let deny = CommandRule::deny("no-root", [["ls", "/root"]]).unwrap();
    let rules = [deny, allow(&[&["ls", "..."]])];
    assert_eq!(
        said(&rules, &["ls", "/root"]),
        Verdict::Refused("no-root".to_owned(), None)
    );
    assert!(is_run(&rules, &["ls", "/"]));
    assert!(matches!(said(&rules, &["cat"]), Verdict::Open(_)));
}

#[test]
fn what_a_rule_does_not_grant_refuses_the_command() {
    let line = argv(&["ls"]);
    let preload = [("LD_PRELOAD".to_owned(), Some("secret.so".to_owned()))];
    let removal = [("LANG".to_owned(), None)];
    let base = || asked(&line);
    let bare = allow(&[&["ls"]]);
    for (asked, part) in [
        (
            Asked {
                user: Some("root"),
                ..base()
            },
            "user",
        ),
        (
            Asked {
                group: Some("0"),
                ..base()
            },
            "group",
        ),
        (
            Asked {
                terminal: Some("xterm"),
                ..base()
            },
            "terminal",
        ),
        (
            Asked {
                directory: Some("/tmp"),
                ..base()
            },
            "directory",
        ),
        (
            Asked {
                environment: &preload,
                ..base()
            },
            "LD_PRELOAD",
        ),
        (
            Asked {
                environment: &removal,
                ..base()
            },
            "LANG",
        ),
        (
            Asked {
                clear_environment: true,
                ..base()
            },
            "agent's variables",
        ),
    ] {
        let verdict = decide(std::slice::from_ref(&bare), &asked, &|_| false).unwrap();
        let Verdict::Refused(rule, Some(why)) = verdict else {
            panic!("{part}: {verdict:?}");
        };
        assert!(rule == "rule" && why.contains(part), "{why}");
        assert!(!why.contains("secret"), "{why}");
    }
    let rule = bare
        .users(["www-*"])
        .groups(["www"])
        .terminal(true)
        .working_directory(true)
        .clear_environment(true);
    let rule = [rule.environment(["LC_*", "LANG"]).unwrap()];
    let all = Asked {
        user: Some("www-data"),
        group: Some("www"),
        terminal: Some("xterm-256color"),
        directory: Some("/tmp"),
        environment: &removal,
        clear_environment: true,
        ..base()
    };
    let of = |asked| decide(&rule, &asked, &|_| false).unwrap();
    assert!(matches!(of(all), Verdict::Run(_)));
    let odd = Asked {
        terminal: Some("../x"),
        ..all
    };
    assert!(matches!(of(odd), Verdict::Refused(..)));
    let preloaded = Asked {
        environment: &preload,
        ..all
    };
    assert!(matches!(of(preloaded), Verdict::Refused(..)));
}

#[test]
fn a_text_for_the_shell_needs_a_rule_that_says_so() {
    let line = argv(&["/bin/sh", "-c", "uptime"]);
    let shell = Asked {
        is_shell: true,
        ..asked(&line)
    };
    let of = |rule: &CommandRule| decide(std::slice::from_ref(rule), &shell, &|_| false).unwrap();
    let any = allow(&[&["*", "..."]]);
    assert!(matches!(of(&any), Verdict::Open(_)));
    assert!(matches!(of(&any.shell(true)), Verdict::Run(_)));
    let deny = CommandRule::deny("none", [["*", "..."]]).unwrap();
    assert!(matches!(of(&deny), Verdict::Refused(..)));
}

#[test]
fn what_is_no_program_is_told() {
    for wrong in [
        "", "./x", "a/b", "/", "/bin/", "/*/ls", "/bin/..", "a b", "-x",
    ] {
        let error = CommandRule::allow("rule", [[wrong]]).unwrap_err();
        assert!(error.to_string().contains("program"), "{error}");
    }
    assert!(CommandRule::allow("rule", [Vec::<String>::new()]).is_err());
}
