//! What is true of many tokens is told once, and again when it has been quiet for long.

use std::hash::Hash;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::cause::cause;
use crate::detect::roster::stable_hash;
use crate::detect::statement::{Statement, Subject};
use crate::detect::table::Table;
use crate::detect::{About, Case, Column, DetectSettings, Memory, Report, Rule, Threshold, When};
use crate::token::{Form, Token};

/// Things remembered: 40 bytes each.
const MAX_TOLD: usize = 8192;

/// News in an hour, at most: whoever makes up issuers cannot make up alerts without end.
const MAX_PER_HOUR: u32 = 120;

/// The threshold of a rule that remarks on tokens by their issuer.
pub const AGAIN: Threshold = Threshold {
    key: "again_s",
    default: 86_400.0,
    min: 60.0,
    max: 2_592_000.0,
    doc: "Seconds after which an issuer is told of again.",
};

/// The threshold of a rule that remarks on how each token travels.
pub const TOKEN_AGAIN: Threshold =
    Threshold { default: 3_600.0, doc: "Seconds after which a token is told of again.", ..AGAIN };

/// What was told, and when.
#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub struct Remarks {
    table: Table<u64, u32>,
    hour: u32,
    said: u32,
}

#[derive(Deserialize)]
struct Saved {
    table: Table<u64, u32>,
    hour: u32,
    said: u32,
}

impl From<Saved> for Remarks {
    fn from(Saved { mut table, hour, said }: Saved) -> Self {
        table.limit(MAX_TOLD);
        Self { table, hour, said }
    }
}

impl Default for Remarks {
    fn default() -> Self {
        Self { table: Table::new(MAX_TOLD), hour: 0, said: 0 }
    }
}

impl Remarks {
    /// Whether `name` was not told within the last `quiet_s` seconds; then it is told now. What goes on all the time is
    /// told every `quiet_s`.
    pub fn is_news(&mut self, name: &impl Hash, at_s: u32, quiet_s: u32) -> bool {
        let name = stable_hash(name);
        if let Some(told) = self.table.get(&name)
            && at_s.saturating_sub(*told) < quiet_s
        {
            return false;
        }
        if at_s / 3600 != self.hour {
            (self.hour, self.said) = (at_s / 3600, 0);
        }
        if self.said >= MAX_PER_HOUR {
            return false;
        }
        self.said += 1;
        if let Some(told) = self.table.get_or(name, || at_s) {
            *told = at_s;
        }
        true
    }
}

/// Whether a token's claims are worth remarks on their style: nothing is wrong with its making, and its issuer's keys
/// say that it is genuine, or nobody has configured any issuer.
#[must_use]
pub fn is_ordinary(token: &Token) -> bool {
    token.form == Form::Jws && (token.is_verified() || token.policy.is_none()) && cause(token).is_none()
}

/// How many tokens of a service were remarkable: 12 bytes a service.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Norm {
    seen: u32,
    odd: u32,
}

impl Norm {
    /// Counts a use; says whether what is odd is the norm here: of twenty uses and more, one in ten.
    const fn count(&mut self, odd: bool) -> bool {
        if self.seen == u32::MAX {
            (self.seen, self.odd) = (self.seen / 2, self.odd / 2);
        }
        self.seen += 1;
        self.odd += odd as u32;
        self.seen >= 20 && self.odd as u64 * 10 > self.seen as u64
    }
}

/// A rule that remarks on the tokens of an issuer. Where the remark holds for few of them, it is made for each subject
/// and address once a day; where it is the norm, for the issuer and service as a whole.
pub struct PerIssuer {
    about: &'static About,
    settings: Arc<DetectSettings>,
    again_s: u32,
    check: fn(&Subject<'_>, &DetectSettings) -> Option<Statement>,
    memory: (Remarks, Column<Norm>),
}

impl PerIssuer {
    /// Puts a card and a question together. The card has a threshold `again_s`.
    #[must_use]
    pub fn new(
        about: &'static About,
        settings: &Arc<DetectSettings>,
        check: fn(&Subject<'_>, &DetectSettings) -> Option<Statement>,
    ) -> Self {
        let again_s = settings.count(about, "again_s");
        Self {
            about,
            settings: Arc::clone(settings),
            again_s,
            check,
            memory: (Remarks::default(), Column::default()),
        }
    }
}

impl Rule for PerIssuer {
    fn about(&self) -> &'static About {
        self.about
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            if !is_ordinary(&held.token) {
                continue;
            }
            let subject = Subject::new(case, held);
            let statement = (self.check)(&subject, &self.settings);
            let (told, norms) = &mut self.memory;
            let is_norm = norms.of(case.who.service.slot).count(statement.is_some());
            let Some(statement) = statement else { continue };
            let whose = (held.token.subject.as_deref(), case.who.address.slot);
            let name = (held.token.issuer.as_deref(), case.exchange.endpoints.server);
            if told.is_news(&(name, (!is_norm).then_some(whose)), case.second(), self.again_s) {
                report.push(statement.into_finding(self.about, &subject));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, policy, token};
    use crate::token::{Policy, Signature, Unchecked};

