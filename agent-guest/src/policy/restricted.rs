//! What [`Profile::Restricted`](super::Profile::Restricted) allows: some commands that look, some folders, and not too much
//! at once. `docs/policy.md` explains each choice.

use std::time::Duration;

use super::{
    Access, CommandRule, Limit, PathRule, PolicyError,
    methods::{OBSERVE, names},
};

/// What may be called beside what observing allows. The journal can be read by a command anyhow.
const METHODS: [&str; 3] = [
    "vbridge.guest.v1.Exec/*",
    "vbridge.guest.v1.Files/*",
    "vbridge.guest.v1.Services/Logs",
];

/// What the limits are about: what works on the guest, and not what only tells what the agent knows anyhow.
const LIMITED: [&str; 3] = [
    "vbridge.guest.v1.Exec/*",
    "vbridge.guest.v1.Files/*",
    "vbridge.guest.v1.Services/*",
];

/// Calls a second.
const PER_SECOND: u32 = 10;

/// Calls a minute.
const PER_MINUTE: u32 = 100;

/// Calls at once.
const CONCURRENT: u32 = 5;

/// Each with what of it changes nothing, runs nothing else, and reads only what paths allow.
pub(super) const COMMANDS: [&[&str]; 44] = [
    &["ls", "{path}..."],
    &["ls", "{flags:1AacdFhiklnopqrStu}", "{path}..."],
    &["cat", "{path}..."],
    &["cat", "{flags:bnsATEv}", "{path}..."],
    &["head", "{path}..."],
    &["head", "-n|-c", "{number}", "{path}..."],
    &["tail", "{path}..."],
    &["tail", "-n|-c", "{number}", "{path}..."],
    &["grep", "*", "{path}..."],
    &["grep", "{flags:EFivncwxohHlLs}", "*", "{path}..."],
    &["df"],
    &["df", "{flags:ahHiklTP}"],
    &["df", "{path}..."],
    &["df", "{flags:ahHiklTP}", "{path}..."],
    &["free"],
    &["free", "{flags:bkmghwtl}"],
    &["top", "-b", "-n", "{number}"],
    &["top", "-bn1"],
    &["ps"],
    &["ps", "aux|ax|axu|axf|auxf"],
    &["ps", "{flags:eAfFlLjHT}"],
    &["netstat"],
    &["netstat", "{flags:tuxwlanprsieo46}"],
    &["systemctl"],
    &["systemctl", "--no-pager|--failed"],
    &[
        "systemctl",
        "--version|is-system-running|list-units|list-unit-files|list-timers|list-sockets",
    ],
    &[
        "systemctl",
        "--no-pager",
        "list-units|list-unit-files|list-timers|list-sockets",
    ],
    &[
        "systemctl",
        "status|is-active|is-enabled|is-failed",
        "{name}...",
    ],
    &["systemctl", "--no-pager", "status", "{name}..."],
    &["systemctl", "status", "{name}", "--no-pager"],
    &["service", "--status-all"],
    &["service", "{name}", "status"],
    &["journalctl"],
    &["journalctl", "--disk-usage|--list-boots|--version"],
    &["journalctl", JOURNAL],
    &["journalctl", "-n", "{number}", JOURNAL],
    &["journalctl", "-u", "{name}", JOURNAL],
    &["journalctl", "-u", "{name}", "-n", "{number}", JOURNAL],
    &["journalctl", "-n", "{number}", "-u", "{name}", JOURNAL],
    &["journalctl", "-p", "{name}", JOURNAL],
    &["journalctl", "-t", "{name}", JOURNAL],
    &["journalctl", "-o", "{name}", JOURNAL],
    &["journalctl", "-u", "{name}", "--since", "*", JOURNAL],
    &["journalctl", "--since", "*", JOURNAL],
];

/// Options of journalctl that only choose what is shown.
const JOURNAL: &str = "--no-pager|--no-hostname|--quiet|--reverse|--dmesg|--boot|--utc|{flags:qrkbfaex}|--lines=*|--unit=*|\
    --since=*|--until=*|--priority=*|--identifier=*|--output=*|--grep=*...";

/// What may be set for them: how they speak, and how wide.
pub(super) const ENVIRONMENT: [&str; 4] = [
    "LANG={name}",
    "LC_*={name}",
    "COLUMNS={number}",
    "LINES={number}",
];

/// Folders, and what is closed in each.
const PATHS: [(&str, Access, &[&str]); 4] = [
    ("/tmp", Access::Write, &[]),
    ("/var/log", Access::Write, &["/var/log/audit"]),
    (
        "/home",
        Access::Write,
        &[
            ".ssh",
            ".gnupg",
            ".aws",
            ".kube",
            ".netrc",
            ".pgpass",
            ".bash_history",
            // What a user's shell, session or mail runs without being asked.
            ".bashrc",
            ".bash_profile",
            ".bash_login",
            ".bash_logout",
            ".profile",
            ".zshrc",
            ".zprofile",
            ".zshenv",
            ".zlogin",
            ".config",
            ".pam_environment",
            ".forward",
        ],
    ),
    (
        "/etc",
        Access::Read,
        &[
            "/etc/passwd",
            "/etc/passwd-",
            "/etc/shadow",
            "/etc/shadow-",
            "/etc/gshadow",
            "/etc/gshadow-",
            "/etc/security",
            "/etc/sudoers",
            "/etc/sudoers.d",
            "/etc/ssh/ssh_host_*_key",
            "/etc/ssl/private",
            "/etc/pki/tls/private",
            "/etc/vbridge",
            "/etc/virtio-rpc",
            "/etc/krb5.keytab",
            "/etc/NetworkManager/system-connections",
            "*.key",
            ".netrc",
            "privkey*.pem",
            "wireguard",
            "wpa_supplicant*",
            "chap-secrets",
            "pap-secrets",
            "debian.cnf",
            "kubernetes",
            "rancher",
        ],
    ),
];

pub(super) fn allows(method: &str) -> bool {
    names(&OBSERVE, method) || names(&METHODS, method)
}

/// The rule's name, which a refusal has.
const NAME: &str = "profile restricted";

pub(super) fn commands() -> Result<Vec<CommandRule>, PolicyError> {
    let lines = COMMANDS.iter().map(|line| line.iter().copied());
    Ok(vec![
        CommandRule::allow(NAME, lines)?.environment(ENVIRONMENT)?,
    ])
}

pub(super) fn paths() -> Result<Vec<PathRule>, PolicyError> {
    let rule = |(root, access, closed): &(&str, Access, &[&str])| {
        PathRule::new(NAME, root, *access)?.deny(closed.iter())
    };
    PATHS.iter().map(rule).collect()
}

pub(super) fn limits() -> [Limit; 2] {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    [
        Limit::new("restricted-per-second", LIMITED)
            .rate(PER_SECOND, second, PER_SECOND)
            .concurrent(CONCURRENT),
        Limit::new("restricted-per-minute", LIMITED).rate(PER_MINUTE, minute, PER_MINUTE),
    ]
}
