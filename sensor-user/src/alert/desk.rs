//! The desk: findings in, alerts and incidents out.
//!
//! A finding that people have marked as a false positive ends here, counted. Any other joins its alert or opens one
//! ([`dedup`](crate::alert::dedup)). A new alert, or one that grows, raises the risk of those involved
//! ([`risk`](crate::alert::risk)) and joins its incident ([`incident`](crate::alert::incident)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::alert::dedup::{self, Files, Step};
use crate::alert::entity::Sharing;
use crate::alert::incident::Seen;
use crate::alert::incidents::{self, Incidents};
use crate::alert::key::Key;
use crate::alert::risk::{Crossing, RiskSettings, Risks};
use crate::alert::{Alert, Event, Incident, Marks};
use crate::capture::Time;
use crate::detect::rules::entity_risk;
use crate::detect::{Finding, Scene};

/// The alert stage's slice of the configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertSettings {
    /// How long repeats are counted on one alert, from its first finding.
    pub dedup_window: Duration,
    /// Cooling by rule id; rules that are not named cool as their card says.
    pub cooling: BTreeMap<String, Duration>,
    /// Alerts open or cooling at a time: about 3 KiB each.
    pub max_alerts: usize,
    /// Alerts of one rule and address that are told apart by token or principal within one window. More are
    /// folded into one, so that a flood of distinct forgeries is not a flood of alerts.
    pub max_per_source: u32,
    /// Alerts of one rule within one window, whoever is behind them. More are folded into one, so that a storm from a
    /// million sources ends in alerts that somebody can read: 70 rules make 70,000 at most.
    pub max_per_rule: u32,
    /// How long an incident waits for more.
    pub incident_window: Duration,
    /// Incidents that are not over, most of which have one alert and are never told: 1 to 10 KiB each.
    pub max_incidents: usize,
    /// Addresses that many callers share: no incident joins by them and they bear no risk.
    pub trusted_addresses: Vec<IpNet>,
    /// How risk is reckoned.
    pub risk: RiskSettings,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            dedup_window: Duration::from_mins(10),
            cooling: BTreeMap::new(),
            max_alerts: 10_000,
            max_per_source: 20,
            max_per_rule: 1_000,
            incident_window: Duration::from_mins(30),
            max_incidents: 2_000,
            trusted_addresses: Vec::new(),
            risk: RiskSettings::default(),
        }
    }
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    pub(super) files: Files,
    pub(super) incidents: Incidents,
    pub(super) risks: Risks,
    pub(super) sharing: Sharing,
    marks: Arc<Marks>,
    /// Findings silenced by marks, by rule: as many as there are rules.
    silenced: BTreeMap<&'static str, u64>,
    /// Kept for the next finding, so that none allocates anew.
    told: Vec<Alert>,
    news: Vec<Incident>,
}

impl Desk {
    /// An empty desk.
    #[must_use]
    pub fn new(settings: AlertSettings) -> Self {
        Self {
            incidents: Incidents::new(settings.incident_window, settings.max_incidents),
            risks: Risks::new(settings.risk.clone()),
            sharing: Sharing::new(settings.trusted_addresses.clone(), settings.risk.max_entities),
            files: Files::new(settings),
            marks: Arc::default(),
            silenced: BTreeMap::new(),
            told: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Obeys these marks from now on.
    pub fn obey(&mut self, marks: Arc<Marks>) {
        self.marks = marks;
    }

    /// What became of alerts so far.
    #[must_use]
    pub const fn counters(&self) -> dedup::Counters {
        self.files.counters()
    }

    /// What became of incidents so far.
    #[must_use]
    pub const fn incident_counters(&self) -> incidents::Counters {
        self.incidents.counters()
    }

    /// Findings silenced by marks, by rule.
    pub fn silenced(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.silenced.iter().map(|(rule, count)| (*rule, *count))
    }

    /// Alerts open or cooling.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Incidents that are not over, and entities with a risk.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.incidents.len(), self.risks.len())
    }

    /// Takes a finding; appends what it makes of alerts and incidents.
    pub fn admit(&mut self, finding: Finding, out: &mut Vec<Event>) {
        let at = finding.at;
        self.tick(at, out);
        let Some((crossing, scene)) = self.enter(finding, out) else { return };
        let finding = self.risks.finding(crossing, scene, at);
        self.enter(finding, out);
    }

    /// Time has passed: closes windows, ends cooling, closes incidents.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Event>) {
        let Self { files, incidents, told, news, .. } = self;
        files.tick(now, told);
        incidents.tick(now, news);
        self.tell(out);
    }

