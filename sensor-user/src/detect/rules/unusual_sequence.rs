//! `unusual-sequence`: calls in an order that nobody uses.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::roster::stable_hash;
use crate::detect::statement::Statement;
use crate::detect::told::Daily;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Slot, Threshold,
    When,
};

/// The card.
pub static ABOUT: About = About {
    id: "unusual-sequence",
    title: "Calls in an unusual order",
    version: "1.1.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Learns which route follows which in the calls of one caller (a first-order Markov chain over all callers), \
and follows for each caller how improbable its newest calls were, as a mean of bits over about eight steps. Fires when \
that mean is above 7 bits and above the service's own mean by six times its spread, for a caller that made eight \
steps without a long pause. A kind of step counts once in 64 of a caller, and a rare one is taught by one in eight callers only, so \
that those who stray do not hide each other.\n\nProgrammes that use stolen tokens, and people who feel their way, do not walk as the \
application's own pages do. Taken alone it is weak evidence: it is low, told at most three times a day for each \
service, and only after a week and 10,000 steps of learning.\n\nBenign sources: new clients and new features, until \
they are learned. Routes that are younger than a week do not count as steps. It costs 40 bytes an actor, 8 a route, \
40 a service and 128 KiB for all transitions.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "learn_days",
            default: 7.0,
            min: 0.0,
            max: 90.0,
            doc: "Days of learning for each service.",
        },
        Threshold {
            key: "learn_steps",
            default: 10_000.0,
            min: 100.0,
            max: 1_000_000_000.0,
            doc: "Steps of learning for each service.",
        },
        Threshold {
            key: "per_day",
            default: 3.0,
            min: 1.0,
            max: 1000.0,
            doc: "Findings a day for each service.",
        },
    ],
};

/// Counters of transitions: a power of two. Two that share one look more usual than they are.
const COUNTERS: usize = 65_536;

/// Steps of one caller before its mean says something, and the weight of the newest.
const LEAST_STEPS: u16 = 8;
const WEIGHT: f32 = 0.125;

/// Bits a step below which nothing is said.
const LEAST_BITS: f32 = 7.0;

/// Bits from which a step is rare. Of the callers who make a rare step, one in so many teaches it: a few who stray do
/// not make their ways usual for each other, and a new client that many use is learned in a day.
const RARE_BITS: f32 = 7.0;
const TEACHERS: u64 = 8;

/// Steps within which each kind teaches once.
const LESSON: u8 = 64;

/// Seconds of silence after which a caller begins anew.
const PAUSE_S: u32 = 1800;

