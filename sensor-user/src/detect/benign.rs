//! Weeks of honest people, played to every rule: what the rules about places, clients and accounts must keep silent
//! about. Homes, an office behind one address, telephones that leave the internet elsewhere, a company VPN abroad,
//! flights, refreshed tokens, browsers that update, and batch jobs at night.

use std::net::IpAddr;
use std::sync::Arc;

use crate::capture::SocketId;
use crate::detect::detector::Detector;
use crate::detect::knowledge::{Geo, Knowledge, Place};
use crate::detect::staging::{NOW_S, Stage, token, uses};
use crate::detect::{DetectSettings, RouteKind};
use crate::token::Token;

/// The second octet is the provider, the first one where it is.
struct World;

impl Geo for World {
    fn place(&self, address: IpAddr) -> Place {
        let IpAddr::V4(v4) = address else { return Place::default() };
        let [region, provider, ..] = v4.octets();
        let (country, continent, position) = match region {
            81 => (*b"DE", *b"EU", (52.52, 13.405)),
            82 => (*b"DE", *b"EU", (48.137, 11.575)),
            83 => (*b"FR", *b"EU", (48.857, 2.352)),
            84 => (*b"US", *b"NA", (40.713, -74.006)),
            _ => return Place::default(),
        };
        Place {
            country: Some(country),
            continent: Some(continent),
            position: Some(position),
            radius_km: Some(20),
            asn: Some(u32::from(region) * 1000 + u32::from(provider)),
        }
    }
}

const PEOPLE: u64 = 60;
const DAYS: u64 = 24;

/// Where somebody is in an hour of a day, and with what.
fn whereabouts(person: u64, day: u64, hour: u64) -> (String, &'static str) {
    const BROWSERS: [&str; 2] = [
        "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ];
    let browser = BROWSERS[usize::try_from(person % 2).unwrap()];
    let office = (9..17).contains(&hour);
    if day >= 20 && person % 10 == 3 {
        // A journey: hours pass between home and there.
        return (format!("83.9.1.{}", person % 250), browser);
    }
    match (office, person % 4) {
        (true, 0 | 1) => ("81.2.0.1".to_owned(), browser),
        // The exit of the company's VPN, which every second one at home uses.
        (true, 2) => ("84.3.0.1".to_owned(), browser),
        (false, 0) if hour.is_multiple_of(2) => (format!("82.7.{}.1", day % 9), "okhttp/4.12"),
        _ => (format!("81.{}.{person}.9", 4 + person % 3), browser),
    }
}

#[test]
fn weeks_of_honest_people_raise_next_to_nothing() {
    let mut detector = Detector::new(DetectSettings {
        routes: vec![crate::detect::RouteMatch::new("GET /payments", RouteKind::Financial)],
        ..DetectSettings::default()
    });
    let privileged_roles = ["ADMIN".into()].into();
    let allowed_countries = [*b"DE", *b"FR", *b"US"].into();
    detector.know(Arc::new(Knowledge {
        geo: Some(Arc::new(World)),
        privileged_roles,
        allowed_countries,
        ..Knowledge::default()
    }));
    let mut found = Vec::new();
    let mut exchanges = 0_u64;
    for turn in 0..DAYS * 14 * 3 {
        let (day, hour, third) = (turn / 42, 7 + turn / 3 % 14, turn % 3);
        for person in 0..PEOPLE {
            let (address, agent) = whereabouts(person, day, hour);
            // A client has a token of its own, and refreshes it every hour.
            let number = ((person * 2 + u64::from(agent.starts_with("okhttp"))) * DAYS + day) * 24 + hour;
            let ms = ((day * 24 + hour) * 3600 + third * 900 + person * 7) * 1000;
            let second = i64::try_from(NOW_S + ms / 1000).unwrap();
            let held = Token {
                subject: Some(format!("person-{person}").into()),
                expires: Some(second + 3600).into(),
                issued: Some(second - 3600).into(),
                not_before: Some(second - 3600).into(),
                ..token(number).of_profile(|p| {
                    p.roles = if person == 5 { [Box::from("ADMIN")].into() } else { Arc::default() }
                })
            };
            let path = if third == 2 && person % 3 == 0 { "/payments" } else { "/orders/7" };
            let mut stage = Stage::to("GET", path)
                .status([200, 200, 404][usize::try_from((turn + person) % 3).unwrap()])
                .client(&address)
                .header("User-Agent", agent)
                .after_ms(ms);
            stage.exchange.socket = SocketId(person * 1_000_000 + turn / 6);
            detector.judge(&stage.exchange, &uses([held]), stage.exchange.ended_at, &mut found);
            exchanges += 1;
        }
    }
    let said = |id: &str| found.iter().filter(|f| f.rule.id == id).count();
    for silent in [
        "impossible-travel",
        "disallowed-region",
        "subject-switch",
        "privilege-change",
        "device-change",
        "dormant-account",
        "new-device-sensitive",
        "known-bad-address",
        "listed-account",
        "departed-account",
    ] {
        assert_eq!(said(silent), 0, "{silent} in {exchanges} exchanges");
    }
    assert_eq!(said("new-country"), 6, "each of six travellers, once");
    a_thief_after_them(&mut detector);
}

/// Having learned all that, the rules still see one of them robbed.
fn a_thief_after_them(detector: &mut Detector) {
    let ms = ((DAYS - 1) * 24 + 20) * 3_600_000 + 2_400_000;
    let second = i64::try_from(NOW_S + ms / 1000).unwrap();
    let stolen = Token {
        subject: Some("person-1".into()),
        expires: Some(second + 3600).into(),
        issued: Some(second - 3600).into(),
        ..token(u64::MAX)
    };
    let stage = Stage::to("GET", "/payments")
        .status(200)
        .client("84.77.0.9")
        .header("User-Agent", "python-requests/2.32")
        .after_ms(ms);
    let mut found = Vec::new();
    detector.judge(&stage.exchange, &uses([stolen]), stage.exchange.ended_at, &mut found);
    let ids: Vec<_> = found.iter().map(|f| f.rule.id).collect();
    for expected in ["impossible-travel", "new-country", "new-device-sensitive"] {
        assert!(ids.contains(&expected), "{expected} is missing: {ids:?}");
    }
}
