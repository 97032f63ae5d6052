//! `refresh-reuse`: a refresh token that was accepted twice.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::family::Family;
use crate::detect::holder::holder;
use crate::detect::table::Table;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, RouteKind, Rule, Severity,
    Threshold, When, scene,
};

/// The card.
pub static ABOUT: About = About {
    id: "refresh-reuse",
    title: "Refresh token used twice",
    version: "1.1.0",
    severity: Severity::Critical,
    accepted: None,
    attack: &["T1550.001", "T1528"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when a token route accepts (2xx) one refresh token twice, more than a few seconds apart, although its \
issuer gives a new one with every use.\n\nTwo parties hold the token: its owner and a thief (RFC 9700 section 2.2.2). \
An issuer that rotates must refuse the second use and withdraw the whole family; this one did not.\n\nBenign source: \
issuers that do not rotate, where reuse is daily life. So whether a service rotates is learned: of the refresh tokens \
that it accepted at least an hour ago, 20 or more, less than one in fifty was ever used again, and 20 clients or more \
came back after a minute with another one. Until then, and where \
it does not rotate, only a use from another network (/16, /32) by another client family is told, as high. With \
`rotates` set to 1 nothing has to be learned. A retry within the grace is benign.\n\nWith `tokens.learn_issued` it \
also sees which refresh token took the place of which. Once the successor is used, the old one is left behind. One that \
is accepted after that from another network by another client family is critical. And a service rotates if 20 were \
left behind by clients that came back after a minute, and less than one in fifty was ever used again, however young \
they are. The alert names the owner if a verified token of the same login was used.\n\n\
Tokens are known by a keyed hash \
that is new at every start. Remembers 60 bytes a refresh token, as many as `tokens.max_tokens`, and 8 an address.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "grace_s",
            default: 10.0,
            min: 0.0,
            max: 600.0,
            doc: "Seconds within which a second use is a retry.",
        },
        Threshold {
            key: "learn_s",
            default: 3_600.0,
            min: 60.0,
            max: 604_800.0,
            doc: "Seconds in which a token that can be used again would have been.",
        },
        Threshold {
            key: "learn_tokens",
            default: 20.0,
            min: 5.0,
            max: 10_000.0,
            doc: "Tokens of that age that tell whether the service rotates.",
        },
        Threshold {
            key: "rotates",
            default: 0.0,
            min: 0.0,
            max: 1.0,
            doc: "1: every issuer gives a new refresh token with every use; nothing is learned.",
        },
    ],
};

/// One reuse in so many is theft; more often it is the custom of the house.
const RARE: u32 = 50;

/// An address that is silent for so long between two refreshes is one client's, and no gateway of many.
const PAUSE_S: u32 = 60;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(RefreshReuse {
        grace_s: settings.count(&ABOUT, "grace_s"),
        learn_s: settings.count(&ABOUT, "learn_s"),
        learn_tokens: settings.count(&ABOUT, "learn_tokens"),
        rotates: settings.count(&ABOUT, "rotates") > 0,
        used: Table::new(settings.max_tokens),
        memory: (Column::default(), Column::default()),
    })
}

/// The first use of a refresh token, and how many of its reuses were counted.
#[derive(Clone, Copy)]
struct Use {
    at_s: u32,
    network: (bool, u32),
    family: Family,
}

/// What is learned of a service: how many tokens it accepted in this span, in the one before, and long ago; and how
/// many of them again.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Custom {
    span: u32,
    now: u32,
    before: u32,
    ripe: u32,
    reused: u32,
    /// Addresses that came back with another token, after [`PAUSE_S`] of silence.
    rotated: u32,
    /// Tokens that were left behind for their successors, by addresses that came back after [`PAUSE_S`]; and those that
    /// were used after that.
    left: u32,
    stale: u32,
}

impl Custom {
    /// Moves on to the span of `second`: what was counted a whole span ago is ripe.
    const fn turn(&mut self, span: u32) {
        if span <= self.span {
            return;
        }
        self.ripe = self.ripe.saturating_add(self.before);
        if span - self.span > 1 {
            self.ripe = self.ripe.saturating_add(self.now);
            self.now = 0;
        }
        (self.span, self.before, self.now) = (span, self.now, 0);
    }
}

struct RefreshReuse {
    grace_s: u32,
    learn_s: u32,
    learn_tokens: u32,
    rotates: bool,
    used: Table<u128, Use>,
    /// Of each service its custom, of each address when it last refreshed.
    memory: (Column<Custom>, Column<u32>),
}