const DAY_S: u32 = 86_400;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(UnusualSequence {
        learn_s: settings.count(&ABOUT, "learn_days").saturating_mul(DAY_S),
        learn_steps: settings.count(&ABOUT, "learn_steps"),
        per_day: settings.count(&ABOUT, "per_day"),
        memory: State {
            counts: vec![0; COUNTERS],
            from: Column::default(),
            walks: Column::default(),
            services: Column::default(),
        },
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Walk {
    at: Slot,
    newest_s: u32,
    bits: f32,
    /// The kinds of its newest steps, by one bit of 64 each, and how many those were: each kind teaches once.
    kinds: u64,
    newest: u8,
    steps: u16,
    told: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct OfService {
    steps: u32,
    mean: f32,
    spread: f32,
    since_s: u32,
    daily: Daily,
}

#[derive(Serialize, Deserialize)]
struct State {
    counts: Vec<u16>,
    /// Steps from each route.
    from: Column<u32>,
    walks: Column<Walk>,
    services: Column<OfService>,
}

struct UnusualSequence {
    learn_s: u32,
    learn_steps: u32,
    per_day: u32,
    memory: State,
}

impl State {
    /// A step's improbability in bits. Counts it once in a lesson.
    fn step(&mut self, actor: Slot, from: Slot, to: Slot) -> f32 {
        let name = stable_hash(&(from, to));
        let place = usize::try_from(name >> 48).unwrap_or_default() % COUNTERS;
        let walk = self.walks.of(actor);
        let is_new = walk.kinds & (1 << (name & 63)) == 0;
        walk.kinds |= 1 << (name & 63);
        walk.newest += 1;
        if walk.newest >= LESSON {
            (walk.kinds, walk.newest) = (0, 0);
        }
        let total = self.from.of(from);
        let Some(count) = self.counts.get_mut(place) else { return 0.0 };
        // Half a step for what was never seen: a rare origin says little about what follows.
        let ratio = (approximate(*total) + 1.0) / (f32::from(*count) + 0.5);
        let bits = ratio.max(1.0).log2();
        let teaches = bits < RARE_BITS || stable_hash(&(actor, name)).is_multiple_of(TEACHERS);
        if !is_new || !teaches {
            return bits;
        }
        *count = count.saturating_add(1);
        *total = total.saturating_add(1);
        if *count == u16::MAX {
            // The ratio of all others to their origin goes on: this one is certain anyhow.
            *count = u16::MAX / 2;
            *total /= 2;
        }
        bits
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio of counts needs no more than 24 bits")]
const fn approximate(count: u32) -> f32 {
    count as f32
}

impl OfService {
    /// Learns a caller's mean; whether it is far from the usual.
    fn learn(&mut self, bits: f32) -> bool {
        let far = bits > LEAST_BITS && bits > self.mean + 6.0 * self.spread.max(0.25);
        self.steps = self.steps.saturating_add(1);
        let weight = (1.0 / approximate(self.steps)).max(0.001);
        let distance = (bits - self.mean).abs();
        self.mean += (bits - self.mean) * weight;
        self.spread += (distance - self.spread) * weight;
        far
    }
}

impl Rule for UnusualSequence {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::ACTOR
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn glance(&self, _token: u32, actor: u32) -> bool {
        _ = self.memory.walks.glance(actor);
        true
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(actor) = case.who.actor else { return };
        if matches!(case.route.kind, RouteKind::Health | RouteKind::Public) || case.route.slot.life == 0 {
            return;
        }
        let second = case.second();
        let walk = self.memory.walks.of(actor.known.slot);
        let from = std::mem::replace(&mut walk.at, case.route.slot);
        let paused = second.saturating_sub(walk.newest_s) > PAUSE_S;
        walk.newest_s = second;
        if paused || from.life == 0 {
            *walk = Walk { at: walk.at, newest_s: second, ..Walk::default() };
            return;
        }
        if from == case.route.slot {
            return;
        }
        let bits = self.memory.step(actor.known.slot, from, case.route.slot);
        if second.saturating_sub(case.route.first_s) < self.learn_s {
            return;
        }
        let walk = self.memory.walks.of(actor.known.slot);
        walk.steps = walk.steps.saturating_add(1);
        walk.bits += (bits - walk.bits) * WEIGHT.max(1.0 / f32::from(walk.steps));
        if walk.steps < LEAST_STEPS {
            return;
        }
        let (bits, told) = (walk.bits, walk.told);
        let service = self.memory.services.of(case.who.service.slot);
        if service.since_s == 0 {
            service.since_s = second;
        }
        let learned =
            service.steps >= self.learn_steps && second.saturating_sub(service.since_s) >= self.learn_s;
        if !service.learn(bits) || !learned || told || !service.daily.may_tell(second / DAY_S, self.per_day) {
            return;
        }
        let usual = service.mean;
        self.memory.walks.of(actor.known.slot).told = true;
        let statement = Statement {
            severity: ABOUT.severity,
            confidence: 35,
            message: format!(
                "The newest calls of one caller, up to {}, are in an order that is improbable here: {bits:.1} bits a \
                 step, where {usual:.1} are usual.",
                case.route.name
            ),
            brief: format!("improbable order of calls ({bits:.1} bits)"),
            facts: vec![("bits_per_step", f64::from(bits).into()), ("usual_bits", f64::from(usual).into())],
        };
        report.push(statement.into_actor_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, held_by};

    const PAGES: [&str; 12] = ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i", "/j", "/k", "/l"];

    fn ask(play: &mut Play, user: u64, page: usize, ms: u64) -> usize {
        let held = held_by(&format!("user-{user}"));
        let stage = Stage::to("GET", PAGES[page]).route_known(1000, 100_000_000).status(200).after_ms(ms);
        play.ask(&stage, [held]).len()
    }

    /// Users who walk from page to page as the pages say, with a way back now and then, for ten days.
    fn learned() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        for i in 0..30_000_u64 {
            let (user, step) = (i % 20, i / 20);
            let page = if step % 9 == 8 { 0 } else { usize::try_from(step % 12).unwrap() };
            assert_eq!(ask(&mut play, user, page, i * 28_800), 0, "{i}");
        }
        play
    }

    #[test]
    fn who_jumps_about_is_told_once() {
        let mut play = learned();
        let start = 30_000 * 28_800;
        let told: usize = (0..60_u64)
            .map(|i| ask(&mut play, 99, usize::try_from((i * 7 + i * i * 5) % 12).unwrap(), start + i * 1000))
            .sum();
        assert_eq!(told, 1);
    }

    #[test]
    fn who_walks_as_others_do_is_left_alone() {
        let mut play = learned();
        let start = 30_000 * 28_800;
        assert_eq!(
            (0..300_u64)
                .map(|i| ask(&mut play, 99, usize::try_from(i % 12).unwrap(), start + i * 1000))
                .sum::<usize>(),
            0
        );
    }

    #[test]
    fn nothing_is_said_in_the_first_week() {
        let mut play = Play::new(rule(&Arc::default()));
        for i in 0..5000_u64 {
            let page = usize::try_from(stable_hash(&i) % 12).unwrap();
            assert_eq!(ask(&mut play, i % 3, page, i * 1000), 0);
        }
    }

    #[test]
    fn a_restart_keeps_the_chain() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        let start = 30_000 * 28_800;
        let told: usize = (0..60_u64)
            .map(|i| ask(&mut play, 99, usize::try_from((i * 7 + i * i * 5) % 12).unwrap(), start + i * 1000))
            .sum();
        assert_eq!(told, 1);
    }
}
