//! The risk of principals, tokens and addresses: 0 to 100, raised by alerts, halved by every half-life that passes.
//!
//! An alert moves the risk half of its own risk towards the ceiling of its severity: low alerts alone never
//! pass 40, medium ones 80, high ones 95. A rule that has spoken of the entity before moves it by half as much again, so
//! that one noisy rule is not taken for many witnesses; several rules on one request are one witness, the worst of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::alert::entity::Entity;
use crate::alert::event::RISK;
use crate::capture::Time;
use crate::detect::roster::stable_hash;
use crate::detect::rules::entity_risk::ABOUT;
use crate::detect::table::Table;
use crate::detect::{Finding, Principal, Scene, Severity};

/// Rules remembered of one entity: who has heard of so many needs no finer count.
const MAX_RULES: usize = 8;

/// Thousandths of a point, in which risk is kept.
const POINT: u32 = 1000;

/// By how many points risk must fall below a threshold before crossing it is told again.
const HYSTERESIS: u8 = 20;

/// How risk is reckoned.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskSettings {
    /// Whether crossing a threshold is an alert.
    pub enabled: bool,
    /// The severity of such an alert, instead of its own.
    pub severity: Option<Severity>,
    /// From where it is a medium alert.
    pub medium: u8,
    /// From where it is a high alert.
    pub high: u8,
    /// In which risk falls by half.
    pub half_life: Duration,
    /// Entities remembered: about 180 bytes and a name each.
    pub max_entities: usize,
}

impl Default for RiskSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            severity: None,
            medium: 70,
            high: 90,
            half_life: Duration::from_hours(24),
            max_entities: 20_000,
        }
    }
}

/// The risk of one entity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Score {
    /// In [`POINT`]s, as of `at`.
    value: u32,
    at: Time,
    /// The threshold that was told: 0 none, 1 medium, 2 high.
    told: u8,
    alerts: u32,
    rules: SmallVec<[u32; MAX_RULES]>,
    /// What the risk was before the newest request that raised it, and when that ended.
    before: (u32, Time),
}

/// An entity has crossed a threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Who.
    pub entity: Entity,
    /// Medium or high.
    pub severity: Severity,
    /// The risk now.
    pub risk: u8,
    /// Alerts that have raised it.
    pub alerts: u32,
    /// Rules that made them, as far as they are counted.
    pub rules: u32,
}

/// The risks.
#[derive(Debug)]
pub struct Risks {
    settings: RiskSettings,
    pub(super) scores: Table<Entity, Score>,
}

impl Risks {
    /// Nobody is risky.
    #[must_use]
    pub fn new(settings: RiskSettings) -> Self {
        Self { scores: Table::new(settings.max_entities), settings }
    }

