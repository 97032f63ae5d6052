//! `token-in-url`: a token where logs, histories and other sites see it.

use std::sync::Arc;

use crate::detect::cause::cause;
use crate::detect::remarks::{Remarks, TOKEN_AGAIN};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, DetectSettings, Finding, Known, Marks, Memory, Needs, Report, Rule, Severity, scene,
};
use crate::token::jose::begins_like_object;
use crate::token::{Carrier, Form, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "token-in-url",
    title: "Token in a URL",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1552"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a query parameter carries an access token, and when a `Referer` does: then another site's URL \
had it.\n\nURLs are written into access logs, browser histories, bookmarks and the `Referer` of the next page; \
whoever reads one of them is the user (RFC 6750 section 5.3). Told once an hour for each token, service and route.\n\nCounted \
are `access_token` with anything in it, and other parameters (`token`) only if the token is a verified one of a \
configured issuer, or was seen in a header as well: one-time tokens of confirmation links and page tokens are \
benign. Browsers cannot set headers on WebSockets, so that some services take tokens there on purpose; a short-lived \
ticket is the remedy. Tokens that are forged are left to their rules.",
    cooling_s: 600,
    thresholds: &[TOKEN_AGAIN],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(TokenInUrl {
        again_s: settings.count(&ABOUT, "again_s"),
        memory: (Marks::default(), Remarks::default()),
    })
}

struct TokenInUrl {
    again_s: u32,
    /// Tokens that were seen in a header, while some service takes tokens in URLs: 4 bytes each.
    memory: (Marks, Remarks),
}

impl TokenInUrl {
    /// Whether what a parameter carries is an access token beyond doubt.
    fn is_access_token(&self, case: &Case<'_>, held: &TokenUse, name: &str) -> bool {
        let token = &*held.token;
        if name == "access_token" {
            return true;
        }
        let known = case.who.token(token.fingerprint);
        known.is_some_and(|known| self.memory.0.has(known.slot))
            || (token.form == Form::Jws && token.is_verified())
    }
}

impl Rule for TokenInUrl {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let at_s = case.second();
        for held in case.tokens {
            let Carrier::Query(name) = &held.carrier else {
                if let Some(known) = case.who.token(held.token.fingerprint).filter(Known::is_new) {
                    self.memory.0.set(known.slot);
                }
                continue;
            };
            if cause(&held.token).is_some() || !self.is_access_token(case, held, name) {
                continue;
            }
            let name = (case.exchange.endpoints.server, &*case.route.name, held.token.fingerprint);
            if self.memory.1.is_news(&name, at_s, self.again_s) {
                let subject = Subject::new(case, held);
                report.push(in_query(&subject).into_finding(&ABOUT, &subject));
            }
        }
        // Asked again for a late verdict, the exchange has told already.
        if let Some(referer) = case.exchange.request.value("referer")
            && holds_token(referer)
            && self.memory.1.is_news(
                &(case.exchange.endpoints.server, case.who.address.slot),
                at_s,
                self.again_s,
            )
        {
            report.push(in_referer(case));
        }
    }
}

fn in_query(subject: &Subject<'_>) -> Statement {
    Statement {
        severity: ABOUT.severity,
        confidence: if subject.token.is_verified() { 95 } else { 75 },
        message: format!("A token in the URL {}; logs and browsers keep URLs.", subject.told()),
        brief: "token in the query".to_owned(),
        facts: Vec::new(),
    }
}

fn in_referer(case: &Case<'_>) -> Finding {
    Finding {
        rule: &ABOUT,
        at: case.exchange.ended_at,
        severity: ABOUT.severity,
        confidence: 85,
        principal: None,
        token: None,
        group: None,
        message: format!(
            "The Referer of a request to {} holds a token: the page before had it in its URL.",
            case.route.name
        ),
        brief: "token in the Referer".to_owned(),
        facts: vec![("carrier", "referer".into())],
        scene: Some(Box::new(scene::of(case))),
    }
}

