//! How facts of an alert are shown in every form: names of principals, endpoints and times.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::alert::Alert;
use crate::capture::Time;
use crate::detect::{Principal, Scene, text};

/// RFC 3339 in UTC with milliseconds: `2026-11-21T18:04:05.123Z`.
#[must_use]
pub fn timestamp(time: Time) -> String {
    timestamp_ms(time.millis())
}

/// The same of milliseconds since the Unix epoch.
#[must_use]
pub fn timestamp_ms(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    let stamp = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    format!("{stamp:.3}")
}

/// `Nov 21 18:04:05`, in UTC: as RFC 3164 section 4.1.2 has it.
#[must_use]
pub fn syslog_time(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    let stamp = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    stamp.strftime("%b %e %H:%M:%S").to_string()
}

/// The subject: what is left of it once [`Privacy`](crate::render::Privacy) has seen the event.
#[must_use]
pub fn subject(principal: &Principal) -> String {
    principal.subject.to_string()
}

/// `alice@idp` if verified, `alice?` if it is only a claim: the issuer's first host label stands for the issuer.
#[must_use]
pub fn principal(principal: &Principal) -> String {
    name(&subject(principal), principal.issuer.as_deref(), principal.verified)
}

/// The same of a subject that is masked already.
#[must_use]
pub fn name(subject: &str, issuer: Option<&str>, verified: bool) -> String {
    let mut name = String::new();
    for c in subject.chars() {
        // The column must stay one word.
        text::push_char(&mut name, if c.is_whitespace() { '_' } else { c });
    }
    if !verified {
        return name + "?";
    }
    match issuer.map(issuer_label) {
        Some(label) if !label.is_empty() => {
            name.push('@');
            label.chars().for_each(|c| text::push_char(&mut name, if c.is_whitespace() { '_' } else { c }));
            name
        }
        _ => name,
    }
}

fn issuer_label(issuer: &str) -> &str {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.starts_with('[') || host.split(':').next().is_some_and(|h| h.parse::<IpAddr>().is_ok()) {
        return host;
    }
    host.split(['.', ':']).next().unwrap_or_default()
}

/// The workload, else the server's address and port.
#[must_use]
pub fn server(alert: &Alert, scene: &Scene) -> String {
    match &alert.place {
        Some(place) if !place.name.is_empty() => text::printable(place.name.as_bytes(), 128),
        _ => scene.endpoints.server.to_string(),
    }
}

/// The client; nobody, if it is about the service as a whole.
#[must_use]
pub fn client(scene: &Scene) -> Option<IpAddr> {
    (!scene.is_of_service()).then_some(scene.client)
}

/// The client's port, where the client is the peer and not behind a proxy.
#[must_use]
pub fn client_port(scene: &Scene) -> Option<u16> {
    (scene.endpoints.client.ip() == scene.client).then(|| scene.endpoints.client.port())
}

/// 0 to 100: the risk of the riskiest entity involved, or of the alert itself where that is higher.
#[must_use]
pub fn risk(alert: &Alert) -> u64 {
    u64::from(alert.own_risk().max(alert.entity_risk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_principals_in_one_word() {
        let name = |subject: &str, issuer: Option<&str>, verified| {
            principal(&Principal { subject: subject.into(), issuer: issuer.map(Into::into), verified })
        };
        assert_eq!(name("alice", Some("https://idp.example/realms/a"), true), "alice@idp");
        assert_eq!(name("alice", Some("https://idp.example/"), false), "alice?");
        assert_eq!(
            name("alice@example.com", Some("https://10.0.0.1:8443/"), true),
            "alice@example.com@10.0.0.1:8443"
        );
        assert_eq!(name("a b\u{202e}", None, true), "a_b\\u{202e}");
        assert_eq!(name("svc", Some("accounts"), true), "svc@accounts");
    }

    #[test]
    fn times_have_milliseconds_and_a_zone() {
        assert_eq!(timestamp(Time(1_795_284_245_123_456_789)), "2026-11-21T18:04:05.123Z");
        assert_eq!(timestamp(Time(0)), "1970-01-01T00:00:00.000Z");
        assert!(timestamp(Time(u64::MAX)).ends_with('Z'));
    }
}
