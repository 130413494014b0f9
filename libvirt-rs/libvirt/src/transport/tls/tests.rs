//! Handshakes with a server in this process, good ones and those that fail, each in its own way.

use std::{fs, path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{Acceptor, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::*;

/// An authority, which signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as files hold them. Behind it stand those of the authorities between it and the trusted one.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(Self::params(name), key).unwrap())
    }

    /// One that this one vouches for.
    fn below(&self, name: &str, serial: u64) -> Self {
        let mut params = Self::params(name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = common_name(name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = common_name("server.example");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Signed {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn revoking(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2999, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.0)
        .unwrap()
        .pem()
        .unwrap()
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn as_is(_: &mut CertificateParams) {}

/// A directory for `pkipath`, with an authority and perhaps a certificate of the client's.
fn pki(authority: &Authority, client: Option<&Signed>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cacert.pem"), authority.0.pem()).unwrap();
    if let Some(signed) = client {
        fs::write(dir.path().join("clientcert.pem"), &signed.certificate).unwrap();
        fs::write(dir.path().join("clientkey.pem"), &signed.key).unwrap();
    }
    dir
}

fn client(host: &str, dir: &Path, more: &str) -> Result<Client, Error> {
    let uri = format!("qemu+tls://{host}/system?pkipath={}{more}", dir.display());
    Client::new(&Uri::parse(&uri).unwrap(), &Environment::of_process())
}

/// What the server does once the handshake is over.
enum Then {
    Say(u8),
    Close,
    BeSilent,
}

struct Server {
    config: ServerConfig,
    then: Then,
}

impl Server {
    /// One that asks for no certificate, as a server of libvirt's that was told to take anybody.
    fn new(signed: &Signed, then: Then) -> Self {
        let config = Self::builder(&[&TLS13, &TLS12]).with_no_client_auth();
        Self::with(config, signed, then)
    }

    /// One that demands a certificate within the handshake.
    fn demanding(
        authority: &Authority,
        signed: &Signed,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = Self::builder(&[version]);
        let config = builder.with_client_cert_verifier(verifier.build().unwrap());
        Self::with(config, signed, Then::Say(ACCEPTED))
    }

    fn builder(
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
    }

    fn with(
        config: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
        signed: &Signed,
        then: Then,
    ) -> Self {
        let chain = CertificateDer::pem_slice_iter(signed.certificate.as_bytes());
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
        let config = config.with_single_cert(chain, key).unwrap();
        Self { config, then }
    }

    async fn serve(self, stream: DuplexStream) {
        let acceptor = TlsAcceptor::from(Arc::new(self.config));
        // A client that does not like the server ends the handshake; what it says of it is what is tested.
        let Ok(mut stream) = acceptor.accept(stream).await else {
            return;
        };
        match self.then {
            Then::Say(byte) => {
                stream.write_all(&[byte]).await.unwrap();
                stream.flush().await.unwrap();
                // Until the client goes.
                let _ = stream.read_u8().await;
            }
            Then::Close => {}
            Then::BeSilent => std::future::pending().await,
        }
    }
}

async fn open(client: &Client, server: Server) -> Result<TlsStream<DuplexStream>, String> {
    let (near, far) = duplex(64 * 1024);
    let serving = tokio::spawn(server.serve(far));
    let deadline = Deadline::new(Duration::from_secs(60), "server.example:16514".to_owned());
    let opened = client.open(near, &deadline).await;
    serving.abort();
    opened.map_err(|error| error.to_string())
}

/// The sentence with which the handshake fails. All parts of it must stand there.
async fn fails(client: &Client, server: Server, parts: &[&str]) {
    let text = open(client, server).await.unwrap_err();
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn both_versions_with_and_without_a_client_certificate() {
    let authority = Authority::new("CA");
    let server = authority.sign(&["server.example"], as_is);
    let own = authority.sign(&[], as_is);
    let (with, without) = (pki(&authority, Some(&own)), pki(&authority, None));
    for version in [&TLS12, &TLS13] {
        let client = client("server.example", with.path(), "").unwrap();
        let opened = open(&client, Server::demanding(&authority, &server, version)).await;
        let opened = opened.unwrap();
        assert_eq!(opened.get_ref().1.protocol_version(), Some(version.version));
    }
    let client = client("server.example", without.path(), "&tls_priority=NORMAL").unwrap();
    open(&client, Server::new(&server, Then::Say(ACCEPTED)))
        .await
        .unwrap();
}

#[tokio::test]
async fn addresses_are_names_of_a_certificate_too() {
    let authority = Authority::new("CA");
    let server = authority.sign(&["192.0.2.1", "2001:db8::1", "fe80::1"], as_is);
    let dir = pki(&authority, None);
    for host in ["192.0.2.1", "[2001:db8::1]", "[fe80::1%25eth0]"] {
        let client = client(host, dir.path(), "").unwrap();
        open(&client, Server::new(&server, Then::Say(ACCEPTED)))
            .await
            .unwrap();
    }
    let other = client("192.0.2.2", dir.path(), "").unwrap();
    fails(
        &other,
        Server::new(&server, Then::Say(ACCEPTED)),
        &["not for 192.0.2.2, but for 192.0.2.1"],
    )
    .await;
}

/// What a server learns of its name before it shows a certificate.
async fn name_told(client: &Client) -> Option<String> {
    let (near, far) = duplex(64 * 1024);
    let deadline = Deadline::new(Duration::from_secs(60), "server.example:16514".to_owned());
    let accept = LazyConfigAcceptor::new(Acceptor::default(), far);
    tokio::select! {
        start = accept => start.unwrap().client_hello().server_name().map(str::to_owned),
        opened = client.open(near, &deadline) => panic!("nobody has answered: {opened:?}"),
    }
}

#[tokio::test]
async fn a_server_is_told_its_name_but_no_address_so_that_proxies_find_it() {
    let dir = pki(&Authority::new("CA"), None);
    for (host, told) in [
        ("server.example", Some("server.example")),
        ("192.0.2.1", None),
        ("[fe80::1%25eth0]", None),
    ] {
        for more in ["", "&no_verify=1"] {
            let client = client(host, dir.path(), more).unwrap();
            assert_eq!(name_told(&client).await.as_deref(), told, "{host}{more}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_servers_certificate_is_said() {
    let (authority, other) = (Authority::new("CA"), Authority::new("other"));
    let dir = pki(&authority, None);
    fs::write(dir.path().join("cacrl.pem"), authority.revoking(7)).unwrap();
    let ca = dir.path().join("cacert.pem").display().to_string();
    let list = dir.path().join("cacrl.pem").display().to_string();
    let client = client("server.example", dir.path(), "").unwrap();
    let here = ["server.example"];
    for (signed, parts) in [
        (
            other.sign(&here, as_is),
            vec!["not signed by an authority in", &ca, "pkipath="],
        ),
        (
            authority.sign(&["a.example", "b.example"], as_is),
            vec![
                "not for server.example, but for a.example, b.example;",
                "subjectAltName",
            ],
        ),
        (
            authority.sign(&[], as_is),
            vec![
                "names no host as subjectAltName",
                "common name (CN)",
                "dns_name",
            ],
        ),
        (
            authority.sign(&here, |params| params.not_after = date_time_ymd(2020, 1, 1)),
            vec!["server.example has expired", "days ago"],
        ),
        (
            authority.sign(&here, |params| {
                params.not_before = date_time_ymd(2999, 1, 1)
            }),
            vec!["not valid yet", "clock"],
        ),
        (
            authority.sign(&here, |params| {
                params.serial_number = Some(SerialNumber::from(7))
            }),
            vec!["is revoked by", &list],
        ),
        (
            authority.sign(&here, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            vec!["not one for servers"],
        ),
    ] {
        fails(&client, Server::new(&signed, Then::Say(ACCEPTED)), &parts).await;
    }
}

#[tokio::test]
async fn a_server_whose_authority_is_revoked_is_refused() {
    let root = Authority::new("CA");
    let dir = pki(&root, None);
    let list = dir.path().join("cacrl.pem");
    fs::write(&list, root.revoking(7)).unwrap();
    let client = client("server.example", dir.path(), "").unwrap();
    let signed_by = |below: &Authority| {
        let mut signed = below.sign(&["server.example"], as_is);
        signed.certificate.push_str(&below.0.pem());
        signed
    };
    let good = signed_by(&root.below("good", 6));
    open(&client, Server::new(&good, Then::Say(ACCEPTED)))
        .await
        .unwrap();
    let revoked = signed_by(&root.below("revoked", 7));
    let server = Server::new(&revoked, Then::Say(ACCEPTED));
    let list = list.display().to_string();
    fails(&client, server, &["is revoked by", &list]).await;
}

#[tokio::test]
async fn no_verify_takes_any_certificate() {
    let other = Authority::new("other");
    // Not even an authority's certificate has to be there.
    let dir = tempfile::tempdir().unwrap();
    let expired = other.sign(&[], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let client = client("server.example", dir.path(), "&no_verify=1").unwrap();
    open(&client, Server::new(&expired, Then::Say(ACCEPTED)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_this_client_is_understood() {
    let (authority, other) = (Authority::new("CA"), Authority::new("other"));
    let server = authority.sign(&["server.example"], as_is);
    let foreign = other.sign(&[], as_is);
    let (with, without) = (pki(&authority, Some(&foreign)), pki(&authority, None));
    let certificate = with.path().join("clientcert.pem").display().to_string();
    let absent = without.path().join("clientcert.pem").display().to_string();
    let has = client("server.example", with.path(), "").unwrap();
    let has_none = client("server.example", without.path(), "").unwrap();
    let refused = [
        "does not accept this client's certificate",
        &certificate,
        "tls_allowed_dn_list",
    ];
    let wanted = ["wants a certificate of this client", "there is no", &absent];
    // As GnuTLS has it, after the handshake and without a word.
    fails(&has, Server::new(&server, Then::Close), &refused).await;
    fails(&has_none, Server::new(&server, Then::Close), &wanted).await;
    // And by an alert, which TLS 1.3 too delivers after the handshake.
    for version in [&TLS12, &TLS13] {
        fails(
            &has,
            Server::demanding(&authority, &server, version),
            &refused,
        )
        .await;
    }
    fails(
        &has_none,
        Server::demanding(&authority, &server, &TLS13),
        &wanted,
    )
    .await;
}

#[tokio::test]
async fn another_verdict_than_yes_is_no() {
    let authority = Authority::new("CA");
    let server = authority.sign(&["server.example"], as_is);
    let dir = pki(&authority, None);
    let client = client("server.example", dir.path(), "").unwrap();
    for byte in [0, 2] {
        let says = format!("byte {byte:#04x} where libvirt says 0x01");
        fails(&client, Server::new(&server, Then::Say(byte)), &[&says]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_with_the_deadline() {
    let authority = Authority::new("CA");
    let server = authority.sign(&["server.example"], as_is);
    let dir = pki(&authority, None);
    let client = client("server.example", dir.path(), "").unwrap();
    let verdict = [
        "gave up after 60s while waiting for the verdict",
        "of server.example:16514",
    ];
    fails(&client, Server::new(&server, Then::BeSilent), &verdict).await;
    // A server that does not even shake hands.
    let (near, _far) = duplex(64 * 1024);
    let deadline = Deadline::new(Duration::from_secs(60), "server.example:16514".to_owned());
    let error = client.open(near, &deadline).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("in the TLS handshake with server.example"),
        "{error}"
    );
}

#[tokio::test]
async fn a_peer_without_tls_is_named_together_with_the_port_to_look_at() {
    let authority = Authority::new("CA");
    let dir = pki(&authority, None);
    let client = client("server.example", dir.path(), "").unwrap();
    for answer in [&b"SSH-2.0-OpenSSH\r\n"[..], b""] {
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        far.shutdown().await.unwrap();
        let deadline = Deadline::new(Duration::from_secs(60), String::new());
        let error = client.open(near, &deadline).await.unwrap_err().to_string();
        assert!(
            error.contains("handshake with server.example failed"),
            "{error}"
        );
        assert!(error.contains("16514"), "{error}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("CA");
    let (own, another) = (authority.sign(&[], as_is), authority.sign(&[], as_is));
    let dir = pki(&authority, Some(&own));
    let error = |more: &str| {
        let opened = client("server.example", dir.path(), more);
        opened.unwrap_err().to_string()
    };
    assert!(error("&tls_priority=SECURE256").contains("language of GnuTLS"));
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("clientkey.pem", &another.key);
    let text = error("");
    assert!(
        text.contains("clientcert.pem") && text.contains("another certificate"),
        "{text}"
    );
    write(
        "clientkey.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    assert!(
        error("").contains("clientkey.pem for TLS: it holds nothing of the kind"),
        "{}",
        error("")
    );
    write("clientkey.pem", "-----BEGIN PRIVATE KEY-----\n");
    assert!(
        error("").contains("clientkey.pem for TLS: it is no PEM file"),
        "{}",
        error("")
    );
    write("clientkey.pem", &own.key);
    write("clientcert.pem", "");
    assert!(
        error("").contains("clientcert.pem for TLS: it holds nothing"),
        "{}",
        error("")
    );
    write(
        "cacrl.pem",
        "-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n",
    );
    write("clientcert.pem", &own.certificate);
    assert!(error("").contains("cacrl.pem for TLS"), "{}", error(""));
    fs::remove_file(dir.path().join("cacert.pem")).unwrap();
    let text = error("");
    assert!(
        text.contains("there is no") && text.contains("cacert.pem;"),
        "{text}"
    );
}

/// The system's files and the user's, both below one directory.
fn environment(dir: &Path, uid: u32) -> Environment {
    let mut environment = Environment::of_process();
    environment.uid = uid;
    environment.config_dir = dir.join("etc");
    environment.home = Some(dir.join("home"));
    environment
}

#[test]
fn the_users_files_come_before_the_systems_and_certificate_and_key_stay_together() {
    let authority = Authority::new("CA");
    let (of_system, of_user) = (authority.sign(&[], as_is), authority.sign(&[], as_is));
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let load = |uid: u32| {
        let uri = Uri::parse("qemu://server.example/system").unwrap();
        Client::new(&uri, &environment(dir.path(), uid))
    };
    let text = load(1000).unwrap_err().to_string();
    assert!(text.contains("home/.pki/libvirt/cacert.pem nor"), "{text}");
    assert!(text.contains("etc/pki/CA/cacert.pem"), "{text}");
    write("etc/pki/CA/cacert.pem", &authority.0.pem());
    let absent = load(1000).unwrap().certificate.unwrap_err();
    assert!(
        absent.contains("clientcert.pem, and there is no"),
        "{absent}"
    );
    write("etc/pki/libvirt/clientcert.pem", &of_system.certificate);
    write("etc/pki/libvirt/private/clientkey.pem", &of_system.key);
    write("home/.pki/libvirt/clientcert.pem", &of_user.certificate);
    let certificate = |uid: u32| load(uid).unwrap().certificate.unwrap();
    let (system, user) = (
        dir.path().join("etc/pki/libvirt/clientcert.pem"),
        dir.path().join("home/.pki/libvirt/clientcert.pem"),
    );
    assert_eq!(certificate(1000), system);
    write("home/.pki/libvirt/clientkey.pem", &of_user.key);
    assert_eq!(certificate(1000), user);
    assert_eq!(certificate(0), system);
    // Root has no files of its own, and authority and certificate may come from different places.
    assert_eq!(
        load(1000).unwrap().authority,
        dir.path().join("etc/pki/CA/cacert.pem")
    );
    // A key that can't be read is the system's secret, so there is none.
    fs::remove_dir_all(dir.path().join("home")).unwrap();
    fs::remove_file(dir.path().join("etc/pki/libvirt/private/clientkey.pem")).unwrap();
    fs::create_dir(dir.path().join("etc/pki/libvirt/private/clientkey.pem")).unwrap();
    let absent = load(1000).unwrap().certificate.unwrap_err();
    assert!(
        absent.contains("can't read") && absent.contains("clientkey.pem"),
        "{absent}"
    );
    assert!(matches!(load(0), Err(Error::File { .. })));
}
