//! Where libvirt's certificates and keys are, and reading them.

use std::path::{Path, PathBuf};

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use zeroize::Zeroizing;

use super::Error;
use crate::{Environment, files, transport::limits::MAX_PEM};

/// Whom the server's certificate may be from.
#[derive(Debug)]
pub(super) struct Trust {
    /// The trusted authorities, and the file that they are from.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) authority: PathBuf,
    /// What those have revoked, if there is a list.
    pub(super) revoked: Option<(PathBuf, Vec<CertificateRevocationListDer<'static>>)>,
}

/// This client's certificate.
#[derive(Debug)]
pub(super) enum Client {
    Present {
        path: PathBuf,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    },
    /// There is none, and why.
    Absent(String),
}

/// The directories that are looked at, the user's own first.
pub(super) struct Places(Vec<Place>);

struct Place {
    authority: PathBuf,
    revoked: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    /// Whether what can't be read there counts as absent: other users may not read the system's key.
    shared: bool,
}

impl Place {
    /// All in one directory.
    fn own(dir: &Path) -> Self {
        Self {
            authority: dir.join("cacert.pem"),
            revoked: dir.join("cacrl.pem"),
            certificate: dir.join("clientcert.pem"),
            key: dir.join("clientkey.pem"),
            shared: false,
        }
    }

    fn of_system(environment: &Environment) -> Self {
        let pki = environment.config_dir.join("pki");
        Self {
            authority: pki.join("CA/cacert.pem"),
            revoked: pki.join("CA/cacrl.pem"),
            certificate: pki.join("libvirt/clientcert.pem"),
            key: pki.join("libvirt/private/clientkey.pem"),
            shared: !environment.is_root(),
        }
    }
}

impl Places {
    /// A directory that the user names, or else those that libvirt's tools use.
    pub(super) fn new(pkipath: Option<&Path>, environment: &Environment) -> Self {
        if let Some(dir) = pkipath {
            return Self(vec![Place::own(dir)]);
        }
        let home = environment.home.as_ref().filter(|_| !environment.is_root());
        let own = home.map(|home| Place::own(&home.join(".pki/libvirt")));
        let system = Place::of_system(environment);
        Self(own.into_iter().chain([system]).collect())
    }

    pub(super) fn trust(&self) -> Result<Trust, Error> {
        let (authority, authorities) = self.authorities()?.ok_or_else(|| Error::NoAuthority {
            looked: self.paths(|place| &place.authority),
        })?;
        Ok(Trust {
            authorities,
            authority,
            revoked: self.revoked()?,
        })
    }

    fn paths(&self, which: fn(&Place) -> &PathBuf) -> Vec<PathBuf> {
        self.0.iter().map(|place| which(place).clone()).collect()
    }

    fn authorities(&self) -> Result<Option<(PathBuf, Vec<CertificateDer<'static>>)>, Error> {
        for path in self.paths(|place| &place.authority) {
            if let Some(bytes) = read(&path)? {
                let certificates = certificates(&path, &bytes)?;
                return Ok(Some((path, certificates)));
            }
        }
        Ok(None)
    }

    fn revoked(
        &self,
    ) -> Result<Option<(PathBuf, Vec<CertificateRevocationListDer<'static>>)>, Error> {
        for path in self.paths(|place| &place.revoked) {
            if let Some(bytes) = read(&path)? {
                let lists: Result<Vec<_>, _> =
                    CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
                let lists = lists.map_err(|error| bad(&path, &error))?;
                return Ok(Some((path, lists)));
            }
        }
        Ok(None)
    }

    /// The first place that has both certificate and key.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let mut absent = Vec::new();
        for place in &self.0 {
            let mut found = |path: &Path| match files::read(path, MAX_PEM) {
                Ok(Some(bytes)) => Ok(Some(bytes)),
                Ok(None) => {
                    absent.push(format!("there is no {}", path.display()));
                    Ok(None)
                }
                Err(why) if place.shared => {
                    absent.push(format!("can't read {}: {why}", path.display()));
                    Ok(None)
                }
                Err(why) => Err(file(path, why)),
            };
            let Some(chain) = found(&place.certificate)? else {
                continue;
            };
            if let Some(key) = found(&place.key)? {
                return Ok(Client::Present {
                    path: place.certificate.clone(),
                    chain: certificates(&place.certificate, &chain)?,
                    key: self::key(&place.key, &key)?,
                });
            }
        }
        Ok(Client::Absent(absent.join(", and ")))
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    files::read(path, MAX_PEM).map_err(|why| file(path, why))
}

fn file(path: &Path, why: String) -> Error {
    let path = path.to_owned();
    Error::File { path, why }
}

fn bad(path: &Path, error: &pem::Error) -> Error {
    let why = match error {
        pem::Error::NoItemsFound => {
            "it holds nothing of the kind in PEM form, or what it holds is encrypted".to_owned()
        }
        error => format!("it is no PEM file ({error:?})"),
    };
    file(path, why)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(bad(path, &pem::Error::NoItemsFound)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(bad(path, &error)),
    }
}

fn key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| bad(path, &error))
}
