//! `guessable-token`: opaque tokens that an attacker can compute.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::remarks::Remarks;
use crate::detect::statement::{Statement, Subject, is_guardable};
use crate::detect::{
    About, Birth, Case, Column, DetectSettings, Guard, Memory, Needs, Report, Rule, Severity, Slot,
    Threshold, When,
};
use crate::http::Exchange;
use crate::token::facts::{Guess, OpaqueFacts};
use crate::token::{Carrier, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "guessable-token",
    title: "Tokens that can be guessed",
    version: "1.2.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1110", "T1606"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires when a service accepts an opaque token that is no secret: with fewer than 40 bits even if each \
character were random, made of common words, the time, the MD5 or SHA-1 of a number below 10,000 or of the time; and \
when five tokens of one pattern that it accepts are numbered closely together.\n\nWhoever has one such token has all \
of them. Told once a day for each service, address and reason.\n\nOnly tokens count that are the one credential of a \
request (no cookie, no other key) and were answered 2xx where strangers are known to be refused, or where the same \
address was refused with another token within ten minutes, so that neither a client that sends `null` nor a scanner that tries `admin` makes an alert. Random tokens, UUIDs of version 4 and ULIDs \
never fire.\n\nWith `tokens.learn_issued` it sees tokens as they are issued. One that was issued, and is then used and \
answered 2xx, need not come to a route that refuses strangers: a service that issues a token means it. And five that one \
service issued with close numbers make a sequence, although others use them elsewhere; it is told at the next use of \
one that was issued.\n\nNot seen: what a poor random generator made. Keeps 16 numbers a service twice (560 bytes).",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "sequence",
            default: 5.0,
            min: 3.0,
            max: 16.0,
            doc: "Accepted tokens with close numbers that make a sequence.",
        },
        Threshold {
            key: "again_s",
            default: 86_400.0,
            min: 60.0,
            max: 2_592_000.0,
            doc: "Seconds after which an address is told of again.",
        },
    ],
};

/// Numbers remembered of a service.
const MAX_NUMBERS: usize = 16;

/// How far apart numbers are that were counted up: in between others were issued that are not seen here.
const CLOSE: u64 = 64;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(GuessableToken {
        sequence: settings.count(&ABOUT, "sequence"),
        again_s: settings.count(&ABOUT, "again_s"),
        memory: (Column::default(), Remarks::default(), Column::default(), Column::default()),
    })
}

/// The newest numbers that a service accepted, each with the hash of what is around it.
#[derive(Default, Serialize, Deserialize)]
struct Numbers {
    seen: ArrayVec<(u64, u64), MAX_NUMBERS>,
    next: u8,
}

impl Numbers {
    /// How many tokens, this one included, have a number close to this one's. A known one is no news.
    fn close_to(&mut self, number: (u64, u64)) -> u32 {
        if self.seen.contains(&number) {
            return 0;
        }
        let close = |other: &&(u64, u64)| other.0 == number.0 && other.1.abs_diff(number.1) <= CLOSE;
        let count = self.seen.iter().filter(close).count();
        if let Err(full) = self.seen.try_push(number) {
            let at = usize::from(self.next) % MAX_NUMBERS;
            if let Some(oldest) = self.seen.get_mut(at) {
                *oldest = full.element();
            }
            self.next = self.next.wrapping_add(1);
        }
        u32::try_from(count + 1).unwrap_or(u32::MAX)
    }
}

struct GuessableToken {
    sequence: u32,
    again_s: u32,
    memory: (Column<Numbers>, Remarks, Column<Refused>, Column<Issuing>),
}

/// The newest numbers that a service issued.
#[derive(Default, Serialize, Deserialize)]
struct Issuing {
    numbers: Numbers,
    /// What is around the numbers that were found to count up.
    counted: Option<u64>,
}

/// Where and when an address was refused with an opaque token last: 16 bytes an address.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Refused {
    route: Slot,
    at_s: u32,
}

/// Seconds for which a refusal says that the route refuses whoever guesses.
const REFUSAL_S: u32 = 600;

/// Why tokens can be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Why {
    Itself(Guess),
    Counted,
}

