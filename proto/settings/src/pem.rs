//! Certificates and keys in PEM form.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

use crate::limits::MAX_PEM;

/// Why certificates can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't use {path} for TLS: {why}", path = .path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What is the matter with it.
    pub why: String,
}

impl TlsError {
    /// What is the matter with a file.
    pub fn new(path: &Path, why: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

fn bad(path: &Path, error: &pem::Error) -> TlsError {
    match error {
        pem::Error::NoItemsFound => TlsError::new(
            path,
            "it holds nothing of the kind in PEM form, or what it holds is encrypted",
        ),
        error => TlsError::new(path, format!("it is no PEM file ({error:?})")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM + 1).read_to_end(&mut bytes))
        .map_err(|error| TlsError::new(path, error))?;
    match bytes.len() as u64 > MAX_PEM {
        true => Err(TlsError::new(
            path,
            format!("it is longer than {MAX_PEM} bytes"),
        )),
        false => Ok(bytes),
    }
}

/// The authorities that a file holds.
///
/// # Errors
/// It can't be read, or holds something else.
pub fn trusted(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots
            .add(authority)
            .map_err(|error| TlsError::new(path, error))?;
    }
    Ok(roots)
}

/// A certificate, with those between it and its authority, and its key.
///
/// # Errors
/// A file can't be read, or holds something else.
pub fn private_key(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(certificate)?;
    let bytes = read(key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| bad(key, &error))?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(bad(path, &pem::Error::NoItemsFound)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(bad(path, &error)),
    }
}
