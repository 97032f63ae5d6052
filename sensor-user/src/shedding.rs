//! What is left out when more arrives than can be judged: samples stand for the uses of tokens that are known to be good.
//!
//! The kernel half sheds first, by how full its ring is: responses, then bodies. When that is not enough it says so, and
//! the gate closes by half, and by half again every tenth of a second for as long as it is told, down to one use in
//! [`MOST`]. A second after it was told last it begins to open in the same steps.
//!
//! Never left out, however great the pressure: what any token does for the first time from an address and client, tokens
//! against which anything can be said or that nobody has verified, several tokens in one request, failures, logins,
//! answers that issue tokens, and whatever has a gap or looks like smuggling. Rules that count see the samples only.

use std::hash::BuildHasher as _;
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::capture::{Loss, LossKind, Time};
use crate::detect::is_in_order;
use crate::http::{Coverage, Exchange};
use crate::token::{Standing, Token, TokenUse};

/// Of so many uses at most, one is judged.
const MOST: u16 = 64;

/// How long one step of the gate lasts while it closes.
const CLOSING: Duration = Duration::from_millis(100);

/// How long it lasts after the last pressure, and while it opens.
const OPENING: Duration = Duration::from_secs(1);

/// Habits that are told apart, 8 bytes each, and only under pressure: where two share a place, both are judged.
const PLACES: usize = 1 << 16;

/// A habit's hash without the bits of its count.
const HABIT: u64 = !0xffff;

/// Decides what is left out.
#[derive(Debug)]
pub struct Gate {
    /// Of so many uses of a habit, one is judged.
    every: u16,
    /// When the gate moved last, or was told to stay as narrow as it gets.
    moved: Time,
    /// Hash of a habit, and in the last two bytes how often it was met. Empty while all is judged.
    met: Box<[u64]>,
    /// Uses that were left out.
    shed: u64,
    /// The same, as far as it was told.
    told: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { every: 1, moved: Time::default(), met: Box::default(), shed: 0, told: 0 }
    }
}

impl Gate {
    /// The source falls behind.
    pub fn press(&mut self, now: Time) {
        if self.met.is_empty() {
            self.met = vec![0; PLACES].into_boxed_slice();
        }
        if self.every == 1 || now.since(self.moved) >= CLOSING {
            self.every = (self.every * 2).min(MOST);
            self.moved = now;
        }
    }

    /// Time has passed: what was left out since the last call, if anything was.
    pub fn tick(&mut self, now: Time) -> Option<Loss> {
        if self.every > 1 && now.since(self.moved) >= OPENING {
            self.every /= 2;
            self.moved = now;
            if self.every == 1 {
                self.met = Box::default();
            }
        }
        let records = self.shed - std::mem::replace(&mut self.told, self.shed);
        (records > 0).then_some(Loss { at: now, reason: "known_good", records, kind: LossKind::Shed })
    }

    /// Whether an exchange is left out.
    #[inline]
    pub fn sheds(&mut self, exchange: &Exchange, tokens: &[TokenUse]) -> bool {
        self.every > 1 && self.sheds_some(exchange, tokens)
    }

    #[cold]
    fn sheds_some(&mut self, exchange: &Exchange, tokens: &[TokenUse]) -> bool {
        let [held] = tokens else { return false };
        if !is_known_good(&held.token, exchange.at) || is_remarkable(exchange) {
            return false;
        }
        let habit = habit(exchange, &held.token);
        let places = self.met.len() as u64;
        let Some(place) = (habit >> 16)
            .checked_rem(places)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.met.get_mut(at))
        else {
            return false;
        };
        if *place & HABIT != habit & HABIT {
            *place = habit & HABIT;
            return false;
        }
        let count = (*place & !HABIT) + 1;
        // After 65,536 uses the place is another habit's, and the next use is judged.
        *place = (habit & HABIT) + count;
        let sheds = !count.is_multiple_of(u64::from(self.every));
        self.shed += u64::from(sheds);
        sheds
    }

    /// Uses that were left out so far.
    #[must_use]
    pub const fn shed(&self) -> u64 {
        self.shed
    }

    /// Which share of the uses of known-good tokens is judged now.
    #[must_use]
    pub fn share(&self) -> f64 {
        1.0 / f64::from(self.every)
    }
}

/// Whether a token is verified, and nothing can be said against it.
fn is_known_good(token: &Token, at: Time) -> bool {
    token.is_verified()
        && matches!(token.standing, Standing::Unknown | Standing::Good)
        && token.bound().is_none()
        && is_in_order(token, at)
}

/// Whether an exchange says more than that a token was used. A response that was not seen may have been shed: failures
/// and what answers a POST are not.
fn is_remarkable(exchange: &Exchange) -> bool {
    exchange.status().is_some_and(|status| status >= 400)
        || exchange.account().is_some()
        || exchange.issued().is_some()
        || !exchange.suspicions.is_empty()
        || exchange.coverage == Coverage::Gap
}

