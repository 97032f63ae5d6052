//! A real exchange as conditions see it.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::detect::cause::must_refuse;
use crate::detect::knowledge::Place;
use crate::detect::statement::VERIFIERS_LEEWAY_S;
use crate::detect::user::field::{Field, Side};
use crate::detect::user::guard::kind_name;
use crate::detect::user::value::{Facts, Texts, Value};
use crate::detect::{Case, Guard};
use crate::http::{Coverage, Suspicions};
use crate::token::facts::Flaws;
use crate::token::{Carrier, Form, Signature, Token, TokenUse};

/// How long a principal is known, and known here: seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ages {
    /// Since it was first seen.
    pub principal: Option<u32>,
    /// Since it first used this address.
    pub address: Option<u32>,
    /// Since it was first seen in this country.
    pub country: Option<u32>,
}

/// An exchange, and one of its tokens. What takes work to read is read once, however many rules ask.
pub struct CaseFacts<'a> {
    /// The case.
    pub case: &'a Case<'a>,
    /// The token; none for rules that are about none, and for requests without.
    pub token: Option<&'a TokenUse>,
    /// How long the token's principal is known.
    pub ages: Ages,
    /// The client's place.
    place: &'a OnceCell<Place>,
    path: OnceCell<Cow<'a, str>>,
    query: OnceCell<Cow<'a, str>>,
    host: OnceCell<Option<Cow<'a, str>>>,
    agent: OnceCell<Option<Cow<'a, str>>>,
    service: OnceCell<String>,
    principal: OnceCell<Option<&'a str>>,
}

/// The members of a set by name.
pub(super) const FLAWS: [(Flaws, &str); 17] = [
    (Flaws::ALG_NONE, "alg_none"),
    (Flaws::EMPTY_SIGNATURE, "empty_signature"),
    (Flaws::PSYCHIC, "psychic"),
    (Flaws::EMBEDDED_KEY, "embedded_key"),
    (Flaws::KEY_URL, "key_url"),
    (Flaws::KID_INJECTION, "kid_injection"),
    (Flaws::DUPLICATE_MEMBERS, "duplicate_members"),
    (Flaws::BAD_BASE64, "bad_base64"),
    (Flaws::BAD_JSON, "bad_json"),
    (Flaws::WRONG_TYPE, "wrong_type"),
    (Flaws::TOO_LARGE, "too_large"),
    (Flaws::BAD_PARTS, "bad_parts"),
    (Flaws::UNKNOWN_CRITICAL, "unknown_critical"),
    (Flaws::BAD_SIGNATURE_LENGTH, "bad_signature_length"),
    (Flaws::TOO_DEEP, "too_deep"),
    (Flaws::AMBIGUOUS_CARRIER, "ambiguous_carrier"),
    (Flaws::COSTLY, "costly"),
];

const SUSPICIONS: [(Suspicions, &str); 10] = [
    (Suspicions::LENGTH_AND_CHUNKED, "length_and_chunked"),
    (Suspicions::DUPLICATE_LENGTH, "duplicate_length"),
    (Suspicions::BAD_LENGTH, "bad_length"),
    (Suspicions::BAD_ENCODING, "bad_encoding"),
    (Suspicions::FOLDED_HEADER, "folded_header"),
    (Suspicions::BARE_CONTROL, "bare_control"),
    (Suspicions::BAD_FIELD_NAME, "bad_field_name"),
    (Suspicions::BAD_CHUNK, "bad_chunk"),
    (Suspicions::CONFLICTING_SEGMENTS, "conflicting_segments"),
    (Suspicions::CHUNKED_IN_HTTP10, "chunked_in_http10"),
];

impl<'a> CaseFacts<'a> {
    /// The facts of a case and one of its tokens. The place is shared by all tokens.
    #[must_use]
    pub fn new(case: &'a Case<'a>, token: Option<&'a TokenUse>, place: &'a OnceCell<Place>) -> Self {
        Self {
            case,
            token,
            ages: Ages::default(),
            place,
            path: OnceCell::new(),
            query: OnceCell::new(),
            host: OnceCell::new(),
            agent: OnceCell::new(),
            service: OnceCell::new(),
            principal: OnceCell::new(),
        }
    }