impl Rule for GuessableToken {
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
        self.note_issued(case);
        for held in case.tokens {
            let Some(facts) = held.token.opaque() else { continue };
            let refused = self.memory.2.of(case.who.address.slot);
            if case.exchange.is_refused() {
                *refused = Refused { route: case.route.slot, at_s: case.second() };
                continue;
            }
            let guesses =
                refused.route == case.route.slot && case.second().saturating_sub(refused.at_s) <= REFUSAL_S;
            let birth = case.birth(held.token.fingerprint).copied();
            let guarded = case.route.guard == Guard::Refuses || guesses || birth.is_some();
            if !guarded || !is_alone(case.exchange, held) {
                continue;
            }
            let subject = Subject::new(case, held);
            let telling = case.exchange.is_success() && is_guardable(case.route.kind);
            if !telling || subject.has_other_credential() {
                continue;
            }
            let Some(why) = self.why(case, facts, birth) else { continue };
            let name = (why, case.exchange.endpoints.server, case.who.address.slot);
            if self.memory.1.is_news(&name, case.second(), self.again_s) {
                report.push(statement(&subject, why, facts).into_finding(&ABOUT, &subject));
            }
        }
    }
}

impl GuessableToken {
    /// Remembers the numbers of the tokens that are issued now.
    fn note_issued(&mut self, case: &Case<'_>) {
        for number in case.issue.tokens.iter().filter_map(|token| token.opaque?.number) {
            let issuing = self.memory.3.of(case.who.service.slot);
            if issuing.numbers.close_to(number) >= self.sequence {
                issuing.counted = Some(number.0);
            }
        }
    }

    fn why(&mut self, case: &Case<'_>, facts: &OpaqueFacts, birth: Option<Birth>) -> Option<Why> {
        if let Some(guess) = facts.guess {
            return Some(Why::Itself(guess));
        }
        if let (Some(birth), Some((around, _))) = (birth, facts.number)
            && self.memory.3.peek(birth.service).is_some_and(|issuing| issuing.counted == Some(around))
        {
            return Some(Why::Counted);
        }
        let numbers = self.memory.0.of(case.who.service.slot);
        (numbers.close_to(facts.number?) >= self.sequence).then_some(Why::Counted)
    }
}

/// Whether the token is the only credential: otherwise something else may be what was accepted.
fn is_alone(exchange: &Exchange, held: &TokenUse) -> bool {
    let request = &exchange.request;
    let cookies = request.value("cookie");
    let other_cookie = match held.carrier {
        Carrier::Cookie(_) => cookies.is_some_and(|cookies| memchr::memchr(b';', cookies).is_some()),
        _ => cookies.is_some(),
    };
    let other_header = held.carrier != Carrier::Authorization && request.value("authorization").is_some();
    let key = ["x-api-key", "api-key", "apikey"].iter().any(|name| request.value(name).is_some());
    !other_cookie && !other_header && !key
}

