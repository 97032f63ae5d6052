//! What makes two findings the same alert: `rule : address : principal : route`.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use ulid::Ulid;

use crate::capture::Time;
use crate::detect::Finding;
use crate::detect::holder::holder;
use crate::token::Fingerprint;

/// Whose doing: a verified principal, else a token, else nobody that we know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// Subject and issuer, as a verified signature says.
    Principal(Box<str>, Option<Box<str>>),
    /// A token that names nobody for certain.
    Token(Fingerprint),
    /// No token: the account that a login claims, by hash.
    Claimed(u64),
    /// No token.
    Nobody,
    /// Everybody beyond what one source may open.
    Rest,
}

/// The dedup key; the address as its [`holder`]. Findings about a service as a whole are told apart by its address and
/// port, in the place of client and route; those without a scene by their short phrase.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The rule's id.
    pub rule: &'static str,
    /// Who holds the client's address; the server's, if it is about a service.
    pub address: Option<IpAddr>,
    /// Whose doing.
    pub actor: Actor,
    /// The route template; the service, if it is about one.
    pub route: Arc<str>,
}

impl Key {
    /// The key of a finding.
    #[must_use]
    pub fn of(finding: &Finding) -> Self {
        let verified = finding.principal.as_ref().filter(|p| p.verified);
        let actor = match (verified, finding.token) {
            (Some(p), _) => Actor::Principal(p.subject.clone(), p.issuer.clone()),
            (None, Some(token)) => Actor::Token(token),
            (None, None) => finding.group.map_or(Actor::Nobody, Actor::Claimed),
        };
        let (address, route) = match finding.scene.as_deref() {
            Some(scene) if scene.is_of_service() => {
                let server = scene.endpoints.server;
                (Some(server.ip()), server.to_string().into())
            }
            Some(scene) => (Some(holder(scene.client)), Arc::clone(&scene.route)),
            None => (None, finding.brief.as_str().into()),
        };
        Self { rule: finding.rule.id, address, actor, route }
    }

    /// The key of everything that its source opens beyond what it may.
    #[must_use]
    pub fn folded(self) -> Self {
        Self { actor: Actor::Rest, route: "".into(), ..self }
    }

    /// The key of everything that its rule opens beyond what it may.
    #[must_use]
    pub fn of_everybody(self) -> Self {
        Self { address: None, ..self.folded() }
    }

    /// The alert's id, the same for every replay of one capture: the time of the first finding, and 80 bits of a hash of
    /// the key.
    #[must_use]
    pub fn identity(&self, at: Time) -> Ulid {
        let address = self.address.map(|a| a.to_string()).unwrap_or_default();
        let time = at.0.to_be_bytes();
        let mut parts = vec![self.rule.as_bytes(), &time, address.as_bytes(), self.route.as_bytes()];
        match &self.actor {
            Actor::Principal(subject, issuer) => {
                parts.push(subject.as_bytes());
                parts.push(issuer.as_deref().unwrap_or_default().as_bytes());
            }
            Actor::Token(token) => parts.push(&token.0),
            Actor::Claimed(_) | Actor::Nobody => {}
            Actor::Rest => parts.push(b"rest"),
        }
        let claimed = if let Actor::Claimed(group) = self.actor { Some(group.to_be_bytes()) } else { None };
        parts.extend(claimed.as_ref().map(<[u8; 8]>::as_slice));
        ulid(at, &parts)
    }
}

/// A ULID of a time and a hash of these parts.
pub(super) fn ulid(at: Time, parts: &[&[u8]]) -> Ulid {
    let random = hashed(parts).into_iter().take(10).fold(0_u128, |sum, byte| (sum << 8) | u128::from(byte));
    Ulid::from_parts(at.millis(), random)
}

/// The first 128 bits of SHA-256 over parts, each after its length.
pub(super) fn hashed(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::staging::finding;
    use crate::detect::Scene;

    #[test]
    fn each_service_has_an_alert_of_its_own() {
        let about = |server: &str, account: Option<u64>| {
            let mut finding = finding(1);
            (finding.token, finding.principal) = (None, None);
            let scene = finding.scene.as_mut().unwrap();
            scene.endpoints.client = Scene::NOBODY;
            scene.endpoints.server = server.parse().unwrap();
            Key::of(&finding.of_account(account))
        };
        assert_eq!(about("10.0.0.1:80", None), about("10.0.0.1:80", None));
        assert_ne!(about("10.0.0.1:80", None), about("10.0.0.1:81", None));
        assert_ne!(about("10.0.0.1:80", None), about("10.0.0.2:80", None));
        assert_eq!(about("10.0.0.1:80", None).address, Some(IpAddr::from([10, 0, 0, 1])));
        let [alice, bob] = [1, 2].map(|account| about("10.0.0.1:80", Some(account)));
        assert_ne!(alice, bob, "so has each account");
        assert_ne!(alice.identity(Time::from_secs(1)), bob.identity(Time::from_secs(1)));
    }
}
