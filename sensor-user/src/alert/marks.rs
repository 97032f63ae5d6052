//! What people have said of alerts: *false positive* silences what comes later in its scope, *true positive* is kept, and
//! keeps a wider silence away from its own scope.
//!
//! Of the marks that fit a finding the narrowest decides, of equals the newest. Nothing widens by itself: a mark without
//! an address, principal or route says so in its scope, and a critical `forged-token-accepted` obeys only an exact one.
//! Reading and writing the file is the store's; here is what it means.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::alert::key::{Actor, Key, hashed};
use crate::capture::Time;
use crate::detect::{Finding, Severity, text};

/// Marks at most: a person makes a few a day. Each is below 2 KiB in the file.
pub const MAX_MARKS: usize = 10_000;

/// The version of the file that this reads and writes.
pub const VERSION: u32 = 1;

/// The rule whose critical findings are never silenced but exactly.
const NEVER_WIDELY: &str = "forged-token-accepted";

/// A dedup key as files keep it: a principal only as a hash, and as it may be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The rule's id.
    pub rule: String,
    /// Who holds the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// `principal:` and a hash, `token:` and its fingerprint, `nobody`, or `rest`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The route template.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
}

impl Named {
    /// The key as files keep it.
    #[must_use]
    pub fn of(key: &Key) -> Self {
        let actor = match &key.actor {
            Actor::Principal(subject, issuer) => principal(subject, issuer.as_deref()),
            Actor::Token(token) => format!("token:{token}"),
            Actor::Claimed(group) => format!("account:{group:016x}"),
            Actor::Nobody => "nobody".to_owned(),
            Actor::Rest => "rest".to_owned(),
        };
        Self { rule: key.rule.to_owned(), address: key.address, actor, route: key.route.to_string() }
    }

    /// What of it counts in this scope.
    #[must_use]
    pub fn within(&self, scope: Scope) -> Self {
        let rule = self.rule.clone();
        match scope {
            Scope::Exact => self.clone(),
            Scope::Rule => Self { rule, ..Self::default() },
            Scope::Address => Self { rule, address: self.address, ..Self::default() },
            Scope::Principal => Self { rule, actor: self.actor.clone(), ..Self::default() },
            Scope::Route => Self { rule, route: self.route.clone(), ..Self::default() },
        }
    }

    /// Whether it names a verified principal.
    #[must_use]
    pub fn has_principal(&self) -> bool {
        self.actor.starts_with("principal:")
    }

    /// Whether it stands for everything that one source opened beyond what it may.
    #[must_use]
    pub fn is_rest(&self) -> bool {
        self.actor == "rest"
    }
}

/// A principal as files keep it: hashed, so that they name nobody to those who do not know whom to look for.
#[must_use]
pub fn principal(subject: &str, issuer: Option<&str>) -> String {
    let mut name = String::from("principal:");
    for byte in hashed(&[subject.as_bytes(), issuer.unwrap_or_default().as_bytes()]) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opinion {
    /// Not an attack: what comes later in the scope is silenced.
    FalsePositive,
    /// An attack.
    TruePositive,
}

impl Opinion {
    /// `false-positive` or `true-positive`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FalsePositive => "false-positive",
            Self::TruePositive => "true-positive",
        }
    }
}

/// How far it goes. Every scope holds the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Rule, address, principal and route.
    #[serde(rename = "exact")]
    Exact,
    /// One principal.
    #[serde(rename = "rule+principal")]
    Principal,
    /// One address.
    #[serde(rename = "rule+address")]
    Address,
    /// One route.
    #[serde(rename = "rule+route")]
    Route,
    /// Everything of the rule.
    #[serde(rename = "rule")]
    Rule,
}

impl Scope {
    /// The narrowest first.
    pub const ALL: [Self; 5] = [Self::Exact, Self::Principal, Self::Address, Self::Route, Self::Rule];