fn statement(subject: &Subject<'_>, why: Why, facts: &OpaqueFacts) -> Statement {
    let (reason, word) = match why {
        Why::Itself(guess) => (guess.as_str(), "guessable"),
        Why::Counted => ("its neighbours are counted up", "numbered"),
    };
    Statement {
        severity: ABOUT.severity,
        confidence: if matches!(why, Why::Itself(Guess::Short)) { 75 } else { 90 },
        message: format!("A token that can be guessed ({reason}) {}.", subject.told()),
        brief: format!("{word} token accepted"),
        facts: vec![("reason", reason.into()), ("bits_at_most", facts.bits.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Form, Signature, Token, Unchecked};

    fn opaque(number: u64, facts: Option<OpaqueFacts>) -> Token {
        Token {
            form: Form::Opaque,
            signature: Signature::Unchecked(Unchecked::Unreadable),
            policy: None,
            ..token(number).with_extras(|e| e.opaque = facts)
        }
    }

    #[test]
    fn who_was_refused_before_has_guessed_although_the_route_looks_open() {
        let mut play = Play::new(rule(&Arc::default()));
        let open = |status| Stage::new().guard(Guard::Open).status(status);
        assert!(play.ask(&open(200), [short(1)]).is_empty(), "anybody gets in");
        assert!(play.ask(&open(401), [short(2)]).is_empty());
        assert_eq!(play.ask(&open(200), [short(3)]).len(), 1);
    }

    fn short(number: u64) -> Token {
        opaque(number, Some(OpaqueFacts { bits: 20, guess: Some(Guess::Short), number: None }))
    }

    fn numbered(around: u64, number: u64) -> Token {
        opaque(number, Some(OpaqueFacts { bits: 60, guess: None, number: Some((around, number)) }))
    }

    fn guarded() -> Stage {
        Stage::new().status(200).guard(Guard::Refuses)
    }

    #[test]
    fn fires_once_a_day_for_each_address_and_reason() {
        let mut play = Play::new(rule(&Arc::default()));
        assert_eq!(play.ask(&guarded(), [short(1)])[0].severity, Severity::High);
        assert!(play.ask(&guarded(), [short(2)]).is_empty());
        play.restart(rule(&Arc::default()));
        assert!(play.ask(&guarded(), [short(3)]).is_empty());
        let words = OpaqueFacts { bits: 20, guess: Some(Guess::Words), number: None };
        assert_eq!(play.ask(&guarded(), [opaque(4, Some(words))]).len(), 1);
        assert_eq!(play.ask(&guarded().after_ms(86_400_000), [short(5)]).len(), 1);
    }

    #[test]
    fn what_was_not_accepted_for_its_own_sake_is_benign() {
        for stage in [
            guarded().status(401),
            guarded().status(404),
            guarded().guard(Guard::Unknown),
            guarded().guard(Guard::Open),
            guarded().header("Cookie", "session=1"),
            guarded().header("X-API-Key", "k"),
        ] {
            assert!(stage.ask(&mut *rule(&Arc::default()), [short(1)]).is_empty());
        }
        assert!(guarded().ask(&mut *rule(&Arc::default()), [opaque(1, None), token(2)]).is_empty());
    }

    #[test]
    fn five_close_numbers_of_one_pattern_are_a_sequence() {
        let mut play = Play::new(rule(&Arc::default()));
        let mut found = |around, number| play.ask(&guarded(), [numbered(around, number)]).len();
        assert_eq!([1000, 1001, 1001, 1001, 1030, 1040].map(|n| found(7, n)), [0; 6]);
        assert_eq!(found(8, 1041), 0, "another pattern");
        assert_eq!(found(7, 1041), 1);
        assert_eq!(found(7, 1042), 0, "told");
    }

    fn answer() -> Stage {
        Stage::to("POST", "/login").status(200).issuing(None, None)
    }

    #[test]
    fn what_was_issued_needs_no_guarded_route() {
        let mut play = Play::new(rule(&Arc::default()));
        let open = || Stage::new().status(200).guard(Guard::Open);
        play.ask_issuing(&answer(), [], [short(1)]);
        assert!(play.ask(&open(), [short(2)]).is_empty(), "nobody issued it");
        assert!(play.ask(&open().status(404), [short(1)]).is_empty());
        assert!(play.ask(&open().header("Cookie", "session=1"), [short(1)]).is_empty());
        assert_eq!(play.ask(&open(), [short(1)]).len(), 1);
    }

    #[test]
    fn issued_numbers_make_a_sequence_that_is_told_at_a_use() {
        let mut play = Play::new(rule(&Arc::default()));
        let used = || Stage::new().status(200);
        for n in 0..5_u64 {
            assert!(play.ask_issuing(&answer(), [], [numbered(7, 1000 + n)]).is_empty());
            let found = play.ask(&used(), [numbered(7, 1000 + n)]);
            assert_eq!(found.len(), usize::from(n == 4), "{n}");
        }
        play.restart(rule(&Arc::default()));
        let elsewhere = used().client("203.0.113.5");
        assert_eq!(play.ask(&elsewhere, [numbered(7, 1002)]).len(), 1, "another address");
        assert!(play.ask(&elsewhere, [numbered(8, 1002)]).is_empty(), "not issued");
    }

    #[test]
    fn random_tokens_that_are_issued_are_benign() {
        let mut play = Play::new(rule(&Arc::default()));
        for n in 0..500_u64 {
            let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            play.ask_issuing(&answer(), [], [numbered(7, number)]);
            assert!(play.ask(&Stage::new().status(200), [numbered(7, number)]).is_empty());
        }
    }

    #[test]
    fn numbers_far_apart_are_no_sequence() {
        let mut play = Play::new(rule(&Arc::default()));
        for n in 0..500_u64 {
            let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(play.ask(&guarded(), [numbered(7, number)]).is_empty());
        }
    }
}
