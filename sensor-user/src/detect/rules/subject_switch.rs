//! `subject-switch`: one connection or one session that turns into somebody else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::SocketId;
use crate::detect::crowd::FadingCrowd;
use crate::detect::directory::Accounts;
use crate::detect::roster::stable_hash;
use crate::detect::session::{Session, Sessions};
use crate::detect::statement::{Statement, Subject};
use crate::detect::table::Table;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Slot, Threshold,
    When,
};
use crate::token::TokenUse;

/// The card.
pub static ABOUT: About = About {
    id: "subject-switch",
    title: "A session turns into somebody else",
    version: "2.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1550.001", "T1563"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when one connection, one session cookie, or one token family (the `sid` that issuers put into the \
tokens of one login) has carried the verified tokens of one principal, and then carries a token of another that was \
issued before the first one's last use: nobody has logged in anew in between. It is high if that token was in use \
elsewhere before. Also fires when a verified token names a `sub` that the directory (`lists.files.directory`) does \
not know.\n\nWho tries out stolen tokens does it over one connection; who takes over a session keeps its cookie and \
brings a token; who has stolen an issuer's key makes accounts up.\n\nSession cookies are those of common frameworks \
(`JSESSIONID`, `PHPSESSID`, `connect.sid`, `sessionid`, ...) and `http.session_cookies`, and only values that can \
have been drawn at random; of a value a keyed hash is kept. A cookie or `sid` that more than two principals, and one \
more for each eight that kept theirs, have mixed within an hour or two is no session, and is silent.\n\nProxies, \
gateways and load balancers carry many people over one connection. So a connection is judged only if the client is \
direct (no Forwarded, X-Forwarded-For or Via, not in `lists.trusted_addresses`), its address is known for ten minutes \
and twenty exchanges with one principal only, and the switch comes within five seconds. An address that ever carried \
three principals is shared for good. A connection and a session are told once.\n\nThe directory is held against an \
issuer's accounts once it knows ten of them, as long as it knows four of five; an unknown account is told of once a \
day. Without the file nobody is unknown.\n\nBenign sources: people with two accounts that are both logged in, tests; \
accounts made since the directory was written, and programs that it leaves out. It does not see a switch without \
verified tokens.\n\nWith `tokens.learn_issued` it knows which tokens come from one login, by the refresh tokens that \
they were had for. If two of them, for one audience, name two principals, the issuer has given somebody the token of \
somebody else: that is high, whatever the connection and however long it took. Benign source: issuers that let an \
administrator act as another by a refresh. Audiences are told apart because some issuers give each its own name of a \
person.\n\n48 bytes a connection, a session and a family (65,536 of each), 56 an address, 16 a principal, 8 an account of \
the directory.",
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
        Threshold {
            key: "directory_known",
            default: 10.0,
            min: 1.0,
            max: 100_000.0,
            doc: "Accounts of an issuer that the directory must know before another is unknown to it.",
        },
    ],
};

/// Connections and sessions remembered: those of one node within minutes.
const MAX_LINES: usize = 65_536;

/// Principals at one address that make it shared for good.
const SHARED: u32 = 3;

/// Kinds of sessions: names of cookies, of which a site uses a handful, and `sid`.
const MAX_KINDS: usize = 128;

