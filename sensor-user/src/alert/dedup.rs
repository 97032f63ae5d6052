//! Dedup: repeats are counted on the open alert instead of told again.
//!
//! An alert is *open* for the dedup window after its first finding, then *cools* for as long as its rule says, then is
//! forgotten. While it is open or cooling, findings with its key raise its count; a worse one is told at once as an
//! update. What was counted and not yet told is told when the window closes, when the cooling ends, and at the end of
//! a replay: every finding is in the count of some event. An attack that goes on makes one new alert per window and
//! cooling.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use crate::alert::key::Key;
use crate::alert::{Activity, Alert, AlertSettings};
use crate::capture::Time;
use crate::detect::Finding;
use crate::detect::table::Table;

/// An alert and where it is in its life.
#[derive(Debug)]
pub(super) struct File {
    pub(super) alert: Alert,
    /// The count when it was told last.
    pub(super) told: u64,
    pub(super) cooling: bool,
    /// When its window or its cooling ends.
    pub(super) ends: Time,
    /// Distinguishes this file from an earlier one with the same key, in [`Files::ends`].
    number: u64,
}

/// What a finding did to its alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is a new alert.
    Opened,
    /// It is worse than those before.
    Grown,
    /// It was counted.
    Repeated,
}

/// How many alerts one rule and address opened in the window that began at `since`.
#[derive(Debug)]
struct Source {
    since: Time,
    opened: u32,
}

impl Source {
    /// Counts one more, and gives how many it is in the window.
    fn open(&mut self, at: Time, window: Duration) -> u32 {
        if at.since(self.since) >= window {
            *self = Self { since: at, opened: 0 };
        }
        self.opened = self.opened.saturating_add(1);
        self.opened
    }
}

/// What became of alerts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Alerts created.
    pub created: u64,
    /// Updates told.
    pub updated: u64,
    /// Findings that were counted on an alert that was there already.
    pub repeated: u64,
    /// Findings that were folded because one source, or one rule, made too many alerts.
    pub folded: u64,
    /// Alerts that were closed early because there were too many.
    pub evicted: u64,
}

/// The alerts that are open or cooling.
#[derive(Debug)]
pub struct Files {
    settings: AlertSettings,
    kept: Table<Key, File>,
    sources: Table<(&'static str, Option<IpAddr>), Source>,
    /// The same by rule: as many as there are rules.
    rules: HashMap<&'static str, Source>,
    /// When the window or the cooling of each file ends, soonest first; ties in the order of opening.
    ends: BinaryHeap<Reverse<(Time, u64, Box<Ending>)>>,
    now: Time,
    opened: u64,
    counters: Counters,
}

/// Names a file in the heap. Ordered by nothing: time and number before it are unique.
#[derive(Debug)]
struct Ending(Key);

impl PartialEq for Ending {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Ending {}

impl PartialOrd for Ending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ending {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Files {
    /// None yet.
    #[must_use]
    pub fn new(settings: AlertSettings) -> Self {
        Self {
            kept: Table::new(settings.max_alerts),
            sources: Table::new(settings.max_alerts),
            rules: HashMap::new(),
            ends: BinaryHeap::new(),
            now: Time::default(),
            opened: 0,
            counters: Counters::default(),
            settings,
        }
    }

    /// What was done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Alerts open or cooling.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes a finding under its key; appends the alert or the update that it makes, if it makes one. `attend` sees what
    /// became of its alert before that is told.
    pub(super) fn admit(
        &mut self,
        key: Key,
        finding: Finding,
        out: &mut Vec<Alert>,
        mut attend: impl FnMut(&mut Alert, Step),
    ) {
        let mut key = key;
        if self.kept.get(&key).is_none() {
            key = self.fold(key, finding.at);
        }
        let Some(file) = self.kept.get(&key) else { return self.open(key, finding, out, attend) };
        self.counters.repeated += 1;
        let step = file.repeat(finding);
        attend(&mut file.alert, step);
        if step == Step::Grown {
            self.counters.updated += 1;
            out.push(file.tell(Activity::Update));
        }
    }

    /// Time has passed: closes windows and ends cooling.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Alert>) {
        self.now = self.now.max(now);
        while self.ends.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((at, number, ending))) = self.ends.pop() else { return };
            self.end(at, number, ending.0, out);
        }
    }

