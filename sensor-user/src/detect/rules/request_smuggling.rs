//! `request-smuggling`: a request that two parsers may end in different places, or take for somebody else's.

use std::sync::Arc;

use crate::detect::statement::Statement;
use crate::detect::{About, Case, DetectSettings, Needs, Report, Rule, Severity, When};
use crate::http::{Exchange, Suspicions};
use crate::token::facts::Flaws;
use crate::token::{Carrier, Form, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "request-smuggling",
    title: "A request that two parsers read differently",
    version: "1.1.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1190"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires on requests whose end is a matter of opinion (RFC 9112 sections 6.3 and 11.2). Both `Content-Length` \
and `Transfer-Encoding`, several lengths, a length that is no number, an encoding that is not exactly `chunked`, a \
broken chunk size, or two versions of the same TCP bytes are medium, and high when the server answered 2xx or 3xx, \
that is, took it. A chunked HTTP/1.0 request, and a field name with white space or bytes that no name has, are \
medium. A folded header or a bare CR, LF or NUL alone are low: old clients send them.\n\nFires too where readers may \
differ on who asks. Two different tokens in `Authorization`, in one header for tokens, or in one parameter are \
medium; an `Authorization` that is not one scheme and one token, or several of them, is low. A login body that names \
two accounts (`username` twice, or a batch) is low, and medium when it succeeds: the limit on failures counts one \
account, the application tries the other.\n\nWhere a proxy and the server behind it disagree on where a request ends, \
the rest becomes somebody else's next request.\n\nBenign sources: home-made clients. Legal traffic has none of it: \
equal lengths in two headers count for nothing, nor does one token twice, nor do two cookies of one name, which \
browsers send for several paths. It does not see what a proxy has repaired before it reached the host, nor anything \
in HTTP/2.",
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
        let others = [credentials(case), accounts(case.exchange)];
        if suspicions.is_empty() && others.iter().all(Option::is_none) {
            return;
        }
        let taken = case.exchange.status().is_some_and(|status| (200..400).contains(&status));
        let framing = KINDS.iter().filter(|(kind, ..)| suspicions.contains(*kind));
        let framing =
            framing.map(|(_, word, tried, accepted)| (*word, if taken { *accepted } else { *tried }));
        let found: Vec<(&str, Severity)> = framing.chain(others.into_iter().flatten()).collect();
        let Some(severity) = found.iter().map(|(_, severity)| *severity).max() else { return };
        let words: Vec<&str> = found.iter().map(|(word, _)| *word).collect();
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

/// What is ambiguous about the credentials of a request.
fn credentials(case: &Case<'_>) -> Option<(&'static str, Severity)> {
    let ambiguous = |held: &&TokenUse| held.token.flaws.intersects(Flaws::AMBIGUOUS_CARRIER);
    let first = case.all.iter().find(ambiguous)?;
    // Two of one place follow one another or not: there are eight at most.
    let singular = |held: &TokenUse| match held.carrier {
        Carrier::Authorization | Carrier::Header(_) => true,
        Carrier::Query(_) => held.token.form != Form::Opaque,
        Carrier::Cookie(_) => false,
    };
    let differs = |one: &TokenUse, other: &TokenUse| {
        one.carrier == other.carrier && one.token.fingerprint != other.token.fingerprint && singular(other)
    };
    let two = case.all.iter().any(|one| singular(one) && case.all.iter().any(|other| differs(one, other)));
    if two {
        return Some(("two tokens where one belongs", Severity::Medium));
    }
    let plain = matches!(first.carrier, Carrier::Cookie(_) | Carrier::Query(_));
    (!plain).then_some(("a credential that is not one scheme and one token", Severity::Low))
}

/// What is ambiguous about the account that a login names.
fn accounts(exchange: &Exchange) -> Option<(&'static str, Severity)> {
    let severity = if exchange.is_success() { Severity::Medium } else { Severity::Low };
    exchange.body.as_ref()?.ambiguous.then_some(("two accounts where one belongs", severity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};
    use crate::detect::{Knowledge, RouteKind, Who};

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

    fn told(carriers: &[(u64, Carrier)], flaws: Flaws) -> Option<(Severity, String)> {
        let held: Vec<TokenUse> = carriers
            .iter()
            .map(|(number, carrier)| {
                let token = crate::token::Token { flaws, ..token(*number) };
                TokenUse { token: Arc::new(token), carrier: carrier.clone() }
            })
            .collect();
        let stage = Stage::new().status(200);
        let found = stage.ask_as(&mut *rule(&Arc::default()), &held, &Who::default(), &Knowledge::default());
        found.first().map(|f| (f.severity, f.brief.clone()))
    }

    #[test]
    fn two_tokens_in_one_place_are_told_and_two_places_are_not() {
        use Carrier::{Authorization, Cookie, Header, Query};
        let two = "ambiguous request: two tokens where one belongs".to_owned();
        for place in [Authorization, Header("x-auth-token".into()), Query("token".into())] {
            let both = [(1, place.clone()), (2, place.clone())];
            assert_eq!(told(&both, Flaws::AMBIGUOUS_CARRIER), Some((Severity::Medium, two.clone())));
            assert_eq!(told(&[(1, place), (2, Cookie("jwt".into()))], Flaws::default()), None);
        }
        let hidden = [(1, Authorization), (2, Cookie("jwt".into())), (3, Authorization)];
        assert_eq!(told(&hidden, Flaws::AMBIGUOUS_CARRIER).unwrap().0, Severity::Medium);
        let odd = told(&[(1, Authorization), (2, Cookie("jwt".into()))], Flaws::AMBIGUOUS_CARRIER).unwrap();
        assert_eq!(odd.0, Severity::Low);
        assert_eq!(told(&[(1, Cookie("a".into())), (2, Cookie("a".into()))], Flaws::AMBIGUOUS_CARRIER), None);
    }

    #[test]
    fn a_login_of_two_accounts_is_worse_when_it_succeeds() {
        let severity = |status, ambiguous| {
            let mut stage = Stage::to("POST", "/login").kind(RouteKind::Login).status(status).account("bob");
            stage.exchange.body.get_or_insert_default().ambiguous = ambiguous;
            stage.ask(&mut *rule(&Arc::default()), []).first().map(|f| f.severity)
        };
        assert_eq!([severity(401, true), severity(200, true)], [Some(Severity::Low), Some(Severity::Medium)]);
        assert_eq!([severity(401, false), severity(200, false)], [None; 2]);
    }

    #[test]
    fn the_detector_asks_about_what_two_readers_read_differently() {
        let asked = |stage: &Stage, flaws| {
            let held = [1, 2].map(|number| {
                let token = crate::token::Token { flaws, ..token(number) };
                TokenUse { token: Arc::new(token), carrier: Carrier::Authorization }
            });
            let mut detector = crate::detect::Detector::new(DetectSettings::default());
            let mut found = Vec::new();
            detector.judge(&stage.exchange, &held, stage.exchange.ended_at, &mut found);
            found.iter().any(|finding| finding.rule.id == ABOUT.id)
        };
        let plain = Stage::new().status(200);
        assert!(asked(&plain, Flaws::AMBIGUOUS_CARRIER) && !asked(&plain, Flaws::default()));
        let mut login = Stage::to("POST", "/login").status(200).account("bob");
        assert!(!asked(&login, Flaws::default()));
        login.exchange.body.get_or_insert_default().ambiguous = true;
        assert!(asked(&login, Flaws::default()));
    }

    #[test]
    fn every_suspicion_has_a_severity() {
        for bit in 0..10 {
            assert!(severity(Suspicions(1 << bit), 200).is_some(), "{bit}");
        }
    }
}
