//! Certificates for a daemon's TLS port and its clients: good ones, and each kind of bad one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// The name under which a client has to call a server whose certificate is good. So is `127.0.0.1`.
pub const SERVER_NAME: &str = "localhost";

/// What the server's certificate is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerCertificate {
    /// As it should be.
    Good,
    /// Good, but for another host.
    OtherHost,
    /// Expired.
    Expired,
    /// Of an authority that clients do not know.
    OtherAuthority,
}

/// What the client's certificate is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// As it should be.
    Good,
    /// Expired.
    Expired,
    /// Of an authority that servers do not know.
    OtherAuthority,
    /// There is none.
    Missing,
}

/// The names of a server's files, which libvirtd is told.
pub(super) const SERVER_FILES: [(&str, &str); 3] = [
    ("ca_file", "cacert.pem"),
    ("cert_file", "servercert.pem"),
    ("key_file", "serverkey.pem"),
];

/// An authority and folders of certificates below one folder, named as libvirt's clients expect them in a `pkipath`.
#[derive(Debug)]
pub(super) struct Pki {
    folder: PathBuf,
}

/// One that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Leaf<'a> {
    name: &'a str,
    hosts: &'a [&'a str],
    usage: ExtendedKeyUsagePurpose,
    is_expired: bool,
}

// === impl Pki ===

impl Pki {
    /// Makes every client's folder and the server's folder below `folder`.
    pub(super) fn make(folder: &Path, server: ServerCertificate) -> Result<Self> {
        let (ours, other) = (Authority::new("ours")?, Authority::new("other")?);
        let this = Self {
            folder: folder.to_owned(),
        };
        let leaf = Leaf {
            name: SERVER_NAME,
            hosts: match server {
                ServerCertificate::OtherHost => &["other.example"],
                _ => &[SERVER_NAME, "127.0.0.1"],
            },
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            is_expired: server == ServerCertificate::Expired,
        };
        let issuer = match server {
            ServerCertificate::OtherAuthority => &other,
            _ => &ours,
        };
        write(&this.server(), &ours, Some(("server", leaf, issuer)))?;
        for client in [
            ClientCertificate::Good,
            ClientCertificate::Expired,
            ClientCertificate::OtherAuthority,
            ClientCertificate::Missing,
        ] {
            let leaf = Leaf {
                name: "client",
                hosts: &[],
                usage: ExtendedKeyUsagePurpose::ClientAuth,
                is_expired: client == ClientCertificate::Expired,
            };
            let issuer = match client {
                ClientCertificate::OtherAuthority => &other,
                _ => &ours,
            };
            let leaf = (client != ClientCertificate::Missing).then_some(("client", leaf, issuer));
            write(&this.client(client), &ours, leaf)?;
        }
        Ok(this)
    }

    /// A client's folder: `cacert.pem`, `clientcert.pem` and `clientkey.pem`.
    pub(super) fn client(&self, certificate: ClientCertificate) -> PathBuf {
        self.folder.join(match certificate {
            ClientCertificate::Good => "client-good",
            ClientCertificate::Expired => "client-expired",
            ClientCertificate::OtherAuthority => "client-other",
            ClientCertificate::Missing => "client-missing",
        })
    }

    /// The server's folder, with [`SERVER_FILES`].
    pub(super) fn server(&self) -> PathBuf {
        self.folder.join("server")
    }
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server of that name and its key, as PEM; valid, or expired.
    ///
    /// # Errors
    /// That is no name.
    pub fn server(&self, name: &str, is_expired: bool) -> Result<(String, String)> {
        self.sign(Leaf {
            name,
            hosts: &[name],
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            is_expired,
        })
    }

    /// A certificate for a client and its key, as PEM.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn client(&self, name: &str) -> Result<(String, String)> {
        self.sign(Leaf {
            name,
            hosts: &[],
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            is_expired: false,
        })
    }

    /// A certificate and its key, as PEM.
    fn sign(&self, leaf: Leaf<'_>) -> Result<(String, String)> {
        let hosts: Vec<String> = leaf.hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts)?;
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![leaf.usage];
        if leaf.is_expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// Writes a folder: the authority that its owner trusts, and the owner's own certificate and key.
fn write(
    folder: &Path,
    trusted: &Authority,
    own: Option<(&str, Leaf<'_>, &Authority)>,
) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
    fs::write(folder.join("cacert.pem"), &trusted.pem)?;
    if let Some((role, leaf, issuer)) = own {
        let (certificate, key) = issuer.sign(leaf)?;
        fs::write(folder.join(format!("{role}cert.pem")), certificate)?;
        fs::write(folder.join(format!("{role}key.pem")), key)?;
    }
    Ok(())
}