/// Principals whose sessions may be mixed although their kind is trusted, and one more for so many that kept theirs.
const MIXED: (u32, u32) = (2, 8);

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(SubjectSwitch {
        within_s: settings.count(&ABOUT, "within_s"),
        address_known_s: settings.count(&ABOUT, "address_known_s"),
        address_uses: settings.count(&ABOUT, "address_uses"),
        min_uses: settings.count(&ABOUT, "min_uses"),
        sessions: Sessions::new(&settings.session_cookies, &settings.session_key),
        connections: Table::new(MAX_LINES),
        accounts: Accounts::new(settings.count(&ABOUT, "directory_known")),
        memory: Memories::default(),
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

/// What is known of one kind of session: how many principals kept theirs, and how many came into another's. A cookie
/// that names a tenant or an experiment mixes everybody.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Custom {
    kept: FadingCrowd,
    mixed: FadingCrowd,
}

impl Custom {
    const fn is_trusted(&self) -> bool {
        self.mixed.size() <= MIXED.0 + self.kept.size() / MIXED.1
    }
}

#[derive(Serialize, Deserialize)]
#[serde(from = "SavedMemories")]
struct Memories {
    /// Sessions by the hash of their cookie or `sid`.
    sessions: Table<u64, Line>,
    kinds: Table<u64, Custom>,
    addresses: Column<Door>,
    /// Tokens of one login, by the name of that and their audience.
    families: Table<u64, Line>,
}

#[derive(Deserialize)]
struct SavedMemories {
    sessions: Table<u64, Line>,
    kinds: Table<u64, Custom>,
    addresses: Column<Door>,
    families: Table<u64, Line>,
}

impl From<SavedMemories> for Memories {
    fn from(SavedMemories { mut sessions, mut kinds, addresses, mut families }: SavedMemories) -> Self {
        sessions.limit(MAX_LINES);
        kinds.limit(MAX_KINDS);
        families.limit(MAX_LINES);
        Self { sessions, kinds, addresses, families }
    }
}

impl Default for Memories {
    fn default() -> Self {
        Self {
            sessions: Table::new(MAX_LINES),
            kinds: Table::new(MAX_KINDS),
            addresses: Column::default(),
            families: Table::new(MAX_LINES),
        }
    }
}

struct SubjectSwitch {
    within_s: u32,
    address_known_s: u32,
    address_uses: u32,
    min_uses: u32,
    sessions: Sessions,
    /// Connections do not outlive a restart.
    connections: Table<SocketId, Line>,
    accounts: Accounts,
    memory: Memories,
}

/// Who spoke now.
enum Spoke {
    /// Whoever spoke before, for the so manieth time.
    Same(u16),
    /// Somebody else, for the first time; the other one's last use.
    Another(u32),
    /// Nothing is to be made of it.
    Unclear,
}

impl Line {
    /// Notes a use.
    fn speak(&mut self, subject: Slot, at_s: u32, min_uses: u32) -> Spoke {
        if self.uses == 0 {
            self.subject = subject;
        }
        if self.mixed {
            return Spoke::Unclear;
        }
        if self.subject == subject {
            self.uses = self.uses.saturating_add(1);
            self.last_s = self.last_s.max(at_s);
            return Spoke::Same(self.uses);
        }
        self.mixed = true;
        if u32::from(self.uses) >= min_uses { Spoke::Another(self.last_s) } else { Spoke::Unclear }
    }
}

impl SubjectSwitch {
    /// Notes a use of a connection. The last use of another principal, if it may be told.
    fn on_connection(&mut self, case: &Case<'_>, subject: Slot) -> Option<u32> {
        let (at_s, address) = (case.second(), case.who.address);
        let door = self.memory.addresses.of(address.slot);
        let others = door.crowd.size() > 1 || door.shared;
        door.crowd.note(subject, at_s);
        door.shared |= door.crowd.size() >= SHARED;
        let line = self.connections.get_or(case.exchange.socket, Line::default)?;
        let Spoke::Another(last_s) = line.speak(subject, at_s, self.min_uses) else { return None };
        let settled =
            address.uses >= self.address_uses && at_s.saturating_sub(address.first_s) >= self.address_known_s;
        let told = !others && settled && at_s.abs_diff(last_s) <= self.within_s && is_direct(case);
        told.then_some(last_s)
    }

    /// Notes a use of a session, likewise.
    fn in_session(
        &mut self,
        case: &Case<'_>,
        session: Session,
        subject: Slot,
        held: &TokenUse,
    ) -> Option<u32> {
        let (sessions, kinds) = (&mut self.memory.sessions, &mut self.memory.kinds);
        let at_s = case.second();
        let line = sessions.get_or(session.name, Line::default)?;
        match line.speak(subject, at_s, self.min_uses) {
            Spoke::Same(uses) if u32::from(uses) == self.min_uses => {
                kinds.get_or(session.kind, Custom::default)?.kept.note(subject, at_s);
                None
            }
            Spoke::Another(last_s) if is_older(held, last_s) => {
                let kind = kinds.get_or(session.kind, Custom::default)?;
                kind.mixed.note(subject, at_s);
                (kind.is_trusted() && !case.who.trusted_address).then_some(last_s)
            }
            Spoke::Same(_) | Spoke::Another(_) | Spoke::Unclear => None,
        }
    }

    fn switch(&mut self, case: &Case<'_>, subject: Slot, held: &TokenUse) -> Option<Finding> {
        let mut switched = self.on_connection(case, subject).map(|last_s| (last_s, "connection"));
        if let Some(session) = self.sessions.of(&case.exchange.request) {
            let in_session = self.in_session(case, session, subject, held);
            switched = in_session.map(|last_s| (last_s, "session cookie")).or(switched);
        }
        if held.token.session != 0 {
            let family = Session { kind: FAMILIES, name: held.token.session };
            let in_family = self.in_session(case, family, subject, held);
            switched = in_family.map(|last_s| (last_s, "token family")).or(switched);
        }
        let (last_s, what) = switched?;
        finding(case, held, last_s, what)
    }
}

impl SubjectSwitch {
    /// What there is to say of the login that the acting token came of.
    fn changed_login(&mut self, case: &Case<'_>, subject: Slot, held: &TokenUse) -> Option<Finding> {
        if case.lineage.is_empty() {
            return None;
        }
        let family = case.birth(held.token.fingerprint)?.family;
        let name = stable_hash(&(family, &held.token.issuer, &held.token.audiences));
        let line = self.memory.families.get_or(name, Line::default)?;
        let Spoke::Another(_) = line.speak(subject, case.second(), 1) else { return None };
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

/// The kind of sessions that issuers name in tokens (`sid`).
const FAMILIES: u64 = 0;

fn unknown_account(case: &Case<'_>, held: &TokenUse) -> Finding {
    let subject = Subject::new(case, held);
    let statement = Statement {
        severity: ABOUT.severity,
        confidence: 70,
        message: format!(
            "A token of an account that the directory does not know, signed by its issuer's key, {}.",
            subject.told()
        ),
        brief: "token of an account unknown to the directory".to_owned(),
        facts: vec![("switched", "directory".into())],
    };
    statement.into_finding(&ABOUT, &subject)
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
        // Of one token it is known that it names the principal.
        let held = if let [only] = case.tokens { Some(only) } else { case.acting() };
        let Some(held) = held else { return };
        let switched = self.switch(case, actor.slot, held);
        report.extend(self.changed_login(case, actor.slot, held).or(switched));
        if self.accounts.is_unknown(case, actor.slot, held) {
            report.push(unknown_account(case, held));
        }
    }
}

/// Whether the token was issued before the other principal's last use: nobody has logged in anew in between.
fn is_older(held: &TokenUse, last_s: u32) -> bool {
    held.token.issued.get().is_some_and(|issued| issued < i64::from(last_s))
}

/// Whether the peer is the client itself, as far as a request tells.
fn is_direct(case: &Case<'_>) -> bool {
    let (exchange, head) = (case.exchange, &case.exchange.request);
    !case.who.trusted_address
        && exchange.client.to_canonical() == exchange.endpoints.client.ip().to_canonical()
        && ["forwarded", "x-forwarded-for", "via", "x-real-ip"].iter().all(|name| head.value(name).is_none())
}

fn finding(case: &Case<'_>, held: &TokenUse, last_s: u32, what: &str) -> Option<Finding> {
    if !is_older(held, last_s) {
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
    use crate::detect::spelling::Directory;
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
        let fresh = Token { issued: Some(i64::try_from(NOW_S).unwrap() + 701).into(), ..of("bob", 2) };
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

    #[test]
    fn a_cookie_that_everybody_shares_is_no_session() {
        let mut play = Play::new(rule(&Arc::default()));
        let mut told = 0;
        for tenant in 0..30_u64 {
            for user in 0..4 {
                let who = tenant * 4 + user;
                for s in 0..3 {
                    let stage = on(who, tenant * 60 + user * 10 + s, &format!("10.0.{tenant}.{user}"))
                        .header("Cookie", &format!("sid=0123456789abcd{tenant:02}"));
                    told += play.ask(&stage, [of(&format!("user-{who}"), who)]).len();
                }
            }
        }
        assert!(told <= 2, "{told}");
    }

    #[test]
    fn one_thief_among_many_honest_sessions_is_told() {
        let mut play = Play::new(rule(&Arc::default()));
        let with = |s: u64, who: u64| {
            on(who, s, &format!("10.0.0.{who}"))
                .header("Cookie", &format!("PHPSESSID=q7h2m9c4v1b8n3x6z5l0k2{who:02}"))
        };
        for who in 1..40 {
            for s in 0..3 {
                assert!(play.ask(&with(who * 3 + s, who), [of(&format!("user-{who}"), who)]).is_empty());
            }
        }
        let mut thief = with(200, 7).client("203.0.113.9");
        thief.exchange.socket = SocketId(99);
        assert_eq!(play.ask(&thief, [of("mallory", 99)]).len(), 1);
    }

    #[test]
    fn people_who_take_turns_at_one_browser_leave_its_cookie_trusted() {
        let mut play = Play::new(rule(&Arc::default()));
        let with =
            |s: u64, n: u64| on(s, s, "10.0.0.1").header("Cookie", &format!("sid=0123456789abcd{n:02}"));
        for n in 0..20 {
            for (s, name) in [(0, "alice"), (1, "alice"), (2, "alice"), (3, "bob")] {
                let at_s = n * 10 + s;
                let issued = Some(i64::try_from(NOW_S + at_s).unwrap());
                let fresh = Token { issued: issued.into(), ..of(&format!("{name}-{n}"), at_s) };
                assert!(play.ask(&with(at_s, n), [fresh]).is_empty());
            }
        }
        for s in 300..303 {
            play.ask(&with(s, 50), [of("alice", 1050)]);
        }
        assert_eq!(play.ask(&with(303, 50), [of("mallory", 1051)]).len(), 1);
    }

    #[test]
    fn a_token_family_keeps_its_principal() {
        let of_family = |name: &str, number| Token { session: 77, ..of(name, number) };
        let mut play = Play::new(rule(&Arc::default()));
        for s in 0..3 {
            assert!(play.ask(&on(s, s, "10.0.0.1"), [of_family("alice", s)]).is_empty());
        }
        let found = play.ask(&on(9, 9, "10.0.0.2"), [of_family("bob", 9)]);
        assert!(found[0].brief.starts_with("token family"));
        assert!(play.ask(&on(10, 10, "10.0.0.3"), [of("carol", 10)]).is_empty(), "no family");
    }

    fn directory(names: &[&str]) -> Directory {
        Directory::new(names.iter().copied(), &crate::detect::spelling::Spelling::default())
    }

    /// A dozen people of the directory have come.
    fn staff() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        let names: Vec<String> = (0..12).map(|n| format!("Worker-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        play.knowledge.directory = Some(directory(&names));
        play.knowledge.revision = 1;
        for n in 0..12 {
            let worker = of(&format!("worker-{n}"), n);
            assert!(play.ask(&on(n, n, &format!("10.0.0.{n}")), [worker]).is_empty());
        }
        play
    }

    #[test]
    fn an_account_that_the_directory_does_not_know_is_told_once_a_day() {
        let mut play = staff();
        let mut told = |s| play.ask(&on(50, s, "10.0.0.50"), [of("ghost", 50)]).len();
        assert_eq!([told(20), told(21), told(3000)], [1, 0, 0]);
        let refused = on(51, 30, "10.0.0.51").status(401);
        assert!(play.ask(&refused, [of("phantom", 51)]).is_empty());
        let years = Token { expires: Some(i64::MAX).into(), ..of("ghost", 50) };
        assert_eq!(play.ask(&on(50, 90_000, "10.0.0.50"), [years]).len(), 1);
    }

    #[test]
    fn without_a_directory_or_with_one_of_other_names_nobody_is_unknown() {
        let mut play = Play::new(rule(&Arc::default()));
        let others = directory(&["alice@corp.example", "bob@corp.example"]);
        for list in [None, Some(directory(&[])), Some(others)] {
            play.knowledge.directory = list;
            play.knowledge.revision += 1;
            for n in 0..50 {
                let worker = of(&format!("worker-{n}"), n);
                assert!(play.ask(&on(n, n, &format!("10.0.0.{n}")), [worker]).is_empty());
            }
        }
    }

    #[test]
    fn programs_of_another_issuer_that_nobody_lists_are_not_told() {
        let mut play = staff();
        for n in 0..50 {
            let program = of(&format!("job-{n}"), 100 + n)
                .of_profile(|p| p.issuer = Some("https://machines.example/".into()));
            assert!(play.ask(&on(100 + n, 20 + n, "10.0.1.1"), [program]).is_empty());
        }
    }

    #[test]
    fn another_directory_is_read_anew() {
        let mut play = staff();
        assert_eq!(play.ask(&on(50, 20, "10.0.0.50"), [of("ghost", 50)]).len(), 1);
        play.knowledge.directory = Some(directory(&["ghost"]));
        play.knowledge.revision = 2;
        assert!(play.ask(&on(50, 100_000, "10.0.0.50"), [of("ghost", 50)]).is_empty());
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
        let pairwise =
            || of("x-17", 5).of_profile(|p| p.audiences = ["stock-api".into()].into_iter().collect());
        play.ask_issuing(&answer.issuing(Some(9), Some(10)), [], [pairwise()]);
        assert!(play.ask(&on(5, 1902, "10.0.0.3"), [pairwise()]).is_empty());
        let forged = Token { signature: crate::token::Signature::Invalid, ..of("bob", 3) };
        assert!(play.ask(&on(3, 1903, "10.0.0.3"), [forged]).is_empty());
    }
}
