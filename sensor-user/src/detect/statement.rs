//! What rules say, and of whom: of a token, an actor, an address, or a service. And the frame of rules that state a fact
//! about one token by itself, which keep no history.

use std::sync::Arc;

use serde_json::Value;

use crate::detect::cause::must_refuse;
use crate::detect::{
    About, Case, DetectSettings, Finding, Guard, Report, RouteKind, Rule, Scene, Severity, When, scene,
};
use crate::token::{Carrier, Token, TokenUse};

/// Seconds within which correct verifiers may differ on `exp` and `nbf`. The most generous shipped default is
/// Microsoft's `ClockSkew` of five minutes.
pub const VERIFIERS_LEEWAY_S: i64 = 300;

/// Rule-specific facts.
pub type Facts = Vec<(&'static str, Value)>;

/// One token in one exchange, as a rule is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The case.
    pub case: &'a Case<'a>,
    /// The token.
    pub token: &'a Token,
    /// Where it was.
    pub carrier: &'a Carrier,
}

/// What the application made of a request, as far as a token's rule may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx, on a route that is not known to be open to all, with no other credential that may explain it.
    Accepted,
    /// 401 or 403.
    Refused,
    /// Anything else: the answer does not tell.
    Unclear,
}

impl Outcome {
    /// The verb of the compact line.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unclear => "tried",
        }
    }
}

impl<'a> Subject<'a> {
    /// The subject for one use of a token.
    #[must_use]
    pub fn new(case: &'a Case<'a>, held: &'a TokenUse) -> Self {
        Self { case, token: &held.token, carrier: &held.carrier }
    }

    /// What the application made of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.case.exchange.is_refused() {
            return Outcome::Refused;
        }
        let telling = self.case.route.guard != Guard::Open && is_guardable(self.case.route.kind);
        if self.case.exchange.is_success() && telling && !self.has_other_credential() {
            Outcome::Accepted
        } else {
            Outcome::Unclear
        }
    }

    /// Whether another token of the request may be what was accepted.
    #[must_use]
    pub fn has_other_credential(&self) -> bool {
        self.case.all.iter().any(|other| {
            other.token.fingerprint != self.token.fingerprint
                && must_refuse(&other.token, self.case.exchange.at, VERIFIERS_LEEWAY_S).is_none()
        })
    }

    /// How the request ended, for sentences: `was answered 200 on GET /orders/{id}`.
    #[must_use]
    pub fn told(&self) -> String {
        let route = &self.case.route.name;
        match self.case.exchange.status() {
            Some(status @ (401 | 403)) => format!("was refused with {status} on {route}"),
            Some(status) => format!("was answered {status} on {route}"),
            None => format!("was sent to {route}; no answer was seen"),
        }
    }
}

/// Whether a 2xx on such a route says that a credential was accepted.
#[must_use]
pub const fn is_guardable(kind: RouteKind) -> bool {
    !matches!(
        kind,
        RouteKind::Login | RouteKind::Logout | RouteKind::Token | RouteKind::Public | RouteKind::Health
    )
}

/// What a rule says about a token.
#[derive(Clone, Debug)]
pub struct Statement {
    /// How bad.
    pub severity: Severity,
    /// 0 to 100.
    pub confidence: u8,
    /// One sentence.
    pub message: String,
    /// A short phrase.
    pub brief: String,
    /// Facts of its own.
    pub facts: Facts,
}

impl Statement {
    /// A finding about a token, and whom it names.
    #[must_use]
    pub fn into_finding(mut self, about: &'static About, subject: &Subject<'_>) -> Finding {
        let mut facts = token_facts(subject);
        facts.append(&mut self.facts);
        self.facts = facts;
        Finding {
            principal: scene::principal(subject.token),
            token: Some(subject.token.fingerprint),
            ..self.into_address_finding(about, subject.case)
        }
    }

    /// A finding about who acts: by the acting token, or by the address if there is none.
    #[must_use]
    pub fn into_actor_finding(self, about: &'static About, case: &Case<'_>) -> Finding {
        match case.acting() {
            Some(held) => self.into_finding(about, &Subject::new(case, held)),
            None => self.into_address_finding(about, case),
        }
    }

