//! A private libvirtd: started, killed, restarted, and gone without a trace.
//!
//! Its sockets are opened for it, as systemd would: so a TCP port is free for certain and on the host's loopback
//! device, while the daemon and its networks are in a namespace.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
    time::timeout,
};
use xtask::tools;

use super::{
    cell::{self, Cell, Network},
    certificates::{ClientCertificate, Pki, SERVER_FILES, SERVER_NAME, ServerCertificate},
    client::{self, Said, virsh},
    limits::{END, LOG_LINES, START},
};

/// Sockets by the name that systemd's units have, their file below `/run/libvirt`, and whether all may connect.
const UNIX_SOCKETS: [(&str, &str, u32); 3] = [
    ("libvirtd.socket", "libvirt-sock", 0o600),
    ("libvirtd-ro.socket", "libvirt-sock-ro", 0o666),
    ("libvirtd-admin.socket", "libvirt-admin-sock", 0o600),
];

const TCP_SOCKET: &str = "libvirtd-tcp.socket";
const TLS_SOCKET: &str = "libvirtd-tls.socket";

/// The user that SASL knows unless a test names others.
pub const SASL_USER: (&str, &str) = ("tester", "correct horse");

/// The mechanism that is offered unless a test names others.
const SASL_MECHANISM: &str = "scram-sha-256";

/// The call AUTH_LIST (procedure 66 of the remote program, version 1) with serial 0: seven words, the first the length.
/// Every daemon answers it, to anybody.
const AUTH_LIST: [u32; 7] = [28, 0x2000_8086, 1, 66, 0, 0, 0];

/// Our paths below the cell's folder.
const CONFIGURATION: &str = "etc/libvirtd.conf";
const LOG: &str = "log/libvirtd.log";
const COMPLAINTS: &str = "log/libvirtd.err";
const SASL: &str = "etc/sasl2";

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

/// A running libvirtd. When it is dropped, nothing of it is left: no process, mount, network or file.
#[derive(Debug)]
pub struct Libvirtd {
    // First, and so dropped first: it takes the daemon with it.
    cell: Cell,
    daemon: Daemon,
    settings: Builder,
    pki: Option<Pki>,
    ports: Ports,
}

/// TCP ports by their sockets' names.
type Ports = BTreeMap<String, u16>;

/// The process.
#[derive(Debug)]
struct Daemon {
    /// nsenter, which ends with the daemon and as the daemon does.
    child: Child,
    pid: u32,
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
        let cell = tokio::task::spawn_blocking(Cell::open).await??;
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
            cell,
            daemon,
            settings: self,
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

// === impl Libvirtd ===

impl Libvirtd {
    /// A daemon with its three Unix sockets, which ask nobody for a password.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The read-write Unix socket.
    pub fn socket_path(&self) -> PathBuf {
        self.unix_socket(0)
    }

    /// The read-only Unix socket.
    pub fn read_only_socket_path(&self) -> PathBuf {
        self.unix_socket(1)
    }

    /// The administration's Unix socket.
    pub fn admin_socket_path(&self) -> PathBuf {
        self.unix_socket(2)
    }

    fn unix_socket(&self, index: usize) -> PathBuf {
        let (_, file, _) = UNIX_SOCKETS[index];
        self.cell.folder().join("run/libvirt").join(file)
    }

    /// The URI of a driver (`qemu`, `test`) behind the read-write Unix socket.
    pub fn uri(&self, driver: &str) -> String {
        let socket = self.socket_path();
        format!(
            "{driver}+unix:///{}?socket={}",
            path(driver),
            socket.display()
        )
    }

    /// As [`Libvirtd::uri`], and with the password of a SASL user.
    ///
    /// # Errors
    /// The file for the password can't be written.
    pub fn sasl_uri(&self, driver: &str, user: &str, password: &str) -> Result<String> {
        Ok(format!(
            "{}&authfile={}",
            self.uri(driver),
            self.auth_file(user, password)?.display()
        ))
    }

    /// The URI of a driver behind the TCP port.
    ///
    /// # Errors
    /// There is no TCP port.
    pub fn tcp_uri(&self, driver: &str) -> Result<String> {
        let address = self.tcp_address()?;
        Ok(format!("{driver}+tcp://{address}/{}", path(driver)))
    }

    /// The URI of a driver behind the TLS port, with a client's certificates.
    ///
    /// # Errors
    /// There is no TLS port.
    pub fn tls_uri(&self, driver: &str, client: ClientCertificate) -> Result<String> {
        let port = self.tls_address()?.port();
        let pki = self.client_certificates(client)?;
        Ok(format!(
            "{driver}+tls://{SERVER_NAME}:{port}/{}?pkipath={}",
            path(driver),
            pki.display()
        ))
    }

