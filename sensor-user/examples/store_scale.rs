//! Measures the store: fills it with ten million uses over fourteen days, then times traces of every kind.
//!
//! `cargo run --release -p sensor-user --example store_scale [DIRECTORY [ROWS [TRACES]]]`. Half of the rows are of ordinary
//! users; one address stands before a tenth of all traffic, one service account makes a million rows.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a measurement that prints"
)]

#[path = "../tests/store/made.rs"]
mod made;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sensor_user::render::Privacy;
use sensor_user::store::keeper::Keeper;
use sensor_user::store::parts::Bounds;
use sensor_user::store::query::{Limits, query};
use sensor_user::store::trace::{Reader, TOP, What, Window};
use sensor_user::store::uses::Gathering;
use sensor_user::store::veil::Veil;
use sensor_user::token::Token;

const DAY_MS: u64 = 86_400_000;
const DAYS: u64 = 14;
const TOKENS: u64 = 400_000;
const PEOPLE: u64 = 50_000;
const ADDRESSES: u64 = 60_000;
const ROUTES: u64 = 300;

/// A number that follows from another, and looks like any other.
const fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn address(number: u64) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap()).into()
}

fn token(number: u64) -> Arc<Token> {
    // Tokens of the first numbers are the service account's: they change every hour or so.
    let subject =
        if number < 4000 { "service-batch".to_owned() } else { format!("user-{}", mix(number) % PEOPLE) };
    let name = (u128::from(mix(number)) << 64) | u128::from(number);
    made::token(name, &subject, Some(format!("{:016x}", mix(number ^ 7))))
}

fn veil() -> Veil {
    Veil::new(b"0123456789abcdef", Privacy::default(), false)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(|| std::env::temp_dir().join("store-scale"), PathBuf::from);
    let rows: u64 = arguments.next().map_or(10_000_000, |n| n.parse().unwrap());
    let traces: u64 = arguments.next().map_or(200, |n| n.parse().unwrap());
    if !dir.join("store.db").exists() {
        fill(&dir, rows);
    }
    ask(&dir, traces);
}

fn fill(dir: &Path, wanted: u64) {
    let day = Duration::from_hours(24);
    let bounds = Bounds { max_bytes: 16 << 30, uses_for: 14 * day, alerts_for: 365 * day };
    let mut keeper = Keeper::open(dir, bounds).unwrap();
    let (veil, mut gathering) = (veil(), Gathering::default());
    let routes: Vec<Arc<str>> =
        (0..ROUTES).map(|n| format!("GET /api/v1/resource-{n}/{{id}}").into()).collect();
    let tokens: Vec<Arc<Token>> = (0..TOKENS).map(token).collect();
    let (began, mut in_store) = (Instant::now(), Duration::ZERO);
    let mut exchanges = 0_u64;
    // A little more than wanted: some fall into the same hour, token, address and route.
    let all = wanted + wanted / 50;
    for n in 0..all {
        let at = n * DAYS * DAY_MS / all;
        let drawn = mix(n);
        let of_day = TOKENS / DAYS;
        let number = match drawn % 20 {
            0 | 1 => drawn / 20 % 4000,
            // Tokens live for a day.
            _ => (at / DAY_MS * of_day + drawn / 20 % of_day).min(TOKENS - 1),
        };
        let from = match drawn % 10 {
            0 => address(ADDRESSES),
            _ => address(mix(number) % ADDRESSES + drawn % 3),
        };
        let route = &routes[usize::try_from(drawn / 1000 % ROUTES).unwrap()];
        let service = 8080 + u16::try_from(drawn % 12).unwrap();
        gathering.add(
            &made::seen(at, Some(&tokens[usize::try_from(number).unwrap()]), from, route, service),
            &veil,
        );
        exchanges += 1;
        if gathering.len() >= 50_000 || n + 1 == all {
            let gathered = gathering.take().unwrap();
            let names: Vec<String> = gathered
                .services
                .iter()
                .map(|(service, _)| format!("shop/svc-{}", service.address.port()))
                .collect();
            let now = sensor_user::capture::Time((made::DAY_S * 1000 + at) * 1_000_000);
            let start = Instant::now();
            keeper.keep_uses(&gathered, &names, &veil, now);
            keeper.tend(now);
            in_store += start.elapsed();
        }
    }
    let stats = keeper.stats();
    keeper.close();
    let (rows, bytes) = size(dir);
    println!(
        "{exchanges} exchanges made {rows} rows in {:.0} s ({:.0} s in the store: {:.0} rows/s); {bytes} bytes, {:.1} a row",
        began.elapsed().as_secs_f64(),
        in_store.as_secs_f64(),
        rows as f64 / in_store.as_secs_f64(),
        bytes as f64 / rows as f64,
    );
    assert_eq!((stats.full, stats.failed, stats.stored), (0, 0, exchanges));
}

fn size(dir: &Path) -> (u64, u64) {
    let limits = Limits { time: Duration::from_mins(10), ..Limits::default() };
    let rows = query(dir, "SELECT count(*) FROM uses", &limits).unwrap().rows[0][0].as_u64().unwrap();
    let parts = std::fs::read_dir(dir.join("uses")).unwrap();
    (rows, parts.map(|entry| entry.unwrap().metadata().unwrap().len()).sum())
}

fn ask(dir: &Path, traces: u64) {
    let person = |n: u64| What::Principal { subject: format!("user-{}", mix(n) % PEOPLE), issuer: None };
    let kinds: [(&str, Box<dyn Fn(u64) -> What>); 8] = [
        ("token", Box::new(|n| What::Token(token(4000 + mix(n) % (TOKENS - 4000)).fingerprint.to_string()))),
        ("jti", Box::new(|n| What::Id(format!("{:016x}", mix((4000 + mix(n) % (TOKENS - 4000)) ^ 7))))),
        ("principal", Box::new(person)),
        ("address", Box::new(|n| What::Address(address(mix(n) % ADDRESSES).into()))),
        (
            "network /24",
            Box::new(|n| What::Address(format!("{}/24", address(mix(n) % ADDRESSES)).parse().unwrap())),
        ),
        ("service account's token", Box::new(|n| What::Token(token(mix(n) % 4000).fingerprint.to_string()))),
        ("service account", Box::new(|_| What::Principal { subject: "service-batch".into(), issuer: None })),
        ("gateway's address", Box::new(|_| What::Address(address(ADDRESSES).into()))),
    ];
    for window in [
        Window::EVER,
        Window {
            from_ms: (made::DAY_S + 9 * 86_400 + 1000) * 1000,
            until_ms: (made::DAY_S + 10 * 86_400) * 1000,
        },
    ] {
        println!("{}", if window == Window::EVER { "ever" } else { "a day" });
        for (name, what) in &kinds {
            let mut times: Vec<(f64, u64)> = (0..traces)
                .map(|n| {
                    let what = what(n * 77 + 1);
                    let start = Instant::now();
                    // As the command does: the files are opened for each question.
                    let reader = Reader::open(dir, veil()).unwrap();
                    let trace = reader.trace(&what, window, TOP).unwrap();
                    (start.elapsed().as_secs_f64() * 1000.0, trace.totals.0.count)
                })
                .collect();
            times.sort_by(|a, b| a.0.total_cmp(&b.0));
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].0;
            let requests: u64 = times.iter().map(|(_, count)| count).sum();
            println!(
                "  {name:24} p50 {:6.1} ms  p99 {:6.1} ms  max {:6.1} ms  {:9} requests on average",
                at(0.5),
                at(0.99),
                at(1.0),
                requests / traces
            );
        }
    }
}
