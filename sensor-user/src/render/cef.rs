//! Events in the Common Event Format, version 0: a head of seven fields between bars, then `key=value` pairs.
//!
//! In the head `|` and `\` are escaped, in values `=` and `\`, and line ends become `\n` and `\r`; other characters that
//! act on a terminal become `\u{..}` with the backslash escaped in its turn. `src` and `dst` hold IPv4 only: IPv6 has
//! keys of its own.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::detect::{Severity, text};
use crate::render::compact::{ADDRESS, TOKEN, USER};
use crate::render::{Kind, Told, ecs};

/// Longest value of most keys, in characters: that of the dictionary for `msg`, `suser` and `request`.
const MAX_VALUE: usize = 1023;
/// Longest value of a custom string, in characters.
const MAX_CUSTOM: usize = 4000;

/// Severity from 0 to 10; 9 and 10 are very high, 7 and 8 high, 4 to 6 medium.
#[must_use]
pub const fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 10,
        Severity::High => 8,
        Severity::Medium => 5,
        Severity::Low => 3,
    }
}

/// Appends the event with the newline that ends it.
pub fn line(told: &Told, out: &mut String) {
    let version = told.text("/metadata/product/version").unwrap_or_default();
    out.push_str("CEF:0|Tokenscope|Tokenscope|");
    let title = match told.kind {
        Kind::Alert => told.title(),
        Kind::Incident => "Incident",
    };
    for field in [version, told.rule(), title] {
        head(field, out);
        out.push('|');
    }
    let _ = write!(out, "{}|", severity(told.severity));
    let mut pairs = Pairs { out, first: true };
    pairs.common(told);
    match told.kind {
        Kind::Alert => pairs.alert(told),
        Kind::Incident => pairs.incident(told),
    }
    out.push('\n');
}

/// Line ends cannot be written in the head at all.
fn head(field: &str, out: &mut String) {
    for c in field.chars().take(MAX_VALUE) {
        match c {
            '|' | '\\' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => safe(c, out),
        }
    }
}

fn value(words: &str, max: usize, out: &mut String) {
    for c in words.chars().take(max) {
        match c {
            '=' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => safe(c, out),
        }
    }
}

fn safe(c: char, out: &mut String) {
    if text::is_unprintable(c) {
        out.push('\\');
    }
    text::push_char(out, c);
}

struct Pairs<'a> {
    out: &'a mut String,
    first: bool,
}

