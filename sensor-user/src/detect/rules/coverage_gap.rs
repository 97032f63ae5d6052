//! `coverage-gap`: capture lost bytes that could have held a request, or the sensor leaves out what it could judge.

use std::sync::Arc;

use std::time::Duration;

use crate::capture::{Loss, LossKind, Time};
use crate::detect::roster::stable_hash;
use crate::detect::{About, Case, DetectSettings, Finding, Needs, Report, Rule, Severity, Threshold, When};
use crate::http::Coverage;

/// The card.
pub static ABOUT: About = About {
    id: "coverage-gap",
    title: "Requests may have been missed",
    version: "1.1.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1562.006"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires when the kernel's ring was full, a packet could not be read, or bytes are missing inside a \
connection, so that a request may have gone unseen. One finding for each reason and minute, with the number of \
records.\n\nA sensor that misses requests must say so: what it did not see it could not judge, and an attacker \
may cause the loss on purpose. From 1000 records within a minute it is medium.\n\nBenign source: overload. The \
remedy is a larger ring (`capture.ring_bytes`) or fewer ports. Losses that cannot hold a request are counted in \
the metrics only.\n\nUnder more load than the sensor can handle it leaves out, in this order, what matters least: \
responses, bodies, and all but samples of the uses of tokens that are known to be good; never what is new, failures \
or logins. One alert of its own says so (reason `overload`), and how much it was; it is low, whatever the number.",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "medium_records",
        default: 1000.0,
        min: 1.0,
        max: 1_000_000_000.0,
        doc: "Records lost within a minute from which it is medium.",
    }],
};

/// Reasons told apart. Sources have fewer than ten; what is beyond is counted with the last.
const MAX_REASONS: usize = 16;

/// How long losses are gathered into one finding.
const GATHER: Duration = Duration::from_mins(1);

/// The reason of what is left out on purpose.
const OVERLOAD: &str = "overload";

/// What is left out, by the reason of its loss and in words. Anything else is counted with the last.
const SHED: [(&str, &str); 3] = [
    ("shed_response", "responses"),
    ("shed_body", "pieces of request bodies"),
    ("known_good", "uses of known-good tokens"),
];

/// The reason of gaps that reassembly or HTTP found inside a connection.
const IN_CONNECTION: &str = "connection_gap";

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    let medium_records = u64::from(settings.count(&ABOUT, "medium_records"));
    Box::new(CoverageGap { medium_records, reasons: Vec::new(), shed: Shed::default() })
}

/// What was lost for one reason since it was last told.
struct Lost {
    reason: &'static str,
    records: u64,
    /// When it was last told.
    told: Time,
    newest: Time,
}

struct CoverageGap {
    medium_records: u64,
    /// At most [`MAX_REASONS`], in the order of their first loss.
    reasons: Vec<Lost>,
    shed: Shed,
}

/// What was left out since it was last told, as [`SHED`] has it.
#[derive(Default)]
struct Shed {
    records: [u64; SHED.len()],
    /// When it was last told, if ever.
    told: Option<Time>,
    newest: Time,
}

impl Shed {
    fn add(&mut self, loss: &Loss, report: &mut Report) {
        let at = SHED.iter().position(|(reason, _)| *reason == loss.reason).unwrap_or(SHED.len() - 1);
        if let Some(records) = self.records.get_mut(at) {
            *records = records.saturating_add(loss.records);
        }
        self.newest = self.newest.max(loss.at);
        self.tell(loss.at, report);
    }

    /// What comes first is told at once, the rest once a minute.
    fn tell(&mut self, now: Time, report: &mut Report) {
        let soon = self.told.is_some_and(|told| now.since(told) < GATHER);
        if soon || self.records.iter().all(|records| *records == 0) {
            return;
        }
        self.told = Some(now);
        report.push(overload(std::mem::take(&mut self.records), self.newest));
    }
}

impl CoverageGap {
    /// The first loss of a reason is told at once; later ones once a minute.
    fn add(&mut self, reason: &'static str, records: u64, at: Time, report: &mut Report) {
        let full = self.reasons.len() >= MAX_REASONS;
        let found = self.reasons.iter().position(|l| l.reason == reason).or(full.then_some(MAX_REASONS - 1));
        if let Some(lost) = found.and_then(|i| self.reasons.get_mut(i)) {
            lost.records = lost.records.saturating_add(records);
            lost.newest = lost.newest.max(at);
        } else {
            report.push(finding(reason, records, at, self.medium_records));
            self.reasons.push(Lost { reason, records: 0, told: at, newest: at });
        }
        self.tell(at, report);
    }

    fn tell(&mut self, now: Time, report: &mut Report) {
        for lost in &mut self.reasons {
            if lost.records > 0 && now.since(lost.told) >= GATHER {
                report.push(finding(lost.reason, lost.records, lost.newest, self.medium_records));
                lost.records = 0;
                lost.told = now;
            }
        }
    }
}

fn finding(reason: &'static str, records: u64, at: Time, medium_records: u64) -> Finding {
    let severity = if records >= medium_records { Severity::Medium } else { ABOUT.severity };
    Finding {
        rule: &ABOUT,
        at,
        severity,
        confidence: 100,
        principal: None,
        token: None,
        group: None,
        message: format!(
            "{records} records that may have held requests were lost ({reason}): what they held was not judged."
        ),
        brief: format!("capture lost data: {reason}"),
        facts: vec![("reason", reason.into()), ("records", records.into())],
        scene: None,
    }
}

