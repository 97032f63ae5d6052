//! Traces against a plain count of the same exchanges.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::render::Privacy;
use crate::seen::Seen;
use crate::spool::{Cursor, LANES};
use crate::store::keeper::Keeper;
use crate::store::staging::{DAY_S, bounds, claim, keep, seen, token, veil};
use crate::token::Token;

const ADDRESSES: [&str; 4] = ["10.0.3.7", "10.0.3.8", "203.0.113.5", "2001:db8::1"];

fn person(number: usize) -> &'static str {
    ["alice", "bob@shop.example", "carol"][number % 3]
}

/// Every third token is a claim.
fn tokens() -> Vec<Arc<Token>> {
    let token = |number: usize| match number % 3 {
        2 => claim(number as u64, person(number / 3)),
        _ => token(number as u64, person(number / 3)),
    };
    (0..30).map(token).collect()
}

fn exchange() -> impl Strategy<Value = (u64, Option<usize>, Option<usize>, usize, usize, u16)> {
    let status = prop::sample::select(vec![200, 204, 302, 401, 403, 404, 500, 0]);
    // Most within some hours, so that rows come together; a few over five days, so that parts do.
    let second = prop_oneof![9 => 0_u64..10_000, 1 => 0_u64..432_000];
    (
        second,
        prop::option::weighted(0.8, 0_usize..30),
        prop::option::weighted(0.2, 0_usize..30),
        0_usize..4,
        0_usize..25,
        status,
    )
}

/// Second, two tokens, client, route, status.
type Drawn = (u64, Option<usize>, Option<usize>, usize, usize, u16);

fn exchanges(drawn: Vec<Drawn>) -> Vec<Seen> {
    let all = tokens();
    let mut exchanges: Vec<Seen> = drawn
        .into_iter()
        .map(|(second, first, other, client, route, status)| {
            let other = other.filter(|other| first.is_some_and(|first| first != *other));
            let held: Vec<&Arc<Token>> = [first, other].into_iter().flatten().map(|at| &all[at]).collect();
            seen(second, &held, ADDRESSES[client], &format!("GET /r{route}"), status)
        })
        .collect();
    exchanges.sort_by_key(|seen| seen.at);
    exchanges
}

/// Names and counts of a list.
fn counts(list: &List) -> Vec<(String, u64)> {
    let mut all: Vec<_> = list.items.iter().map(|item| (item.name.clone(), item.totals.0.count)).collect();
    all.sort();
    all
}

fn tally(names: impl Iterator<Item = String>) -> Vec<(String, u64)> {
    let mut all = BTreeMap::new();
    names.for_each(|name| *all.entry(name).or_insert(0) += 1);
    all.into_iter().collect()
}

fn sum<'s>(all: impl Iterator<Item = &'s Seen>) -> Totals {
    all.fold(Totals::default(), |mut sum, seen| {
        sum.add(&Totals::of(seen));
        sum
    })
}

