//! What a daemon is to be, and the files that tell it so.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use tokio::{process::Command, time::timeout};

use super::{
    Libvirtd,
    process::{CONFIGURATION, LOG, Ports, SASL, TCP_SOCKET, TLS_SOCKET, inside, launch},
};
use crate::libvirt::{
    cell::Cell,
    certificates::{Pki, SERVER_FILES, ServerCertificate},
    client,
    limits::START,
};

/// The user that SASL knows unless a test names others.
pub const SASL_USER: (&str, &str) = ("tester", "correct horse");

/// The mechanism that is offered unless a test names others.
const SASL_MECHANISM: &str = "scram-sha-256";

/// QEMU runs as root and unconfined, as its daemon does; libvirt shall not touch the owners of what we boot, nor the
/// host's cgroups, nor want a virtlogd.
const QEMU_SETTINGS: [(&str, &str); 8] = [
    ("user", "\"root\""),
    ("group", "\"root\""),
    ("dynamic_ownership", "0"),
    ("remember_owner", "0"),
    ("security_driver", "\"none\""),
    ("namespaces", "[]"),
    ("cgroup_controllers", "[]"),
    ("stdio_handler", "\"file\""),
];

/// How a socket asks its clients who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// By SASL, with the mechanisms and users of the [`Builder`].
    Sasl,
}

/// Settings of a [`Libvirtd`].
#[derive(Debug, Clone, Default)]
pub struct Builder {
    settings: BTreeMap<String, String>,
    qemu_settings: BTreeMap<String, String>,
    unix: Auth,
    tcp: Option<Auth>,
    tls: Option<(ServerCertificate, Auth)>,
    mechanisms: Vec<String>,
    users: Vec<(String, String)>,
}

// === impl Builder ===

