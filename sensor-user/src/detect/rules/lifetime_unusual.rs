//! `lifetime-unusual`: a token that lives far longer, or far shorter, than tokens do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::cause::{earliness_s, lateness_s};
use crate::detect::remarks::{Remarks, is_ordinary};
use crate::detect::roster::stable_hash;
use crate::detect::statement::{Statement, Subject};
use crate::detect::table::Table;
use crate::detect::{
    About, Case, DetectSettings, Marks, Memory, Needs, Report, Rule, Severity, Threshold, When,
};
use crate::token::Token;

/// The card.
pub static ABOUT: About = About {
    id: "lifetime-unusual",
    title: "Unusual lifetime of a token",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1606"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Compares `exp` - `iat` with what the issuer gives to the same audience. With a history of 100 verified \
tokens, a life more than eight times the longest usual one (one token in a hundred has it), and over an hour, is \
medium: whoever has stolen a signing key makes tokens that last. Without a history, more than 24 hours or less than \
30 seconds is low, unless five such tokens were seen; where no issuer is configured, so that nobody can verify, it \
never learns, and stays low. Told once a day for each subject and address.\n\nBenign source: a new kind of client with \
a longer life, until its tokens are one in a hundred. Tokens out of their time, and forged ones, are left to their \
rules. Remembers the lives of 1,024 pairs of issuer and audience in powers of two (100 bytes each), and of each token \
that it was looked at (4 bytes).",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "longest_s",
            default: 86_400.0,
            min: 60.0,
            max: 31_536_000.0,
            doc: "Seconds of life beyond which a token is unusual while there is no history.",
        },
        Threshold {
            key: "shortest_s",
            default: 30.0,
            min: 0.0,
            max: 3_600.0,
            doc: "Seconds of life below which a token is unusual while there is no history.",
        },
        Threshold {
            key: "learn_tokens",
            default: 100.0,
            min: 10.0,
            max: 10_000.0,
            doc: "Verified tokens of an issuer and audience that make a history.",
        },
    ],
};

/// Pairs of issuer and audience. Only verified tokens make one, so that nobody can crowd them out.
const MAX_ISSUERS: usize = 1024;

/// How much longer than the longest is far.
const FAR: i64 = 8;

/// A lifetime within the hour is no prize.
const SHORT_S: i64 = 3600;

const DAY_S: u32 = 86_400;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(LifetimeUnusual {
        longest_s: i64::from(settings.count(&ABOUT, "longest_s")),
        shortest_s: i64::from(settings.count(&ABOUT, "shortest_s")),
        learn: settings.count(&ABOUT, "learn_tokens"),
        memory: Remembered {
            usual: Table::new(MAX_ISSUERS),
            seen: Marks::default(),
            told: Remarks::default(),
        },
    })
}

/// Lives in powers of two: the last counts 2^31 seconds and more.
const POWERS: usize = 32;

/// A life is usual if one token in so many has it, and five at least: whoever has stolen a key cannot teach what is
/// usual with a few tokens.
const USUAL: u32 = 100;

/// What an issuer has given so far: tokens by the power of two of their lives.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Usual([u16; POWERS]);

impl Usual {
    fn tokens(&self) -> u32 {
        self.0.iter().map(|count| u32::from(*count)).sum()
    }

    /// The longest usual life, rounded up to a power of two.
    fn longest_s(&self) -> i64 {
        let enough = (self.tokens() / USUAL).max(5);
        let power = self.0.iter().rposition(|count| u32::from(*count) >= enough).unwrap_or(POWERS - 1);
        1_i64 << power
    }

    fn learn(&mut self, life_s: i64) {
        if self.0.contains(&u16::MAX) {
            self.0.iter_mut().for_each(|count| *count /= 2);
        }
        if let Some(count) = self.0.get_mut(power(life_s)) {
            *count += 1;
        }
    }

    /// Tokens with about this life.
    fn count(&self, life_s: i64) -> u16 {
        self.0.get(power(life_s)).copied().unwrap_or_default()
    }
}

/// The power of two that a life is rounded up to.
fn power(life_s: i64) -> usize {
    (64 - life_s.saturating_sub(1).max(0).leading_zeros()).min(31) as usize
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    usual: Table<u64, Usual>,
    seen: Marks,
    told: Remarks,
}

struct LifetimeUnusual {
    longest_s: i64,
    shortest_s: i64,
    learn: u32,
    memory: Remembered,
}

/// How a lifetime is unusual.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Oddity {
    /// Against the issuer's history.
    Far,
    /// By itself.
    Long,
    Short,
}

impl LifetimeUnusual {
    /// Whether the token's lifetime is odd; learns it.
    fn look(&mut self, token: &Token, life_s: i64) -> Option<Oddity> {
        let by_itself = if life_s > self.longest_s {
            Some(Oddity::Long)
        } else {
            (life_s < self.shortest_s).then_some(Oddity::Short)
        };
        if !token.is_verified() {
            return by_itself;
        }
        let name = stable_hash(&(token.issuer.as_deref(), token.audiences.first()));
        let usual = self.memory.usual.get_or(name, Usual::default)?;
        let known = usual.tokens() >= self.learn;
        let far = life_s > SHORT_S && life_s.saturating_div(FAR) > usual.longest_s();
        let common = usual.count(life_s) >= 5;
        usual.learn(life_s);
        if known { far.then_some(Oddity::Far) } else { by_itself.filter(|_| !common) }
    }
}