    /// Nothing comes for now: tells what was counted and not told, in the order of opening. All stays open.
    pub fn flush(&mut self, out: &mut Vec<Event>) {
        self.files.flush(&mut self.told);
        self.tell(out);
    }

    /// Nothing more will ever come: closes every incident.
    pub fn close(&mut self, out: &mut Vec<Event>) {
        self.incidents.close_all(&mut self.news);
        self.tell(out);
    }

    /// Gives a finding its place. What it has made of the risk, if that is to be told.
    fn enter(&mut self, finding: Finding, out: &mut Vec<Event>) -> Option<(Crossing, Option<Box<Scene>>)> {
        let key = Key::of(&finding);
        if self.marks.silences(&key, &finding) {
            *self.silenced.entry(finding.rule.id).or_default() += 1;
            return None;
        }
        let Self { files, incidents, risks, sharing, told, news, .. } = self;
        let seen = Seen::of(&finding);
        let mut crossed = None;
        files.admit(key, finding, told, |alert, step| {
            if step != Step::Repeated {
                crossed = rate(risks, sharing, alert, step);
            }
            match step {
                Step::Opened => {
                    let entities = sharing.entities(&alert.finding);
                    alert.incident = incidents.join(alert, &entities, seen, news);
                }
                Step::Grown | Step::Repeated => incidents.count(alert, seen, news),
            }
        });
        self.tell(out);
        crossed
    }

    /// Alerts first, then what they mean for incidents.
    fn tell(&mut self, out: &mut Vec<Event>) {
        for mut alert in self.told.drain(..) {
            alert.incident = alert.incident.map(|id| self.incidents.current(id));
            out.push(Event::Alert(Box::new(alert)));
        }
        out.extend(self.news.drain(..).map(|incident| Event::Incident(Box::new(incident))));
    }
}

