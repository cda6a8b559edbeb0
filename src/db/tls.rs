//! TLS to the server, always verified: certificates, the handshake, and what binds a login to it.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as RustlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::TlsFiles;

/// Why TLS cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of use.
    #[error("{parameter}: {}: {problem}", path.display())]
    File {
        /// Which parameter names it.
        parameter: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nobody is trusted.
    #[error("this machine has no certificates of authorities: install them, or give sslrootcert=FILE")]
    NoRoots,
    /// The library refuses what the files hold.
    #[error("the certificates cannot be used: {0}")]
    Refused(#[from] rustls::Error),
}

/// Makes verified connections.
#[derive(Clone)]
pub(super) struct Verified(TlsConnector);

impl Verified {
    /// Reads the files. Blocks.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(files.roots.as_deref())?);
        let mut config = match &files.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("sslcert", certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("sslkey", key, &error))?;
                builder.with_client_auth_cert(chain, secret)?
            }
        };
        // From 17 on servers look at it, and `sslnegotiation=direct` needs it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Verified(TlsConnector::from(Arc::new(config))))
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match file {
        None => {
            // A certificate that cannot be read is one authority less.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
        Some(file) => {
            for certificate in certificates("sslrootcert", file)? {
                let added = roots.add(certificate);
                added.map_err(|error| unusable("sslrootcert", file, &error))?;
            }
        }
    }
    Ok(roots)
}

/// The certificates of a PEM file, at least one.
fn certificates(parameter: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| unusable(parameter, path, &error))?;
    if found.is_empty() {
        return Err(unusable(parameter, path, &"no certificate in it"));
    }
    Ok(found)
}

fn unusable(parameter: &'static str, path: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        parameter,
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

impl MakeTlsConnect<Socket> for Verified {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, InvalidDnsNameError> {
        Ok(Handshake {
            connector: self.0.clone(),
            name: ServerName::try_from(host)?.to_owned(),
        })
    }
}

/// A handshake with a server of that name, which its certificate must be for.
pub(super) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { Ok(Encrypted(self.connector.connect(self.name, socket).await?)) })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted(RustlsStream<Socket>);

impl TlsStream for Encrypted {
    /// Ties a SCRAM login to this connection: whoever relays it over another one is found out.
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates();
        match certificates.and_then(|chain| end_point(chain.first()?)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// `tls-server-end-point` of RFC 5929: the certificate's hash, by the function that its signature uses, or SHA-256 in
/// place of MD5 and SHA-1. None where the signature names no function: there is then nothing to bind to.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let algorithm = signature_algorithm(certificate)?;
    let (is_rsa, kind) = match algorithm.strip_prefix(RSA) {
        Some(kind) => (true, kind),
        None => (false, algorithm.strip_prefix(ECDSA)?),
    };
    Some(match (is_rsa, kind) {
        (true, [4 | 5 | 11]) | (false, [1] | [3, 2]) => Sha256::digest(certificate).to_vec(),
        (true, [12]) | (false, [3, 3]) => Sha384::digest(certificate).to_vec(),
        (true, [13]) | (false, [3, 4]) => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// The object identifier of a certificate's signature algorithm: `SEQUENCE { tbsCertificate SEQUENCE, SEQUENCE { OID ...`.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (certificate, _) = element(SEQUENCE, certificate)?;
    let (_, after_tbs) = element(SEQUENCE, certificate)?;
    let (algorithm, _) = element(SEQUENCE, after_tbs)?;
    Some(element(OBJECT_IDENTIFIER, algorithm)?.0)
}

/// The content of the DER element with that tag at the beginning, and what comes after it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (long, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
        let length = long.iter().try_fold(0_usize, |sum, &byte| {
            sum.checked_mul(256)?.checked_add(usize::from(byte))
        })?;
        (length, rest)
    };
    (found == tag).then_some(rest.split_at_checked(length)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    #[test]
    fn the_end_point_is_hashed_as_the_certificate_is_signed() {
        for (algorithm, bytes) in [
            (&PKCS_ECDSA_P256_SHA256, Some(32)),
            (&PKCS_ECDSA_P384_SHA384, Some(48)),
            (&PKCS_ED25519, None),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = CertificateParams::new(["db.example".to_owned()]).unwrap();
            let certificate = certificate.self_signed(&key).unwrap();
            let found = end_point(certificate.der());
            assert_eq!(found.map(|hash| hash.len()), bytes, "{algorithm:?}");
        }
        for broken in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 2, 0x30, 9],
        ] {
            assert_eq!(end_point(broken), None);
        }
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for path in [dir.path().join("missing.pem"), empty] {
            let files = TlsFiles {
                roots: Some(path.clone()),
                own: None,
            };
            let error = Verified::read(&files).err().unwrap().to_string();
            assert!(
                error.starts_with(&format!("sslrootcert: {}: ", path.display())),
                "{error}"
            );
        }
    }
}