impl Builder {
    /// A line of libvirtd.conf. The value is as it stands there: strings are in quotes.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// A line of qemu.conf, as [`Builder::setting`].
    #[must_use]
    pub fn qemu_setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.qemu_settings.insert(name.to_owned(), value.into());
        self
    }

    /// Calls of one client that the daemon takes at a time; it reads no further before one is answered. Default: 5.
    #[must_use]
    pub fn max_client_requests(self, count: u32) -> Self {
        self.setting("max_client_requests", count.to_string())
    }

    /// Threads that serve calls, at least and at most. Default: 5 and 20.
    #[must_use]
    pub fn workers(self, min: u32, max: u32) -> Self {
        self.setting("min_workers", min.to_string())
            .setting("max_workers", max.to_string())
    }

    /// Further threads for calls that never wait for QEMU. Default: 5.
    #[must_use]
    pub fn prio_workers(self, count: u32) -> Self {
        self.setting("prio_workers", count.to_string())
    }

    /// Connections at most, and how many of them may not have authenticated yet. Default: 5000 and 20.
    #[must_use]
    pub fn max_clients(self, count: u32, anonymous: u32) -> Self {
        self.setting("max_clients", count.to_string())
            .setting("max_anonymous_clients", anonymous.to_string())
    }

    /// Seconds between the daemon's pings, and how many may stay unanswered. Default: 5 and 5; -1 seconds: no pings.
    #[must_use]
    pub fn keepalive(self, interval: i32, count: u32) -> Self {
        self.setting("keepalive_interval", interval.to_string())
            .setting("keepalive_count", count.to_string())
    }

    /// How the read-write Unix socket authenticates. Default: not at all. The read-only one never does.
    #[must_use]
    pub fn unix(mut self, auth: Auth) -> Self {
        self.unix = auth;
        self
    }

    /// With a TCP port. Default: none.
    #[must_use]
    pub fn tcp(mut self, auth: Auth) -> Self {
        self.tcp = Some(auth);
        self
    }

    /// With a TLS port, which asks for a client certificate. Default: none.
    #[must_use]
    pub fn tls(mut self, certificate: ServerCertificate, auth: Auth) -> Self {
        self.tls = Some((certificate, auth));
        self
    }

    /// A SASL mechanism that is offered, such as `plain`. May be given more than once. Default: `scram-sha-256`.
    ///
    /// Without TLS a TCP port takes only those that encrypt, such as `digest-md5`.
    #[must_use]
    pub fn sasl_mechanism(mut self, name: &str) -> Self {
        self.mechanisms.push(name.to_owned());
        self
    }

    /// A user that SASL knows. May be given more than once. Default: [`SASL_USER`].
    #[must_use]
    pub fn sasl_user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// A program is missing, we are not root, or the daemon does not answer within [`START`]; then the error has its
    /// log.
    pub async fn start(mut self) -> Result<Libvirtd> {
        if self.mechanisms.is_empty() {
            self.mechanisms.push(SASL_MECHANISM.to_owned());
        }
        if self.users.is_empty() {
            let (name, password) = SASL_USER;
            self.users.push((name.to_owned(), password.to_owned()));
        }
        let cell = timeout(START, tokio::task::spawn_blocking(Cell::open)).await;
        let cell = cell.with_context(|| format!("no namespaces within {START:?}"))???;
        let pki = match self.tls {
            Some((certificate, _)) => Some(Pki::make(&cell.folder().join("etc/pki"), certificate)?),
            None => None,
        };
        self.configure(&cell, pki.as_ref()).await?;
        let any = [
            (TCP_SOCKET, self.tcp.is_some()),
            (TLS_SOCKET, pki.is_some()),
        ];
        let wanted = any.iter().filter(|(_, wanted)| *wanted);
        let wanted: Ports = wanted.map(|(name, _)| ((*name).to_owned(), 0)).collect();
        let (daemon, ports) = launch(&cell, &wanted).await?;
        Ok(Libvirtd {
            daemon,
            cell,
            pki,
            ports,
        })
    }

    /// Starts the daemon, tells it a story, and stops it. If the story fails, so does this, with the daemon's log.
    ///
    /// # Errors
    /// Those of the story, and of the daemon's start and end.
    pub async fn run(self, story: impl AsyncFnOnce(&mut Libvirtd) -> Result<()>) -> Result<()> {
        let mut daemon = self.start().await?;
        match story(&mut daemon).await {
            Ok(()) => daemon.stop().await,
            Err(error) => Err(daemon.explain(error)),
        }
    }

    async fn configure(&self, cell: &Cell, pki: Option<&Pki>) -> Result<()> {
        let sasl = |auth: Auth| match auth {
            Auth::None => "\"none\"".to_owned(),
            Auth::Sasl => "\"sasl\"".to_owned(),
        };
        let (_, tls) = self.tls.unwrap_or((ServerCertificate::Good, Auth::None));
        let log = format!("\"3:file:{}\"", inside(cell, LOG));
        let mut lines = BTreeMap::from([
            ("auth_unix_ro", sasl(Auth::None)),
            ("auth_unix_rw", sasl(self.unix)),
            ("auth_tcp", sasl(self.tcp.unwrap_or_default())),
            ("auth_tls", sasl(tls)),
            ("log_level", "3".to_owned()),
            ("log_outputs", log),
        ]);
        if let Some(pki) = pki {
            for (setting, file) in SERVER_FILES {
                let path = cell.inside(&pki.server().join(file));
                lines.insert(setting, format!("\"{}\"", path.display()));
            }
            // Else libvirtd refuses to start with a certificate that its clients should refuse.
            lines.insert("tls_no_sanity_certificate", "1".to_owned());
        }
        lines.extend(
            self.settings
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone())),
        );
        write_settings(&cell.folder().join(CONFIGURATION), &lines)?;

        let mut lines: BTreeMap<&str, String> = QEMU_SETTINGS
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        lines.extend(
            self.qemu_settings
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone())),
        );
        write_settings(&cell.folder().join("etc/qemu.conf"), &lines)?;
        let sockets = [Some(self.unix), self.tcp, Some(tls)];
        if sockets.contains(&Some(Auth::Sasl)) {
            self.configure_sasl(cell).await?;
        }
        Ok(())
    }

    /// The configuration of Cyrus SASL, and its users.
    async fn configure_sasl(&self, cell: &Cell) -> Result<()> {
        let folder = cell.folder().join(SASL);
        fs::create_dir(&folder)?;
        let users = folder.join("users.db");
        let configuration = format!(
            "mech_list: {}\nsasldb_path: {}\n",
            self.mechanisms.join(" "),
            cell.inside(&users).display()
        );
        fs::write(folder.join("libvirt.conf"), configuration)?;
        let program = xtask::command::find_program("saslpasswd2")
            .context("saslpasswd2 is missing: run `cargo xtask test`, which installs it")?;
        for (name, password) in &self.users {
            let mut command = Command::new(&program);
            command.args(["-p", "-c", "-a", "libvirt", "-f"]);
            command.arg(&users).arg(name);
            let said = client::run(command, &format!("{password}\n")).await?;
            said.ok()
                .with_context(|| format!("can't add {name} to SASL's users"))?;
        }
        Ok(())
    }
}

fn write_settings(path: &Path, settings: &BTreeMap<&str, String>) -> Result<()> {
    let lines: String = settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    fs::write(path, lines).with_context(|| format!("can't write {}", path.display()))
}
