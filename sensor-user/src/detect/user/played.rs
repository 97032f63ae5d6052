//! Examples: small sets of exchanges that a rule's author wrote down, with what the rule must say of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::detect::user::correlate::Groups;
use crate::detect::user::engine::ask;
use crate::detect::user::facts::time;
use crate::detect::user::field::{Field, Side};
use crate::detect::user::model::UserRule;
use crate::detect::user::value::{Facts, Texts, Value};

/// The second at which examples begin: 2026-01-05, a Monday, 00:00 UTC.
const BEGIN_S: u64 = 1_767_571_200;

/// Most exchanges of one example, repeats counted.
pub const MAX_EXCHANGES: u32 = 20_000;

/// A value of an example's exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The exchange lacks it.
    Absent,
    /// true or false.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// An address.
    Address(std::net::IpAddr),
    /// Texts.
    Texts(Vec<Box<str>>),
}

/// One exchange of an example, or several of one kind.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// Seconds after the one before; the first begins at midnight. In milliseconds.
    pub after_ms: u64,
    /// How often.
    pub repeat: u32,
    /// Between repeats.
    pub every_ms: u64,
    /// What is given; the rest is usual.
    pub given: BTreeMap<Field, Given>,
    /// Headers, names in small letters.
    pub headers: Vec<(Side, Box<str>, String)>,
    /// Fields whose value differs from repeat to repeat: `{n}` in a text is the number of the repeat.
    pub numbered: bool,
}

/// An example.
#[derive(Clone, Debug)]
pub struct Example {
    /// What it shows.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// Whether the rule must fire.
    pub fires: bool,
    /// At which exchange first, counted from 1, if that is said.
    pub first: Option<u32>,
    /// What the first message must hold, if that is said.
    pub says: Option<String>,
    /// What happens.
    pub exchanges: Vec<Played>,
}

/// How an example went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first exchange at which the rule fired, counted from 1.
    pub first: Option<u32>,
    /// How often it fired.
    pub times: u32,
    /// Exchanges played.
    pub played: u32,
    /// Its first message.
    pub message: Option<String>,
}

impl Example {
    /// Plays it on a rule that has seen nothing yet.
    #[must_use]
    pub fn play(&self, rule: &UserRule) -> Outcome {
        let mut groups = Groups::new(rule.correlation.as_ref());
        let mut out = Outcome { first: None, times: 0, played: 0, message: None };
        let mut at_ms = BEGIN_S * 1000;
        for played in &self.exchanges {
            at_ms = at_ms.saturating_add(played.after_ms);
            for n in 0..played.repeat.max(1) {
                if n > 0 {
                    at_ms = at_ms.saturating_add(played.every_ms);
                }
                out.played += 1;
                if out.played > MAX_EXCHANGES {
                    return out;
                }
                let numbered = played.numbered.then(|| played.with(n));
                let facts = PlayedFacts { played: numbered.as_ref().unwrap_or(played), at_ms };
                if let Some(said) = ask(rule, &mut groups, &facts, at_ms) {
                    out.times += 1;
                    out.first.get_or_insert(out.played);
                    out.message.get_or_insert(said.message);
                }
            }
        }
        out
    }

    /// Plays it, and says what went otherwise than expected: pairs of expected and found.
    #[must_use]
    pub fn judge(&self, rule: &UserRule) -> Vec<(String, String)> {
        let outcome = self.play(rule);
        let mut wrong = Vec::new();
        let told = |first: Option<u32>| match first {
            Some(n) => format!("fires at exchange {n} of {}", outcome.played),
            None => format!("never fires in {} exchanges", outcome.played),
        };
        if self.fires != outcome.first.is_some() {
            let expected = if self.fires { "fires" } else { "never fires" };
            wrong.push((expected.to_owned(), told(outcome.first)));
        } else if self.first.is_some() && self.first != outcome.first {
            wrong.push((told(self.first), told(outcome.first)));
        }
        if let (Some(says), Some(message)) = (&self.says, &outcome.message)
            && !message.contains(says.as_str())
        {
            wrong.push((format!("says \"{says}\""), format!("says \"{message}\"")));
        }
        wrong
    }
}