    /// Tells what was counted and not told, in the order of opening. Everything stays as it is.
    pub fn flush(&mut self, out: &mut Vec<Alert>) {
        let mut pending: Vec<(u64, Key)> = self
            .kept
            .iter()
            .filter(|(_, file)| file.alert.count > file.told)
            .map(|(key, file)| (file.number, key.clone()))
            .collect();
        pending.sort_by_key(|(number, _)| *number);
        self.counters.updated += pending.len() as u64;
        for (_, key) in pending {
            out.extend(self.kept.get(&key).map(|file| file.tell(Activity::Update)));
        }
    }

    /// Every alert, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &File> {
        let mut files: Vec<&File> = self.kept.iter().map(|(_, file)| file).collect();
        files.sort_by_key(|file| file.number);
        files.into_iter()
    }

    /// Takes in what an earlier run left open or cooling.
    pub(super) fn resume(&mut self, alert: Alert, told: u64, cooling: bool, ends: Time) {
        let key = alert.key.clone();
        if self.kept.len() >= self.kept.cap() || self.kept.get(&key).is_some() {
            return;
        }
        self.opened += 1;
        self.schedule(ends, self.opened, key.clone());
        let file = File { alert, told, cooling, ends, number: self.opened };
        let hash = self.kept.hash_of(&key);
        self.kept.insert(hash, key, file);
    }

    /// The key under which a new alert is opened: its own, or that of the rest of its source or of its rule, if they have
    /// opened too many already.
    fn fold(&mut self, key: Key, at: Time) -> Key {
        let AlertSettings { dedup_window: window, max_per_source, max_per_rule, .. } = self.settings;
        let source = self.sources.get_or((key.rule, key.address), || Source { since: at, opened: 0 });
        let full = source.is_some_and(|source| source.open(at, window) > max_per_source);
        self.counters.folded += u64::from(full);
        let key = if full { key.folded() } else { key };
        if self.kept.get(&key).is_some() {
            return key;
        }
        let rule = self.rules.entry(key.rule).or_insert(Source { since: at, opened: 0 });
        if rule.open(at, window) <= max_per_rule {
            return key;
        }
        self.counters.folded += u64::from(!full);
        key.of_everybody()
    }

    fn open(
        &mut self,
        key: Key,
        finding: Finding,
        out: &mut Vec<Alert>,
        mut attend: impl FnMut(&mut Alert, Step),
    ) {
        let at = finding.at;
        let mut alert = Alert {
            id: key.identity(at),
            activity: Activity::Create,
            severity: finding.severity,
            raised: at,
            first_seen: at,
            last_seen: at,
            count: 1,
            key: key.clone(),
            incident: None,
            entity_risk: 0,
            finding,
            place: None,
        };
        attend(&mut alert, Step::Opened);
        self.opened += 1;
        self.counters.created += 1;
        let ends = at.plus(self.settings.dedup_window);
        let mut file = File { alert, told: 0, cooling: false, ends, number: self.opened };
        out.push(file.tell(Activity::Create));
        self.schedule(ends, self.opened, key.clone());
        let hash = self.kept.hash_of(&key);
        if let Some((_, mut evicted)) = self.kept.insert(hash, key, file) {
            self.counters.evicted += 1;
            if evicted.alert.count > evicted.told {
                self.counters.updated += 1;
                out.push(evicted.tell(Activity::Update));
            }
        }
    }

    fn schedule(&mut self, at: Time, number: u64, key: Key) {
        // Endings of evicted files stay until their time: drop them before they outnumber the living.
        if self.ends.len() >= self.settings.max_alerts.saturating_mul(2).max(64) {
            let files = &mut self.kept;
            self.ends
                .retain(|Reverse((_, number, end))| files.get(&end.0).is_some_and(|f| f.number == *number));
        }
        self.ends.push(Reverse((at, number, Box::new(Ending(key)))));
    }

    /// The window or the cooling of a file is over.
    fn end(&mut self, at: Time, number: u64, key: Key, out: &mut Vec<Alert>) {
        let Some(file) = self.kept.get(&key).filter(|file| file.number == number) else { return };
        if file.alert.count > file.told {
            self.counters.updated += 1;
            out.push(file.tell(Activity::Update));
        }
        if file.cooling {
            let hash = self.kept.hash_of(&key);
            self.kept.remove(hash, |k| *k == key);
            return;
        }
        file.cooling = true;
        let about = file.alert.finding.rule;
        let shipped = Duration::from_secs(u64::from(about.cooling_s));
        let cooling = self.settings.cooling.get(about.id).copied().unwrap_or(shipped);
        file.ends = at.plus(cooling);
        let ends = file.ends;
        self.schedule(ends, number, key);
    }
}

