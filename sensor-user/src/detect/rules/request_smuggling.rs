//! `request-smuggling`: a request that two parsers may end in different places.

use std::sync::Arc;

use crate::detect::statement::Statement;
use crate::detect::{About, Case, DetectSettings, Needs, Report, Rule, Severity, When};
use crate::http::Suspicions;

/// The card.
pub static ABOUT: About = About {
    id: "request-smuggling",
    title: "A request that two parsers read differently",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1190"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires on requests whose end is a matter of opinion (RFC 9112 sections 6.3 and 11.2). Both `Content-Length` and \
`Transfer-Encoding`, several lengths, a length that is no number, an encoding that is not exactly `chunked`, a broken \
chunk size, or two versions of the same TCP bytes are medium, and high when the server answered 2xx or 3xx, that is, \
took it. A chunked HTTP/1.0 request, and a field name with white space or bytes that no name has, are medium. A folded \
header or a bare CR, LF or NUL alone are low: old clients send them.\n\nWhere a proxy and the server behind it disagree on \
where a request ends, the rest becomes somebody else's next request.\n\nBenign sources: home-made clients. Legal traffic \
has none of it: equal lengths in two headers count for nothing. It does not see what a proxy has repaired before it \
reached the host, nor anything in HTTP/2.",
    cooling_s: 600,
    thresholds: &[],
};

/// Every suspicion, its words, and its severity when it is tried and when it is taken.
const KINDS: [(Suspicions, &str, Severity, Severity); 10] = [
    (Suspicions::LENGTH_AND_CHUNKED, "length and chunked coding", Severity::Medium, Severity::High),
    (Suspicions::DUPLICATE_LENGTH, "several lengths", Severity::Medium, Severity::High),
    (Suspicions::BAD_LENGTH, "a length that is no number", Severity::Medium, Severity::High),
    (Suspicions::BAD_ENCODING, "an odd transfer encoding", Severity::Medium, Severity::High),
    (Suspicions::BAD_CHUNK, "a broken chunk size", Severity::Medium, Severity::High),
    (Suspicions::CONFLICTING_SEGMENTS, "two versions of the same bytes", Severity::Medium, Severity::High),
    (Suspicions::CHUNKED_IN_HTTP10, "chunked coding in HTTP/1.0", Severity::Medium, Severity::Medium),
    (Suspicions::BAD_FIELD_NAME, "a malformed field name", Severity::Medium, Severity::Medium),
    (Suspicions::BARE_CONTROL, "a bare control character", Severity::Low, Severity::Low),
    (Suspicions::FOLDED_HEADER, "a folded header", Severity::Low, Severity::Low),
];

pub(super) fn rule(_settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(RequestSmuggling)
}

struct RequestSmuggling;

impl Rule for RequestSmuggling {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::ODD
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let suspicions = case.exchange.suspicions;
        if suspicions.is_empty() {
            return;
        }
        let taken = case.exchange.status().is_some_and(|status| (200..400).contains(&status));
        let found = || KINDS.iter().filter(|(kind, ..)| suspicions.contains(*kind));
        let severity = found().map(|(_, _, tried, accepted)| if taken { *accepted } else { *tried }).max();
        let Some(severity) = severity else { return };
        let words: Vec<&str> = found().map(|(_, word, ..)| *word).collect();
        let told = words.join(", ");
        let answer = match case.exchange.status() {
            Some(status) => format!("was answered {status}"),
            None => "was not answered".to_owned(),
        };
        let statement = Statement {
            severity,
            confidence: if severity > Severity::Low { 85 } else { 50 },
            message: format!(
                "A request to {} can be read in two ways: it has {told}. It {answer}.",
                case.route.name
            ),
            brief: format!("ambiguous request: {}", words.first().copied().unwrap_or_default()),
            facts: vec![("ambiguities", words.into()), ("taken", taken.into())],
        };
        report.push(statement.into_address_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;

    fn severity(suspicions: Suspicions, status: u16) -> Option<Severity> {
        let mut stage = Stage::to("POST", "/orders").status(status);
        stage.exchange.suspicions = suspicions;
        stage.ask(&mut *rule(&Arc::default()), []).first().map(|f| f.severity)
    }

    #[test]
    fn a_request_like_any_other_is_nothing() {
        assert_eq!(severity(Suspicions::default(), 200), None);
    }

    #[test]
    fn framing_that_is_taken_is_worse_than_framing_that_is_refused() {
        let framing = [
            Suspicions::LENGTH_AND_CHUNKED,
            Suspicions::DUPLICATE_LENGTH,
            Suspicions::BAD_LENGTH,
            Suspicions::BAD_ENCODING,
            Suspicions::BAD_CHUNK,
            Suspicions::CONFLICTING_SEGMENTS,
        ];
        for kind in framing {
            assert_eq!(severity(kind, 400), Some(Severity::Medium));
            assert_eq!(severity(kind, 200), Some(Severity::High));
        }
    }

    #[test]
    fn bad_manners_alone_are_low() {
        for kind in [Suspicions::BARE_CONTROL, Suspicions::FOLDED_HEADER] {
            assert_eq!(severity(kind, 200), Some(Severity::Low));
        }
        let mut both = Suspicions::FOLDED_HEADER;
        both.insert(Suspicions::LENGTH_AND_CHUNKED);
        assert_eq!(severity(both, 200), Some(Severity::High));
    }

    #[test]
    fn every_suspicion_has_a_severity() {
        for bit in 0..10 {
            assert!(severity(Suspicions(1 << bit), 200).is_some(), "{bit}");
        }
    }
}
