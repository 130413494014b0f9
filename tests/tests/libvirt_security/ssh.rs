//! ssh: a real sshd, with keys of its own, on a loopback port. It runs where the daemon does, so that it finds its
//! sockets.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use libvirt::raw::api::{DomainDestroyFlagsValues, DomainXmlFlags, ErrorNumber};
use tokio::{net::TcpListener, process::Command, task::JoinSet};
use vbridge_tests::{fixture::story, libvirt::daemon::Libvirtd};
use xtask::{command::find_program, tools};

use crate::{comes_in, is_refused, to};

/// What sshd wants in the daemon's namespaces beside its own files: a user without rights, and an empty folder. The file
/// of users there is a copy; that of the host is left alone.
const PREPARE: &str = "grep -q ' /etc/passwd ' /proc/self/mountinfo
mkdir -m 755 /run/sshd
grep -q ^sshd: /etc/passwd || echo sshd:x:64054:65534::/run/sshd:/usr/sbin/nologin >>/etc/passwd";

/// An ssh that is told by the URI alone, and not by the files and the agent of whoever runs the tests.
const SSH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/libvirt_security/alone/ssh"
);

/// Its files.
const CONFIGURATION: &str = "sshd_config";
const LOG: &str = "log";

/// An sshd for each connection, as inetd would start it, with the rights and in the namespaces of a libvirtd.
struct Sshd {
    port: u16,
    folder: PathBuf,
    accepts: JoinSet<Result<()>>,
}

impl Sshd {
    async fn start(daemon: &Libvirtd) -> Result<Self> {
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
        let pid = daemon.pid();
        let mut accepts = JoinSet::new();
        accepts.spawn(accept(listener, program, pid, folder.clone()));
        Ok(Self {
            port,
            folder,
            accepts,
        })
    }

    /// Listens no longer.
    async fn stop(mut self) {
        self.accepts.shutdown().await;
    }

    /// A URI of the test driver by this way, with a key and a file of known hosts.
    fn uri(&self, key: &str, known: &str) -> String {
        format!(
            "test+ssh://root@localhost:{}/default?no_tty=1&command={SSH}&keyfile={}&known_hosts={}",
            self.port,
            self.folder.join(key).display(),
            self.folder.join(known).display()
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }
}

/// Starts an sshd for each connection. It ends with that, and with the namespaces at the latest.
async fn accept(listener: TcpListener, program: PathBuf, pid: u32, folder: PathBuf) -> Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        let output = socket.try_clone()?;
        let mut log = fs::File::options();
        let log = log.append(true).create(true).open(folder.join(LOG))?;
        Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--mount", "--pid", "--"])
            .arg(&program)
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

/// That this host's netcat is one that knows Unix sockets.
fn has_netcat() -> Result<()> {
    let found = find_program("nc.openbsd");
    found
        .map(drop)
        .context("nc is missing: run `cargo xtask tools`, which installs it")
}

#[test]
fn a_daemon_is_reached_over_ssh_by_its_helper_and_by_netcat() {
    story(Libvirtd::builder().run(async |daemon| {
        has_netcat()?;
        let sshd = Sshd::start(daemon).await?;
        let uri = sshd.uri("client", "known");
        for more in [
            "",
            "&proxy=native",
            "&proxy=netcat",
            "&socket=/run/libvirt/libvirt-sock",
            "&netcat=nc.openbsd",
        ] {
            let opened = async {
                let connect = comes_in(to(&format!("{uri}{more}"))).await?;
                ensure!(connect.uri() == "test:///default", "{}", connect.uri());
                let domain = connect.domain_by_name("test").await?;
                let xml = domain.xml(DomainXmlFlags::empty()).await?;
                ensure!(xml.contains("<name>test</name>"), "{xml}");
                connect.close().await;
                anyhow::Ok(())
            };
            opened
                .await
                .with_context(|| format!("{more}\n{}", sshd.log()))?;
        }
        let reader = comes_in(to(&uri).read_only(true)).await?;
        let domain = reader.domain_by_name("test").await?;
        let denied = domain.destroy(DomainDestroyFlagsValues::empty()).await;
        ensure!(denied.is_err_and(|error| error.is(ErrorNumber::OperationDenied)));
        Ok(())
    }));
}

/// The name of a file is what it is, though ssh has signs in it for other things.
#[test]
fn a_key_is_found_whatever_its_file_is_called() {
    story(Libvirtd::builder().run(async |daemon| {
        let sshd = Sshd::start(daemon).await?;
        for (name, written) in [
            ("a key", "a%20key"),
            ("%h", "%25h"),
            ("50%", "50%25"),
            ("$HOME", "$HOME"),
            ("it's #1", "it's%20%231"),
        ] {
            fs::copy(sshd.folder.join("client"), sshd.folder.join(name))?;
            comes_in(to(&sshd.uri(written, "known")))
                .await
                .with_context(|| format!("{name}\n{}", sshd.log()))?;
            let known = format!("known {name}");
            fs::copy(sshd.folder.join("known"), sshd.folder.join(&known))?;
            let known = format!("known%20{written}");
            comes_in(to(&sshd.uri("client", &known)))
                .await
                .with_context(|| format!("{known}\n{}", sshd.log()))?;
        }
        Ok(())
    }));
}

#[test]
fn a_host_whose_key_is_another_or_unknown_is_refused() {
    story(Libvirtd::builder().run(async |daemon| {
        let sshd = Sshd::start(daemon).await?;
        let words = ["ssh to localhost", "Host key verification failed"];
        let of_another = fs::read_to_string(sshd.folder.join("stranger.pub"))?;
        let line = format!("[localhost]:{} {of_another}", sshd.port);
        fs::write(sshd.folder.join("changed"), line)?;
        is_refused(to(&sshd.uri("client", "changed")), &words).await?;
        is_refused(to(&sshd.uri("client", "nobody")), &words).await?;
        // Unless the caller takes any, or the first that comes.
        let any = format!("{}&no_verify=1", sshd.uri("client", "changed"));
        comes_in(to(&any)).await.context(sshd.log())?;
        let first = format!("{}&known_hosts_verify=auto", sshd.uri("client", "nobody"));
        comes_in(to(&first)).await.context(sshd.log())?;
        comes_in(to(&sshd.uri("client", "nobody"))).await?;
        Ok(())
    }));
}

#[test]
fn what_fails_beyond_ssh_is_told_in_the_words_of_the_program_that_failed() {
    story(Libvirtd::builder().run(async |daemon| {
        has_netcat()?;
        let sshd = Sshd::start(daemon).await?;
        let words = ["ssh to localhost", "Permission denied"];
        is_refused(to(&sshd.uri("stranger", "known")), &words).await?;
        let uri = sshd.uri("client", "known");
        for (more, word) in [
            ("&netcat=no-such-program", "no-such-program"),
            ("&socket=/run/libvirt/no-such-socket", "No such file"),
        ] {
            is_refused(to(&format!("{uri}{more}")), &["ssh to localhost", word]).await?;
        }
        let port = sshd.port.to_string();
        sshd.stop().await;
        is_refused(to(&uri), &["ssh to localhost", &port]).await?;
        Ok(())
    }));
}