    /// Whom the token names beyond doubt.
    #[must_use]
    pub fn principal(&self) -> Option<&'a str> {
        *self.principal.get_or_init(|| subject(&self.token?.token, self.case))
    }

    fn of_request(&self, field: Field) -> Option<Value<'_>> {
        let exchange = self.case.exchange;
        let request = &exchange.request;
        let body = exchange.body.as_deref();
        match field {
            Field::Method => Some(Value::bytes(request.method())),
            Field::Path => Some(text(self.path.get_or_init(|| String::from_utf8_lossy(request.path())))),
            Field::Query => Some(text(self.query.get_or_init(|| String::from_utf8_lossy(request.query())))),
            Field::RouteName => Some(text(&self.case.route.name)),
            Field::Host => {
                let read = || request.value("host").map(String::from_utf8_lossy);
                self.host.get_or_init(read).as_deref().map(text)
            }
            Field::UserAgent => {
                let read = || request.value("user-agent").map(String::from_utf8_lossy);
                self.agent.get_or_init(read).as_deref().map(text)
            }
            Field::RequestBytes => exchange.request_body_bytes.map(Value::count),
            Field::Operation => body?.operation.as_deref().map(text),
            Field::Account => body?.account.as_deref().map(text),
            Field::Status => exchange.status().map(|status| Value::Int(status.into())),
            Field::ResponseBytes => exchange.response_body_bytes.map(Value::count),
            Field::LatencyMs => {
                let ms = exchange.latency?.as_millis();
                Some(Value::count(u64::try_from(ms).unwrap_or(u64::MAX)))
            }
            _ => None,
        }
    }

    fn of_ends(&self, field: Field) -> Option<Value<'_>> {
        let Case { exchange, who, .. } = self.case;
        let server = exchange.endpoints.server;
        match field {
            Field::ClientAddress => Some(Value::address(exchange.client)),
            Field::ClientCountry => self.place().country.map(letters),
            Field::ClientContinent => self.place().continent.map(letters),
            Field::ClientAsn => self.place().asn.map(|asn| Value::Int(asn.into())),
            Field::ClientFamily => Some(Value::Int(who.family.0.into())),
            Field::ClientTrusted => Some(Value::Bool(who.trusted_address)),
            Field::ClientAgeS => Some(self.since(who.address.first_s)),
            Field::ServerAddress => Some(Value::address(server.ip())),
            Field::ServerPort => Some(Value::Int(server.port().into())),
            Field::Service => Some(text(self.service.get_or_init(|| server.to_string()))),
            _ => None,
        }
    }

    fn of_token(&self, field: Field) -> Option<Value<'_>> {
        let held = self.token?;
        let token = &*held.token;
        let at = i64::try_from(self.case.exchange.at.secs()).unwrap_or(i64::MAX);
        let word = |word: &'static str| Some(Value::Text(word.into()));
        match field {
            Field::TokenForm => word(form(token.form)),
            Field::TokenAlg => token.alg.as_deref().map(text),
            Field::TokenKid => token.kid.as_deref().map(text),
            Field::TokenIssuer => token.issuer.as_deref().map(text),
            Field::TokenSubject => token.subject.as_deref().map(text),
            Field::TokenId => token.id.as_ref().map(|id| Value::Text(id.text())),
            Field::TokenAudiences => Some(Value::Texts(Texts::Shared(&token.audiences))),
            Field::TokenRoles => Some(Value::Texts(Texts::Kept(&token.roles))),
            Field::TokenPrivileged => {
                let privileged = &self.case.knowledge.privileged_roles;
                Some(Value::Bool(token.roles.iter().any(|role| privileged.contains(role))))
            }
            Field::TokenVerified => Some(Value::Bool(token.is_verified())),
            Field::TokenSignature => word(signature(token.signature)),
            Field::TokenFlaws => Some(Value::Texts(Texts::Names(
                FLAWS
                    .iter()
                    .filter(|(flaw, _)| token.flaws.intersects(*flaw))
                    .map(|(_, name)| *name)
                    .collect(),
            ))),
            Field::TokenExpiresInS => Some(Value::Int(token.expires.get()?.saturating_sub(at))),
            Field::TokenLifetimeS => {
                Some(Value::Int(token.expires.get()?.saturating_sub(token.issued.get()?)))
            }
            Field::TokenAgeS => self.case.who.token(token.fingerprint).map(|known| self.since(known.first_s)),
            Field::TokenCarrier => word(match held.carrier {
                Carrier::Authorization => "authorization",
                Carrier::Header(_) => "header",
                Carrier::Cookie(_) => "cookie",
                Carrier::Query(_) => "query",
            }),
            Field::Principal => self.principal().map(text),
            Field::PrincipalAgeS => self.ages.principal.map(|age| Value::Int(age.into())),
            Field::PrincipalAddressAgeS => self.ages.address.map(|age| Value::Int(age.into())),
            Field::PrincipalCountryAgeS => self.ages.country.map(|age| Value::Int(age.into())),
            _ => None,
        }
    }

    fn place(&self) -> &Place {
        self.place.get_or_init(|| {
            let geo = self.case.knowledge.geo.as_ref();
            geo.map(|geo| geo.place(self.case.exchange.client)).unwrap_or_default()
        })
    }

    fn since(&self, first_s: u32) -> Value<'static> {
        Value::Int(self.case.second().saturating_sub(first_s).into())
    }
}