impl Rule for LifetimeUnusual {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let token = &*held.token;
            let (Some(expires), Some(issued)) = (token.expires.get(), token.issued.get()) else { continue };
            let Some(known) = case.who.token(token.fingerprint) else { continue };
            // A token out of its time is `expired-token`'s or `not-yet-valid`'s.
            let at = case.exchange.at;
            let off = lateness_s(token, at).is_some_and(|late| late > 0)
                || earliness_s(token, at).is_some_and(|early| early > 0);
            let life_s = expires.saturating_sub(issued);
            if off || life_s < 0 || self.memory.seen.has(known.slot) || !is_ordinary(token) {
                continue;
            }
            self.memory.seen.set(known.slot);
            let Some(oddity) = self.look(token, life_s) else { continue };
            let far = oddity == Oddity::Far;
            let whose = (token.issuer.as_deref(), token.subject.as_deref(), case.who.address.slot);
            let name = (far, whose, case.exchange.endpoints.server);
            if self.memory.told.is_news(&name, case.second(), DAY_S) {
                let subject = Subject::new(case, held);
                report.push(statement(&subject, life_s, oddity).into_finding(&ABOUT, &subject));
            }
        }
    }
}

fn statement(subject: &Subject<'_>, life_s: i64, oddity: Oddity) -> Statement {
    let (severity, confidence, what) = match oddity {
        Oddity::Far => (Severity::Medium, 70, "far longer than its issuer's others"),
        Oddity::Long => (ABOUT.severity, 60, "longer than is usual"),
        Oddity::Short => (ABOUT.severity, 60, "shorter than is usual"),
    };
    Statement {
        severity,
        confidence,
        message: format!("A token that lives {life_s} s, {what}, {}.", subject.told()),
        brief: format!("token lives {life_s} s"),
        facts: vec![("lifetime_s", life_s.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage, token};
    use crate::token::{Signature, Unchecked};

    fn living(number: u64, seconds: i64) -> Token {
        let issued = i64::try_from(NOW_S).unwrap() - 10;
        Token {
            issued: Some(issued).into(),
            expires: Some(issued.saturating_add(seconds)).into(),
            ..token(number)
        }
    }

    fn learned() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        for number in 0..100 {
            assert!(play.ask(&Stage::new().status(200), [living(number, 900)]).is_empty());
        }
        play
    }

    #[test]
    fn without_history_a_day_is_long_and_half_a_minute_short() {
        for (seconds, found) in
            [(30, 0), (29, 1), (86_400, 0), (86_401, 1), (i64::MAX, 1), (11, 1), (0, 0), (-5, 0)]
        {
            let found_now = Play::new(rule(&Arc::default())).ask(&Stage::new(), [living(1, seconds)]);
            assert_eq!(found_now.len(), found, "{seconds}");
            assert!(found_now.iter().all(|f| f.severity == Severity::Low));
        }
    }

    #[test]
    fn a_long_life_against_the_history_is_medium_and_teaches_nothing() {
        let mut play = learned();
        assert!(play.ask(&Stage::new(), [living(500, 8192)]).is_empty(), "eight times is the edge");
        let mut play = learned();
        let found = play.ask(&Stage::new(), [living(500, 8200)]);
        assert_eq!(found[0].severity, Severity::Medium);
        assert!(play.ask(&Stage::new(), [living(501, 8200)]).is_empty(), "told");
        let other = Token { subject: Some("bob".into()), ..living(502, 8200) };
        assert_eq!(play.ask(&Stage::new(), [other])[0].severity, Severity::Medium);
    }

    #[test]
    fn an_issuer_with_long_tokens_is_used_to_them() {
        let mut play = Play::new(rule(&Arc::default()));
        let found: usize = (0..300).map(|n| play.ask(&Stage::new(), [living(n, 2_592_000)]).len()).sum();
        assert_eq!(found, 1, "one remark while there was no history");
    }

    #[test]
    fn audiences_have_histories_of_their_own() {
        let mut play = learned();
        let batch = living(700, 36_000).of_profile(|p| p.audiences = ["batch".into()].into_iter().collect());
        assert!(play.ask(&Stage::new(), [batch]).is_empty());
    }

    #[test]
    fn unverified_and_forged_tokens_teach_nothing() {
        let mut play = learned();
        for number in 200..400 {
            let forged = Token { signature: Signature::Invalid, ..living(number, 90_000_000) };
            let stranger = Token {
                signature: Signature::Unchecked(Unchecked::NoIssuer),
                policy: None,
                ..living(number + 1000, 80_000)
            };
            assert!(play.ask(&Stage::new(), [forged, stranger]).is_empty());
        }
        assert_eq!(play.ask(&Stage::new(), [living(500, 100_000)])[0].severity, Severity::Medium);
    }

    #[test]
    fn a_restart_keeps_the_history() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&Stage::new(), [living(500, 100_000)])[0].severity, Severity::Medium);
    }
}
