//! Where was it used? A token, a token id, a principal or an address: first and last, how often, how many bytes, which
//! services, routes, addresses, principals and tokens, and which alerts are about it.
//!
//! A question reads sums and facets, and single rows only of those that have few: its cost does not grow with traffic.

mod collect;
pub mod text;

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;
use rusqlite::{Connection, params};
use serde::{Serialize, Serializer};

use crate::store::database::{self, DatabaseError};
use crate::store::events;
use crate::store::part;
use crate::store::parts;
use crate::store::totals::Totals;
use crate::store::veil::Veil;
use crate::token::Fingerprint;

use collect::Collected;

/// Items of a list unless more are asked for.
pub const TOP: usize = 20;

/// Items of a list at most.
pub const MOST: usize = 1000;

/// Alerts that are looked at, newest first: dedup makes one of what belongs together.
const MOST_ALERTS: usize = 5000;

/// Shortest start of a fingerprint by which a token is looked for, in digits: compact lines show 16.
const SHORTEST: usize = 8;

/// What is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A token, by its fingerprint or the start of it: 8 to 32 hexadecimal digits.
    Token(String),
    /// Tokens with this `jti`.
    Id(String),
    /// A principal, by its subject; of one issuer, if it is given.
    Principal {
        /// The subject.
        subject: String,
        /// The issuer, exact.
        issuer: Option<String>,
    },
    /// An address, or every address of a network.
    Address(IpNet),
}

impl What {
    /// What somebody typed: 8 to 32 hexadecimal digits are a token's fingerprint, `jti:ID` is a token's id, an address or
    /// a network is itself, and everything else is a principal's subject; `SUBJECT ISSUER`, parted by a space, is one of
    /// that issuer alone.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(id) = text.strip_prefix("jti:") {
            return Self::Id(id.to_owned());
        }
        if (SHORTEST..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Self::Token(text.to_ascii_lowercase());
        }
        let address = text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        if let Some(net) = address.or_else(|| text.parse::<IpNet>().ok()) {
            return Self::Address(net.trunc());
        }
        let (subject, issuer) = match text.split_once(' ') {
            Some((subject, issuer)) => (subject, Some(issuer.trim().to_owned())),
            None => (text, None),
        };
        Self::Principal { subject: subject.to_owned(), issuer }
    }
}

/// From when to when, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From then on.
    pub from_ms: u64,
    /// Until then.
    pub until_ms: u64,
}

impl Window {
    /// All of the time.
    pub const EVER: Self = Self { from_ms: 0, until_ms: u64::MAX };
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// There is no store.
    #[error("there is no store in {0}: see `state.dir` and `store.enabled`, or name a --state-dir")]
    Nothing(std::path::PathBuf),
    /// It cannot be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// It cannot be read.
    #[error("the store cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The directory cannot be read.
    #[error("the store cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Several tokens begin so.
    #[error("{} tokens begin so, {}; give more digits", .0.len(), .0.join(", "))]
    Ambiguous(Vec<String>),
    /// It is no fingerprint.
    #[error("a fingerprint has 8 to 32 hexadecimal digits")]
    NoFingerprint,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is about.
    pub name: String,
    /// What more is known of it: the principal of a token, whether a principal is verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its part in the whole.
    #[serde(flatten)]
    pub totals: Sum,
}

/// The most frequent, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct List {
    /// Most frequent first.
    pub items: Vec<Item>,
    /// How many more there are.
    pub more: u64,
    /// Whether there may be still more of them, and counts may be a little higher.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub about: bool,
}

/// An alert about what was traced, in its newest state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlertLine {
    /// Its id.
    pub id: String,
    /// When it was news last.
    #[serde(rename = "time", serialize_with = "as_time")]
    pub time_ms: u64,
    /// How bad: 2 low to 5 critical.
    pub severity_id: u8,
    /// The rule; `incident` for incidents.
    pub rule: String,
    /// Findings so far.
    pub count: u64,
    /// The incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// The sentence.
    pub message: String,
}

/// Sums as they are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Sum(#[serde(serialize_with = "as_sum")] pub Totals);

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// What was traced: `token`, `jti`, `principal`, `address`.
    pub kind: &'static str,
    /// Its name, as it may be shown.
    pub name: String,
    /// Of a token or principal: whether a verified signature says who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// Everything together.
    #[serde(flatten)]
    pub totals: Sum,
    /// Uses of tokens that name the principal and are not verified, where others are: those are left out above.
    #[serde(skip_serializing_if = "is_zero")]
    pub claimed: u64,
    /// Services.
    pub services: List,
    /// Routes.
    pub routes: List,
    /// Addresses of clients.
    pub addresses: List,
    /// Principals.
    pub principals: List,
    /// Tokens.
    pub tokens: List,
    /// Alerts, worst and newest first.
    pub alerts: Vec<AlertLine>,
    /// How many more there are.
    pub more_alerts: u64,
    /// What the reader should know of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<&'static str>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn as_time<S: Serializer>(ms: &u64, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&text::time(*ms))
}

