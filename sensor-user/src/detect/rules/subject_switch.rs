//! `subject-switch`: one connection or one session that turns into somebody else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::SocketId;
use crate::detect::crowd::FadingCrowd;
use crate::detect::roster::stable_hash;
use crate::detect::statement::{Statement, Subject};
use crate::detect::table::Table;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Slot, Threshold,
    When,
};
use crate::http::Exchange;

/// The card.
pub static ABOUT: About = About {
    id: "subject-switch",
    title: "A session turns into somebody else",
    version: "1.1.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1550.001", "T1563"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when one connection, or one session cookie, has carried the verified tokens of one principal, and then \
carries a token of another that was issued before the first one's last use: nobody has logged in anew in between. It is \
high if that token was in use elsewhere before.\n\nWho tries out stolen tokens does it over one connection; who takes \
over a session keeps its cookie and brings a token.\n\nProxies, gateways and load balancers carry many people over one \
connection. So a connection is judged only if the client is direct (no Forwarded, X-Forwarded-For or Via, not in \
`lists.trusted_addresses`), its address is known for ten minutes and twenty exchanges with one principal only, and the \
switch comes within five seconds. An address that ever carried three principals is shared for good. A connection and \
a session are told once. Benign sources: people with two accounts that are both logged in, tests. It does not see a \
switch without verified tokens.\n\nWith `tokens.learn_issued` it knows which tokens come from one login, by the \
refresh tokens that they were had for. If two of them, for one audience, name two principals, the issuer has given \
somebody the token of somebody else: that is high, whatever the connection and however long it took. Benign source: \
issuers that let an administrator act as another by a refresh. Audiences are told apart because some issuers give \
each its own name of a person.\n\n48 bytes a connection, a session and a family (65,536 of each), 40 an address.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "within_s",
            default: 5.0,
            min: 1.0,
            max: 3_600.0,
            doc: "Seconds after the first one's last use within which a connection must switch.",
        },
        Threshold {
            key: "address_known_s",
            default: 600.0,
            min: 0.0,
            max: 604_800.0,
            doc: "Seconds for which the address must be known.",
        },
        Threshold {
            key: "address_uses",
            default: 20.0,
            min: 0.0,
            max: 100_000.0,
            doc: "Exchanges that the address must have had.",
        },
        Threshold {
            key: "min_uses",
            default: 3.0,
            min: 1.0,
            max: 1_000.0,
            doc: "Exchanges of the first principal on the connection or in the session.",
        },
    ],
};

/// Connections and sessions remembered: those of one node within minutes.
const MAX_LINES: usize = 65_536;

/// Principals at one address that make it shared for good.
const SHARED: u32 = 3;

/// Cookies that hold a session, of common frameworks.
const SESSION_COOKIES: [&[u8]; 12] = [
    b"sid",
    b"session",
    b"sessionid",
    b"session_id",
    b"_session",
    b"_session_id",
    b"JSESSIONID",
    b"PHPSESSID",
    b"connect.sid",
    b"ASP.NET_SessionId",
    b"laravel_session",
    b"SESSION",
];

/// Shortest value that can be a session's name: 64 bits as base64. Shorter ones are states (`sid=1`).
const MIN_SESSION: usize = 11;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(SubjectSwitch {
        within_s: settings.count(&ABOUT, "within_s"),
        address_known_s: settings.count(&ABOUT, "address_known_s"),
        address_uses: settings.count(&ABOUT, "address_uses"),
        min_uses: settings.count(&ABOUT, "min_uses"),
        connections: Table::new(MAX_LINES),
        memory: (Table::new(MAX_LINES), Column::default(), Table::new(MAX_LINES)),
    })
}

/// Who spoke over a connection or in a session.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Line {
    subject: Slot,
    last_s: u32,
    uses: u16,
    /// Several have spoken: nothing more is said.
    mixed: bool,
}

/// Who comes from an address.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Door {
    crowd: FadingCrowd,
    shared: bool,
}

