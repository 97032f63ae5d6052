//! What of people and tokens may be stored: privacy is applied here, before anything reaches a file.
//!
//! Principals and token ids are found again by keyed hashes, so that whoever holds the key finds a name that the file
//! shows masked or not at all, and nobody else can try names out.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use ipnet::IpNet;

use crate::render::Privacy;

/// Says what may be stored.
#[derive(Clone)]
pub struct Veil {
    key: hmac::Key,
    privacy: Privacy,
    /// Whether principals have pseudonyms; then token ids are not shown either.
    pseudonyms: bool,
}

/// A name: how it is found, and how it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// A keyed hash of the name itself.
    pub hash: i64,
    /// What is shown.
    pub shown: String,
}

impl Veil {
    /// Hides by `privacy`, and hashes by a key derived from that of fingerprints.
    #[must_use]
    pub fn new(fingerprint_key: &[u8], privacy: Privacy, pseudonyms: bool) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, fingerprint_key);
        let derived = hmac::sign(&root, b"tokenscope store: names to look up");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()), privacy, pseudonyms }
    }

    /// An address as it may be stored.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> IpAddr {
        self.privacy.address(address)
    }

    /// A principal's subject.
    #[must_use]
    pub fn subject(&self, subject: &str) -> Name {
        Name { hash: self.hash(b's', subject), shown: self.privacy.subject(subject) }
    }

    /// A token's `jti`: its hash, and itself where principals are shown too.
    #[must_use]
    pub fn token_id(&self, id: &str) -> (i64, Option<String>) {
        (self.hash(b'i', id), (!self.pseudonyms).then(|| id.to_owned()))
    }

    /// A route that these people have used.
    #[must_use]
    pub fn route<'n>(&self, route: &str, people: impl Iterator<Item = &'n str>) -> String {
        self.privacy.path(route, people)
    }

    fn hash(&self, kind: u8, name: &str) -> i64 {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[kind]);
        context.update(name.as_bytes());
        let tag = context.sign();
        tag.as_ref().first_chunk().copied().map_or(0, i64::from_le_bytes)
    }
}

impl std::fmt::Debug for Veil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Veil").field("privacy", &self.privacy).finish_non_exhaustive()
    }
}

/// Where uses came from, as far as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum From {
    /// An address.
    Address(IpAddr),
    /// A network: its addresses were too many to be kept one by one.
    Network(IpNet),
    /// Anywhere: even networks were too many.
    Anywhere,
}

impl From {
    /// The network around an address: /24 or /48, the smallest that are routed on the internet.
    #[must_use]
    pub fn around(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 24 } else { 48 };
        IpNet::new(address, length).map_or(Self::Anywhere, |net| Self::Network(net.trunc()))
    }

    /// As bytes that sort like addresses: 4 or 16 of them, and one more with the length of a network's prefix.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let octets = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        match self {
            Self::Address(address) => octets(address),
            Self::Network(net) => {
                let mut bytes = octets(&net.network());
                bytes.push(net.prefix_len());
                bytes
            }
            Self::Anywhere => Vec::new(),
        }
    }
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Network(net) => net.fmt(f),
            Self::Anywhere => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_the_holder_of_the_key_only() {
        let veil = |key: &[u8]| Veil::new(key, Privacy::default(), false);
        let alice = veil(b"one").subject("alice@shop.example");
        assert_eq!(alice, veil(b"one").subject("alice@shop.example"));
        assert_ne!(alice.hash, veil(b"two").subject("alice@shop.example").hash);
        assert_ne!(alice.hash, veil(b"one").subject("anna@shop.example").hash);
        assert_eq!(alice.shown, "a…@shop.example");
    }

    #[test]
    fn pseudonyms_hide_token_ids_too() {
        let open = Veil::new(b"one", Privacy::default(), false);
        let hidden = Veil::new(b"one", Privacy::new(true, Some(b"one")), true);
        assert_eq!(open.token_id("j-1").1.as_deref(), Some("j-1"));
        assert_eq!(hidden.token_id("j-1"), (open.token_id("j-1").0, None));
        assert_eq!(hidden.subject("alice").hash, open.subject("alice").hash);
        assert!(!hidden.subject("alice").shown.contains("alice"));
        assert_eq!(hidden.address("10.1.2.3".parse().unwrap()).to_string(), "10.1.0.0");
    }

    #[test]
    fn networks_sort_behind_their_first_address() {
        let address: IpAddr = "10.1.2.3".parse().unwrap();
        let network = From::around(address);
        assert_eq!((network.to_string(), From::Anywhere.to_string()), ("10.1.2.0/24".into(), "-".into()));
        let first = From::Address("10.1.2.0".parse().unwrap());
        assert!(first.bytes() < network.bytes() && network.bytes() < From::Address(address).bytes());
        assert_eq!(From::around("2001:db8:1:2::3".parse().unwrap()).to_string(), "2001:db8:1::/48");
    }
}