fn as_sum<S: Serializer>(sum: &Totals, out: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        count: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        last: Option<String>,
        request_bytes: u64,
        response_bytes: u64,
        answers: BTreeMap<&'static str, u64>,
    }
    let answers = text::answers(sum).into_iter().filter(|(_, count)| *count > 0);
    let time = |ms| (sum.count > 0).then(|| text::time(ms));
    Shown {
        count: sum.count,
        first: time(sum.first_ms),
        last: time(sum.last_ms),
        request_bytes: sum.request_bytes,
        response_bytes: sum.response_bytes,
        answers: answers.collect(),
    }
    .serialize(out)
}

/// The bytes that hexadecimal digits give, if they are a whole fingerprint.
pub(super) fn digits(text: &str) -> Option<Vec<u8>> {
    let (low, high) = range(text).ok()?;
    (low == high).then(|| low.0.to_vec())
}

/// The first and the last fingerprint that begin with these digits.
fn range(text: &str) -> Result<(Fingerprint, Fingerprint), TraceError> {
    if !(SHORTEST..=32).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(TraceError::NoFingerprint);
    }
    let end = |fill: &str| {
        let full = format!("{text}{}", fill.repeat(32 - text.len()));
        u128::from_str_radix(&full, 16).map(|number| Fingerprint(number.to_be_bytes()))
    };
    match (end("0"), end("f")) {
        (Ok(low), Ok(high)) => Ok((low, high)),
        _ => Err(TraceError::NoFingerprint),
    }
}

/// A store, open to be asked.
#[derive(Debug)]
pub struct Reader {
    events: Connection,
    parts: Vec<(parts::Place, Connection)>,
    /// Whether parts were left out, because they cannot be used.
    damaged: bool,
    veil: Veil,
}

impl Reader {
    /// Opens the store in this directory, whether a sensor uses it or not. `veil` must be the sensor's.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(dir: &Path, veil: Veil) -> Result<Self, TraceError> {
        let path = dir.join(events::FILE);
        if !path.exists() {
            return Err(TraceError::Nothing(dir.to_owned()));
        }
        let events = database::read(&path, &events::SCHEMA)?;
        let (mut parts, mut damaged) = (Vec::new(), false);
        for place in parts::list(dir)? {
            match database::read(&place.path, &part::SCHEMA) {
                Ok(connection) => parts.push((place, connection)),
                // It was deleted meanwhile: too old.
                Err(_) if !place.path.exists() => {}
                Err(error) if error.is_damage() => damaged = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { events, parts, damaged, veil })
    }

