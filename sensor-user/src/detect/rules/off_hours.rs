//! `off-hours`: work on sensitive routes by somebody who never works at night.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::workload_token_abroad::PREFIX;
use crate::detect::learning::{DAY_S, day};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, RouteKind, Rule, Severity,
    Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "off-hours",
    title: "Sensitive work outside working hours",
    version: "2.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when a verified principal that keeps working hours succeeds (2xx) on a route tagged sensitive or admin \
outside 08:00 to 20:00 local time (`time_zone`). Once a night of each principal.\n\nPeople sleep when attackers in \
other parts of the world work. Alone it proves nothing, hence low; it gives weight to an incident.\n\nA principal keeps \
working hours if it was at work on ten days, on any route, and never at night. So night shifts, batch jobs, customers \
and colleagues in other time zones are silent: one earlier night is enough, and is forgotten after 60 days without \
another. Overtime is no night: up to two hours after the last use within working hours. Nights that were told of become \
a habit after three. Kubernetes service accounts are never told of. Routes tagged pii or financial are not asked about, \
for customers see their own invoices at any hour.\n\nIt knows no weekends and holidays, and does not see routes that \
nobody has tagged, nor a thief who works at night on other routes first. 20 bytes a principal.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "from_hour",
            default: 8.0,
            min: 0.0,
            max: 24.0,
            doc: "The hour at which work begins, local time.",
        },
        Threshold {
            key: "to_hour",
            default: 20.0,
            min: 0.0,
            max: 24.0,
            doc: "The hour at which work ends, local time.",
        },
        Threshold {
            key: "learn_days",
            default: 10.0,
            min: 1.0,
            max: 250.0,
            doc: "Days with work within working hours, and none outside, that make a profile: two weeks of an office.",
        },
        Threshold {
            key: "habit_nights",
            default: 3.0,
            min: 1.0,
            max: 100.0,
            doc: "Nights that were told of, after which nights are a principal's habit.",
        },
    ],
};

/// Time zones change their offset at whole quarters of an hour.
const QUARTER_S: u32 = 900;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(OffHours {
        from: settings.count(&ABOUT, "from_hour"),
        to: settings.count(&ABOUT, "to_hour"),
        learn_days: settings.count(&ABOUT, "learn_days"),
        habit_nights: settings.count(&ABOUT, "habit_nights"),
        clock: Clock { zone: settings.time_zone.clone(), quarter: 0, hour: None },
        memory: Column::default(),
    })
}

/// The local hour, read off the time zone once a quarter of an hour.
struct Clock {
    zone: TimeZone,
    quarter: u32,
    hour: Option<u32>,
}

impl Clock {
    fn hour(&mut self, at_s: u32) -> Option<u32> {
        let quarter = at_s / QUARTER_S;
        if self.hour.is_none() || quarter != self.quarter {
            let now = Timestamp::from_second(i64::from(at_s)).ok()?;
            self.hour = u32::try_from(self.zone.to_datetime(now).hour()).ok();
            self.quarter = quarter;
        }
        self.hour
    }
}

/// When one principal works.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Habit {
    /// Newest use within working hours.
    work_s: u32,
    /// First use of the newest night.
    night_s: u32,
    /// The newest day with work.
    day: u16,
    /// Days with work; saturates.
    days: u8,
    /// Nights with work that were not told of; saturates.
    nights: u8,
    /// Nights that were told of; saturates.
    told: u8,
    /// Whether the newest night was.
    told_now: bool,
}

/// Seconds of a night at most: what is told once is not told again before the next.
const NIGHT_S: u32 = 16 * 3600;
/// Seconds after the last use within working hours in which work only takes longer.
const OVERTIME_S: u32 = 2 * 3600;
/// Seconds after which a night is forgotten, and after which somebody who was away is learned anew.
const STALE_S: u32 = 60 * DAY_S;

impl Habit {
    /// Notes a use within working hours.
    fn work(&mut self, at_s: u32) {
        if at_s.saturating_sub(self.work_s) > STALE_S {
            self.days = 0;
        }
        self.work_s = self.work_s.max(at_s);
        if self.days == 0 || self.day != day(at_s) {
            (self.day, self.days) = (day(at_s), self.days.saturating_add(1));
        }
    }

