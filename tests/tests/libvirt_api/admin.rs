//! The daemon's administration, compared with virt-admin.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use libvirt::admin::{
    ClientLimits, Daemon, LogDestination, LogFilter, LogLevel, NewClientLimits, NewThreadPool,
    Server, ThreadPool,
};
use libvirt::raw::api::ErrorNumber;
use libvirt::{Connect, ConnectState, Error};
use vbridge_tests::{
    fixture::{eventually, story},
    libvirt::daemon::{Auth, Libvirtd},
};

use super::{SOON, state};

/// The URI of a private daemon's administration.
fn admin_uri(daemon: &Libvirtd) -> String {
    let socket = daemon.admin_socket_path();
    format!("libvirtd:///system?socket={}", socket.display())
}

/// What the C library's tool says.
async fn virt_admin(daemon: &Libvirtd, arguments: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new("virt-admin")
        .args(["--quiet", "--connect", &admin_uri(daemon)])
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .await
        .context("can't run virt-admin")?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "virt-admin {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The same as names and values.
async fn values(daemon: &Libvirtd, arguments: &[&str]) -> Result<BTreeMap<String, String>> {
    let said = virt_admin(daemon, arguments).await?;
    let values = said.lines().filter_map(|line| line.split_once(':'));
    Ok(values
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect())
}

/// The same as rows of words.
async fn rows(daemon: &Libvirtd, arguments: &[&str]) -> Result<Vec<Vec<String>>> {
    let said = virt_admin(daemon, arguments).await?;
    let rows = said
        .lines()
        .map(|line| line.split_whitespace().map(ToOwned::to_owned).collect());
    Ok(rows.filter(|row: &Vec<_>| !row.is_empty()).collect())
}

/// As virt-admin writes them.
fn threads(pool: &ThreadPool) -> BTreeMap<String, String> {
    named([
        ("minWorkers", pool.min),
        ("maxWorkers", pool.max),
        ("nWorkers", pool.current),
        ("freeWorkers", pool.idle),
        ("prioWorkers", pool.priority),
        ("jobQueueDepth", pool.queued),
    ])
}

fn limits(limits: &ClientLimits) -> BTreeMap<String, String> {
    named([
        ("nclients_max", limits.max),
        ("nclients", limits.current),
        ("nclients_unauth_max", limits.max_unauthenticated),
        ("nclients_unauth", limits.unauthenticated),
    ])
}

fn named<const N: usize>(numbers: [(&str, u32); N]) -> BTreeMap<String, String> {
    numbers
        .into_iter()
        .map(|(name, number)| (name.to_owned(), number.to_string()))
        .collect()
}

#[test]
fn the_administration_tells_what_virt_admin_tells() {
    let builder = Libvirtd::builder()
        .workers(2, 3)
        .prio_workers(4)
        .max_clients(7, 6)
        .tcp(Auth::None);
    story(builder.run(async |daemon| {
        let unix = Connect::open(&daemon.uri("test")).await?;
        let tcp = Connect::builder(&daemon.tcp_uri("test")?)
            .read_only(true)
            .open()
            .await?;
        let admin = Daemon::open(&admin_uri(daemon)).await?;
        ensure!(admin.version().await? == unix.libvirt_version().await?);

        let servers = admin.servers().await?;
        let names: Vec<_> = servers.iter().map(Server::name).collect();
        let told = rows(daemon, &["server-list"]).await?;
        let told: Vec<_> = told.iter().filter_map(|row| row.get(1)).collect();
        ensure!(names == told, "{names:?} and {told:?}");
        for server in &servers {
            ensure!(admin.server(server.name()).await? == *server);
            let name = server.name();
            let pool = threads(&server.thread_pool().await?);
            let told = values(daemon, &["server-threadpool-info", name]).await?;
            ensure!(pool == told, "{name}: {pool:?} and {told:?}");
        }
        let error = admin.server("nobody").await.err().context("a server")?;
        ensure!(error.is(ErrorNumber::NoServer), "{error}");

        let server = admin.server("libvirtd").await?;
        let found = limits(&server.client_limits().await?);
        let told = values(daemon, &["server-clients-info", "libvirtd"]).await?;
        ensure!(found == told, "{found:?} and {told:?}");

        let clients = server.clients().await?;
        let told = rows(daemon, &["client-list", "libvirtd"]).await?;
        ensure!(
            clients.len() == 2 && told.len() == 2,
            "{clients:?}, {told:?}"
        );
        for (client, row) in clients.iter().zip(told) {
            let transport = client.transport().to_string().to_lowercase();
            ensure!(row[..2] == [client.id().to_string(), transport], "{row:?}");
            ensure!(client.connected_at().elapsed()? < SOON * 6);
            ensure!(server.client(client.id()).await?.id() == client.id());
            let info = client.info().await?;
            let id = client.id().to_string();
            let told = values(daemon, &["client-info", "libvirtd", &id]).await?;
            let read_only = told.get("readonly").map(String::as_str) == Some("yes");
            ensure!(info.read_only == read_only, "{info:?}");
            ensure!(info.address.as_ref() == told.get("sock_addr"), "{info:?}");
            let process = info.process.map(|process| process.user);
            ensure!(process.as_ref() == told.get("unix_user_name"), "{told:?}");
            for (name, value) in info.params.iter().filter(|(name, _)| *name != "readonly") {
                ensure!(told.get(name) == Some(&value.to_string()), "{name}");
            }
        }
        let read_only = tcp.is_read_only();
        ensure!(read_only && clients[1].info().await?.read_only);

        let outputs = admin.log_outputs().await?;
        let told = virt_admin(daemon, &["daemon-log-outputs"]).await?;
        ensure!(told.contains(&outputs[0].to_string()), "{told}");
        ensure!(matches!(&outputs[..], [one] if matches!(one.to, LogDestination::File(_))));
        ensure!(admin.log_filters().await?.is_empty());
        Ok(())
    }));
}

#[test]
fn what_the_administration_sets_is_what_virt_admin_sees() {
    story(Libvirtd::builder().run(async |daemon| {
        let admin = Daemon::open(&admin_uri(daemon)).await?;
        let server = admin.server("libvirtd").await?;
        let new = NewThreadPool {
            max: Some(31),
            priority: Some(3),
            ..NewThreadPool::default()
        };
        server.set_thread_pool(new).await?;
        let told = values(daemon, &["server-threadpool-info", "libvirtd"]).await?;
        ensure!(
            told["maxWorkers"] == "31" && told["minWorkers"] == "5",
            "{told:?}"
        );
        let wrong = NewThreadPool {
            min: Some(32),
            ..NewThreadPool::default()
        };
        let error = server
            .set_thread_pool(wrong)
            .await
            .err()
            .context("32 of 31")?;
        ensure!(error.remote().is_some(), "{error}");

        let new = NewClientLimits {
            max: Some(99),
            max_unauthenticated: Some(9),
        };
        server.set_client_limits(new).await?;
        let told = values(daemon, &["server-clients-info", "libvirtd"]).await?;
        ensure!(told["nclients_max"] == "99" && told["nclients_unauth_max"] == "9");

        let filter = LogFilter {
            level: LogLevel::Debug.into(),
            part: "util.object".to_owned(),
        };
        admin.set_log_filters(std::slice::from_ref(&filter)).await?;
        let told = virt_admin(daemon, &["daemon-log-filters"]).await?;
        ensure!(
            told.contains("1:") && told.contains("util.object"),
            "{told}"
        );
        ensure!(admin.log_filters().await? == [filter]);
        admin.set_log_filters(&[]).await?;
        ensure!(admin.log_filters().await?.is_empty());

        let mut outputs = admin.log_outputs().await?;
        outputs[0].level = LogLevel::Error.into();
        admin.set_log_outputs(&outputs).await?;
        let told = virt_admin(daemon, &["daemon-log-outputs"]).await?;
        ensure!(told.contains(&outputs[0].to_string()), "{told}");

        admin.set_idle_timeout(Some(SOON * 360)).await?;
        admin.set_idle_timeout(None).await?;
        Ok(())
    }));
}

#[test]
fn a_client_that_the_administration_disconnects_learns_of_it() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let mut states = connect.states();
        let admin = Daemon::builder(&admin_uri(daemon))
            .deadline(SOON)
            .open()
            .await?;
        let server = admin.server("libvirtd").await?;
        let clients = server.clients().await?;
        let [client] = &clients[..] else {
            bail!("{clients:?}");
        };
        client.close().await?;
        ensure!(matches!(state(&mut states).await?, ConnectState::Up));
        let last = state(&mut states).await?;
        ensure!(
            matches!(last, ConnectState::Ended(Error::Connection(_))),
            "{last:?}"
        );
        let gone = async || Ok(server.clients().await?.is_empty());
        eventually("the client's end", SOON, gone).await?;
        let error = client.info().await.err().context("it is gone")?;
        ensure!(error.is(ErrorNumber::NoClient), "{error}");
        // And the administration ends with its daemon.
        daemon.kill9().await?;
        let error = admin.servers().await.err().context("it is dead")?;
        ensure!(matches!(error, Error::Connection(_)), "{error}");
        daemon.start_again().await?;
        let admin = Daemon::open(&admin_uri(daemon)).await?;
        admin.close().await;
        ensure!(!daemon.log().contains("End of file"), "{}", daemon.log());
        Ok(())
    }));
}
