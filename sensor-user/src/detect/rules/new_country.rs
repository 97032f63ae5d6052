//! `new-country`: a principal acts from a country in which it was never seen.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::crowd::{FadingCrowd, SHARED_AFTER};
use crate::detect::knowledge::letters;
use crate::detect::learning::{Gate, LEARN_DAYS, LEARN_LOGINS, Learning, day};
use crate::detect::statement::{Statement, Subject, is_guardable};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, RouteKind, Rule, Severity, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "new-country",
    title: "First use from a country",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when a verified principal that is known for 14 days or 10 logins succeeds (2xx) from a country in which \
it was never seen. On routes tagged sensitive, pii, financial or admin it is medium.\n\nMost people are in one or two \
countries; a thief is elsewhere. Travellers are the benign source, hence low: it is worth most in an incident with \
other alerts. Once told of, the country is known.\n\nSilent without a city or country database (`geo.city`), for \
`lists.trusted_addresses`, and for addresses that eight or more principals use (VPN, gateways: they are learned). \
After 60 days of silence a principal is learned anew. It does not see a thief in the owner's country. 72 bytes a principal, 32 an address.",
    cooling_s: 600,
    thresholds: &[LEARN_DAYS, LEARN_LOGINS, SHARED_AFTER],
};

/// Countries remembered of one principal; of more, those not used for longest are forgotten.
const MAX_COUNTRIES: usize = 10;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(NewCountry {
        gate: Gate {
            days: settings.count(&ABOUT, "learn_days"),
            logins: settings.count(&ABOUT, "learn_logins"),
        },
        shared_after: settings.count(&ABOUT, "shared_after"),
        memory: (Column::default(), Column::default()),
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Countries {
    learning: Learning,
    /// Each with the newest day of use.
    seen: ArrayVec<([u8; 2], u16), MAX_COUNTRIES>,
}

struct NewCountry {
    gate: Gate,
    shared_after: u32,
    /// Of each principal where it was, of each address who was there.
    memory: (Column<Countries>, Column<FadingCrowd>),
}

impl Countries {
    /// Notes a country. Whether it is another than all before.
    fn note(&mut self, country: [u8; 2], day: u16) -> bool {
        if let Some((_, newest)) = self.seen.iter_mut().find(|(known, _)| *known == country) {
            *newest = day;
            return false;
        }
        let is_first = self.seen.is_empty();
        if let Err(full) = self.seen.try_push((country, day))
            && let Some(oldest) = self.seen.iter_mut().min_by_key(|(_, day)| *day)
        {
            *oldest = full.element();
        }
        !is_first
    }
}

impl Rule for NewCountry {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(country) = case.place().and_then(|place| place.country) else { return };
        let Some(actor) = case.who.principal() else { return };
        if !case.exchange.is_success() || case.who.trusted_address || !is_guardable(case.route.kind) {
            return;
        }
        let at_s = case.second();
        let (principals, crowds) = &mut self.memory;
        let countries = principals.of(actor.slot);
        if countries.learning.note(case.who.first_token(), at_s) {
            countries.seen.clear();
        }
        let crowd = crowds.of(case.who.address.slot);
        crowd.note(actor.slot, at_s);
        if countries.note(country, day(at_s))
            && countries.learning.is_learned(self.gate, at_s)
            && crowd.size() < self.shared_after
        {
            report.extend(finding(case, country, countries.seen.len() - 1));
        }
    }
}

fn finding(case: &Case<'_>, country: [u8; 2], known: usize) -> Option<Finding> {
    let subject = Subject::new(case, case.acting()?);
    let country = letters(country);
    let tagged = matches!(
        case.route.kind,
        RouteKind::Sensitive | RouteKind::Pii | RouteKind::Financial | RouteKind::Admin
    );
    let statement = Statement {
        severity: if tagged { Severity::Medium } else { ABOUT.severity },
        confidence: 60,
        message: format!(
            "A principal came from {country}, where it was never seen before: {}.",
            subject.told()
        ),
        brief: format!("first use from {country}"),
        facts: vec![("country", country.into()), ("known_countries", known.into())],
    };
    Some(statement.into_finding(&ABOUT, &subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Place;
    use crate::detect::knowledge::Geo;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::Token;

    /// A country for each first octet.
    struct World;

    impl Geo for World {
        fn place(&self, address: std::net::IpAddr) -> Place {
            let std::net::IpAddr::V4(v4) = address else { return Place::default() };
            Place { country: Some([b'A', b'A' + v4.octets()[0] % 26]), ..Place::default() }
        }
    }

    fn play() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        play.knowledge.geo = Some(Arc::new(World));
        play
    }

    fn used(hours: u64, address: &str) -> Stage {
        Stage::new().status(200).client(address).after_ms(hours * 3_600_000)
    }

    fn lasting(number: u64) -> Token {
        let token = token(number);
        Token { expires: token.expires.get().map(|t| t + 300 * 86_400).into(), ..token }
    }

    /// A principal that has logged in ten times from one country.
    fn learned() -> Play {
        let mut play = play();
        for login in 0..11 {
            assert!(play.ask(&used(login, "1.0.0.1"), [lasting(login)]).is_empty());
        }
        play
    }

    #[test]
    fn a_learned_principal_in_a_new_country_is_told_once() {
        let mut play = learned();
        let found = play.ask(&used(12, "2.0.0.1"), [lasting(11)]);
        assert_eq!((found[0].severity, found[0].brief.as_str()), (Severity::Low, "first use from AC"));
        assert!(play.ask(&used(12, "2.0.0.2"), [lasting(11)]).is_empty());
        assert!(play.ask(&used(12, "1.0.0.1"), [lasting(11)]).is_empty());
    }

    #[test]
    fn it_is_medium_where_it_hurts() {
        let found = learned().ask(&used(12, "2.0.0.1").kind(RouteKind::Financial), [lasting(11)]);
        assert_eq!(found[0].severity, Severity::Medium);
    }

    #[test]
    fn newcomers_failures_and_open_routes_are_no_sign() {
        let mut play = play();
        play.ask(&used(0, "1.0.0.1"), [lasting(1)]);
        assert!(play.ask(&used(1, "2.0.0.1"), [lasting(2)]).is_empty());
        let mut play = learned();
        for stage in [
            used(12, "2.0.0.1").status(403),
            used(12, "2.0.0.1").status(500),
            used(12, "2.0.0.1").kind(RouteKind::Health),
        ] {
            assert!(play.ask(&stage, [lasting(11)]).is_empty());
        }
    }

    #[test]
    fn a_company_exit_that_moves_tells_of_seven_people_at_most() {
        let mut play = play();
        let person = |number: u64, login: u64| Token {
            subject: Some(format!("user-{number}").into()),
            ..lasting(number * 100 + login)
        };
        for login in 0..11 {
            for number in 0..40 {
                play.ask(&used(login, &format!("1.0.0.{number}")), [person(number, login)]);
            }
        }
        let told: usize =
            (0..40).map(|number| play.ask(&used(12, "2.0.0.1"), [person(number, 11)]).len()).sum();
        assert_eq!(told, 7);
    }

    #[test]
    fn after_a_long_silence_it_learns_anew() {
        let mut play = learned();
        assert!(play.ask(&used(24 * 70, "2.0.0.1"), [lasting(11)]).is_empty());
        assert!(play.ask(&used(24 * 70 + 1, "3.0.0.1"), [lasting(11)]).is_empty());
    }

    #[test]
    fn is_silent_without_a_database_and_for_strangers() {
        let mut play = Play::new(rule(&Arc::default()));
        for login in 0..12 {
            assert!(play.ask(&used(login, &format!("{login}.0.0.1")), [lasting(login)]).is_empty());
        }
        let forged = Token { signature: crate::token::Signature::Invalid, ..lasting(20) };
        assert!(learned().ask(&used(12, "2.0.0.1"), [forged]).is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&used(12, "2.0.0.1"), [lasting(11)]).len(), 1);
    }

    #[test]
    fn a_world_tour_stays_bounded() {
        let mut play = learned();
        for hour in 0..500 {
            play.ask(&used(12 + hour, &format!("{}.0.0.1", hour % 26 + 1)), [lasting(11)]);
        }
        assert!(play.rule.memory().unwrap().save().unwrap().len() < 2000);
    }
}
