//! `object-enumeration`: one caller that works through the objects of a route.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::object::Object;
use crate::detect::roster::stable_hash;
use crate::detect::sketch::{Crowd, Distinct, get_used};
use crate::detect::statement::Statement;
use crate::detect::statement::percent;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, Rule, Severity, Slot, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "object-enumeration",
    title: "Objects are read one after the other",
    version: "1.1.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1119", "T1213"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Counts the distinct objects that one principal, or one token that nobody can check, asks for on one route \
(`GET /orders/{id}`; OWASP API1:2023), within ten minutes and within a day, whatever the answer: 2xx, 403 or 404. It \
fires above the largest of three: a least number (30, and 200 a day), three times what 95 % of the callers of that \
route do, and three times what this caller is used to.\n\nWhoever changes the id in a URL reads what belongs to \
others if the application does not check. It is high when a fifth of the objects were refused or missing, or when \
the ids are in sequence and it is twice the limit; both raise the confidence. It is told again when the number has \
doubled.\n\nBenign sources: batch jobs, synchronisation, exports. They have peers that do the same, or a history of \
their own after a few runs. Until ten visits by five callers are known of a route, it takes ten times the number, or \
twice if a third fails. It sees ids in paths and queries, not in bodies. A caller costs 32 bytes and 112 to 420 for \
each of four routes, a route 72.",
    cooling_s: 1800,
    thresholds: &[
        Threshold {
            key: "per_10_minutes",
            default: 30.0,
            min: 5.0,
            max: 5000.0,
            doc: "Distinct objects of one route within ten minutes up to which it never fires.",
        },
        Threshold {
            key: "per_day",
            default: 200.0,
            min: 5.0,
            max: 5000.0,
            doc: "Distinct objects of one route within a day up to which it never fires.",
        },
    ],
};

/// Routes that are followed of one caller. Enumeration goes through one, or a few in turn.
const MAX_ROUTES: usize = 4;

const WINDOWS_S: [u32; 2] = [600, 86_400];

/// Words for them.
const WINDOWS: [&str; 2] = ["10 minutes", "a day"];

/// Visits and callers after which a route's peers are known.
const PEERS: (u32, u32) = (10, 5);

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(ObjectEnumeration {
        least: [settings.count(&ABOUT, "per_10_minutes"), settings.count(&ABOUT, "per_day")],
        memory: (Column::default(), Column::default()),
    })
}

/// What one caller asked for in one window.
#[derive(Default, Serialize, Deserialize)]
struct Window {
    since_s: u32,
    objects: Distinct,
    failed: u32,
    /// Objects whose number is next to the one before.
    steps: u32,
    level: u8,
    /// The number at which it was told, 0 if never in this window.
    told: u32,
    usual: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Track {
    route: Slot,
    newest_s: u32,
    number: Option<u64>,
    windows: [Window; 2],
}

/// How many windows of all callers hold 2^i to 2^(i+1) - 1 objects.
#[derive(Default, Serialize, Deserialize)]
struct Levels([u16; 13]);

#[derive(Default, Serialize, Deserialize)]
struct Peers {
    levels: [Levels; 2],
    callers: Crowd,
}

struct ObjectEnumeration {
    least: [u32; 2],
    memory: (Column<Vec<Track>>, Column<Peers>),
}

impl Levels {
    fn at(&mut self, level: u8) -> &mut u16 {
        let [first, rest @ ..] = &mut self.0;
        match usize::from(level) {
            0 => first,
            level => rest.get_mut(level - 1).unwrap_or(first),
        }
    }

    fn enter(&mut self, level: u8) {
        let place = self.at(level);
        *place = place.saturating_add(1);
        if *place > 10_000 {
            self.0.iter_mut().for_each(|count| *count = count.div_ceil(2));
        }
    }

    fn leave(&mut self, level: u8) {
        let place = self.at(level);
        *place = place.saturating_sub(1);
    }

    fn total(&self) -> u32 {
        self.0.iter().map(|count| u32::from(*count)).sum()
    }

    /// What 95 % do not exceed.
    fn most(&self) -> u32 {
        let total = self.total();
        let mut beyond = 0;
        for (level, count) in self.0.iter().enumerate().rev() {
            beyond += u32::from(*count);
            if beyond * 20 > total {
                return (2_u32 << level) - 1;
            }
        }
        0
    }
}

impl Window {
    /// Begins anew if the window is over.
    fn roll(&mut self, second: u32, length_s: u32, levels: &mut Levels) {
        if second.saturating_sub(self.since_s) < length_s && self.since_s > 0 {
            return;
        }
        let count = self.objects.count();
        if self.told > 0 {
            // What was told is no habit at once; what goes on for days becomes one.
            self.usual += count.saturating_sub(self.usual) / 4;
        } else {
            get_used(&mut self.usual, count);
        }
        *self = Self { since_s: second, usual: self.usual, ..Self::default() };
        levels.enter(0);
    }