/// Who does what by which means: the token, the address, the client's own name, the method, the service.
fn habit(exchange: &Exchange, token: &Token) -> u64 {
    let agent = exchange.request.value("user-agent");
    let ends = (exchange.client, exchange.endpoints.server, exchange.origin.netns);
    FixedState::default().hash_one((token.fingerprint, ends, agent, exchange.request.method()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token, uses};
    use crate::http::Suspicions;
    use crate::token::{Signature, Unchecked};

    fn pressed(times: u64) -> Gate {
        let mut gate = Gate::default();
        (0..times).for_each(|i| gate.press(Time::from_secs(1).plus(CLOSING * u32::try_from(i).unwrap())));
        gate
    }

    /// Of 640 uses like this, how many are judged.
    fn judged(gate: &mut Gate, stage: &Stage, token: &Token) -> usize {
        (0..640).filter(|_| !gate.sheds(&stage.exchange, &uses([token.clone()]))).count()
    }

    fn usual() -> Stage {
        Stage::new().status(200)
    }

    #[test]
    fn without_pressure_all_is_judged_and_nothing_is_kept() {
        let mut gate = Gate::default();
        assert_eq!(judged(&mut gate, &usual(), &token(1)), 640);
        assert_eq!((gate.met.len(), gate.shed(), gate.tick(Time::from_secs(9))), (0, 0, None));
    }

    #[test]
    fn pressure_closes_the_gate_step_by_step_and_calm_opens_it() {
        let shares = |gate: &Gate| gate.every;
        assert_eq!([1, 2, 3, 7, 20].map(|times| shares(&pressed(times))), [2, 4, 8, 64, 64]);
        assert!((pressed(3).share() - 0.125).abs() < 0.001);
        let mut gate = pressed(1);
        gate.press(Time::from_secs(1));
        assert_eq!(shares(&gate), 2, "a second word at the same time is no step");
        let mut gate = pressed(3);
        let opened: Vec<_> = (2..7)
            .map(|secs| {
                gate.tick(Time::from_secs(secs));
                shares(&gate)
            })
            .collect();
        assert_eq!(opened, [8, 4, 2, 1, 1]);
        assert!(gate.met.is_empty());
    }

    #[test]
    fn one_of_many_good_uses_stands_for_all_and_the_others_are_counted() {
        let mut gate = pressed(6);
        assert_eq!(judged(&mut gate, &usual(), &token(1)), 1 + 639 / 64);
        let loss = gate.tick(Time::from_secs(1)).unwrap();
        assert_eq!((loss.reason, loss.records, loss.kind), ("known_good", 630, LossKind::Shed));
        assert_eq!(gate.tick(Time::from_secs(1)), None, "nothing is told twice");
    }

    #[test]
    fn a_response_that_was_shed_is_no_failure() {
        assert_eq!(judged(&mut pressed(6), &Stage::new(), &token(1)), 10);
    }

    #[test]
    fn what_is_new_is_judged() {
        let mut gate = pressed(6);
        assert_eq!(judged(&mut gate, &usual(), &token(1)), 10);
        let others = [
            usual().client("198.51.100.7"),
            usual().header("User-Agent", "sqlmap/1.8"),
            Stage::to("DELETE", "/orders/7").status(200),
        ];
        for other in others {
            assert!(!gate.sheds(&other.exchange, &uses([token(1)])));
        }
        let new = (2..2000).filter(|i| !gate.sheds(&usual().exchange, &uses([token(*i)]))).count();
        assert_eq!(new, 1998);
    }

    #[test]
    fn failures_logins_and_doubtful_tokens_are_always_judged() {
        let mut gate = pressed(6);
        for status in [400, 401, 403, 404, 429, 500] {
            assert_eq!(judged(&mut gate, &Stage::new().status(status), &token(1)), 640);
        }
        let mut odd = usual();
        odd.exchange.suspicions.insert(Suspicions::BAD_LENGTH);
        assert_eq!(judged(&mut gate, &odd, &token(1)), 640);
        let mut gap = usual();
        gap.exchange.coverage = Coverage::Gap;
        assert_eq!(judged(&mut gate, &gap, &token(1)), 640);
        let mut login = usual();
        login.exchange.body = Some(Box::new(crate::http::BodyFacts {
            account: Some("alice".into()),
            ..crate::http::BodyFacts::default()
        }));
        assert_eq!(judged(&mut gate, &login, &token(1)), 640);
        let doubtful = [
            Token { signature: Signature::Invalid, ..token(1) },
            Token { signature: Signature::Unchecked(Unchecked::Pending), ..token(1) },
            Token { standing: Standing::Listed, ..token(1) },
            Token { standing: Standing::Asked, ..token(1) },
            Token { expires: Some(1).into(), ..token(1) },
        ];
        for token in doubtful {
            assert_eq!(judged(&mut gate, &usual(), &token), 640, "{token:?}");
        }
        let two = uses([token(1), token(2)]);
        assert!((0..99).all(|_| !gate.sheds(&usual().exchange, &two)));
        assert!((0..99).all(|_| !gate.sheds(&usual().exchange, &[])));
    }
}
