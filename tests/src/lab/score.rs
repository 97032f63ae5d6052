//! What the sensor said against what was done: recall, precision, false alarms, delay.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::MS;
use super::attacks::{ABOUT_SERVICES, TABLE};
use super::label::Label;
use crate::sensor::Alert;

/// An alert may be told with the time of the answer's end, and labels begin with the request.
const SLACK_MS: u64 = 2_000;
/// Misses and false alarms that are shown of one rule.
const SHOWN: usize = 4;

/// One new alert, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Said {
    /// The rule.
    pub rule: String,
    /// When: milliseconds since the epoch.
    pub at_ms: u64,
    /// The client; none if the alert is about the service.
    pub client: Option<IpAddr>,
    /// The subject, verified or not.
    pub principal: String,
    /// Whether the subject is verified.
    pub verified: bool,
    /// The service.
    pub service: Option<SocketAddr>,
    /// The severity's name.
    pub severity: String,
    /// The sentence.
    pub message: String,
}

impl Said {
    /// Reads an event; none if it is news of an old alert.
    #[must_use]
    pub fn of(alert: &Alert) -> Option<Self> {
        let at = |pointer: &str| alert.0.pointer(pointer);
        let text = |pointer: &str| at(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let server: Option<IpAddr> = text("/evidences/0/dst_endpoint/ip").parse().ok();
        let port = alert.server_port().and_then(|p| u16::try_from(p).ok());
        // Incidents say which alerts belong together; each of those is judged.
        let is_alert = at("/class_uid").and_then(Value::as_u64) == Some(2004);
        (is_alert && alert.is_new()).then(|| Self {
            rule: alert.rule().to_owned(),
            at_ms: at("/time").and_then(Value::as_u64).unwrap_or_default(),
            client: alert.client().parse().ok(),
            principal: text("/evidences/0/actor/user/uid"),
            verified: at("/unmapped/verified").and_then(Value::as_bool).unwrap_or_default(),
            service: server.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)),
            severity: alert.severity().to_owned(),
            message: text("/message"),
        })
    }

    /// Whether this alert is about what a label says: time, and somebody who took part.
    fn is_about(&self, label: &Label, until: u64) -> bool {
        let (first, last) = (label.first / MS, until / MS);
        if self.at_ms + SLACK_MS < first || self.at_ms > last + SLACK_MS {
            return false;
        }
        if label.is_fact && matches!(self.severity.as_str(), "High" | "Critical") {
            return false;
        }
        let nobody = self.client.is_none();
        let service = label.service.is_some() && (self.service.is_none() || self.service == label.service);
        service && (nobody || ABOUT_SERVICES.contains(&self.rule.as_str()))
            || self.client.is_some_and(|ip| label.addresses.contains(&ip))
            || self.verified && label.principals.contains(&self.principal)
    }

    /// Whether this alert says that the attack goes on that a label is about: what is true of a service is told once
    /// while it lasts, and two attacks may overlap.
    fn covers(&self, label: &Label) -> bool {
        let earlier = match self.rule.as_str() {
            "many-failing-accounts" => super::DAY,
            rule if ABOUT_SERVICES.contains(&rule) => super::DAY / 24,
            _ => 0,
        };
        let longer = Label { first: label.first.saturating_sub(earlier), ..label.clone() };
        self.is_about(&longer, label.last)
    }
}

/// One rule's score.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Labelled attacks.
    pub attacks: u64,
    /// Of them, those that it told.
    pub found: u64,
    /// New alerts.
    pub alerts: u64,
    /// Of them, those about an attack or a benign fact that may be told.
    pub right: u64,
    /// Milliseconds from the first malicious packet to the alert, in the time of the data.
    pub from_first: Vec<u64>,
    /// The same from the deciding packet.
    pub from_deciding: Vec<u64>,
    /// Attacks that were missed, some of them.
    pub missed: Vec<String>,
    /// False alarms, some of them.
    pub wrong: Vec<String>,
}

/// The scores of every rule over every seed so far.
#[derive(Debug, Default)]
pub struct Card {
    /// By rule.
    pub scores: BTreeMap<String, Score>,
    /// Benign exchanges.
    pub benign: u64,
    /// Exchanges of attacks.
    pub malicious: u64,
}

/// What must be reached.
const RECALL_TOTAL: f64 = 0.99;
const RECALL_EACH: f64 = 0.95;
const FALSE_A_PER_MILLION: f64 = 1.0;
const FALSE_REST_PER_MILLION: f64 = 10.0;