fn name(token: &Token) -> String {
    token.fingerprint.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever was stored in whatever pieces, few rows or many: traces say what a plain count says.
    #[test]
    fn traces_say_what_a_plain_count_says(
        drawn in prop::collection::vec(exchange(), 1..900),
        at_once in 1_usize..400,
        again in 0_usize..900,
    ) {
        let exchanges = exchanges(drawn);
        let dir = tempfile::tempdir().unwrap();
        // A restart somewhere in between.
        let again = again.min(exchanges.len());
        if again > 0 {
            keep(dir.path(), &exchanges[..again], at_once.max(again / 20 + 1), &veil());
        }
        if again < exchanges.len() {
            keep(dir.path(), &exchanges[again..], at_once.max(exchanges.len() / 20 + 1), &veil());
        }
        let reader = Reader::open(dir.path(), veil()).unwrap();
        let ask = |what: What| reader.trace(&what, Window::EVER, MOST).unwrap();
        for address in ADDRESSES {
            let net: IpNet = IpNet::from(address.parse::<std::net::IpAddr>().unwrap());
            let trace = ask(What::Address(net));
            let mine: Vec<&Seen> = exchanges.iter().filter(|seen| seen.client == net.addr()).collect();
            prop_assert_eq!(trace.totals.0, sum(mine.iter().copied()));
            prop_assert_eq!(counts(&trace.routes), tally(mine.iter().map(|seen| seen.route.to_string())));
            prop_assert_eq!(counts(&trace.services), tally(mine.iter().map(|_| "10.0.0.1:8080".to_owned())));
            let held = mine.iter().flat_map(|seen| seen.tokens.iter().map(|token| name(token)));
            prop_assert_eq!(counts(&trace.tokens), tally(held));
            prop_assert_eq!(trace.routes.more, 0);
        }
        for token in tokens() {
            let trace = ask(What::Token(name(&token)));
            let mine: Vec<&Seen> =
                exchanges.iter().filter(|seen| seen.tokens.iter().any(|held| held.fingerprint == token.fingerprint)).collect();
            prop_assert_eq!(trace.totals.0, sum(mine.iter().copied()));
            prop_assert_eq!(counts(&trace.routes), tally(mine.iter().map(|seen| seen.route.to_string())));
            prop_assert_eq!(counts(&trace.addresses), tally(mine.iter().map(|seen| seen.client.to_string())));
            if !mine.is_empty() {
                prop_assert_eq!(trace.verified, Some(token.is_verified()));
                prop_assert_eq!(&ask(What::Id(token.id.as_ref().unwrap().text().into_owned())).totals, &trace.totals);
            }
        }
        for subject in (0..3).map(person) {
            let trace = ask(What::Principal { subject: subject.into(), issuer: None });
            let uses = |verified: bool| {
                let of = move |token: &&Arc<Token>| token.subject.as_deref() == Some(subject) && token.is_verified() == verified;
                exchanges.iter().flat_map(move |seen| seen.tokens.iter().filter(of).map(move |token| (seen, token)))
            };
            let verified = uses(true).count() > 0;
            let mine: Vec<(&Seen, &Arc<Token>)> = uses(verified).collect();
            prop_assert_eq!(trace.totals.0, sum(mine.iter().map(|(seen, _)| *seen)));
            prop_assert_eq!(counts(&trace.tokens), tally(mine.iter().map(|(_, token)| name(token))));
            prop_assert_eq!(counts(&trace.addresses), tally(mine.iter().map(|(seen, _)| seen.client.to_string())));
            prop_assert_eq!(counts(&trace.routes), tally(mine.iter().map(|(seen, _)| seen.route.to_string())));
            prop_assert_eq!(trace.claimed, if verified { uses(false).count() as u64 } else { 0 });
        }
        let everybody = ask(What::Address("0.0.0.0/0".parse().unwrap()));
        let v4 = exchanges.iter().filter(|seen| seen.client.is_ipv4());
        prop_assert_eq!(everybody.totals.0, sum(v4));
    }
}

#[test]
fn the_order_of_storing_does_not_matter() {
    let all = tokens();
    let some: Vec<Seen> = (0..400_u64)
        .zip(0_usize..)
        .map(|(n, at)| seen(n * 7, &[&all[at % 30]], ADDRESSES[at % 4], &format!("GET /r{}", n % 9), 200))
        .collect();
    let rows = |at_once: usize| {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), &some, at_once, &veil());
        let order = "SELECT * FROM uses ORDER BY hour, token, address, service, route, beside";
        let answer = crate::store::query::query(dir.path(), order, &crate::store::query::Limits::default());
        answer.unwrap()
    };
    let first = rows(400);
    let more: u64 = first.rows.iter().map(|row| row[9].as_u64().unwrap() - 1).sum();
    assert_eq!(first.rows.len() as u64, 400 - more);
    assert_eq!(rows(1), first);
    assert_eq!(rows(37), first);
}