    /// What every remark on tokens that lack something keeps to: whose tokens it is made of, and how often.
    pub(crate) fn is_a_remark(rule: impl Fn() -> Box<dyn Rule>, without: impl Fn(Token) -> Token) {
        let odd = || without(token(1));
        let stranger = Some(Policy { issuer_known: false, ..policy() });
        let unchecked = Signature::Unchecked(Unchecked::NoIssuer);
        let unreadable = Signature::Unchecked(Unchecked::Unreadable);
        for (token, expected) in [
            (odd(), 1),
            (Token { signature: unchecked, policy: None, ..odd() }, 1),
            (token(1), 0),
            (Token { signature: Signature::Invalid, ..odd() }, 0),
            (Token { signature: unchecked, policy: stranger, ..odd() }, 0),
            (Token { form: Form::Opaque, signature: unreadable, ..odd() }, 0),
        ] {
            let found = Stage::new().status(200).ask(&mut *rule(), [token.clone()]);
            assert_eq!(found.len(), expected, "{token:?}");
        }
        becomes_the_norm(rule, without);
    }

    fn becomes_the_norm(rule: impl Fn() -> Box<dyn Rule>, without: impl Fn(Token) -> Token) {
        let odd = || without(token(1));
        let mut play = Play::new(rule());
        assert_eq!(play.ask(&Stage::new(), [odd()]).len(), 1);
        play.restart(rule());
        let mut found = 0;
        for number in 2..1000_u64 {
            let token = Token { subject: Some(format!("s{number}").into()), ..without(token(number)) };
            found += play.ask(&Stage::new().after_ms(number), [token]).len();
        }
        assert_eq!(found, 19, "until it is known to be the norm, and the norm");
        let mut elsewhere = Stage::new();
        elsewhere.exchange.endpoints.server = "10.0.0.2:8080".parse().unwrap();
        assert_eq!(play.ask(&elsewhere, [odd()]).len(), 1);
        assert_eq!(play.ask(&Stage::new().after_ms(86_400_000), [odd()]).len(), 1);
    }

    #[test]
    fn tells_each_name_once_in_its_time() {
        let mut told = Remarks::default();
        assert!(told.is_news(&"a", 100, 60) && !told.is_news(&"a", 159, 60) && told.is_news(&"a", 160, 60));
        assert!(told.is_news(&"b", 160, 60));
        assert!(!told.is_news(&"a", 10, 60), "time that goes back tells nothing anew");
    }

    #[test]
    fn made_up_names_are_bounded_in_number_and_rate() {
        let mut told = Remarks::default();
        let news = (0..100_000_u32).filter(|name| told.is_news(name, 3600, 60)).count();
        assert_eq!(news, MAX_PER_HOUR as usize);
        for hour in 2..200 {
            let news = (0..500_u32).filter(|name| told.is_news(&(hour, name), hour * 3600, 60)).count();
            assert_eq!(news, MAX_PER_HOUR as usize);
        }
        assert!(told.table.len() <= MAX_TOLD);
    }

    #[test]
    fn a_restart_tells_nothing_again() {
        let mut told = Remarks::default();
        told.is_news(&"a", 100, 60);
        let saved = told.save().unwrap();
        let mut fresh = Remarks::default();
        fresh.load(&saved).unwrap();
        assert!(!fresh.is_news(&"a", 120, 60));
        assert_eq!(fresh.table.cap(), MAX_TOLD);
    }
}
