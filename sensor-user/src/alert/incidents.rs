//! Incidents: alerts about one principal, token or address within a window belong together.
//!
//! Every alert that tells who is involved opens an incident or joins one; an incident is told when its second alert comes,
//! when it grows worse, and when it is over: after `window` without a finding, or [`LONGEST`] after its first. An alert
//! that belongs to two incidents makes them one: the younger closes and names the older.
//!
//! [`LONGEST`]: crate::alert::incident::LONGEST

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ulid::Ulid;

use crate::alert::entity::Entity;
use crate::alert::incident::{Incident, Open, Seen};
use crate::alert::key::ulid;
use crate::alert::{Activity, Alert};
use crate::capture::Time;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Incidents told: those with two alerts.
    pub told: u64,
    /// Told incidents that went into an older one.
    pub merged: u64,
    /// Incidents closed early because there were too many, told or not.
    pub evicted: u64,
}

/// The incidents that are not over.
#[derive(Debug)]
pub struct Incidents {
    window: Duration,
    cap: usize,
    pub(super) open: BTreeMap<Ulid, Open>,
    keys: BTreeMap<Entity, Ulid>,
    merged: BTreeMap<Ulid, Ulid>,
    /// When each is over if nothing more comes; untold ones first, which are evicted first.
    ends: BTreeSet<(bool, Time, Ulid)>,
    counters: Counters,
}

impl Incidents {
    /// None yet, and so many at most.
    #[must_use]
    pub fn new(window: Duration, cap: usize) -> Self {
        Self {
            window,
            cap: cap.max(1),
            open: BTreeMap::new(),
            keys: BTreeMap::new(),
            merged: BTreeMap::new(),
            ends: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// Incidents that are not over, told or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What was done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The incident that goes by this id now.
    #[must_use]
    pub fn current(&self, id: Ulid) -> Ulid {
        self.merged.get(&id).copied().unwrap_or(id)
    }

    /// Closes what has been silent for the window, or has lasted too long.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Incident>) {
        for told in [false, true] {
            while let Some(&(known, at, id)) = self.ends.range((told, Time(0), Ulid::nil())..).next() {
                if known != told || at > now {
                    break;
                }
                self.close(id, None, out);
            }
        }
    }

    /// Nothing more will come: closes everything, oldest first.
    pub fn close_all(&mut self, out: &mut Vec<Incident>) {
        while let Some(id) = self.open.keys().next().copied() {
            self.close(id, None, out);
        }
    }

    /// A new alert about these entities: it joins what it belongs to. None without entities.
    pub(super) fn join(
        &mut self,
        alert: &Alert,
        entities: &[Entity],
        seen: Seen,
        out: &mut Vec<Incident>,
    ) -> Option<Ulid> {
        if entities.is_empty() {
            return None;
        }
        let found: BTreeSet<Ulid> = entities.iter().filter_map(|key| self.keys.get(key).copied()).collect();
        let mut found = found.into_iter();
        let id = match found.next() {
            Some(oldest) => oldest,
            None => self.begin(alert, out),
        };
        for younger in found {
            self.merge(younger, id, out);
        }
        let mut open = self.take(id)?;
        let worse = open.add(alert, entities, seen);
        for key in open.keys.iter().filter(|key| entities.contains(key)) {
            self.keys.entry(key.clone()).or_insert(id);
        }
        if !open.told && open.incident.alerts >= 2 {
            open.told = true;
            self.counters.told += 1;
            open.tell(Activity::Create, out);
        } else if open.told && worse {
            open.tell(Activity::Update, out);
        }
        self.put(open);
        Some(id)
    }

    /// Another finding of an alert that has joined, which may have grown worse.
    pub(super) fn count(&mut self, alert: &Alert, seen: Seen, out: &mut Vec<Incident>) {
        let Some(mut open) = alert.incident.and_then(|id| self.take(self.current(id))) else { return };
        open.count(seen);
        if open.grow(alert) && open.told {
            open.tell(Activity::Update, out);
        }
        self.put(open);
    }

    fn begin(&mut self, alert: &Alert, out: &mut Vec<Incident>) -> Ulid {
        if self.open.len() >= self.cap
            && let Some(&(_, _, id)) = self.ends.first()
        {
            self.counters.evicted += 1;
            self.close(id, None, out);
        }
        let id = ulid(alert.first_seen, &[b"incident", &alert.id.to_bytes()]);
        let incident = Incident {
            id,
            activity: Activity::Create,
            severity: alert.severity,
            raised: alert.raised,
            first_seen: alert.first_seen,
            last_seen: alert.last_seen,
            members: Vec::new(),
            alerts: 0,
            findings: 0,
            accepted: 0,
            bytes: 0,
            risk: 0,
            principals: Vec::new(),
            tokens: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            services: Vec::new(),
            workloads: Vec::new(),
            people: Vec::new(),
            merged_into: None,
        };
        self.put(Open { incident, keys: Vec::new(), merged: Vec::new(), told: false, request: None });
        id
    }

    /// Takes an incident out to change it; [`Self::put`] puts it back under its new end.
    fn take(&mut self, id: Ulid) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.ends.remove(&open.ends(self.window));
        Some(open)
    }

