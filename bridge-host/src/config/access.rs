//! Callers, rules and certificates, as serde sees them.

use std::{
    fs::File,
    io::Read as _,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use serde::Deserialize;
use vbridge_settings::check_private;

use super::{ConfigError, value::Text};
use crate::{
    access::{CallerSpec, Proof, Rates, Rule, TlsFiles, TokenHash},
    limits::MAX_TOKEN,
};

/// The shortest token: of fewer characters all could be tried.
const MIN_TOKEN: usize = 16;

/// Certificates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsForm {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    #[serde(default)]
    client_optional: bool,
}

impl From<TlsForm> for TlsFiles {
    fn from(form: TlsForm) -> Self {
        Self {
            certificate: form.certificate,
            key: form.key,
            client_ca: form.client_ca,
            require_client: !form.client_optional,
        }
    }
}

/// One caller.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallerForm {
    name: String,
    token_sha256: Option<Text<Hash>>,
    token_file: Option<PathBuf>,
    certificate: Option<String>,
    uid: Option<u32>,
    expires: Option<Text<Moment>>,
    calls_per_second: Option<NonZeroU32>,
    calls_per_minute: Option<NonZeroU32>,
    calls_at_once: Option<NonZeroU32>,
}

impl CallerForm {
    pub(super) fn spec(self) -> Result<CallerSpec, ConfigError> {
        let mut proofs = Vec::new();
        proofs.extend(self.token_sha256.map(|hash| Proof::Token(hash.0.0)));
        if let Some(path) = self.token_file {
            let hash = read_token(&path).map_err(|why| ConfigError::Token {
                caller: self.name.escape_debug().to_string(),
                path: path.clone(),
                why,
            })?;
            proofs.push(Proof::Token(hash));
        }
        proofs.extend(self.certificate.map(Proof::Certificate));
        proofs.extend(self.uid.map(Proof::Uid));
        Ok(CallerSpec {
            name: self.name,
            proofs,
            expires: self.expires.map(|moment| moment.0.0),
            rates: Rates {
                per_second: self.calls_per_second,
                per_minute: self.calls_per_minute,
                at_once: self.calls_at_once,
            },
        })
    }
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleForm {
    #[serde(default)]
    name: String,
    allow: bool,
    #[serde(default = "all")]
    callers: Vec<String>,
    #[serde(default = "all")]
    guests: Vec<String>,
    #[serde(default = "all")]
    methods: Vec<String>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

impl From<RuleForm> for Rule {
    fn from(form: RuleForm) -> Self {
        Self {
            name: form.name,
            allow: form.allow,
            callers: form.callers,
            guests: form.guests,
            methods: form.methods,
        }
    }
}

/// The first line of a file.
fn read_token(path: &Path) -> Result<TokenHash, String> {
    check_private(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_TOKEN + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_TOKEN {
        return Err(format!("it is longer than {MAX_TOKEN} bytes"));
    }
    let token = bytes.trim_ascii();
    let is_token = |byte: &u8| byte.is_ascii_graphic();
    match token.len() >= MIN_TOKEN && token.iter().all(is_token) {
        true => Ok(TokenHash::of(token)),
        false => Err(format!(
            "a token is one line of at least {MIN_TOKEN} letters, digits and signs; write one with `openssl rand -hex 32`"
        )),
    }
}

/// A token's hash.
#[derive(Debug)]
pub(super) struct Hash(TokenHash);

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hash = TokenHash::parse(text).map(Self);
        // It is not repeated: somebody may have written the token itself.
        hash.ok_or_else(|| {
            "that is not a token's hash; write the 64 digits of `printf %s TOKEN | sha256sum`"
                .to_owned()
        })
    }
}

/// A moment.
#[derive(Debug)]
pub(super) struct Moment(SystemTime);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_rfc3339(text).map(Self).map_err(|_| {
            format!(
                "\"{}\" is not a moment; write one in UTC like 2027-01-31T12:00:00Z",
                text.escape_debug()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::config::{Config, Format, tests::assert_says};

    const TEXT: &str = r#"
audit = "/var/log/vbridge/audit.jsonl"

[tls]
certificate = "/etc/vbridge/bridge.pem"
key = "/etc/vbridge/bridge.key"
client_ca = "/etc/vbridge/clients.pem"
client_optional = true

[[caller]]
name = "ops"
token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
certificate = "ops.example"
uid = 1000
expires = "2027-01-31T12:00:00Z"
calls_per_second = 10
calls_per_minute = 100
calls_at_once = 5

[[rule]]
name = "no-shells"
allow = false
methods = ["vbridge.guest.v1.Exec/*"]

[[rule]]
allow = true
callers = ["ops"]
guests = ["web-*"]
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Format::Toml, Path::new("b.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn callers_rules_and_certificates_are_read() {
        let config = parse(TEXT).unwrap();
        assert!(config.audit.unwrap().ends_with("audit.jsonl"));
        assert!(!config.tls.unwrap().require_client);
        let [ops] = config.access.callers.try_into().unwrap();
        assert_eq!(ops.proofs.len(), 3);
        assert_eq!(ops.rates.per_minute.unwrap().get(), 100);
        assert!(ops.expires.unwrap() > SystemTime::UNIX_EPOCH);
        let [no_shells, web] = config.access.rules.try_into().unwrap();
        assert_eq!((no_shells.allow, no_shells.callers), (false, all()));
        assert_eq!((web.allow, web.methods), (true, all()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_no_secret_is_repeated() {
        let with = |from: &str, to: &str| parse(&TEXT.replace(from, to));
        assert_says(
            with("2027-01-31T12:00:00Z", "soon"),
            &["line 15", "\"soon\""],
        );
        assert_says(
            with("calls_at_once = 5", "calls_at_once = 0"),
            &["line 18", "nonzero"],
        );
        assert_says(with("allow = true", ""), &["`allow`", "missing"]);
        assert_says(
            with("client_ca", "client-ca"),
            &["line 7", "did you mean `client_ca`?"],
        );
        let error = with("9f86d0", "secret").unwrap_err();
        assert!(
            error.contains("line 12") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn a_token_file_holds_one_long_line_that_nobody_else_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mode = |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            mode(0o600);
            read_token(&path)
        };
        let token = "0123456789abcdef";
        assert!(read(b"0123456789abcdef\n") == Ok(TokenHash::of(token)));
        for wrong in [&b"short"[..], b"0123456789abcdef\n0123456789abcdef\n", b""] {
            assert!(read(wrong).unwrap_err().contains("openssl"));
        }
        assert!(read(&vec![b'a'; 5000]).unwrap_err().contains("4096"));
        mode(0o644);
        assert!(read_token(&path).unwrap_err().contains("chmod 600"));
    }
}
