//! What is remembered: participants, snapshots of them, and uses of tokens for the store.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use sensor_user::detect::memory::{ROSTER, Remembered};
use sensor_user::detect::roster::Roster;
use sensor_user::detect::{DetectSettings, Detector, Route, Who};
use sensor_user::render::Privacy;
use sensor_user::store::uses::Gathering;
use sensor_user::store::{Part, Snapshot, Veil};
use sensor_user::token::TokenUse;

use crate::QUICK;
use crate::made;
use crate::traffic::{address, curl, exchange, time, token};

/// Finds those who take part in an exchange, among so many tokens of as many people.
#[divan::bench(args = [1, 2_000, 100_000], sample_size = QUICK)]
fn roster(bencher: Bencher<'_, '_>, count: u64) {
    let settings = DetectSettings { max_tokens: 200_000, ..DetectSettings::default() };
    let (mut roster, mut who, route) = (Roster::new(&settings), Who::default(), Route::default());
    let all: Vec<[TokenUse; 1]> = (0..count).map(|n| [token(n, &format!("user{n}"))]).collect();
    let mut request = exchange(0, address(0), &curl("/orders/7", "t"), 200);
    for tokens in &all {
        roster.see(&request, tokens, &route, 0, &mut who);
    }
    let (mut next, mut n) = (all.iter().cycle(), 0);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        n += 1;
        request.ended_at = time(n);
        roster.see(&request, next.next().unwrap(), &route, 0, &mut who);
        assert!(!who.tokens[0].1.is_new());
    });
}

/// A detector that remembers so many tokens of as many people.
fn learned(count: u64) -> Detector {
    let mut detector = Detector::new(DetectSettings::default());
    let mut found = Vec::new();
    for n in 0..count {
        let tokens = [token(n, &format!("user{n}"))];
        let request = exchange(n, address(n % 64), &curl(&format!("/orders/{n}"), "t"), 200);
        detector.judge(&request, &tokens, request.at, &mut found);
    }
    detector
}

/// How many the snapshots are of.
const KNOWN: u64 = 20_000;

/// Writes one part: the participants, the largest and the only one that holds up capture for long.
#[divan::bench(sample_count = 20)]
fn snapshot_save_roster(bencher: Bencher<'_, '_>) {
    let mut detector = learned(KNOWN);
    let part = detector.save(0).unwrap();
    assert_eq!(part.name, ROSTER);
    bencher.counter(BytesCount::of_slice(&part.bytes)).bench_local(|| detector.save(0));
}

fn saved(detector: &mut Detector) -> Vec<Remembered> {
    (0..detector.parts()).filter_map(|part| detector.save(part)).collect()
}

/// Writes every part.
#[divan::bench(sample_count = 20)]
fn snapshot_save_all(bencher: Bencher<'_, '_>) {
    let mut detector = learned(KNOWN);
    let bytes: usize = saved(&mut detector).iter().map(|part| part.bytes.len()).sum();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| saved(&mut detector));
}

/// Takes every part over, as a start does.
#[divan::bench(sample_count = 20)]
fn snapshot_restore_all(bencher: Bencher<'_, '_>) {
    let parts = saved(&mut learned(KNOWN));
    let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
    bencher
        .counter(BytesCount::new(bytes))
        .with_inputs(|| Detector::new(DetectSettings::default()))
        .bench_local_refs(|fresh| {
            let part = |name: &str| parts.iter().find(|part| part.name == name);
            let forgotten =
                fresh.restore(|name| part(name).map(|part| (part.version, part.bytes.as_slice())));
            assert!(forgotten.is_empty(), "{forgotten:?}");
        });
}

/// Packs every part into the bytes of the file, on a thread of its own.
#[divan::bench(sample_count = 20)]
fn snapshot_pack(bencher: Bencher<'_, '_>) {
    let parts = saved(&mut learned(KNOWN)).into_iter();
    let part = |part: Remembered| Part { name: part.name.into(), version: part.version, bytes: part.bytes };
    let snapshot = Snapshot { key: 1, parts: parts.map(part).collect() };
    let bytes: usize = snapshot.parts.iter().map(|part| part.bytes.len()).sum();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| snapshot.write());
}

/// Adds an exchange to the uses that are gathered for the store, which takes them every ten seconds of data.
#[divan::bench(args = [1, 2_000, 20_000], sample_size = QUICK)]
fn gather_use(bencher: Bencher<'_, '_>, count: u64) {
    let veil = Veil::new(b"0123456789abcdef", Privacy::default(), false);
    let route: Arc<str> = "GET /orders/{id}".into();
    let token = |n: u64| made::token(u128::from(n) << 64, &format!("user{n}"), None);
    let all: Vec<_> = (0..count).map(|n| made::seen(0, Some(&token(n)), address(n), &route, 8080)).collect();
    let (mut gathering, mut n, mut seen) = (Gathering::default(), 0, all.clone());
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        n += 1;
        let next = &mut seen[(n % count) as usize];
        next.at = time(n);
        gathering.add(next, &veil);
        if gathering.is_due(time(n)) {
            gathering.take();
        }
    });
}