    fn put(&mut self, open: Open) {
        self.ends.insert(open.ends(self.window));
        self.open.insert(open.incident.id, open);
    }

    /// Takes in what an earlier run left open.
    pub(super) fn resume(&mut self, open: Open) {
        if self.open.len() >= self.cap {
            return;
        }
        let id = open.incident.id;
        self.keys.extend(open.keys.iter().map(|key| (key.clone(), id)));
        self.merged.extend(open.merged.iter().map(|younger| (*younger, id)));
        self.put(open);
    }

    fn merge(&mut self, younger: Ulid, older: Ulid, out: &mut Vec<Incident>) {
        let Some(open) = self.open.get(&younger).cloned() else { return };
        self.counters.merged += u64::from(open.told);
        self.close(younger, Some(older), out);
        let Some(mut into) = self.take(older) else { return };
        into.absorb(open);
        self.keys.extend(into.keys.iter().map(|key| (key.clone(), older)));
        self.merged.extend(into.merged.iter().map(|id| (*id, older)));
        self.put(into);
    }

    fn close(&mut self, id: Ulid, merged_into: Option<Ulid>, out: &mut Vec<Incident>) {
        let Some(mut open) = self.take(id) else { return };
        for key in &open.keys {
            if self.keys.get(key) == Some(&id) {
                self.keys.remove(key);
            }
        }
        for younger in &open.merged {
            self.merged.remove(younger);
        }
        if open.told {
            open.incident.merged_into = merged_into;
            open.tell(Activity::Close, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::incident::{LONGEST, MAX_MEMBERS};
    use crate::alert::staging::finding;
    use crate::alert::{AlertSettings, Desk, Event};
    use crate::detect::{Finding, Severity};

    /// An `alg-none` finding so many seconds after the start: token, subject if verified, client.
    fn at(secs: u64, token: u8, subject: Option<&str>, client: &str) -> Finding {
        let mut finding = finding(token);
        finding.at = Time::from_secs(1_795_284_245 + secs);
        let principal = finding.principal.as_mut().unwrap();
        (principal.verified, principal.subject) = (subject.is_some(), subject.unwrap_or("victim").into());
        finding.scene.as_mut().unwrap().client = client.parse().unwrap();
        finding
    }

    fn played(findings: impl IntoIterator<Item = Finding>) -> (Desk, Vec<Event>) {
        let (mut desk, mut out) = (Desk::new(AlertSettings::default()), Vec::new());
        findings.into_iter().for_each(|finding| desk.admit(finding, &mut out));
        (desk, out)
    }

    fn incidents(events: &[Event]) -> Vec<(Activity, u64)> {
        events.iter().filter_map(Event::incident).map(|i| (i.activity, i.alerts)).collect()
    }

    /// The distinct incidents that alerts name.
    fn named(events: &[Event]) -> BTreeSet<Option<Ulid>> {
        events.iter().filter_map(Event::alert).map(|alert| alert.incident).collect()
    }

    #[test]
    fn begins_with_its_second_alert_and_closes_after_silence() {
        let (mut desk, mut out) =
            played([at(0, 1, Some("alice"), "10.0.0.1"), at(60, 2, Some("alice"), "10.9.0.1")]);
        assert_eq!(incidents(&out), [(Activity::Create, 2)]);
        assert!(matches!(out.last(), Some(Event::Incident(_))), "after the alert that began it");
        desk.tick(Time::from_secs(1_795_284_245 + 60 + 1799), &mut out);
        assert_eq!(incidents(&out).len(), 1);
        desk.tick(Time::from_secs(1_795_284_245 + 60 + 1800), &mut out);
        assert_eq!(incidents(&out)[1..], [(Activity::Close, 2)]);
        assert_eq!(named(&out).len(), 1);
    }

    #[test]
    fn one_alert_is_no_incident() {
        let (mut desk, mut out) = played((0..50).map(|i| at(i, 1, None, "10.0.0.1")));
        desk.close(&mut out);
        assert_eq!(incidents(&out), []);
        assert!(named(&out).iter().all(Option::is_some), "it may become one");
    }

    #[test]
    fn a_claim_joins_nobody_to_its_owner() {
        let (_, out) = played([
            at(0, 1, Some("victim"), "10.0.0.1"),
            at(1, 2, None, "10.9.0.1"),
            at(2, 3, None, "10.9.0.2"),
        ]);
        assert_eq!(incidents(&out), []);
        assert_eq!(named(&out).len(), 3);
    }

    #[test]
    fn an_alert_of_two_incidents_makes_them_one() {
        let (mut desk, mut out) = played([
            at(0, 1, None, "10.0.0.1"),
            at(1, 2, None, "10.0.0.1"),
            at(2, 3, Some("alice"), "10.9.0.1"),
            at(3, 4, Some("alice"), "10.9.0.2"),
            at(4, 3, Some("alice"), "10.0.0.1"),
        ]);
        let told = [(Activity::Create, 2), (Activity::Create, 2), (Activity::Close, 2)];
        assert_eq!(incidents(&out), told);
        let closed = out.iter().filter_map(Event::incident).next_back().unwrap();
        let oldest = out.iter().find_map(Event::incident).unwrap().id;
        assert_eq!(closed.merged_into, Some(oldest));
        desk.admit(at(5, 4, Some("alice"), "10.9.0.2"), &mut out);
        desk.close(&mut out);
        let last = out.iter().filter_map(Event::incident).next_back().unwrap();
        assert_eq!((last.id, last.alerts, last.findings), (oldest, 5, 6));
    }

    #[test]
    fn growing_severity_is_told_and_repeats_are_not() {
        let mut worse = at(3, 1, None, "10.0.0.1");
        worse.severity = Severity::Critical;
        let repeats = (10..20).map(|i| at(i, 2, None, "10.0.0.1"));
        let start = [at(0, 1, None, "10.0.0.1"), at(1, 2, None, "10.0.0.1"), worse];
        let (mut desk, mut out) = played(start.into_iter().chain(repeats));
        desk.close(&mut out);
        let seen = [(Activity::Create, 2), (Activity::Update, 2), (Activity::Close, 2)];
        assert_eq!(incidents(&out), seen);
        let last = out.iter().filter_map(Event::incident).next_back().unwrap();
        assert_eq!((last.findings, last.severity), (13, Severity::Critical));
    }

    #[test]
    fn none_lasts_longer_than_a_day() {
        let findings = (0..200).map(|i| at(i * 1000, u8::try_from(i % 2).unwrap(), None, "10.0.0.1"));
        let (mut desk, mut out) = played(findings);
        desk.close(&mut out);
        for incident in out.iter().filter_map(Event::incident) {
            assert!(incident.last_seen.since(incident.first_seen) <= LONGEST);
        }
        assert!(incidents(&out).iter().filter(|(activity, _)| *activity == Activity::Close).count() >= 2);
    }

    #[test]
    fn a_flood_closes_untold_incidents_first() {
        let settings = AlertSettings { max_incidents: 10, ..AlertSettings::default() };
        let (mut desk, mut out) = (Desk::new(settings), Vec::new());
        desk.admit(at(0, 1, Some("alice"), "10.0.0.1"), &mut out);
        desk.admit(at(0, 2, Some("alice"), "10.0.0.2"), &mut out);
        for number in 0..200_u8 {
            desk.admit(at(1, number, None, &format!("10.9.0.{number}")), &mut out);
        }
        assert_eq!(incidents(&out), [(Activity::Create, 2)], "the real one is still open");
        assert_eq!(desk.sizes().0, 10);
    }

    proptest! {
        #[test]
        fn every_told_incident_ends_once_and_runs_repeat(
            steps in prop::collection::vec((0_u8..12, 0_u8..4, 0_u8..8, 0_u64..2000, 0_u8..4), 1..150),
        ) {
            let run = || {
                let settings = AlertSettings { max_incidents: 5, max_alerts: 20, ..AlertSettings::default() };
                let (mut desk, mut out, mut now) = (Desk::new(settings), Vec::new(), 0);
                for (token, subject, host, wait, severity) in &steps {
                    now += wait;
                    let name = format!("user-{subject}");
                    let subject = (*subject > 0).then_some(name.as_str());
                    let mut finding = at(now, *token, subject, &format!("10.0.0.{host}"));
                    finding.severity =
                        [Severity::Low, Severity::Medium, Severity::High, Severity::Critical][usize::from(*severity)];
                    desk.admit(finding, &mut out);
                    assert!(desk.sizes().0 <= 5);
                }
                desk.flush(&mut out);
                desk.close(&mut out);
                out
            };
            let out = run();
            let mut open = BTreeSet::new();
            for incident in out.iter().filter_map(Event::incident) {
                match incident.activity {
                    Activity::Create => prop_assert!(open.insert(incident.id)),
                    Activity::Update => prop_assert!(open.contains(&incident.id)),
                    Activity::Close => prop_assert!(open.remove(&incident.id)),
                }
                prop_assert!(incident.alerts >= 2 && incident.members.len() <= MAX_MEMBERS);
            }
            prop_assert!(open.is_empty());
            let again = run();
            prop_assert_eq!(format!("{out:?}"), format!("{again:?}"));
        }
    }
}