impl Pairs<'_> {
    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(' ');
        }
        self.out.push_str(key);
        self.out.push('=');
    }

    fn text(&mut self, key: &str, words: Option<&str>) {
        let Some(words) = words.filter(|words| !words.is_empty()) else { return };
        self.key(key);
        value(words, MAX_VALUE, self.out);
    }

    fn number(&mut self, key: &str, number: Option<u64>) {
        let Some(number) = number else { return };
        self.key(key);
        let _ = write!(self.out, "{number}");
    }

    /// A custom string or number with its label: `cs1`, `cn2`.
    fn custom(&mut self, key: &str, label: &str, words: Option<&str>) {
        let Some(words) = words.filter(|words| !words.is_empty()) else { return };
        self.key(key);
        value(words, MAX_CUSTOM, self.out);
        self.key(&format!("{key}Label"));
        self.out.push_str(label);
    }

    fn address(&mut self, v4: &str, v6: &str, label: &str, address: Option<&str>) {
        match address.map(str::parse::<IpAddr>) {
            Some(Ok(IpAddr::V4(address))) => self.text(v4, Some(&address.to_string())),
            Some(Ok(IpAddr::V6(address))) => self.custom(v6, label, Some(&address.to_string())),
            Some(Err(_)) | None => {}
        }
    }

    fn source(&mut self, address: Option<&str>) {
        self.address("src", "c6a2", "Source IPv6 Address", address);
    }

    fn common(&mut self, told: &Told) {
        self.number("rt", Some(told.time_ms));
        self.text("act", Some(told.activity()));
        self.number("cnt", told.number("/count"));
        self.text("externalId", Some(told.id()));
        self.text("dvchost", told.node());
        self.text("msg", Some(told.message()));
        self.custom_number("cn1", "risk", told.number("/risk_score"));
        self.custom_number("cn3", "sequence", told.number("/metadata/sequence"));
        let techniques = told.techniques().collect::<Vec<_>>().join(",");
        self.custom("cs5", "attackTechniques", Some(&techniques));
    }

    fn custom_number(&mut self, key: &str, label: &str, number: Option<u64>) {
        self.custom(key, label, number.map(|n| n.to_string()).as_deref());
    }

    fn alert(&mut self, told: &Told) {
        self.number("start", told.number("/finding_info/first_seen_time"));
        self.number("end", told.number("/finding_info/last_seen_time"));
        self.source(told.address());
        self.number("spt", told.number("/evidences/0/src_endpoint/port"));
        let server = told.text("/evidences/0/dst_endpoint/ip");
        self.address("dst", "c6a3", "Destination IPv6 Address", server);
        self.number("dpt", told.number("/evidences/0/dst_endpoint/port"));
        self.text("dhost", told.text("/evidences/0/http_request/url/domain"));
        self.text("destinationServiceName", told.workload());
        self.text("suser", told.principal_name().as_deref());
        self.text("request", told.text("/evidences/0/http_request/url/path"));
        let route = told.text("/evidences/0/api/operation");
        self.text("requestMethod", route.and_then(|route| route.split(' ').next()));
        self.text("requestClientApplication", told.text("/evidences/0/http_request/user_agent"));
        let status = told.number("/evidences/0/http_response/code");
        self.text(
            "outcome",
            status.map(|code| if (200..300).contains(&code) { "success" } else { "failure" }),
        );
        self.custom_number("cn2", "httpStatus", status);
        self.text("reason", told.text("/finding_info/desc"));
        self.custom("cs1", "tokenFingerprint", told.token());
        self.custom("cs2", "route", route);
        self.custom("cs3", "incident", told.text("/metadata/correlation_uid"));
        self.custom("cs4", "issuer", told.text("/evidences/0/actor/session/issuer"));
        let facts: serde_json::Map<_, _> =
            ecs::facts(told).map(|(name, value)| (name.to_owned(), value.clone())).collect();
        let facts = (!facts.is_empty()).then(|| serde_json::Value::Object(facts).to_string());
        self.custom("cs6", "facts", facts.as_deref());
    }

    fn incident(&mut self, told: &Told) {
        let joined = |items: Vec<&str>| items.join(", ");
        self.number("start", told.number("/start_time"));
        self.number("end", told.number("/end_time"));
        self.source(told.observables(ADDRESS).next());
        self.text("suser", Some(&joined(told.observables(USER).collect())));
        self.text("reason", Some(told.title()));
        self.custom_number("cn2", "accepted", told.number("/unmapped/accepted"));
        self.custom("cs1", "tokenFingerprint", Some(&joined(told.observables(TOKEN).collect())));
        self.custom("cs2", "routes", Some(&joined(told.texts("/unmapped/routes").collect())));
        self.custom("cs3", "incident", Some(told.id()));
        self.custom("cs4", "services", Some(&joined(told.texts("/unmapped/services").collect())));
        self.custom("cs6", "rules", Some(&joined(told.texts("/unmapped/rules").collect())));
    }
}

#[cfg(test)]
pub(crate) mod reader {
    //! Reads CEF back, by the rules of the format and not by the code above.

    use std::collections::BTreeMap;

    /// The seven fields of the head, and the pairs.
    pub(crate) fn read(line: &str) -> Option<(Vec<String>, BTreeMap<String, String>)> {
        let mut rest = line.strip_prefix("CEF:")?.chars().peekable();
        let mut head = vec![String::new()];
        while head.len() < 8 {
            match rest.next()? {
                '\\' => head.last_mut()?.push(rest.next().filter(|c| matches!(c, '|' | '\\'))?),
                '|' => head.push(String::new()),
                c => head.last_mut()?.push(c),
            }
        }
        head.pop();
        let extension: String = rest.collect();
        Some((head, pairs(&extension)?))
    }