impl Card {
    /// Adds one seed's run. Rules that are not `shipped` are not asked for.
    pub fn add(&mut self, seed: u64, labels: &[Label], said: &[Said], shipped: &[String]) {
        for rule in shipped {
            self.scores.entry(rule.clone()).or_default();
        }
        for alert in said {
            let score = self.scores.entry(alert.rule.clone()).or_default();
            score.alerts += 1;
            let rule = alert.rule.as_str();
            let right = labels.iter().any(|l| {
                // The sum of what was said of somebody; half of it is left after a day.
                if rule == "entity-risk" {
                    return alert.is_about(l, l.last.max(l.echo) + 3 * super::DAY);
                }
                (l.rules.contains(&rule) || l.also.contains(&rule)) && alert.is_about(l, l.last.max(l.echo))
            });
            if right {
                score.right += 1;
            } else if score.wrong.len() < SHOWN {
                score.wrong.push(format!(
                    "seed {seed}, {}: {} {} [{} {}]",
                    moment(alert.at_ms),
                    alert.severity,
                    alert.message,
                    alert.client.map(|ip| ip.to_string()).unwrap_or_default(),
                    alert.principal,
                ));
            }
        }
        for label in labels.iter().filter(|l| !l.is_fact) {
            for rule in label.rules.iter().filter(|rule| shipped.iter().any(|s| s == *rule)) {
                self.recall(seed, label, rule, said);
            }
        }
    }

    fn recall(&mut self, seed: u64, label: &Label, rule: &str, said: &[Said]) {
        let score = self.scores.entry(rule.to_owned()).or_default();
        score.attacks += 1;
        let first = said.iter().filter(|a| a.rule == rule && a.covers(label)).map(|a| a.at_ms).min();
        let Some(at) = first else {
            if score.missed.len() < SHOWN {
                let who = (&label.addresses.first(), &label.principals);
                score.missed.push(format!(
                    "seed {seed}, {}, {}: {who:?}",
                    label.id,
                    moment(label.first / MS)
                ));
            }
            return;
        };
        score.found += 1;
        score.from_first.push(at.saturating_sub(label.first / MS));
        if let Some(deciding) = label.deciding {
            score.from_deciding.push(at.saturating_sub(deciding / MS));
        }
    }

    /// What is below the goals; empty if nothing is.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (rule, score) in &self.scores {
            if ratio(score.found, score.attacks) < RECALL_EACH {
                out.push(format!("{rule}: found {} of {}", score.found, score.attacks));
            }
        }
        let (found, attacks) = self.total(|s| (s.found, s.attacks));
        if ratio(found, attacks) < RECALL_TOTAL {
            out.push(format!("total: found {found} of {attacks}"));
        }
        let (a, rest) = self.false_alarms();
        let millions = self.benign as f64 / 1e6;
        // Less than one alert cannot be had: of a short run of the rest, one is forgiven.
        if a as f64 > (FALSE_A_PER_MILLION * millions).floor() {
            out.push(format!("section A: {a} false alarms in {millions:.2} million"));
        }
        if rest as f64 > (FALSE_REST_PER_MILLION * millions).ceil() {
            out.push(format!("other sections: {rest} false alarms in {millions:.2} million"));
        }
        out
    }

    fn total(&self, of: impl Fn(&Score) -> (u64, u64)) -> (u64, u64) {
        self.scores.values().map(of).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// Of section A, and of the rest.
    fn false_alarms(&self) -> (u64, u64) {
        let mut sums = (0, 0);
        for (rule, score) in &self.scores {
            let wrong = score.alerts - score.right;
            *(if section(rule) == 'A' { &mut sums.0 } else { &mut sums.1 }) += wrong;
        }
        sums
    }

    /// The table that people read.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<24} {:>7} {:>7} {:>7} {:>10} {:>9} {:>22} {:>18}\n",
            "rule",
            "attacks",
            "recall",
            "alerts",
            "precision",
            "false/M",
            "from first: med, max",
            "deciding: med, max"
        );
        for entry in TABLE {
            match self.scores.get(entry.rule) {
                Some(score) => self.line(&mut text, entry.rule, score),
                None => {
                    let _ = writeln!(text, "{:<24} not shipped", entry.rule);
                }
            }
        }
        for (rule, score) in &self.scores {
            if section(rule) == '?' {
                self.line(&mut text, rule, score);
            }
        }
        let (found, attacks) = self.total(|s| (s.found, s.attacks));
        let (right, alerts) = self.total(|s| (s.right, s.alerts));
        let (a, rest) = self.false_alarms();
        let _ = writeln!(
            text,
            "total: {attacks} attacks, recall {:.2} %, precision {:.2} %; {} benign exchanges and {} of attacks; \
             false alarms a million: {:.1} of section A, {:.1} of the rest",
            100.0 * ratio(found, attacks),
            100.0 * ratio(right, alerts),
            self.benign,
            self.malicious,
            self.per_million(a),
            self.per_million(rest),
        );
        for (rule, score) in &self.scores {
            for miss in &score.missed {
                let _ = writeln!(text, "missed {rule}: {miss}");
            }
            for wrong in &score.wrong {
                let _ = writeln!(text, "false {rule}: {wrong}");
            }
        }
        text
    }

    fn line(&self, text: &mut String, rule: &str, score: &Score) {
        let percent =
            |a: u64, b: u64| if b == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * ratio(a, b)) };
        let _ = writeln!(
            text,
            "{rule:<24} {:>7} {:>7} {:>7} {:>10} {:>9.1} {:>22} {:>18}",
            score.attacks,
            percent(score.found, score.attacks),
            score.alerts,
            percent(score.right, score.alerts),
            self.per_million(score.alerts - score.right),
            spread(&score.from_first),
            spread(&score.from_deciding),
        );
    }

    fn per_million(&self, count: u64) -> f64 {
        count as f64 * 1e6 / self.benign.max(1) as f64
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let rules: Vec<Value> = self.scores.iter().map(|(rule, s)| {
            json!({
                "rule": rule, "section": section(rule).to_string(), "attacks": s.attacks, "found": s.found,
                "alerts": s.alerts, "right": s.right, "false_per_million": self.per_million(s.alerts - s.right),
                "from_first_ms": s.from_first, "from_deciding_ms": s.from_deciding,
                "missed": s.missed, "false_alarms": s.wrong,
            })
        }).collect();
        let missing: Vec<&str> =
            TABLE.iter().map(|e| e.rule).filter(|rule| !self.scores.contains_key(*rule)).collect();
        json!({
            "benign": self.benign, "malicious": self.malicious, "rules": rules, "not_shipped": missing,
            "below_goals": self.failures(),
        })
    }
}