    /// Notes an object. Whether it is new.
    fn note(&mut self, id: u64, failed: bool, step: bool, levels: &mut Levels) -> bool {
        if !self.objects.add(id) {
            return false;
        }
        self.failed += u32::from(failed);
        self.steps += u32::from(step);
        let level = u8::try_from(self.objects.count().max(1).ilog2().min(12)).unwrap_or_default();
        if level != self.level && self.told == 0 {
            levels.leave(self.level);
            levels.enter(level);
            self.level = level;
        }
        true
    }

    /// The number of objects, if it is too large and news.
    fn verdict(&mut self, least: u32, levels: &mut Levels, callers: Crowd) -> Option<(u32, u32)> {
        let count = self.objects.count();
        if count <= least || count < self.told.saturating_mul(2) {
            return None;
        }
        let own = self.usual.saturating_mul(3);
        let known = levels.total() >= PEERS.0 && callers.size() >= PEERS.1;
        let limit = if known {
            levels.most().saturating_mul(3)
        } else if percent(self.failed, count) >= 33 {
            least * 2
        } else {
            least * 10
        };
        let limit = limit.max(own).max(least);
        if count <= limit {
            return None;
        }
        if self.told == 0 {
            levels.leave(self.level);
        }
        self.told = count;
        Some((count, limit))
    }
}

impl Rule for ObjectEnumeration {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::OBJECT.and(When::ACTOR)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn glance(&self, _token: u32, actor: u32) -> bool {
        if let Some(track) = self.memory.0.glance(actor).and_then(|tracks| tracks.first()) {
            std::hint::black_box(track.newest_s);
        }
        true
    }

