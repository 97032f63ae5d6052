//! `forged-token-accepted`: a token that every correct verifier refuses was answered 2xx where strangers are refused.

use std::sync::Arc;

use std::collections::VecDeque;
use std::time::Duration;

use crate::detect::cause::{Refusal, must_refuse};
use crate::detect::statement::{Outcome, Statement, Subject};
use crate::detect::{
    About, Case, DetectSettings, Finding, Guard, Needs, Report, Rule, Severity, Threshold, When,
};
use crate::http::Exchange;
use crate::token::facts::Flaws;
use crate::token::{Carrier, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "forged-token-accepted",
    title: "Token that must be refused was accepted",
    version: "1.0.0",
    severity: Severity::Critical,
    accepted: None,
    attack: &["T1606", "T1550.001"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a token that every correct verifier refuses (unsigned, not signed by its issuer, expired \
or not yet valid by more than the leeway) was answered 2xx on a route that is known to refuse callers without a \
good token.\n\nIt compares three sources of truth, the token, the issuer's keys and the application's answer, \
and needs no threshold: the application is broken, and somebody is inside.\n\nA route whose guard is not known \
yet is remembered: when it is later seen to refuse a stranger within an hour, the acceptance is told then. \
Never on routes that answer strangers, nor on login, token, public and health routes; never when another \
credential of the request may be what was accepted. With a cookie beside the token, an old token is not judged \
(the session may be what counts), and a forged one with less confidence. There is no benign source.",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "leeway_s",
        default: 300.0,
        min: 0.0,
        max: 86_400.0,
        doc: "Seconds after `exp` or before `nbf` that some correct verifier may forgive.",
    }],
};

/// Acceptances remembered in all, and of one route: each holds a drawn scene, about 1 KiB. The first few of a route
/// say all that matters; a scan of many routes must not push them out.
const MAX_REMEMBERED: usize = 256;
const MAX_OF_ROUTE: usize = 4;

/// How long an acceptance waits for its route's guard to become known.
const PATIENCE: Duration = Duration::from_hours(1);

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    let leeway_s = i64::from(settings.count(&ABOUT, "leeway_s"));
    Box::new(ForgedTokenAccepted { leeway_s, remembered: VecDeque::new() })
}

struct ForgedTokenAccepted {
    leeway_s: i64,
    /// Oldest first; at most [`MAX_REMEMBERED`].
    remembered: VecDeque<Remembered>,
}

/// An acceptance on a route whose guard was not known. Routes are told apart by the identity of their name.
struct Remembered {
    route: Arc<str>,
    finding: Finding,
}

impl ForgedTokenAccepted {
    fn finding(&self, case: &Case<'_>, held: &TokenUse) -> Option<Finding> {
        let refusal = must_refuse(&held.token, case.exchange.at, self.leeway_s)?;
        let subject = Subject::new(case, held);
        let beside_cookie = has_other_cookie(case.exchange, &held.carrier);
        if subject.outcome() != Outcome::Accepted || (beside_cookie && !refusal.is_forgery()) {
            return None;
        }
        let statement = Statement {
            severity: ABOUT.severity,
            confidence: if beside_cookie { 70 } else { 98 },
            message: format!(
                "A token that every correct verifier refuses ({}) {}, although the route refuses strangers.",
                refusal.as_str(),
                subject.told()
            ),
            brief: brief(refusal, held),
            facts: vec![("refusal", refusal.as_str().into())],
        };
        Some(statement.into_finding(&ABOUT, &subject))
    }

    fn remember(&mut self, route: &Arc<str>, finding: Finding) {
        let of_route = self.remembered.iter().filter(|r| Arc::ptr_eq(&r.route, route)).count();
        if of_route >= MAX_OF_ROUTE {
            return;
        }
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(Remembered { route: Arc::clone(route), finding });
    }

    /// Tells what was remembered of a route that is now known to refuse strangers.
    fn recall(&mut self, case: &Case<'_>, report: &mut Report) {
        if self.remembered.is_empty() || case.route.guard == Guard::Unknown {
            return;
        }
        let (of_route, others): (VecDeque<_>, VecDeque<_>) =
            self.remembered.drain(..).partition(|r| Arc::ptr_eq(&r.route, &case.route.name));
        self.remembered = others;
        if case.route.guard == Guard::Refuses {
            let fresh = |r: &Remembered| case.exchange.ended_at.since(r.finding.at) <= PATIENCE;
            report.extend(of_route.into_iter().filter(fresh).map(|r| r.finding));
        }
    }
}

fn brief(refusal: Refusal, held: &TokenUse) -> String {
    let alg = crate::detect::statement::show(held.token.alg.as_deref().unwrap_or_default());
    match refusal {
        Refusal::Unsigned if held.token.flaws.intersects(Flaws::ALG_NONE) => {
            format!("alg \"{alg}\" accepted")
        }
        Refusal::Unsigned => "unsigned token accepted".to_owned(),
        Refusal::Forged => format!("forged {alg} token accepted"),
        Refusal::Expired => "expired token accepted".to_owned(),
        Refusal::NotYetValid => "token not yet valid accepted".to_owned(),
    }
}

