//! From a finding to what is told: the desk, privacy, and the OCSF object.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use sensor_user::alert::{AlertSettings, Desk, Event};
use sensor_user::detect::{DetectSettings, Detector, Finding};
use sensor_user::render::{Node, Privacy, Told};
use sensor_user::token::facts::Flaws;
use sensor_user::token::{Signature, Token, TokenUse};

use crate::MADE;
use crate::traffic::{address, browser, exchange, time, token};

/// What a forged token of the nth address makes a rule say.
fn finding(n: u64) -> Finding {
    let forged = Token {
        flaws: Flaws::ALG_NONE,
        signature: Signature::Absent,
        ..Token::clone(&token(n, "mallory").token).of_profile(|p| p.alg = Some("none".into()))
    };
    let held = [TokenUse { token: forged.into(), ..token(n, "mallory") }];
    let exchange = exchange(n, address(n), &browser("/orders/7?token=hush", "t"), 401);
    let mut found = Vec::new();
    Detector::new(DetectSettings::default()).judge(&exchange, &held, exchange.at, &mut found);
    found.into_iter().find(|finding| finding.rule.id == "alg-none").unwrap()
}

/// A finding that joins an alert which is open.
#[divan::bench(sample_size = MADE)]
fn admit_repeated(bencher: Bencher<'_, '_>) {
    let (mut desk, finding, mut events) = (Desk::new(AlertSettings::default()), finding(1), Vec::new());
    desk.admit(finding.clone(), &mut events);
    assert_eq!(events.len(), 1);
    bencher.counter(ItemsCount::new(1_u32)).with_inputs(|| finding.clone()).bench_local_values(|finding| {
        desk.admit(finding, &mut events);
        events.clear();
    });
    assert_eq!(desk.len(), 1);
}

/// A finding that opens an alert, one a second, each from another address.
#[divan::bench(sample_size = MADE)]
fn admit_new(bencher: Bencher<'_, '_>) {
    let (mut desk, made, mut n) = (Desk::new(AlertSettings::default()), finding(1), 0);
    let mut events = Vec::new();
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            n += 1;
            let mut finding = made.clone();
            finding.at = time(n * 10_000);
            finding.token = Some(token(n, "mallory").token.fingerprint);
            let scene = finding.scene.as_mut().unwrap();
            (scene.at, scene.client) = (finding.at, address(n));
            scene.endpoints.client.set_ip(address(n));
            finding
        })
        .bench_local_values(|finding| {
            desk.admit(finding, &mut events);
            events.clear();
        });
    assert!(!desk.is_empty());
}

fn event() -> Event {
    let mut events = Vec::new();
    Desk::new(AlertSettings::default()).admit(finding(1), &mut events);
    events.into_iter().next().unwrap()
}

/// Hides what must not be shown; with every mask, and pseudonyms.
#[divan::bench(args = ["default", "everything"], sample_size = MADE)]
fn privacy(bencher: Bencher<'_, '_>, how: &str) {
    let event = event();
    let privacy = match how {
        "default" => Privacy::default(),
        _ => Privacy::new(true, Some(b"0123456789abcdef0123456789abcdef")),
    };
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| privacy.event(&event));
}

/// Makes the OCSF object, as text.
#[divan::bench(sample_size = MADE)]
fn ocsf(bencher: Bencher<'_, '_>) {
    let (event, node) = (Privacy::default().event(&event()).into_owned(), Node::named("node-a"));
    let bytes = Told::of(&event, Some(1), Some(&node)).json().len();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| Told::of(&event, Some(1), Some(&node)));
}