    /// Events behind this number in this time, oldest first, at most so many.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn events(
        &self,
        after: u64,
        window: Window,
        most: usize,
    ) -> Result<Vec<crate::render::Told>, TraceError> {
        Ok(events::told(&self.events, after, window.from_ms, window.until_ms, most)?)
    }

    /// Events with these numbers in this time, at most so many: the last of them, newest first, or the first of them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn page(
        &self,
        numbers: std::ops::Range<u64>,
        window: Window,
        newest: bool,
        most: usize,
    ) -> Result<Vec<crate::render::Told>, TraceError> {
        Ok(events::page(&self.events, numbers, (window.from_ms, window.until_ms), newest, most)?)
    }

    /// Answers. `top` bounds each list.
    ///
    /// # Errors
    /// When the store cannot be read, or a fingerprint is none or stands for several tokens.
    pub fn trace(&self, what: &What, window: Window, top: usize) -> Result<Trace, TraceError> {
        let top = top.clamp(1, MOST);
        let (collected, what) = self.collect(what, window)?;
        let mut trace = collected.into_trace(top);
        (trace.kind, trace.name) = match &what {
            What::Token(name) => ("token", name.clone()),
            What::Id(id) => ("jti", self.veil.token_id(id).1.unwrap_or_else(|| "(hidden)".into())),
            What::Principal { subject, .. } => ("principal", self.shown(subject)),
            What::Address(net) => ("address", shown_net(net)),
        };
        if self.damaged {
            trace.remarks.push(DAMAGED);
        }
        self.add_alerts(&mut trace, &what, window, top)?;
        Ok(trace)
    }

    /// A name as the store shows it; one that is shown so already stays as it is.
    fn shown(&self, subject: &str) -> String {
        if is_shown(subject) { subject.to_owned() } else { self.veil.subject(subject).shown }
    }

    fn collect(&self, what: &What, window: Window) -> Result<(Collected, What), TraceError> {
        let mut all = Collected::default();
        let mut what = what.clone();
        if let What::Token(text) = &mut what {
            let (low, high) = range(text)?;
            if low != high {
                let mut names = std::collections::BTreeSet::new();
                for (_, part) in &self.parts {
                    names.extend(collect::tokens_between(part, low, high)?);
                }
                if names.len() > 1 {
                    return Err(TraceError::Ambiguous(names.iter().map(ToString::to_string).collect()));
                }
                if let Some(name) = names.first() {
                    *text = name.to_string();
                }
            }
        }
        let (hash, shown) = match &what {
            What::Principal { subject, .. } if is_shown(subject) => (0, Some(subject.as_str())),
            What::Principal { subject, .. } => (self.veil.subject(subject).hash, None),
            What::Id(id) => (self.veil.token_id(id).0, None),
            What::Token(_) | What::Address(_) => (0, None),
        };
        for (number, (place, part)) in self.parts.iter().enumerate() {
            let ends = self.parts.get(number + 1).map_or(u64::MAX, |(next, _)| next.start_ms);
            if place.start_ms > window.until_ms || ends.saturating_add(LATE_MS) < window.from_ms {
                continue;
            }
            let ask = collect::Ask { part, start_ms: place.start_ms, ends_ms: ends, window, hash, shown };
            ask.about(&what, &mut all)?;
        }
        Ok((all, what.clone()))
    }

    fn add_alerts(
        &self,
        trace: &mut Trace,
        what: &What,
        window: Window,
        top: usize,
    ) -> Result<(), TraceError> {
        let newest = |condition: &str| {
            format!(
                "SELECT id, time_ms, severity, rule, repeats, incident, message FROM events e
                 WHERE {condition} AND time_ms BETWEEN ?2 AND ?3
                   AND row = (SELECT max(row) FROM events n WHERE n.id = e.id)
                 ORDER BY severity DESC, time_ms DESC LIMIT {MOST_ALERTS}"
            )
        };
        let plain = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (from, until) = (plain(window.from_ms), plain(window.until_ms));
        let read = |row: &rusqlite::Row<'_>| {
            let number =
                |place| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(place)?).unwrap_or(0));
            Ok(AlertLine {
                id: row.get(0)?,
                time_ms: number(1)?,
                severity_id: u8::try_from(number(2)?).unwrap_or(0),
                rule: row.get(3)?,
                count: number(4)?,
                incident: row.get(5)?,
                message: row.get(6)?,
            })
        };
        let mut found: Vec<AlertLine> = Vec::new();
        let mut ask = |condition: &str, key: &dyn rusqlite::ToSql| -> rusqlite::Result<()> {
            let mut all = self.events.prepare(&newest(condition))?;
            for line in all.query_map(params![key, from, until], read)? {
                let line = line?;
                if found.len() < MOST_ALERTS && !found.iter().any(|known| known.id == line.id) {
                    found.push(line);
                }
            }
            Ok(())
        };
        match what {
            What::Token(name) => ask("e.token = ?1", &digits(name))?,
            What::Id(_) => {
                for item in &trace.tokens.items {
                    ask("e.token = ?1", &digits(&item.name))?;
                }
            }
            What::Principal { subject, .. } => {
                let shown = self.shown(subject);
                ask("e.principal = ?1", &shown)?;
            }
            What::Address(net) if net.prefix_len() == net.max_prefix_len() => {
                ask("e.address = ?1", &net.addr().to_string())?;
            }
            What::Address(_) => {
                for item in &trace.addresses.items {
                    ask("e.address = ?1", &item.name)?;
                }
            }
        }
        found.sort_by(|a, b| (b.severity_id, b.time_ms, &a.id).cmp(&(a.severity_id, a.time_ms, &b.id)));
        trace.more_alerts = found.len().saturating_sub(top) as u64;
        found.truncate(top);
        trace.alerts = found;
        if let What::Principal { subject, .. } = what
            && !trace.alerts.is_empty()
            && self.shown(subject).contains('…')
        {
            trace.remarks.push(MASKED);
        }
        Ok(())
    }
}

/// What there is to say of alerts that were found by a name that is masked.
const MASKED: &str = "alerts are found by the masked name, which others may share";

/// What there is to say when a part of the history cannot be used.
const DAMAGED: &str = "a part of the history cannot be used and was left out: the sensor's log says more";

/// Whether a name is one that the store shows in place of another.
fn is_shown(subject: &str) -> bool {
    subject.starts_with("p-") || subject.contains('…')
}

/// How late a use may be stored after the part has ended: an exchange may wait ten minutes for a verdict.
const LATE_MS: u64 = 15 * 60_000;

fn shown_net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}

#[cfg(test)]
mod tests;