    /// A finding about the client's address: no token, nobody named. Accounts in requests are claims.
    #[must_use]
    pub fn into_address_finding(self, about: &'static About, case: &Case<'_>) -> Finding {
        self.with_scene(about, case, scene::of(case))
    }

    /// A finding about the service as a whole: the client whose request decided it may be anybody, and so may its
    /// route.
    #[must_use]
    pub fn into_service_finding(self, about: &'static About, case: &Case<'_>) -> Finding {
        self.with_scene(about, case, scene::of_service(case))
    }

    fn with_scene(self, about: &'static About, case: &Case<'_>, scene: Scene) -> Finding {
        Finding {
            rule: about,
            at: case.exchange.ended_at,
            severity: self.severity,
            confidence: self.confidence,
            principal: None,
            token: None,
            group: None,
            message: self.message,
            brief: self.brief,
            facts: self.facts,
            scene: Some(Box::new(scene)),
        }
    }
}

impl Finding {
    /// The same, about one account that a login claims.
    #[must_use]
    pub const fn of_account(mut self, account: Option<u64>) -> Self {
        self.group = account;
        self
    }
}

/// So many of so many, in whole percent.
#[must_use]
pub fn percent(part: u32, whole: u32) -> u32 {
    let share = u64::from(part) * 100 / u64::from(whole.max(1));
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// The facts that every finding about a token carries.
fn token_facts(subject: &Subject<'_>) -> Facts {
    let shown = |text: &Option<Arc<str>>| text.as_deref().map(|t| Value::from(show(t)));
    let mut facts: Facts = vec![("carrier", carrier_word(subject.carrier).into())];
    let members = [("alg", shown(&subject.token.alg)), ("kid", shown(&subject.token.kid))];
    facts.extend(members.into_iter().filter_map(|(name, value)| Some((name, value?))));
    facts
}

/// A header member or claim as a sentence may quote it.
#[must_use]
pub fn show(text: &str) -> String {
    crate::detect::text::printable(text.as_bytes(), 64)
}

/// Where the token was, in one word. Names of headers and cookies are the configuration's, hence no secret.
#[must_use]
pub fn carrier_word(carrier: &Carrier) -> String {
    match carrier {
        Carrier::Authorization => "authorization".to_owned(),
        Carrier::Header(name) => format!("header {}", show(name)),
        Carrier::Cookie(name) => format!("cookie {}", show(name)),
        Carrier::Query(name) => format!("query {}", show(name)),
    }
}

/// The severity of an attempt, or of its success.
#[must_use]
pub fn severity(about: &About, outcome: Outcome) -> Severity {
    match (outcome, about.accepted) {
        (Outcome::Accepted, Some(accepted)) => accepted,
        _ => about.severity,
    }
}

/// [`severity`] for what honest clients do too: a 2xx counts as accepted only where the route is known to refuse
/// strangers. Where that is not known, it is no more than medium.
#[must_use]
pub fn cautious_severity(about: &About, subject: &Subject<'_>) -> Severity {
    let outcome = subject.outcome();
    let worst = severity(about, outcome);
    if outcome != Outcome::Accepted || subject.case.route.guard == Guard::Refuses {
        worst
    } else if worst > Severity::Medium {
        about.severity.max(Severity::Medium)
    } else {
        about.severity
    }
}

/// A rule without history: a card and a question about one token.
pub struct PerToken {
    about: &'static About,
    settings: Arc<DetectSettings>,
    check: fn(&Subject<'_>, &DetectSettings) -> Option<Statement>,
}

impl PerToken {
    /// Puts a card and a question together.
    #[must_use]
    pub const fn new(
        about: &'static About,
        settings: Arc<DetectSettings>,
        check: fn(&Subject<'_>, &DetectSettings) -> Option<Statement>,
    ) -> Self {
        Self { about, settings, check }
    }
}

impl Rule for PerToken {
    fn about(&self) -> &'static About {
        self.about
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let subject = Subject::new(case, held);
            if let Some(statement) = (self.check)(&subject, &self.settings) {
                report.push(statement.into_finding(self.about, &subject));
            }
        }
    }
}