    /// Entities with a risk.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Alerts counted of the first of these.
    #[cfg(test)]
    fn of_alerts(&mut self, entities: &[Entity]) -> u32 {
        entities.first().and_then(|entity| self.scores.get(entity)).map_or(0, |score| score.alerts)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The risk of an entity, 0 to 100.
    pub fn of(&mut self, entity: &Entity, now: Time) -> u8 {
        let half_life = self.settings.half_life;
        self.scores.get(entity).map_or(0, |score| points(score.decayed(now, half_life)))
    }

    /// An alert of this severity and risk of its own is about these entities. The highest risk of them, and the first
    /// that has crossed a threshold: one alert is told for all.
    pub fn add(
        &mut self,
        entities: &[Entity],
        rule: &str,
        severity: Severity,
        own: u8,
        at: Time,
    ) -> (u8, Option<Crossing>) {
        let (mut highest, mut crossing) = (0, None);
        for entity in entities {
            let Some(score) = self.scores.get_or(entity.clone(), Score::default) else { continue };
            score.decay(at, &self.settings);
            score.add(rule, severity, own, at);
            highest = highest.max(points(score.value));
            let Some(severity) = score.crossed(&self.settings) else { continue };
            crossing.get_or_insert_with(|| Crossing {
                entity: entity.clone(),
                severity,
                risk: points(score.value),
                alerts: score.alerts,
                rules: u32::try_from(score.rules.len()).unwrap_or(u32::MAX),
            });
        }
        (highest, crossing.filter(|_| self.settings.enabled))
    }
}

impl Risks {
    /// What is said of a crossing; the scene is that of the alert that made it.
    pub(super) fn finding(&self, crossing: Crossing, scene: Option<Box<Scene>>, at: Time) -> Finding {
        let Crossing { entity, severity, risk, alerts, rules } = crossing;
        let kind = entity.kind();
        let many = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (principal, token) = match entity {
            Entity::Principal(subject, issuer) => (Some(Principal { subject, issuer, verified: true }), None),
            Entity::Token(token) => (None, Some(token)),
            Entity::Address(_) => (None, None),
        };
        Finding {
            rule: &ABOUT,
            at,
            severity: self.settings.severity.unwrap_or(severity),
            confidence: 80,
            principal,
            token,
            group: None,
            message: format!(
                "The risk of one {kind} has risen to {risk}: {} of {} about it have added up.",
                many(alerts, "alert"),
                many(rules, "rule")
            ),
            brief: format!("risk of {kind} {risk}"),
            facts: vec![
                ("entity", kind.into()),
                ("alerts", alerts.into()),
                ("rules", rules.into()),
                (RISK, risk.into()),
            ],
            scene,
        }
    }
}

impl Score {
    fn decayed(&self, now: Time, half_life: Duration) -> u32 {
        let halvings = now.since(self.at).as_secs_f64() / half_life.as_secs_f64().max(1.0);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the value itself"
        )]
        let value = (f64::from(self.value) * (-halvings).exp2()).round() as u32;
        value
    }

    fn decay(&mut self, now: Time, settings: &RiskSettings) {
        self.value = self.decayed(now, settings.half_life);
        self.at = self.at.max(now);
        let below = |threshold: u8| points(self.value) < threshold.saturating_sub(HYSTERESIS);
        if below(settings.medium) {
            self.told = 0;
        } else if below(settings.high) {
            self.told = self.told.min(1);
        }
        if self.value < POINT {
            self.alerts = 0;
            self.rules.clear();
        }
    }

    fn add(&mut self, rule: &str, severity: Severity, own: u8, at: Time) {
        if self.before.1 != at {
            self.before = (self.value, at);
        }
        let before = self.before.0;
        let room = u64::from(ceiling(severity).saturating_sub(before));
        let step = room * u64::from(own.min(100)) / 200;
        #[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        let rule = stable_hash(rule) as u32;
        let heard = self.rules.contains(&rule);
        if !heard && self.rules.len() < MAX_RULES {
            self.rules.push(rule);
        }
        let step = if heard { step / 2 } else { step };
        let raised = before.saturating_add(u32::try_from(step).unwrap_or(0)).min(100 * POINT);
        self.value = self.value.max(raised);
        self.alerts = self.alerts.saturating_add(1);
    }

    fn crossed(&mut self, settings: &RiskSettings) -> Option<Severity> {
        let (level, severity) = match points(self.value) {
            risk if risk >= settings.high => (2, Severity::High),
            risk if risk >= settings.medium => (1, Severity::Medium),
            _ => return None,
        };
        let news = level > self.told;
        self.told = self.told.max(level);
        news.then_some(severity)
    }
}

const fn ceiling(severity: Severity) -> u32 {
    POINT
        * match severity {
            Severity::Low => 40,
            Severity::Medium => 80,
            Severity::High => 95,
            Severity::Critical => 100,
        }
}