struct SubjectSwitch {
    within_s: u32,
    address_known_s: u32,
    address_uses: u32,
    min_uses: u32,
    /// Connections do not outlive a restart.
    connections: Table<SocketId, Line>,
    /// Sessions by the hash of their cookie, addresses, and families by their names and audiences.
    memory: (Table<u64, Line>, Column<Door>, Table<u64, Line>),
}

impl Line {
    /// Notes a use. The second of the last use of somebody else, the first time that there is one.
    fn speak(&mut self, subject: Slot, at_s: u32, min_uses: u32) -> Option<u32> {
        if self.uses == 0 {
            self.subject = subject;
        }
        if self.mixed {
            return None;
        }
        if self.subject == subject {
            self.uses = self.uses.saturating_add(1);
            self.last_s = self.last_s.max(at_s);
            return None;
        }
        self.mixed = true;
        (u32::from(self.uses) >= min_uses).then_some(self.last_s)
    }
}

impl Rule for SubjectSwitch {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::PRINCIPAL
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(actor) = case.who.principal() else { return };
        if case.exchange.is_refused() {
            return;
        }
        let (subject, at_s) = (actor.slot, case.second());
        let (sessions, doors, _) = &mut self.memory;
        let door = doors.of(case.who.address.slot);
        let others = door.crowd.size() > 1 || door.shared;
        door.crowd.note(subject, at_s);
        door.shared |= door.crowd.size() >= SHARED;
        let line = self.connections.get_or(case.exchange.socket, Line::default);
        let mut before = line.and_then(|line| line.speak(subject, at_s, self.min_uses));
        let address = case.who.address;
        let settled =
            address.uses >= self.address_uses && at_s.saturating_sub(address.first_s) >= self.address_known_s;
        before = before
            .filter(|last| !others && settled && at_s.abs_diff(*last) <= self.within_s && is_direct(case));
        let mut what = "connection";
        if let Some(name) = session(case.exchange) {
            sessions.keep_to(MAX_LINES);
            let line = sessions.get_or(name, Line::default);
            let switched = line.and_then(|line| line.speak(subject, at_s, self.min_uses));
            if let Some(last) = switched.filter(|_| !case.who.trusted_address) {
                (before, what) = (Some(last), "session cookie");
            }
        }
        let changed = self.changed_family(case, subject, at_s);
        report.extend(changed.or_else(|| before.and_then(|last| finding(case, last, what))));
    }
}

impl SubjectSwitch {
    /// What there is to say of the family of the acting token.
    fn changed_family(&mut self, case: &Case<'_>, subject: Slot, at_s: u32) -> Option<Finding> {
        if case.lineage.is_empty() {
            return None;
        }
        let held = case.acting()?;
        let family = case.birth(held.token.fingerprint)?.family;
        let families = &mut self.memory.2;
        families.keep_to(MAX_LINES);
        let name = stable_hash(&(family, &held.token.issuer, &held.token.audiences));
        families.get_or(name, Line::default)?.speak(subject, at_s, 1)?;
        let subject = Subject::new(case, held);
        let statement = Statement {
            severity: Severity::High,
            confidence: 90,
            message: format!(
                "A token of this principal was issued for the refresh token of another one: {}.",
                subject.told()
            ),
            brief: "token family changed its principal".to_owned(),
            facts: vec![("switched", "token family".into())],
        };
        Some(statement.into_finding(&ABOUT, &subject))
    }
}

/// Whether the peer is the client itself, as far as a request tells.
fn is_direct(case: &Case<'_>) -> bool {
    let (exchange, head) = (case.exchange, &case.exchange.request);
    !case.who.trusted_address
        && exchange.client.to_canonical() == exchange.endpoints.client.ip().to_canonical()
        && ["forwarded", "x-forwarded-for", "via", "x-real-ip"].iter().all(|name| head.value(name).is_none())
}

/// The name of the session that a request belongs to: a hash, as cookies are not kept.
fn session(exchange: &Exchange) -> Option<u64> {
    let cookies = exchange.request.value("cookie")?;
    cookies.split(|b| *b == b';').find_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        let (name, value) = pair.split_at_checked(at)?;
        let name = name.trim_ascii();
        let known = value.len() > MIN_SESSION && SESSION_COOKIES.contains(&name);
        known.then(|| stable_hash(&(name, value)))
    })
}

