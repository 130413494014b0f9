//! A real sshd, with keys of its own, on a loopback port. It runs where the daemon does, so that it finds its sockets.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{net::TcpListener, process::Command, task::JoinSet};
use xtask::tools;

use super::{
    cell::{Entrance, Network},
    daemon::Libvirtd,
};

/// What sshd wants in the daemon's namespaces beside its own files: a user without rights, and an empty folder. The file
/// of users there is a copy; that of the host is left alone.
const PREPARE: &str = "grep -q ' /etc/passwd ' /proc/self/mountinfo
mkdir -m 755 /run/sshd
grep -q ^sshd: /etc/passwd || echo sshd:x:64054:65534::/run/sshd:/usr/sbin/nologin >>/etc/passwd";

/// An ssh that is told by the URI alone, and not by the files and the agent of whoever runs the tests.
const SSH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/libvirt/alone/ssh");

/// Its files.
const CONFIGURATION: &str = "sshd_config";
const LOG: &str = "log";

/// An sshd for each connection, as inetd would start it, with the rights and in the namespaces of a libvirtd, which may come
/// and go meanwhile.
#[derive(Debug)]
pub struct Sshd {
    port: u16,
    folder: PathBuf,
    accepts: JoinSet<Result<()>>,
}

impl Sshd {
    /// Listens.
    ///
    /// # Errors
    /// There is no sshd, or its files can't be made.
    pub async fn start(daemon: &Libvirtd) -> Result<Self> {
        let program = tools::sshd();
        ensure!(
            program.exists(),
            "sshd is missing: run `cargo xtask tools`, which unpacks it"
        );
        let prepared = daemon.within("sh", &["-ec", PREPARE]).await?;
        prepared.ok().context("sshd's place")?;
        let folder = daemon.folder().join("ssh");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        write_files(&folder, port).await?;
        let mut accepts = JoinSet::new();
        accepts.spawn(accept(listener, program, daemon.entrance(), folder.clone()));
        Ok(Self {
            port,
            folder,
            accepts,
        })
    }

    /// Listens no longer.
    pub async fn stop(mut self) {
        self.accepts.shutdown().await;
    }

    /// The port on the loopback device.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the keys are: those of the `host`, of the `client` who may come in, and of a `stranger` who may not; and the
    /// hosts that are `known`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A URI of the test driver by this way, with a key and a file of known hosts.
    pub fn uri(&self, key: &str, known: &str) -> String {
        format!(
            "test+ssh://root@localhost:{}/default?no_tty=1&command={SSH}&keyfile={}&known_hosts={}",
            self.port,
            self.folder.join(key).display(),
            self.folder.join(known).display()
        )
    }

    /// What the sshds have written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }
}

/// Starts an sshd for each connection. It ends with that, and with the namespaces at the latest.
async fn accept(
    listener: TcpListener,
    program: PathBuf,
    entrance: Entrance,
    folder: PathBuf,
) -> Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        let output = socket.try_clone()?;
        let mut log = fs::File::options();
        let log = log.append(true).create(true).open(folder.join(LOG))?;
        entrance
            .command(Network::Hosts, &program)
            .args(["-i", "-e", "-f"])
            .arg(folder.join(CONFIGURATION))
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            .stderr(log)
            .spawn()?;
    }
}

/// The keys of host and client, and of one whom nobody knows; who may come in; and what is known of the host.
async fn write_files(folder: &Path, port: u16) -> Result<()> {
    fs::create_dir(folder)?;
    for name in ["host", "client", "stranger"] {
        make_key(&folder.join(name)).await?;
    }
    fs::copy(folder.join("client.pub"), folder.join("authorized_keys"))?;
    let host_key = fs::read_to_string(folder.join("host.pub"))?;
    let known = format!("[localhost]:{port} {host_key}");
    fs::write(folder.join("known"), known)?;
    let place = folder.display();
    let configuration = format!(
        "HostKey {place}/host\nAuthorizedKeysFile {place}/authorized_keys\nPidFile none\nUsePAM no\n\
         StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nPrintMotd no\nLogLevel VERBOSE\n"
    );
    fs::write(folder.join(CONFIGURATION), configuration)?;
    Ok(())
}

async fn make_key(path: &Path) -> Result<()> {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path);
    let made = command.status().await.context("can't run ssh-keygen")?;
    ensure!(made.success(), "ssh-keygen: {made}");
    let mode = fs::metadata(path)?.permissions().mode();
    ensure!(mode & 0o077 == 0, "ssh would refuse a key of mode {mode:o}");
    Ok(())
}