fn points(value: u32) -> u8 {
    u8::try_from(value / POINT).unwrap_or(100).min(100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alice() -> Entity {
        Entity::Principal("alice".into(), None)
    }

    fn at(hours: u64) -> Time {
        Time::from_secs(1_795_284_245 + hours * 3600)
    }

    /// Each alert is of a request of its own, nanoseconds apart.
    fn add_at(
        risks: &mut Risks,
        entities: &[Entity],
        rule: &str,
        severity: Severity,
        own: u8,
        hours: u64,
    ) -> (u8, Option<Crossing>) {
        let n = risks.of_alerts(entities);
        let at = Time(at(hours).0 + u64::from(n));
        risks.add(entities, rule, severity, own, at)
    }

    fn add(risks: &mut Risks, rule: &str, severity: Severity, hours: u64) -> (u8, Option<Severity>) {
        let own = (severity.id() - 1) * 25;
        let (risk, crossing) = add_at(risks, &[alice()], rule, severity, own, hours);
        (risk, crossing.map(|c| c.severity))
    }

    #[test]
    fn two_critical_witnesses_cross_and_one_does_not() {
        let mut risks = Risks::new(RiskSettings::default());
        assert_eq!(add(&mut risks, "alg-none", Severity::Critical, 0), (50, None));
        assert_eq!(
            add(&mut risks, "forged-token-accepted", Severity::Critical, 0),
            (75, Some(Severity::Medium))
        );
        assert_eq!(add(&mut risks, "bulk-access", Severity::Critical, 0), (87, None));
        assert_eq!(add(&mut risks, "injection", Severity::Critical, 0), (93, Some(Severity::High)));
        assert_eq!(add(&mut risks, "key-url", Severity::Critical, 0), (96, None));
    }

    #[test]
    fn many_rules_on_one_request_are_one_witness() {
        let mut risks = Risks::new(RiskSettings::default());
        for (rule, own, expected) in [("a", 60, 30), ("b", 100, 50), ("c", 80, 50), ("d", 100, 50)] {
            assert_eq!(risks.add(&[alice()], rule, Severity::Critical, own, at(0)), (expected, None));
        }
    }

    #[test]
    fn risk_halves_in_its_half_life() {
        let mut risks = Risks::new(RiskSettings::default());
        add(&mut risks, "alg-none", Severity::Critical, 0);
        let then = |risks: &mut Risks, hours| risks.of(&alice(), at(hours));
        assert_eq!([0, 24, 48, 240].map(|hours| then(&mut risks, hours)), [50, 25, 12, 0]);
        assert_eq!(risks.of(&Entity::Address([10, 0, 0, 1].into()), at(0)), 0);
    }

    #[test]
    fn minor_alerts_alone_never_cross() {
        let mut risks = Risks::new(RiskSettings::default());
        for number in 0..1000 {
            assert_eq!(add(&mut risks, &format!("rule-{number}"), Severity::Low, 0).1, None);
        }
        assert!(risks.of(&alice(), at(0)) <= 40);
    }

    #[test]
    fn one_noisy_rule_is_half_a_witness() {
        let (mut noisy, mut many) =
            (Risks::new(RiskSettings::default()), Risks::new(RiskSettings::default()));
        for number in 0..3 {
            add(&mut noisy, "alg-none", Severity::High, 0);
            add(&mut many, &format!("rule-{number}"), Severity::High, 0);
        }
        assert!(noisy.of(&alice(), at(0)) < many.of(&alice(), at(0)));
    }

    #[test]
    fn a_crossing_is_told_again_only_after_a_real_fall() {
        let mut risks = Risks::new(RiskSettings::default());
        add(&mut risks, "a", Severity::Critical, 0);
        assert_eq!(add(&mut risks, "b", Severity::Critical, 0).1, Some(Severity::Medium));
        // 75 decays to 63: above 50, so that climbing back is no news.
        assert_eq!(add(&mut risks, "c", Severity::High, 6), (75, None));
        // After a day it is below.
        assert_eq!(add(&mut risks, "d", Severity::Critical, 30), (68, None));
        assert_eq!(add(&mut risks, "e", Severity::Critical, 30).1, Some(Severity::Medium));
    }

    #[test]
    fn one_alert_about_three_entities_is_told_once() {
        let mut risks = Risks::new(RiskSettings::default());
        let all =
            [alice(), Entity::Token(crate::token::Fingerprint([1; 16])), Entity::Address([10; 4].into())];
        assert_eq!(add_at(&mut risks, &all, "a", Severity::Critical, 100, 0).1, None);
        let crossing = add_at(&mut risks, &all, "b", Severity::Critical, 100, 0).1.unwrap();
        assert_eq!((crossing.entity, crossing.alerts, crossing.rules), (alice(), 2, 2));
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(steps in prop::collection::vec((0_u8..4, 0_u8..=255, 0_u64..100, 0_u8..30), 1..200)) {
            let settings = RiskSettings { max_entities: 10, ..RiskSettings::default() };
            let mut risks = Risks::new(settings);
            for (severity, own, hours, number) in steps {
                let severity = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical][usize::from(severity)];
                let entity = Entity::Address([10, 0, 0, number].into());
                let (risk, _) = risks.add(&[entity], "rule", severity, own, at(hours));
                prop_assert!(risk <= 100 && risks.len() <= 10);
            }
        }
    }
}