impl Played {
    /// The same with its number in the place of `{n}`. An address ends in the number's last byte where it ends in 0.
    fn with(&self, n: u32) -> Self {
        let mut this = self.clone();
        for given in this.given.values_mut() {
            if let Given::Text(text) = given {
                *text = text.replace("{n}", &n.to_string());
            }
        }
        this
    }
}

struct PlayedFacts<'a> {
    played: &'a Played,
    at_ms: u64,
}

/// What an exchange has unless the example says otherwise.
fn usual(field: Field, at_ms: u64) -> Option<Value<'static>> {
    let word = |text: &'static str| Some(Value::Text(Cow::Borrowed(text)));
    match field {
        Field::Method => word("GET"),
        Field::Path => word("/"),
        Field::Query => word(""),
        Field::RouteName => word("GET /"),
        Field::Host => word("api.example"),
        Field::UserAgent => word("example/1"),
        Field::Status => Some(Value::Int(200)),
        Field::ClientAddress => Some(Value::Address([192, 0, 2, 7].into())),
        Field::ServerAddress => Some(Value::Address([192, 0, 2, 80].into())),
        Field::ServerPort => Some(Value::Int(8080)),
        Field::Service => word("192.0.2.80:8080"),
        Field::RouteKind => word("plain"),
        Field::RouteGuard => word("unknown"),
        Field::Coverage => word("whole"),
        Field::ClientTrusted => Some(Value::Bool(false)),
        Field::ClientFamily | Field::ClientAgeS | Field::LatencyMs | Field::RequestBytes => {
            Some(Value::Int(0))
        }
        Field::Suspicions => Some(Value::Texts(Texts::Names(Vec::new()))),
        Field::Hour | Field::Weekday | Field::UnixS => Some(time(field, at_ms / 1000)),
        _ => None,
    }
}

impl PlayedFacts<'_> {
    /// An exchange with any field of a token has a token: verified, unless the example says otherwise.
    fn usual_of_token(&self, field: Field) -> Option<Value<'static>> {
        if !self.played.given.iter().any(|(field, given)| field.is_of_token() && *given != Given::Absent) {
            return None;
        }
        match field {
            Field::TokenForm => Some(Value::Text("jws".into())),
            Field::TokenSignature => {
                let verified = self.value(Field::TokenVerified) == Some(Value::Bool(true));
                Some(Value::Text(if verified { "verified" } else { "unchecked" }.into()))
            }
            Field::TokenVerified => Some(Value::Bool(true)),
            Field::TokenPrivileged => Some(Value::Bool(false)),
            Field::TokenCarrier => Some(Value::Text("authorization".into())),
            Field::TokenRoles | Field::TokenAudiences | Field::TokenFlaws => {
                Some(Value::Texts(Texts::Names(Vec::new())))
            }
            _ => None,
        }
    }
}

impl Facts for PlayedFacts<'_> {
    fn value(&self, field: Field) -> Option<Value<'_>> {
        match self.played.given.get(&field) {
            None if field.is_of_token() => self.usual_of_token(field),
            None => usual(field, self.at_ms),
            Some(Given::Absent) => None,
            Some(Given::Bool(flag)) => Some(Value::Bool(*flag)),
            Some(Given::Int(number)) => Some(Value::Int(*number)),
            Some(Given::Text(text)) => Some(Value::Text(Cow::Borrowed(text))),
            Some(Given::Address(address)) => Some(Value::address(*address)),
            Some(Given::Texts(texts)) => Some(Value::Texts(Texts::Kept(texts))),
        }
    }

    fn header(&self, side: Side, name: &str) -> Option<Cow<'_, str>> {
        let found = self.played.headers.iter().find(|(s, n, _)| *s == side && **n == *name);
        found.map(|(_, _, value)| Cow::Borrowed(value.as_str()))
    }
}