    fn glance_beyond(&self, actor: u32) -> bool {
        if let Some(track) = self.memory.0.glance(actor).and_then(|tracks| tracks.first()) {
            track.windows.iter().for_each(|window| window.objects.glance());
        }
        true
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let (Some(object), Some(actor)) = (case.object, case.who.actor) else { return };
        let failed = matches!(case.exchange.status(), Some(403 | 404));
        if !failed && !case.exchange.is_success() {
            return;
        }
        let (second, route) = (case.second(), case.route.slot);
        let tracks = self.memory.0.of(actor.known.slot);
        let Some(track) = track(tracks, route) else { return };
        let peers = self.memory.1.of(route);
        peers.callers.add(stable_hash(&actor.known.slot));
        track.newest_s = second;
        let step = track.step(object);
        let mut worst = None;
        let each =
            track.windows.iter_mut().zip(&mut peers.levels).zip(self.least).zip(WINDOWS_S).zip(WINDOWS);
        for ((((window, levels), least), length_s), word) in each {
            window.roll(second, length_s, levels);
            if window.note(object.id, failed, step, levels)
                && let Some((count, limit)) = window.verdict(least, levels, peers.callers)
            {
                worst = worst.or(Some((count, limit, word, window.failed, window.steps)));
            }
        }
        if let Some((count, limit, word, failed, steps)) = worst {
            let statement = statement(case, (count, limit), word, failed, steps);
            report.push(statement.into_actor_finding(&ABOUT, case));
        }
    }
}

impl Track {
    /// Whether the object's number is next to the one before.
    fn step(&mut self, object: Object) -> bool {
        let before = std::mem::replace(&mut self.number, object.number);
        before.zip(object.number).is_some_and(|(one, other)| (1..=2).contains(&one.abs_diff(other)))
    }
}

/// The track of a route: a new one takes the place of the one that holds the least.
fn track(tracks: &mut Vec<Track>, route: Slot) -> Option<&mut Track> {
    let at = tracks.iter().position(|track| track.route == route).or_else(|| {
        if tracks.len() < MAX_ROUTES {
            tracks.reserve_exact(1);
            tracks.push(Track { route, ..Track::default() });
            return Some(tracks.len() - 1);
        }
        let held = |track: &Track| {
            let [_, day] = &track.windows;
            (day.objects.count() + day.usual, track.newest_s)
        };
        let least = tracks.iter().enumerate().min_by_key(|(_, track)| held(track))?.0;
        *tracks.get_mut(least)? = Track { route, ..Track::default() };
        Some(least)
    })?;
    tracks.get_mut(at)
}

fn statement(case: &Case<'_>, (count, limit): (u32, u32), word: &str, failed: u32, steps: u32) -> Statement {
    let (failed_share, step_share) = (percent(failed, count), percent(steps, count));
    let in_sequence = step_share >= 50;
    let is_high = failed_share >= 20 || (in_sequence && count >= limit.saturating_mul(2));
    let how = if in_sequence { ", most of them in sequence" } else { "" };
    Statement {
        severity: if is_high { Severity::High } else { ABOUT.severity },
        confidence: 60 + if in_sequence { 20 } else { 0 } + if failed_share >= 20 { 15 } else { 0 },
        message: format!(
            "One caller asked for {count} different objects on {} within {word}{how}; {failed_share} % were refused \
             or missing.",
            case.route.name
        ),
        brief: format!("{count} objects in {word}"),
        facts: vec![
            ("objects", count.into()),
            ("limit", limit.into()),
            ("failed_percent", failed_share.into()),
            ("in_sequence_percent", step_share.into()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, held_by};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn ask(play: &mut Play, user: u64, object: &str, second: u64, status: u16) -> Vec<(Severity, u8)> {
        let held = held_by(&format!("user-{user}"));
        let stage = Stage::to("GET", &format!("/orders/{object}")).route("GET /orders/{id}");
        let found = play.ask(&stage.status(status).after_ms(second * 1000), [held]);
        found.iter().map(|f| (f.severity, f.confidence)).collect()
    }

    /// Twenty users who look at a few orders of their own on each of five days.
    fn peers(play: &mut Play) {
        for day in 0..5 {
            for user in 0..20 {
                for i in 0..user % 7 {
                    let second = day * 86_400 + user * 60 + i;
                    assert_eq!(ask(play, user, &format!("{}", user * 1000 + i), second, 200), []);
                }
            }
        }
    }

    #[test]
    fn working_through_ids_fires_soon() {
        let mut play = play();
        peers(&mut play);
        let start = 5 * 86_400;
        let found: Vec<_> =
            (0..100).flat_map(|i| ask(&mut play, 3, &i.to_string(), start + i * 2, 200)).collect();
        assert_eq!(found[0], (Severity::Medium, 80));
        assert!(found.len() <= 3, "{found:?}");
    }

    #[test]
    fn missing_and_refused_objects_make_it_high() {
        let mut play = play();
        peers(&mut play);
        let ask = |i: u64| {
            ask(
                &mut play,
                99,
                &(i * 77).to_string(),
                5 * 86_400 + i,
                if i.is_multiple_of(2) { 404 } else { 200 },
            )
        };
        assert_eq!((0..40).flat_map(ask).next(), Some((Severity::High, 75)));
    }

    #[test]
    fn slow_enumeration_is_seen_within_the_day() {
        let mut play = play();
        peers(&mut play);
        let mut ask = |i: u64| ask(&mut play, 3, &i.to_string(), 6 * 86_400 + i * 60, 200);
        assert!((0..150).flat_map(&mut ask).next().is_none());
        assert!((150..300).flat_map(&mut ask).next().is_some());
    }

    #[test]
    fn nothing_is_said_of_a_route_that_is_not_known_yet() {
        let mut play = play();
        assert!((0..200).flat_map(|i| ask(&mut play, 1, &i.to_string(), i, 200)).next().is_none());
    }

    #[test]
    fn callers_that_all_read_much_are_left_alone() {
        let mut play = play();
        for day in 0..5 {
            for user in 0..20 {
                for i in 0..100 {
                    let second = day * 86_400 + user * 1000 + i;
                    assert_eq!(
                        ask(&mut play, user, &format!("{}", user * 1000 + i), second, 200),
                        [],
                        "{day} {user} {i}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_batch_job_gets_a_history() {
        let mut play = play();
        peers(&mut play);
        let run = |play: &mut Play, day: u64| {
            (0..250).flat_map(|i| ask(play, 50, &i.to_string(), day * 86_400 + i, 200)).count()
        };
        let runs: Vec<usize> = (6..16).map(|day| run(&mut play, day)).collect();
        assert!(runs[0] > 0 && runs[4..].iter().all(|n| *n == 0), "{runs:?}");
    }

    #[test]
    fn one_object_many_times_is_nothing() {
        let mut play = play();
        peers(&mut play);
        assert!((0..1000).all(|i| ask(&mut play, 1, "7", 5 * 86_400 + i, 200).is_empty()));
    }

    #[test]
    fn a_restart_keeps_peers_and_windows() {
        let mut play = play();
        peers(&mut play);
        for i in 0..25 {
            ask(&mut play, 3, &i.to_string(), 6 * 86_400 + i, 200);
        }
        play.restart(rule(&Arc::default()));
        let found: Vec<_> =
            (25..60).flat_map(|i| ask(&mut play, 3, &i.to_string(), 6 * 86_400 + i, 200)).collect();
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn routes_of_a_caller_are_bounded() {
        let mut tracks = Vec::new();
        for at in 0..100 {
            track(&mut tracks, Slot { at, life: 1 });
        }
        assert_eq!(tracks.len(), MAX_ROUTES);
    }
}
