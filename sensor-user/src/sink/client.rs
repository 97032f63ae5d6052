//! One way to ask a server: the TLS, proxy and client that sinks share, and one careful exchange over HTTP.
//!
//! Servers are verified, always; there is no way to turn that off. HTTP/1.1 only; redirects are not followed, as they
//! would carry secrets elsewhere; no cookies; answers are not decompressed, so nothing can be inflated, and no more
//! of them is kept than [`MAX_ANSWER`].

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::sink::Unusable;
use crate::token::settings::Secret;

/// Longest PEM file, in bytes: the bundle of a whole operating system has some 250 KiB.
const MAX_PEM: u64 = 1 << 20;

/// Whom a sink trusts, and as whom it presents itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// A PEM file of authorities that are trusted besides those of the system.
    pub ca: Option<PathBuf>,
    /// Trusts those of `ca` only.
    pub only_ca: bool,
    /// A PEM file of the client's certificate and what it was issued by.
    pub cert: Option<PathBuf>,
    /// A PEM file of the key of `cert`.
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    /// A client's configuration, TLS 1.2 or newer, that verifies every server.
    ///
    /// # Errors
    /// When a file is missing, or is not what it must be.
    pub fn rustls(&self) -> Result<Arc<ClientConfig>, Unusable> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| Unusable(format!("TLS: {error}")))?;
        let builder = builder.with_root_certificates(self.roots()?);
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let pem = read(key)?;
                let secret = PrivateKeyDer::from_pem_slice(&pem);
                let secret =
                    secret.map_err(|_error| Unusable(format!("{} holds no private key", key.display())))?;
                let both = builder.with_client_auth_cert(chain, secret);
                both.map_err(|error| Unusable(format!("{} and {}: {error}", cert.display(), key.display())))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => {
                return Err(Unusable("a client certificate needs its key, and a key its certificate".into()));
            }
        };
        Ok(Arc::new(config))
    }

    /// Nobody is trusted where the system names nobody and there is no `ca`: every connection by TLS then fails.
    fn roots(&self) -> Result<RootCertStore, Unusable> {
        let mut roots = RootCertStore::empty();
        if !self.only_ca {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if let Some(path) = &self.ca {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| Unusable(format!("{}: {error}", path.display())))?;
            }
        }
        Ok(roots)
    }
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Unusable(format!("{} holds no certificates in PEM", path.display()))),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let tell = |error: std::io::Error| Unusable(format!("cannot read {}: {error}", path.display()));
    let mut pem = Zeroizing::new(Vec::with_capacity(16 << 10));
    File::open(path).map_err(tell)?.take(MAX_PEM + 1).read_to_end(&mut pem).map_err(tell)?;
    if pem.len() as u64 > MAX_PEM {
        return Err(Unusable(format!("{} is longer than {MAX_PEM} bytes", path.display())));
    }
    Ok(pem)
}

/// What stands between a sink and its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    System,
    /// Nothing.
    None,
    /// This proxy.
    At {
        /// `http://HOST:PORT` or `https://HOST:PORT`.
        url: String,
        /// Who asks it.
        user: Option<String>,
        /// And by which password.
        password: Option<Secret>,
    },
}

/// How a sink reaches its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Whom it trusts.
    pub tls: TlsSettings,
    /// What stands between.
    pub proxy: Proxy,
}

/// How long connecting may take. The whole delivery is bounded by delivery itself.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection that nobody uses is kept: below the 60 s after which usual servers close it.
const IDLE: Duration = Duration::from_secs(30);

impl ClientSettings {
    /// Reads the certificates again: they may have been renewed. Those that cannot be read leave the old ones in use.
    pub(super) fn renew(&self, client: &mut reqwest::Client) {
        match self.client() {
            Ok(new) => *client = new,
            Err(why) => tracing::warn!(%why, "a sink keeps its certificates, as the new ones cannot be read"),
        }
    }

    /// A client.
    ///
    /// # Errors
    /// When a file is missing, or is not what it must be.
    pub fn client(&self) -> Result<reqwest::Client, Unusable> {
        let mut tls = (*self.tls.rustls()?).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("tokenscope/", env!("CARGO_PKG_VERSION")));
        match &self.proxy {
            Proxy::System => {}
            Proxy::None => builder = builder.no_proxy(),
            Proxy::At { url, user, password } => {
                let wrong = |error: reqwest::Error| Unusable(format!("the proxy: {}", error.without_url()));
                let mut proxy = reqwest::Proxy::all(url).map_err(wrong)?;
                if let Some(user) = user {
                    let password = password.as_ref().map(|secret| String::from_utf8_lossy(&secret.0));
                    proxy = proxy.basic_auth(user, &password.unwrap_or_default());
                }
                builder = builder.proxy(proxy);
            }
        }
        builder.build().map_err(|error| Unusable(format!("the client: {}", error.without_url())))
    }
}