#[test]
fn a_window_shows_what_was_in_it() {
    let (dir, alice) = (tempfile::tempdir().unwrap(), token(1, "alice"));
    let hourly = |client: &str, routes: u64| {
        let each = move |n: u64| format!("GET /r{}", n % routes);
        let client = client.to_owned();
        let alice = Arc::clone(&alice);
        (0..routes * 96)
            .map(move |n| seen(n / routes * 3600 + 10, &[&alice], &client, &each(n), 200))
            .collect::<Vec<_>>()
    };
    // Few rows, and many: the second is asked by facets where the window does not cut.
    let mut some = hourly("10.0.3.7", 1);
    some.extend(hourly("10.0.3.8", 20));
    some.sort_by_key(|seen| seen.at);
    keep(dir.path(), &some, 100, &veil());
    let reader = Reader::open(dir.path(), veil()).unwrap();
    let hours = |from: u64, until: u64| Window {
        from_ms: (DAY_S + from * 3600) * 1000,
        until_ms: (DAY_S + until * 3600) * 1000 - 1,
    };
    for (address, routes) in [("10.0.3.7/32", 1), ("10.0.3.8/32", 20)] {
        let count = |window| {
            let what = What::Address(address.parse().unwrap());
            reader.trace(&what, window, 100).unwrap().totals.0.count
        };
        assert_eq!(count(Window::EVER), 96 * routes);
        assert_eq!(count(hours(10, 12)), 2 * routes, "{address}");
        assert_eq!(count(hours(40, 60)), 20 * routes, "over two parts");
        assert_eq!(count(hours(200, 300)), 0);
    }
    let trace = reader.trace(&What::Token(name(&alice)), hours(0, 1), 5).unwrap();
    assert_eq!((trace.totals.0.count, trace.routes.items.len(), trace.routes.more), (21, 5, 15));
    assert!(text::compact(&trace).contains("and 15 more"));
}

#[test]
fn a_start_of_a_fingerprint_is_enough_if_it_is_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut twin = Token::clone(&token(1, "alice"));
    twin.fingerprint.0[15] ^= 1;
    let (one, twin) = (token(1, "alice"), Arc::new(twin));
    keep(
        dir.path(),
        &[seen(1, &[&one], "10.0.3.7", "GET /", 200), seen(2, &[&twin], "10.0.3.7", "GET /", 200)],
        9,
        &veil(),
    );
    let reader = Reader::open(dir.path(), veil()).unwrap();
    let ask = |text: &str| reader.trace(&What::Token(text.into()), Window::EVER, 9);
    assert_eq!(ask(&name(&one)).unwrap().totals.0.count, 1);
    assert!(matches!(ask(&name(&one)[..16]), Err(TraceError::Ambiguous(names)) if names.len() == 2));
    for wrong in ["", "12345", "xyzxyzxyz", &"a".repeat(33), "é2345678"] {
        assert!(matches!(ask(wrong), Err(TraceError::NoFingerprint)), "{wrong}");
    }
    assert_eq!(ask("00000000").unwrap().totals.0.count, 0);
}

#[test]
fn alerts_about_it_are_shown_once_in_their_newest_state() {
    let dir = tempfile::tempdir().unwrap();
    let event = |sequence: u64, count: u64, token: &str| {
        let json = serde_json::json!({
            "activity_id": 1, "count": count, "message": "a \u{1b}[2J forged token",
            "finding_info": {"uid": "01KAM1VYQ3D1A2V7TMZXJ0QPRS", "analytic": {"uid": "alg-none"}},
            "evidences": [{"actor": {"user": {"uid": "alice"}, "session": {"uid": token}},
                "src_endpoint": {"ip": "10.0.3.7"}, "dst_endpoint": {"name": "shop/orders"}}],
        });
        let json = json.to_string().into_boxed_str();
        let severity = crate::detect::Severity::High;
        Arc::new(crate::render::Told::new(
            sequence,
            sequence * 1000,
            severity,
            crate::render::Kind::Alert,
            json,
        ))
    };
    let one = token(1, "alice");
    let mut keeper = Keeper::open(dir.path(), bounds()).unwrap();
    assert!(keeper.keep_events(&[event(1, 1, &name(&one)), event(2, 7, &name(&one))], &Cursor([2; LANES])));
    keeper.close();
    let reader = Reader::open(dir.path(), veil()).unwrap();
    let by_token = What::Token(name(&one));
    let by_address = What::Address("10.0.3.7/32".parse().unwrap());
    for what in [by_token, by_address, What::Principal { subject: "alice".into(), issuer: None }] {
        let trace = reader.trace(&what, Window::EVER, 9).unwrap();
        let alerts: Vec<(u64, &str)> = trace.alerts.iter().map(|alert| (alert.count, &*alert.rule)).collect();
        assert_eq!(alerts, [(7, "alg-none")], "{what:?}");
        let text = text::compact(&trace);
        assert!(text.contains("no use of it is known") && text.contains("HIGH") && !text.contains('\x1b'));
        assert!(serde_json::to_value(&trace).unwrap().pointer("/alerts/0/time").is_some());
    }
    assert_eq!(reader.events(1, Window::EVER, 9).unwrap().len(), 1);
}