    /// Notes a use outside working hours. Whether it is overtime, which tells nothing.
    fn stay_up(&mut self, at_s: u32) -> bool {
        if at_s.saturating_sub(self.work_s) < OVERTIME_S {
            return true;
        }
        let since_s = at_s.saturating_sub(self.night_s);
        if since_s > STALE_S {
            (self.nights, self.told) = (0, 0);
        }
        if self.night_s == 0 || since_s >= NIGHT_S {
            (self.night_s, self.told_now) = (at_s, false);
            self.nights = self.nights.saturating_add(1);
        }
        false
    }

    /// Marks this night as told of, if nothing speaks against it.
    fn tell(&mut self, learn_days: u32, habit_nights: u32) -> bool {
        let is_known = u32::from(self.days) >= learn_days;
        let is_first = self.nights == 1 && !self.told_now && u32::from(self.told) < habit_nights;
        if is_known && is_first {
            (self.told_now, self.nights, self.told) = (true, 0, self.told.saturating_add(1));
        }
        is_known && is_first
    }
}

struct OffHours {
    from: u32,
    to: u32,
    learn_days: u32,
    habit_nights: u32,
    clock: Clock,
    memory: Column<Habit>,
}

impl OffHours {
    /// Working hours may pass midnight: 22 to 6.
    const fn is_work(&self, hour: u32) -> bool {
        if self.from <= self.to {
            hour >= self.from && hour < self.to
        } else {
            hour >= self.from || hour < self.to
        }
    }
}

impl Rule for OffHours {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::PRINCIPAL).and(When::SUCCESS)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if !case.exchange.is_success() {
            return;
        }
        let Some(actor) = case.who.principal() else { return };
        let at_s = case.second();
        let Some(hour) = self.clock.hour(at_s) else { return };
        let is_work = self.is_work(hour);
        let habit = self.memory.of(actor.slot);
        if is_work {
            habit.work(at_s);
            return;
        }
        let is_overtime = habit.stay_up(at_s);
        let is_tagged = matches!(case.route.kind, RouteKind::Sensitive | RouteKind::Admin);
        if is_tagged && !is_overtime && habit.tell(self.learn_days, self.habit_nights) {
            report.extend(finding(case, hour, habit.days));
        }
    }
}