    fn pairs(extension: &str) -> Option<BTreeMap<String, String>> {
        let chars: Vec<char> = extension.chars().collect();
        // An equals sign that no backslash guards ends a key, which begins behind the last blank before it.
        let (mut at, mut equals) = (0, Vec::new());
        while at < chars.len() {
            match chars[at] {
                '\\' => at += 1,
                '=' => equals.push(at),
                _ => {}
            }
            at += 1;
        }
        let begin = |sign: usize| chars[..sign].iter().rposition(|c| *c == ' ').map_or(0, |blank| blank + 1);
        let mut all = BTreeMap::new();
        for (number, sign) in equals.iter().enumerate() {
            let end = equals.get(number + 1).map_or(chars.len(), |next| begin(*next).saturating_sub(1));
            let key: String = chars[begin(*sign)..*sign].iter().collect();
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric()) {
                return None;
            }
            if all.insert(key, unescape(&chars[*sign + 1..end])?).is_some() {
                return None;
            }
        }
        Some(all)
    }

    fn unescape(chars: &[char]) -> Option<String> {
        let (mut out, mut rest) = (String::new(), chars.iter());
        while let Some(c) = rest.next() {
            out.push(match c {
                '\\' => match rest.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    c @ ('\\' | '=') => *c,
                    _ => return None,
                },
                c => *c,
            });
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Event;
    use crate::alert::staging::{alert, event, incident};
    use crate::render::Node;

    fn cef(event: &Event) -> String {
        let mut out = String::new();
        line(&Told::of(event, Some(3), Some(&Node::named("node-1"))), &mut out);
        assert_eq!(out.pop(), Some('\n'));
        out
    }

    #[test]
    fn an_alert_has_head_and_pairs() {
        let said = cef(&event());
        let head = concat!(
            "CEF:0|Tokenscope|Tokenscope|",
            env!("CARGO_PKG_VERSION"),
            "|alg-none|Token without a signature|10|rt=1795284245123 "
        );
        assert!(said.starts_with(head), "{said}");
        let (_, pairs) = reader::read(&said).unwrap();
        for (key, value) in [
            ("act", "create"),
            ("cnt", "1"),
            ("src", "10.0.3.7"),
            ("spt", "50000"),
            ("dst", "10.0.0.1"),
            ("dpt", "8080"),
            ("suser", "alice@idp"),
            ("request", "/orders/7"),
            ("requestMethod", "GET"),
            ("outcome", "success"),
            ("cn2", "200"),
            ("cn3Label", "sequence"),
            ("cs2", "GET /orders/{id}"),
            ("cs5", "T1606"),
            ("dvchost", "node-1"),
        ] {
            assert_eq!(pairs.get(key).map(String::as_str), Some(value), "{key} in {said}");
        }
    }

    #[test]
    fn ipv6_has_keys_of_its_own() {
        let mut alert = alert();
        alert.finding.scene.as_mut().unwrap().client = "2001:db8::7".parse().unwrap();
        let (_, pairs) = reader::read(&cef(&Event::Alert(Box::new(alert)))).unwrap();
        assert_eq!(pairs["c6a2"], "2001:db8::7");
        assert!(!pairs.contains_key("src"));
    }

    #[test]
    fn an_incident_names_who_and_what() {
        let (head, pairs) = reader::read(&cef(&Event::Incident(Box::new(incident())))).unwrap();
        assert_eq!((head[4].as_str(), head[6].as_str()), ("incident", "8"));
        assert_eq!(pairs["suser"], "alice");
        assert_eq!(pairs["cs2"], "GET /orders/{id}, GET /invoices/{id}");
        assert_eq!(pairs["externalId"], pairs["cs3"]);
    }
}