/// Whether a cookie that is not this token came along: a session that we cannot judge.
fn has_other_cookie(exchange: &Exchange, carrier: &Carrier) -> bool {
    let Some(cookies) = exchange.request.value("cookie") else { return false };
    match carrier {
        Carrier::Cookie(_) => memchr::memchr(b';', cookies).is_some(),
        _ => true,
    }
}

impl Rule for ForgedTokenAccepted {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        self.recall(case, report);
        if !case.exchange.is_success() {
            return;
        }
        for held in case.tokens {
            let Some(finding) = self.finding(case, held) else { continue };
            if case.route.guard == Guard::Refuses {
                report.push(finding);
            } else {
                self.remember(&case.route.name, finding);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{NOW_S, Stage, policy, token};
    use crate::token::facts::Proof;
    use crate::token::{Form, Policy, Signature, Token, Unchecked};

    fn unsigned(number: u64) -> Token {
        Token {
            flaws: Flaws::ALG_NONE,
            signature: Signature::Absent,
            ..token(number).of_profile(|p| p.alg = Some("none".into()))
        }
    }

    fn ask(stage: &Stage, tokens: impl IntoIterator<Item = Token>) -> Vec<Finding> {
        stage.ask(&mut *rule(&Arc::default()), tokens)
    }

    fn guarded() -> Stage {
        Stage::new().status(200).guard(Guard::Refuses)
    }

    #[test]
    fn fires_where_strangers_are_refused() {
        let now = i64::try_from(NOW_S).unwrap();
        let other_kind = Token {
            signature: Signature::Invalid,
            policy: Some(Policy { algorithm_ok: false, ..policy() }),
            ..token(1).with_extras(|e| e.proof = Some(Proof::OtherKindOfKey))
        };
        for token in [
            unsigned(1),
            other_kind,
            Token { signature: Signature::Invalid, ..token(1) },
            Token { expires: Some(now - 301).into(), ..token(1) },
            Token { not_before: Some(now + 301).into(), ..token(1) },
        ] {
            let found = ask(&guarded(), [token]);
            assert_eq!((found.len(), found[0].severity), (1, Severity::Critical));
        }
        assert_eq!(ask(&guarded(), [unsigned(1)])[0].brief, "alg \"none\" accepted");
    }

    #[test]
    fn never_fires_on_what_some_verifier_may_take() {
        let now = i64::try_from(NOW_S).unwrap();
        for token in [
            token(1),
            Token { expires: Some(now - 299).into(), ..token(1) },
            Token { policy: None, signature: Signature::Unchecked(Unchecked::NoIssuer), ..token(1) },
            Token { policy: Some(Policy { audience_ok: false, ..policy() }), ..token(1) },
            Token { form: Form::Opaque, signature: Signature::Unchecked(Unchecked::Unreadable), ..token(1) },
            token(1).with_extras(|e| e.proof = Some(Proof::WeakSecret(1))),
        ] {
            assert!(ask(&guarded(), [token]).is_empty());
        }
    }

    #[test]
    fn never_fires_where_a_2xx_proves_nothing() {
        for stage in [
            guarded().guard(Guard::Open),
            guarded().kind(RouteKind::Login),
            guarded().kind(RouteKind::Public),
            guarded().kind(RouteKind::Health),
            guarded().status(401),
            guarded().status(302),
        ] {
            assert!(ask(&stage, [unsigned(1)]).is_empty());
        }
    }

    #[test]
    fn another_credential_may_be_what_was_accepted() {
        assert!(ask(&guarded(), [unsigned(1), token(2)]).is_empty());
        assert_eq!(ask(&guarded(), [unsigned(1), unsigned(2)]).len(), 2);
        let with_session = guarded().header("Cookie", "session=1");
        assert_eq!(ask(&with_session, [unsigned(1)])[0].confidence, 70);
        let old = Token { expires: Some(1).into(), ..token(1) };
        assert!(ask(&with_session, [old]).is_empty());
    }

    #[test]
    fn remembers_until_the_guard_is_known() {
        let mut rule = rule(&Arc::default());
        let unknown = Stage::new().status(200);
        for number in 0..10 {
            assert!(unknown.ask(&mut *rule, [unsigned(number)]).is_empty());
        }
        let elsewhere = Stage::to("GET", "/other").status(401).guard(Guard::Refuses);
        assert!(elsewhere.ask(&mut *rule, []).is_empty());
        let refused = unknown.clone().status(401).guard(Guard::Refuses);
        assert_eq!(refused.ask(&mut *rule, []).len(), MAX_OF_ROUTE);
        assert!(refused.ask(&mut *rule, []).is_empty(), "told once");
    }

    #[test]
    fn forgets_when_the_route_turns_out_open_or_time_passes() {
        let mut rule = rule(&Arc::default());
        let unknown = Stage::new().status(200);
        unknown.ask(&mut *rule, [unsigned(1)]);
        assert!(unknown.clone().guard(Guard::Open).ask(&mut *rule, []).is_empty());
        assert!(unknown.clone().guard(Guard::Refuses).ask(&mut *rule, []).is_empty());
        unknown.ask(&mut *rule, [unsigned(1)]);
        assert!(unknown.clone().guard(Guard::Refuses).after_ms(3_600_001).ask(&mut *rule, []).is_empty());
    }
}
