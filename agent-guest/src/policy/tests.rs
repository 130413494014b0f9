//! What profiles and rules say.

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
        let reads = ["Get", "List", "Stat", "Ping", "FreezeStatus"];
        assert!(reads.iter().any(|verb| name.starts_with(verb)), "{method}");
    }
    assert!(allowed.len() > 10, "{allowed:?}");
    for method in ["Services/Logs", "Files/Checksum", "Files/Read"] {
        let decided = rules.decide(&format!("vbridge.guest.v1.{method}"));
        assert_eq!(decided, Err("profile observe".to_owned()), "{method}");
    }
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
    for path in [
        "/home/ann/.bashrc",
        "/home/ann/.config",
        "/home/ann/.ssh",
        "/etc/letsencrypt/live/x/privkey.pem",
        "/etc/wireguard",
        "/etc/NetworkManager/system-connections",
        "/etc/mysql/debian.cnf",
    ] {
        let fence = held.fence(path, Access::Read).unwrap().unwrap();
        let names = path.split('/').skip(2);
        let place: Vec<_> = names.map(|name| name.as_bytes().to_vec()).collect();
        assert!(fence.closes(&place), "{path}");
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
        clear_environment: false,
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