impl File {
    /// Counts a finding.
    fn repeat(&mut self, finding: Finding) -> Step {
        let alert = &mut self.alert;
        alert.count += 1;
        alert.last_seen = alert.last_seen.max(finding.at);
        alert.first_seen = alert.first_seen.min(finding.at);
        let grown = finding.severity > alert.severity;
        if grown {
            alert.raised = finding.at;
        }
        if finding.severity >= alert.severity {
            alert.severity = finding.severity;
            alert.finding = finding;
        }
        if grown { Step::Grown } else { Step::Repeated }
    }

    fn tell(&mut self, activity: Activity) -> Alert {
        self.told = self.alert.count;
        Alert { activity, ..self.alert.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;
    use crate::alert::key::Actor;
    use crate::alert::staging::finding;
    use crate::detect::Severity;

    fn files() -> Files {
        Files::new(AlertSettings::default())
    }

    fn admit(files: &mut Files, finding: Finding, out: &mut Vec<Alert>) {
        files.tick(finding.at, out);
        files.admit(Key::of(&finding), finding, out, |_, _| ());
    }

    fn at(secs: u64, severity: Severity) -> Finding {
        let mut finding = finding(1);
        finding.at = Time::from_secs(secs);
        finding.severity = severity;
        finding
    }

    fn told(out: &[Alert]) -> Vec<(Activity, u64, Severity)> {
        out.iter().map(|a| (a.activity, a.count, a.severity)).collect()
    }

    #[test]
    fn repeats_are_counted_and_told_when_the_window_closes() {
        let (mut files, mut out) = (self::files(), Vec::new());
        for second in 1000..1010 {
            admit(&mut files, at(second, Severity::High), &mut out);
        }
        assert_eq!(told(&out), [(Activity::Create, 1, Severity::High)]);
        files.tick(Time::from_secs(1599), &mut out);
        assert_eq!(out.len(), 1);
        files.tick(Time::from_secs(1600), &mut out);
        assert_eq!(told(&out)[1..], [(Activity::Update, 10, Severity::High)]);
        assert_eq!((out[1].first_seen, out[1].last_seen), (Time::from_secs(1000), Time::from_secs(1009)));
        assert_eq!(out[0].id, out[1].id);
    }

    #[test]
    fn growing_severity_breaks_through_even_while_cooling() {
        let (mut files, mut out) = (self::files(), Vec::new());
        admit(&mut files, at(1000, Severity::High), &mut out);
        admit(&mut files, at(1001, Severity::Critical), &mut out);
        admit(&mut files, at(1002, Severity::High), &mut out);
        assert_eq!(told(&out)[1..], [(Activity::Update, 2, Severity::Critical)]);
        let (mut files, mut out) = (self::files(), Vec::new());
        admit(&mut files, at(1000, Severity::Low), &mut out);
        admit(&mut files, at(1700, Severity::Critical), &mut out);
        assert_eq!(told(&out)[1..], [(Activity::Update, 2, Severity::Critical)]);
        assert_eq!(out[0].id, out[1].id);
    }

    #[test]
    fn after_cooling_it_is_a_new_alert() {
        let (mut files, mut out) = (self::files(), Vec::new());
        admit(&mut files, at(1000, Severity::High), &mut out);
        admit(&mut files, at(1700, Severity::High), &mut out);
        assert_eq!(out.len(), 1, "cooling");
        files.tick(Time::from_secs(2200), &mut out);
        assert_eq!(told(&out)[1..], [(Activity::Update, 2, Severity::High)], "told when the cooling ends");
        assert!(files.is_empty());
        admit(&mut files, at(2201, Severity::High), &mut out);
        assert_eq!(out[2].activity, Activity::Create);
        assert_ne!(out[0].id, out[2].id);
    }

    #[test]
    fn cooling_follows_the_configuration() {
        let cooling = [("alg-none".to_owned(), Duration::ZERO)].into();
        let mut files = Files::new(AlertSettings { cooling, ..AlertSettings::default() });
        let mut out = Vec::new();
        admit(&mut files, at(1000, Severity::High), &mut out);
        files.tick(Time::from_secs(1600), &mut out);
        assert!(files.is_empty());
    }

    #[test]
    fn unverified_claims_do_not_merge_tokens() {
        let (mut files, mut out) = (self::files(), Vec::new());
        let with = |number: u8, verified| {
            let mut finding = finding(number);
            finding.principal.as_mut().unwrap().verified = verified;
            finding
        };
        for (number, verified) in [(1, false), (2, false), (3, true), (4, true)] {
            admit(&mut files, with(number, verified), &mut out);
        }
        assert_eq!(out.len(), 3, "two tokens that claim, one principal");
    }

    #[test]
    fn new_addresses_of_one_ipv6_network_are_one_source() {
        let (mut files, mut out) = (self::files(), Vec::new());
        for host in 1..=200_u16 {
            let mut finding = finding(1);
            finding.scene.as_mut().unwrap().client = format!("2001:db8::{host:x}").parse().unwrap();
            admit(&mut files, finding, &mut out);
        }
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_storm_from_everywhere_is_no_storm_of_alerts() {
        let (mut files, mut out) = (self::files(), Vec::new());
        let one = finding(1);
        for number in 0..100_000_u32 {
            let mut finding = one.clone();
            finding.token = Some(crate::token::Fingerprint(u128::from(number).to_be_bytes()));
            finding.scene.as_mut().unwrap().client = std::net::Ipv4Addr::from_bits(number << 4).into();
            admit(&mut files, finding, &mut out);
        }
        assert_eq!(out.len(), 1_001, "a thousand, and one for the rest");
        let rest = &out[1_000].key;
        assert_eq!((rest.address, &rest.actor), (None, &Actor::Rest));
        files.flush(&mut out);
        assert_eq!(told(&out).last(), Some(&(Activity::Update, 99_000, Severity::High)));
        assert_eq!(files.counters().folded, 99_000);
        assert!(files.kept.len() <= 1_001);
    }

    #[test]
    fn a_flood_of_forgeries_is_no_flood_of_alerts() {
        let (mut files, mut out) = (self::files(), Vec::new());
        for number in 0..=255 {
            admit(&mut files, finding(number), &mut out);
        }
        assert_eq!(out.len(), 21);
        files.flush(&mut out);
        assert_eq!(told(&out)[21..], [(Activity::Update, 236, Severity::High)]);
        assert_eq!(files.counters().folded, 236);
    }

    #[test]
    fn too_many_alerts_close_the_idle_ones_and_lose_no_count() {
        let mut files = Files::new(AlertSettings { max_alerts: 10, ..AlertSettings::default() });
        let mut out = Vec::new();
        for number in 0..100_u8 {
            for _ in 0..3 {
                let mut finding = finding(number);
                finding.scene.as_mut().unwrap().client = IpAddr::from([10, 0, 0, number]);
                admit(&mut files, finding, &mut out);
            }
        }
        assert_eq!((files.len(), files.counters().evicted), (10, 90));
        files.flush(&mut out);
        let mut counts: BTreeMap<Ulid, u64> = BTreeMap::new();
        for alert in &out {
            counts.insert(alert.id, alert.count);
        }
        assert_eq!(counts.values().sum::<u64>(), 300);
    }

    proptest! {
        #[test]
        fn every_finding_is_counted_and_runs_repeat(
            steps in prop::collection::vec((0_u8..6, 0_u64..400, 0_u8..4), 1..120),
        ) {
            let run = || {
                let (mut files, mut out) = (self::files(), Vec::new());
                let mut now = 1000;
                for (number, wait, severity) in &steps {
                    now += wait;
                    let mut f = finding(*number);
                    f.at = Time::from_secs(now);
                    f.severity = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical][*severity as usize];
                    admit(&mut files, f, &mut out);
                }
                files.flush(&mut out);
                out
            };
            let out = run();
            let mut last: BTreeMap<Ulid, u64> = BTreeMap::new();
            for alert in &out {
                let before = last.insert(alert.id, alert.count).unwrap_or_default();
                prop_assert!(alert.count > before, "every event says something new");
                prop_assert_eq!(alert.activity == Activity::Create, before == 0);
            }
            prop_assert_eq!(last.values().sum::<u64>(), steps.len() as u64);
            let ids = |out: &[Alert]| out.iter().map(|a| (a.id, a.count)).collect::<Vec<_>>();
            prop_assert_eq!(ids(&out), ids(&run()));
        }
    }
}