    /// The TCP port.
    ///
    /// # Errors
    /// There is none.
    pub fn tcp_address(&self) -> Result<SocketAddr> {
        self.address(TCP_SOCKET)
    }

    /// The TLS port.
    ///
    /// # Errors
    /// There is none.
    pub fn tls_address(&self) -> Result<SocketAddr> {
        self.address(TLS_SOCKET)
    }

    fn address(&self, socket: &str) -> Result<SocketAddr> {
        let port = self.ports.get(socket);
        let port = port.with_context(|| format!("the daemon was started without a {socket}"))?;
        Ok((Ipv4Addr::LOCALHOST, *port).into())
    }

    /// A folder with `cacert.pem`, `clientcert.pem` and `clientkey.pem`, as `pkipath` in a URI takes it.
    ///
    /// # Errors
    /// There is no TLS port.
    pub fn client_certificates(&self, client: ClientCertificate) -> Result<PathBuf> {
        let pki = self.pki.as_ref();
        let pki = pki.context("the daemon was started without a TLS port")?;
        Ok(pki.client(client))
    }

    /// A file with a user's password, as `authfile` in a URI takes it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn auth_file(&self, user: &str, password: &str) -> Result<PathBuf> {
        let text = format!(
            "[credentials-given]\nauthname={user}\nusername={user}\npassword={password}\n\n\
             [auth-libvirt-default]\ncredentials=given\n"
        );
        let path = self
            .cell
            .folder()
            .join(format!("auth-{user}-{}.conf", password.len()));
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }

    /// The daemon's process id on the host.
    pub fn pid(&self) -> u32 {
        self.daemon.pid
    }

    /// Where everything of the daemon is, on the host. It ends with the daemon.
    pub fn folder(&self) -> &Path {
        self.cell.folder()
    }

    /// A path that the daemon has told, as this test finds it.
    pub fn path(&self, told: impl AsRef<Path>) -> PathBuf {
        self.cell.outside(told.as_ref())
    }

    /// A path below [`Libvirtd::folder`] as the daemon finds it.
    pub fn path_inside(&self, ours: impl AsRef<Path>) -> PathBuf {
        self.cell.inside(ours.as_ref())
    }

    /// Runs virsh on the read-write socket with the QEMU driver.
    ///
    /// # Errors
    /// It fails.
    pub async fn virsh(&self, arguments: &[&str]) -> Result<String> {
        let said = virsh(&self.uri("qemu"), arguments).await?;
        said.ok()
            .with_context(|| format!("`virsh {}`", arguments.join(" ")))
    }

    /// Runs a program in the daemon's namespaces, `ip link` for example.
    ///
    /// # Errors
    /// It can't be run. That it fails is no error here.
    pub async fn within(&self, program: &str, arguments: &[&str]) -> Result<Said> {
        let mut command = self.cell.command(Network::Own, program);
        command.args(arguments);
        client::run(command, "").await
    }

    /// Kills the daemon as a crash would. Its domains go on.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill9(&mut self) -> Result<()> {
        self.daemon.signal(Signal::KILL)?;
        self.ended().await
    }

    /// Ends the daemon in order. Its domains go on.
    ///
    /// # Errors
    /// It does not end, or not with status 0.
    pub async fn terminate(&mut self) -> Result<()> {
        self.daemon.signal(Signal::TERM)?;
        self.ended().await?;
        let status = self.daemon.child.try_wait()?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "libvirtd ended with {status:?}\n{}",
            self.log()
        );
        Ok(())
    }

    /// Starts the daemon again after its end, with the same sockets and ports.
    ///
    /// # Errors
    /// It still runs, or does not answer.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(
            self.daemon.child.try_wait()?.is_some(),
            "libvirtd still runs"
        );
        let (daemon, ports) = launch(&self.cell, &self.ports).await?;
        self.daemon = daemon;
        self.ports = ports;
        Ok(())
    }

    /// Ends the daemon in order and starts it again, with the same sockets and ports.
    ///
    /// # Errors
    /// As [`Libvirtd::terminate`] and [`Libvirtd::start_again`].
    pub async fn restart(&mut self) -> Result<()> {
        self.terminate().await?;
        self.start_again().await
    }

    /// Ends the daemon in order, and then everything else of it: domains, networks, mounts and files.
    ///
    /// # Errors
    /// The daemon does not end with status 0, or something of it is left.
    pub async fn stop(mut self) -> Result<()> {
        self.terminate().await?;
        let folder = self.cell.folder().to_owned();
        let cell = self.cell;
        tokio::task::spawn_blocking(|| cell.close()).await??;
        ensure!(!folder.exists(), "{} is left", folder.display());
        Ok(())
    }

    /// What the daemon has complained of, the last lines of it.
    pub fn log(&self) -> String {
        log(&self.cell)
    }

    /// An error with the daemon's log.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = self.log();
        error.context(format!("libvirtd's log:\n{log}"))
    }

    /// The settings with which it was started.
    pub fn settings(&self) -> &Builder {
        &self.settings
    }

    async fn ended(&mut self) -> Result<()> {
        match timeout(END, self.daemon.child.wait()).await {
            Ok(status) => status.map(drop).context("can't wait for libvirtd"),
            Err(_) => bail!("libvirtd has not ended within {END:?}\n{}", self.log()),
        }
    }
}

