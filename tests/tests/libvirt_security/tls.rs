//! TLS: certificates of both ends, good and bad.

use anyhow::{Context as _, Result, bail, ensure};
use libvirt::{Error, transport};
use vbridge_tests::{
    fixture::story,
    libvirt::{
        certificates::{ClientCertificate, SERVER_NAME, ServerCertificate},
        client::virsh,
        daemon::{Auth, Libvirtd},
    },
};

use crate::{comes_in, is_refused, to};

/// The kind of TLS's failure.
fn kind(error: &Error) -> Result<&transport::tls::Error> {
    match error {
        Error::Transport(error) => match &**error {
            transport::Error::Tls(error) => Ok(error),
            other => bail!("not of TLS, but {other:?}"),
        },
        other => bail!("not of the transport, but {other:?}"),
    }
}

#[test]
fn good_certificates_come_in_by_name_and_by_address() {
    let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
        for uri in [uri.clone(), uri.replace(SERVER_NAME, "127.0.0.1")] {
            let connect = comes_in(to(&uri)).await?;
            ensure!(
                connect.is_secure().await?,
                "the daemon thinks it is in the clear"
            );
            let hostname = virsh(&uri, &["hostname"]).await?.ok()?;
            ensure!(connect.hostname().await? == hostname.trim());
            connect.close().await;
        }
        Ok(())
    }));
}

#[test]
fn a_server_with_a_bad_certificate_is_refused_with_what_is_wrong() {
    use transport::tls::Error as Tls;

    story(async {
        for certificate in [
            ServerCertificate::OtherHost,
            ServerCertificate::Expired,
            ServerCertificate::OtherAuthority,
        ] {
            let builder = Libvirtd::builder().tls(certificate, Auth::None);
            let refused = async |daemon: &mut Libvirtd| {
                let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
                let pki = daemon.client_certificates(ClientCertificate::Good)?;
                let authority = pki.join("cacert.pem").display().to_string();
                let words: &[&str] = match certificate {
                    ServerCertificate::OtherHost => &["not for localhost", "other.example"],
                    ServerCertificate::Expired => &["localhost has expired", "days ago"],
                    _ => &["localhost is not signed", &authority],
                };
                let error = is_refused(to(&uri), words).await?;
                let fits = match (certificate, kind(&error)?) {
                    (ServerCertificate::OtherHost, Tls::WrongName { names, .. }) => {
                        names == &["other.example"]
                    }
                    (ServerCertificate::Expired, Tls::Expired { since, .. }) => since.is_some(),
                    (ServerCertificate::OtherAuthority, Tls::UnknownAuthority { .. }) => true,
                    _ => false,
                };
                ensure!(fits, "{error:?}");
                // Who does not look comes in: it is the certificate, and nothing else.
                comes_in(to(&format!("{uri}&no_verify=1"))).await?;
                Ok(())
            };
            let ran = builder.run(refused).await;
            ran.with_context(|| format!("{certificate:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_client_with_a_bad_certificate_is_told_which_one_the_server_refuses() {
    use transport::tls::Error as Tls;

    let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        for client in [
            ClientCertificate::Expired,
            ClientCertificate::OtherAuthority,
        ] {
            let file = daemon.client_certificates(client)?.join("clientcert.pem");
            let file = file.display().to_string();
            let words = ["localhost does not accept", file.as_str()];
            let uri = daemon.tls_uri("test", client)?;
            let error = is_refused(to(&uri), &words)
                .await
                .with_context(|| format!("{client:?}"))?;
            ensure!(matches!(kind(&error)?, Tls::Refused { .. }), "{error:?}");
        }
        let missing = daemon.client_certificates(ClientCertificate::Missing)?;
        let file = missing.join("clientcert.pem").display().to_string();
        let uri = daemon.tls_uri("test", ClientCertificate::Missing)?;
        let words = [
            "localhost wants a certificate of this client",
            file.as_str(),
        ];
        let error = is_refused(to(&uri), &words).await?;
        ensure!(
            matches!(kind(&error)?, Tls::NoClientCertificate { .. }),
            "{error:?}"
        );

        // The daemon still takes others.
        comes_in(to(&daemon.tls_uri("test", ClientCertificate::Good)?)).await?;
        Ok(())
    }));
}

#[test]
fn a_client_whose_name_is_not_on_the_servers_list_is_refused() {
    let builder = Libvirtd::builder()
        .tls(ServerCertificate::Good, Auth::None)
        .setting("tls_allowed_dn_list", "[\"CN=another\"]");
    story(builder.run(async |daemon| {
        let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
        is_refused(
            to(&uri),
            &["localhost does not accept", "tls_allowed_dn_list"],
        )
        .await?;
        Ok(())
    }));
}

#[test]
fn a_port_that_does_not_speak_tls_is_named() {
    let builder = Libvirtd::builder()
        .tls(ServerCertificate::Good, Auth::None)
        .tcp(Auth::None);
    story(builder.run(async |daemon| {
        let tls = daemon.tls_address()?.port().to_string();
        let tcp = daemon.tcp_address()?.port().to_string();
        let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
        let plain = uri.replace(&format!(":{tls}/"), &format!(":{tcp}/"));
        is_refused(
            to(&plain),
            &["TLS handshake with localhost failed", "16514"],
        )
        .await?;
        // And the other way round: whoever listens there closes.
        let encrypted = daemon.tcp_uri("test")?.replace(&tcp, &tls);
        is_refused(to(&encrypted), &["closed the connection"]).await?;
        Ok(())
    }));
}