#[test]
fn nothing_that_privacy_hides_reaches_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let hide = || Veil::new(b"0123456789abcdef", Privacy::new(true, Some(b"0123456789abcdef")), true);
    let bob = token(1, "bob.ross@shop.example");
    let some: Vec<Seen> = (0..400)
        .map(|n| {
            let route = format!("GET /accounts/bob.ross@shop.example/r{}", n % 40);
            seen(n * 60, &[&bob], "203.0.113.77", &route, 200)
        })
        .collect();
    keep(dir.path(), &some, 100, &hide());
    let mut files = 0;
    for entry in walk(dir.path()) {
        let bytes = std::fs::read(&entry).unwrap();
        for secret in ["bob.ross", "203.0.113.77", "id-1"] {
            assert!(
                memchr::memmem::find(&bytes, secret.as_bytes()).is_none(),
                "{secret} in {}",
                entry.display()
            );
        }
        files += 1;
    }
    assert!(files >= 2);
    let reader = Reader::open(dir.path(), hide()).unwrap();
    let of_bob = What::Principal { subject: "bob.ross@shop.example".into(), issuer: None };
    let trace = reader.trace(&of_bob, Window::EVER, 9).unwrap();
    assert_eq!(trace.totals.0.count, 400, "the holder of the key finds it");
    assert!(trace.name.starts_with("p-"));
    assert_eq!(trace.addresses.items[0].name, "203.0.0.0");
    let by_pseudonym = What::Principal { subject: trace.name.clone(), issuer: None };
    assert_eq!(reader.trace(&by_pseudonym, Window::EVER, 9).unwrap().totals.0.count, 400);
    let stranger = Veil::new(b"another key, 16+", Privacy::default(), false);
    let trace = Reader::open(dir.path(), stranger).unwrap().trace(&of_bob, Window::EVER, 9).unwrap();
    assert_eq!(trace.totals.0.count, 0);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_masked_name_is_not_mistaken_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let (anna, alice) = (token(1, "anna@shop.example"), token(2, "alice@shop.example"));
    let some = [seen(1, &[&anna], "10.0.3.7", "GET /a", 200), seen(2, &[&alice], "10.0.3.7", "GET /b", 200)];
    keep(dir.path(), &some, 9, &veil());
    let reader = Reader::open(dir.path(), veil()).unwrap();
    let routes = |subject: &str| {
        let what = What::Principal { subject: subject.into(), issuer: None };
        counts(&reader.trace(&what, Window::EVER, 9).unwrap().routes)
    };
    assert_eq!(routes("anna@shop.example"), [("GET /a".to_owned(), 1)]);
    assert_eq!(routes("amy@shop.example"), []);
    assert_eq!(routes("a…@shop.example").len(), 2, "asked by the mask, it stands for both");
}

#[test]
fn a_damaged_part_is_left_out_and_told_of() {
    let (dir, alice) = (tempfile::tempdir().unwrap(), token(1, "alice"));
    let some: Vec<Seen> = (0..6).map(|n| seen(n * 86_400, &[&alice], "10.0.3.7", "GET /", 200)).collect();
    keep(dir.path(), &some, 1, &veil());
    let parts = crate::store::parts::list(dir.path()).unwrap();
    assert_eq!(parts.len(), 3);
    std::fs::write(&parts[1].path, "this is not a database, and has not been one for a while").unwrap();
    let reader = Reader::open(dir.path(), veil()).unwrap();
    let trace = reader.trace(&What::parse("alice"), Window::EVER, 9).unwrap();
    assert_eq!((trace.totals.0.count, trace.remarks.contains(&DAMAGED)), (4, true));
    let count = "SELECT sum(count) FROM uses";
    let answer =
        crate::store::query::query(dir.path(), count, &crate::store::query::Limits::default()).unwrap();
    assert_eq!((answer.rows[0][0].as_u64(), answer.left_out), (Some(4), 1));
}
