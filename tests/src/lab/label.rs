//! Labels: what was done, by whom, when, and what must be said about it.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

/// One attack, or one benign fact that may be told.
#[derive(Clone, Debug, Default)]
pub struct Label {
    /// `alg-none/3`.
    pub id: String,
    /// Rules that must alert.
    pub rules: Vec<&'static str>,
    /// Rules that may.
    pub also: Vec<&'static str>,
    /// First malicious packet, nanoseconds since the epoch.
    pub first: u64,
    /// The packet that decides it, where one does.
    pub deciding: Option<u64>,
    /// Last malicious packet, with the time that rules over windows may take to say so.
    pub last: u64,
    /// Until when what was done may still be told again: counts over a day remember it.
    pub echo: u64,
    /// Addresses that take part.
    pub addresses: Vec<IpAddr>,
    /// Subjects that take part.
    pub principals: Vec<String>,
    /// The service, where the attack is on a service as a whole.
    pub service: Option<SocketAddr>,
    /// Benign: an alert is right, and none is missed.
    pub is_fact: bool,
}

impl Label {
    /// The line of the labels' file.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "id": self.id, "rules": self.rules, "also": self.also,
            "first_ns": self.first, "deciding_ns": self.deciding, "last_ns": self.last,
            "addresses": self.addresses, "principals": self.principals, "service": self.service,
            "benign_fact": self.is_fact,
        })
    }
}
