//! Whom to believe: certificate roots, certificates of single hosts, and the TLS configuration made of them.
//!
//! Roots come from `SSL_CERT_FILE` and `SSL_CERT_DIR`, else from the system, else (an empty root file system) from the bundled
//! Mozilla list. They are loaded when the first certificate is to be checked and not before: plain HTTP and builds that ask nobody
//! do not pay. A host's own files lie in `certs.d/HOST[:PORT]` as Docker and the containers tools have it: `*.crt` are roots,
//! `*.cert` with `*.key` is how we show who we are. Files of settings may name others ([`Terms`]).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};

use super::config::{add_directory, containerd_directories, is_directory_name};
use super::environment::Environment;
use super::error::RegistryError;
use super::identity::Identities;
use super::rules::Home;
use super::site::{Terms, canonical_registry, split_port};

/// Makes TLS configurations; the roots are loaded once for all of them.
pub(super) struct Trust {
    environment: Environment,
    provider: Arc<CryptoProvider>,
    roots: Arc<OnceLock<Result<Roots, String>>>,
}

/// How a host's certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Check {
    Full,
    /// The user has said `--insecure-registry`.
    Nothing,
}

/// Certificates that were named, rather than found in the system's list, are `pinned`: a server may show one of them itself.
#[derive(Clone)]
struct Roots {
    store: Arc<RootCertStore>,
    pinned: Vec<CertificateDer<'static>>,
}

/// A server to which a connection is made.
pub(super) struct Peer<'a> {
    /// The host with its port, if the URL has one.
    pub(super) authority: &'a str,
    pub(super) terms: &'a Terms,
    /// The registry that sends us there, if it is another: whom it may be believed, this one may.
    pub(super) home: Option<&'a Home>,
    /// Its files stand for those of all directories.
    pub(super) cert_dir: Option<&'a Path>,
}

/// Certificates that are for a peer.
#[derive(Default)]
pub(super) struct HostCertificates {
    roots: Vec<CertificateDer<'static>>,
    identities: Vec<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Trust {
    pub(super) fn new(environment: Environment) -> Trust {
        Trust {
            environment,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            roots: Arc::default(),
        }
    }

    /// Returns a configuration for hosts without files of their own, or for one with them.
    pub(super) fn config(
        &self,
        check: Check,
        own: Option<HostCertificates>,
    ) -> Result<ClientConfig, rustls::Error> {
        let own = own.unwrap_or_default();
        let verifier = Verifier {
            check,
            environment: self.environment.clone(),
            provider: self.provider.clone(),
            common: self.roots.clone(),
            own: own.roots,
            inner: OnceLock::new(),
        };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match own.identities.is_empty() {
            true => builder.with_no_client_auth(),
            false => {
                let identities = Identities::new(own.identities, &self.provider)?;
                builder.with_client_cert_resolver(Arc::new(identities))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Tells whether the roots were loaded.
    #[cfg(test)]
    pub(super) fn has_loaded_roots(&self) -> bool {
        self.roots.get().is_some()
    }

    /// Reads the files that are meant for a peer; `None` where there are none.
    pub(super) fn certificates(
        &self,
        peer: &Peer<'_>,
    ) -> Result<Option<HostCertificates>, RegistryError> {
        let mut terms = peer.terms.clone();
        if let Some(directory) = peer.cert_dir {
            if !directory.is_dir() {
                return Err(RegistryError::Option {
                    what: format!(
                        "the directory of certificates is none: `{}`",
                        directory.display()
                    ),
                });
            }
            add_directory(directory, &mut terms)?;
        } else {
            self.add_directories(peer.authority, &mut terms)?;
        }
        if let Some(home) = peer.home {
            let mut theirs = home.terms.clone();
            if peer.cert_dir.is_none() {
                self.add_directories(&home.authority, &mut theirs)?;
            }
            terms.authorities.extend(theirs.authorities);
        }
        if terms.authorities.is_empty() && terms.identities.is_empty() {
            return Ok(None);
        }
        let mut certificates = HostCertificates::default();
        for file in &terms.authorities {
            certificates.roots.extend(read_certificates(file)?);
        }
        for (chain, key) in &terms.identities {
            let chain = read_certificates(chain)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(key, error))?;
            certificates.identities.push((chain, key));
        }
        Ok(Some(certificates))
    }

    /// Adds what the directories of a host hold.
    fn add_directories(&self, authority: &str, terms: &mut Terms) -> Result<(), RegistryError> {
        if !is_directory_name(authority) {
            return Ok(());
        }
        let environment = &self.environment;
        let bases = [
            environment.user_config("containers/certs.d"),
            environment.user_config("docker/certs.d"),
            environment.home(".docker/certs.d"),
            Some(environment.etc().join("containers/certs.d")),
            Some(environment.etc().join("docker/certs.d")),
        ];
        // A URL leaves the port of HTTPS out; who made the directory may not have.
        let with_port = match split_port(authority) {
            (_, None) => Some(format!("{authority}:443")),
            _ => None,
        };
        // Docker Hub goes by its name, or by that of its server.
        let canonical = Some(canonical_registry(authority)).filter(|name| name != authority);
        let names = || {
            [Some(authority), with_port.as_deref(), canonical.as_deref()]
                .into_iter()
                .flatten()
        };
        for base in bases.into_iter().flatten() {
            for name in names() {
                add_directory(&base.join(name), terms)?;
            }
        }
        for name in names() {
            for directory in containerd_directories(environment, name) {
                // Beside a `hosts.toml` files are used where that names them.
                if !directory.join("hosts.toml").exists() {
                    add_directory(&directory, terms)?;
                }
            }
        }
        Ok(())
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| pem_error(file, error))
}

fn pem_error(file: &Path, error: rustls::pki_types::pem::Error) -> RegistryError {
    RegistryError::File {
        verb: "read the PEM file",
        path: file.to_owned(),
        source: match error {
            rustls::pki_types::pem::Error::Io(error) => error,
            // The other kinds quote no content, apart from a label.
            other => std::io::Error::new(std::io::ErrorKind::InvalidData, other.to_string()),
        },
    }
}

/// Loads the roots that hold for every host.
fn load_roots(environment: &Environment) -> Result<Roots, String> {
    let file = environment.path("SSL_CERT_FILE");
    let directories: Vec<PathBuf> = environment
        .get("SSL_CERT_DIR")
        .map(|value| std::env::split_paths(value).collect())
        .unwrap_or_default();
    let mut store = RootCertStore::empty();
    if file.is_none() && directories.is_empty() {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        return Ok(Roots {
            store: Arc::new(store),
            pinned: Vec::new(),
        });
    }
    let mut pinned = Vec::new();
    let mut mistakes = Vec::new();
    if let Some(file) = &file {
        let result = rustls_native_certs::load_certs_from_paths(Some(file), None);
        pinned.extend(result.certs);
        mistakes.extend(result.errors.iter().map(ToString::to_string));
    }
    for directory in &directories {
        // OpenSSL takes files that are named by a hash, Go takes all of them: so do we.
        match std::fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    let path = entry.path();
                    if path.is_file()
                        && let Ok(certificates) = CertificateDer::pem_file_iter(&path)
                    {
                        pinned.extend(certificates.flatten());
                    }
                }
            }
            Err(error) => mistakes.push(format!("`{}`: {error}", directory.display())),
        }
    }
    store.add_parsable_certificates(pinned.iter().cloned());
    if store.is_empty() {
        // What was named is meant: going on with other roots would hide the mistake.
        return Err(format!(
            "no certificate could be loaded from SSL_CERT_FILE and SSL_CERT_DIR{}{}",
            if mistakes.is_empty() { "" } else { ": " },
            mistakes.join(", ")
        ));
    }
    Ok(Roots {
        store: Arc::new(store),
        pinned,
    })
}

