//! A private libvirtd: started, killed, restarted, and gone without a trace.

mod builder;
mod process;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tokio::time::timeout;

pub use self::builder::{Auth, Builder, SASL_USER};
use self::process::{Daemon, Ports, TCP_SOCKET, TLS_SOCKET, UNIX_SOCKETS};
use super::{
    cell::{Cell, Entrance, Network},
    certificates::{ClientCertificate, Pki, SERVER_NAME},
    client::{self, Said, virsh, virt_admin},
    limits::{END, NOTICE},
};
use crate::fixture::{Bridge, eventually};

/// A running libvirtd. When it is dropped, nothing of it is left: no process, mount, network or file.
#[derive(Debug)]
pub struct Libvirtd {
    // First, and so dropped first: the cell ends when nobody outside waits for a process in it, as nsenter does.
    daemon: Daemon,
    // It takes the daemon with it.
    cell: Cell,
    pki: Option<Pki>,
    ports: Ports,
}

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

    /// The URI of the daemon's administration, as virt-admin takes it.
    pub fn admin_uri(&self) -> String {
        let socket = self.admin_socket_path();
        format!("libvirtd:///system?socket={}", socket.display())
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
        // Each call has a file of its own: a test may hold URIs with several passwords.
        let file = tempfile::Builder::new()
            .prefix("auth-")
            .suffix(".conf")
            .tempfile_in(self.cell.folder())
            .context("can't create a file for a password")?;
        let (_, path) = file.keep()?;
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

    /// A pool of volumes that are files of a folder. Returns the folder.
    ///
    /// # Errors
    /// virsh fails.
    pub async fn pool(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder().join(name);
        let inside = self.path_inside(&folder).display().to_string();
        self.virsh(&["pool-define-as", name, "dir", "--target", &inside])
            .await?;
        self.virsh(&["pool-build", name]).await?;
        self.virsh(&["pool-start", name]).await?;
        Ok(folder)
    }

    /// A volume of a pool, raw and without content: a file with nothing but a hole.
    ///
    /// # Errors
    /// virsh fails.
    pub async fn volume(&self, pool: &str, name: &str, bytes: u64) -> Result<()> {
        let capacity = format!("{bytes}B");
        let arguments = [pool, name, &capacity, "--allocation", "0"];
        self.virsh(&[&["vol-create-as"], &arguments[..]].concat())
            .await?;
        Ok(())
    }

    /// The numbers that the daemon has given to the clients that are connected, in the order in which they came. Those of
    /// its administration are not among them.
    ///
    /// # Errors
    /// virt-admin fails.
    pub async fn clients(&self) -> Result<Vec<u64>> {
        let list = virt_admin(&self.admin_uri(), &["client-list", "libvirtd"]).await?;
        let list = list.ok()?;
        let rows = list.lines().filter_map(|row| row.split_whitespace().next());
        rows.map(|number| Ok(number.parse()?))
            .collect::<Result<_>>()
            .with_context(|| format!("a list of clients: {list}"))
    }

    /// Waits until so many clients are connected, by the daemon's own count.
    ///
    /// # Errors
    /// It is another number for [`NOTICE`], or can't be told.
    pub async fn has_clients(&self, count: usize) -> Result<()> {
        let what = format!("{count} clients");
        let counted = async || Ok(self.clients().await?.len() == count);
        match eventually(&what, NOTICE, counted).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("there are {:?}", self.clients().await?))),
        }
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

    /// Starts a bridge that sees the daemon's files, and listens on this machine. Its arguments are those of `vbridge serve`.
    ///
    /// # Errors
    /// It does not say where it listens.
    pub async fn bridge(&self, arguments: &[&str]) -> Result<Bridge> {
        let way = self.cell.entrance().way().map(Into::into).to_vec();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Bridge::start_with(way, arguments).await
    }

    /// How programs come into the daemon's namespaces, also when it has been started again.
    pub(super) fn entrance(&self) -> Entrance {
        self.cell.entrance()
    }

    /// Kills the daemon as a crash would. Its domains go on.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill9(&mut self) -> Result<()> {
        self.daemon.signal(Signal::KILL)?;
        self.ended().await?;
        Ok(())
    }

    /// Ends the daemon in order. Its domains go on.
    ///
    /// It may crash at that, which is told by the status and is no error: libvirt 9 does if it is still finding its
    /// domains again after a start.
    ///
    /// # Errors
    /// It does not end.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.daemon.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Stops the daemon where it is, as a machine does that hangs: its sockets stay, and nobody answers there. It must go
    /// on before it can be ended in order.
    ///
    /// # Errors
    /// It does not stand still.
    pub async fn freeze(&mut self) -> Result<()> {
        self.daemon.freeze().await
    }

    /// Lets the daemon go on where it was.
    ///
    /// # Errors
    /// It does not go on.
    pub async fn thaw(&mut self) -> Result<()> {
        self.daemon.thaw().await
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
        let (daemon, ports) = process::launch(&self.cell, &self.ports).await?;
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
    /// The daemon does not end, or something of it is left.
    pub async fn stop(mut self) -> Result<()> {
        if self.daemon.child.try_wait()?.is_none() {
            self.terminate().await?;
        }
        let folder = self.cell.folder().to_owned();
        let cell = self.cell;
        tokio::task::spawn_blocking(|| cell.close()).await??;
        ensure!(!folder.exists(), "{} is left", folder.display());
        Ok(())
    }

    /// What the daemon has complained of, the last lines of it.
    pub fn log(&self) -> String {
        process::log(&self.cell)
    }

    /// An error with the daemon's log.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = self.log();
        error.context(format!("libvirtd's log:\n{log}"))
    }

    async fn ended(&mut self) -> Result<ExitStatus> {
        match timeout(END, self.daemon.child.wait()).await {
            Ok(status) => status.context("can't wait for libvirtd"),
            Err(_) => bail!("libvirtd has not ended within {END:?}\n{}", self.log()),
        }
    }
}

/// What stands behind the host in a driver's URI.
fn path(driver: &str) -> &str {
    match driver {
        "test" => "default",
        _ => "system",
    }
}