/// Raises the risk of those whom a new or worse alert is about.
fn rate(
    risks: &mut Risks,
    sharing: &mut Sharing,
    alert: &mut Alert,
    step: Step,
) -> Option<(Crossing, Option<Box<Scene>>)> {
    let entities = sharing.entities(&alert.finding);
    let about = alert.finding.rule;
    if about.id == entity_risk::ABOUT.id {
        // The risk is told already: telling it adds nothing.
        let now = alert.finding.at;
        alert.entity_risk = entities.iter().map(|entity| risks.of(entity, now)).max().unwrap_or(0);
        return None;
    }
    debug_assert!(step != Step::Repeated, "repeats add nothing");
    let (risk, crossing) = risks.add(&entities, about.id, alert.severity, alert.own_risk(), alert.finding.at);
    alert.entity_risk = risk;
    crossing.map(|crossing| (crossing, alert.finding.scene.clone()))
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;
    use crate::alert::Activity;
    use crate::alert::marks::{Mark, Named, Opinion, Scope};
    use crate::alert::staging::finding;
    use crate::detect::Severity;

    fn desk() -> Desk {
        Desk::new(AlertSettings::default())
    }

    /// Each of a request of its own.
    fn critical(number: u8) -> Finding {
        let finding = finding(number);
        let at = finding.at.plus(Duration::from_millis(number.into()));
        Finding { severity: Severity::Critical, at, ..finding }
    }

    fn rules(events: &[Event]) -> Vec<&'static str> {
        events.iter().filter_map(Event::alert).map(|a| a.finding.rule.id).collect()
    }

    #[test]
    fn alerts_that_add_up_are_an_alert() {
        let (mut desk, mut out) = (desk(), Vec::new());
        for number in 0..12 {
            desk.admit(critical(number), &mut out);
        }
        let told: Vec<_> =
            out.iter().filter_map(Event::alert).filter(|a| a.finding.rule.id == "entity-risk").collect();
        let severities: Vec<Severity> = told.iter().map(|a| a.severity).collect();
        assert_eq!(severities, [Severity::Medium, Severity::High]);
        assert_eq!(told[0].id, told[1].id, "one alert that grows");
        assert!(told[0].entity_risk >= 70 && told[0].incident.is_some());
        assert!(told[0].finding.brief.starts_with("risk of address"), "{}", told[0].finding.brief);
    }

    #[test]
    fn risk_can_be_turned_off_and_is_still_shown() {
        let risk = RiskSettings { enabled: false, ..RiskSettings::default() };
        let mut desk = Desk::new(AlertSettings { risk, ..AlertSettings::default() });
        let mut out = Vec::new();
        for number in 0..12 {
            desk.admit(critical(number), &mut out);
        }
        assert!(!rules(&out).contains(&"entity-risk"));
        assert!(out.iter().filter_map(Event::alert).next_back().unwrap().entity_risk > 70);
    }

    #[test]
    fn what_is_marked_is_counted_and_not_told() {
        let (mut desk, mut out) = (desk(), Vec::new());
        let mark = Mark {
            number: 1,
            alert: Ulid::nil(),
            opinion: Opinion::FalsePositive,
            scope: Scope::Rule,
            key: Named { rule: "alg-none".into(), ..Named::default() },
            who: None,
            made_ms: 0,
            until_ms: u64::MAX,
            note: None,
        };
        desk.obey(Arc::new(Marks::new(vec![mark])));
        for number in 0..12 {
            desk.admit(critical(number), &mut out);
        }
        assert!(out.is_empty() && desk.is_empty());
        assert_eq!(desk.silenced().collect::<Vec<_>>(), [("alg-none", 12)]);
        assert_eq!(desk.sizes(), (0, 0), "nor does it raise a risk");
        desk.obey(Arc::default());
        desk.admit(critical(1), &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn goes_on_after_a_restart_as_if_there_were_none() {
        let cards = crate::detect::rules::catalogue();
        let play = |restart: bool| {
            let (mut desk, mut out) = (desk(), Vec::new());
            for number in 0..40_u8 {
                let mut finding = finding(number % 7);
                finding.at = finding.at.plus(Duration::from_secs(u64::from(number) * 97));
                finding.principal.as_mut().unwrap().verified = number % 3 == 0;
                if number % 11 == 10 {
                    finding.severity = Severity::Critical;
                }
                desk.admit(finding, &mut out);
                if restart {
                    let saved = desk.save().unwrap();
                    desk = self::desk();
                    assert_eq!(desk.load(&saved, cards).unwrap(), 0);
                    assert_eq!(desk.save().unwrap(), saved, "what is loaded is what was saved");
                }
            }
            desk.flush(&mut out);
            desk.close(&mut out);
            format!("{out:#?}")
        };
        assert_eq!(play(true), play(false));
    }

    #[test]
    fn a_strange_snapshot_changes_nothing() {
        let (mut desk, mut out) = (desk(), Vec::new());
        desk.admit(critical(1), &mut out);
        let saved = desk.save().unwrap();
        for bad in [&b""[..], b"\x07nonsense", saved.get(..saved.len() / 2).unwrap()] {
            assert!(desk.load(bad, crate::detect::rules::catalogue()).is_err());
            assert_eq!(desk.save().unwrap(), saved);
        }
        let mut empty = self::desk();
        assert_eq!(empty.load(&saved, &[]).unwrap(), 1, "its rule is gone");
        assert!(empty.is_empty());
    }

    #[test]
    fn every_event_of_an_alert_has_its_incident_and_risk() {
        let (mut desk, mut out) = (desk(), Vec::new());
        desk.admit(critical(1), &mut out);
        desk.admit(critical(1), &mut out);
        desk.flush(&mut out);
        let alerts: Vec<_> = out.iter().filter_map(Event::alert).collect();
        assert_eq!(
            alerts.iter().map(|a| a.activity).collect::<Vec<_>>(),
            [Activity::Create, Activity::Update]
        );
        assert!(alerts[0].incident.is_some() && alerts[0].incident == alerts[1].incident);
        assert_eq!(alerts[0].entity_risk, alerts[1].entity_risk);
    }
}