fn overload(records: [u64; SHED.len()], at: Time) -> Finding {
    let parts = SHED.iter().zip(records).filter(|(_, records)| *records > 0);
    let words: Vec<_> = parts.map(|((_, what), records)| format!("{records} {what}")).collect();
    let facts = SHED.iter().zip(records).map(|((reason, _), records)| (*reason, records.into()));
    Finding {
        group: Some(stable_hash(OVERLOAD)),
        message: format!(
            "There is more traffic than the sensor can handle. It left out what matters least: {}.",
            words.join(", ")
        ),
        brief: "overload: judges samples".to_owned(),
        facts: [("reason", OVERLOAD.into())].into_iter().chain(facts).collect(),
        ..finding(OVERLOAD, 0, at, u64::MAX)
    }
}

impl Rule for CoverageGap {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::ODD
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if case.exchange.coverage == Coverage::Gap {
            self.add(IN_CONNECTION, 1, case.exchange.ended_at, report);
        }
    }

    fn lost(&mut self, loss: &Loss, report: &mut Report) {
        match loss.kind {
            LossKind::Request if loss.records > 0 => self.add(loss.reason, loss.records, loss.at, report),
            LossKind::Shed => self.shed.add(loss, report),
            LossKind::Request | LossKind::Other => {}
        }
    }

    fn tick(&mut self, now: Time, report: &mut Report) {
        self.tell(now, report);
        self.shed.tell(now, report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;

    fn lose(
        rule: &mut dyn Rule,
        reason: &'static str,
        records: u64,
        secs: u64,
        kind: LossKind,
    ) -> Vec<(u64, Severity)> {
        let mut report = Vec::new();
        rule.lost(&Loss { at: Time::from_secs(secs), reason, records, kind }, &mut report);
        report.iter().map(|f| (f.facts[1].1.as_u64().unwrap(), f.severity)).collect()
    }

    #[test]
    fn tells_each_reason_once_a_minute_with_its_sum() {
        let mut rule = rule(&Arc::default());
        assert_eq!(lose(&mut *rule, "ring_full", 3, 100, LossKind::Request), [(3, Severity::Low)]);
        assert_eq!(lose(&mut *rule, "unreadable", 1, 100, LossKind::Request), [(1, Severity::Low)]);
        for second in 101..160 {
            assert_eq!(lose(&mut *rule, "ring_full", 20, second, LossKind::Request), []);
        }
        assert_eq!(
            lose(&mut *rule, "ring_full", 1, 160, LossKind::Request),
            [(59 * 20 + 1, Severity::Medium)]
        );
        let mut report = Vec::new();
        rule.tick(Time::from_secs(300), &mut report);
        assert!(report.is_empty(), "nothing is told twice");
    }

    #[test]
    fn silence_does_not_swallow_the_rest() {
        let mut rule = rule(&Arc::default());
        lose(&mut *rule, "ring_full", 3, 100, LossKind::Request);
        lose(&mut *rule, "ring_full", 4, 101, LossKind::Request);
        let mut report = Vec::new();
        rule.tick(Time::from_secs(160), &mut report);
        assert_eq!((report.len(), report[0].at), (1, Time::from_secs(101)));
    }

    #[test]
    fn losses_without_requests_are_no_gap() {
        assert_eq!(
            lose(&mut *rule(&Arc::default()), "ring_full_response", 1_000_000, 100, LossKind::Other),
            []
        );
    }

    #[test]
    fn overload_is_told_at_once_and_then_once_a_minute() {
        let mut rule = rule(&Arc::default());
        let mut shed = |reason, records, secs| {
            let (mut report, at) = (Vec::new(), Time::from_secs(secs));
            rule.lost(&Loss { at, reason, records, kind: LossKind::Shed }, &mut report);
            rule.tick(at, &mut report);
            report
        };
        let first = shed("shed_response", 7, 100);
        assert_eq!((first.len(), first[0].severity, first[0].facts.len()), (1, Severity::Low, 4));
        assert!(first[0].message.ends_with("least: 7 responses."), "{}", first[0].message);
        assert!(shed("known_good", 1_000_000, 130).is_empty());
        let second = shed("shed_body", 2, 160);
        let end = "least: 2 pieces of request bodies, 1000000 uses of known-good tokens.";
        assert!(second.len() == 1 && second[0].message.ends_with(end), "{second:?}");
        assert_eq!((second[0].group, second[0].severity), (first[0].group, Severity::Low));
        assert!(shed("known_good", 0, 300).is_empty(), "nothing was left out since");
    }

    #[test]
    fn gaps_inside_connections_count() {
        let mut stage = Stage::new();
        let mut rule = rule(&Arc::default());
        assert!(stage.ask(&mut *rule, []).is_empty());
        stage.exchange.coverage = Coverage::Gap;
        assert_eq!(stage.ask(&mut *rule, [])[0].brief, "capture lost data: connection_gap");
        assert!(stage.ask(&mut *rule, []).is_empty());
    }

    #[test]
    fn reasons_are_bounded() {
        let mut rule = rule(&Arc::default());
        let name = |i: u64| -> &'static str { Box::leak(format!("r{i}").into_boxed_str()) };
        let told: usize = (0..100).map(|i| lose(&mut *rule, name(i), 1, 100, LossKind::Request).len()).sum();
        assert_eq!(told, MAX_REASONS);
    }
}