/// Whether a URL's query carries a token that names itself: `access_token`, or a JWT in any parameter called so.
fn holds_token(url: &[u8]) -> bool {
    let Some(query) = memchr::memchr(b'?', url).and_then(|at| url.get(at + 1..)) else { return false };
    query.split(|b| matches!(b, b'&' | b'#')).any(|pair| {
        let Some(equals) = memchr::memchr(b'=', pair) else { return false };
        let (name, value) = pair.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        match name {
            b"access_token" => value.len() >= 16,
            b"token" | b"id_token" | b"jwt" | b"auth" => {
                begins_like_object(value) && memchr::memchr_iter(b'.', value).count() == 2
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Who;
    use crate::detect::roster::Roster;
    use crate::detect::staging::{Stage, token, uses};
    use crate::token::{Signature, Token, Unchecked};

    struct Asked {
        rule: Box<dyn Rule>,
        roster: Roster,
    }

    impl Asked {
        fn new() -> Self {
            Self { rule: rule(&Arc::default()), roster: Roster::new(&DetectSettings::default()) }
        }

        fn ask(&mut self, stage: &Stage, token: Token, carrier: Carrier) -> usize {
            let mut held = uses([token]);
            held[0].carrier = carrier;
            let mut who = Who::default();
            self.roster.see(&stage.exchange, &held, &crate::detect::Route::default(), 0, &mut who);
            stage.ask_as(&mut *self.rule, &held, &who, &crate::detect::Knowledge::default()).len()
        }
    }

    fn query(name: &str) -> Carrier {
        Carrier::Query(name.into())
    }

    fn opaque(number: u64) -> Token {
        Token {
            form: Form::Opaque,
            signature: Signature::Unchecked(Unchecked::Unreadable),
            policy: None,
            ..token(number)
        }
    }

    #[test]
    fn access_tokens_in_a_query_are_told_once_an_hour() {
        let mut asked = Asked::new();
        let stage = Stage::new().status(200);
        assert_eq!(asked.ask(&stage, token(1), query("token")), 1);
        assert_eq!(asked.ask(&stage, token(1), query("token")), 0);
        assert_eq!(asked.ask(&stage.clone().after_ms(3_600_000), token(1), query("token")), 1);
        assert_eq!(asked.ask(&Stage::to("GET", "/other"), opaque(4), query("access_token")), 1);
        let saved = asked.rule.memory().unwrap().save().unwrap();
        let mut fresh = Asked::new();
        fresh.rule.memory().unwrap().load(&saved).unwrap();
        assert_eq!(fresh.ask(&stage.after_ms(3_600_001), token(1), query("token")), 0);
    }

    #[test]
    fn tokens_of_links_and_pages_are_benign() {
        let stage = Stage::new().status(200);
        let mut asked = Asked::new();
        assert_eq!(asked.ask(&stage, opaque(1), query("token")), 0);
        let unknown =
            Token { signature: Signature::Unchecked(Unchecked::NoIssuer), policy: None, ..token(2) };
        assert_eq!(asked.ask(&stage, unknown, query("token")), 0);
        assert_eq!(asked.ask(&stage, token(3), Carrier::Authorization), 0);
    }

    #[test]
    fn a_token_that_headers_carry_as_well_is_an_access_token() {
        let mut asked = Asked::new();
        assert_eq!(asked.ask(&Stage::new().status(200), opaque(1), Carrier::Authorization), 0);
        assert_eq!(asked.ask(&Stage::new().status(200), opaque(1), query("token")), 1);
    }

    #[test]
    fn forged_tokens_are_left_to_their_rules() {
        let forged = Token { signature: Signature::Invalid, ..token(1) };
        assert_eq!(Asked::new().ask(&Stage::new(), forged, query("access_token")), 0);
    }

    #[test]
    fn a_referer_with_a_token_is_told() {
        const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln";
        for (url, found) in [
            (format!("https://shop.example/?token={JWT}"), 1),
            ("https://shop.example/cb?x=1&access_token=0123456789abcdef".to_owned(), 1),
            ("https://shop.example/list?token=CAUQAA".to_owned(), 0),
            ("https://shop.example/list?q=access_token".to_owned(), 0),
            (format!("https://shop.example/{JWT}"), 0),
        ] {
            let stage = Stage::new().status(200).header("Referer", &url);
            assert_eq!(stage.ask(&mut *rule(&Arc::default()), []).len(), found, "{url}");
        }
    }
}
