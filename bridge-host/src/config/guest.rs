//! A guest, from the file or from the command line, where it has a form of its own.

use std::{path::PathBuf, str::FromStr};

use vbridge_settings::read_key;

use super::{
    ConfigError,
    value::{Name, SocketPath},
};
use crate::{AgentKind, GuestSpec, ListenAddress};

/// A guest as the operator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEntry {
    /// What calls route by.
    pub name: String,
    /// The Unix socket of its virtio-serial channel.
    pub channel: PathBuf,
    /// A QEMU monitor (QMP) socket for the bridge alone: it tells pauses at once.
    pub monitor: Option<PathBuf>,
    /// A listen address of its own.
    pub listen: Option<ListenAddress>,
    /// A file with the key that its agent must prove.
    pub key_file: Option<PathBuf>,
    /// Whose certificate its agent has, if not one for the guest's name.
    pub tls_name: Option<String>,
    /// Which agent runs in it.
    pub agent: AgentKind,
}

/// An agent as the operator names it.
#[derive(Debug)]
pub(super) struct AgentName(pub(super) AgentKind);

impl FromStr for AgentName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "vbridge" => Ok(Self(AgentKind::Vbridge)),
            "qemu" => Ok(Self(AgentKind::Qemu)),
            other => Err(format!(
                "\"{}\" is no agent; there are vbridge, and qemu for a guest that has only qemu-guest-agent",
                other.escape_debug()
            )),
        }
    }
}

impl GuestEntry {
    /// The guest as the bridge takes it, with its key read.
    ///
    /// # Errors
    /// The key can't be read, or others have access to it.
    pub fn spec(&self) -> Result<GuestSpec, ConfigError> {
        let mut spec = GuestSpec::new(self.name.clone(), self.channel.clone());
        spec.monitor.clone_from(&self.monitor);
        spec.listen.clone_from(&self.listen);
        spec.agent = self.agent;
        if let Some(path) = &self.key_file {
            let key = read_key(path).map_err(|why| ConfigError::Key {
                guest: self.name.clone(),
                path: path.clone(),
                why,
            })?;
            spec.key = Some(key);
        }
        Ok(spec)
    }
}

/// In `NAME=unix:PATH[,monitor=unix:PATH][,listen=ADDRESS][,key-file=PATH][,tls-name=NAME][,agent=qemu]`, a comma that belongs
/// to a path is written twice, as QEMU does.
impl FromStr for GuestEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write NAME=unix:PATH, like web=unix:/run/vms/web.sock";
        let mut parts = split_options(text).into_iter();
        let first = parts.next().unwrap_or_default();
        let Some((name, channel)) = first.split_once('=') else {
            return Err(format!("the guest's channel is missing; {FORM}"));
        };
        let mut guest = Self {
            name: name.parse::<Name>()?.0,
            channel: channel.parse::<SocketPath>()?.0,
            monitor: None,
            listen: None,
            key_file: None,
            tls_name: None,
            agent: AgentKind::default(),
        };
        let mut has_agent = false;
        for part in parts {
            let (option, value) = part.split_once('=').unwrap_or((&part, ""));
            let is_twice = match option {
                "monitor" => guest
                    .monitor
                    .replace(value.parse::<SocketPath>()?.0)
                    .is_some(),
                "listen" => {
                    let address = value.parse().map_err(|error| format!("{error}"));
                    guest.listen.replace(address?).is_some()
                }
                "key-file" if value.is_empty() => return Err("key-file needs a path".into()),
                "key-file" => guest.key_file.replace(value.into()).is_some(),
                "tls-name" if value.is_empty() => return Err("tls-name needs a name".into()),
                "tls-name" => guest.tls_name.replace(value.into()).is_some(),
                "agent" => {
                    guest.agent = value.parse::<AgentName>()?.0;
                    std::mem::replace(&mut has_agent, true)
                }
                other => {
                    let other = other.escape_debug();
                    return Err(format!(
                        "\"{other}\" is no option of a guest; there are monitor=unix:PATH, listen=ADDRESS, \
                         key-file=PATH, tls-name=NAME and agent=qemu, and a comma in a path is written twice"
                    ));
                }
            };
            if is_twice {
                return Err(format!(
                    "{option} is given twice for guest \"{}\"",
                    guest.name
                ));
            }
        }
        Ok(guest)
    }
}

/// Splits at single commas; two commas stand for one that belongs to the text.
fn split_options(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::config::tests::assert_says;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut guest: GuestEntry = "web=unix:/web.sock".parse().unwrap();
        guest.key_file = Some(path.clone());
        let spec = |guest: &GuestEntry| guest.spec().map_err(|error| error.to_string());
        assert_says(spec(&guest), &["\"web\"", "no such file"]);
        fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        for mode in [0o644, 0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_says(spec(&guest), &["chmod 600"]);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(spec(&guest).unwrap().key.is_some());
        fs::write(&path, "short").unwrap();
        assert_says(spec(&guest), &["has 5"]);
        guest.key_file = Some(dir.path().to_owned());
        assert_says(spec(&guest), &["a directory"]);
    }

    #[test]
    fn a_guest_flag_is_read_with_all_its_options() {
        let guest: GuestEntry =
            "web=unix:/run/a,,b.sock,monitor=unix:/m,listen=[::1]:7500,key-file=/k=1,tls-name=w.example,agent=qemu"
                .parse()
                .unwrap();
        let expected = GuestEntry {
            name: "web".into(),
            channel: "/run/a,b.sock".into(),
            monitor: Some("/m".into()),
            listen: Some("[::1]:7500".parse().unwrap()),
            key_file: Some("/k=1".into()),
            tls_name: Some("w.example".into()),
            agent: AgentKind::Qemu,
        };
        assert_eq!(guest, expected);
    }

    #[test]
    fn a_bad_guest_flag_says_what_is_wrong_with_it() {
        for (flag, word) in [
            ("", "NAME=unix:PATH"),
            ("web", "NAME=unix:PATH"),
            ("web=/run/web.sock", "unix:PATH"),
            ("web=unix:", "unix:PATH"),
            (".web=unix:/a", "dot"),
            ("=unix:/a", "1 to 253"),
            ("bridge=unix:/a", "the bridge's own"),
            ("web=unix:/a,b", "a comma in a path is written twice"),
            ("web=unix:/a,listen=x", "127.0.0.1:7411"),
            ("web=unix:/a,key-file=", "needs a path"),
            ("web=unix:/a,tls-name=", "needs a name"),
            ("web=unix:/a,agent=spice", "\"spice\" is no agent"),
            ("web=unix:/a,agent=qemu,agent=qemu", "twice"),
            ("web=unix:/a,monitor=unix:/b,monitor=unix:/c", "twice"),
        ] {
            assert_says(flag.parse::<GuestEntry>(), &[word]);
        }
    }
}
