//! The registered claims (RFC 7519 section 4.1), their types checked.

use std::borrow::Cow;

use super::grants::Grants;
use super::header::string;
use super::json::{self, Number, Value};
use super::purpose::Signs;
use super::{Noted, base64};
use crate::token::facts::{Flaws, Purpose};

/// Claims as a lax reader sees them.
#[derive(Debug, Default)]
pub struct Claims<'p> {
    /// Whether the payload is an object at all.
    pub(super) is_object: bool,
    /// `iss`
    pub issuer: Option<Cow<'p, str>>,
    /// `sub`
    pub subject: Option<Cow<'p, str>>,
    /// `client_id` (RFC 9068), else `azp`.
    pub client: Option<Cow<'p, str>>,
    /// `aud`: as many as the text holds, which the token's length bounds.
    pub audiences: Vec<Cow<'p, str>>,
    /// `jti`
    pub id: Option<Cow<'p, str>>,
    /// `sid`
    pub session: Option<Cow<'p, str>>,
    /// `status.status_list`: the list's URI, and the place in it.
    pub status: Option<(Cow<'p, str>, u64)>,
    /// `exp`, seconds since the epoch, fractions cut.
    pub expires: Option<i64>,
    /// `nbf`, likewise.
    pub not_before: Option<i64>,
    /// `iat`, likewise.
    pub issued: Option<i64>,
    /// `cnf.jkt`: the thumbprint of the key that the token is bound to (RFC 9449 section 6.1).
    pub bound_to: Option<[u8; 32]>,
    /// `cnf.x5t#S256`: the hash of the certificate that it is bound to (RFC 8705 section 3.1).
    pub certificate: Option<[u8; 32]>,
    grants: Grants<'p>,
    signs: Signs,
}

impl<'p> Claims<'p> {
    pub(super) fn read(text: &'p [u8], noted: &mut Noted) -> Self {
        let mut claims = Self::default();
        let report = json::members(text, &mut |name, value| claims.member(&name, value, noted));
        noted.merge(report.flaws, report.detail);
        claims.is_object = report.begun;
        claims
    }

    /// What the token is for, where its claims say so.
    pub(super) fn purpose(&self) -> Option<Purpose> {
        self.signs.purpose()
    }

    /// Roles and scopes, as [`Token::roles`](crate::token::Token::roles) holds them.
    #[must_use]
    pub fn roles(&self) -> Box<[Box<str>]> {
        self.grants.all()
    }

    fn member(&mut self, name: &str, value: Value<'p>, noted: &mut Noted) {
        self.signs.see(name, &value);
        self.grants.see(name, &value);
        match name {
            "iss" => self.issuer = string(value, noted, "iss is not a string"),
            "sub" => self.subject = string(value, noted, "sub is not a string"),
            "jti" => self.id = string(value, noted, "jti is not a string"),
            "sid" => self.session = text(value),
            "client_id" => self.client = text(value).or(self.client.take()),
            "azp" => self.client = self.client.take().or(text(value)),
            "aud" => self.audience(value, noted),
            "exp" => self.expires = date(&value, noted, "exp is not a number in range"),
            "nbf" => self.not_before = date(&value, noted, "nbf is not a number in range"),
            "iat" => self.issued = date(&value, noted, "iat is not a number in range"),
            "status" => self.status = status(&value),
            "cnf" => (self.bound_to, self.certificate) = confirmation(&value),
            _ => {}
        }
    }

    fn audience(&mut self, value: Value<'p>, noted: &mut Noted) {
        self.audiences.clear();
        match value {
            Value::Text(audience) => self.audiences.push(audience),
            Value::Array(text) => {
                json::elements(text, &mut |element| match element {
                    Value::Text(audience) => self.audiences.push(audience),
                    _ => noted.note(Flaws::WRONG_TYPE, "aud holds something other than strings"),
                });
            }
            _ => noted.note(Flaws::WRONG_TYPE, "aud is neither a string nor an array"),
        }
    }
}

/// `jkt` and `x5t#S256` of a `cnf` object, if it is one.
fn confirmation(value: &Value<'_>) -> (Option<[u8; 32]>, Option<[u8; 32]>) {
    let Value::Object(members) = value else { return (None, None) };
    let (mut key, mut certificate) = (None, None);
    let hash = |text: &str| base64::strict(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
    json::members(members, &mut |name, value| match (&*name, value) {
        ("jkt", Value::Text(text)) => key = hash(&text),
        ("x5t#S256", Value::Text(text)) => certificate = hash(&text),
        _ => {}
    });
    (key, certificate)
}

/// `uri` and `idx` of the `status_list` in a `status` object, if it is one.
fn status<'p>(value: &Value<'p>) -> Option<(Cow<'p, str>, u64)> {
    let Value::Object(members) = value else { return None };
    let (mut uri, mut index) = (None, None);
    json::members(members, &mut |name, value| {
        if let ("status_list", Value::Object(list)) = (&*name, value) {
            json::members(list, &mut |name, value| match (&*name, value) {
                ("uri", Value::Text(text)) => uri = Some(text),
                ("idx", Value::Number(Number::Integer(number))) => index = u64::try_from(number).ok(),
                _ => {}
            });
        }
    });
    uri.zip(index)
}

fn text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// A `NumericDate` (RFC 7519 section 2): any JSON number, also negative or with a fraction. A string of digits is
/// shown as the date that a lax reader takes it for.
fn date(value: &Value<'_>, noted: &mut Noted, detail: &'static str) -> Option<i64> {
    match value {
        Value::Number(Number::Integer(seconds)) => Some(*seconds),
        // Within +-2^62 the conversion is exact enough and cannot saturate.
        #[allow(clippy::cast_possible_truncation, reason = "the range is checked by the guard")]
        Value::Number(Number::Real(seconds)) if seconds.abs() < 4.6e18 => Some(seconds.floor() as i64),
        Value::Text(text) => {
            noted.note(Flaws::WRONG_TYPE, detail);
            text.trim().parse().ok()
        }
        _ => {
            noted.note(Flaws::WRONG_TYPE, detail);
            None
        }
    }
}