struct Verifier {
    check: Check,
    environment: Environment,
    provider: Arc<CryptoProvider>,
    common: Arc<OnceLock<Result<Roots, String>>>,
    own: Vec<CertificateDer<'static>>,
    inner: OnceLock<Result<Inner, String>>,
}

/// What a full check needs.
struct Inner {
    verifier: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({:?})", self.check)
    }
}

impl Verifier {
    fn inner(&self) -> Result<&Inner, rustls::Error> {
        self.inner
            .get_or_init(|| {
                let roots = self
                    .common
                    .get_or_init(|| load_roots(&self.environment))
                    .clone();
                let (store, mut pinned) = match roots {
                    Ok(roots) => (roots.store, roots.pinned),
                    // A host with roots of its own needs no others.
                    Err(_) if !self.own.is_empty() => {
                        (Arc::new(RootCertStore::empty()), Vec::new())
                    }
                    Err(error) => return Err(error),
                };
                let store = if self.own.is_empty() {
                    store
                } else {
                    let mut store = RootCertStore::clone(&store);
                    store.add_parsable_certificates(self.own.iter().cloned());
                    Arc::new(store)
                };
                pinned.extend(self.own.iter().cloned());
                WebPkiServerVerifier::builder_with_provider(store, self.provider.clone())
                    .build()
                    .map(|verifier| Inner { verifier, pinned })
                    .map_err(|error| error.to_string())
            })
            .as_ref()
            .map_err(|error| rustls::Error::General(error.clone()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let Inner { verifier, pinned } = self.inner()?;
        let verdict =
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // A self-signed certificate made with `openssl req -x509` says that it is an authority, and webpki does not take an
            // authority as a server. Where the user named this very certificate, its name is what remains to be checked.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(_))))
                if pinned.iter().any(|trusted| trusted == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.check == Check::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.check == Check::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
