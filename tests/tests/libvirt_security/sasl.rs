//! SASL: user names and passwords, from the caller and from auth.conf.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use libvirt::{Environment, Error, auth::Credentials, raw::api::ErrorNumber};
use vbridge_tests::{
    fixture::story,
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        daemon::{Auth, Libvirtd, SASL_USER},
    },
};

use crate::{comes_in, is_refused, to};

const MECHANISMS: [&str; 2] = ["scram-sha-256", "plain"];

/// A process whose user has an auth.conf.
fn environment(folder: &Path) -> Result<Environment> {
    let (user, password) = SASL_USER;
    let mut environment = Environment::of_process();
    environment.auth_file = None;
    environment.config_dir = folder.join("no-etc");
    environment.user_config_dir = Some(folder.join("conf"));
    let conf = folder.join("conf/libvirt");
    fs::create_dir_all(&conf)?;
    let text = format!(
        "[credentials-here]\nauthname={user}\npassword={password}\n\n[auth-libvirt-localhost]\ncredentials=here\n"
    );
    fs::write(conf.join("auth.conf"), text)?;
    Ok(environment)
}

/// Lets the right password in by each way of giving it, and refuses a wrong one, an unknown user, and nobody.
async fn lets_in_those_whom_it_knows(daemon: &Libvirtd, uri: &str, mechanism: &str) -> Result<()> {
    let (user, password) = SASL_USER;
    comes_in(to(uri).credentials(Credentials::new(user, password))).await?;
    let conf = environment(daemon.folder())?;
    comes_in(to(uri).environment(conf.clone())).await?;
    let authfile = daemon.auth_file(user, password)?;
    let mut none = conf;
    none.user_config_dir = None;
    comes_in(to(&format!("{uri}&authfile={}", authfile.display())).environment(none.clone()))
        .await?;
    let mut of_variable = none.clone();
    of_variable.auth_file = Some(authfile);
    comes_in(to(uri).environment(of_variable)).await?;
    let named = format!("{uri}&auth=sasl.{mechanism}");
    comes_in(to(&named).credentials(Credentials::new(user, password))).await?;

    for (user, password) in [(user, "wrong"), ("nobody", password)] {
        let credentials = Credentials::new(user, password);
        let words = ["localhost", "user and password", "authentication failed"];
        let error = is_refused(to(uri).credentials(credentials), &words).await?;
        ensure!(matches!(error, Error::Auth(_)), "{error:?}");
        ensure!(
            !error.to_string().contains(password),
            "it tells the password: {error}"
        );
    }
    let words = ["no user name", "auth-libvirt-localhost"];
    is_refused(to(uri).environment(none), &words).await?;
    let other = format!("{uri}&auth=sasl.scram-sha-512");
    let words = ["SCRAM-SHA-512", "does not offer", &mechanism.to_uppercase()];
    is_refused(
        to(&other).credentials(Credentials::new(user, password)),
        &words,
    )
    .await?;
    Ok(())
}

#[test]
fn a_unix_socket_takes_the_right_password_by_each_mechanism() {
    story(async {
        for mechanism in MECHANISMS {
            let builder = Libvirtd::builder()
                .unix(Auth::Sasl)
                .sasl_mechanism(mechanism);
            let lets_in = async |daemon: &mut Libvirtd| {
                lets_in_those_whom_it_knows(daemon, &daemon.uri("test"), mechanism).await?;
                // Who only reads is asked for nothing there.
                let socket = daemon.read_only_socket_path();
                let uri = format!("test+unix:///default?socket={}", socket.display());
                comes_in(to(&uri).read_only(true)).await.map(drop)
            };
            builder.run(lets_in).await.context(mechanism)?;
        }
        Ok(())
    });
}

#[test]
fn a_tls_port_takes_the_right_password_by_each_mechanism() {
    story(async {
        for mechanism in MECHANISMS {
            let builder = Libvirtd::builder()
                .tls(ServerCertificate::Good, Auth::Sasl)
                .sasl_mechanism(mechanism);
            let lets_in = async |daemon: &mut Libvirtd| {
                let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
                lets_in_those_whom_it_knows(daemon, &uri, mechanism).await?;
                let unverified = to(&format!("{uri}&no_verify=1"));
                let (user, password) = SASL_USER;
                let unverified = unverified.credentials(Credentials::new(user, password));
                if mechanism == "plain" {
                    let words = ["localhost", "PLAIN", "leave no_verify="];
                    is_refused(unverified, &words).await?;
                } else {
                    // This one proves itself; but who is in between could listen from then on.
                    let connect = comes_in(unverified).await?;
                    ensure!(!connect.is_secure().await?);
                }
                Ok(())
            };
            builder.run(lets_in).await.context(mechanism)?;
        }
        Ok(())
    });
}

/// libvirt wants a mechanism there that encrypts by itself, and those that do are broken. That none is used that sends the
/// password, though a daemon offers it, is a test of the client's own.
#[test]
fn a_tcp_port_offers_no_mechanism_that_leaves_packets_in_the_clear() {
    let builder = Libvirtd::builder()
        .tcp(Auth::Sasl)
        .sasl_mechanism("digest-md5")
        .sasl_mechanism("plain")
        .sasl_mechanism("scram-sha-256");
    let (user, password) = SASL_USER;
    story(builder.run(async |daemon| {
        let words = ["127.0.0.1 offers no way", "DIGEST-MD5", "connect by TLS"];
        let credentials = Credentials::new(user, password);
        is_refused(
            to(&daemon.tcp_uri("test")?).credentials(credentials),
            &words,
        )
        .await?;
        Ok(())
    }));
}

#[test]
fn a_user_who_is_not_on_the_servers_list_is_refused() {
    let builder = Libvirtd::builder()
        .unix(Auth::Sasl)
        .setting("sasl_allowed_username_list", "[\"another\"]");
    let (user, password) = SASL_USER;
    story(builder.run(async |daemon| {
        let credentials = Credentials::new(user, password);
        let words = ["localhost", "authentication failed"];
        is_refused(to(&daemon.uri("test")).credentials(credentials), &words).await?;
        Ok(())
    }));
}

#[test]
fn who_has_not_authenticated_is_refused_by_the_daemon_itself() {
    use libvirt::{
        raw::remote::{ConnectOpenArgs, Remote},
        rpc::{Client, KeepaliveConfig},
    };

    story(Libvirtd::builder().unix(Auth::Sasl).run(async |daemon| {
        let socket = tokio::net::UnixStream::connect(daemon.socket_path()).await?;
        let remote = Remote::new(Client::over_unix(socket, KeepaliveConfig::default()));
        let open = ConnectOpenArgs {
            name: Some("test:///default".to_owned()),
            flags: 0,
        };
        let error = remote
            .connect_open(&open)
            .await
            .err()
            .context("it is open")?;
        ensure!(
            error.is(ErrorNumber::Rpc) && error.to_string().contains("authentication"),
            "{error}"
        );
        Ok(())
    }));
}
