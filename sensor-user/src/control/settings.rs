//! What the configuration says of the control socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::token::settings::Secret;

/// The Unix socket, unless somebody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tokenscope/control.sock";

/// Where the sensor can be asked, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The Unix socket; none for none.
    pub socket: Option<PathBuf>,
    /// TCP besides it.
    pub listen: Option<Listen>,
}

/// TCP. Invariant: there is a token, or a CA of client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: SocketAddr,
    /// What clients show as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// Encryption.
    pub tls: Option<Tls>,
}

/// Files in PEM, read when the sensor starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate, and those between it and its CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who must have signed the certificates of clients; none: they need none.
    pub client_ca: Option<PathBuf>,
}