/// The section of a rule; a question mark if nobody attacks it here.
fn section(rule: &str) -> char {
    TABLE.iter().find(|e| e.rule == rule).map_or('?', |e| e.section)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Median and largest, in seconds.
fn spread(values: &[u64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = |i: usize| sorted.get(i).map_or(0.0, |ms| *ms as f64 / 1000.0);
    if sorted.is_empty() {
        "-".into()
    } else {
        format!("{:.2} s, {:.1} s", at(sorted.len() / 2), at(sorted.len() - 1))
    }
}

/// Day and time of day of the lab: `day 70 14:05:09`.
fn moment(at_ms: u64) -> String {
    let s = at_ms.saturating_sub(super::START / MS) / 1000;
    format!("day {} {:02}:{:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rule: &str, at_ms: u64, client: &str) -> Said {
        Said {
            rule: rule.into(),
            at_ms,
            client: client.parse().ok(),
            principal: String::new(),
            verified: false,
            service: None,
            severity: "High".into(),
            message: String::new(),
        }
    }

    fn label() -> Label {
        Label {
            id: "alg-none/0".into(),
            rules: vec!["alg-none"],
            also: vec!["signature-invalid"],
            first: 10_000 * MS,
            deciding: Some(10_000 * MS),
            last: 20_000 * MS,
            addresses: vec!["45.131.0.9".parse().unwrap()],
            ..Label::default()
        }
    }

    #[test]
    fn an_alert_is_right_by_rule_and_time_and_who() {
        let mut card = Card { benign: 1_000_000, ..Card::default() };
        let shipped = ["alg-none".to_owned(), "signature-invalid".to_owned()];
        let alerts = [
            said("alg-none", 10_050, "45.131.0.9"),
            said("signature-invalid", 10_050, "45.131.0.9"),
            said("alg-none", 10_050, "45.131.0.8"),
            said("alg-none", 90_000, "45.131.0.9"),
            said("token-rate", 10_050, "45.131.0.9"),
        ];
        card.add(1, &[label()], &alerts, &shipped);
        let score = &card.scores["alg-none"];
        assert_eq!((score.attacks, score.found, score.alerts, score.right), (1, 1, 3, 1));
        assert_eq!((score.from_first.as_slice(), score.from_deciding.as_slice()), (&[50][..], &[50][..]));
        assert_eq!(card.false_alarms(), (2, 1));
        assert_eq!(card.failures().len(), 1, "two false alarms of section A: {:?}", card.failures());
    }

    #[test]
    fn a_missed_attack_fails_and_a_rule_that_is_not_there_does_not() {
        let mut card = Card::default();
        card.add(1, &[label()], &[], &[]);
        assert!(card.failures().is_empty());
        assert!(card.table().contains("alg-none                 not shipped"));
        card.add(1, &[label()], &[], &["alg-none".to_owned()]);
        assert_eq!(card.failures().len(), 2, "{:?}", card.failures());
    }

    #[test]
    fn a_benign_fact_is_forgiven_while_it_is_not_severe() {
        let fact = Label { is_fact: true, rules: Vec::new(), also: vec!["expired-token"], ..label() };
        let mut alerts =
            [said("expired-token", 10_050, "45.131.0.9"), said("expired-token", 10_050, "45.131.0.9")];
        alerts[0].severity = "Low".into();
        let mut card = Card::default();
        card.add(1, &[fact], &alerts, &["expired-token".to_owned()]);
        assert_eq!((card.scores["expired-token"].right, card.scores["expired-token"].attacks), (1, 0));
    }
}