    /// The word that users type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Principal => "rule+principal",
            Self::Address => "rule+address",
            Self::Route => "rule+route",
            Self::Rule => "rule",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// What somebody said of one alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Its number, for `unmark`.
    pub number: u64,
    /// The alert that it was said of.
    pub alert: Ulid,
    /// What was said.
    pub opinion: Opinion,
    /// How far it goes.
    pub scope: Scope,
    /// What it fits, already cut to the scope.
    pub key: Named,
    /// Who that is, as it may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// When it was said, in milliseconds since the epoch.
    pub made_ms: u64,
    /// Until when it holds, in milliseconds since the epoch.
    pub until_ms: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    version: u32,
    /// The number of the next mark: one that was taken back is not given again.
    #[serde(default)]
    next: u64,
    marks: Vec<Mark>,
}

/// Why a file of marks is not read.
#[derive(Debug, thiserror::Error)]
pub enum MarksError {
    /// It is not what we write.
    #[error("not a file of marks: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("version {0} of the file; this program reads version {VERSION}")]
    Version(u32),
    /// It is too long.
    #[error("{0} marks; {MAX_MARKS} are the most")]
    TooMany(usize),
}

/// Every mark, and where each fits.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    all: Vec<Mark>,
    fits: BTreeMap<Named, usize>,
    /// No mark has ever had this number or a higher one, as far as the file says.
    next: u64,
}

impl Marks {
    /// These marks; of two that fit the same, the later one counts.
    #[must_use]
    pub fn new(marks: Vec<Mark>) -> Self {
        let fits = marks.iter().enumerate().map(|(at, mark)| (mark.key.clone(), at)).collect();
        Self { all: marks, fits, next: 0 }
    }

    /// The same, where lower numbers have been given to others.
    #[must_use]
    pub fn numbered_from(self, next: u64) -> Self {
        Self { next, ..self }
    }

    /// The number of the next mark.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        let newest = self.all.iter().map(|mark| mark.number).max().unwrap_or(0);
        self.next.max(newest.saturating_add(1))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is not one that this version writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, MarksError> {
        let page: Page = serde_json::from_slice(bytes)?;
        match page {
            Page { version, .. } if version != VERSION => Err(MarksError::Version(version)),
            Page { marks, .. } if marks.len() > MAX_MARKS => Err(MarksError::TooMany(marks.len())),
            Page { marks, next, .. } => Ok(Self::new(marks).numbered_from(next)),
        }
    }

    /// Writes a file.
    #[must_use]
    pub fn render(&self) -> String {
        let page = Page { version: VERSION, next: self.next_number(), marks: self.all.clone() };
        // Our types have string keys and no fallible parts: they always serialise.
        serde_json::to_string_pretty(&page).unwrap_or_default() + "\n"
    }

    /// The marks, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Mark] {
        &self.all
    }

    /// Whether findings with this key are silenced.
    #[must_use]
    pub fn silences(&self, key: &Key, finding: &Finding) -> bool {
        if self.all.is_empty() {
            return false;
        }
        let named = Named::of(key);
        let exact_only = finding.rule.id == NEVER_WIDELY && finding.severity == Severity::Critical;
        let scopes = Scope::ALL.into_iter().filter(|scope| !exact_only || *scope == Scope::Exact);
        let mut fitting = scopes.filter_map(|scope| self.fitting(scope, &named, finding.at));
        fitting.next().is_some_and(|mark| mark.opinion == Opinion::FalsePositive)
    }

    fn fitting(&self, scope: Scope, named: &Named, now: Time) -> Option<&Mark> {
        let mark = self.all.get(*self.fits.get(&named.within(scope))?)?;
        (mark.scope == scope && now.millis() < mark.until_ms).then_some(mark)
    }
}

