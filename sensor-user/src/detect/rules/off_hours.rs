//! `off-hours`: work on sensitive routes in the middle of the night.

use std::sync::Arc;

use arrayvec::ArrayVec;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, RouteKind, Rule, Severity, Threshold,
};

/// The card.
pub static ABOUT: About = About {
    id: "off-hours",
    title: "Sensitive work outside working hours",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when a verified principal succeeds (2xx) on a route tagged sensitive, pii, financial or admin outside \
08:00 to 20:00 local time (`time_zone`). Once a night of each principal.\n\nPeople sleep when attackers in other parts \
of the world work. Alone it proves nothing, hence low; it gives weight to an incident.\n\nBenign sources, which are \
learned: night shifts, batch jobs and colleagues in other time zones. An hour in which a principal worked on three \
nights, or the hour beside it, is its own. It knows no weekends and holidays, and does not see routes that nobody has \
tagged. 44 bytes a principal.",
    cooling_s: 3600,
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
            key: "habit_nights",
            default: 3.0,
            min: 1.0,
            max: 100.0,
            doc: "Nights after which an hour is a principal's habit.",
        },
    ],
};

/// Time zones change their offset at whole quarters of an hour.
const QUARTER_S: u32 = 900;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(OffHours {
        from: settings.count(&ABOUT, "from_hour"),
        to: settings.count(&ABOUT, "to_hour"),
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

/// The hours at which one principal works at night.
#[derive(Default, Serialize, Deserialize)]
struct Nights {
    told_s: u32,
    /// Hour, nights, and the number of the newest night.
    hours: ArrayVec<(u8, u8, u32), MAX_HOURS>,
}

/// Hours remembered of one principal: half a night shift. Its neighbours count too.
const MAX_HOURS: usize = 4;

/// Seconds of a night at most: what is told once is not told again before the next.
const NIGHT_S: u32 = 16 * 3600;

impl Nights {
    /// Notes work in an hour. On how many nights before there was work in it, or in one beside it.
    fn note(&mut self, hour: u32, night: u32) -> u32 {
        let Ok(hour) = u8::try_from(hour) else { return 0 };
        let near = |other: u8| matches!(hour.abs_diff(other), 0 | 1 | 23);
        let earlier = |(_, nights, newest): &(u8, u8, u32)| u32::from(*nights) - u32::from(*newest == night);
        let before = self.hours.iter().filter(|entry| near(entry.0)).map(earlier).max().unwrap_or(0);
        if let Some((_, nights, newest)) = self.hours.iter_mut().find(|(known, ..)| *known == hour) {
            if *newest != night {
                (*nights, *newest) = (nights.saturating_add(1), night);
            }
        } else if let Err(full) = self.hours.try_push((hour, 1, night))
            && let Some(rarest) = self.hours.iter_mut().min_by_key(|(_, nights, newest)| (*nights, *newest))
        {
            *rarest = full.element();
        }
        before
    }
}

struct OffHours {
    from: u32,
    to: u32,
    habit_nights: u32,
    clock: Clock,
    memory: Column<Nights>,
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

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if !is_tagged(case.route.kind) || !case.exchange.is_success() {
            return;
        }
        let Some(actor) = case.who.principal() else { return };
        let at_s = case.second();
        let Some(hour) = self.clock.hour(at_s) else { return };
        if self.is_work(hour) {
            return;
        }
        let nights = self.memory.of(actor.slot);
        let before = nights.note(hour, at_s / 86_400);
        let told = nights.told_s > 0 && at_s.abs_diff(nights.told_s) < NIGHT_S;
        if !told && before < self.habit_nights {
            nights.told_s = at_s;
            report.extend(finding(case, hour));
        }
    }
}

/// Whether somebody has said that a route is worth a look.
const fn is_tagged(kind: RouteKind) -> bool {
    matches!(kind, RouteKind::Sensitive | RouteKind::Pii | RouteKind::Financial | RouteKind::Admin)
}

fn finding(case: &Case<'_>, hour: u32) -> Option<Finding> {
    let subject = Subject::new(case, case.acting()?);
    let statement = Statement {
        severity: ABOUT.severity,
        confidence: 50,
        message: format!("A principal worked at {hour:02}h local time, out of hours: {}.", subject.told()),
        brief: format!("at {hour:02}h local time"),
        facts: vec![("local_hour", hour.into())],
    };
    Some(statement.into_finding(&ABOUT, &subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage, token};
    use crate::token::Token;

    /// So many hours after a midnight UTC.
    fn at(hour: u64) -> Stage {
        let midnight = NOW_S - NOW_S % 86_400 + 86_400;
        Stage::new().kind(RouteKind::Pii).status(200).after_ms((midnight + hour * 3600 - NOW_S) * 1000)
    }

    fn lasting() -> Token {
        let token = token(1);
        Token { expires: token.expires.map(|t| t + 90 * 86_400), ..token }
    }

    fn told(play: &mut Play, hour: u64) -> usize {
        play.ask(&at(hour), [lasting()]).len()
    }

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    #[test]
    fn working_hours_end_where_they_say() {
        for (hour, found) in [(7, 1), (8, 0), (19, 0), (20, 1), (23, 1)] {
            assert_eq!(told(&mut play(), hour), found, "{hour}");
        }
    }

    #[test]
    fn a_night_is_told_once_and_a_habit_is_learned() {
        let mut play = play();
        assert_eq!([told(&mut play, 21), told(&mut play, 23), told(&mut play, 26)], [1, 0, 0]);
        let nights: Vec<usize> = (2..8).map(|day| told(&mut play, day * 24 + 3)).collect();
        assert_eq!(nights, [1, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn the_time_is_local() {
        let settings = |zone: &str| DetectSettings {
            time_zone: TimeZone::get(zone).unwrap(),
            ..DetectSettings::default()
        };
        for (zone, hour, found) in [("Asia/Tokyo", 0, 0), ("Asia/Tokyo", 12, 1), ("America/New_York", 9, 1)] {
            let settings = Arc::new(settings(zone));
            assert_eq!(told(&mut Play::new(rule(&settings)), hour), found, "{zone} {hour}");
        }
    }

    #[test]
    fn plain_routes_failures_and_claims_are_benign() {
        let mut play = play();
        assert!(play.ask(&at(3).kind(RouteKind::Plain), [lasting()]).is_empty());
        assert!(play.ask(&at(3).status(403), [lasting()]).is_empty());
        let forged = Token { signature: crate::token::Signature::Invalid, ..lasting() };
        assert!(play.ask(&at(3), [forged]).is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = play();
        assert_eq!(told(&mut play, 21), 1);
        play.restart(rule(&Arc::default()));
        assert_eq!(told(&mut play, 22), 0);
    }
}