fn finding(case: &Case<'_>, last_s: u32, what: &str) -> Option<Finding> {
    let held = case.acting()?;
    if held.token.issued.is_none_or(|issued| issued >= i64::from(last_s)) {
        return None;
    }
    let subject = Subject::new(case, held);
    let moved = case.who.token(held.token.fingerprint).is_some_and(|known| !known.is_new());
    let before = if moved { ", and was in use before elsewhere" } else { "" };
    let statement = Statement {
        severity: if moved { Severity::High } else { ABOUT.severity },
        confidence: if moved { 80 } else { 65 },
        message: format!(
            "One {what} that belonged to another principal carried a token of this one; it is older than the other's \
             last use{before}: {}.",
            subject.told()
        ),
        brief: format!("{what} changed its principal"),
        facts: vec![("switched", what.into()), ("token_moved", moved.into())],
    };
    Some(statement.into_finding(&ABOUT, &subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage, token};
    use crate::token::Token;

    fn of(name: &str, number: u64) -> Token {
        Token { subject: Some(name.into()), ..token(number) }
    }

    fn on(socket: u64, s: u64, address: &str) -> Stage {
        let mut stage = Stage::new().status(200).client(address).after_ms(s * 1000);
        stage.exchange.socket = SocketId(socket);
        stage
    }

    /// Alice from her own address for eleven minutes, ending in second 700 on socket 7.
    fn alice() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        for i in 0..=35 {
            assert!(
                play.ask(&on(if i < 30 { 6 } else { 7 }, i * 20, "10.0.0.1"), [of("alice", 1)]).is_empty()
            );
        }
        play
    }

    #[test]
    fn another_principal_on_her_connection_is_told_once() {
        let mut play = alice();
        let found = play.ask(&on(7, 702, "10.0.0.1"), [of("bob", 2)]);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Medium));
        assert!(play.ask(&on(7, 703, "10.0.0.1"), [of("alice", 1)]).is_empty());
        assert!(play.ask(&on(7, 704, "10.0.0.1"), [of("carol", 3)]).is_empty());
    }

    #[test]
    fn a_token_that_was_in_use_elsewhere_is_high() {
        let mut play = alice();
        play.ask(&on(9, 650, "203.0.113.9"), [of("bob", 2)]);
        assert_eq!(play.ask(&on(7, 702, "10.0.0.1"), [of("bob", 2)])[0].severity, Severity::High);
    }

    #[test]
    fn logging_in_anew_is_benign() {
        let fresh = Token { issued: Some(i64::try_from(NOW_S).unwrap() + 701), ..of("bob", 2) };
        assert!(alice().ask(&on(7, 702, "10.0.0.1"), [fresh]).is_empty());
        assert!(alice().ask(&on(7, 730, "10.0.0.1"), [of("bob", 2)]).is_empty(), "half a minute later");
        assert!(alice().ask(&on(8, 702, "10.0.0.1"), [of("bob", 2)]).is_empty(), "another connection");
    }

    #[test]
    fn gateways_are_benign_from_the_first_request() {
        let mut play = Play::new(rule(&Arc::default()));
        for i in 0..2000_u64 {
            let person = of(&format!("user-{}", i % 50), i % 50);
            assert!(play.ask(&on(i % 4, i, "10.0.0.1"), [person]).is_empty(), "{i}");
        }
        let forwarded = on(7, 702, "10.0.0.1").header("X-Forwarded-For", "198.51.100.1");
        assert!(alice().ask(&forwarded, [of("bob", 2)]).is_empty());
    }

    #[test]
    fn a_gateway_that_wakes_up_with_one_user_is_benign() {
        let mut play = alice();
        for (socket, name) in [(1, "bob"), (2, "carol"), (3, "dave")] {
            play.ask(&on(socket, 701, "10.0.0.1"), [of(name, socket + 10)]);
        }
        assert!(play.ask(&on(7, 702, "10.0.0.1"), [of("erin", 2)]).is_empty());
    }

    #[test]
    fn a_session_cookie_keeps_its_principal() {
        let with = |s, address: &str, cookie: &str| on(s, s, address).header("Cookie", cookie);
        let mut play = Play::new(rule(&Arc::default()));
        for s in 0..3 {
            play.ask(&with(s, "10.0.0.1", "theme=dark; sid=0123456789abcdef"), [of("alice", 1)]);
        }
        assert!(play.ask(&with(4, "10.0.0.1", "sid=fedcba9876543210"), [of("bob", 2)]).is_empty());
        let found = play.ask(&with(400, "203.0.113.9", "sid=0123456789abcdef; a=b"), [of("bob", 3)]);
        assert!(found[0].brief.starts_with("session cookie"));
        play.ask(&with(401, "10.0.0.3", "sid=1"), [of("bob", 3)]);
        assert!(
            play.ask(&with(402, "10.0.0.3", "sid=1"), [of("alice", 1)]).is_empty(),
            "a state, no session"
        );
    }

    /// Alice logs in and refreshes once; both tokens are used.
    fn family() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        let answer = |s: u64| Stage::to("POST", "/oauth/token").status(200).after_ms(s * 1000);
        play.ask_issuing(&answer(0).issuing(None, Some(1)), [], [of("alice", 1)]);
        assert!(play.ask(&on(1, 1, "10.0.0.1"), [of("alice", 1)]).is_empty());
        play.ask_issuing(&answer(900).issuing(Some(1), Some(2)), [], [of("alice", 2)]);
        assert!(play.ask(&on(2, 901, "10.0.0.2"), [of("alice", 2)]).is_empty());
        play.ask_issuing(&answer(1800).issuing(Some(2), Some(3)), [], [of("bob", 3)]);
        play
    }

    #[test]
    fn a_refresh_that_gives_the_token_of_another_is_high_once() {
        let mut play = family();
        let found = play.ask(&on(3, 1801, "10.0.0.3"), [of("bob", 3)]);
        assert_eq!((found.len(), found[0].severity), (1, Severity::High));
        assert!(found[0].brief.starts_with("token family"));
        assert!(play.ask(&on(3, 1802, "10.0.0.3"), [of("bob", 3)]).is_empty());
    }

    #[test]
    fn families_are_kept_over_a_restart() {
        let mut play = family();
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&on(3, 1801, "10.0.0.3"), [of("bob", 3)]).len(), 1);
    }

    #[test]
    fn another_login_and_another_audience_are_other_families() {
        let mut play = family();
        let answer = Stage::to("POST", "/oauth/token").status(200).after_ms(1_900_000);
        play.ask_issuing(&answer.clone().issuing(None, Some(9)), [], [of("carol", 4)]);
        assert!(play.ask(&on(4, 1901, "10.0.0.3"), [of("carol", 4)]).is_empty());
        let pairwise = || Token { audiences: ["stock-api".into()].into_iter().collect(), ..of("x-17", 5) };
        play.ask_issuing(&answer.issuing(Some(9), Some(10)), [], [pairwise()]);
        assert!(play.ask(&on(5, 1902, "10.0.0.3"), [pairwise()]).is_empty());
        let forged = Token { signature: crate::token::Signature::Invalid, ..of("bob", 3) };
        assert!(play.ask(&on(3, 1903, "10.0.0.3"), [forged]).is_empty());
    }

    #[test]
    fn unverified_tokens_switch_nothing() {
        let forged = Token { signature: crate::token::Signature::Invalid, ..of("bob", 2) };
        assert!(alice().ask(&on(7, 702, "10.0.0.1"), [forged]).is_empty());
    }

    #[test]
    fn a_restart_keeps_sessions_and_addresses() {
        let cookie = "JSESSIONID=0123456789abcdef";
        let mut play = Play::new(rule(&Arc::default()));
        for s in 0..3 {
            play.ask(&on(1, s, "10.0.0.1").header("Cookie", cookie), [of("alice", 1)]);
        }
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&on(2, 9, "10.0.0.2").header("Cookie", cookie), [of("bob", 2)]).len(), 1);
    }
}