impl Rule for RefreshReuse {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::SUCCESS
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if case.route.kind != RouteKind::Token || !case.exchange.is_success() {
            return;
        }
        let Some(name) = case.exchange.body.as_ref().and_then(|body| body.refresh_token) else { return };
        let at_s = case.second();
        let here = Use { at_s, network: network(case.exchange.client), family: case.who.family };
        let (customs, addresses) = &mut self.memory;
        let custom = customs.of(case.who.service.slot);
        let last_s = std::mem::replace(addresses.of(case.who.address.slot), at_s);
        custom.turn(at_s / self.learn_s.max(1));
        let returned = last_s > 0 && at_s.saturating_sub(last_s) >= PAUSE_S;
        custom.left = custom.left.saturating_add((returned && case.issue.moves_on).into());
        let Some(first) = self.used.get(&name) else {
            custom.now = custom.now.saturating_add(1);
            custom.rotated = custom.rotated.saturating_add(returned.into());
            self.used.get_or(name, || here);
            return;
        };
        let apart_s = at_s.saturating_sub(first.at_s);
        if apart_s <= self.grace_s {
            return;
        }
        let left = case.issue.left_behind;
        let elsewhere = first.network != here.network && first.family.differs(here.family);
        let is_rare = |reused: u32, of: u32| of >= self.learn_tokens && reused.saturating_mul(RARE) < of;
        let rare = is_rare(custom.reused, custom.ripe.min(custom.rotated))
            || (left && is_rare(custom.stale, custom.left));
        custom.reused = custom.reused.saturating_add(1);
        custom.stale = custom.stale.saturating_add(left.into());
        // The newest use is what the next one is compared with.
        *first = here;
        if self.rotates || rare || (elsewhere && left) {
            report.push(finding(case, Severity::Critical, apart_s, elsewhere));
        } else if elsewhere {
            report.push(finding(case, Severity::High, apart_s, elsewhere));
        }
    }
}

/// The network that an address counts to: /16 of IPv4, /32 of IPv6.
fn network(address: IpAddr) -> (bool, u32) {
    match holder(address) {
        IpAddr::V4(v4) => (true, v4.to_bits() >> 16),
        IpAddr::V6(v6) => (false, u32::try_from(v6.to_bits() >> 96).unwrap_or_default()),
    }
}

