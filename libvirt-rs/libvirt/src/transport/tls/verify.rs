//! How the server's certificate is checked, or that it is not.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Error, files::Trust};

/// Checks it against the trusted authorities and what they have revoked.
pub(super) fn trusting(
    trust: &Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let unusable = |why: String| Error::File {
        path: trust.authority.clone(),
        why,
    };
    let mut roots = RootCertStore::empty();
    for certificate in &trust.authorities {
        let added = roots.add(certificate.clone());
        added
            .map_err(|error| unusable(format!("it is not an authority's certificate ({error})")))?;
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let Some((path, lists)) = &trust.revoked else {
        return builder.build().map_err(|error| unusable(error.to_string()));
    };
    // Every certificate of the chain is looked for: who has the key of a revoked authority signs servers at will. libvirt's
    // list is one authority's and says what it revokes; what no list speaks of is not revoked.
    builder
        .with_crls(lists.iter().cloned())
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| Error::File {
            path: path.clone(),
            why: error.to_string(),
        })
}

/// Takes any certificate (`no_verify`), as long as the server has the key to it.
#[derive(Debug)]
pub(super) struct Anyone(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
