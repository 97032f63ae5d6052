//! `new-device-sensitive`: a principal comes to a sensitive route with a client that it never used before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::detect::family::Family;
use crate::detect::learning::{Gate, Learning, day};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, RouteKind, Rule, Severity,
    Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "new-device-sensitive",
    title: "A new kind of client on a sensitive route",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when a verified principal that is known for 14 days or 10 logins succeeds (2xx) on a route tagged \
sensitive, pii, financial or admin with a client family (Firefox, curl, okhttp, ...; versions do not count) that it \
first used on this same day. Once a family.\n\nPeople keep their programs for years; a thief brings his own, and goes \
where the money is.\n\nBenign source: a new telephone or browser, which a day of use on other routes makes known. It \
does not see a thief with the owner's kind of client, nor clients that do not say what they are. After 60 days of \
silence a principal is learned anew. 56 bytes a principal.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "learn_days",
            default: 14.0,
            min: 0.0,
            max: 365.0,
            doc: "Days for which a principal must be known.",
        },
        Threshold {
            key: "learn_logins",
            default: 10.0,
            min: 0.0,
            max: 200.0,
            doc: "Logins after which it is known well enough before that.",
        },
    ],
};

/// Families remembered of one principal; of more, those not used for longest are forgotten.
const MAX_FAMILIES: usize = 6;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(NewDeviceSensitive {
        gate: Gate {
            days: settings.count(&ABOUT, "learn_days"),
            logins: settings.count(&ABOUT, "learn_logins"),
        },
        memory: Column::default(),
    })
}

/// A client family of a principal.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Device {
    family: Family,
    /// Days of its first and newest use.
    first: u16,
    newest: u16,
    /// It was there from the start, or was told of.
    settled: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Devices {
    learning: Learning,
    /// At most [`MAX_FAMILIES`].
    known: SmallVec<[Device; 2]>,
}

impl Devices {
    /// Notes a use of a family.
    fn see(&mut self, family: Family, day: u16, learned: bool) -> Option<&mut Device> {
        if let Some(at) = self.known.iter().position(|device| device.family == family) {
            let device = self.known.get_mut(at)?;
            device.newest = day;
            return Some(device);
        }
        if self.known.len() >= MAX_FAMILIES {
            let oldest = (0..).zip(&self.known).min_by_key(|(_, device)| device.newest);
            self.known.remove(oldest.map_or(0, |(at, _)| at));
        }
        self.known.push(Device { family, first: day, newest: day, settled: !learned });
        self.known.last_mut()
    }
}

struct NewDeviceSensitive {
    gate: Gate,
    memory: Column<Devices>,
}

impl Rule for NewDeviceSensitive {
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
        let Some(actor) = case.who.principal() else { return };
        let family = case.who.family;
        if family == Family::default() || !case.exchange.is_success() {
            return;
        }
        let (at_s, today) = (case.second(), day(case.second()));
        let devices = self.memory.of(actor.slot);
        if devices.learning.note(case.who.first_token(), at_s) {
            devices.known.clear();
        }
        let learned = devices.learning.is_learned(self.gate, at_s) && !devices.known.is_empty();
        let Some(device) = devices.see(family, today, learned) else { return };
        let tagged = matches!(
            case.route.kind,
            RouteKind::Sensitive | RouteKind::Pii | RouteKind::Financial | RouteKind::Admin
        );
        if tagged && !device.settled {
            device.settled = true;
            if device.first == today {
                report.extend(finding(case));
            }
        }
    }
}

fn finding(case: &Case<'_>) -> Option<Finding> {
    let subject = Subject::new(case, case.acting()?);
    let statement = Statement {
        severity: ABOUT.severity,
        confidence: 65,
        message: format!("A principal used a kind of client that it never used before: {}.", subject.told()),
        brief: "first use of this client".to_owned(),
        facts: Vec::new(),
    };
    Some(statement.into_finding(&ABOUT, &subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::Token;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
    const FIREFOX_NEXT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0";

    fn used(hours: u64, agent: &str) -> Stage {
        Stage::new().status(200).header("User-Agent", agent).after_ms(hours * 3_600_000)
    }

    fn lasting(number: u64) -> Token {
        let token = token(number);
        Token { expires: token.expires.get().map(|t| t + 300 * 86_400).into(), ..token }
    }

    /// A principal that has logged in eleven times with Firefox.
    fn learned() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        for login in 0..11 {
            let stage = used(login, FIREFOX).kind(RouteKind::Admin);
            assert!(play.ask(&stage, [lasting(login)]).is_empty());
        }
        play
    }

    #[test]
    fn a_new_family_on_a_tagged_route_is_told_once() {
        let mut play = learned();
        let stage = used(12, "curl/8").kind(RouteKind::Admin);
        assert_eq!(play.ask(&stage, [lasting(20)])[0].severity, Severity::Medium);
        assert!(play.ask(&stage, [lasting(20)]).is_empty());
    }

    #[test]
    fn looking_around_first_does_not_hide_it() {
        let mut play = learned();
        assert!(play.ask(&used(12, "curl/8"), [lasting(20)]).is_empty());
        assert_eq!(play.ask(&used(12, "curl/8").kind(RouteKind::Pii), [lasting(20)]).len(), 1);
    }

    #[test]
    fn a_day_of_use_updates_and_newcomers_are_benign() {
        let mut play = learned();
        play.ask(&used(12, "okhttp/5"), [lasting(20)]);
        assert!(play.ask(&used(40, "okhttp/5").kind(RouteKind::Pii), [lasting(21)]).is_empty());
        assert!(play.ask(&used(41, FIREFOX_NEXT).kind(RouteKind::Pii), [lasting(21)]).is_empty());
        assert!(play.ask(&used(42, "").kind(RouteKind::Pii), [lasting(21)]).is_empty());
        assert!(play.ask(&used(43, "curl/8").kind(RouteKind::Pii).status(403), [lasting(21)]).is_empty());
        let mut fresh = Play::new(rule(&Arc::default()));
        for agent in [FIREFOX, "curl/8", "okhttp/5"] {
            assert!(fresh.ask(&used(0, agent).kind(RouteKind::Pii), [lasting(1)]).is_empty());
        }
    }

    #[test]
    fn after_a_long_silence_it_learns_anew() {
        let mut play = learned();
        assert!(play.ask(&used(24 * 75, "curl/8").kind(RouteKind::Pii), [lasting(20)]).is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&used(12, "curl/8").kind(RouteKind::Pii), [lasting(20)]).len(), 1);
    }

    #[test]
    fn many_families_stay_bounded() {
        let mut play = learned();
        for n in 0..500 {
            play.ask(&used(12, &format!("tool{n}/1")).kind(RouteKind::Pii), [lasting(20)]);
        }
        assert!(play.rule.memory().unwrap().save().unwrap().len() < 2000);
    }
}