// === impl Daemon ===

impl Daemon {
    fn signal(&mut self, signal: Signal) -> Result<()> {
        // Until nsenter has been waited for, the id can't be another process's.
        ensure!(
            self.child.try_wait()?.is_none(),
            "libvirtd has ended already"
        );
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("no process id")?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("can't send {signal:?} to libvirtd (process {})", self.pid))
    }
}

/// Starts the daemon and waits until it answers.
async fn launch(cell: &Cell, ports: &Ports) -> Result<(Daemon, Ports)> {
    let launched = async {
        let (mut daemon, ports) = spawn(cell, ports).await?;
        tokio::select! {
            answered = answers(cell) => answered?,
            status = daemon.child.wait() => bail!("it ended with {}", status?),
        }
        anyhow::Ok((daemon, ports))
    };
    let launched = match timeout(START, launched).await {
        Ok(launched) => launched,
        Err(_) => Err(anyhow!("no answer within {START:?}")),
    };
    launched.map_err(|error| error.context(format!("libvirtd does not start:\n{}", log(cell))))
}

async fn spawn(cell: &Cell, ports: &Ports) -> Result<(Daemon, Ports)> {
    let libvirtd = xtask::command::find_program("libvirtd")
        .context("libvirtd is missing: run `cargo xtask test`, which installs it")?;
    let sockets: serde_json::Map<String, Value> = UNIX_SOCKETS
        .iter()
        .map(|(name, file, mode)| {
            let path = format!("/run/libvirt/{file}");
            ((*name).to_owned(), json!([path, mode]))
        })
        .collect();
    let program = tools::system_python().display().to_string();
    let mut command = cell.command(Network::Hosts, &program);
    command
        .arg(super::program("launch.py"))
        .arg(json!({"unix": sockets, "tcp": ports}).to_string())
        .arg(libvirtd)
        .args(["--config", &inside(cell, CONFIGURATION)])
        .args(["--pid-file", "/run/libvirtd.pid"])
        .env("SASL_CONF_PATH", inside(cell, SASL))
        // dnsmasq, iptables and others are not where users look.
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(cell.folder().join(COMPLAINTS))?);
    let mut child = command.spawn().context("can't start nsenter")?;
    let stdout = child.stdout.take().context("it has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    let ports = serde_json::from_str(&line).context("its sockets can't be opened")?;
    let pid = child.id().and_then(cell::child_of);
    let pid = pid.context("it has ended already")?;
    Ok((Daemon { child, pid }, ports))
}

/// Makes a call that every daemon answers.
async fn answers(cell: &Cell) -> Result<()> {
    let (_, file, _) = UNIX_SOCKETS[0];
    let path = cell.folder().join("run/libvirt").join(file);
    let mut socket = UnixStream::connect(&path)
        .await
        .with_context(|| format!("can't connect {}", path.display()))?;
    socket
        .write_all(&AUTH_LIST.map(u32::to_be_bytes).concat())
        .await?;
    let length = socket
        .read_u32()
        .await
        .context("it closes the connection")?;
    ensure!(length >= AUTH_LIST[0], "it answers with {length} bytes");
    Ok(())
}

fn log(cell: &Cell) -> String {
    let read = |file: &str| fs::read(cell.folder().join(file)).unwrap_or_default();
    let text = [read(COMPLAINTS), read(LOG)].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// One of our paths as the daemon sees it.
fn inside(cell: &Cell, path: &str) -> String {
    let path = cell.inside(&cell.folder().join(path));
    path.display().to_string()
}

/// What stands behind the host in a driver's URI.
fn path(driver: &str) -> &str {
    match driver {
        "test" => "default",
        _ => "system",
    }
}

fn write_settings(path: &Path, settings: &BTreeMap<&str, String>) -> Result<()> {
    let lines: String = settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    fs::write(path, lines).with_context(|| format!("can't write {}", path.display()))
}
