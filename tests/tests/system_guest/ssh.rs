//! A real ssh into the guest, which has no network: by `vbridge connect` and by `vbridge forward`.

use std::{fs, process::Stdio, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use vbridge_api::guest::v1::{
    AccountsAddAuthorizedKeysRequest, ListUsersRequest, accounts_client::AccountsClient,
    system_client::SystemClient,
};
use vbridge_tests::{
    fixture::eventually,
    process::{PATIENCE, Process},
    programs,
};

use crate::world::{NAME, USER, World};

/// By what name ssh knows the guest's key.
const ALIAS: &str = "the-guest";

/// What an ssh needs to come in: a key of its own that `Accounts` has let in, and the guest's key.
pub(crate) struct Ssh {
    options: Vec<String>,
}

/// Somebody who is logged in until this is dropped.
pub(crate) struct Login {
    _ssh: Child,
}

impl World {
    /// Makes a key, and lets it in.
    async fn ssh(&self) -> Result<&Ssh> {
        let prepare = async || {
            let (ssh, key) = Ssh::with_key(self, "key").await?;
            let mut accounts = AccountsClient::new(self.channel().await?);
            let request = AccountsAddAuthorizedKeysRequest {
                user: USER.into(),
                keys: vec![key],
                reset: false,
            };
            accounts.add_authorized_keys(request).await?;
            Ok(ssh)
        };
        self.ssh.get_or_try_init(prepare).await
    }

    /// An ssh by `vbridge connect`.
    async fn connected(&self, ssh: &Ssh, options: &[&str]) -> Result<Command> {
        let program = &programs::host().await?.bridge;
        let proxy = format!("ProxyCommand='{}' connect {NAME} %p", program.display());
        let mut words = vec!["-o", &proxy];
        words.extend(options);
        let address = self.bridge.read().await.address().to_string();
        let mut command = ssh.command(&words);
        command.env("VBRIDGE_ADDRESS", address);
        Ok(command)
    }

    /// Logs the user in, in a terminal.
    pub(crate) async fn log_in(&self) -> Result<Login> {
        let mut command = self.connected(self.ssh().await?, &["-tt"]).await?;
        let mut ssh = command
            .args(["echo in; exec sleep infinity"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(ssh.stdout.take().context("it has an output")?).lines();
        let said = lines.next_line().await?;
        ensure!(said.as_deref().map(str::trim) == Some("in"), "{said:?}");
        Ok(Login { _ssh: ssh })
    }
}

impl Ssh {
    /// With a new key, which is told as `authorized_keys` has it.
    async fn with_key(world: &World, name: &str) -> Result<(Self, String)> {
        let key = world.here.path().join(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]);
        let made = keygen
            .arg(&key)
            .status()
            .await
            .context("can't run ssh-keygen")?;
        ensure!(made.success(), "ssh-keygen: {made}");
        let public = fs::read_to_string(key.with_extension("pub"))?;
        let known = world.here.path().join("known_hosts");
        let host = world.shell("cat /etc/ssh/ssh_host_ed25519_key.pub").await?;
        fs::write(&known, format!("{ALIAS} {host}\n"))?;
        let options = [
            format!("IdentityFile={}", key.display()),
            format!("UserKnownHostsFile={}", known.display()),
            format!("HostKeyAlias={ALIAS}"),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "BatchMode=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
        ];
        let options = options.into();
        Ok((Self { options }, public.trim().to_owned()))
    }

    /// An ssh without the settings and the agent of whoever runs the tests.
    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "/dev/null"])
            .env_remove("SSH_AUTH_SOCK");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
            .args(options)
            .arg(format!("{USER}@127.0.0.1"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

pub(crate) async fn commands(world: Arc<World>) -> Result<()> {
    let mut ssh = world.connected(world.ssh().await?, &[]).await?;
    let output = ssh.arg("whoami; echo no >&2; exit 42").output().await?;
    ensure!(output.status.code() == Some(42), "{output:?}");
    ensure!(
        output.stdout == b"ada\n" && output.stderr == b"no\n",
        "{output:?}"
    );
    // Much, both ways at once.
    let bytes = vbridge_tests::content::bytes(11, 0, 1 << 20);
    let file = world.here.path().join("much");
    fs::write(&file, &bytes)?;
    let mut ssh = world.connected(world.ssh().await?, &[]).await?;
    let output = ssh
        .arg("cat")
        .stdin(fs::File::open(&file)?)
        .output()
        .await?;
    ensure!(
        output.status.success() && output.stdout == bytes,
        "{}",
        output.status
    );
    Ok(())
}

pub(crate) async fn strangers(world: Arc<World>) -> Result<()> {
    let (stranger, _) = Ssh::with_key(&world, "stranger").await?;
    let mut ssh = world.connected(&stranger, &[]).await?;
    let output = ssh.arg("true").output().await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(255) && said.contains("Permission denied"),
        "{said}"
    );
    Ok(())
}

pub(crate) async fn forwarded(world: Arc<World>) -> Result<()> {
    let command = world
        .bridge
        .read()
        .await
        .command(&["forward", NAME, "0:22"])
        .await?;
    let mut forward = Process::spawn(command)?;
    let port = forward
        .line("where it listens", |line| {
            let (_, rest) = line.split_once("forwarding ")?;
            let (here, _) = rest.split_once(" to ")?;
            Some(here.rsplit_once(':')?.1.to_owned())
        })
        .await?;
    let mut ssh = world.ssh().await?.command(&["-p", &port]);
    let output = ssh.arg("hostname; exit 5").output().await?;
    ensure!(output.status.code() == Some(5), "{output:?}");
    ensure!(output.stdout == b"vbridge-system\n", "{output:?}");
    Ok(())
}

pub(crate) async fn logins(world: Arc<World>) -> Result<()> {
    let mut system = SystemClient::new(world.channel().await?);
    let before = system.list_users(ListUsersRequest {}).await?.into_inner();
    ensure!(before.users.is_empty(), "{before:?}");
    let login = world.log_in().await?;
    let users = system
        .list_users(ListUsersRequest {})
        .await?
        .into_inner()
        .users;
    let [user] = &users[..] else {
        anyhow::bail!("one is logged in: {users:?}");
    };
    ensure!(
        user.user == USER && user.terminal.starts_with("pts/"),
        "{user:?}"
    );
    ensure!(user.host == "127.0.0.1", "{user:?}");
    let now: i64 = world.shell("date +%s").await?.parse()?;
    let since = now - user.login_time.unwrap_or_default().seconds;
    ensure!((0..60).contains(&since), "logged in for {since} s");
    drop(login);
    eventually("nobody is logged in", PATIENCE, || {
        let mut system = system.clone();
        async move {
            let left = system.list_users(ListUsersRequest {}).await?.into_inner();
            Ok(left.users.is_empty())
        }
    })
    .await
}