fn finding(case: &Case<'_>, severity: Severity, apart_s: u32, elsewhere: bool) -> Finding {
    let place = if elsewhere { ", from another network and client," } else { "" };
    Finding {
        rule: &ABOUT,
        at: case.exchange.ended_at,
        severity,
        confidence: if elsewhere { 90 } else { 80 },
        principal: case.lineage.owner(&case.issue).cloned(),
        token: None,
        group: None,
        message: format!(
            "A refresh token was accepted again{place} {apart_s} s after its last use on {}: two parties hold it.",
            case.route.name
        ),
        brief: "refresh token accepted twice".to_owned(),
        facts: vec![
            ("apart_s", apart_s.into()),
            ("elsewhere", elsewhere.into()),
            ("replaced", case.issue.left_behind.into()),
        ],
        scene: Some(Box::new(scene::of(case))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Thresholds;
    use crate::detect::settings::RuleSettings;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Signature, Token};

    fn refresh(name: u128, at_s: u64) -> Stage {
        let mut stage =
            Stage::to("POST", "/oauth/token").kind(RouteKind::Token).status(200).after_ms(at_s * 1000);
        stage.exchange.body.get_or_insert_default().refresh_token = Some(name);
        stage
    }

    fn severities(play: &mut Play, stage: &Stage) -> Vec<Severity> {
        play.ask(stage, []).iter().map(|f| f.severity).collect()
    }

    /// A service that was seen to give a new refresh token with every use.
    fn rotating() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        for n in 0..40_u64 {
            assert!(severities(&mut play, &refresh(u128::from(n), n * 300)).is_empty());
        }
        play
    }

    #[test]
    fn a_second_use_is_critical_where_tokens_rotate() {
        let mut play = rotating();
        assert!(severities(&mut play, &refresh(39, 39 * 300 + 10)).is_empty(), "a retry");
        assert_eq!(severities(&mut play, &refresh(39, 39 * 300 + 11)), [Severity::Critical]);
        assert!(severities(&mut play, &refresh(1000, 12_500)).is_empty());
    }

    #[test]
    fn refused_uses_and_other_routes_do_not_count() {
        let mut play = rotating();
        assert!(severities(&mut play, &refresh(5, 13_000).status(400)).is_empty());
        assert!(severities(&mut play, &refresh(5, 13_000).kind(RouteKind::Plain)).is_empty());
    }

    #[test]
    fn a_service_that_does_not_rotate_is_benign() {
        let mut play = Play::new(rule(&Arc::default()));
        for round in 0..50_u64 {
            for client in 0..30_u64 {
                let stage = refresh(u128::from(client), round * 300 + client * 3);
                assert!(severities(&mut play, &stage).is_empty(), "{round} {client}");
            }
        }
    }

    #[test]
    fn a_use_elsewhere_is_high_before_anything_is_learned() {
        let mut play = Play::new(rule(&Arc::default()));
        severities(&mut play, &refresh(1, 0).header("User-Agent", "okhttp/4.12"));
        let moved = refresh(1, 400).client("203.0.113.5").header("User-Agent", "okhttp/4.12");
        assert!(severities(&mut play, &moved).is_empty(), "a telephone that moves");
        let thief = refresh(1, 800).client("198.51.100.9").header("User-Agent", "curl/8.5");
        assert_eq!(severities(&mut play, &thief), [Severity::High]);
    }

    #[test]
    fn nothing_has_to_be_learned_where_the_configuration_says_so() {
        let own = RuleSettings { thresholds: Thresholds(vec![("rotates", 1.0)]), ..RuleSettings::default() };
        let settings =
            Arc::new(DetectSettings { rules: [(ABOUT.id.to_owned(), own)].into(), ..Default::default() });
        let mut play = Play::new(rule(&settings));
        severities(&mut play, &refresh(1, 0));
        assert_eq!(severities(&mut play, &refresh(1, 11)), [Severity::Critical]);
    }

    #[test]
    fn a_restart_keeps_what_was_learned_and_floods_are_bounded() {
        let mut play = rotating();
        play.restart(rule(&Arc::default()));
        severities(&mut play, &refresh(7000, 12_100));
        assert_eq!(severities(&mut play, &refresh(7000, 12_200)), [Severity::Critical]);
        let settings = DetectSettings { max_tokens: 50, ..DetectSettings::default() };
        let mut flooded = RefreshReuse { used: Table::new(settings.max_tokens), ..fresh() };
        for n in 0..5000_u64 {
            refresh(u128::from(n), n).ask(&mut flooded, []);
        }
        assert_eq!(flooded.used.len(), 50);
    }

    /// Somebody has logged in and got this refresh token.
    fn logged_in(name: u128) -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        play.ask(&Stage::to("POST", "/login").status(200).issuing(None, Some(name)), []);
        play
    }

    /// Somebody logs in, refreshes with 1 and then with 2: 1 is left behind.
    fn moved_on() -> Play {
        let mut play = logged_in(1);
        for (given, gained, at_s) in [(1, 2, 0), (2, 3, 900)] {
            let stage = refresh(given, at_s).issuing(Some(given), Some(gained));
            assert!(severities(&mut play, &stage.header("User-Agent", "okhttp/4.12")).is_empty());
        }
        play
    }

    #[test]
    fn an_old_token_that_its_owner_has_left_behind_is_critical_elsewhere_at_once() {
        let old = || refresh(1, 1000).issuing(Some(1), Some(9));
        let app = |stage: Stage| stage.header("User-Agent", "okhttp/4.12");
        let thief = |stage: Stage| stage.header("User-Agent", "curl/8.5");
        assert!(severities(&mut moved_on(), &app(old())).is_empty(), "another window");
        assert!(severities(&mut moved_on(), &app(old().client("203.0.113.5"))).is_empty(), "on the way");
        assert!(severities(&mut moved_on(), &thief(old())).is_empty(), "a program of the same host");
        assert_eq!(severities(&mut moved_on(), &thief(old().client("203.0.113.5"))), [Severity::Critical]);
        assert!(severities(&mut moved_on(), &thief(old()).status(400)).is_empty(), "refused");
    }

    #[test]
    fn the_owner_is_named_by_a_verified_token_of_the_same_login_only() {
        let thief = refresh(1, 1000).issuing(Some(1), Some(9)).header("User-Agent", "curl/8.5");
        let thief = thief.client("203.0.113.5");
        assert_eq!(moved_on().ask(&thief, [])[0].principal, None);
        for (held, named) in [
            (token(5), Some("alice")),
            (Token { signature: Signature::Invalid, ..token(5) }, None),
            (Token { subject: Some("bob".into()), ..token(6) }, None),
        ] {
            let mut play = moved_on();
            let again = refresh(3, 950).issuing(Some(3), Some(4));
            play.ask_issuing(&again.header("User-Agent", "okhttp/4.12"), [], [token(5)]);
            play.ask(&Stage::new().status(200), [held]);
            let found = play.ask(&thief, []);
            assert_eq!(found[0].principal.as_ref().map(|p| &*p.subject), named);
        }
    }

    #[test]
    fn what_is_left_behind_teaches_in_minutes_whether_a_service_rotates() {
        let mut play = logged_in(0);
        for n in 0..21 {
            let stage = refresh(n, u64::try_from(n).unwrap() * 60).issuing(Some(n), Some(n + 1));
            assert!(severities(&mut play, &stage).is_empty());
        }
        let stale = |n, s| refresh(n, s).issuing(Some(n), Some(n + 1000));
        assert_eq!(severities(&mut play, &stale(3, 1_300)), [Severity::Critical]);
        assert!(severities(&mut play, &stale(4, 1_320)).is_empty(), "two of twenty: the custom of the house");
    }

    #[test]
    fn an_answer_that_was_lost_on_the_way_leaves_nothing_behind() {
        let mut play = logged_in(1);
        severities(&mut play, &refresh(1, 0).issuing(Some(1), Some(2)));
        let again = refresh(1, 60).issuing(Some(1), Some(3)).client("203.0.113.5");
        assert!(severities(&mut play, &again).is_empty(), "a telephone that lost its network");
    }

    fn fresh() -> RefreshReuse {
        RefreshReuse {
            grace_s: 10,
            learn_s: 3600,
            learn_tokens: 20,
            rotates: false,
            used: Table::new(1),
            memory: (Column::default(), Column::default()),
        }
    }
}