/// Whom a token names beyond doubt.
fn subject<'a>(token: &'a Token, case: &Case<'_>) -> Option<&'a str> {
    let good = token.is_verified() && must_refuse(token, case.exchange.at, VERIFIERS_LEEWAY_S).is_none();
    token.subject.as_deref().filter(|_| good)
}

impl Facts for CaseFacts<'_> {
    fn value(&self, field: Field) -> Option<Value<'_>> {
        let exchange = self.case.exchange;
        match field {
            Field::RouteKind => Some(kind_name(self.case.route.kind)),
            Field::RouteGuard => Some(Value::Text(guard(self.case.route.guard).into())),
            Field::Suspicions => Some(Value::Texts(Texts::Names(
                SUSPICIONS
                    .iter()
                    .filter(|(s, _)| exchange.suspicions.contains(*s))
                    .map(|(_, name)| *name)
                    .collect(),
            ))),
            Field::Coverage => Some(Value::Text(coverage(exchange.coverage).into())),
            Field::Hour | Field::Weekday | Field::UnixS => Some(time(field, exchange.at.secs())),
            Field::Count => None,
            field if field.is_of_token() => self.of_token(field),
            field => self.of_request(field).or_else(|| self.of_ends(field)),
        }
    }

    fn header(&self, side: Side, name: &str) -> Option<Cow<'_, str>> {
        // A header that carries tokens by configuration is a credential like any other.
        let carries =
            |held: &TokenUse| matches!(&held.carrier, Carrier::Header(h) if h.eq_ignore_ascii_case(name));
        if self.case.all.iter().any(carries) {
            return None;
        }
        let value = match side {
            Side::Request => self.case.exchange.request.value(name),
            Side::Response => self.case.exchange.response.as_ref()?.value(name),
        };
        value.map(String::from_utf8_lossy)
    }
}

/// The hour, day of the week or second of a second since 1970. 1970 began on a Thursday.
#[must_use]
pub fn time(field: Field, second: u64) -> Value<'static> {
    Value::count(match field {
        Field::Hour => second / 3600 % 24,
        Field::Weekday => (second / 86_400 + 3) % 7 + 1,
        _ => second,
    })
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn letters(letters: [u8; 2]) -> Value<'static> {
    Value::Text(letters.iter().map(|b| char::from(*b)).collect::<String>().into())
}

const fn form(form: Form) -> &'static str {
    match form {
        Form::Jws => "jws",
        Form::Jwe => "jwe",
        Form::Malformed => "malformed",
        Form::Opaque => "opaque",
    }
}

const fn signature(signature: Signature) -> &'static str {
    match signature {
        Signature::Verified => "verified",
        Signature::Invalid => "invalid",
        Signature::Absent => "absent",
        Signature::Unchecked(_) => "unchecked",
    }
}

const fn guard(guard: Guard) -> &'static str {
    match guard {
        Guard::Unknown => "unknown",
        Guard::Refuses => "refuses",
        Guard::Open => "open",
    }
}

const fn coverage(coverage: Coverage) -> &'static str {
    coverage.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_week_begins_on_monday() {
        // 2026-11-21 was a Saturday, 18:04:05 UTC.
        assert_eq!(time(Field::Weekday, 1_795_284_245), Value::Int(6));
        assert_eq!(time(Field::Hour, 1_795_284_245), Value::Int(18));
        assert_eq!(time(Field::Weekday, 0), Value::Int(4));
    }
}
