//! What the configuration wants hidden from every sink: client addresses in part, principals behind a keyed name.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::hmac;

use crate::alert::{Alert, Event, Incident};
use crate::render::exchange::Exchanged;

/// Digits of a pseudonym: 64 bits, so that a million principals collide with odds of one in 37 million.
const DIGITS: usize = 16;

/// Hides what the configuration wants hidden; the default hides nothing.
#[derive(Clone, Default)]
pub struct Privacy {
    mask_addresses: bool,
    key: Option<hmac::Key>,
}

impl Privacy {
    /// Masks client addresses if asked to; with a key, gives principals pseudonyms that only its holder can link.
    #[must_use]
    pub fn new(mask_addresses: bool, pseudonym_key: Option<&[u8]>) -> Self {
        Self { mask_addresses, key: pseudonym_key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)) }
    }

    /// The event as it may be shown.
    #[must_use]
    pub fn event<'a>(&self, event: &'a Event) -> Cow<'a, Event> {
        if !self.mask_addresses && self.key.is_none() {
            return Cow::Borrowed(event);
        }
        Cow::Owned(match event {
            Event::Alert(alert) => Event::Alert(Box::new(self.apply(alert).into_owned())),
            Event::Incident(incident) => Event::Incident(Box::new(self.incident(incident))),
        })
    }

    fn incident(&self, incident: &Incident) -> Incident {
        let mut incident = incident.clone();
        if self.mask_addresses {
            incident.addresses.iter_mut().for_each(|address| *address = mask(*address));
            incident.addresses.dedup();
        }
        if let Some(key) = &self.key {
            for (subject, _) in &mut incident.principals {
                *subject = pseudonym(key, subject).into();
            }
        }
        incident
    }

    /// Hides what must not be shown of an exchange.
    pub fn exchange(&self, exchanged: &mut Exchanged) {
        if self.mask_addresses {
            exchanged.client = mask(exchanged.client);
        }
        let Some(key) = &self.key else { return };
        for principal in exchanged.tokens.iter_mut().filter_map(|token| token.principal.as_mut()) {
            principal.subject = pseudonym(key, &principal.subject).into();
        }
    }

    /// Who a principal is, as it may be shown.
    #[must_use]
    pub fn who(&self, alert: &Alert) -> Option<String> {
        let alert = self.apply(alert);
        alert.finding.principal.as_ref().map(crate::render::shown::principal)
    }

    /// The alert as it may be shown.
    #[must_use]
    pub fn apply<'a>(&self, alert: &'a Alert) -> Cow<'a, Alert> {
        if !self.mask_addresses && self.key.is_none() {
            return Cow::Borrowed(alert);
        }
        let mut alert = alert.clone();
        if let Some(scene) = alert.finding.scene.as_mut().filter(|_| self.mask_addresses) {
            scene.client = mask(scene.client);
            let peer = mask(scene.endpoints.client.ip());
            scene.endpoints.client.set_ip(peer);
        }
        if let (Some(key), Some(principal)) = (&self.key, alert.finding.principal.as_mut()) {
            principal.subject = pseudonym(key, &principal.subject).into();
        }
        Cow::Owned(alert)
    }
}

impl std::fmt::Debug for Privacy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Privacy").field("mask_addresses", &self.mask_addresses).finish_non_exhaustive()
    }
}

/// Keeps two octets of IPv4, two groups of IPv6.
fn mask(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & 0xffff_0000)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 96))),
    }
}

fn pseudonym(key: &hmac::Key, subject: &str) -> String {
    let tag = hmac::sign(key, subject.as_bytes());
    let mut name = String::from("p-");
    for byte in tag.as_ref().iter().take(DIGITS / 2) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::staging::alert;

    #[test]
    fn hides_nothing_unless_asked() {
        let alert = alert();
        assert!(matches!(Privacy::default().apply(&alert), Cow::Borrowed(_)));
    }

    #[test]
    fn masks_half_of_a_clients_address() {
        let alert = alert();
        let shown = Privacy::new(true, None).apply(&alert).into_owned();
        let scene = shown.finding.scene.unwrap();
        assert_eq!(
            (scene.client.to_string(), scene.endpoints.client.ip().to_string()),
            ("10.0.0.0".into(), "10.0.0.0".into())
        );
        assert_eq!(scene.endpoints.server.to_string(), "10.0.0.1:8080");
        assert_eq!(mask("2001:db8:1:2::3".parse().unwrap()).to_string(), "2001:db8::");
    }

    #[test]
    fn exchanges_are_hidden_like_alerts() {
        let mut shown = crate::render::exchange::staging::exchanged();
        Privacy::default().exchange(&mut shown);
        assert_eq!(shown.principal().map(|p| &*p.subject), Some("alice"));
        Privacy::new(true, Some(b"k")).exchange(&mut shown);
        assert_eq!(shown.client.to_string(), "10.0.0.0");
        assert!(shown.principal().is_some_and(|p| p.subject.starts_with("p-")));
    }

    #[test]
    fn pseudonyms_are_stable_and_depend_on_the_key() {
        let alert = alert();
        let name = |key: &[u8]| {
            Privacy::new(false, Some(key))
                .apply(&alert)
                .finding
                .principal
                .as_ref()
                .unwrap()
                .subject
                .to_string()
        };
        assert_eq!(name(b"one"), name(b"one"));
        assert_ne!(name(b"one"), name(b"two"));
        assert!(name(b"one").starts_with("p-") && !name(b"one").contains("alice"));
    }
}