fn finding(case: &Case<'_>, hour: u32, days: u8) -> Option<Finding> {
    let subject = Subject::new(case, case.acting()?);
    if subject.token.subject.as_deref().is_some_and(|name| name.starts_with(PREFIX)) {
        return None;
    }
    let statement = Statement {
        severity: ABOUT.severity,
        confidence: 50,
        message: format!(
            "A principal that never works at night worked at {hour:02}h local time: {}.",
            subject.told()
        ),
        brief: format!("at {hour:02}h local time"),
        facts: vec![("local_hour", hour.into()), ("days_at_work", days.into())],
    };
    Some(statement.into_finding(&ABOUT, &subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage, held_by};
    use crate::token::Token;

    /// So many hours after a midnight UTC.
    fn at(hour: u64) -> Stage {
        let midnight = NOW_S - NOW_S % 86_400 + 86_400;
        Stage::new().kind(RouteKind::Admin).status(200).after_ms((midnight + hour * 3600 - NOW_S) * 1000)
    }

    fn told(play: &mut Play, hour: u64) -> usize {
        play.ask(&at(hour), [held_by("anna")]).len()
    }

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    /// Days of the profile, from day 0.
    const LEARNED: u64 = 10;

    /// At work from 9 to 17 for so many days, on any route.
    fn worked(mut play: Play, days: u64) -> Play {
        for hour in (0..days).flat_map(|day| [9, 13, 17].map(|hour| day * 24 + hour)) {
            assert!(play.ask(&at(hour).kind(RouteKind::Plain), [held_by("anna")]).is_empty());
        }
        play
    }

    fn learned() -> Play {
        worked(play(), LEARNED)
    }

    #[test]
    fn working_hours_end_where_they_say() {
        for (hour, found) in [(7, 1), (8, 0), (19, 0), (20, 1), (23, 1)] {
            assert_eq!(told(&mut learned(), LEARNED * 24 + hour), found, "{hour}");
        }
    }

    #[test]
    fn two_weeks_at_work_make_a_profile() {
        for (days, found) in [(9, 0), (10, 1)] {
            assert_eq!(told(&mut worked(play(), days), days * 24 + 3), found, "{days}");
        }
    }

    #[test]
    fn a_night_is_told_once_and_becomes_a_habit() {
        let mut play = learned();
        let first = LEARNED * 24;
        assert_eq!([21, 23, 26].map(|hour| told(&mut play, first + hour)), [1, 0, 0]);
        let nights: Vec<usize> = (2..8).map(|day| told(&mut play, first + day * 24 + 3)).collect();
        assert_eq!(nights, [1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn whoever_was_up_at_night_before_is_benign_until_that_is_long_ago() {
        let mut play = learned();
        assert!(play.ask(&at(LEARNED * 24 + 3).kind(RouteKind::Plain), [held_by("anna")]).is_empty());
        assert_eq!(told(&mut play, (LEARNED + 1) * 24 + 3), 0);
        for day in LEARNED + 2..LEARNED + 70 {
            assert_eq!(told(&mut play, day * 24 + 10), 0);
        }
        assert_eq!(told(&mut play, (LEARNED + 70) * 24 + 3), 1);
    }

    #[test]
    fn the_same_night_on_other_routes_first_is_still_told() {
        let mut play = learned();
        assert!(play.ask(&at(LEARNED * 24 + 3).kind(RouteKind::Plain), [held_by("anna")]).is_empty());
        assert_eq!(told(&mut play, LEARNED * 24 + 4), 1);
    }

    #[test]
    fn overtime_is_no_night() {
        let mut play = learned();
        let day = LEARNED * 24;
        assert_eq!([19, 20].map(|hour| told(&mut play, day + hour)), [0, 0]);
        assert_eq!(told(&mut play, day + 21), 1, "two hours after");
    }

    #[test]
    fn a_long_absence_is_learned_anew() {
        let mut play = learned();
        let back = (LEARNED + 70) * 24;
        assert_eq!([told(&mut play, back + 9), told(&mut play, back + 24 + 3)], [0, 0]);
    }

    #[test]
    fn the_time_is_local() {
        let settings = |zone: &str| DetectSettings {
            time_zone: TimeZone::get(zone).unwrap(),
            ..DetectSettings::default()
        };
        for (zone, at_work, hour, found) in
            [("Asia/Tokyo", 1, 0, 0), ("Asia/Tokyo", 1, 12, 1), ("America/New_York", 15, 9, 1)]
        {
            let mut play = Play::new(rule(&Arc::new(settings(zone))));
            for day in 0..LEARNED {
                told(&mut play, day * 24 + at_work);
            }
            assert_eq!(told(&mut play, LEARNED * 24 + hour), found, "{zone} {hour}");
        }
    }

    #[test]
    fn routes_of_customers_failures_and_claims_are_benign() {
        let mut play = learned();
        let night = || at(LEARNED * 24 + 3);
        for kind in [RouteKind::Plain, RouteKind::Financial, RouteKind::Pii] {
            assert!(learned().ask(&night().kind(kind), [held_by("anna")]).is_empty());
        }
        assert!(play.ask(&night().status(403), [held_by("anna")]).is_empty());
        let forged = Token { signature: crate::token::Signature::Invalid, ..held_by("anna") };
        assert!(play.ask(&night(), [forged]).is_empty());
    }

    #[test]
    fn service_accounts_keep_no_hours() {
        let pod = || held_by("system:serviceaccount:shop:reports");
        let mut play = play();
        for day in 0..LEARNED {
            play.ask(&at(day * 24 + 12), [pod()]);
        }
        assert!(play.ask(&at(LEARNED * 24), [pod()]).is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        assert_eq!(told(&mut play, LEARNED * 24 + 21), 1);
        play.restart(rule(&Arc::default()));
        assert_eq!(told(&mut play, LEARNED * 24 + 22), 0);
    }
}