/// A note as it is kept: printable, bounded.
#[must_use]
pub fn note(words: &str) -> String {
    text::printable(words.as_bytes(), 500)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::staging::finding;
    use crate::detect::rules;

    fn mark(number: u64, opinion: Opinion, scope: Scope, finding: &Finding) -> Mark {
        Mark {
            number,
            alert: Ulid::nil(),
            opinion,
            scope,
            key: Named::of(&Key::of(finding)).within(scope),
            who: None,
            made_ms: 0,
            until_ms: finding.at.millis() + 1000,
            note: None,
        }
    }

    fn silenced(marks: &Marks, finding: &Finding) -> bool {
        marks.silences(&Key::of(finding), finding)
    }

    fn verified(number: u8, subject: &str, route: &str, client: &str) -> Finding {
        let mut finding = finding(number);
        let principal = finding.principal.as_mut().unwrap();
        (principal.verified, principal.subject) = (true, subject.into());
        let scene = finding.scene.as_mut().unwrap();
        (scene.route, scene.client) = (route.into(), client.parse().unwrap());
        finding
    }

    #[test]
    fn each_scope_silences_its_own_and_nothing_else() {
        let one = verified(1, "alice", "GET /a", "10.0.0.1");
        let others = [
            verified(2, "bob", "GET /a", "10.0.0.1"),
            verified(2, "alice", "GET /b", "10.0.0.2"),
            verified(2, "bob", "GET /b", "10.0.0.2"),
        ];
        for (scope, expected) in [
            (Scope::Exact, [false, false, false]),
            (Scope::Address, [true, false, false]),
            (Scope::Principal, [false, true, false]),
            (Scope::Route, [true, false, false]),
            (Scope::Rule, [true, true, true]),
        ] {
            let marks = Marks::new(vec![mark(1, Opinion::FalsePositive, scope, &one)]);
            assert!(silenced(&marks, &one), "{scope:?}");
            let got: Vec<bool> = others.iter().map(|other| silenced(&marks, other)).collect();
            assert_eq!(got, expected, "{scope:?}");
            let mut elsewhere = one.clone();
            elsewhere.rule = &rules::expired_token::ABOUT;
            assert!(!silenced(&marks, &elsewhere), "another rule");
        }
    }

    #[test]
    fn a_mark_ends() {
        let mut finding = finding(1);
        let marks = Marks::new(vec![mark(1, Opinion::FalsePositive, Scope::Rule, &finding)]);
        assert!(silenced(&marks, &finding));
        finding.at = finding.at.plus(std::time::Duration::from_secs(1));
        assert!(!silenced(&marks, &finding));
    }

    #[test]
    fn the_narrowest_mark_decides_and_then_the_newest() {
        let alice = verified(1, "alice", "GET /a", "10.0.0.1");
        let bob = verified(2, "bob", "GET /a", "10.0.0.1");
        let wide = mark(1, Opinion::FalsePositive, Scope::Rule, &alice);
        let narrow = mark(2, Opinion::TruePositive, Scope::Principal, &alice);
        let marks = Marks::new(vec![wide.clone(), narrow.clone()]);
        assert_eq!((silenced(&marks, &alice), silenced(&marks, &bob)), (false, true));
        let again = Mark { number: 3, opinion: Opinion::FalsePositive, ..narrow.clone() };
        assert!(silenced(&Marks::new(vec![wide, narrow, again]), &alice));
    }

    #[test]
    fn an_accepted_forgery_obeys_exact_marks_only() {
        let mut accepted = verified(1, "alice", "GET /a", "10.0.0.1");
        accepted.rule = &rules::forged_token_accepted::ABOUT;
        accepted.severity = Severity::Critical;
        for scope in Scope::ALL {
            let marks = Marks::new(vec![mark(1, Opinion::FalsePositive, scope, &accepted)]);
            assert_eq!(silenced(&marks, &accepted), scope == Scope::Exact, "{scope:?}");
        }
    }

    #[test]
    fn a_file_reads_back_and_names_nobody() {
        let finding = verified(1, "alice@shop.example", "GET /a", "10.0.0.1");
        let marks = Marks::new(vec![mark(1, Opinion::FalsePositive, Scope::Exact, &finding)]);
        let text = marks.render();
        assert!(!text.contains("alice"), "{text}");
        assert_eq!(Marks::parse(text.as_bytes()).unwrap().all(), marks.all());
    }

    #[test]
    fn strange_files_are_refused() {
        assert!(matches!(Marks::parse(b"{}"), Err(MarksError::Malformed(_))));
        assert!(matches!(Marks::parse(br#"{"version":2,"marks":[]}"#), Err(MarksError::Version(2))));
        let one = mark(1, Opinion::FalsePositive, Scope::Rule, &finding(1));
        let many = Marks::new(vec![one; MAX_MARKS + 1]).render();
        assert!(matches!(Marks::parse(many.as_bytes()), Err(MarksError::TooMany(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Marks::parse(&bytes);
        }
    }
}
