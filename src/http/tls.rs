//! Whose certificates are believed.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::Destination;

/// TLS for connections to `destination`; its own cryptography, none set for the process. Offers HTTP 2 and 1.1;
/// who speaks another protocol empties `alpn_protocols`. Says what is wrong with `ca` or the system's certificates.
pub fn config(destination: &Destination, https: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = if !https {
        // Never asked; if it were, it would trust nobody.
        builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    } else {
        let verifier: Arc<dyn ServerCertVerifier> = match (destination.verify, &destination.ca) {
            (false, _) => Arc::new(Unverified { provider }),
            (true, None) => Arc::new(Verifier::new(provider).map_err(no_roots)?),
            (true, Some(path)) => Arc::new(Listed::new(path, provider)?),
        };
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn no_roots(error: Error) -> String {
    format!("the system's certificates cannot be used ({error}): install `ca-certificates`, or set `ca`")
}

/// Trusts the system's authorities, those in a file, and a server that shows a certificate of that file.
///
/// The last is what people have who make one with `openssl req -x509`: it calls itself an authority, which a
/// server's certificate must not be, so that by the book it could never be accepted. Such a certificate must
/// still be for the right name, but its dates are not read: who lists one byte by byte also takes it out.
#[derive(Debug)]
struct Listed {
    listed: Vec<CertificateDer<'static>>,
    authorities: Verifier,
}

impl Listed {
    fn new(path: &Path, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let cannot_read = |error| format!("`ca`: cannot read `{}`: {error}", path.display());
        let listed = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(cannot_read)?;
        if listed.is_empty() {
            return Err(format!(
                "`ca`: no certificate in `{}`: it takes PEM, `-----BEGIN CERTIFICATE-----`",
                path.display()
            ));
        }
        let authorities = Verifier::new_with_extra_roots(listed.clone(), provider).map_err(no_roots)?;
        Ok(Self { listed, authorities })
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.listed.iter().any(|listed| listed == end_entity) {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// `verify: false`: any certificate will do, as long as the server holds its key.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
