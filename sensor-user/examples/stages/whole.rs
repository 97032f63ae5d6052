//! A request and its answer through every stage of the pipeline: what the parts add up to.

use divan::Bencher;
use divan::counter::ItemsCount;
use sensor_user::capture::Side;
use sensor_user::pipeline::{Output, Pipeline, Settings};
use sensor_user::seen::Watch;
use sensor_user::token::InStep;
use sensor_user::token::settings::Algorithm;

use crate::QUICK;
use crate::forge::{Signer, USUAL};
use crate::http::Wire;
use crate::traffic::{ANSWER, curl};

/// Known tokens, each on its connection, in turn; what each asks for again is nothing new. With and without what the
/// store is told.
#[divan::bench(args = ["store", "no store"], sample_size = QUICK)]
fn request(bencher: Bencher<'_, '_>, told: &str) {
    let signer = Signer::new(Algorithm::EdDSA);
    let settings = Settings { tokens: signer.settings(), ..Settings::default() };
    let verifier = Box::new(InStep::new(&settings.tokens));
    let (mut pipeline, mut out) = (Pipeline::new(settings, verifier).unwrap(), Output::default());
    pipeline.on_keys(signer.ring(), &mut out);
    pipeline.watch(Watch { exchanges: told == "store", words: false });
    let answer = format!("{ANSWER}{}", "x".repeat(2_048));
    let mut all: Vec<(Wire, String)> = (0..2_000)
        .map(|n| (Wire::new(n), curl(&format!("/orders/{n}"), &signer.token(&format!("user{n}"), USUAL))))
        .collect();
    for (wire, _) in &all {
        pipeline.on_frame(&wire.open(), &mut out);
    }
    let count = all.len();
    let mut turn = |n: usize| {
        let (wire, request) = &mut all[n % count];
        wire.pass(count as u64);
        for (side, text) in [(Side::Request, &*request), (Side::Response, &answer)] {
            pipeline.on_frame(&wire.segment(side, text.as_bytes()), &mut out);
        }
        assert!(out.events.is_empty(), "{:?}", out.events.first());
        out.grants.clear();
        out.exchanges.clear();
    };
    (0..10 * count).for_each(&mut turn);
    let mut n = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        n += 1;
        turn(n);
    });
}
