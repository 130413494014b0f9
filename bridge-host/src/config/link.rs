//! What the links to guests prove and encrypt with, from the file.

use std::path::PathBuf;

use serde::Deserialize;
use vbridge_settings::read_key;

use super::{ConfigError, GuestEntry};
use crate::{GuestSpec, LinkTls, LinkTlsFiles};

/// What holds for the links to all guests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// A file with the key that each agent must prove whose guest has no key of its own.
    pub key_file: Option<PathBuf>,
    /// Certificates: without them nothing is encrypted.
    pub tls: Option<LinkTlsFiles>,
}

/// The same in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkForm {
    key_file: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

impl LinkForm {
    pub(super) fn settings(self) -> Result<LinkSettings, ConfigError> {
        let own = match (self.tls_certificate, self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::Link("tls_certificate needs tls_key")),
            (None, Some(_)) => return Err(ConfigError::Link("tls_key needs tls_certificate")),
        };
        let tls = match (self.tls_ca, own) {
            (Some(ca), own) => Some(LinkTlsFiles { ca, own }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(ConfigError::Link(
                    "tls_certificate needs tls_ca, the authority of the agents' certificates",
                ));
            }
        };
        Ok(LinkSettings {
            key_file: self.key_file,
            tls,
        })
    }
}

impl LinkSettings {
    /// A guest as the bridge takes it, with keys and certificates read.
    pub(super) fn guest(
        &self,
        entry: &GuestEntry,
        tls: Option<&LinkTls>,
    ) -> Result<GuestSpec, ConfigError> {
        let mut spec = entry.spec()?;
        spec.tls = match (tls, &entry.tls_name) {
            (Some(tls), Some(name)) => Some(tls.with_name(name)),
            (None, Some(_)) => {
                return Err(ConfigError::Link(
                    "a guest's tls_name needs tls_ca, the authority of the agents' certificates",
                ));
            }
            (_, None) => None,
        };
        Ok(spec)
    }

    /// The key of all guests that have none of their own.
    pub(super) fn key(&self) -> Result<Option<vbridge_link::Key>, ConfigError> {
        let read = |path: &PathBuf| {
            read_key(path).map_err(|why| ConfigError::LinkKey {
                path: path.clone(),
                why,
            })
        };
        self.key_file.as_ref().map(read).transpose()
    }
}
